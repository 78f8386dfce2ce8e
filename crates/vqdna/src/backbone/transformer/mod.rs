//! A transformer encoder: in the second stage of VQDNA (arXiv 2405.10812), over the vectors of a frozen tokenizer's codes, it is of the
//! size of BERT-base.
//!
//! Where the paper is silent: norms stand before attention and before the linear layers, positions are rotary or ALiBi, which
//! reach beyond the trained length, and GELU is exact.

mod memory;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::Chosen;
use crate::layers::lora::LoraConfig;
use crate::layers::{LayerNorm, TargetRows, TransformerLayer, TransformerShape};
use crate::ops::{KeyValues, Positions};
use crate::seed::Stream;

/// The network of the encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransformerConfig {
    /// Channels of a hidden state.
    pub d_model: usize,
    /// Number of layers.
    pub layers: usize,
    /// Heads of attention, a divisor of `d_model`.
    pub heads: usize,
    /// Channels between the two linear layers of a layer.
    pub d_ff: usize,
    /// ε of the layer norms.
    pub norm_eps: f64,
    /// How attention knows where a position stands.
    pub positions: Positions,
    /// Whether a position attends to itself and to earlier ones alone, as it must where tokens are predicted from those before them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub causal: bool,
    /// Adjacent bases whose mean vector is one position of the encoder; 1 keeps every base.
    pub pool: usize,
    /// Whether training keeps only the input of each layer and computes the rest again in the backward pass: less memory, for a
    /// second forward pass. On the CPU only. Numbers change in rounding alone.
    pub checkpoint: bool,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self::small()
    }
}

/// A contradiction in a [`TransformerConfig`]; each message names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformerConfigError {
    /// A size of zero, or one that no computer could hold.
    #[error("`backbone.{field}` must be 1 to {most}")]
    Size {
        /// Name of the field.
        field: &'static str,
        /// The largest size.
        most: usize,
    },
    /// Heads of unequal width.
    #[error("`backbone.heads` must divide `backbone.d_model`, but {d_model} is no multiple of {heads}")]
    Heads {
        /// As written.
        d_model: usize,
        /// As written.
        heads: usize,
    },
    /// Rotary positions turn pairs of channels, and bf16 keeps them in pairs.
    #[error("`backbone.d_model` / `backbone.heads` must be even, not {0}")]
    OddHead(usize),
    /// Wavelengths that grow from 1 need a base of at least 1.
    #[error("`backbone.positions.theta` must be 1 or more")]
    Theta,
    /// An ε that a root cannot take.
    #[error("`backbone.norm_eps` must be above 0")]
    NormEps,
}

/// Sizes beyond which a config is refused (sanity limit).
const MOST_CHANNELS: usize = 65_536;
const MOST_LAYERS: usize = 1000;
const MOST_POOLED: usize = 64;

impl TransformerConfig {
    /// For tests: 2 layers, 64 wide.
    #[must_use]
    pub fn tiny() -> Self {
        Self::of_size([2, 64, 2, 256])
    }

    /// For a laptop: 6 layers, 384 wide.
    #[must_use]
    pub fn small() -> Self {
        Self::of_size([6, 384, 6, 1536])
    }

    /// The size of BERT-base, as in DNABERT-2 and VQDNA: 12 layers, 768 wide.
    #[must_use]
    pub fn base() -> Self {
        Self::of_size([12, 768, 12, 3072])
    }

    fn of_size([layers, d_model, heads, d_ff]: [usize; 4]) -> Self {
        Self {
            d_model,
            layers,
            heads,
            d_ff,
            norm_eps: 1e-5,
            positions: Positions::default(),
            causal: false,
            pool: 1,
            checkpoint: false,
        }
    }

