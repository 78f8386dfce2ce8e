//! Stage 1 as one call: FASTA in, a folder with a vocabulary out.

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::time::Instant;

use super::config::{ConfigError, CorpusConfig, DataConfig, StageConfig, check_data, check_train, require};
use super::source::{Bases, Windows};
use super::stage::{Finished, Job, StageError, StageObserver, identity_over};
use crate::model_dir::{self, ModelConfig};
use crate::objective::reconstruct::Reconstruct;
use crate::tokenizer::TokenizerConfigError;
use crate::tokenizer::vqdna::{Kind, Preset, VqdnaConfig, publish};
use crate::train::{Ending, TrainConfig, Training};

/// Everything that a run of `learn` depends on, but its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LearnConfig {
    /// The one seed, from which all others are derived.
    pub seed: u64,
    /// What becomes of letters, and which windows are seen.
    pub data: DataConfig,
    /// The network.
    pub tokenizer: VqdnaConfig,
    /// The loop.
    pub train: TrainConfig,
}

impl Default for LearnConfig {
    fn default() -> Self {
        Self::preset(Preset::Small, Kind::Hrq)
    }
}

impl LearnConfig {
    /// The defaults of a size and a quantizer.
    #[must_use]
    pub fn preset(preset: Preset, kind: Kind) -> Self {
        let batch = match preset {
            Preset::Tiny | Preset::Small => 16,
            Preset::Base => 4,
        };
        let train = TrainConfig { batch, ..TrainConfig::default() };
        Self { seed: 1, data: DataConfig::default(), tokenizer: preset.config(kind), train }
    }
}

impl CorpusConfig for LearnConfig {
    fn data(&self) -> &DataConfig {
        &self.data
    }
}

impl StageConfig for LearnConfig {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn train(&self) -> &TrainConfig {
        &self.train
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.tokenizer.check().map_err(TokenizerConfigError::from)?;
        check_data(&self.data)?;
        require(self.data.codes.is_none(), "data.codes", "left out: a vocabulary is learned from bases")?;
        check_train(&self.train)
    }

    /// What is computed again changes no bit, so that a run that died for want of memory may go on with less.
    fn essence(&self) -> Self {
        let mut essence = self.clone();
        essence.train.recompute = false;
        essence
    }
}

/// Learns a vocabulary.
pub struct Learn<'a> {
    /// From what, and where to.
    pub job: Job<'a>,
    /// The checked config.
    pub config: &'a LearnConfig,
}

impl Learn<'_> {
    /// Reads the inputs, trains, evaluates, and writes the folder.
    ///
    /// # Errors
    /// See [`StageError`]. Nothing but logs and checkpoints is written before training ends.
    pub fn run(&self, observer: &mut dyn StageObserver) -> Result<Finished, StageError> {
        let begun = Instant::now();
        self.job.unless_stopped(begun, self.learn(begun, observer))
    }

    fn learn(&self, begun: Instant, observer: &mut dyn StageObserver) -> Result<Finished, StageError> {
        let Self { job, config } = self;
        config.check()?;
        let _claim = job.claim(observer)?;
        let corpus = job.read(&config.data, observer)?;
        let windows = Windows::new(&corpus, *config);
        job.begin(*config, &corpus, windows.sizes(), observer)?;

        let device = job.device.clone().autodiff();
        let bases = Bases { corpus: &corpus, soft_masked_weight: config.data.soft_masked_weight };
        let (source, test) = (windows.source(&bases, &device), windows.test_source(&bases, &device));
        let objective = Reconstruct { config: config.tokenizer.clone(), seed: config.seed, start_rows: START_ROWS };
        let training = Training {
            objective: &objective,
            source: &source,
            config: &config.train,
            selection: None,
            identity: identity_over(*config, &corpus, None),
            folder: job.folder,
            stop: job.stop,
        };
        let model = config.tokenizer.init(config.seed, &device);
        let (model, finished) = job.train(&training, &test, model, begun, observer)?;
        if finished.ending == Ending::Finished {
            let manifest = job.manifest(*config, &corpus, None, windows.sizes(), &finished);
            let made = ModelConfig::new(config.tokenizer.clone(), config.data.letters);
            model_dir::save(job.folder, &made, &publish(&model.valid()), &manifest)?;
        }
        Ok(finished)
    }
}

/// Vectors that k-means sees: the windows that it takes to gather them come from the first steps of training.
pub(crate) const START_ROWS: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantizer::QuantizerConfig;
    use vqdna_data::span::StrandPolicy;

    fn set(assignments: &[&str]) -> Result<LearnConfig, ConfigError> {
        let assignments: Vec<String> = assignments.iter().map(|&a| a.to_owned()).collect();
        LearnConfig::default().with_changes(None, &assignments)
    }

    #[test]
    fn presets_are_consistent_and_survive_toml() {
        for preset in [Preset::Tiny, Preset::Small, Preset::Base] {
            for kind in [Kind::Vq, Kind::Hrq, Kind::Rq, Kind::Fsq] {
                let config = LearnConfig::preset(preset, kind);
                config.check().unwrap_or_else(|e| panic!("{preset:?} {kind:?}: {e}"));
                let text = toml::to_string(&config).expect("serialises");
                assert_eq!(toml::from_str::<LearnConfig>(&text).expect("parses"), config);
            }
        }
    }

    #[test]
    fn single_fields_change() {
        let config =
            set(&["train.steps=7", "data.strand=both", "tokenizer.quantizer.codebook.decay=0.8"]).expect("known");
        assert_eq!((config.train.steps, config.data.strand), (7, StrandPolicy::Both));
        assert_eq!(config.tokenizer.quantizer.codebook().map(|c| c.decay), Some(0.8));
        let config = set(&["tokenizer.quantizer.kind=vq", "tokenizer.quantizer.codebook_size=64"]).expect("known");
        assert!(matches!(config.tokenizer.quantizer, QuantizerConfig::Vq(vq) if vq.codebook_size == 64));
    }

    #[test]
    fn mistakes_name_their_field() {
        for (assignment, parts) in [
            ("train.stepz=7", ["train", "unknown field `stepz`"]),
            ("train.steps=many", ["train.steps", "invalid type"]),
            ("tokenizer.quantizer.codebook.decya=1", ["quantizer", "decya"]),
            ("tokenizer.quantizer.kind=vqq", ["quantizer", "vqq"]),
            ("steps", ["steps", "field=value"]),
        ] {
            let message = set(&[assignment]).expect_err(assignment).to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{assignment}: {message}");
        }
    }

    #[test]
    fn contradictions_name_their_field() {
        for (assignment, part) in [
            ("data.stride=600", "data.stride"),
            ("data.stride=100", "data.stride"),
            ("train.batch=0", "train.batch"),
            ("data.codes=cached", "data.codes"),
            ("train.schedule.rate=0", "train.schedule.rate"),
            ("train.schedule.warmup_steps=2001", "train.schedule.warmup_steps"),
            ("tokenizer.kernel=4", "tokenizer.kernel"),
            ("tokenizer.taps=[3]", "tokenizer.taps"),
            ("tokenizer.taps=[6]", "tokenizer.taps"),
            ("tokenizer.quantizer.codebook_sizes=[256, 70000]", "70000"),
            ("tokenizer.quantizer.codebook.decay=1.5", "codebook.decay"),
        ] {
            let message = set(&[assignment]).expect(assignment).check().expect_err(assignment).to_string();
            assert!(message.contains(part), "{assignment}: {message}");
        }
    }
}
