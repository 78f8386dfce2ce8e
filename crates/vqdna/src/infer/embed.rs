//! Embeddings: vectors of sequences, or of every token of them.

use burn::prelude::*;
use std::ops::Range;
use std::path::Path;
use vqdna_data::segment::Policy;

use super::budget::{floats, groups};
use super::execution::{computed, with_empty};
use super::windows::{Place, in_batches, without_overlaps};
use super::{Execution, Interrupted, Sequence, Windows};
use crate::backbone::{Backbone, Hidden};
use crate::batch::TokenBatch;
use crate::head::sequence::{Pooling, pool};
use crate::model::Embed;
use crate::model_dir::{FolderError, Model};
use crate::tokenizer::rows::TokenRows;
use crate::tokenizer::{Source, Tokenizer};
use crate::weights::to_array;

/// Turns sequences into vectors.
#[derive(Clone, Debug)]
pub struct Embedder {
    tokenizer: Tokenizer,
    source: Source,
    /// None where vectors are those that the tokenizer has learned.
    encoder: Option<(Embed, Backbone)>,
    layer: usize,
    /// Bases of the longest sequence that a fine-tuned model learned from, or of a window of pre-training.
    window: Option<usize>,
    letters: Policy,
    /// Names the weights.
    pub digest: String,
}

/// A layer that a model does not have.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// See [`FolderError`].
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Beyond the last one.
    #[error("--layer {layer}: this model has layers 0 (vectors of codes or letters) to {last}")]
    Layer {
        /// As asked for.
        layer: usize,
        /// The last there is.
        last: usize,
    },
}

/// A vector for a sequence, or for a position of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Embedded {
    /// Place of the sequence among those given.
    pub sequence: usize,
    /// The bases that the vector stands for.
    pub bases: Range<usize>,
    /// The vector.
    pub vector: Vec<f32>,
}