    /// Finds contradictions before a device opens.
    ///
    /// # Errors
    /// The first contradiction, naming its field.
    pub fn check(&self) -> Result<(), TransformerConfigError> {
        use TransformerConfigError as E;
        let sizes = [
            ("d_model", self.d_model, MOST_CHANNELS),
            ("layers", self.layers, MOST_LAYERS),
            ("heads", self.heads, MOST_CHANNELS),
            ("d_ff", self.d_ff, MOST_CHANNELS),
            ("pool", self.pool, MOST_POOLED),
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
        if let Positions::Rotary { theta } = self.positions
            && !(theta >= 1.0 && theta.is_finite())
        {
            return Err(E::Theta);
        }
        if !(self.norm_eps > 0.0 && self.norm_eps.is_finite()) {
            return Err(E::NormEps);
        }
        Ok(())
    }

    /// How many numbers the weights are, so that no memory is taken for a config that its weights do not bear out.
    pub(super) fn numbers(&self) -> u64 {
        let (d, inner, layers) = (self.d_model as u64, self.d_ff as u64, self.layers as u64);
        let linear = |d_in: u64, d_out: u64| d_out.saturating_mul(d_in + 1);
        let layer = [linear(d, 3 * d), linear(d, d), linear(d, inner), linear(inner, d), 4 * d];
        let layer = layer.into_iter().fold(0, u64::saturating_add);
        layer.saturating_mul(layers).saturating_add(2 * d)
    }

    /// Fresh weights.
    pub(super) fn init(&self, random: &mut Stream, device: &Device) -> Transformer {
        let shape = TransformerShape {
            d: self.d_model,
            heads: self.heads,
            d_inner: self.d_ff,
            eps: self.norm_eps,
            positions: self.positions,
            causal: self.causal,
            recompute: self.checkpoint,
        };
        Transformer {
            layers: (0..self.layers).map(|_| TransformerLayer::new(shape, random, device)).collect(),
            norm: LayerNorm::new(self.d_model, self.norm_eps, device),
        }
    }
}

/// Layers and a last norm.
#[derive(Module, Debug)]
pub struct Transformer {
    /// The layers.
    pub layers: Vec<TransformerLayer>,
    /// Norm after the last layer.
    pub norm: LayerNorm,
}

impl Transformer {
    /// The hidden states of a batch; those at padding mean nothing.
    ///
    /// # Shapes
    /// - `x`, output: `[batch, positions, d_model]`
    /// - `real`: `[batch, positions]`, 1 for a real position, 0 for padding, which is not attended to
    pub(super) fn hidden(&self, x: Tensor<3>, real: &Tensor<2>) -> Tensor<3> {
        self.norm.forward(self.after_layers(x, real, self.layers.len()))
    }

    /// [`Transformer::hidden`] at some positions alone; the last layer computes little else.
    ///
    /// # Shapes
    /// - output: `[rows, d_model]`
    pub(super) fn hidden_at(&self, x: Tensor<3>, real: &Tensor<2>, chosen: &Chosen) -> Tensor<2> {
        let targets = targets(chosen, &real.device());
        let Some((last, before)) = self.layers.split_last() else {
            let hidden = self.hidden(x, real);
            let [batch, positions, d] = hidden.dims();
            return hidden.reshape([batch * positions, d]).select(0, targets.rows);
        };
        let x = self.after_layers(x, real, before.len());
        let rows = last.forward_at(x, real.clone(), &targets);
        if rows.dims()[0] == 0 {
            return rows;
        }
        self.norm.forward(rows.unsqueeze_dim(0)).squeeze_dim(0)
    }

    /// The hidden states after some of the layers: 0 are those that came in, and only those after all layers pass the last norm. Shapes as
    /// for [`Transformer::hidden`].
    ///
    /// # Panics
    /// If there are not as many layers.
    pub(super) fn hidden_of_layer(&self, x: Tensor<3>, real: &Tensor<2>, layer: usize) -> Tensor<3> {
        let hidden = self.after_layers(x, real, layer);
        if layer == self.layers.len() { self.norm.forward(hidden) } else { hidden }
    }

    fn after_layers(&self, x: Tensor<3>, real: &Tensor<2>, layers: usize) -> Tensor<3> {
        self.layers[..layers].iter().fold(x, |x, layer| layer.forward(x, real.clone()))
    }

    /// See [`Backbone::key_values`](super::Backbone::key_values).
    pub(super) fn key_values(&self, capacity: usize) -> Vec<KeyValues> {
        self.layers.iter().map(|layer| layer.key_values(capacity)).collect()
    }

    /// See [`Backbone::extend`](super::Backbone::extend).
    pub(super) fn extend(&self, x: Tensor<3>, kept: &mut [KeyValues]) -> Tensor<3> {
        assert_eq!(kept.len(), self.layers.len(), "keys and values of each layer");
        self.norm.forward(self.layers.iter().zip(kept).fold(x, |x, (layer, kept)| layer.extend(x, kept)))
    }

