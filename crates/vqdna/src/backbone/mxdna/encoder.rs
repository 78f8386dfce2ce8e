//! The encoder of MxDNA: layers over bases, the layer that cuts them into units, layers over units.

use burn::prelude::*;
use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use vqdna_kernels::units::NONE;

use super::{DEVIATION, Positions, UnitConfig, UnitLayer, UnitSpan, UnitTokens, groups};
use crate::backbone::{Chosen, Hidden, HiddenAt, positions};
use crate::batch::Layout;
use crate::layers::{GatedLayer, GatedShape, LayerNorm, Rows};
use crate::seed::{Stream, stream};

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

    /// How many numbers the weights are, but those of the decoder, so that no memory is taken for a config that its weights do not bear out.
    pub(in crate::backbone) fn numbers(&self) -> u64 {
        let d = self.d_model as u64;
        let expert = |&bases: &usize| {
            let groups = (groups(self.d_model, bases) as u64).max(1);
            let mixed = (d * (d / groups)).saturating_mul(bases as u64);
            (3 * d * d).saturating_add(mixed).saturating_add(2 * d)
        };
        let experts = self.units.sizes.iter().map(expert).fold(0, u64::saturating_add);
        let others = 4 * d + self.units.sizes.len() as u64 * d + 3 * d * d + 2 * 3 * (3 * d + 1) + 2 * d;
        let layers = (self.base_layers as u64).saturating_add(self.unit_layers as u64);
        self.layer_numbers().saturating_mul(layers).saturating_add(experts).saturating_add(others)
    }

    /// The same of the decoder.
    pub(in crate::backbone) fn decoder_numbers(&self) -> u64 {
        self.layer_numbers().saturating_add(2 * self.d_model as u64)
    }

    fn layer_numbers(&self) -> u64 {
        let (d, inner) = (self.d_model as u64, self.d_ff as u64);
        (4 * d * d).saturating_add((3 * d).saturating_mul(inner)).saturating_add(4 * d)
    }

    /// Fresh weights.
    pub(in crate::backbone) fn init(&self, random: &mut Stream, seed: u64, device: &Device) -> Mxdna {
        let d = self.d_model;
        Mxdna {
            bases: (0..self.base_layers).map(|_| GatedLayer::new(self.layer(), random, device)).collect(),
            tokenizer: UnitLayer::new(&self.units, d, seed, device),
            units: (0..self.unit_layers).map(|_| GatedLayer::new(self.layer(), random, device)).collect(),
            norm: LayerNorm::new(d, self.units.norm_eps, device),
            decoder: None,
            places: self.unit_places,
        }
    }

    /// Fresh weights of the decoder.
    #[must_use]
    pub fn decoder(&self, random: &mut Stream, device: &Device) -> Decoder {
        let layer = GatedLayer::new(self.layer(), random, device);
        Decoder { layer, norm: LayerNorm::new(self.d_model, self.units.norm_eps, device) }
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
    #[error("`backbone.{field}` must be 1 to {most}")]
    Size {
        /// The field.
        field: &'static str,
        /// The most it may be.
        most: usize,
    },
    /// Heads that do not divide the width.
    #[error("`backbone.heads` is {heads}, which does not divide `backbone.d_model`, {d_model}")]
    Heads {
        /// Channels.
        d_model: usize,
        /// Heads.
        heads: usize,
    },
    /// Rotary positions turn pairs of channels.
    #[error("`backbone.d_model` ÷ `backbone.heads` must be even, not {0}")]
    OddHead(usize),
    /// More layers than anyone has.
    #[error("`backbone.{field}` must be at most {MOST_LAYERS}")]
    Layers {
        /// The field.
        field: &'static str,
    },
    /// No wavelength.
    #[error("`backbone.theta` must be at least 1")]
    Theta,
    /// A norm that divides by nothing.
    #[error("`backbone.units.{field}` must be above 0")]
    Eps {
        /// The field.
        field: &'static str,
    },
    /// No experts, or experts for no bases.
    #[error("`backbone.units.sizes` must be 1 to {MOST_EXPERTS} sizes of 1 to {MOST_BASES} bases")]
    Units,
    /// Factors that may be negative.
    #[error("`backbone.units.jitter` must be 0 or more and below 1, not {0}")]
    Jitter(f64),
}

/// Hidden states of positions to those of units.
#[derive(Module, Debug)]
pub struct Mxdna {
    /// Layers over bases.
    pub bases: Vec<GatedLayer>,
    /// Bases to units.
    pub tokenizer: UnitLayer,
    /// Layers over units.
    pub units: Vec<GatedLayer>,
    /// Norm after the last layer.
    pub norm: LayerNorm,
    /// Units back to bases, in a language model.
    pub decoder: Option<Decoder>,
    #[module(skip)]
    places: UnitPlaces,
}

