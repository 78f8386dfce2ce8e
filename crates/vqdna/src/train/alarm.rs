//! Listens for codebooks that stay mostly unused.

use super::TrainConfig;
use crate::objective::Measures;

/// Log entries in a row with low usage before the alarm.
const ALARM_PATIENCE: u32 = 5;
/// Share of the steps before the alarm listens: codebooks need a while to spread.
const ALARM_AFTER: f64 = 0.1;

/// Listens for codebooks that stay mostly unused.
#[derive(Default)]
pub(super) struct UsageAlarm {
    low: u32,
}

impl UsageAlarm {
    /// A message when usage has been low for a while; then quiet until it recovers.
    pub(super) fn hear(&mut self, config: &TrainConfig, done: u64, measures: &Measures) -> Option<String> {
        if (done as f64) < ALARM_AFTER * config.steps as f64 {
            return None;
        }
        let usage = measures.iter().filter(|(name, _)| name.starts_with("usage_"));
        let lowest = usage.min_by(|a, b| a.1.total_cmp(&b.1))?;
        if lowest.1 >= config.usage_alarm {
            self.low = 0;
            return None;
        }
        self.low += 1;
        (self.low == ALARM_PATIENCE).then(|| {
            let level = lowest.0.strip_prefix("usage_").unwrap_or(&lowest.0);
            format!(
                "only {:.0} % of the codes of level {level} are in use after {done} steps; try a smaller codebook, \
                 a larger `revive_below`, or `--quantizer fsq`",
                100.0 * lowest.1
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alarm_waits_rings_once_and_rearms() {
        let config = TrainConfig { steps: 100, usage_alarm: 0.5, ..TrainConfig::default() };
        let low = vec![("usage_1".to_owned(), 0.9), ("usage_2".to_owned(), 0.1)];
        let fine = vec![("usage_1".to_owned(), 0.9)];
        let mut alarm = UsageAlarm::default();
        let mut rings = |measures: &Measures, done| alarm.hear(&config, done, measures).is_some();
        assert!(!(0..9).any(|done| rings(&low, done)), "too early");
        assert_eq!((10..30).filter(|&done| rings(&low, done)).count(), 1);
        assert!(!rings(&fine, 30));
        assert_eq!((31..40).filter(|&done| rings(&low, done)).count(), 1);
    }
}