impl Embedder {
    /// Loads a vocabulary, a pre-trained or a fine-tuned model. `layer` counts from the vectors of codes or letters, which are 0; none is
    /// the last. In a model that cuts sequences itself, layers over bases come first, then units as they are cut, then layers over
    /// units.
    ///
    /// # Errors
    /// See [`EmbedError`].
    pub fn load(folder: &Path, layer: Option<usize>, device: &Device) -> Result<Self, EmbedError> {
        let Model { config, tokenizer, network, digest } = Model::load(folder, device)?;
        let encoder = network.encoder();
        let last = encoder.as_ref().map_or(0, |(_, backbone)| backbone.layers());
        let layer = layer.unwrap_or(last);
        if layer > last {
            return Err(EmbedError::Layer { layer, last });
        }
        // Layer 0 is before anything is projected.
        let source = config.tokenizer.source();
        let encoder = encoder.filter(|_| layer > 0 || matches!(source, Source::Table(_)));
        Ok(Self { tokenizer, source, encoder, layer, window: config.best_window(), letters: config.letters, digest })
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn width(&self) -> usize {
        match (&self.encoder, self.source) {
            (Some((_, backbone)), _) => backbone.width(),
            (None, Source::Vectors(width) | Source::Table(width)) => width,
        }
    }

    /// The layer that vectors are taken from; 0 is the vectors of codes or letters.
    #[must_use]
    pub fn layer(&self) -> usize {
        self.layer
    }

    /// Bases that it is best to embed together: of the longest sequence that a fine-tuned model learned from, or of a window of
    /// pre-training. None in particular for a vocabulary, and in older folders.
    #[must_use]
    pub fn window(&self) -> Option<usize> {
        self.window
    }

    /// What became of letters when the model learned.
    #[must_use]
    pub fn letters(&self) -> Policy {
        self.letters
    }

    /// One vector for each sequence in order, pooled over its bases and those of its windows; NaN where there is nothing to see. Or with
    /// no pooling one for each position that is seen, from the window in whose middle it is nearest. They are computed as they are
    /// asked for, some windows at a time.
    ///
    /// The second sequences of pairs are not looked at.
    pub fn embed<'a>(
        &'a self,
        sequences: &'a [Sequence],
        windows: Windows,
        pooling: Option<Pooling>,
        execution: Execution<'a>,
    ) -> Box<dyn Iterator<Item = Result<Embedded, Interrupted>> + 'a> {
        let budget = execution.budget;
        let width = if pooling.is_none() { self.width() } else { 0 };
        let together = groups(Place::all(sequences, windows, false), budget.bases(width), Place::size);
        let encoder = self.encoder.as_ref().map(|(embed, backbone)| (embed, backbone));
        let positions = budget.batch(floats(self.source, encoder));
        let each = computed(together, move |places| self.places(sequences, &places, pooling, positions, execution));
        match pooling {
            Some(pooling) => {
                let merged = Merged { parts: each, pooling, waiting: None };
                let empty = |sequence| Embedded { sequence, bases: 0..0, vector: vec![f32::NAN; self.width()] };
                let is_empty = |sequence: usize| sequences[sequence].is_empty();
                Box::new(with_empty(merged, sequences.len(), |found| found.sequence, is_empty, empty))
            }
            // Where windows meet, both may have formed units of the same bases.
            None if self.forms_units() => {
                Box::new(without_overlaps(each, |found| (found.sequence, found.bases.clone())))
            }
            None => Box::new(each),
        }
    }

    fn forms_units(&self) -> bool {
        self.encoder.as_ref().is_some_and(|(_, backbone)| backbone.unit_sizes().is_some())
    }

    /// The vectors of windows, in their order.
    fn places(
        &self,
        sequences: &[Sequence],
        places: &[Place],
        pooling: Option<Pooling>,
        positions: usize,
        execution: Execution,
    ) -> Result<Vec<Embedded>, Interrupted> {
        let (letters, device) = (Place::letters(places, sequences), execution.device);
        let rows = TokenRows::new(&self.tokenizer, &letters, None, device, &|| execution.poll()).ok_or(Interrupted)?;
        in_batches(places, &rows.lengths(), positions, execution, |batch| {
            let states = self.states(&rows.batch(batch, device));
            match pooling {
                Some(pooling) => pooled(states, pooling, batch, places),
                None => self.each(states, batch, places, &rows),
            }
        })
    }

    /// The states of the layer, and the positions that each stands for.
    fn states(&self, batch: &TokenBatch) -> Hidden {
        match &self.encoder {
            None => Hidden {
                states: batch.vectors.clone().expect("vectors of learned tokens"),
                real: batch.layout.real.clone(),
                covers: None,
                penalty: None,
            },
            Some((embed, backbone)) => {
                let (x, layout) = embed.forward(batch, None);
                backbone.states_of_layer(x, &layout, self.layer)
            }
        }
    }

    /// A vector for each state of windows, with the bases that it stands for.
    fn each(&self, hidden: Hidden, batch: &[u32], places: &[Place], rows: &TokenRows) -> Vec<Vec<Embedded>> {
        let [_, positions, width] = hidden.states.dims();
        let (values, covers) = (to_array(hidden.states).values, hidden.covers);
        let before = self.tokenizer.special().before();
        let pool = self.encoder.as_ref().map_or(1, |(embed, _)| embed.pool());
        let of_row = |(number, (&row, values)): (usize, (&u32, &[f32]))| -> Vec<Embedded> {
            let (place, spans) = (&places[row as usize], &rows.tokens(row).spans);
            let start = place.bases.start;
            let vector = |(at, vector): (usize, &[f32])| {
                let covered = match &covers {
                    None => at..at + 1,
                    Some(covers) => covers[number].get(at)?.clone(),
                };
                if covered.is_empty() {
                    return None;
                }
                let first = (covered.start * pool).saturating_sub(before);
                let end = (covered.end * pool).saturating_sub(before).min(spans.len());
                let bases = (first < end).then(|| start + spans.get(first).start..start + spans.get(end - 1).end)?;
                // A pool belongs where it begins, a unit where its anchor is.
                let owner = if self.forms_units() { bases.start + bases.len() / 2 } else { bases.start };
                let found = Embedded { sequence: place.sequence, bases, vector: vector.to_vec() };
                place.own.contains(&owner).then_some(found)
            };
            values.chunks(width).enumerate().filter_map(vector).collect()
        };
        batch.iter().zip(values.chunks(positions * width)).enumerate().map(of_row).collect()
    }
}

