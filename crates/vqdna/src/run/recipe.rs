//! Published settings of fine-tuning, by name: those with which DNABERT-2 (Zhou et al. 2024) was fine-tuned on each group of GUE.
//!
//! They are for an encoder of 117 million parameters; a small one learns faster with its own defaults.

use super::finetune::{FinetuneConfig, Mode};
use crate::train::schedule::Decay;

/// A group of GUE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipe {
    /// Epigenetic marks of yeast (EMP).
    GueEmp,
    /// Core promoters, all and without TATA box.
    GuePromCore,
    /// Core promoters with TATA box.
    GuePromCoreTata,
    /// Promoters of 300 bases, all and without TATA box.
    GueProm300,
    /// Promoters of 300 bases with TATA box.
    GueProm300Tata,
    /// Splice sites.
    GueSplice,
    /// Variants of SARS-CoV-2.
    GueCovid,
    /// Transcription factors, human.
    GueTf,
    /// Transcription factors, mouse.
    GueMouse,
}

impl Recipe {
    /// All recipes by name.
    pub const NAMED: [(&str, Self); 9] = [
        ("gue-emp", Self::GueEmp),
        ("gue-prom-core", Self::GuePromCore),
        ("gue-prom-core-tata", Self::GuePromCoreTata),
        ("gue-prom-300", Self::GueProm300),
        ("gue-prom-300-tata", Self::GueProm300Tata),
        ("gue-splice", Self::GueSplice),
        ("gue-covid", Self::GueCovid),
        ("gue-tf", Self::GueTf),
        ("gue-mouse", Self::GueMouse),
    ];

    /// The recipe of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMED.iter().find(|(known, _)| *known == name).map(|(_, recipe)| *recipe)
    }
    /// The config with the published settings: rate, batch, warm-up, decay, epochs, steps between evaluations. Full
    /// fine-tuning has the rate of DNABERT-2, adapters that of the Nucleotide Transformer on the same tasks.
    #[must_use]
    pub fn apply(self, mut config: FinetuneConfig) -> FinetuneConfig {
        let (epochs, warmup, evaluate_every) = match self {
            Self::GueEmp => (3.0, 50, 200),
            Self::GuePromCore | Self::GueProm300 => (4.0, 50, 400),
            Self::GuePromCoreTata | Self::GueProm300Tata => (10.0, 50, 200),
            Self::GueSplice => (5.0, 50, 200),
            Self::GueCovid => (8.0, 50, 200),
            Self::GueTf => (3.0, 30, 200),
            Self::GueMouse => (5.0, 30, 200),
        };
        config.epochs = epochs;
        // Published as a cap of `max_steps`.
        config.most_steps = if self == Self::GueMouse { 1000 } else { 0 };
        let train = &mut config.train;
        train.batch = 32;
        train.accumulate = 1;
        train.evaluate_every = evaluate_every;
        train.schedule.rate = if config.mode == Mode::Lora { 1e-4 } else { 3e-5 };
        train.schedule.warmup_steps = Some(warmup);
        train.schedule.decay = Decay::Linear;
        train.optimizer.weight_decay = 0.01;
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::config::StageConfig;

    #[test]
    fn recipes_are_sound_and_read_by_name() {
        for (name, recipe) in Recipe::NAMED {
            assert_eq!(Recipe::named(name), Some(recipe));
            let config = recipe.apply(FinetuneConfig::of_mode(Mode::Full));
            assert!(config.check().is_ok());
            assert_eq!((config.train.schedule.rate, config.train.batch), (3e-5, 32));
        }
        // Test vector M8: 3 epochs of ⌈47356 / 32⌉ batches.
        let config = Recipe::GueEmp.apply(FinetuneConfig::of_mode(Mode::Full));
        let train = config.training(47_356);
        assert_eq!(train.steps, 4440);
        for (after, rate) in [(25, 1.5e-5), (50, 3e-5), (2245, 1.5e-5), (4440, 0.0)] {
            assert!((train.schedule.rate_at(after - 1, train.steps) - rate).abs() < 1e-12, "after {after} steps");
        }
        assert_eq!(Recipe::GueMouse.apply(FinetuneConfig::default()).training(53_952).steps, 1000);
    }
}
