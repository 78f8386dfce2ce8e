//! Stage 3 as one call: a model and labelled sequences in, a folder with a fine-tuned model out.

mod scaling;
mod settings;
mod task;

use burn::prelude::*;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;
use vqdna_data::labelled::{Labelling, Set, Targets, class_weights};
use vqdna_data::metric::{Bootstrap, Scores};

use super::config::StageConfig;
use super::labelled::{Features, Inputs, Labelled, LabelledSource, sequences};
use super::stage::{Finished, Job, StageError, StageObserver, identity};
use crate::backbone::{Backbone, BackboneConfig};
use crate::head::sequence::SequenceHead;
use crate::model::embed::{Embed, encoder};
use crate::model::{Predictor, Probe, SequenceModel};
use crate::model_dir::{self, Model, ModelConfig, TaskConfig};
use crate::objective::Measures;
use crate::objective::supervised::Supervised;
use crate::objective::supervised::prediction::Prediction;
use crate::tokenizer::rows::TokenRows;
use crate::tokenizer::{Source, Tokenizer};
use crate::train::selection::Best;
use crate::train::{Ending, TrainConfig, Trained, Training};
use crate::weights;

pub(super) use scaling::Scaling;
pub use settings::{ClassWeights, FinetuneConfig, Mode, ReverseComplement};
use task::HeldOut;
pub use task::Task;

/// What fine-tuning begins with.
#[derive(Clone, Debug)]
pub struct Base {
    /// What its folder holds.
    pub config: ModelConfig,
    /// Bases to tokens.
    pub tokenizer: Tokenizer,
    /// Tokens to hidden states, by an encoder that was pre-trained; none over a vocabulary alone.
    pub encoder: Option<(Embed, Backbone)>,
    /// Digest of the weights that it was loaded from.
    pub digest: String,
}

