//! Stage 3 as one call: a model and labelled sequences in, a folder with a fine-tuned model out.

mod settings;

use burn::prelude::*;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;
use vqdna_data::labelled::{LabelledError, Labelling, Set, Splits, Targets, class_weights};
use vqdna_data::metric::{Bootstrap, Scores};
use vqdna_data::segment::Counts;

use super::config::StageConfig;
use super::labelled::{Features, Inputs, Labelled, LabelledSource, sequences};
use super::stage::{Finished, Job, StageError, StageObserver, identity};
use crate::backbone::transformer::{Transformer, TransformerConfig};
use crate::folder::{self, Finetuned, FinetunedConfig, ModelConfig, Pretrained, PretrainedMxdna, Vocabulary};
use crate::head::sequence::SequenceHead;
use crate::layers::Linear;
use crate::objective::Measures;
use crate::objective::supervised::prediction::Prediction;
use crate::objective::supervised::{POSITIONS_TOGETHER, Predictor, Probe, SequenceModel, Supervised};
use crate::tokenizer::mxdna::{Mxdna, MxdnaConfig};
use crate::tokenizer::sequences::SequenceRows;
use crate::tokenizer::vqdna::Vqdna;
use crate::train::selection::Best;
use crate::train::{Ending, TrainConfig, Trained, Training};
use crate::weights::{self, replace};

pub use settings::{ClassWeights, FinetuneConfig, Mode, ReverseComplement};

/// What fine-tuning begins with.
#[derive(Clone, Debug)]
pub struct Base {
    /// What its folder holds.
    pub config: ModelConfig,
    /// Bases to codes, and codes to vectors; none of a model that cuts sequences itself.
    pub vocabulary: Option<Vocabulary>,
    /// The encoder over codes that was pre-trained; none over a vocabulary alone.
    pub backbone: Option<Transformer>,
    /// The encoder that was pre-trained and cuts sequences itself.
    pub encoder: Option<Mxdna>,
    /// Digest of the weights that it was loaded from.
    pub digest: String,
}

impl Base {
    /// Loads a vocabulary, a pre-trained model, or one that was fine-tuned before, whose head is left behind.
    ///
    /// # Errors
    /// If the folder holds none of them.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, StageError> {
        let config = ModelConfig::load(folder)?;
        match (config.kind(), config.mxdna.is_some()) {
            (folder::Kind::Vocabulary, _) => {
                let vocabulary = Vocabulary::load(folder, device)?;
                let digest = vocabulary.digest.clone();
                Ok(Self { config, vocabulary: Some(vocabulary), backbone: None, encoder: None, digest })
            }
            (folder::Kind::Pretrained, false) => {
                let Pretrained { config, vocabulary, model, digest } = Pretrained::load(folder, device)?;
                let (vocabulary, backbone) = (Some(vocabulary), Some(model.backbone));
                Ok(Self { config, vocabulary, backbone, encoder: None, digest })
            }
            (folder::Kind::Pretrained, true) => {
                let PretrainedMxdna { config, model, digest, .. } = PretrainedMxdna::load(folder, device)?;
                Ok(Self { config, vocabulary: None, backbone: None, encoder: Some(model.encoder), digest })
            }
            // What it learned stays, but its head, which is of another task.
            (folder::Kind::Finetuned, _) => {
                let Finetuned { config, vocabulary, model, digest, .. } = Finetuned::load(folder, device)?;
                Ok(Self { config, vocabulary, backbone: model.backbone, encoder: model.encoder, digest })
            }
        }
    }

    /// The network of the vocabulary.
    fn tokenizer(&self) -> Option<&Vqdna> {
        self.vocabulary.as_ref().map(|vocabulary| &vocabulary.model)
    }
}

/// A data set with its sequences as the model takes them, for as many runs as one likes.
#[derive(Clone, Debug)]
pub struct Task {
    /// Rows and labels. Where letter policies cut a sequence, each part is a row.
    pub splits: Splits,
    /// What the letter policies saw in all parts of the data set.
    pub counts: Counts,
    /// Rows of which the letter policies keep nothing, and which are left out.
    pub left_out: u64,
    train: SequenceRows,
    /// The training set from the other strand, where it is asked for.
    train_reverse: Option<SequenceRows>,
    dev: Option<HeldOut>,
    test: Option<HeldOut>,
}

