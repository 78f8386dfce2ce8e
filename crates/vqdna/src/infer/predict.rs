//! What a fine-tuned model predicts of sequences.

use burn::prelude::*;
use std::ops::Range;
use std::path::Path;

use super::budget::{floats, groups};
use super::execution::{computed, with_empty};
use super::windows::{Place, in_batches};
use super::{Execution, Interrupted, Sequence, Windows};
use crate::model::SequenceModel;
use crate::model_dir::{FolderError, Kind, Model, TaskConfig};
use crate::objective::supervised::prediction::Prediction;
use crate::tokenizer::bases_of;
use crate::tokenizer::rows::TokenRows;
use crate::weights::to_array;
use vqdna_data::alphabet::{BaseId, reverse_complement};

/// A fine-tuned model.
#[derive(Clone, Debug)]
pub struct FineTuned(Model);

impl FineTuned {
    /// Loads a folder onto a device.
    ///
    /// # Errors
    /// See [`FolderError`]; [`FolderError::OtherKind`] if the folder holds something else.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        Ok(Self(Model::load_kind(folder, Kind::Finetuned, device)?))
    }

    /// A model that was loaded; none if it was not fine-tuned.
    #[must_use]
    pub fn of(model: Model) -> Option<Self> {
        model.task().is_some().then(|| Self(model))
    }

    /// The whole of it.
    #[must_use]
    pub fn model(&self) -> &Model {
        &self.0
    }

    /// What it was fine-tuned to.
    ///
    /// # Panics
    /// Never: it was loaded as a fine-tuned model.
    #[must_use]
    pub fn task(&self) -> &TaskConfig {
        self.0.task().expect("a fine-tuned model").1
    }

    /// Encoder and head.
    fn network(&self) -> &SequenceModel {
        self.0.task().expect("a fine-tuned model").0
    }
}

/// What becomes of the windows of a long sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Merge {
    /// One prediction: the mean of probabilities or values.
    #[default]
    Mean,
    /// One prediction: of each probability or value the largest.
    Max,
    /// A prediction for each window.
    None,
}

/// A prediction for a sequence, or for a window of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Predicted {
    /// Place of the sequence among those given.
    pub sequence: usize,
    /// The bases that were seen.
    pub bases: Range<usize>,
    /// Number of windows; 0 where there is nothing to see.
    pub windows: usize,
    /// Probabilities of classes or labels, or values; NaN where there is nothing to see.
    pub values: Vec<f64>,
}

/// Predictions for sequences, in their order, computed as they are asked for, some windows at a time. The two sequences of a pair are
/// always seen whole. Where there is nothing to see, there are 0 windows, and all values are NaN.
pub fn predict<'a>(
    model: &'a FineTuned,
    sequences: &'a [Sequence],
    windows: Windows,
    merge: Merge,
    execution: Execution<'a>,
) -> impl Iterator<Item = Result<Predicted, Interrupted>> + 'a {
    let budget = execution.budget;
    let together = groups(Place::all(sequences, windows, true), budget.bases(0), |place| {
        place.size() + sequences[place.sequence].second.as_ref().map_or(0, Vec::len)
    });
    let network = model.network();
    let encoder = network.embed.as_ref().zip(network.backbone.as_ref());
    let positions = budget.batch(floats(model.0.config.tokenizer.source(), encoder));
    let labelling = &model.task().labelling;
    let parts = computed(together, move |places| {
        let outputs = |reverse| outputs(model, sequences, &places, reverse, positions, execution);
        let mut values = outputs(false)?;
        if model.task().both_strands {
            values.iter_mut().zip(outputs(true)?).for_each(|(forward, reverse)| *forward = 0.5 * (*forward + reverse));
        }
        let prediction = Prediction::new(labelling, &values);
        let each = places.into_iter().zip(prediction.rows());
        let each = each.map(|(Place { sequence, bases, .. }, values)| Predicted {
            sequence,
            bases,
            windows: 1,
            values: values.to_vec(),
        });
        Ok(each.collect())
    });
    let merged = Merged { parts, merge, waiting: None };
    let empty = |sequence| {
        let values = vec![f64::NAN; labelling.outputs().len()];
        Predicted { sequence, bases: 0..0, windows: 0, values }
    };
    with_empty(merged, sequences.len(), |found| found.sequence, |sequence| sequences[sequence].is_empty(), empty)
}

