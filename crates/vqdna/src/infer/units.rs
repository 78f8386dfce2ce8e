//! The units that a model cuts sequences into.

use burn::prelude::*;
use std::path::Path;
use vqdna_data::segment::Policy;

use super::budget::{floats_of_letters, groups};
use super::execution::computed;
use super::windows::{Place, in_batches, without_overlaps};
use super::{Execution, Interrupted, Sequence, Windows};
use crate::folder::{Finetuned, FolderError, Kind, ModelConfig, PretrainedMxdna};
use crate::tokenizer::mxdna::{LetterRows, Mxdna, UnitSpan};

/// Cuts sequences into units.
#[derive(Clone, Debug)]
pub struct Cutter {
    encoder: Mxdna,
    window: Option<usize>,
    letters: Policy,
    /// Names the weights.
    pub digest: String,
}

/// A unit of a sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Unit {
    /// Place of the sequence among those given.
    pub sequence: usize,
    /// What it covers, and what chose it.
    pub span: UnitSpan,
}

impl Cutter {
    /// Loads a pre-trained or a fine-tuned model that cuts sequences itself.
    ///
    /// # Errors
    /// See [`FolderError`]; [`FolderError::NoMxdna`] if it does not.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let config = ModelConfig::load(folder)?;
        let no_mxdna = || FolderError::NoMxdna { folder: folder.to_owned(), found: config.kind() };
        if config.mxdna.is_none() {
            return Err(no_mxdna());
        }
        if config.kind() == Kind::Finetuned {
            let Finetuned { model, finetuned, digest, .. } = Finetuned::load(folder, device)?;
            let encoder = model.encoder.ok_or_else(no_mxdna)?;
            return Ok(Self { encoder, window: Some(finetuned.window), letters: config.letters, digest });
        }
        let PretrainedMxdna { model, digest, .. } = PretrainedMxdna::load(folder, device)?;
        Ok(Self { encoder: model.encoder, window: config.window, letters: config.letters, digest })
    }

    /// Bases of a unit of each expert.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        self.encoder.sizes()
    }

    /// Bases that it is best to cut together: of the longest sequence that a fine-tuned model learned from, or of a window of
    /// pre-training. None in particular in older folders.
    #[must_use]
    pub fn window(&self) -> Option<usize> {
        self.window
    }

    /// What became of letters when the model learned.
    #[must_use]
    pub fn letters(&self) -> Policy {
        self.letters
    }

    /// The units of sequences, in order, no two of which overlap; each from the window in whose middle its anchor is nearest. Where
    /// windows meet, a unit that overlaps one before it is left out, so that a few bases there may be in none. They are computed as
    /// they are asked for, some windows at a time.
    ///
    /// The second sequences of pairs are not looked at.
    pub fn cut<'a>(
        &'a self,
        sequences: &'a [Sequence],
        windows: Windows,
        execution: Execution<'a>,
    ) -> impl Iterator<Item = Result<Unit, Interrupted>> + 'a {
        let budget = execution.budget;
        let floats = size_of::<UnitSpan>() / size_of::<f32>();
        let together = groups(Place::all(sequences, windows, false), budget.bases(floats), Place::size);
        let positions = budget.batch(floats_of_letters(&self.encoder));
        let units = computed(together, move |places| self.places(sequences, &places, positions, execution));
        without_overlaps(units, |unit| (unit.sequence, unit.span.bases.clone()))
    }

    /// The units of windows, in their order.
    fn places(
        &self,
        sequences: &[Sequence],
        places: &[Place],
        positions: usize,
        execution: Execution,
    ) -> Result<Vec<Unit>, Interrupted> {
        let rows = LetterRows::new(Place::letters(places, sequences), None);
        in_batches(places, &rows.lengths(), positions, execution, |batch| {
            let units = self.encoder.cut_into_units(&rows.batch(batch, execution.device).view());
            let of = |(&row, units): (&u32, Vec<UnitSpan>)| {
                let Place { sequence, bases, own } = &places[row as usize];
                let all = units.into_iter().map(|span| Unit { sequence: *sequence, span: span.moved_by(bases.start) });
                all.filter(|unit| own.contains(&unit.span.anchor)).collect()
            };
            batch.iter().zip(units).map(of).collect()
        })
    }
}