/// From hidden states of units back to those of bases.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Attention of bases to units.
    pub layer: GatedLayer,
    /// Norm after it.
    pub norm: LayerNorm,
}

impl Decoder {
    /// # Shapes
    /// - output: as the states of `bases`
    pub fn forward(&self, bases: Rows, units: Rows) -> Tensor<3> {
        self.norm.forward(self.layer.across(bases, units))
    }
}

/// Hidden states of a batch, of bases and of units.
#[derive(Clone, Debug)]
pub struct States {
    /// After the layers over bases, with their real positions.
    pub bases: Rows,
    /// After the layers over units and the last norm, with their real tokens; the first is that of the first position.
    pub units: Rows,
    /// What they were made into.
    pub tokens: UnitTokens,
}

impl Mxdna {
    /// The hidden states of a batch; those at padding mean nothing. `jitter`, in training, as for [`UnitLayer::forward`].
    ///
    /// # Shapes
    /// - `x`: `[batch, positions, d]`
    ///
    /// # Panics
    /// If lengths or flags do not fit `x`.
    #[must_use]
    pub fn forward(&self, x: Tensor<3>, layout: &Layout, jitter: Option<Tensor<3>>) -> States {
        let bases = self.base_states(x, layout, self.bases.len());
        let (tokens, units) = self.form_units(&bases, layout, jitter);
        let units = Rows { states: self.norm.forward(self.unit_states(&units, self.units.len())), ..units };
        States { bases, units, tokens }
    }

    /// See [`Backbone::forward`](crate::backbone::Backbone::forward).
    pub(in crate::backbone) fn hidden(&self, x: Tensor<3>, layout: &Layout, random: Option<&mut Stream>) -> Hidden {
        let jitter = random.and_then(|random| self.jitter(x.dims(), random, &x.device()));
        let States { units, tokens, .. } = self.forward(x, layout, jitter);
        Hidden { states: units.states, real: units.real, covers: None, penalty: Some(tokens.balance) }
    }

    /// See [`Backbone::forward_at`](crate::backbone::Backbone::forward_at).
    pub(in crate::backbone) fn hidden_at(
        &self,
        x: Tensor<3>,
        layout: &Layout,
        chosen: &Chosen,
        random: Option<&mut Stream>,
    ) -> HiddenAt {
        let jitter = random.and_then(|random| self.jitter(x.dims(), random, &x.device()));
        let States { bases, units, tokens } = self.forward(x, layout, jitter);
        let count = tokens.selection.anchors.iter().filter(|&&anchor| anchor != NONE).count();
        let decoder = self.decoder.as_ref().expect("a language model has a decoder");
        let targets = Targets::new(chosen, &bases.states.device());
        let chosen = decoder.forward(targets.of(bases), units);
        let [batch, most, d] = chosen.dims();
        let states = chosen.reshape([batch * most, d]).select(0, targets.within);
        HiddenAt { states, penalty: Some(tokens.balance), units: Some(count) }
    }

    /// Factors around 1 for [`Mxdna::forward`] in training, of states of this shape; none if the model is without jitter.
    pub fn jitter(&self, shape: [usize; 3], random: &mut Stream, device: &Device) -> Option<Tensor<3>> {
        let most = self.tokenizer.jitter as f32;
        if most == 0.0 {
            return None;
        }
        let [batch, positions, d] = shape;
        let mut factors = vec![0.0f32; batch * positions * d];
        // A stream for each sequence, so that they can be drawn side by side.
        let seeds: Vec<u64> = (0..batch).map(|_| random.random()).collect();
        factors.par_chunks_mut((positions * d).max(1)).zip(seeds).for_each(|(factors, seed)| {
            let random = &mut stream(seed, "factors", &[]);
            factors.fill_with(|| 1.0 + most * (2.0 * random.random::<f32>() - 1.0));
        });
        Some(Tensor::from_data(TensorData::new(factors, shape), device))
    }

    /// Number of the last layer that [`Backbone::states_of_layer`](super::super::Backbone::states_of_layer) knows.
    #[must_use]
    pub fn last_layer(&self) -> usize {
        self.bases.len() + 1 + self.units.len()
    }

