//! The encoder of MxDNA: layers over bases, the layer that cuts them into units, layers over units.

use burn::module::Param;
use burn::prelude::*;
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;
use vqdna_data::alphabet::BaseId;

use super::{DEVIATION, Positions, UnitConfig, UnitLayer, UnitSpan, UnitTokens};
use crate::layers::{GatedLayer, GatedShape, LayerNorm, Rows};
use crate::seed::{Stream, stream};
use crate::weights::normal;

/// Ids of the model's own alphabet, which is that of the published one.
pub const LETTERS: usize = 9;
/// Behind the end of a sequence.
pub const PADDING: i32 = 0;
/// N, and what else is no certain base.
pub const UNKNOWN: i32 = 1;
/// Before the first base.
pub const FIRST: i32 = 2;
/// After the last one.
pub const LAST: i32 = 3;
/// In place of a base that is asked for.
pub const MASKED: i32 = 4;

/// The id of a base.
#[must_use]
pub fn letter(base: BaseId) -> i32 {
    // A, C, G, T here; A, T, C, G there.
    const OF_BASES: [i32; 4] = [5, 7, 8, 6];
    OF_BASES.get(usize::from(base)).copied().unwrap_or(UNKNOWN)
}

/// Where a unit stands for attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitPlaces {
    /// At its anchor, so that units and bases have one coordinate.
    #[default]
    Anchor,
    /// At its number among the units.
    Rank,
}

/// The network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MxdnaConfig {
    /// Channels of a hidden state.
    pub d_model: usize,
    /// Heads of attention, a divisor of `d_model`.
    pub heads: usize,
    /// Channels of a feed-forward part.
    pub d_ff: usize,
    /// Layers over bases.
    pub base_layers: usize,
    /// Layers over units.
    pub unit_layers: usize,
    /// The layer between them.
    pub units: UnitConfig,
    /// Where units stand.
    pub unit_places: UnitPlaces,
    /// Base of the wavelengths of rotary positions.
    pub theta: f64,
}

impl Default for MxdnaConfig {
    fn default() -> Self {
        Self::small()
    }
}

impl MxdnaConfig {
    /// For tests.
    #[must_use]
    pub fn tiny() -> Self {
        Self::of_size([64, 2, 170], [1, 1])
    }

    /// For a laptop: about as large as the other encoder of that name.
    #[must_use]
    pub fn small() -> Self {
        Self::of_size([384, 6, 1024], [2, 4])
    }

    /// The published one, of 100 million parameters.
    #[must_use]
    pub fn base() -> Self {
        Self::of_size([512, 16, 2048], [4, 16])
    }

    fn of_size([d_model, heads, d_ff]: [usize; 3], [base_layers, unit_layers]: [usize; 2]) -> Self {
        let units = UnitConfig::default();
        Self {
            d_model,
            heads,
            d_ff,
            base_layers,
            unit_layers,
            units,
            unit_places: UnitPlaces::default(),
            theta: 10_000.0,
        }
    }