/// The sequences of a set that is measured on.
#[derive(Clone, Debug)]
struct HeldOut {
    inputs: SequenceRows,
    /// Of each row, the number of the sequence that it is a part of; ascending.
    of: Vec<usize>,
}

impl Task {
    /// Applies the letter policies to a data set, and computes its codes if the model takes codes.
    ///
    /// # Errors
    /// If a letter is forbidden, a pair would be cut, or nothing is left to learn from.
    pub fn new(
        mut splits: Splits,
        base: &Base,
        config: &FinetuneConfig,
        device: &Device,
    ) -> Result<Self, LabelledError> {
        let (letters, mut counts, mut left_out) = (config.letters(&base.config), Counts::default(), 0);
        let mut cut = |set: Set| -> Result<(Set, Vec<usize>), LabelledError> {
            let (file, rows) = (set.rows.file.clone(), set.len());
            let (set, of) = set.cut(letters, &mut counts)?;
            left_out += (rows - of.chunk_by(|a, b| a == b).count()) as u64;
            if set.is_empty() { Err(LabelledError::NothingKept { file }) } else { Ok((set, of)) }
        };
        let rows = |set: &Set, reverse| sequences(base.tokenizer(), &set.rows, reverse, device);
        splits.train = cut(splits.train)?.0;
        let mut held_out = |part: &mut Option<Set>| -> Result<Option<HeldOut>, LabelledError> {
            let Some(set) = part.take() else { return Ok(None) };
            let (set, of) = cut(set)?;
            let inputs = rows(&set, false);
            *part = Some(set);
            Ok(Some(HeldOut { inputs, of }))
        };
        let (dev, test) = (held_out(&mut splits.dev)?, held_out(&mut splits.test)?);
        let strands = config.reverse_complement;
        Ok(Self {
            train: rows(&splits.train, false),
            train_reverse: (strands != ReverseComplement::None).then(|| rows(&splits.train, true)),
            dev,
            test,
            splits,
            counts,
            left_out,
        })
    }
}

/// Fine-tunes a model to a task.
pub struct Finetune<'a> {
    /// From what, and where to.
    pub job: Job<'a>,
    /// The checked config.
    pub config: &'a FinetuneConfig,
    /// What it begins with.
    pub base: &'a Base,
    /// What it learns.
    pub task: &'a Task,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Finetuning {
    /// How it ended, and the measures of [`Finetuning::scores`] in short.
    pub finished: Finished,
    /// All measures, with intervals; none if it was interrupted, or there is nothing to measure on.
    pub scores: Option<Scores>,
}

