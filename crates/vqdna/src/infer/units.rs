//! The units that a model forms of sequences.

use burn::prelude::*;
use std::ops::Range;
use std::path::Path;
use vqdna_data::segment::Policy;

use super::budget::{floats, groups};
use super::execution::computed;
use super::windows::{Place, in_batches, without_overlaps};
use super::{Execution, Interrupted, Sequence, Windows};
use crate::backbone::Backbone;
use crate::backbone::mxdna::UnitSpan;
use crate::model::Embed;
use crate::model_dir::{FolderError, Model, ModelConfig};
use crate::tokenizer::rows::TokenRows;
use crate::tokenizer::{Source, Tokenizer};

/// Forms units of sequences.
#[derive(Clone, Debug)]
pub struct Cutter {
    tokenizer: Tokenizer,
    embed: Embed,
    backbone: Backbone,
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
    /// The bases that it covers.
    pub bases: Range<usize>,
    /// The base that its score stands at.
    pub anchor: usize,
    /// The number of its expert.
    pub expert: usize,
    /// Probability of that expert there.
    pub gate: f32,
}

impl Cutter {
    /// Loads a pre-trained or a fine-tuned model that forms units.
    ///
    /// # Errors
    /// See [`FolderError`]; [`FolderError::NoUnits`] if it forms none.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let found = ModelConfig::load(folder)?;
        let no_units = || FolderError::NoUnits { folder: folder.to_owned(), found: found.kind() };
        if !found.forms_units() {
            return Err(no_units());
        }
        let Model { config, tokenizer, network, digest } = Model::load(folder, device)?;
        let (embed, backbone) = network.encoder().ok_or_else(no_units)?;
        Ok(Self { tokenizer, embed, backbone, window: config.best_window(), letters: config.letters, digest })
    }

    /// Bases of a unit of each expert.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        self.backbone.unit_sizes().unwrap_or_default()
    }

    /// Bases that it is best to see together: of the longest sequence that a fine-tuned model learned from, or of a window of
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
        let width = size_of::<UnitSpan>() / size_of::<f32>();
        let together = groups(Place::all(sequences, windows, false), budget.bases(width), Place::size);
        let positions = budget.batch(floats(Source::Table(0), Some((&self.embed, &self.backbone))));
        let units = computed(together, move |places| self.places(sequences, &places, positions, execution));
        without_overlaps(units, |unit| (unit.sequence, unit.bases.clone()))
    }

    /// The units of windows, in their order.
    fn places(
        &self,
        sequences: &[Sequence],
        places: &[Place],
        positions: usize,
        execution: Execution,
    ) -> Result<Vec<Unit>, Interrupted> {
        let (letters, device) = (Place::letters(places, sequences), execution.device);
        let rows = TokenRows::new(&self.tokenizer, &letters, None, device, &|| execution.poll()).ok_or(Interrupted)?;
        let before = self.tokenizer.special().before();
        in_batches(places, &rows.lengths(), positions, execution, |batch| {
            let (x, layout) = self.embed.forward(&rows.batch(batch, device), None);
            let units = self.backbone.units(x, &layout).unwrap_or_default();
            let of = |(&row, units): (&u32, Vec<UnitSpan>)| {
                let (Place { sequence, bases, own }, spans) = (&places[row as usize], &rows.tokens(row).spans);
                let first = |position: usize| bases.start + spans.get(position - before).start;
                let all = units.into_iter().map(|UnitSpan { covers, anchor, expert, gate }| {
                    let end = bases.start + spans.get(covers.end - 1 - before).end;
                    let bases = first(covers.start)..end;
                    Unit { sequence: *sequence, bases, anchor: first(anchor), expert, gate }
                });
                all.filter(|unit| own.contains(&unit.anchor)).collect()
            };
            batch.iter().zip(units).map(of).collect()
        })
    }
}