/// A vector for each window.
fn pooled(hidden: Hidden, pooling: Pooling, batch: &[u32], places: &[Place]) -> Vec<Vec<Embedded>> {
    let width = hidden.states.dims()[2];
    let values = to_array(pool(pooling, hidden.states, hidden.real)).values;
    let one = |(&row, vector): (&u32, &[f32])| {
        let place = &places[row as usize];
        vec![Embedded { sequence: place.sequence, bases: place.bases.clone(), vector: vector.to_vec() }]
    };
    batch.iter().zip(values.chunks(width)).map(one).collect()
}

/// The vectors of windows as one vector for each sequence; of the mean, each window counts as its bases do.
struct Merged<I> {
    parts: I,
    pooling: Pooling,
    /// A sequence that may have further windows, and the bases behind its vector so far.
    waiting: Option<(f32, Embedded)>,
}

impl<I: Iterator<Item = Result<Embedded, Interrupted>>> Iterator for Merged<I> {
    type Item = Result<Embedded, Interrupted>;

    fn next(&mut self) -> Option<Self::Item> {
        for part in self.parts.by_ref() {
            let part = match part {
                Ok(part) => part,
                // The windows so far are not the whole of their sequence.
                Err(interrupted) => {
                    self.waiting = None;
                    return Some(Err(interrupted));
                }
            };
            let weight = part.bases.len() as f32;
            match self.waiting.as_mut().filter(|(_, last)| last.sequence == part.sequence) {
                None => {
                    if let Some((_, whole)) = self.waiting.replace((weight, part)) {
                        return Some(Ok(whole));
                    }
                }
                Some((sum, last)) => {
                    last.bases.end = part.bases.end;
                    for (value, new) in last.vector.iter_mut().zip(&part.vector) {
                        match self.pooling {
                            Pooling::Mean => *value += (new - *value) * weight / (*sum + weight),
                            Pooling::Max => *value = value.max(*new),
                            Pooling::First => {}
                        }
                    }
                    *sum += weight;
                }
            }
        }
        self.waiting.take().map(|(_, whole)| Ok(whole))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_count_as_their_bases_do() {
        let parts = || {
            [(0, 0..6, 1.0), (0, 6..8, 5.0), (1, 0..2, 7.0)]
                .into_iter()
                .map(|(sequence, bases, value)| Ok(Embedded { sequence, bases, vector: vec![value] }))
        };
        let of = |pooling| {
            let merged = Merged { parts: parts(), pooling, waiting: None };
            merged.map(|e| e.map(|e| (e.bases, e.vector)).expect("no end")).collect::<Vec<_>>()
        };
        let stopped =
            Merged { parts: parts().take(2).chain([Err(Interrupted)]), pooling: Pooling::Mean, waiting: None };
        assert_eq!(stopped.collect::<Vec<_>>(), [Err(Interrupted)], "half a sequence is no sequence");
        assert_eq!(of(Pooling::Mean), [(0..8, vec![2.0]), (0..2, vec![7.0])]);
        assert_eq!(of(Pooling::Max), [(0..8, vec![5.0]), (0..2, vec![7.0])]);
        assert_eq!(of(Pooling::First), [(0..8, vec![1.0]), (0..2, vec![7.0])]);
    }
}
