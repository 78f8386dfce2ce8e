//! The encoder of MxDNA: layers over bases, the layer that cuts them into units, layers over units.

use burn::module::Param;
use burn::prelude::*;
use serde::{Deserialize, Serialize};
use vqdna_data::alphabet::BaseId;

use super::{DEVIATION, Positions, UnitConfig, UnitLayer, UnitTokens};
use crate::layers::{GatedLayer, GatedShape, LayerNorm, Rows};
use crate::seed::stream;
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

impl Mxdna {
    /// The hidden states of a batch; those at padding mean nothing. `jitter`, in training, as for [`UnitLayer::forward`].
    #[must_use]
    pub fn forward(&self, letters: &Letters, jitter: Option<Tensor<3>>) -> Hidden {
        let ([batch, positions], device) = (letters.ids.dims(), letters.ids.device());
        let real = real(letters.lengths, positions, &device);
        let d = self.embed.weight.dims()[1];
        let rows = letters.ids.clone().reshape([batch * positions]);
        let embedded = self.embed.weight.val().select(0, rows).reshape([batch, positions, d]);
        let states = self
            .bases
            .iter()
            .fold(embedded, |states, layer| layer.forward(Rows { states, real: real.clone(), places: None }));

        let input = Positions { states: states.clone(), lengths: letters.lengths, special: letters.special };
        let tokens = self.tokenizer.forward(input, jitter);
        let places = match self.places {
            UnitPlaces::Rank => None,
            UnitPlaces::Anchor => {
                let anchors = tokens.kept.positions.iter().map(|&at| at.max(0)).collect::<Vec<_>>();
                Some(Tensor::from_data(TensorData::new(anchors, [batch, tokens.kept.width]), &device))
            }
        };
        let unit_rows = |states| Rows { states, real: tokens.real.clone(), places: places.clone() };
        let last =
            self.units.iter().fold(tokens.assembled.hidden.clone(), |states, layer| layer.forward(unit_rows(states)));
        let units = unit_rows(self.norm.forward(last));
        Hidden { bases: Rows { states, real, places: None }, units, tokens }
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
