//! What a fine-tuned model says of sequences.

use burn::prelude::*;
use std::ops::Range;

use super::{Sequence, Windows};
use crate::folder::Finetuned;
use crate::objective::supervised::prediction::Prediction;
use crate::tokenizer::coded::{Coded, CodedRows, bases_of};
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

/// Predictions for sequences, in their order. The two sequences of a pair are always seen whole.
#[must_use]
pub fn predict(
    model: &Finetuned,
    sequences: &[Sequence],
    windows: Windows,
    merge: Merge,
    device: &Device,
) -> Vec<Predicted> {
    let places: Vec<(usize, Range<usize>)> = sequences
        .iter()
        .enumerate()
        .flat_map(|(n, sequence)| {
            let whole = sequence.second.is_some();
            let bases = sequence.first.len();
            let length = if whole { bases } else { windows.length };
            let parts = Windows { length, ..windows }.of(bases);
            parts.into_iter().map(move |part| (n, part))
        })
        .collect();
    let mut outputs = outputs(model, sequences, &places, false, device);
    if model.finetuned.both_strands {
        let reverse = self::outputs(model, sequences, &places, true, device);
        outputs.iter_mut().zip(reverse).for_each(|(forward, reverse)| *forward = 0.5 * (*forward + reverse));
    }
    let prediction = Prediction::new(&model.finetuned.labelling, &outputs);
    let each = places.into_iter().zip(prediction.rows()).map(|((sequence, bases), values)| Predicted {
        sequence,
        bases,
        windows: 1,
        values: values.to_vec(),
    });
    merged(each, merge)
}

fn outputs(
    model: &Finetuned,
    sequences: &[Sequence],
    places: &[(usize, Range<usize>)],
    reverse: bool,
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
    let vocabulary = &model.vocabulary.model;
    let coded = |sequences: &[Vec<BaseId>]| Coded::new(vocabulary, sequences, device);
    let second = second.filter(|second| !second.is_empty()).map(|second| coded(&second));
    let rows = CodedRows::new(coded(&first), second);
    model.model.outputs_of(&rows, &vocabulary.quantizer, device)
}

fn merged(each: impl Iterator<Item = Predicted>, merge: Merge) -> Vec<Predicted> {
    let mut all: Vec<Predicted> = Vec::new();
    for part in each {
        match all.last_mut().filter(|last| merge != Merge::None && last.sequence == part.sequence) {
            None => all.push(part),
            Some(last) => {
                last.bases.end = part.bases.end;
                last.windows += 1;
                for (value, part) in last.values.iter_mut().zip(part.values) {
                    *value = if merge == Merge::Max { value.max(part) } else { *value + part };
                }
            }
        }
    }
    if merge == Merge::Mean {
        for sequence in &mut all {
            sequence.values.iter_mut().for_each(|value| *value /= sequence.windows as f64);
        }
    }
    all
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
        let of = |merge| merged(parts(), merge).into_iter().map(|p| (p.bases, p.windows, p.values)).collect::<Vec<_>>();
        assert_eq!(of(Merge::Mean), [(0..6, 2, vec![0.5, 0.5]), (0..3, 1, vec![0.5, 0.5])]);
        assert_eq!(of(Merge::Max), [(0..6, 2, vec![0.8, 0.8]), (0..3, 1, vec![0.5, 0.5])]);
        assert_eq!(of(Merge::None).len(), 3);
    }
}