impl Finetune<'_> {
    /// Trains, evaluates on `test` (or on `dev` if there is none), and writes the folder.
    ///
    /// # Errors
    /// See [`StageError`]. Nothing but logs and checkpoints is written before training ends.
    pub fn run(&self, observer: &mut dyn StageObserver) -> Result<Finetuning, StageError> {
        let (begun, Self { job, config, task, .. }) = (Instant::now(), self);
        config.check()?;
        let _claim = job.claim(observer)?;
        job.write_config(*config)?;
        let train = config.training(task.splits.train.len());
        let learned = match config.mode {
            Mode::Probe => self.probe(&train, observer)?,
            Mode::Lora | Mode::Full => self.tune(&train, observer)?,
        };
        let mut finetuning = Finetuning {
            finished: Finished {
                ending: learned.ending,
                best: learned.best,
                evaluated_on: "nothing",
                measures: Measures::new(),
                wall_s: begun.elapsed().as_secs_f64(),
            },
            scores: None,
        };
        if learned.ending == Ending::Finished {
            self.evaluate(&learned.model, &mut finetuning, observer);
            finetuning.finished.wall_s = begun.elapsed().as_secs_f64();
            self.save(&learned.model, &train, &finetuning)?;
        }
        Ok(finetuning)
    }

    fn tune(
        &self,
        train: &TrainConfig,
        observer: &mut dyn StageObserver,
    ) -> Result<Learned<SequenceModel>, StageError> {
        let (device, task) = (self.job.device.clone().autodiff(), self.task);
        let model = self.fresh(&device)?;
        let reverse = task.train_reverse.as_ref();
        let trained = self.learn(
            model,
            &task.train,
            reverse,
            task.dev.as_ref().map(|dev| &dev.inputs),
            train,
            &device,
            observer,
        )?;
        Ok(Learned { model: trained.model.valid(), ending: trained.ending, best: trained.best })
    }

    /// Logistic or linear regression on features brought to mean 0 and deviation 1, which is folded into the weights afterwards.
    fn probe(
        &self,
        train: &TrainConfig,
        observer: &mut dyn StageObserver,
    ) -> Result<Learned<SequenceModel>, StageError> {
        let (plain, task) = (self.job.device, self.task);
        let model = self.fresh(plain)?;
        let [outputs, width] = model.head.classifier.weight.dims();
        let features = |rows: &SequenceRows| Features { values: model.features_of(rows, plain), width };
        let (mut known, mut dev) = (features(&task.train), task.dev.as_ref().map(|dev| features(&dev.inputs)));
        let mut reverse = task.train_reverse.as_ref().map(features);
        let scaling = Scaling::of(&known);
        [Some(&mut known), dev.as_mut(), reverse.as_mut()].into_iter().flatten().for_each(|found| scaling.apply(found));
        let device = plain.clone().autodiff();
        let probe = Probe::new(width, outputs, &device);
        let trained = self.learn(probe, &known, reverse.as_ref(), dev.as_ref(), train, &device, observer)?;
        let classifier = scaling.fold(trained.model.valid().classifier, plain);
        let model = SequenceModel { head: model.head.with_classifier(classifier), ..model };
        Ok(Learned { model, ending: trained.ending, best: trained.best })
    }

    #[allow(clippy::too_many_arguments, reason = "a model, what it learns from, and how")]
    fn learn<M: Predictor, I: Inputs<Batch = M::Input>>(
        &self,
        model: M,
        known: &I,
        reverse: Option<&I>,
        dev: Option<&I>,
        train: &TrainConfig,
        device: &Device,
        observer: &mut dyn StageObserver,
    ) -> Result<Trained<M>, StageError> {
        let (config, splits) = (self.config, &self.task.splits);
        let source = LabelledSource {
            train: Labelled::new(known, &splits.train),
            reverse,
            held_out: dev.zip(splits.dev.as_ref()).map(|(dev, set)| Labelled::new(dev, set)),
            labelling: &splits.labelling,
            batch: train.batch,
            accumulate: train.accumulate,
            seed: config.seed,
            device,
            lengths: known.lengths(),
            bases: splits.train.rows.lengths(),
            orders: Mutex::new(HashMap::new()),
        };
        let objective = Supervised {
            labelling: &splits.labelling,
            weights: self.weights(),
            balance: config.balance,
            seed: config.seed,
            model: PhantomData,
        };
        let training = Training {
            objective: &objective,
            source: &source,
            config: train,
            selection: splits.dev.as_ref().map(|_| &config.selection),
            identity: identity(self.config, &splits.digests, Some(&self.base.digest)),
            folder: self.job.folder,
            stop: self.job.stop,
        };
        Ok(training.run(model, self.job.resume, device, observer)?)
    }

    /// The model before the first step, on a device with autodiff or without.
    fn fresh(&self, device: &Device) -> Result<SequenceModel, StageError> {
        let (config, base) = (self.config, self.base);
        config.fits(&base.config)?;
        let backbone = self.network().map(|network| {
            let fresh = network.init(self.d_code(), config.seed, device);
            match &base.backbone {
                Some(known) if config.backbone.is_none() => with_weights_of(fresh, known),
                _ => fresh,
            }
        });
        // Nothing is masked here.
        let backbone =
            backbone.map(|known| Transformer { mask_vector: known.mask_vector.set_require_grad(false), ..known });
        let backbone = backbone.map(|known| match config.mode {
            Mode::Lora => known.with_adapters(&config.lora, config.seed),
            Mode::Full => known,
            Mode::Probe => known.no_grad(),
        });
        let encoder = self.mxdna().map(|network| {
            let fresh = network.init(config.seed, device);
            match &base.encoder {
                Some(known) if config.mxdna.is_none() => with_weights_of(fresh, known),
                _ => fresh,
            }
        });
        let encoder = encoder.map(|known| if config.mode == Mode::Probe { known.no_grad() } else { known });
        let outputs = self.task.splits.labelling.outputs().len();
        let widths = [self.network().map(|network| network.d_model), self.mxdna().map(|network| network.d_model)];
        let d_model = widths.into_iter().flatten().next().unwrap_or(self.d_code());
        let head = SequenceHead::new(&config.head, d_model, outputs, config.seed, device);
        Ok(SequenceModel { backbone, encoder, head })
    }

    /// Width of a code vector; 0 without codes.
    fn d_code(&self) -> usize {
        self.base.config.tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.d_code)
    }

    /// The config of the encoder over codes, if there is one.
    fn network(&self) -> Option<&TransformerConfig> {
        self.config.backbone.as_ref().or(self.base.config.backbone())
    }

    /// The config of the encoder that cuts sequences itself, if there is one.
    fn mxdna(&self) -> Option<&MxdnaConfig> {
        self.config.mxdna.as_ref().or(self.base.config.mxdna.as_ref())
    }

    fn weights(&self) -> Option<Vec<f64>> {
        if self.config.class_weights == ClassWeights::None {
            return None;
        }
        let splits = &self.task.splits;
        match &splits.train.targets {
            Targets::Classes(classes) => Some(class_weights(classes, splits.labelling.outputs().len())),
            Targets::Labels { labels, values } => {
                let positives = |label| values.iter().skip(label).step_by(*labels).filter(|&&applies| applies).count();
                let weight =
                    |count: usize| if count == 0 { 1.0 } else { (values.len() / labels - count) as f64 / count as f64 };
                Some((0..*labels).map(|label| weight(positives(label))).collect())
            }
            Targets::Values { .. } => None,
        }
    }

    fn evaluate(&self, model: &SequenceModel, finetuning: &mut Finetuning, observer: &mut dyn StageObserver) {
        let (task, splits) = (self.task, &self.task.splits);
        let known = [("test", &task.test, &splits.test), ("dev", &task.dev, &splits.dev)];
        let found = known.into_iter().find_map(|(name, rows, set)| Some((name, rows.as_ref()?, set.as_ref()?)));
        let Some((name, HeldOut { inputs: rows, of }, set)) = found else { return };
        observer.evaluating(set.len());
        let device = self.job.device;
        let mut outputs = model.outputs_of(rows, POSITIONS_TOGETHER, device);
        if self.config.reverse_complement == ReverseComplement::Average {
            let reverse = sequences(self.base.tokenizer(), &set.rows, true, device);
            mean_of(&mut outputs, &model.outputs_of(&reverse, POSITIONS_TOGETHER, device));
        }
        let prediction = Prediction::new(&splits.labelling, &outputs);
        let (prediction, targets) = whole(&splits.labelling, &prediction, &set.targets, of);
        let scores = prediction.scores(&targets, Some(Bootstrap::default()));
        finetuning.finished.evaluated_on = name;
        finetuning.finished.measures =
            scores.scores.iter().filter_map(|score| Some((score.name.clone(), score.value?))).collect();
        finetuning.scores = Some(scores);
    }

    fn save(&self, model: &SequenceModel, train: &TrainConfig, finetuning: &Finetuning) -> Result<(), StageError> {
        let (job, config, base, splits) = (self.job, self.config, self.base, &self.task.splits);
        let keeps = config.keep_adapters && config.mode == Mode::Lora;
        let model = match &model.backbone {
            Some(backbone) if !keeps => SequenceModel { backbone: Some(backbone.clone().merged()), ..model.clone() },
            _ => model.clone(),
        };
        let finetuned = FinetunedConfig {
            vocabulary: base.vocabulary.as_ref().map(|vocabulary| vocabulary.digest.clone()),
            backbone: self.network().cloned(),
            lora: keeps.then(|| config.lora.clone()),
            head: config.head.clone(),
            labelling: splits.labelling.clone(),
            columns: Some((*splits.train.rows.columns).clone()),
            window: splits.train.rows.lengths().into_iter().max().unwrap_or_default(),
            both_strands: config.reverse_complement == ReverseComplement::Average,
        };
        let network =
            ModelConfig { mxdna: self.mxdna().cloned(), letters: config.letters(&base.config), ..base.config.clone() };
        let made = ModelConfig::of_finetuned(&network, finetuned);
        let weights = folder::publish_finetuned(base.tokenizer(), &model);
        let resolved = FinetuneConfig { train: train.clone(), ..config.clone() };
        let rows = (splits.train.len(), splits.dev.as_ref().map_or(0, Set::len));
        let manifest = job.manifest_of(&resolved, &splits.digests, Some(&base.digest), rows, &finetuning.finished);
        folder::save(job.folder, &made, &weights, &manifest)?;
        Ok(())
    }
}

