//! The only training loop: micro-batches, gradients, one optimiser step, one update outside it, logs, evaluation on held-out
//! batches, checkpoints, exact resume.
//!
//! A run is a pure function of its config and data: the micro-batches of step *n* depend on the seed and *n* alone, the
//! learning rate on *n*, and a checkpoint holds everything else. Resumed runs are therefore equal to uninterrupted ones, bit
//! for bit on the CPU.

mod alarm;
pub mod checkpoint;
mod error;
pub mod identity;
pub mod optimizer;
pub mod record;
pub mod schedule;
pub mod selection;
pub mod tensorboard;

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::objective::{Measures, Objective};
use crate::ops::{self, Precision};
use crate::weights::to_array;
use alarm::UsageAlarm;
use checkpoint::{Checkpoint, Contents};
use identity::Identity;
use optimizer::{Adamw, AdamwConfig, Gradients};
use record::Recorder;
use schedule::ScheduleConfig;
use selection::{Best, Kept, SelectionConfig};

pub use error::TrainError;

/// Settings of the loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Optimiser steps.
    pub steps: u64,
    /// How products are computed; bf16 on the CPU only. Parameters, sums and searches are f32 in both.
    pub precision: Precision,
    /// Whether the backward pass computes wide layers again instead of keeping them: a fraction of the memory, a sixth more work, the
    /// same numbers in every bit. See [`ops::with_recomputation`].
    pub recompute: bool,
    /// Windows in a micro-batch.
    pub batch: usize,
    /// Micro-batches in a step.
    pub accumulate: u64,
    /// Learning rate.
    pub schedule: ScheduleConfig,
    /// AdamW and clipping.
    pub optimizer: AdamwConfig,
    /// Steps between log entries.
    pub log_every: u64,
    /// Steps between evaluations on held-out windows; 0 evaluates at the end only.
    pub evaluate_every: u64,
    /// Windows of an evaluation on the way; the last one takes all.
    pub evaluate_windows: usize,
    /// Steps between checkpoints; 0 writes one at the end only.
    pub checkpoint_every: u64,
    /// Share of codes in use, at any level, below which an alarm is given; 0 never.
    pub usage_alarm: f64,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            steps: 2000,
            precision: Precision::F32,
            recompute: false,
            batch: 16,
            accumulate: 1,
            schedule: ScheduleConfig::default(),
            optimizer: AdamwConfig::default(),
            log_every: 20,
            evaluate_every: 500,
            evaluate_windows: 128,
            checkpoint_every: 500,
            usage_alarm: 0.5,
        }
    }
}

/// Where micro-batches come from.
pub trait Source {
    /// What a forward pass takes.
    type Batch;

    /// A micro-batch of a step, and how many real bases it holds. A pure function of its arguments.
    ///
    /// # Errors
    /// If the data cannot be read.
    fn micro_batch(&self, step: u64, micro: u64) -> std::io::Result<(Self::Batch, usize)>;

    /// Number of held-out windows.
    fn held_out_windows(&self) -> usize;

    /// Held-out batches without autodiff, at most `windows` windows, read as they are asked for; none if nothing is held
    /// out. An item is an error if the data cannot be read.
    fn held_out(&self, windows: usize) -> Box<dyn Iterator<Item = std::io::Result<Self::Batch>> + '_>;
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All steps are done.
    Finished,
    /// Asked to stop; a checkpoint holds this many steps.
    Interrupted(u64),
}

/// What a run leaves.
#[derive(Clone, Debug)]
pub struct Trained<M> {
    /// The model of the last step, or of the best evaluation if one is selected.
    pub model: M,
    /// How it ended.
    pub ending: Ending,
    /// The evaluation that was selected.
    pub best: Option<Best>,
}

/// What the loop tells a person.
pub trait Observer {
    /// Before the first step: steps that a checkpoint holds, none if the run starts anew.
    fn started(&mut self, resumed_at: Option<u64>);
    /// After each step: steps done, real bases of the step, named numbers (only in steps that are logged).
    fn step(&mut self, done: u64, bases: usize, logged: Option<&Measures>);
    /// After an evaluation on held-out windows.
    fn evaluated(&mut self, done: u64, measures: &Measures);
    /// Something that needs attention.
    fn alarm(&mut self, message: &str);
}

