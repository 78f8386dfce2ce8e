//! A transformer encoder over the vectors of a frozen tokenizer's codes: the second stage of VQDNA (arXiv 2405.10812), whose
//! encoder is of the size of BERT-base.
//!
//! Where the paper is silent: norms stand before attention and before the linear layers, positions are rotary or ALiBi, which
//! reach beyond the trained length, and GELU is exact. A vector of its own takes the place of masked positions.

use burn::module::Param;
use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::pool::pool;
use crate::layers::lora::LoraConfig;
use crate::layers::{Asked, LayerNorm, Linear, TransformerLayer, TransformerShape};
use crate::ops::Positions;
use crate::seed::{Stream, stream};
use crate::weights::normal;

/// Standard deviation of the mask vector's initial values.
const MASK_DEVIATION: f64 = 0.02;

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

    /// Fresh weights for code vectors `d_input` wide, a pure function of the seed.
    #[must_use]
    pub fn init(&self, d_input: usize, seed: u64, device: &Device) -> Transformer {
        let random = &mut stream(seed, "weights of the backbone", &[]);
        let (d, eps) = (self.d_model, self.norm_eps);
        let shape = TransformerShape {
            d,
            heads: self.heads,
            d_inner: self.d_ff,
            eps,
            positions: self.positions,
            recompute: self.checkpoint,
        };
        Transformer {
            proj: Linear::new(d_input, d, random, device),
            mask_vector: normal([d], MASK_DEVIATION, random, device),
            layers: (0..self.layers).map(|_| TransformerLayer::new(shape, random, device)).collect(),
            norm: LayerNorm::new(d, eps, device),
            pool: self.pool,
        }
    }
}

/// Projection, mask vector, layers and a last norm.
#[derive(Module, Debug)]
pub struct Transformer {
    /// Code vectors to `d_model`.
    pub proj: Linear,
    /// What stands for a masked position, `[d_model]`.
    pub mask_vector: Param<Tensor<1>>,
    /// The layers.
    pub layers: Vec<TransformerLayer>,
    /// Norm after the last layer.
    pub norm: LayerNorm,
    /// Adjacent bases that are one position.
    pub pool: usize,
}

impl Transformer {
    /// The hidden states of a batch; those at padding mean nothing.
    ///
    /// # Shapes
    /// - `vectors`: `[batch, bases, d_input]`
    /// - `masked`: `[batch, pools]`, true where the mask vector takes the place of the vector; none to see everything
    /// - `real`: `[batch, bases]`, 1 for a real base, 0 for padding, which is not attended to
    /// - output: `[batch, pools, d_model]`
    pub fn hidden(&self, vectors: Tensor<3>, masked: Option<Tensor<2, Bool>>, real: &Tensor<2>) -> Tensor<3> {
        self.norm.forward(self.after_layers(vectors, masked, real, self.layers.len()))
    }

    /// [`Transformer::hidden`] at some positions alone; the last layer computes little else.
    ///
    /// # Shapes
    /// - output: `[rows, d_model]`
    pub fn hidden_at(
        &self,
        vectors: Tensor<3>,
        masked: Option<Tensor<2, Bool>>,
        real: &Tensor<2>,
        asked: &Asked,
    ) -> Tensor<2> {
        let Some((last, before)) = self.layers.split_last() else {
            let hidden = self.hidden(vectors, masked, real);
            let [batch, pools, d] = hidden.dims();
            return hidden.reshape([batch * pools, d]).select(0, asked.rows.clone());
        };
        let x = self.after_layers(vectors, masked, real, before.len());
        let rows = last.forward_at(x, self.real(real.clone()), asked);
        if rows.dims()[0] == 0 {
            return rows;
        }
        self.norm.forward(rows.unsqueeze_dim(0)).squeeze_dim(0)
    }

    /// The hidden states after some of the layers, with nothing masked: 0 are projected vectors, and only those after all layers
    /// pass the last norm. Shapes as for [`Transformer::hidden`].
    ///
    /// # Panics
    /// If there are not as many layers.
    pub fn hidden_of_layer(&self, vectors: Tensor<3>, real: &Tensor<2>, layer: usize) -> Tensor<3> {
        let hidden = self.after_layers(vectors, None, real, layer);
        if layer == self.layers.len() { self.norm.forward(hidden) } else { hidden }
    }

    /// Which hidden states are real: those of pools with a real base.
    ///
    /// # Shapes
    /// - `real`: `[batch, bases]`, 1 or 0; output: `[batch, pools]`
    pub fn real(&self, real: Tensor<2>) -> Tensor<2> {
        pool(real.clone().unsqueeze_dim(2), &real, self.pool).1
    }

    fn after_layers(
        &self,
        vectors: Tensor<3>,
        masked: Option<Tensor<2, Bool>>,
        real: &Tensor<2>,
        layers: usize,
    ) -> Tensor<3> {
        let (vectors, real) = pool(vectors, real, self.pool);
        let mut x = self.proj.forward(vectors);
        if let Some(masked) = masked {
            let shape = x.dims();
            let instead = self.mask_vector.val().unsqueeze::<3>().expand(shape);
            x = x.mask_where(masked.unsqueeze_dim::<3>(2).expand(shape), instead);
        }
        self.layers[..layers].iter().fold(x, |x, layer| layer.forward(x, real.clone()))
    }

    /// The encoder with all of its parameters frozen and fresh adapters, which alone learn: a pure function of the encoder and the
    /// seed, and the same encoder until a step is taken. Adapters that it has are folded in first.
    #[must_use]
    pub fn with_adapters(self, config: &LoraConfig, seed: u64) -> Self {
        let frozen = self.merged().no_grad();
        let adapted = |(layer, place): (TransformerLayer, u64)| layer.with_adapters(config, seed, place);
        Self { layers: frozen.layers.into_iter().zip(0..).map(adapted).collect(), ..frozen }
    }

    /// The encoder with its adapters folded into the weights, in the same bits on the CPU; what was frozen stays so.
    #[must_use]
    pub fn merged(self) -> Self {
        Self { layers: self.layers.into_iter().map(TransformerLayer::merged).collect(), ..self }
    }

    /// The same parameters for one micro-batch of training, with dropout in the adapters: input channels are dropped anew, of each adapter
    /// its own, as [`LoraConfig::dropout`] says.
    #[must_use]
    pub fn with_dropped_adapters(&self, random: &mut Stream) -> Self {
        let layers = self.layers.iter().map(|layer| layer.with_dropped_adapters(random)).collect();
        Self { layers, ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops;
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
        let model = TransformerConfig::tiny().init(8, 0, &device);
        let vectors = Tensor::random([2, 30, 8], Distribution::Normal(0.0, 1.0), &device);
        let hidden = || model.hidden(vectors.clone(), None, &Tensor::ones([2, 30], &device)).into_data();
        let want = hidden();
        ops::with_frozen_weights(|| assert!(hidden() == want && hidden() == want));
    }
}
