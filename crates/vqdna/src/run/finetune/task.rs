//! A data set as fine-tuning sees it: its sequences in the form that a model takes them.

use burn::prelude::*;
use std::sync::atomic::AtomicBool;
use vqdna_data::labelled::{LabelledError, Set, Splits, Target};
use vqdna_data::segment::Counts;

use super::{Base, FinetuneConfig, ReverseComplement};
use crate::objective::supervised::prediction::Prediction;
use crate::run::labelled::sequences;
use crate::run::stage::{StageError, poll};
use crate::tokenizer::rows::TokenRows;
use crate::train::TrainError;
use crate::train::selection::SelectionConfig;

/// A data set with its sequences as the model takes them, for as many runs as one likes.
#[derive(Clone, Debug)]
pub struct Task {
    /// Rows and labels. Where letter policies cut a sequence, each part is a row.
    pub splits: Splits,
    /// What the letter policies saw in all parts of the data set.
    pub counts: Counts,
    /// Rows of which the letter policies keep nothing, and which are left out.
    pub left_out: u64,
    pub(super) train: TokenRows,
    /// The training set from the other strand, where it is requested.
    pub(super) train_reverse: Option<TokenRows>,
    pub(super) dev: Option<HeldOut>,
    pub(super) test: Option<HeldOut>,
}

/// The sequences of a set that is measured on.
#[derive(Clone, Debug)]
pub(super) struct HeldOut {
    pub(super) inputs: TokenRows,
    /// Of each row, the number of the sequence that it is a part of; ascending.
    pub(super) of: Vec<usize>,
}

impl Task {
    /// Applies the letter policies to a data set, and computes its tokens.
    ///
    /// # Errors
    /// If a letter is forbidden, a pair would be cut, or nothing is left to learn from; [`StageError::Interrupted`] soon after `stop`
    /// is set.
    pub fn new(
        mut splits: Splits,
        base: &Base,
        config: &FinetuneConfig,
        device: &Device,
        stop: &AtomicBool,
    ) -> Result<Self, StageError> {
        let (letters, mut counts, mut left_out) = (config.letters(&base.config), Counts::default(), 0);
        let mut cut = |set: Set| -> Result<(Set, Vec<usize>), LabelledError> {
            let (file, rows) = (set.rows.file.clone(), set.len());
            let (set, of) = set.cut(letters, &mut counts)?;
            left_out += (rows - of.chunk_by(|a, b| a == b).count()) as u64;
            if set.is_empty() { Err(LabelledError::NothingKept { file }) } else { Ok((set, of)) }
        };
        let rows = |set: &Set, reverse| {
            let found = sequences(&base.tokenizer, &set.rows, reverse, device, &|| poll(stop));
            found.ok_or(StageError::Interrupted)
        };
        splits.train = cut(splits.train)?.0;
        let mut held_out = |part: &mut Option<Set>| -> Result<Option<HeldOut>, StageError> {
            let Some(set) = part.take() else { return Ok(None) };
            let (set, of) = cut(set)?;
            let inputs = rows(&set, false)?;
            *part = Some(set);
            Ok(Some(HeldOut { inputs, of }))
        };
        let (dev, test) = (held_out(&mut splits.dev)?, held_out(&mut splits.test)?);
        let strands = config.reverse_complement;
        Ok(Self {
            train: rows(&splits.train, false)?,
            train_reverse: (strands != ReverseComplement::None).then(|| rows(&splits.train, true)).transpose()?,
            dev,
            test,
            splits,
            counts,
            left_out,
        })
    }

    /// Refuses a measure to select by that no evaluation on dev has, or none could have a value of.
    pub(super) fn check_selection(&self, config: &SelectionConfig) -> Result<(), StageError> {
        let Some(dev) = &self.splits.dev else { return Ok(()) };
        let labelling = &self.splits.labelling;
        // What has no value where everything is right lacks it by the labels alone.
        let right = right(dev, labelling.outputs().len());
        let scores = Prediction::merged(labelling, right).scores(&dev.targets, None).scores;
        let known = scores.iter().filter(|score| score.value.is_some()).map(|score| score.name.clone());
        let known: Vec<String> = std::iter::once("loss".to_owned()).chain(known).collect();
        let measure = config.measure.clone();
        if known.contains(&measure) {
            Ok(())
        } else if scores.iter().any(|score| score.name == measure) {
            Err(StageError::NoValue { measure, known })
        } else {
            Err(TrainError::Selection { measure, known }.into())
        }
    }
}

/// Probabilities and values that are all right, `[rows, outputs]`.
fn right(set: &Set, outputs: usize) -> Vec<f64> {
    let number = |applies: bool| f64::from(u8::from(applies));
    let row = |row: usize| -> Vec<f64> {
        match set.targets.get(row) {
            Target::Class(class) => (0..outputs).map(|output| number(output == class as usize)).collect(),
            Target::Labels(labels) => labels.iter().map(|&applies| number(applies)).collect(),
            Target::Values(values) => values.to_vec(),
        }
    };
    (0..set.len()).flat_map(row).collect()
}