/// Tells nobody.
pub struct Silent;

impl Observer for Silent {
    fn started(&mut self, _: Option<u64>) {}
    fn step(&mut self, _: u64, _: usize, _: Option<&Measures>) {}
    fn evaluated(&mut self, _: u64, _: &Measures) {}
    fn alarm(&mut self, _: &str) {}
}

/// A training run.
pub struct Training<'a, O: Objective, S: Source<Batch = O::Batch>> {
    /// What is learned.
    pub objective: &'a O,
    /// From what.
    pub source: &'a S,
    /// How.
    pub config: &'a TrainConfig,
    /// Which evaluation's model is wanted; none for that of the last step.
    pub selection: Option<&'a SelectionConfig>,
    /// What the run depends on: the checkpoint of another one is refused.
    pub identity: Identity,
    /// Where logs and checkpoints go.
    pub folder: &'a Path,
    /// Set by another thread to end the run after the current step.
    pub stop: &'a AtomicBool,
}

impl<O: Objective, S: Source<Batch = O::Batch>> Training<'_, O, S> {
    /// Trains a fresh model, or goes on from the checkpoint of the folder if `resume`.
    ///
    /// # Errors
    /// See [`TrainError`]. After an error the last checkpoint is unharmed.
    pub fn run(
        &self,
        model: O::Model,
        resume: bool,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<Trained<O::Model>, TrainError> {
        let run =
            || ops::with_precision(self.config.precision, || self.run_in_precision(model, resume, device, observer));
        if self.config.recompute { ops::with_recomputation(run) } else { run() }
    }

    fn run_in_precision(
        &self,
        model: O::Model,
        resume: bool,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Result<Trained<O::Model>, TrainError> {
        let found = if resume { Checkpoint::open(self.folder, &self.identity)? } else { None };
        observer.started(found.as_ref().map(|checkpoint| checkpoint.steps));
        if let Some(what) = found.as_ref().and_then(|checkpoint| checkpoint.instead_of.as_ref()) {
            observer.alarm(&format!("going on from the checkpoint before the last one, which cannot be read: {what}"));
        }
        let mut state = match found {
            Some(checkpoint) => self.restore(model, checkpoint, device)?,
            None => match self.start(model)? {
                (state, false) => state,
                // Nothing is done that a checkpoint could hold.
                (State { model, .. }, true) => {
                    return Ok(Trained { model, ending: Ending::Interrupted(0), best: None });
                }
            },
        };
        let mut recorder = Recorder::open(self.folder, state.done)?;
        let mut alarm = UsageAlarm::default();
        let begun = Instant::now();
        while state.evaluation_due || (state.done < self.config.steps && !self.has_waited(&state)) {
            let went_on = if state.evaluation_due {
                self.measure(&mut state, &mut recorder, observer)?
            } else {
                let (next, taken) = ops::with_awake_threads(|| self.step(state))?;
                state = next;
                if let Some(taken) = &taken {
                    self.tell(&mut state, taken, begun, &mut recorder, &mut alarm, observer)?;
                }
                taken.is_some()
            };
            if !went_on {
                self.save(&state)?;
                let ending = Ending::Interrupted(state.done);
                return Ok(Trained { model: state.model, ending, best: state.kept.map(|kept| kept.best) });
            }
            if !state.evaluation_due && self.is_due(self.config.checkpoint_every, state.done) {
                self.save(&state)?;
            }
        }
        self.save(&state)?;
        let best = state.kept.as_ref().map(|kept| kept.best);
        let model = match state.kept {
            Some(kept) => crate::weights::assign(state.model, &kept.weights).expect("its own weights"),
            None => state.model,
        };
        Ok(Trained { model, ending: Ending::Finished, best })
    }

    /// Whether something that is done every so many steps is to be done after `done` of them; after the last, everything is.
    fn is_due(&self, every: u64, done: u64) -> bool {
        every > 0 && done.is_multiple_of(every) && done < self.config.steps
    }

    fn is_asked_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Logs a step, and tells of it.
    fn tell(
        &self,
        state: &mut State<O::Model>,
        taken: &Taken,
        begun: Instant,
        recorder: &mut Recorder,
        alarm: &mut UsageAlarm,
        observer: &mut dyn Observer,
    ) -> Result<(), TrainError> {
        let (done, last) = (state.done, state.done == self.config.steps);
        let logged = (done.is_multiple_of(self.config.log_every.max(1)) || last)
            .then(|| self.log(state, taken, begun, recorder))
            .transpose()?;
        observer.step(done, taken.bases, logged.as_ref());
        if let Some(message) = logged.as_ref().and_then(|measures| alarm.hear(self.config, done, measures)) {
            observer.alarm(&message);
        }
        state.evaluation_due = self.is_due(self.config.evaluate_every, done) || (last && self.selection.is_some());
        Ok(())
    }

    /// The evaluation after a step; whether it came to its end.
    fn measure(
        &self,
        state: &mut State<O::Model>,
        recorder: &mut Recorder,
        observer: &mut dyn Observer,
    ) -> Result<bool, TrainError> {
        let Some(measures) = self.evaluate(&state.model, self.config.evaluate_windows)? else { return Ok(false) };
        state.evaluation_due = false;
        if !measures.is_empty() {
            recorder.write(state.done, "valid", &measures)?;
            observer.evaluated(state.done, &measures);
            self.select(state, &measures)?;
        }
        Ok(true)
    }

    /// Whether no better evaluation is to be expected.
    fn has_waited(&self, state: &State<O::Model>) -> bool {
        let patience = self.selection.map_or(0, |selection| selection.patience);
        patience > 0 && state.kept.as_ref().is_some_and(|kept| kept.best.waited >= patience)
    }

    fn select(&self, state: &mut State<O::Model>, measures: &Measures) -> Result<(), TrainError> {
        let Some(config) = self.selection else { return Ok(()) };
        let weights = || crate::weights::collect(&state.model);
        let kept = selection::consider(config, state.kept.take(), state.done, measures, weights);
        state.kept = kept.map_err(|known| TrainError::Selection { measure: config.measure.clone(), known })?;
        Ok(())
    }

    /// Measures on held-out windows; empty if nothing is held out, none if it was asked to stop before the end.
    ///
    /// # Errors
    /// If the data cannot be read.
    pub fn evaluate(&self, model: &O::Model, windows: usize) -> Result<Option<Measures>, TrainError> {
        let (mut failure, mut is_stopped) = (None, false);
        let batches = self.source.held_out(windows);
        let mut batches = batches
            .map_while(|batch| {
                is_stopped = self.is_asked_to_stop();
                batch.map_err(|error| failure = Some(error)).ok().filter(|_| !is_stopped)
            })
            .peekable();
        let measures = match batches.peek() {
            Some(_) => self.objective.evaluate(&model.valid(), &mut batches),
            None => Measures::new(),
        };
        drop(batches);
        match failure {
            Some(error) => Err(TrainError::Data(error)),
            None => Ok((!is_stopped).then_some(measures)),
        }
    }

    /// A fresh run, and whether it was asked to stop before it began.
    fn start(&self, model: O::Model) -> Result<(State<O::Model>, bool), TrainError> {
        let (mut failure, is_stopped) = (None, Cell::new(false));
        let go_on = || {
            is_stopped.set(is_stopped.get() || self.is_asked_to_stop());
            !is_stopped.get()
        };
        let micro_batches = self.config.accumulate.max(1);
        let mut batches = (0..).take_while(|_| go_on()).map_while(|n: u64| {
            let read = self.source.micro_batch(n / micro_batches, n % micro_batches);
            read.map(|(batch, _)| batch).map_err(|error| failure = Some(error)).ok()
        });
        let model = self.objective.start(model, &mut batches, micro_batches as usize, &go_on);
        drop(batches);
        match failure {
            Some(error) => Err(TrainError::Data(error)),
            None => Ok((State::new(model, Adamw::new(&self.config.optimizer)), is_stopped.get())),
        }
    }

    fn restore(&self, model: O::Model, from: Checkpoint, device: &Device) -> Result<State<O::Model>, TrainError> {
        let misfit = |source| TrainError::Checkpoint { path: from.path.clone(), source };
        let plain = device.clone().without_autodiff();
        let optimizer = match from.steps {
            0 => Adamw::new(&self.config.optimizer),
            steps => {
                Adamw::from_arrays(&self.config.optimizer, &model, &from.optimizer, steps, &plain).map_err(misfit)?
            }
        };
        if let Some(kept) = &from.kept {
            // They are needed at the very end.
            crate::weights::check_fit(&model, &kept.weights).map_err(misfit)?;
        }
        let model = crate::weights::assign(model, &from.model).map_err(misfit)?;
        let Checkpoint { steps: done, evaluation_due, kept, .. } = from;
        Ok(State { done, evaluation_due, kept, ..State::new(model, optimizer) })
    }

    /// One step, or none if it is asked to stop before the last micro-batch.
    fn step(&self, state: State<O::Model>) -> Result<(State<O::Model>, Option<Taken>), TrainError> {
        let State { model, mut optimizer, done, evaluation_due, kept } = state;
        let rate = self.config.schedule.rate_at(done, self.config.steps);
        let mut taken = Taken { rate, ..Taken::default() };
        let (mut gradients, mut carries) = (Gradients::default(), Vec::new());
        for micro in 0..self.config.accumulate.max(1) {
            if self.is_asked_to_stop() {
                return Ok((State { model, optimizer, done, evaluation_due, kept }, None));
            }
            let (batch, bases) = self.source.micro_batch(done, micro).map_err(TrainError::Data)?;
            let outcome = self.objective.forward(&model, &batch);
            taken.bases += bases;
            taken.add_part("loss", outcome.loss.clone());
            outcome.parts.into_iter().for_each(|(name, part)| taken.add_part(&name, part));
            gradients.accumulate(Gradients::of(&model, &outcome.loss.backward()));
            carries.push(outcome.carry);
        }
        let share = 1.0 / carries.len() as f64;
        taken.parts.iter_mut().for_each(|(_, value)| *value *= share);
        let (model, norm) = optimizer.step(model, gradients, rate, share);
        taken.parts.push(("gradient_norm".to_owned(), norm));
        if taken.parts.iter().any(|(_, value)| !value.is_finite()) {
            let parts: Vec<_> = taken.parts.iter().map(|(name, value)| format!("{name} {value}")).collect();
            return Err(TrainError::Diverged { step: done + 1, rate, parts: parts.join(", ") });
        }
        let done = done + 1;
        let model = self.objective.after_step(model, carries, done);
        Ok((State { model, optimizer, done, evaluation_due, kept }, Some(taken)))
    }

    fn log(
        &self,
        state: &State<O::Model>,
        taken: &Taken,
        begun: Instant,
        recorder: &mut Recorder,
    ) -> Result<Measures, TrainError> {
        let mut measures = taken.parts.clone();
        measures.push(("learning_rate".to_owned(), taken.rate));
        measures.extend(self.objective.observe(&state.model));
        measures.push(("wall_s".to_owned(), begun.elapsed().as_secs_f64()));
        recorder.write(state.done, "train", &measures)?;
        Ok(measures)
    }

    fn save(&self, state: &State<O::Model>) -> Result<(), TrainError> {
        let (model, optimizer) = (crate::weights::collect(&state.model), state.optimizer.to_arrays());
        let State { done: steps, evaluation_due, kept, .. } = state;
        let contents = Contents {
            steps: *steps,
            evaluation_due: *evaluation_due,
            model: &model,
            optimizer: &optimizer,
            kept: kept.as_ref(),
        };
        Checkpoint::write(self.folder, &self.identity, &contents)
    }
}

/// Everything that a step changes.
struct State<M> {
    model: M,
    optimizer: Adamw,
    done: u64,
    /// Whether the evaluation after the last step is still to be done.
    evaluation_due: bool,
    /// The best evaluation, if one is selected.
    kept: Option<Kept>,
}

impl<M> State<M> {
    /// No step taken.
    fn new(model: M, optimizer: Adamw) -> Self {
        Self { model, optimizer, done: 0, evaluation_due: false, kept: None }
    }
}

/// What one step was made of.
#[derive(Default)]
struct Taken {
    rate: f64,
    bases: usize,
    parts: Measures,
}

impl Taken {
    fn add_part(&mut self, name: &str, value: Tensor<1>) {
        let value = f64::from(to_array(value).values[0]);
        match self.parts.iter_mut().find(|(known, _)| known == name) {
            Some((_, sum)) => *sum += value,
            None => self.parts.push((name.to_owned(), value)),
        }
    }
}
