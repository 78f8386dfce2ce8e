//! Encoders over the vectors of tokens. One file or folder per kind: [`transformer`] is a stack of layers, one state for each position;
//! [`mxdna`] shortens sequences inside, to units that it learns.
//!
//! A further kind is a file or folder here and a variant in each of the two enums below; no other room names a variant.

pub mod mxdna;
mod pool;
pub mod transformer;

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::ops::Range;

use crate::batch::Layout;
use crate::layers::lora::LoraConfig;
use crate::memory::Step;
use crate::ops::KeyValues;
use crate::seed::Stream;
use mxdna::{Mxdna, MxdnaConfig, MxdnaConfigError, UnitSpan};
use transformer::{Transformer, TransformerConfig, TransformerConfigError};

pub use pool::pool;

/// The network of an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum BackboneConfig {
    /// Transformer layers.
    Stack(TransformerConfig),
    /// Layers over positions, a layer that forms units of them, layers over units.
    Mxdna(MxdnaConfig),
}

/// A contradiction in a [`BackboneConfig`].
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BackboneConfigError {
    /// See [`TransformerConfigError`].
    #[error(transparent)]
    Stack(#[from] TransformerConfigError),
    /// See [`MxdnaConfigError`].
    #[error(transparent)]
    Mxdna(#[from] MxdnaConfigError),
    /// States of a pool, or of a unit, know of later positions.
    #[error(
        "`backbone.{0}` makes one state of several positions, which would show a token that is predicted from those before it"
    )]
    NotCausal(&'static str),
}

impl BackboneConfig {
    /// Finds contradictions before a device opens.
    ///
    /// # Errors
    /// The first contradiction, naming its field.
    pub fn check(&self) -> Result<(), BackboneConfigError> {
        match self {
            Self::Stack(stack) => Ok(stack.check()?),
            Self::Mxdna(mxdna) => Ok(mxdna.check()?),
        }
    }

    /// Channels of a hidden state.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Stack(stack) => stack.d_model,
            Self::Mxdna(mxdna) => mxdna.d_model,
        }
    }

    /// ε of the layer norms.
    #[must_use]
    pub fn norm_eps(&self) -> f64 {
        match self {
            Self::Stack(stack) => stack.norm_eps,
            Self::Mxdna(mxdna) => mxdna.units.norm_eps,
        }
    }

    /// Adjacent tokens whose mean vector is one position.
    #[must_use]
    pub fn pool(&self) -> usize {
        match self {
            Self::Stack(stack) => stack.pool,
            Self::Mxdna(_) => 1,
        }
    }

    /// The same encoder whose states know of their own positions and of earlier ones alone.
    ///
    /// # Errors
    /// If its states stand for several positions.
    pub fn causal(&self) -> Result<Self, BackboneConfigError> {
        match self {
            Self::Stack(stack) if stack.pool == 1 => {
                Ok(Self::Stack(TransformerConfig { causal: true, ..stack.clone() }))
            }
            Self::Stack(_) => Err(BackboneConfigError::NotCausal("pool")),
            Self::Mxdna(_) => Err(BackboneConfigError::NotCausal("kind")),
        }
    }

    /// Whether low-rank adapters have a place in it.
    #[must_use]
    pub fn takes_adapters(&self) -> bool {
        match self {
            Self::Stack(_) => true,
            Self::Mxdna(_) => false,
        }
    }

    /// Whether it forms units of positions.
    #[must_use]
    pub fn forms_units(&self) -> bool {
        match self {
            Self::Stack(_) => false,
            Self::Mxdna(_) => true,
        }
    }

    /// What it is, for people.
    #[must_use]
    pub fn described(&self) -> String {
        match self {
            Self::Stack(stack) => {
                let positions = match stack.pool {
                    1 => "token".to_owned(),
                    tokens => format!("{tokens} adjacent tokens"),
                };
                let (layers, width) = (stack.layers, stack.d_model);
                format!("A transformer of {layers} layers, {width} wide, with one position for each {positions}")
            }
            Self::Mxdna(MxdnaConfig { d_model, base_layers, unit_layers, units, .. }) => {
                let sizes: Vec<String> = units.sizes.iter().map(usize::to_string).collect();
                format!(
                    "{base_layers} layers over bases, a layer that forms units of {} of them, and {unit_layers} layers over units, \
                     {d_model} wide (MxDNA, NeurIPS 2024)",
                    sizes.join(", ")
                )
            }
        }
    }

    /// Its sizes by name, for people.
    #[must_use]
    pub fn sizes(&self) -> Vec<(&'static str, Vec<usize>)> {
        let one = |(name, size): (&'static str, usize)| (name, vec![size]);
        match self {
            Self::Stack(TransformerConfig { layers, d_model, heads, d_ff, pool, .. }) => {
                let all =
                    [("layers", *layers), ("d_model", *d_model), ("heads", *heads), ("d_ff", *d_ff), ("pool", *pool)];
                all.into_iter().map(one).collect()
            }
            Self::Mxdna(MxdnaConfig { base_layers, unit_layers, d_model, heads, d_ff, units, .. }) => {
                let layers = [("base_layers", *base_layers), ("unit_layers", *unit_layers)];
                let widths = [("d_model", *d_model), ("heads", *heads), ("d_ff", *d_ff)];
                let all = layers.into_iter().chain(widths).map(one);
                std::iter::once(("unit_sizes", units.sizes.clone())).chain(all).collect()
            }
        }
    }

    /// Its parts by name, each with the beginnings of the names of its weights in a folder.
    #[must_use]
    pub fn parts(&self) -> Vec<(&'static str, &'static [&'static str])> {
        match self {
            Self::Stack(_) => vec![("backbone", &["backbone.", "embed."])],
            Self::Mxdna(_) => vec![
                ("base_layers", &["encoder.embed.", "encoder.bases."]),
                ("tokenizer", &["encoder.tokenizer."]),
                ("unit_layers", &["encoder.units.", "encoder.norm."]),
            ],
        }
    }

    /// How many numbers its weights are.
    #[must_use]
    pub fn numbers(&self) -> u64 {
        match self {
            Self::Stack(stack) => stack.numbers(),
            Self::Mxdna(mxdna) => mxdna.numbers(),
        }
    }

    /// How many numbers lead from units back to positions in a language model.
    #[must_use]
    pub fn decoder_numbers(&self) -> u64 {
        match self {
            Self::Stack(_) => 0,
            Self::Mxdna(mxdna) => mxdna.decoder_numbers(),
        }
    }

    /// How many numbers adapters add to it; 0 if it takes none.
    #[must_use]
    pub fn adapter_numbers(&self, lora: &LoraConfig) -> u64 {
        match self {
            Self::Stack(stack) => (lora.numbers(stack.d_model, stack.d_ff) as u64).saturating_mul(stack.layers as u64),
            Self::Mxdna(_) => 0,
        }
    }

    /// What a training step takes in it, where this share of the positions is chosen for [`Backbone::forward_at`]; with none, all states are
    /// needed.
    #[must_use]
    pub fn step_memory(&self, step: &Step, chosen: Option<f64>) -> StepMemory {
        match self {
            Self::Stack(stack) => stack.step_memory(step, chosen),
            Self::Mxdna(mxdna) => mxdna.step_memory(step, chosen),
        }
    }

    /// Name of the stream from which fresh weights are drawn, those of the embedding first.
    pub(crate) fn stream(&self) -> &'static str {
        match self {
            Self::Stack(_) => "weights of the backbone",
            Self::Mxdna(_) => "weights of MxDNA",
        }
    }

    /// Name of the stream from which fresh weights of a language model's head are drawn, and then those of the decoder.
    pub(crate) fn head_stream(&self) -> &'static str {
        match self {
            Self::Stack(_) => "weights of the masked heads",
            Self::Mxdna(_) => "weights of the nucleotide head",
        }
    }

    /// Standard deviation of fresh weights of a language model's head; none for those of any linear layer.
    pub(crate) fn deviation(&self) -> Option<f64> {
        match self {
            Self::Stack(_) => None,
            Self::Mxdna(_) => Some(mxdna::DEVIATION),
        }
    }

    /// Fresh weights.
    pub(crate) fn init(&self, random: &mut Stream, seed: u64, device: &Device) -> Backbone {
        match self {
            Self::Stack(stack) => Backbone::Stack(stack.init(random, device)),
            Self::Mxdna(mxdna) => Backbone::Mxdna(mxdna.init(random, seed, device)),
        }
    }
}

