//! The learning rate as a pure function of the step: linear warm-up, then a cosine to a floor. Nothing to resume.

use serde::{Deserialize, Serialize};

/// Warm-up and decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// The highest rate.
    pub rate: f64,
    /// Share of the steps spent rising to it.
    pub warmup: f64,
    /// The last rate as a share of the highest.
    pub floor: f64,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        // VQDNA gives 1e-4 for batches of 1024 windows; small batches on a laptop learn faster with more.
        // Warm-up of 2 %: `docs/vqdna.md`, decision A14.
        Self { rate: 1e-3, warmup: 0.02, floor: 0.0 }
    }
}

impl ScheduleConfig {
    /// Steps of warm-up in a run of `steps`.
    #[must_use]
    pub fn warmup_steps(&self, steps: u64) -> u64 {
        (self.warmup * steps as f64).round() as u64
    }

    /// The rate of `step`, counted from 0, in a run of `steps`.
    #[must_use]
    pub fn rate_at(&self, step: u64, steps: u64) -> f64 {
        let warmup = self.warmup_steps(steps);
        if step < warmup {
            return self.rate * (step + 1) as f64 / warmup as f64;
        }
        let done = (step + 1 - warmup) as f64 / (steps - warmup).max(1) as f64;
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos());
        self.rate * (self.floor + (1.0 - self.floor) * cosine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_the_floor() {
        let schedule = ScheduleConfig { rate: 2.0, warmup: 0.25, floor: 0.1 };
        let rates: Vec<f64> = (0..8).map(|step| schedule.rate_at(step, 8)).collect();
        assert_eq!(rates[..2], [1.0, 2.0]);
        assert!(rates[2..].is_sorted_by(|a, b| a > b));
        assert!((rates[7] - 0.2).abs() < 1e-12);
        assert!(schedule.rate_at(100, 8) >= 0.2 - 1e-12, "never rises again");
    }
}