    /// Hidden states after a layer: 0 are those that came in, then come the layers over bases, then the units as they are formed, then
    /// the layers over units, of which the last is followed by the norm.
    ///
    /// # Panics
    /// If there is no such layer.
    pub(in crate::backbone) fn states_of_layer(&self, x: Tensor<3>, layout: &Layout, layer: usize) -> Hidden {
        assert!(layer <= self.last_layer(), "a layer of the model");
        if layer <= self.bases.len() {
            let Rows { states, real, .. } = self.base_states(x, layout, layer);
            return Hidden { states, real, covers: Some(positions(layout)), penalty: None };
        }
        let bases = self.base_states(x, layout, self.bases.len());
        let (tokens, units) = self.form_units(&bases, layout, None);
        let layers = layer - self.bases.len() - 1;
        let states = self.unit_states(&units, layers);
        let states = if layer == self.last_layer() { self.norm.forward(states) } else { states };
        let covers = Some(tokens.spans(layout.lengths.len(), &self.tokenizer.sizes));
        Hidden { states, real: units.real, covers, penalty: None }
    }

    /// With this decoder.
    #[must_use]
    pub fn with_decoder(self, decoder: Decoder) -> Self {
        Self { decoder: Some(decoder), ..self }
    }

    /// Without a decoder.
    #[must_use]
    pub fn without_decoder(self) -> Self {
        Self { decoder: None, ..self }
    }

    /// Bases of a unit of each expert.
    #[must_use]
    pub fn sizes(&self) -> &[usize] {
        &self.tokenizer.sizes
    }

    /// The units of each sequence from left to right; what becomes of them is not computed.
    #[must_use]
    pub fn units_of(&self, x: Tensor<3>, layout: &Layout) -> Vec<Vec<UnitSpan>> {
        let states = self.base_states(x, layout, self.bases.len()).states;
        self.tokenizer.units(&Positions { states, lengths: &layout.lengths, special: &layout.special })
    }

    /// After so many layers over bases.
    fn base_states(&self, x: Tensor<3>, layout: &Layout, layers: usize) -> Rows {
        let real = layout.real.clone();
        let layer = |states, layer: &GatedLayer| layer.forward(Rows { states, real: real.clone(), places: None });
        let states = self.bases[..layers].iter().fold(x, layer);
        Rows { states, real, places: None }
    }

    /// Bases to units.
    fn form_units(&self, bases: &Rows, layout: &Layout, jitter: Option<Tensor<3>>) -> (UnitTokens, Rows) {
        let input = Positions { states: bases.states.clone(), lengths: &layout.lengths, special: &layout.special };
        let tokens = self.tokenizer.forward(input, jitter);
        let places: Vec<i32> = match self.places {
            UnitPlaces::Anchor => tokens.kept.positions.iter().map(|&at| at.max(0)).collect(),
            UnitPlaces::Rank => tokens.ranks(),
        };
        let shape = [layout.lengths.len(), tokens.kept.width];
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

/// Chosen positions, side by side for each sequence: nothing is computed of others once units are known.
struct Targets {
    /// `[batch * most]`: each as a row of the flattened positions, padded.
    rows: Tensor<1, Int>,
    /// `[batch, most]`: each as a position of its sequence, padded.
    places: Tensor<2, Int>,
    /// `[batch, most]`: 1 for a chosen position, 0 for padding.
    real: Tensor<2>,
    /// Those that are no padding, as rows of `[batch * most]`.
    within: Tensor<1, Int>,
}

impl Targets {
    fn new(chosen: &Chosen, device: &Device) -> Self {
        let [batch, positions] = chosen.shape;
        let mut of_sequences = vec![Vec::new(); batch];
        for &row in &chosen.rows {
            of_sequences[row / positions].push((row % positions) as i32);
        }
        // One at least, so that the rows of every sequence are some.
        let most = of_sequences.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let (mut rows, mut places, mut real, mut within) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sequence, chosen) in of_sequences.iter().enumerate() {
            let first = (sequence * positions) as i32;
            within.extend((0..chosen.len()).map(|at| (sequence * most + at) as i32));
            real.extend((0..most).map(|at| f32::from(u8::from(at < chosen.len()))));
            let padded = chosen.iter().copied().chain(std::iter::repeat_n(0, most - chosen.len()));
            for place in padded {
                rows.push(first + place);
                places.push(place);
            }
        }
        let (all, count) = (rows.len(), within.len());
        Self {
            rows: Tensor::from_data(TensorData::new(rows, [all]), device),
            places: Tensor::from_data(TensorData::new(places, [batch, most]), device),
            real: Tensor::from_data(TensorData::new(real, [batch, most]), device),
            within: Tensor::from_data(TensorData::new(within, [count]), device),
        }
    }

    /// The chosen ones among rows that stand at 0, 1, 2 and so on.
    fn of(&self, rows: Rows) -> Rows {
        let ([batch, positions, d], [_, most]) = (rows.states.dims(), self.places.dims());
        let states = rows.states.reshape([batch * positions, d]).select(0, self.rows.clone());
        Rows { states: states.reshape([batch, most, d]), real: self.real.clone(), places: Some(self.places.clone()) }
    }
}
