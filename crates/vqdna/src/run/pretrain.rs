//! Stage 2 as one call: a tokenizer and FASTA in, a folder with a pre-trained model out.

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::io;
use std::time::Instant;
use vqdna_data::corpus::Corpus;
use vqdna_data::markov::Costs;
use vqdna_data::segment::Policy;
use vqdna_data::span::StrandPolicy;

use super::codes::{CodeFile, Found, Origin, WindowTokens};
use super::config::{
    CodesFrom, ConfigError, CorpusConfig, DataConfig, StageConfig, check_data, check_objective, check_train, require,
};
use super::source::Windows;
use super::stage::{Finished, Job, StageError, StageObserver, identity_over};
use crate::backbone::BackboneConfig;
use crate::backbone::mxdna::MxdnaConfig;
use crate::backbone::transformer::TransformerConfig;
use crate::model::LanguageModel;
use crate::model_dir::{self, ModelConfig, Vocabulary};
use crate::objective::masking::MaskingConfig;
use crate::objective::{Measures, ObjectiveConfig, Over};
use crate::ops::Frozen;
use crate::tokenizer::vqdna::Preset;
use crate::tokenizer::{Tokenizer, TokenizerConfig};
use crate::train::checkpoint::Checkpoint;
use crate::train::optimizer::AdamwConfig;
use crate::train::schedule::ScheduleConfig;
use crate::train::{Ending, TrainConfig, TrainError, Training};

/// Everything that a run of `pretrain` depends on, but its vocabulary and its inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainConfig {
    /// The one seed, from which all others are derived.
    pub seed: u64,
    /// What becomes of letters, and which windows are seen.
    pub data: DataConfig,
    /// The tokenizer, if it is not a vocabulary that was learned before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<TokenizerConfig>,
    /// Which tokens are predicted, and from what.
    pub objective: ObjectiveConfig,
    /// The encoder.
    pub backbone: BackboneConfig,
    /// Weight in the loss of what the encoder adds: the load-balancing loss of experts.
    pub balance: f64,
    /// The loop.
    pub train: TrainConfig,
}

impl Default for PretrainConfig {
    fn default() -> Self {
        Self::preset(Preset::Small, Policy::default())
    }
}

impl PretrainConfig {
    /// The defaults of a size, over a vocabulary. Letters are dealt with as the vocabulary learned them.
    #[must_use]
    pub fn preset(preset: Preset, letters: Policy) -> Self {
        // VQDNA's rate; a narrow network in a short run learns several times faster with more.
        let (backbone, batch, rate) = match preset {
            Preset::Tiny => (TransformerConfig::tiny(), 16, 2e-3),
            Preset::Small => (TransformerConfig::small(), 16, 5e-4),
            Preset::Base => (TransformerConfig::base(), 4, 5e-4),
        };
        // Where the paper is silent, DNABERT-2's recipe, with its 30 of 500 thousand steps of warm-up as a share: `docs/vqdna.md`,
        // decision A14.
        let train = TrainConfig {
            batch,
            schedule: ScheduleConfig { rate, warmup: 0.06, ..ScheduleConfig::default() },
            optimizer: AdamwConfig { beta2: 0.98, eps: 1e-6, weight_decay: 1e-5, ..AdamwConfig::default() },
            ..TrainConfig::default()
        };
        let data = DataConfig { letters, codes: Some(CodesFrom::default()), ..DataConfig::default() };
        let (tokenizer, objective) = (None, ObjectiveConfig::Masked(MaskingConfig::default()));
        Self { seed: 1, data, tokenizer, objective, backbone: backbone.into(), balance: 0.01, train }
    }

    /// The defaults of a size, over a fixed tokenizer: those of [`PretrainConfig::preset`], but for what DNABERT-2 has, and `MxDNA`. Where
    /// tokens overlap, as many neighbours are masked as hide one base.
    #[must_use]
    pub fn fixed(preset: Preset, tokenizer: TokenizerConfig) -> Self {
        let config = Self::preset(preset, Policy::default());
        let masking = MaskingConfig { share: 0.15, span: tokenizer.overlap(), ..MaskingConfig::default() };
        Self {
            data: DataConfig { codes: None, ..config.data },
            objective: ObjectiveConfig::Masked(masking),
            tokenizer: Some(tokenizer),
            ..config
        }
    }