impl Base {
    /// Loads a vocabulary, a pre-trained model, or one that was fine-tuned before, whose head is left behind: it is of another task.
    ///
    /// # Errors
    /// If the folder holds none of them.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, StageError> {
        let Model { config, tokenizer, network, digest } = Model::load(folder, device)?;
        Ok(Self { config, tokenizer, encoder: network.encoder(), digest })
    }

    /// Digest of the vocabulary inside; none over a tokenizer that was not learned.
    fn vocabulary(&self) -> Option<String> {
        let is_learned = self.config.tokenizer.learned().is_some();
        is_learned.then(|| self.config.vocabulary.clone().unwrap_or_else(|| self.digest.clone()))
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

impl From<Finished> for Finetuning {
    fn from(finished: Finished) -> Self {
        Self { finished, scores: None }
    }
}

impl Finetune<'_> {
    /// Trains, evaluates on `test` (or on `dev` if there is none), and writes the folder.
    ///
    /// # Errors
    /// See [`StageError`]. Nothing but logs and checkpoints is written before training ends.
    pub fn run(&self, observer: &mut dyn StageObserver) -> Result<Finetuning, StageError> {
        let begun = Instant::now();
        self.job.unless_stopped(begun, self.finetune(begun, observer))
    }

    fn finetune(&self, begun: Instant, observer: &mut dyn StageObserver) -> Result<Finetuning, StageError> {
        let Self { job, config, task, .. } = self;
        config.check()?;
        task.check_selection(&config.selection)?;
        let _claim = job.claim(observer)?;
        job.write_config(*config)?;
        let train = config.training(task.splits.train.len());
        let learned = match config.mode {
            Mode::Probe => self.probe(&train, observer)?,
            Mode::Lora | Mode::Full => self.tune(&train, observer)?,
        };
        let mut finetuning = Finetuning::from(Finished {
            ending: learned.ending,
            best: learned.best,
            evaluated_on: "nothing",
            measures: Measures::new(),
            wall_s: begun.elapsed().as_secs_f64(),
        });
        if learned.ending == Ending::Finished {
            // The checkpoint holds all steps, from which a resumed run comes here again.
            self.evaluate(&learned.model, &mut finetuning, observer)?;
            if job.poll().is_break() {
                return Err(StageError::Interrupted);
            }
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

    /// Logistic or linear regression on standardized features, which is folded into the weights afterwards.
    fn probe(
        &self,
        train: &TrainConfig,
        observer: &mut dyn StageObserver,
    ) -> Result<Learned<SequenceModel>, StageError> {
        let (plain, task) = (self.job.device, self.task);
        let model = self.fresh(plain)?;
        let [outputs, width] = model.head.classifier.weight.dims();
        let features = |rows: &TokenRows| {
            let values = model.features_of(rows, plain, &|| self.job.poll());
            values.map(|values| Features { values, width }).ok_or(StageError::Interrupted)
        };
        let mut known = features(&task.train)?;
        let mut dev = task.dev.as_ref().map(|dev| features(&dev.inputs)).transpose()?;
        let mut reverse = task.train_reverse.as_ref().map(features).transpose()?;
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
        let source = base.config.tokenizer.source();
        let encoder = self.network().map(|network| {
            let (embed, backbone) = encoder(network, source, config.seed, device);
            let (embed, backbone) = match &base.encoder {
                Some((known, encoder)) if config.backbone.is_none() => {
                    (with_weights_of(embed, known), with_weights_of(backbone, encoder))
                }
                _ => (embed, backbone),
            };
            // Nothing is masked here.
            let embed = embed.without_mask();
            match config.mode {
                Mode::Lora => (embed.no_grad(), backbone.with_adapters(&config.lora, config.seed)),
                Mode::Full => (embed, backbone),
                Mode::Probe => (embed.no_grad(), backbone.no_grad()),
            }
        });
        let outputs = self.task.splits.labelling.outputs().len();
        let width = match (self.network(), source) {
            (Some(network), _) => network.width(),
            (None, Source::Vectors(width) | Source::Table(width)) => width,
        };
        let head = SequenceHead::new(&config.head, width, outputs, config.seed, device);
        let (embed, backbone) = encoder.unzip();
        Ok(SequenceModel { embed, backbone, head })
    }

    /// The config of the encoder, if there is one.
    fn network(&self) -> Option<&BackboneConfig> {
        self.config.backbone.as_ref().or(self.base.config.backbone.as_ref())
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

    fn evaluate(
        &self,
        model: &SequenceModel,
        finetuning: &mut Finetuning,
        observer: &mut dyn StageObserver,
    ) -> Result<(), StageError> {
        let (task, splits) = (self.task, &self.task.splits);
        let known = [("test", &task.test, &splits.test), ("dev", &task.dev, &splits.dev)];
        let found = known.into_iter().find_map(|(name, rows, set)| Some((name, rows.as_ref()?, set.as_ref()?)));
        let Some((name, HeldOut { inputs: rows, of }, set)) = found else { return Ok(()) };
        observer.evaluating(set.len());
        let (device, poll) = (self.job.device, &|| self.job.poll());
        let outputs_of = |rows: &TokenRows| model.outputs_of(rows, device, poll).ok_or(StageError::Interrupted);
        let mut outputs = outputs_of(rows)?;
        if self.config.reverse_complement == ReverseComplement::Average {
            let reverse = sequences(&self.base.tokenizer, &set.rows, true, device, poll);
            mean_of(&mut outputs, &outputs_of(&reverse.ok_or(StageError::Interrupted)?)?);
        }
        let prediction = Prediction::new(&splits.labelling, &outputs);
        let (prediction, targets) = whole(&splits.labelling, &prediction, &set.targets, of);
        let scores = prediction.scores(&targets, Some(Bootstrap::default()));
        finetuning.finished.evaluated_on = name;
        finetuning.finished.measures =
            scores.scores.iter().filter_map(|score| Some((score.name.clone(), score.value?))).collect();
        finetuning.scores = Some(scores);
        Ok(())
    }

    fn save(&self, model: &SequenceModel, train: &TrainConfig, finetuning: &Finetuning) -> Result<(), StageError> {
        let (job, config, base, splits) = (self.job, self.config, self.base, &self.task.splits);
        let keeps = config.keep_adapters && config.mode == Mode::Lora;
        let model = if keeps { model.clone() } else { model.clone().merged() };
        let made_of = TaskConfig {
            lora: keeps.then(|| config.lora.clone()),
            head: config.head.clone(),
            labelling: splits.labelling.clone(),
            columns: Some((*splits.train.rows.columns).clone()),
            window: splits.train.rows.lengths().into_iter().max().unwrap_or_default(),
            both_strands: config.reverse_complement == ReverseComplement::Average,
        };
        let network = ModelConfig { letters: config.letters(&base.config), ..base.config.clone() };
        let made = ModelConfig::of_finetuned(&network, base.vocabulary(), self.network().cloned(), made_of);
        let weights = model_dir::publish_finetuned(&made, &base.tokenizer, &model);
        let resolved = FinetuneConfig { train: train.clone(), ..config.clone() };
        let rows = (splits.train.len(), splits.dev.as_ref().map_or(0, Set::len));
        let manifest = job.manifest_of(&resolved, &splits.digests, Some(&base.digest), rows, &finetuning.finished);
        model_dir::save(job.folder, &made, &weights, &manifest)?;
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