impl From<TransformerConfig> for BackboneConfig {
    fn from(config: TransformerConfig) -> Self {
        Self::Stack(config)
    }
}

impl From<MxdnaConfig> for BackboneConfig {
    fn from(config: MxdnaConfig) -> Self {
        Self::Mxdna(config)
    }
}

/// What a training step takes in an encoder, in floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepMemory {
    /// Kept by the forward pass for the backward pass.
    pub kept: u64,
    /// Chosen positions.
    pub chosen: u64,
    /// Temporary buffers.
    pub work: u64,
    /// What comes with a batch besides its tokens.
    pub data: u64,
    /// Whether so little is kept of most weights that their gradients find no place freed.
    pub keeps_little: bool,
}

/// An encoder.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one encoder a model; Burn derives modules for plain fields")]
pub enum Backbone {
    /// See [`Transformer`].
    Stack(Transformer),
    /// See [`Mxdna`].
    Mxdna(Mxdna),
}

/// Hidden states of a batch.
#[derive(Clone, Debug)]
pub struct Hidden {
    /// `[batch, rows, d]`; those at padding mean nothing.
    pub states: Tensor<3>,
    /// `[batch, rows]`: 1 for a state that stands for something or is special; 0 for padding.
    pub real: Tensor<2>,
    /// For each sequence, the positions that each of its states stands for; none for a special one. Absent where nobody asked.
    pub covers: Option<Vec<Vec<Range<usize>>>>,
    /// What training adds to its loss, `[1]`: the load-balancing loss of experts.
    pub penalty: Option<Tensor<1>>,
}