    /// The defaults of a size of MxDNA, over bases. The paper names neither optimiser nor schedule: those of the other encoder.
    #[must_use]
    pub fn mxdna(preset: Preset) -> Self {
        let backbone = match preset {
            Preset::Tiny => MxdnaConfig::tiny(),
            Preset::Small => MxdnaConfig::small(),
            Preset::Base => MxdnaConfig::base(),
        };
        Self { backbone: backbone.into(), ..Self::fixed(preset, TokenizerConfig::mxdna()) }
    }
}

impl PretrainConfig {
    /// The encoder that learns: that of the config as the objective needs it.
    ///
    /// # Panics
    /// If it has no such form, which [`StageConfig::check`] refuses.
    #[must_use]
    pub fn encoder(&self) -> BackboneConfig {
        self.objective.encoder(&self.backbone).expect("a checked config")
    }
}

impl CorpusConfig for PretrainConfig {
    fn data(&self) -> &DataConfig {
        &self.data
    }
}

impl StageConfig for PretrainConfig {
    /// `mxdna` was the encoder of that name before it was a kind of `backbone`, and `masking` the objective before there was another.
    const FORMER: &'static [[&'static str; 3]] = &[["mxdna", "backbone", "mxdna"], ["masking", "objective", "masked"]];

    fn settled(&self) -> Option<[&'static str; 2]> {
        self.tokenizer.is_none().then_some(["tokenizer", "that of the vocabulary, which stays as it is"])
    }

    fn seed(&self) -> u64 {
        self.seed
    }

    fn train(&self) -> &TrainConfig {
        &self.train
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.backbone.check()?;
        self.objective.encoder(&self.backbone)?;
        check_data(&self.data)?;
        match &self.tokenizer {
            None => require(self.data.codes.is_some(), "data.codes", "`cached` or `on-the-fly`")?,
            Some(tokenizer) => {
                tokenizer.check()?;
                require(tokenizer.fixed().is_some(), "tokenizer.kind", "that of a tokenizer that is not learned")?;
                require(self.data.codes.is_none(), "data.codes", "left out: the tokenizer has no codes")?;
            }
        }
        check_objective(&self.objective, &self.data)?;
        require(self.balance >= 0.0 && self.balance.is_finite(), "balance", "0 or more")?;
        check_train(&self.train)
    }

    /// What is computed again changes no bit, and codes and vocabularies are the same from wherever they come.
    fn essence(&self) -> Self {
        let mut essence = self.clone();
        essence.train.recompute = false;
        essence.data.codes = essence.data.codes.map(|_| CodesFrom::default());
        essence.tokenizer = essence.tokenizer.map(|tokenizer| tokenizer.within(None));
        essence
    }
}

/// Pre-trains an encoder over tokens.
pub struct Pretrain<'a> {
    /// From what, and where to.
    pub job: Job<'a>,
    /// The checked config.
    pub config: &'a PretrainConfig,
    /// The vocabulary, which stays as it is; none over a tokenizer that the config names.
    pub vocabulary: Option<&'a Vocabulary>,
    /// The highest order of Markov models whose bits per base are measured beside the model; none if they are not.
    pub markov: Option<usize>,
}