    /// Finds what makes no network before a device opens.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn check(&self) -> Result<(), MxdnaConfigError> {
        use MxdnaConfigError as E;
        let sizes = [
            ("d_model", self.d_model, MOST_CHANNELS),
            ("heads", self.heads, MOST_CHANNELS),
            ("d_ff", self.d_ff, MOST_CHANNELS),
        ];
        if let Some(&(field, _, most)) = sizes.iter().find(|(_, size, most)| !(1..=*most).contains(size)) {
            return Err(E::Size { field, most });
        }
        if !self.d_model.is_multiple_of(self.heads) {
            return Err(E::Heads { d_model: self.d_model, heads: self.heads });
        }
        let d_head = self.d_model / self.heads;
        if !d_head.is_multiple_of(2) {
            return Err(E::OddHead(d_head));
        }
        for (field, layers) in [("base_layers", self.base_layers), ("unit_layers", self.unit_layers)] {
            if layers > MOST_LAYERS {
                return Err(E::Layers { field });
            }
        }
        if !(self.theta >= 1.0 && self.theta.is_finite()) {
            return Err(E::Theta);
        }
        let UnitConfig { sizes, norm_eps, expert_norm_eps, jitter, .. } = &self.units;
        for (field, eps) in [("norm_eps", norm_eps), ("expert_norm_eps", expert_norm_eps)] {
            if !(*eps > 0.0 && eps.is_finite()) {
                return Err(E::Eps { field });
            }
        }
        if !(1..=MOST_EXPERTS).contains(&sizes.len()) || sizes.iter().any(|size| !(1..=MOST_BASES).contains(size)) {
            return Err(E::Units);
        }
        if !(0.0..1.0).contains(jitter) {
            return Err(E::Jitter(*jitter));
        }
        Ok(())
    }

    /// What shapes each layer.
    #[must_use]
    pub fn layer(&self) -> GatedShape {
        let Self { d_model, heads, d_ff, theta, .. } = *self;
        GatedShape { d: d_model, heads, d_inner: d_ff, eps: self.units.norm_eps, theta, deviation: DEVIATION }
    }

    /// Fresh weights, a pure function of the seed.
    #[must_use]
    pub fn init(&self, seed: u64, device: &Device) -> Mxdna {
        let random = &mut stream(seed, "weights of MxDNA", &[]);
        let d = self.d_model;
        Mxdna {
            embed: Embedding { weight: normal([LETTERS, d], DEVIATION, random, device) },
            bases: (0..self.base_layers).map(|_| GatedLayer::new(self.layer(), random, device)).collect(),
            tokenizer: UnitLayer::new(&self.units, d, seed, device),
            units: (0..self.unit_layers).map(|_| GatedLayer::new(self.layer(), random, device)).collect(),
            norm: LayerNorm::new(d, self.units.norm_eps, device),
            places: self.unit_places,
        }
    }
}

/// Sizes beyond which a config is refused (sanity limit).
const MOST_CHANNELS: usize = 65_536;
const MOST_LAYERS: usize = 1024;
const MOST_EXPERTS: usize = 256;
const MOST_BASES: usize = 1024;

/// A setting that makes no network; each message names the field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MxdnaConfigError {
    /// A size of zero, or one that no computer could hold.
    #[error("`mxdna.{field}` must be 1 to {most}")]
    Size {
        /// The field.
        field: &'static str,
        /// The most it may be.
        most: usize,
    },
    /// Heads that do not divide the width.
    #[error("`mxdna.heads` is {heads}, which does not divide `mxdna.d_model`, {d_model}")]
    Heads {
        /// Channels.
        d_model: usize,
        /// Heads.
        heads: usize,
    },
    /// Rotary positions turn pairs of channels.
    #[error("`mxdna.d_model` ÷ `mxdna.heads` must be even, not {0}")]
    OddHead(usize),
    /// More layers than anyone has.
    #[error("`mxdna.{field}` must be at most {MOST_LAYERS}")]
    Layers {
        /// The field.
        field: &'static str,
    },
    /// No wavelength.
    #[error("`mxdna.theta` must be at least 1")]
    Theta,
    /// A norm that divides by nothing.
    #[error("`mxdna.units.{field}` must be above 0")]
    Eps {
        /// The field.
        field: &'static str,
    },
    /// No experts, or experts for no bases.
    #[error("`mxdna.units.sizes` must be 1 to {MOST_EXPERTS} sizes of 1 to {MOST_BASES} bases")]
    Units,
    /// Factors that may be negative.
    #[error("`mxdna.units.jitter` must be 0 or more and below 1, not {0}")]
    Jitter(f64),
}

/// A vector for each letter.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[LETTERS, d]`.
    pub weight: Param<Tensor<2>>,
}

/// Letters to hidden states of bases and of units.
#[derive(Module, Debug)]
pub struct Mxdna {
    /// Letters to vectors.
    pub embed: Embedding,
    /// Layers over bases.
    pub bases: Vec<GatedLayer>,
    /// Bases to units.
    pub tokenizer: UnitLayer,
    /// Layers over units.
    pub units: Vec<GatedLayer>,
    /// Norm after the last layer.
    pub norm: LayerNorm,
    #[module(skip)]
    places: UnitPlaces,
}