/// A model that was trained, without autodiff.
struct Learned<M> {
    model: M,
    ending: Ending,
    /// The evaluation that was kept.
    best: Option<Best>,
}

/// A module with the weights of another one of its shape.
fn with_weights_of<M: Module>(fresh: M, known: &M) -> M {
    weights::assign(fresh, &weights::collect(known)).expect("its own weights")
}

/// The mean of the predictions for the parts of each sequence, and what is true of it; `of` says which sequence a part is of.
fn whole<'a>(
    labelling: &'a Labelling,
    parts: &Prediction,
    targets: &Targets,
    of: &[usize],
) -> (Prediction<'a>, Targets) {
    let rows: Vec<&[f64]> = parts.rows().collect();
    let (mut values, mut first, mut start) = (Vec::new(), Vec::new(), 0);
    for parts in of.chunk_by(|a, b| a == b) {
        let rows = &rows[start..start + parts.len()];
        let mean = |output: usize| rows.iter().map(|row| row[output]).sum::<f64>() / rows.len() as f64;
        values.extend((0..labelling.outputs().len()).map(mean));
        first.push(start);
        start += parts.len();
    }
    (Prediction::merged(labelling, values), targets.select(&first))
}

/// The mean of both, in place of the first.
fn mean_of(first: &mut [f32], second: &[f32]) {
    first.iter_mut().zip(second).for_each(|(first, second)| *first = 0.5 * (*first + second));
}