impl Pretrain<'_> {
    /// Reads the inputs, computes their tokens, trains, evaluates, and writes the folder.
    ///
    /// # Errors
    /// See [`StageError`]. Nothing but codes, logs and checkpoints is written before training ends.
    ///
    /// # Panics
    /// If there is neither a vocabulary nor a tokenizer in the config.
    pub fn run(&self, observer: &mut dyn StageObserver) -> Result<Finished, StageError> {
        let begun = Instant::now();
        self.job.unless_stopped(begun, self.pretrain(begun, observer))
    }

    fn pretrain(&self, begun: Instant, observer: &mut dyn StageObserver) -> Result<Finished, StageError> {
        let Self { job, config, vocabulary, .. } = self;
        config.check()?;
        let _claim = job.claim(observer)?;
        let corpus = job.read(&config.data, observer)?;
        let windows = Windows::new(&corpus, *config);
        job.begin(*config, &corpus, windows.sizes(), observer)?;
        let digest = vocabulary.map(|vocabulary| vocabulary.digest.clone());
        let identity = identity_over(*config, &corpus, digest.as_deref());
        if job.resume && vocabulary.is_some() {
            // Before the codes of another run are replaced.
            Checkpoint::check(job.folder, &identity)?;
        }
        let (named, tokenizer) = self.tokenizer();
        let tokens = self.tokens(&corpus, &tokenizer, observer)?;

        let device = job.device.clone().autodiff();
        let (source, test) = (windows.source(&tokens, &device), windows.test_source(&tokens, &device));
        let objective = config.objective.over(Over {
            named: &named,
            tokenizer: &tokenizer,
            pool: config.backbone.pool(),
            balance: config.balance,
            seed: config.seed,
        });
        let training = Training {
            objective: &objective,
            source: &source,
            config: &config.train,
            selection: None,
            identity,
            folder: job.folder,
            stop: job.stop,
        };
        let model = LanguageModel::new(&config.encoder(), named.source(), &named.sizes(), config.seed, &device);
        let (model, mut finished) = job.train(&training, &test, model, begun, observer)?;
        if finished.ending == Ending::Finished {
            if let Some(most) = self.markov {
                finished.measures.extend(self.markov_measures(&windows, &corpus, most)?);
            }
            let manifest = job.manifest(*config, &corpus, digest.as_deref(), windows.sizes(), &finished);
            let (backbone, trained_by) = (config.encoder(), config.objective.clone());
            let (letters, window) = (config.data.letters, Some(config.data.length));
            let made = ModelConfig::of_pretrained(named, digest, letters, backbone, trained_by, window);
            let weights = model_dir::publish(&made, &tokenizer, &model.valid());
            model_dir::save(job.folder, &made, &weights, &manifest)?;
        }
        Ok(finished)
    }

    /// The tokenizer, as a config and in use.
    fn tokenizer(&self) -> (TokenizerConfig, Tokenizer) {
        match (self.vocabulary, &self.config.tokenizer) {
            (Some(vocabulary), _) => (vocabulary.tokenizer.clone().into(), vocabulary.model.clone().into()),
            (None, Some(named)) => (named.clone(), named.fixed().expect("a checked config")),
            (None, None) => panic!("a vocabulary, or a tokenizer in the config"),
        }
    }

    /// Bits per base of Markov models on the windows that the model is measured on.
    fn markov_measures(&self, windows: &Windows, corpus: &Corpus, most: usize) -> Result<Measures, StageError> {
        let go_on = || self.job.poll().is_continue();
        let costs = windows.markov(corpus, most, &go_on).map_err(|error| match error.kind() {
            io::ErrorKind::Interrupted => StageError::Interrupted,
            _ => TrainError::Data(error).into(),
        })?;
        let Some(Costs { add_one, back_off, bases }) = costs else { return Ok(Measures::new()) };
        let named = |kind: &'static str, bits: Vec<f64>| {
            let of_order = move |(order, bits)| (format!("{kind}_{order}_bits_per_base"), bits / bases as f64);
            bits.into_iter().enumerate().map(of_order)
        };
        Ok(named("markov", add_one).chain(named("back_off", back_off)).collect())
    }

    fn tokens<'t>(
        &'t self,
        corpus: &'t Corpus,
        tokenizer: &'t Tokenizer,
        observer: &mut dyn StageObserver,
    ) -> Result<WindowTokens<'t>, StageError> {
        let data = &self.config.data;
        let origin = match (self.vocabulary, data.codes.unwrap_or_default()) {
            (None, _) => Origin::Bases(tokenizer),
            (Some(vocabulary), CodesFrom::OnTheFly) => Origin::Vocabulary(vocabulary, Frozen::default()),
            (Some(vocabulary), CodesFrom::Cached) => Origin::File(self.code_file(vocabulary, corpus, observer)?),
        };
        Ok(WindowTokens { corpus, predicts_soft_masked: data.soft_masked_weight > 0.0, origin })
    }

    fn code_file(
        &self,
        vocabulary: &Vocabulary,
        corpus: &Corpus,
        observer: &mut dyn StageObserver,
    ) -> Result<CodeFile, StageError> {
        let Self { job, config, .. } = self;
        match CodeFile::find(job.folder, vocabulary, corpus, &config.data, job.stop)? {
            Found::Codes(found) => {
                observer.found_codes();
                return Ok(found);
            }
            Found::Damaged => observer.alarm("the codes in the folder are damaged, and are computed again"),
            Found::Nothing => {}
        }
        let strands = if config.data.strand == StrandPolicy::Forward { 1 } else { 2 };
        let of = strands * corpus.segments().iter().map(|segment| segment.bases).sum::<u64>();
        let progress = &mut |bases| {
            observer.tokenizing(bases, of);
            job.poll()
        };
        Ok(CodeFile::compute(job.folder, vocabulary, corpus, &config.data, job.device, progress)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(assignments: &[&str]) -> Result<PretrainConfig, ConfigError> {
        let assignments: Vec<String> = assignments.iter().map(|&a| a.to_owned()).collect();
        PretrainConfig::default().with_changes(None, &assignments)
    }

    #[test]
    fn presets_are_consistent_and_survive_toml() {
        for preset in [Preset::Tiny, Preset::Small, Preset::Base] {
            for config in [PretrainConfig::preset(preset, Policy::default()), PretrainConfig::mxdna(preset)] {
                config.check().unwrap_or_else(|e| panic!("{preset:?}: {e}"));
                let text = toml::to_string(&config).expect("serialises");
                assert_eq!(toml::from_str::<PretrainConfig>(&text).expect("parses"), config);
            }
        }
    }

    #[test]
    fn single_fields_change_and_keep_the_defaults_of_the_stage() {
        let config = set(&["masking.span=41", "data.codes=on-the-fly", "backbone.pool=2", "train.optimizer.clip=0.5"])
            .expect("known");
        let ObjectiveConfig::Masked(masking) = &config.objective else { panic!("the default is masked") };
        assert_eq!((masking.span, config.backbone.pool()), (41, 2));
        assert_eq!(config.data.codes, Some(CodesFrom::OnTheFly));
        assert_eq!((config.train.optimizer.beta2, config.train.optimizer.clip), (0.98, 0.5));
    }

    #[test]
    fn contradictions_name_their_field() {
        for (assignment, part) in [
            ("backbone.heads=5", "backbone.heads"),
            ("backbone.pool=0", "backbone.pool"),
            ("masking.share=0", "objective.share"),
            ("masking.share=1", "objective.share"),
            ("masking.span=0", "objective.span"),
            ("masking.span=513", "objective.span"),
            ("masking.replaced=1.5", "objective.replaced"),
            ("masking.random=0.3", "objective.random"),
            ("data.soft_masked_weight=0.5", "data.soft_masked_weight"),
            ("data.stride=100", "data.stride"),
            ("train.batch=0", "train.batch"),
        ] {
            let message = set(&[assignment]).expect(assignment).check().expect_err(assignment).to_string();
            assert!(message.contains(part), "{assignment}: {message}");
        }
        for (assignment, parts) in [
            ("masking.spann=2", ["objective", "spann"]),
            ("data.codes=never", ["data.codes", "never"]),
            ("tokenizer.kernel=7", ["tokenizer", "that of the vocabulary"]),
        ] {
            let message = set(&[assignment]).expect_err(assignment).to_string();
            assert!(parts.iter().all(|part| message.contains(part)), "{assignment}: {message}");
        }
    }

    #[test]
    fn a_run_goes_on_with_codes_from_elsewhere_and_with_less_memory() {
        let config = PretrainConfig::default();
        let other = set(&["data.codes=on-the-fly", "train.recompute=true"]).expect("known");
        assert!(config != other && config.essence() == other.essence());
        assert!(set(&["masking.span=2"]).expect("known").essence() != config.essence());
    }
}