/// Sequences of letters, each between a first and a last position that are special, and padding after it.
#[derive(Clone, Debug)]
pub struct Letters<'a> {
    /// `[batch, positions]`.
    pub ids: Tensor<2, Int>,
    /// Positions of each sequence.
    pub lengths: &'a [usize],
    /// `[batch, positions]`: the first and last position of each sequence, and padding.
    pub special: &'a [bool],
}

/// Hidden states of a batch.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// After the layers over bases, with their real positions.
    pub bases: Rows,
    /// After the layers over units and the last norm, with their real tokens; the first is that of the first position.
    pub units: Rows,
    /// How they were cut.
    pub tokens: UnitTokens,
}

/// Hidden states of a layer, and what they stand for.
#[derive(Clone, Debug)]
pub struct Placed {
    /// `[batch, rows, d]`.
    pub states: Tensor<3>,
    /// `[batch, rows]`: 1 for a row that stands for something or is special; 0 for padding, and on the sparse grid for a position
    /// between units.
    pub real: Tensor<2>,
    /// For each sequence, the bases that each of its rows stands for; none for a special one.
    pub spans: Vec<Vec<Range<usize>>>,
}

impl Mxdna {
    /// The hidden states of a batch; those at padding mean nothing. `jitter`, in training, as for [`UnitLayer::forward`].
    ///
    /// # Panics
    /// If lengths or flags do not fit the ids.
    #[must_use]
    pub fn forward(&self, letters: &Letters, jitter: Option<Tensor<3>>) -> Hidden {
        let bases = self.base_states(letters, self.bases.len());
        let (tokens, units) = self.cut(&bases, letters, jitter);
        let units = Rows { states: self.norm.forward(self.unit_states(&units, self.units.len())), ..units };
        Hidden { bases, units, tokens }
    }

    /// Factors around 1 for [`Mxdna::forward`] in training, `[batch, positions, d]`; none if the model is without jitter.
    pub fn jitter(&self, letters: &Letters, random: &mut Stream) -> Option<Tensor<3>> {
        let share = self.tokenizer.jitter as f32;
        if share == 0.0 {
            return None;
        }
        let ([batch, positions], d) = (letters.ids.dims(), self.embed.weight.dims()[1]);
        let mut factors = vec![0.0f32; batch * positions * d];
        // A stream for each sequence, so that they can be drawn side by side.
        let seeds: Vec<u64> = (0..batch).map(|_| random.random()).collect();
        factors.par_chunks_mut((positions * d).max(1)).zip(seeds).for_each(|(factors, seed)| {
            let random = &mut stream(seed, "factors", &[]);
            factors.fill_with(|| 1.0 + share * (2.0 * random.random::<f32>() - 1.0));
        });
        Some(Tensor::from_data(TensorData::new(factors, [batch, positions, d]), &letters.ids.device()))
    }

    /// Number of the last layer that [`Mxdna::states_of_layer`] knows.
    #[must_use]
    pub fn last_layer(&self) -> usize {
        self.bases.len() + 1 + self.units.len()
    }

    /// Hidden states after a layer: 0 are the vectors of letters, then come the layers over bases, then the units as they are cut, then
    /// the layers over units, of which the last is followed by the norm.
    ///
    /// # Panics
    /// If there is no such layer.
    #[must_use]
    pub fn states_of_layer(&self, letters: &Letters, layer: usize) -> Placed {
        assert!(layer <= self.last_layer(), "a layer of the model");
        if layer <= self.bases.len() {
            let Rows { states, real, .. } = self.base_states(letters, layer);
            let of = |&length: &usize| -> Vec<Range<usize>> {
                (0..length).map(|at| if at == 0 || at + 1 == length { 0..0 } else { at - 1..at }).collect()
            };
            return Placed { states, real, spans: letters.lengths.iter().map(of).collect() };
        }
        let bases = self.base_states(letters, self.bases.len());
        let (tokens, units) = self.cut(&bases, letters, None);
        let layers = layer - self.bases.len() - 1;
        let states = self.unit_states(&units, layers);
        let states = if layer == self.last_layer() { self.norm.forward(states) } else { states };
        Placed { states, real: units.real, spans: tokens.spans(letters.lengths.len(), &self.tokenizer.sizes) }
    }

