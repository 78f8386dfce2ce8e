//! The learning rate as a pure function of the step: linear warm-up, then a decay to a floor. Nothing to resume.

use serde::{Deserialize, Serialize};

/// Warm-up and decay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleConfig {
    /// The highest rate.
    pub rate: f64,
    /// Share of the steps spent rising to it.
    pub warmup: f64,
    /// Steps spent rising to it; where given, the share `warmup` is not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_steps: Option<u64>,
    /// How the rate falls after that.
    pub decay: Decay,
    /// The last rate as a share of the highest.
    pub floor: f64,
}

/// How the rate falls from its highest to its last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// By half a wave: slowly, fast, slowly.
    #[default]
    Cosine,
    /// By the same amount each step.
    Linear,
    /// Not at all; `floor` is not read.
    Constant,
}

impl Default for ScheduleConfig {
    fn default() -> Self {
        // VQDNA gives 1e-4 for batches of 1024 windows; small batches on a laptop learn faster with more.
        // Warm-up of 2 %: `docs/vqdna.md`, decision A14.
        Self { rate: 1e-3, warmup: 0.02, warmup_steps: None, decay: Decay::Cosine, floor: 0.0 }
    }
}

impl Decay {
    /// What is left of the way from the highest rate to the floor when a share `done` of the decay is done.
    fn left(self, done: f64) -> f64 {
        match self {
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * done).cos()),
            Self::Linear => 1.0 - done,
            Self::Constant => 1.0,
        }
    }
}

impl ScheduleConfig {
    /// Steps of warm-up in a run of `steps`.
    #[must_use]
    pub fn steps_of_warmup(&self, steps: u64) -> u64 {
        self.warmup_steps.unwrap_or_else(|| (self.warmup * steps as f64).round() as u64)
    }

    /// The rate of `step`, counted from 0, in a run of `steps`.
    #[must_use]
    pub fn rate_at(&self, step: u64, steps: u64) -> f64 {
        let warmup = self.steps_of_warmup(steps);
        if step < warmup {
            return self.rate * (step + 1) as f64 / warmup as f64;
        }
        let done = (step + 1 - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        self.rate * (self.floor + (1.0 - self.floor) * self.decay.left(done.min(1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_then_falls_to_the_floor() {
        for decay in [Decay::Cosine, Decay::Linear] {
            let schedule = ScheduleConfig { rate: 2.0, warmup: 0.25, decay, floor: 0.1, ..ScheduleConfig::default() };
            let rates: Vec<f64> = (0..8).map(|step| schedule.rate_at(step, 8)).collect();
            assert_eq!(rates[..2], [1.0, 2.0]);
            assert!(rates[2..].is_sorted_by(|a, b| a > b));
            assert!((rates[7] - 0.2).abs() < 1e-12);
            assert!(schedule.rate_at(100, 8) >= 0.2 - 1e-12, "never rises again");
        }
    }

    #[test]
    fn a_constant_rate_stays() {
        let schedule = ScheduleConfig { rate: 2.0, warmup: 0.5, decay: Decay::Constant, ..ScheduleConfig::default() };
        assert_eq!([0, 1, 2, 3].map(|step| schedule.rate_at(step, 4)), [1.0, 2.0, 2.0, 2.0]);
    }

    /// M8 of `docs/vectors.md`.
    #[test]
    fn warm_up_in_steps_and_a_linear_decay() {
        let schedule = ScheduleConfig {
            rate: 3e-5,
            warmup: 1.0, // not read
            warmup_steps: Some(50),
            decay: Decay::Linear,
            floor: 0.0,
        };
        for (done, rate) in [(25, 1.5e-5), (50, 3e-5), (2245, 1.5e-5), (4440, 0.0)] {
            assert!((schedule.rate_at(done - 1, 4440) - rate).abs() < 1e-12, "after {done} steps");
        }
    }
}
