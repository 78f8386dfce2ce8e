//! Pre-training of a model that cuts sequences itself, as one call: FASTA in, a folder with a pre-trained model out.

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Instant;
use vqdna_data::alphabet::N;
use vqdna_data::corpus::Corpus;

use super::config::{
    ConfigError, CorpusConfig, DataConfig, StageConfig, check_data, check_masking, check_train, require,
};
use super::source::{Gather, Place, Windows};
use super::stage::{Finished, Job, StageError, StageObserver, identity_over};
use crate::batch::{CodeBatch, CodeWindow};
use crate::folder::{self, ModelConfig};
use crate::objective::letters::{LetterModel, MaskedLetters};
use crate::objective::masked::masking::MaskingConfig;
use crate::tokenizer::mxdna::MxdnaConfig;
use crate::tokenizer::vqdna::Preset;
use crate::train::optimizer::AdamwConfig;
use crate::train::schedule::ScheduleConfig;
use crate::train::{Ending, TrainConfig, Training};

/// Everything that a run of `pretrain --tokenizer mxdna` depends on, but its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainMxdnaConfig {
    /// The one seed, from which all others are derived.
    pub seed: u64,
    /// What becomes of letters, and which windows are seen.
    pub data: DataConfig,
    /// Which bases are hidden.
    pub masking: MaskingConfig,
    /// Weight of the balance of the experts in the loss.
    pub balance: f64,
    /// The encoder.
    pub mxdna: MxdnaConfig,
    /// The loop.
    pub train: TrainConfig,
}

impl Default for PretrainMxdnaConfig {
    fn default() -> Self {
        Self::preset(Preset::Small)
    }
}

impl PretrainMxdnaConfig {
    /// The defaults of a size.
    #[must_use]
    pub fn preset(preset: Preset) -> Self {
        let (mxdna, batch, rate) = match preset {
            Preset::Tiny => (MxdnaConfig::tiny(), 16, 2e-3),
            Preset::Small => (MxdnaConfig::small(), 16, 5e-4),
            Preset::Base => (MxdnaConfig::base(), 4, 5e-4),
        };
        // The paper names neither optimiser nor schedule: those of the other encoder.
        let train = TrainConfig {
            batch,
            schedule: ScheduleConfig { rate, warmup: 0.06, ..ScheduleConfig::default() },
            optimizer: AdamwConfig { beta2: 0.98, eps: 1e-6, weight_decay: 1e-5, ..AdamwConfig::default() },
            ..TrainConfig::default()
        };
        let masking = MaskingConfig { share: 0.15, ..MaskingConfig::default() };
        Self { seed: 1, data: DataConfig::default(), masking, balance: 0.01, mxdna, train }
    }
}

impl CorpusConfig for PretrainMxdnaConfig {
    fn data(&self) -> &DataConfig {
        &self.data
    }
}

impl StageConfig for PretrainMxdnaConfig {
    fn seed(&self) -> u64 {
        self.seed
    }

    fn train(&self) -> &TrainConfig {
        &self.train
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.mxdna.check()?;
        check_data(&self.data)?;
        require(self.data.codes.is_none(), "data.codes", "left out: the model reads letters")?;
        check_masking(&self.masking, &self.data)?;
        require(self.balance >= 0.0 && self.balance.is_finite(), "balance", "0 or more")?;
        check_train(&self.train)
    }

    /// What is computed again changes no bit.
    fn essence(&self) -> Self {
        let mut essence = self.clone();
        essence.train.recompute = false;
        essence
    }
}

/// Pre-trains a model that cuts sequences itself.
pub struct PretrainMxdna<'a> {
    /// From what, and where to.
    pub job: Job<'a>,
    /// The checked config.
    pub config: &'a PretrainMxdnaConfig,
}

impl PretrainMxdna<'_> {
    /// Reads the inputs, trains, evaluates, and writes the folder.
    ///
    /// # Errors
    /// See [`StageError`]. Nothing but logs and checkpoints is written before training ends.
    pub fn run(&self, observer: &mut dyn StageObserver) -> Result<Finished, StageError> {
        let begun = Instant::now();
        self.job.unless_stopped(begun, self.pretrain(begun, observer))
    }

    fn pretrain(&self, begun: Instant, observer: &mut dyn StageObserver) -> Result<Finished, StageError> {
        let Self { job, config } = self;
        config.check()?;
        let _claim = job.claim(observer)?;
        let corpus = job.read(&config.data, observer)?;
        let windows = Windows::new(&corpus, *config);
        job.begin(*config, &corpus, windows.sizes(), observer)?;
        let device = job.device.clone().autodiff();
        let letters = BaseIds { corpus: &corpus, asks_soft_masked: config.data.soft_masked_weight > 0.0 };
        let (source, test) = (windows.source(&letters, &device), windows.test_source(&letters, &device));
        let objective = MaskedLetters { masking: config.masking.clone(), balance: config.balance, seed: config.seed };
        let training = Training {
            objective: &objective,
            source: &source,
            config: &config.train,
            selection: None,
            identity: identity_over(*config, &corpus, None),
            folder: job.folder,
            stop: job.stop,
        };
        let model = LetterModel::new(&config.mxdna, config.seed, &device);
        let (model, finished) = job.train(&training, &test, model, begun, observer)?;
        if finished.ending == Ending::Finished {
            let manifest = job.manifest(*config, &corpus, None, windows.sizes(), &finished);
            let made = ModelConfig::of_mxdna(&config.mxdna, config.data.letters, Some(config.data.length));
            folder::save(job.folder, &made, &folder::publish_mxdna(&model.valid()), &manifest)?;
        }
        Ok(finished)
    }
}

/// Windows as one level of codes: the ids of their bases.
struct BaseIds<'a> {
    corpus: &'a Corpus,
    /// Whether soft-masked bases are asked for.
    asks_soft_masked: bool,
}

impl Gather for BaseIds<'_> {
    type Batch = CodeBatch;

    fn gather(&self, places: &[Place], device: &Device) -> io::Result<CodeBatch> {
        let window = |place: &Place| {
            let read = place.read(self.corpus)?;
            let letters = read.bases.iter().zip(&read.soft_masked);
            let is_target = letters.map(|(&base, &soft)| base != N && (self.asks_soft_masked || !soft)).collect();
            let codes = vec![read.bases.iter().map(|&base| u16::from(base)).collect()];
            Ok(CodeWindow { codes, is_target, number: place.number })
        };
        Ok(CodeBatch { windows: places.iter().map(window).collect::<io::Result<_>>()?, device: device.clone() })
    }
}