    /// See [`Backbone::with_adapters`](super::Backbone::with_adapters).
    pub(super) fn with_adapters(self, config: &LoraConfig, seed: u64) -> Self {
        let frozen = self.merged().no_grad();
        let adapted = |(layer, place): (TransformerLayer, u64)| layer.with_adapters(config, seed, place);
        Self { layers: frozen.layers.into_iter().zip(0..).map(adapted).collect(), ..frozen }
    }

    /// See [`Backbone::merged`](super::Backbone::merged).
    pub(super) fn merged(self) -> Self {
        Self { layers: self.layers.into_iter().map(TransformerLayer::merged).collect(), ..self }
    }

    /// See [`Backbone::with_dropped_adapters`](super::Backbone::with_dropped_adapters).
    pub(super) fn with_dropped_adapters(&self, random: &mut Stream) -> Self {
        let layers = self.layers.iter().map(|layer| layer.with_dropped_adapters(random)).collect();
        Self { layers, ..self.clone() }
    }
}

/// Chosen positions on a device.
fn targets(chosen: &Chosen, device: &Device) -> TargetRows {
    let [batch, positions] = chosen.shape;
    let mut mask = vec![0.0f32; batch * positions];
    for &row in &chosen.rows {
        mask[row] = 1.0;
    }
    let rows: Vec<i32> = chosen.rows.iter().map(|&row| row as i32).collect();
    TargetRows {
        rows: Tensor::from_data(TensorData::new(rows, [chosen.rows.len()]), device),
        mask: Tensor::from_data(TensorData::new(mask, [batch, positions]), device),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
    use crate::seed::stream;
    use burn::tensor::Distribution;

    #[test]
    fn contradictions_name_their_field() {
        let tiny = TransformerConfig::tiny;
        let presets = [tiny(), TransformerConfig::small(), TransformerConfig::base()];
        assert!(presets.iter().all(|preset| preset.check().is_ok()));
        let rotary = |theta| TransformerConfig { positions: Positions::Rotary { theta }, ..tiny() };
        for (config, field) in [
            (TransformerConfig { d_model: 0, ..tiny() }, "backbone.d_model"),
            (TransformerConfig { layers: 1001, ..tiny() }, "backbone.layers"),
            (TransformerConfig { heads: 0, ..tiny() }, "backbone.heads"),
            (TransformerConfig { heads: 3, ..tiny() }, "backbone.heads"),
            (TransformerConfig { heads: 64, ..tiny() }, "backbone.heads"),
            (TransformerConfig { heads: 64, positions: Positions::Alibi, ..tiny() }, "backbone.heads"),
            (TransformerConfig { d_ff: 100_000, ..tiny() }, "backbone.d_ff"),
            (TransformerConfig { pool: 0, ..tiny() }, "backbone.pool"),
            (TransformerConfig { norm_eps: 0.0, ..tiny() }, "backbone.norm_eps"),
            (TransformerConfig { norm_eps: f64::NAN, ..tiny() }, "backbone.norm_eps"),
            (rotary(0.0), "backbone.positions.theta"),
            (rotary(f64::INFINITY), "backbone.positions.theta"),
        ] {
            let message = config.check().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn a_config_reads_as_it_was_written_and_refuses_typos() {
        let config: TransformerConfig = toml::from_str("layers = 3\npositions = { kind = \"alibi\" }").expect("sound");
        assert_eq!(config, TransformerConfig { layers: 3, positions: Positions::Alibi, ..TransformerConfig::small() });
        let text = toml::to_string(&config).expect("serializable");
        assert_eq!(toml::from_str::<TransformerConfig>(&text).expect("sound"), config);
        let rotary: TransformerConfig = toml::from_str("positions = { kind = \"rotary\" }").expect("sound");
        assert_eq!(rotary.positions, Positions::Rotary { theta: 10_000.0 });
        for typo in ["layer = 3", "positions = { kind = \"rotary\", thetta = 1.0 }", "positions = { kind = \"rope\" }"]
        {
            assert!(toml::from_str::<TransformerConfig>(typo).is_err(), "{typo}");
        }
    }

    #[test]
    fn frozen_weights_give_the_same_bits() {
        let device = Device::flex();
        let model = TransformerConfig::tiny().init(&mut stream(0, "weights", &[]), &device);
        let vectors = Tensor::random([2, 30, 64], Distribution::Normal(0.0, 1.0), &device);
        let hidden = || model.hidden(vectors.clone(), &Tensor::ones([2, 30], &device)).into_data();
        let want = hidden();
        ops::with_frozen_weights(|| assert!(hidden() == want && hidden() == want));
    }
}
