//! Vectors that stand for sequences, or for every base of them.

use burn::prelude::*;
use std::ops::Range;
use std::path::Path;
use vqdna_data::segment::Policy;

use super::budget::{floats_of_codes, floats_of_letters, groups};
use super::execution::{computed, with_empty};
use super::windows::{Place, in_batches, without_overlaps};
use super::{Execution, Interrupted, Sequence, Windows};
use crate::backbone::transformer::Transformer;
use crate::folder::{self, Finetuned, FolderError, ModelConfig, Pretrained, PretrainedMxdna, Vocabulary};
use crate::head::sequence::{Pooling, pool};
use crate::tokenizer::mxdna::{Mxdna, Placed};
use crate::tokenizer::sequences::{SequenceBatch, SequenceRows};
use crate::weights::to_array;

/// Turns sequences into vectors.
#[derive(Clone, Debug)]
pub struct Embedder {
    network: Network,
    layer: usize,
    /// Bases of the longest sequence that a fine-tuned model learned from, or of a window of pre-training.
    window: Option<usize>,
    letters: Policy,
    /// Names the weights.
    pub digest: String,
}

/// What turns them into vectors.
#[derive(Clone, Debug)]
enum Network {
    /// Codes, and an encoder over them; without it, the vectors of codes.
    Codes(Box<Vocabulary>, Option<Box<Transformer>>),
    /// An encoder that cuts sequences itself.
    Letters(Box<Mxdna>),
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
        let config = ModelConfig::load(folder)?;
        let (network, window, digest) = match (config.kind(), config.mxdna.is_some()) {
            (folder::Kind::Vocabulary, _) => {
                let vocabulary = Vocabulary::load(folder, device)?;
                let digest = vocabulary.digest.clone();
                (Network::Codes(Box::new(vocabulary), None), None, digest)
            }
            (folder::Kind::Pretrained, false) => {
                let found = Pretrained::load(folder, device)?;
                (
                    Network::Codes(Box::new(found.vocabulary), Some(Box::new(found.model.backbone))),
                    config.window,
                    found.digest,
                )
            }
            (folder::Kind::Pretrained, true) => {
                let found = PretrainedMxdna::load(folder, device)?;
                (Network::Letters(Box::new(found.model.encoder)), config.window, found.digest)
            }
            (folder::Kind::Finetuned, _) => {
                let Finetuned { vocabulary, model, finetuned, digest, .. } = Finetuned::load(folder, device)?;
                let network = match (vocabulary, model.encoder) {
                    (_, Some(encoder)) => Network::Letters(Box::new(encoder)),
                    (Some(vocabulary), None) => Network::Codes(Box::new(vocabulary), model.backbone.map(Box::new)),
                    (None, None) => unreachable!("a checked config names one of both"),
                };
                (network, Some(finetuned.window), digest)
            }
        };
        let last = match &network {
            Network::Codes(_, backbone) => backbone.as_ref().map_or(0, |backbone| backbone.layers.len()),
            Network::Letters(encoder) => encoder.last_layer(),
        };
        let layer = layer.unwrap_or(last);
        if layer > last {
            return Err(EmbedError::Layer { layer, last });
        }
        let network = match network {
            Network::Codes(vocabulary, backbone) => Network::Codes(vocabulary, backbone.filter(|_| layer > 0)),
            Network::Letters(encoder) => Network::Letters(encoder),
        };
        Ok(Self { network, layer, window, letters: config.letters, digest })
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn width(&self) -> usize {
        match &self.network {
            Network::Codes(_, Some(backbone)) => backbone.norm.weight.dims()[0],
            Network::Codes(vocabulary, None) => vocabulary.tokenizer.d_code,
            Network::Letters(encoder) => encoder.norm.weight.dims()[0],
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
        let positions = budget.batch(match &self.network {
            Network::Codes(vocabulary, backbone) => floats_of_codes(vocabulary.tokenizer.d_code, backbone.as_deref()),
            Network::Letters(encoder) => floats_of_letters(encoder),
        });
        let each = computed(together, move |places| self.places(sequences, &places, pooling, positions, execution));
        match (pooling, &self.network) {
            (Some(pooling), _) => {
                let merged = Merged { parts: each, pooling, waiting: None };
                let empty = |sequence| Embedded { sequence, bases: 0..0, vector: vec![f32::NAN; self.width()] };
                let is_empty = |sequence: usize| sequences[sequence].is_empty();
                Box::new(with_empty(merged, sequences.len(), |found| found.sequence, is_empty, empty))
            }
            (None, Network::Codes(..)) => Box::new(each),
            (None, Network::Letters(_)) => {
                Box::new(without_overlaps(each, |found| (found.sequence, found.bases.clone())))
            }
        }
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
        let vocabulary = match &self.network {
            Network::Codes(vocabulary, _) => Some(&vocabulary.model),
            Network::Letters(_) => None,
        };
        let device = execution.device;
        let letters = Place::letters(places, sequences);
        let rows = SequenceRows::polled(vocabulary, letters, None, device, &|| execution.poll()).ok_or(Interrupted)?;
        in_batches(places, &rows.lengths(), positions, execution, |batch| {
            let here: Vec<_> = batch.iter().map(|&row| &places[row as usize]).collect();
            self.batch(&rows, batch, &here, pooling, device)
        })
    }

    fn batch(
        &self,
        rows: &SequenceRows,
        batch: &[u32],
        places: &[&Place],
        pooling: Option<Pooling>,
        device: &Device,
    ) -> Vec<Vec<Embedded>> {
        let Placed { states, real, spans } = self.states(&rows.batch(batch, device), places);
        let [_, positions, width] = states.dims();
        if let Some(pooling) = pooling {
            let values = to_array(pool(pooling, states, real)).values;
            let one = |(place, vector): (&&Place, &[f32])| {
                vec![Embedded { sequence: place.sequence, bases: place.bases.clone(), vector: vector.to_vec() }]
            };
            return places.iter().zip(values.chunks(width)).map(one).collect();
        }
        let values = to_array(states).values;
        let each = |((place, values), spans): ((&&Place, &[f32]), Vec<Range<usize>>)| {
            let start = place.bases.start;
            let position = |(vector, span): (&[f32], Range<usize>)| Embedded {
                sequence: place.sequence,
                bases: start + span.start..start + span.end,
                vector: vector.to_vec(),
            };
            let all = values.chunks(width).zip(spans).filter(|(_, span)| !span.is_empty()).map(position);
            // A pool belongs where it begins, a unit where its anchor is.
            let place_of = |bases: &Range<usize>| match &self.network {
                Network::Codes(..) => bases.start,
                Network::Letters(_) => bases.start + bases.len() / 2,
            };
            all.filter(|vector| place.own.contains(&place_of(&vector.bases))).collect()
        };
        places.iter().zip(values.chunks(positions * width)).zip(spans).map(each).collect()
    }

    /// The states of the layer, and the bases of its window that each stands for.
    fn states(&self, batch: &SequenceBatch, places: &[&Place]) -> Placed {
        match (&self.network, batch) {
            (Network::Codes(_, backbone), SequenceBatch::Vectors { vectors, real }) => {
                let (vectors, real) = (vectors.clone(), real.clone());
                let (states, real, size) = match backbone {
                    Some(backbone) => {
                        (backbone.hidden_of_layer(vectors, &real, self.layer), backbone.real(real), backbone.pool)
                    }
                    None => (vectors, real, 1),
                };
                let of = |place: &&Place| -> Vec<Range<usize>> {
                    let bases = place.bases.len();
                    (0..bases).step_by(size).map(|start| start..(start + size).min(bases)).collect()
                };
                Placed { states, real, spans: places.iter().map(of).collect() }
            }
            (Network::Letters(encoder), SequenceBatch::Letters(letters)) => {
                encoder.states_of_layer(&letters.view(), self.layer)
            }
            _ => unreachable!("rows are made for the network"),
        }
    }
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