/// Hidden states at some positions of a batch.
#[derive(Clone, Debug)]
pub struct HiddenAt {
    /// `[rows, d]`.
    pub states: Tensor<2>,
    /// As in [`Hidden`].
    pub penalty: Option<Tensor<1>>,
    /// Units that the whole batch was made into, where positions are made into units.
    pub units: Option<usize>,
}

/// Positions of a batch, chosen on the host, where they are known without asking the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Ascending places in the flattened batch.
    pub rows: Vec<usize>,
    /// Sequences, and positions of each, padding included.
    pub shape: [usize; 2],
}

impl Backbone {
    /// The hidden states after the last layer and its norm. With `jitter`, in training, what routes positions is jittered.
    ///
    /// # Shapes
    /// - `x`: `[batch, positions, d]`
    pub fn forward(&self, x: Tensor<3>, layout: &Layout, jitter: Option<&mut Stream>) -> Hidden {
        match self {
            Self::Stack(stack) => {
                Hidden { states: stack.hidden(x, &layout.real), real: layout.real.clone(), covers: None, penalty: None }
            }
            Self::Mxdna(mxdna) => mxdna.hidden(x, layout, jitter),
        }
    }

    /// The hidden states at some positions, one for each, whatever the encoder made of them inside; what of the last layer nobody needs is
    /// not computed.
    ///
    /// # Shapes
    /// - `x`: `[batch, positions, d]`
    ///
    /// # Panics
    /// If the encoder forms units and has nothing that leads back from them: see [`Backbone::with_decoder`].
    pub fn forward_at(&self, x: Tensor<3>, layout: &Layout, chosen: &Chosen, jitter: Option<&mut Stream>) -> HiddenAt {
        match self {
            Self::Stack(stack) => {
                HiddenAt { states: stack.hidden_at(x, &layout.real, chosen), penalty: None, units: None }
            }
            Self::Mxdna(mxdna) => mxdna.hidden_at(x, layout, chosen, jitter),
        }
    }

    /// The hidden states after a layer, and what they stand for: 0 is `x`, [`Backbone::layers`] the last.
    ///
    /// # Shapes
    /// - `x`: `[batch, positions, d]`
    ///
    /// # Panics
    /// If there is no such layer.
    pub fn states_of_layer(&self, x: Tensor<3>, layout: &Layout, layer: usize) -> Hidden {
        match self {
            Self::Stack(stack) => Hidden {
                states: stack.hidden_of_layer(x, &layout.real, layer),
                real: layout.real.clone(),
                covers: Some(positions(layout)),
                penalty: None,
            },
            Self::Mxdna(mxdna) => mxdna.states_of_layer(x, layout, layer),
        }
    }

    /// Keys and values of no position yet, of each layer of a causal encoder, with room for `capacity` positions of one sequence.
    ///
    /// # Panics
    /// If the encoder forms units, or `capacity` is 0 or above 2²⁴.
    #[must_use]
    pub fn key_values(&self, capacity: usize) -> Vec<KeyValues> {
        match self {
            Self::Stack(stack) => stack.key_values(capacity),
            Self::Mxdna(_) => panic!("a causal encoder"),
        }
    }

    /// The hidden states of positions that follow those of which keys and values are kept, which then are kept too.
    ///
    /// # Shapes
    /// - `x`, output: `[1, positions, d]`
    ///
    /// # Panics
    /// If the encoder is not causal, has adapters, or there would be more positions than there is room for.
    pub fn extend(&self, x: Tensor<3>, kept: &mut [KeyValues]) -> Tensor<3> {
        match self {
            Self::Stack(stack) => stack.extend(x, kept),
            Self::Mxdna(_) => panic!("a causal encoder"),
        }
    }