/// `[places, outputs]`, on one strand.
fn outputs(
    model: &FineTuned,
    sequences: &[Sequence],
    places: &[Place],
    reverse: bool,
    positions: usize,
    execution: Execution,
) -> Result<Vec<f32>, Interrupted> {
    let turned = |mut bases: Vec<BaseId>| {
        if reverse {
            reverse_complement(&mut bases);
        }
        bases
    };
    let first: Vec<_> = Place::letters(places, sequences).into_iter().map(turned).collect();
    let second = |place: &Place| sequences[place.sequence].second.as_deref().map(|letters| turned(bases_of(letters)));
    let second: Option<Vec<_>> = places.iter().map(second).collect();
    let (second, device) = (second.filter(|second| !second.is_empty()), execution.device);
    let (tokenizer, poll) = (&model.0.tokenizer, &|| execution.poll());
    let rows = TokenRows::new(tokenizer, &first, second.as_deref(), device, poll).ok_or(Interrupted)?;
    // Both strands are seen before anything is finished.
    let execution = if reverse == model.task().both_strands { execution } else { execution.silent() };
    in_batches(places, &rows.lengths(), positions, execution, |batch| {
        let outputs = model.network().outputs(&rows.batch(batch, device));
        let [_, width] = outputs.dims();
        to_array(outputs).values.chunks(width).map(<[f32]>::to_vec).collect()
    })
}

/// The predictions of windows as one for each sequence, unless they stay apart.
struct Merged<I> {
    parts: I,
    merge: Merge,
    /// A sequence that may have further windows.
    waiting: Option<Predicted>,
}

impl<I> Merged<I> {
    fn whole(&self, mut sequence: Predicted) -> Predicted {
        if self.merge == Merge::Mean {
            sequence.values.iter_mut().for_each(|value| *value /= sequence.windows as f64);
        }
        sequence
    }
}

impl<I: Iterator<Item = Result<Predicted, Interrupted>>> Iterator for Merged<I> {
    type Item = Result<Predicted, Interrupted>;

    fn next(&mut self) -> Option<Self::Item> {
        while let Some(part) = self.parts.next() {
            let part = match part {
                Ok(part) => part,
                // The windows so far are not the whole of their sequence.
                Err(interrupted) => {
                    self.waiting = None;
                    return Some(Err(interrupted));
                }
            };
            let merge = self.merge;
            match self.waiting.as_mut().filter(|last| merge != Merge::None && last.sequence == part.sequence) {
                None => {
                    if let Some(last) = self.waiting.replace(part) {
                        return Some(Ok(self.whole(last)));
                    }
                }
                Some(last) => {
                    last.bases.end = part.bases.end;
                    last.windows += 1;
                    for (value, part) in last.values.iter_mut().zip(part.values) {
                        *value = if merge == Merge::Max { value.max(part) } else { *value + part };
                    }
                }
            }
        }
        self.waiting.take().map(|last| Ok(self.whole(last)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_merged_as_said() {
        let parts = || {
            [(0, 0..4, 0.2), (0, 2..6, 0.8), (1, 0..3, 0.5)].into_iter().map(|(sequence, bases, value)| {
                Ok(Predicted { sequence, bases, windows: 1, values: vec![value, 1.0 - value] })
            })
        };
        let of = |merge| {
            let merged = Merged { parts: parts(), merge, waiting: None };
            merged.map(|p| p.map(|p| (p.bases, p.windows, p.values)).expect("no end")).collect::<Vec<_>>()
        };
        let stopped = Merged { parts: parts().take(1).chain([Err(Interrupted)]), merge: Merge::Mean, waiting: None };
        assert_eq!(stopped.collect::<Vec<_>>(), [Err(Interrupted)], "half a sequence is no sequence");
        assert_eq!(of(Merge::Mean), [(0..6, 2, vec![0.5, 0.5]), (0..3, 1, vec![0.5, 0.5])]);
        assert_eq!(of(Merge::Max), [(0..6, 2, vec![0.8, 0.8]), (0..3, 1, vec![0.5, 0.5])]);
        assert_eq!(of(Merge::None).len(), 3);
    }
}
