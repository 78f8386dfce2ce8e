//! What a fine-tuned model says of sequences.

use burn::prelude::*;
use std::ops::Range;

use super::budget::{floats_of_codes, floats_of_letters, groups};
use super::{Budget, Sequence, Windows};
use crate::folder::Finetuned;
use crate::objective::supervised::prediction::Prediction;
use crate::tokenizer::coded::bases_of;
use crate::tokenizer::sequences::SequenceRows;
use vqdna_data::alphabet::{BaseId, reverse_complement};

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
    /// Number of windows.
    pub windows: usize,
    /// Probabilities of classes or labels, or values.
    pub values: Vec<f64>,
}

/// A window of a sequence, by its place among those given.
type Place = (usize, Range<usize>);

/// Predictions for sequences, in their order, computed as they are asked for, some windows at a time. The two sequences of a pair are
/// always seen whole.
pub fn predict<'a>(
    model: &'a Finetuned,
    sequences: &'a [Sequence],
    windows: Windows,
    merge: Merge,
    budget: Budget,
    device: &'a Device,
) -> impl Iterator<Item = Predicted> + 'a {
    let places = sequences.iter().enumerate().flat_map(move |(n, sequence)| {
        let bases = sequence.first.len();
        let length = if sequence.second.is_some() { bases } else { windows.length };
        Windows { length, ..windows }.of(bases).into_iter().map(move |part| (n, part))
    });
    let together = groups(places, budget.bases(0), |(n, part): &Place| {
        part.len() + sequences[*n].second.as_ref().map_or(0, Vec::len)
    });
    let floats = match (&model.vocabulary, &model.model.encoder) {
        (Some(vocabulary), _) => floats_of_codes(vocabulary.tokenizer.d_code, model.model.backbone.as_ref()),
        (None, encoder) => encoder.as_ref().map_or(0, floats_of_letters),
    };
    let positions = budget.batch(floats);
    let parts = together.flat_map(move |places| {
        let outputs = |reverse| outputs(model, sequences, &places, reverse, positions, device);
        let mut values = outputs(false);
        if model.finetuned.both_strands {
            values.iter_mut().zip(outputs(true)).for_each(|(forward, reverse)| *forward = 0.5 * (*forward + reverse));
        }
        let prediction = Prediction::new(&model.finetuned.labelling, &values);
        let each = places.into_iter().zip(prediction.rows());
        let each =
            each.map(|((sequence, bases), values)| Predicted { sequence, bases, windows: 1, values: values.to_vec() });
        each.collect::<Vec<_>>()
    });
    Merged { parts, merge, waiting: None }
}

fn outputs(
    model: &Finetuned,
    sequences: &[Sequence],
    places: &[Place],
    reverse: bool,
    positions: usize,
    device: &Device,
) -> Vec<f32> {
    let bases = |letters: &[u8]| -> Vec<BaseId> {
        let mut bases = bases_of(letters);
        if reverse {
            reverse_complement(&mut bases);
        }
        bases
    };
    let first: Vec<_> = places.iter().map(|(n, part)| bases(&sequences[*n].first[part.clone()])).collect();
    let second: Option<Vec<_>> = places.iter().map(|(n, _)| sequences[*n].second.as_deref().map(bases)).collect();
    let vocabulary = model.vocabulary.as_ref().map(|vocabulary| &vocabulary.model);
    let rows = SequenceRows::new(vocabulary, first, second.filter(|second| !second.is_empty()), device);
    model.model.outputs_of(&rows, positions, device)
}

/// The predictions of windows as one for each sequence, unless they stay apart.
struct Merged<I> {
    parts: I,
    merge: Merge,
    /// A sequence that may have further windows.
    waiting: Option<Predicted>,
}

impl<I: Iterator<Item = Predicted>> Merged<I> {
    fn whole(&self, mut sequence: Predicted) -> Predicted {
        if self.merge == Merge::Mean {
            sequence.values.iter_mut().for_each(|value| *value /= sequence.windows as f64);
        }
        sequence
    }
}

impl<I: Iterator<Item = Predicted>> Iterator for Merged<I> {
    type Item = Predicted;

    fn next(&mut self) -> Option<Predicted> {
        while let Some(part) = self.parts.next() {
            let merge = self.merge;
            match self.waiting.as_mut().filter(|last| merge != Merge::None && last.sequence == part.sequence) {
                None => {
                    if let Some(last) = self.waiting.replace(part) {
                        return Some(self.whole(last));
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
        self.waiting.take().map(|last| self.whole(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_merged_as_said() {
        let parts = || {
            [(0, 0..4, 0.2), (0, 2..6, 0.8), (1, 0..3, 0.5)].into_iter().map(|(sequence, bases, value)| Predicted {
                sequence,
                bases,
                windows: 1,
                values: vec![value, 1.0 - value],
            })
        };
        let of = |merge| {
            let merged = Merged { parts: parts(), merge, waiting: None };
            merged.map(|p| (p.bases, p.windows, p.values)).collect::<Vec<_>>()
        };
        assert_eq!(of(Merge::Mean), [(0..6, 2, vec![0.5, 0.5]), (0..3, 1, vec![0.5, 0.5])]);
        assert_eq!(of(Merge::Max), [(0..6, 2, vec![0.8, 0.8]), (0..3, 1, vec![0.5, 0.5])]);
        assert_eq!(of(Merge::None).len(), 3);
    }
}