    /// Number of the last layer that [`Backbone::states_of_layer`] knows.
    #[must_use]
    pub fn layers(&self) -> usize {
        match self {
            Self::Stack(stack) => stack.layers.len(),
            Self::Mxdna(mxdna) => mxdna.last_layer(),
        }
    }

    /// Channels of a hidden state.
    #[must_use]
    pub fn width(&self) -> usize {
        match self {
            Self::Stack(stack) => stack.norm.weight.dims()[0],
            Self::Mxdna(mxdna) => mxdna.norm.weight.dims()[0],
        }
    }

    /// Floats that a padded position takes where it is most, in use rather than in training.
    #[must_use]
    pub fn floats(&self) -> usize {
        match self {
            // What the widest moment of a layer holds: queries, keys, values and what was attended to besides input and output.
            Self::Stack(_) => 8 * self.width(),
            // The assembly of units, where each position may be one.
            Self::Mxdna(_) => 14 * self.width(),
        }
    }

    /// The units that positions of each sequence are made into, from left to right, in positions; none if the encoder forms none.
    ///
    /// # Shapes
    /// - `x`: `[batch, positions, d]`
    #[must_use]
    pub fn units(&self, x: Tensor<3>, layout: &Layout) -> Option<Vec<Vec<UnitSpan>>> {
        match self {
            Self::Stack(_) => None,
            Self::Mxdna(mxdna) => Some(mxdna.units_of(x, layout)),
        }
    }

    /// The encoder that forms units, if it is one.
    #[must_use]
    pub fn of_units(self) -> Option<Mxdna> {
        match self {
            Self::Stack(_) => None,
            Self::Mxdna(mxdna) => Some(mxdna),
        }
    }

    /// Positions of a unit of each kind; none if the encoder forms no units.
    #[must_use]
    pub fn unit_sizes(&self) -> Option<&[usize]> {
        match self {
            Self::Stack(_) => None,
            Self::Mxdna(mxdna) => Some(mxdna.sizes()),
        }
    }

    /// With fresh weights of what leads from units back to positions, for a language model; as it is where none is needed.
    #[must_use]
    pub fn with_decoder(self, config: &BackboneConfig, random: &mut Stream, device: &Device) -> Self {
        match (self, config) {
            (Self::Mxdna(mxdna), BackboneConfig::Mxdna(config)) => {
                Self::Mxdna(mxdna.with_decoder(config.decoder(random, device)))
            }
            (other, _) => other,
        }
    }

    /// Without what leads from units back to positions.
    #[must_use]
    pub fn without_decoder(self) -> Self {
        match self {
            Self::Stack(_) => self,
            Self::Mxdna(mxdna) => Self::Mxdna(mxdna.without_decoder()),
        }
    }

    /// With all of its parameters frozen and fresh adapters, which alone learn: a pure function of the encoder and the seed, and the same
    /// encoder until a step is taken. Adapters that it has are folded in first. An encoder that takes none is frozen.
    #[must_use]
    pub fn with_adapters(self, config: &LoraConfig, seed: u64) -> Self {
        match self {
            Self::Stack(stack) => Self::Stack(stack.with_adapters(config, seed)),
            Self::Mxdna(mxdna) => Self::Mxdna(mxdna.no_grad()),
        }
    }

    /// With its adapters folded into the weights, in the same bits on the CPU; what was frozen stays so.
    #[must_use]
    pub fn merged(self) -> Self {
        match self {
            Self::Stack(stack) => Self::Stack(stack.merged()),
            Self::Mxdna(_) => self,
        }
    }

    /// The same parameters for one micro-batch of training, with input channels of each adapter dropped anew, as [`LoraConfig::dropout`]
    /// says.
    #[must_use]
    pub fn with_dropped_adapters(&self, random: &mut Stream) -> Self {
        match self {
            Self::Stack(stack) => Self::Stack(stack.with_dropped_adapters(random)),
            Self::Mxdna(_) => self.clone(),
        }
    }
}

/// Each position of each sequence by itself; none for a special one.
fn positions(layout: &Layout) -> Vec<Vec<Range<usize>>> {
    let of = |(&length, special): (&usize, &[bool])| -> Vec<Range<usize>> {
        (0..length).map(|at| if special[at] { 0..0 } else { at..at + 1 }).collect()
    };
    layout.lengths.iter().zip(layout.special.chunks(layout.positions().max(1))).map(of).collect()
}