/// What brings features to mean 0 and deviation 1.
pub(super) struct Scaling {
    means: Vec<f32>,
    deviations: Vec<f32>,
}

impl Scaling {
    pub(super) fn of(features: &Features) -> Self {
        let rows = (features.values.len() / features.width).max(1) as f64;
        let column = |c: usize| features.values.iter().skip(c).step_by(features.width).map(|&v| f64::from(v));
        let means: Vec<f64> = (0..features.width).map(|c| column(c).sum::<f64>() / rows).collect();
        let deviation = |c: usize| (column(c).map(|v| (v - means[c]).powi(2)).sum::<f64>() / rows).sqrt();
        let deviations =
            (0..features.width).map(|c| Some(deviation(c)).filter(|&d| d > 0.0).unwrap_or(1.0) as f32).collect();
        Self { means: means.into_iter().map(|mean| mean as f32).collect(), deviations }
    }

    pub(super) fn apply(&self, features: &mut Features) {
        for row in features.values.chunks_mut(features.width) {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.means).zip(&self.deviations) {
                *value = (*value - mean) / deviation;
            }
        }
    }

    /// The layer that does for features what `layer` does for scaled ones.
    fn fold(&self, layer: Linear, device: &Device) -> Linear {
        let row = |values: &[f32]| Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
        let (means, deviations) = (row(&self.means), row(&self.deviations));
        let weight = layer.weight.val() / deviations.unsqueeze();
        let shift = (weight.clone() * means.unsqueeze()).sum_dim(1).squeeze_dim::<1>(1);
        let bias = layer.bias.val() - shift;
        Linear { weight: replace(layer.weight, |_| weight), bias: replace(layer.bias, |_| bias) }
    }
}