    /// Bases of a unit of each expert.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        &self.tokenizer.sizes
    }

    /// The units of each sequence from left to right; what becomes of them is not computed.
    #[must_use]
    pub fn cut_into_units(&self, letters: &Letters) -> Vec<Vec<UnitSpan>> {
        let states = self.base_states(letters, self.bases.len()).states;
        self.tokenizer.units(&Positions { states, lengths: letters.lengths, special: letters.special })
    }

    /// After so many layers over bases.
    fn base_states(&self, letters: &Letters, layers: usize) -> Rows {
        let ([batch, positions], device) = (letters.ids.dims(), letters.ids.device());
        let real = real(letters.lengths, positions, &device);
        let d = self.embed.weight.dims()[1];
        let rows = letters.ids.clone().reshape([batch * positions]);
        let embedded = self.embed.weight.val().select(0, rows).reshape([batch, positions, d]);
        let layer = |states, layer: &GatedLayer| layer.forward(Rows { states, real: real.clone(), places: None });
        let states = self.bases[..layers].iter().fold(embedded, layer);
        Rows { states, real, places: None }
    }

    /// Bases to units.
    fn cut(&self, bases: &Rows, letters: &Letters, jitter: Option<Tensor<3>>) -> (UnitTokens, Rows) {
        let input = Positions { states: bases.states.clone(), lengths: letters.lengths, special: letters.special };
        let tokens = self.tokenizer.forward(input, jitter);
        let places: Vec<i32> = match self.places {
            UnitPlaces::Anchor => tokens.kept.positions.iter().map(|&at| at.max(0)).collect(),
            UnitPlaces::Rank => tokens.ranks(),
        };
        let shape = [letters.lengths.len(), tokens.kept.width];
        let places = Some(Tensor::from_data(TensorData::new(places, shape), &bases.states.device()));
        let units = Rows { states: tokens.assembled.hidden.clone(), real: tokens.real.clone(), places };
        (tokens, units)
    }

    /// After so many layers over units.
    fn unit_states(&self, units: &Rows, layers: usize) -> Tensor<3> {
        let layer = |states, layer: &GatedLayer| layer.forward(Rows { states, ..units.clone() });
        self.units[..layers].iter().fold(units.states.clone(), layer)
    }
}

/// 1 for a position of a sequence, 0 for padding.
fn real(lengths: &[usize], positions: usize, device: &Device) -> Tensor<2> {
    let of = |&length: &usize| (0..positions).map(move |at| f32::from(u8::from(at < length)));
    let values: Vec<f32> = lengths.iter().flat_map(of).collect();
    Tensor::from_data(TensorData::new(values, [lengths.len(), positions]), device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::nucleotide::NucleotideHead;

    /// Vector T11 of the project's specification of MxDNA: the published model.
    #[test]
    fn base_has_the_published_parameters() {
        let device = Device::flex();
        let config = MxdnaConfig::base();
        let tokenizer = UnitLayer::new(&config.units, config.d_model, 0, &device);
        assert_eq!(tokenizer.experts.iter().map(Module::num_params).sum::<usize>(), 10_889_216);
        // The norm before the convolution is counted with it.
        assert_eq!(tokenizer.assembly.num_params(), 796_678);
        // Another vector stands in the published file that nothing uses.
        assert_eq!(tokenizer.num_params(), 11_692_550 - config.d_model);
        let head = NucleotideHead::new(&config.layer(), LETTERS, 0, &device);
        let model = config.init(0, &device);
        assert_eq!(model.num_params() + head.num_params(), 100_090_895 - config.d_model);
    }
}
