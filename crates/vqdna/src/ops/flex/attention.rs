//! Attention of a transformer layer, with its norm and projections, as an operation.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use std::sync::Arc;
use vqdna_kernels::attention::Positions as KernelPositions;
use vqdna_kernels::attention_block::{self, Input as AttentionInput, Kept, Weights as BlockWeights};
use vqdna_kernels::low_rank::LowRank as Part;
use vqdna_kernels::norm::Norm;
use vqdna_kernels::product::{Pair, Precision, Unit};

use super::{
    contiguous, dims, floats, frozen, layer_gradients, low_rank, norm_gradients, register, tensor, wanted, wrap,
};
use crate::ops::{AttentionWeights, Positions, keeps, precision};

pub(in crate::ops) fn attention(
    x: Tensor<3>,
    mask: Tensor<2>,
    places: Option<Tensor<2, Int>>,
    w: AttentionWeights,
) -> Tensor<3> {
    let places = places.map(|places| {
        let places = places.into_data().try_into_vec_as::<i32>().expect("places fit i32");
        places.into_iter().map(|place| u32::try_from(place).unwrap_or(0)).collect::<Arc<[u32]>>()
    });
    let positions = match w.positions {
        Positions::Rotary { theta } => KernelPositions::Rotary { theta: theta as f32 },
        Positions::Alibi => KernelPositions::Alibi,
    };
    let device = x.device();
    let ([qkv_a, qkv_b], qkv_scale) = low_rank::arguments(w.qkv_part, &device);
    let ([out_a, out_b], out_scale) = low_rank::arguments(w.out_part, &device);
    wrap(Dispatch::vqdna_attention(
        x.into_dispatch(),
        mask.into_dispatch(),
        w.gain.into_dispatch(),
        w.bias.into_dispatch(),
        w.qkv.into_dispatch(),
        w.qkv_bias.into_dispatch(),
        qkv_a,
        qkv_b,
        w.out.into_dispatch(),
        w.out_bias.into_dispatch(),
        out_a,
        out_b,
        AttentionSettings {
            eps: w.eps as f32,
            heads: w.heads,
            positions,
            scales: [qkv_scale, out_scale],
            causal: w.causal,
            places,
        },
    ))
}

/// What attention needs beside tensors.
#[derive(Clone, Debug)]
pub(super) struct AttentionSettings {
    eps: f32,
    heads: usize,
    positions: KernelPositions,
    /// Of the low-rank parts of `qkv` and `out`.
    scales: [f64; 2],
    causal: bool,
    /// Where rows stand, if not at their numbers.
    places: Option<Arc<[u32]>>,
}

#[backend_extension(Flex, Autodiff)]
#[allow(clippy::too_many_arguments, reason = "tensors of a block; the macro that generates dispatch wants them flat")]
pub(super) trait AttentionOps: Backend {
    fn vqdna_attention(
        x: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        qkv_bias: FloatTensor<Self>,
        qkv_a: FloatTensor<Self>,
        qkv_b: FloatTensor<Self>,
        out: FloatTensor<Self>,
        out_bias: FloatTensor<Self>,
        out_a: FloatTensor<Self>,
        out_b: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self>;
}

impl AttentionOps for Flex {
    fn vqdna_attention(
        x: FlexTensor,
        mask: FlexTensor,
        gain: FlexTensor,
        bias: FlexTensor,
        qkv: FlexTensor,
        qkv_bias: FlexTensor,
        qkv_a: FlexTensor,
        qkv_b: FlexTensor,
        out: FlexTensor,
        out_bias: FlexTensor,
        out_a: FlexTensor,
        out_b: FlexTensor,
        settings: AttentionSettings,
    ) -> FlexTensor {
        let tensors = contiguous([x, mask, gain, bias, qkv, qkv_bias, qkv_a, qkv_b, out, out_bias, out_a, out_b]);
        Attention { tensors, settings, precision: precision(), kept: Kept::default() }.output()
    }
}

/// What the backward pass of attention needs.
#[derive(Clone, Debug)]
struct Attention {
    /// Contiguous, in the order of the operation's arguments.
    tensors: [FlexTensor; 12],
    settings: AttentionSettings,
    precision: Precision,
    kept: Kept,
}

impl Attention {
    /// Output of the forward pass alone.
    fn output(&self) -> FlexTensor {
        let y = match self.precision {
            Precision::F32 => self.forward::<f32>(),
            Precision::Bf16 => self.forward::<Pair>(),
        };
        tensor(y, dims::<3>(&self.tensors[0]))
    }

    fn forward<U: Unit>(&self) -> Vec<f32> {
        let [_, _, weights @ ..] = &self.tensors;
        let AttentionSettings { eps, heads, positions, scales, .. } = self.settings;
        let positions = match positions {
            KernelPositions::Rotary { theta } => u64::from(theta.to_bits()),
            KernelPositions::Alibi => u64::MAX,
        };
        let [qkv_scale, out_scale] = scales.map(f64::to_bits);
        let settings = [u64::from(eps.to_bits()), heads as u64, positions, qkv_scale, out_scale];
        let prepared = frozen::prepared(weights, &settings, || self.with_weights(attention_block::Prepared::<U>::new));
        prepared.forward(self.input())
    }

    fn input(&self) -> AttentionInput<'_> {
        let [_, length, _] = dims(&self.tensors[0]);
        let [x, mask, ..] = &self.tensors;
        AttentionInput {
            x: floats(x),
            mask: floats(mask),
            length,
            places: self.settings.places.as_deref(),
            causal: self.settings.causal,
        }
    }

    /// Low-rank parts of `qkv` and `out`.
    fn parts(&self) -> [Option<Part<'_>>; 2] {
        let [_, _, _, _, _, _, qkv_a, qkv_b, _, _, out_a, out_b] = &self.tensors;
        let [qkv_scale, out_scale] = self.settings.scales;
        [low_rank::part(qkv_a, qkv_b, qkv_scale), low_rank::part(out_a, out_b, out_scale)]
    }

    /// Runs `work` on the weights with their low-rank parts, which are formed for that time only.
    fn with_weights<R>(&self, work: impl FnOnce(BlockWeights) -> R) -> R {
        let [_, _, gain, bias, qkv, qkv_bias, _, _, out, out_bias, _, _] = &self.tensors;
        let AttentionSettings { eps, heads, positions, .. } = self.settings;
        let [qkv_part, out_part] = self.parts();
        work(BlockWeights {
            norm: Norm { gain: floats(gain), bias: floats(bias), eps },
            qkv: &low_rank::effective(qkv, qkv_part),
            qkv_bias: floats(qkv_bias),
            out: &low_rank::effective(out, out_part),
            out_bias: floats(out_bias),
            heads,
            positions,
        })
    }
}

impl<C: CheckpointStrategy> AttentionOps for Autodiff<Flex, C> {
    fn vqdna_attention(
        x: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        qkv_bias: FloatTensor<Self>,
        qkv_a: FloatTensor<Self>,
        qkv_b: FloatTensor<Self>,
        out: FloatTensor<Self>,
        out_bias: FloatTensor<Self>,
        out_a: FloatTensor<Self>,
        out_b: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let differentiated = [&x, &gain, &bias, &qkv, &qkv_bias, &qkv_a, &qkv_b, &out, &out_bias, &out_a, &out_b];
        let nodes = differentiated.map(FloatTensor::<Self>::node);
        let tensors = [x, mask, gain, bias, qkv, qkv_bias, qkv_a, qkv_b, out, out_bias, out_a, out_b];
        let tensors = contiguous(tensors.map(FloatTensor::<Self>::into_primitive));
        let mut block = Attention { tensors, settings, precision: precision(), kept: Kept::default() };
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (y, kept) =
                    block.with_weights(|w| attention_block::forward(block.input(), w, block.precision, keeps()));
                block.kept = kept;
                let y = tensor(y, dims::<3>(&block.tensors[0]));
                prepared.finish(block, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(block.output()),
        }
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl Backward<Flex, 11> for AttentionBackward {
    type State = Attention;

    fn backward(self, ops: Ops<Self::State, 11>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let mut block = ops.state;
        let kept = std::mem::take(&mut block.kept);
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let [x, gain, bias, qkv, qkv_bias, qkv_a, qkv_b, out, out_bias, out_a, out_b] =
            parents.map(|parent| parent.is_some());
        let [qkv_part, out_part] = block.parts();
        let wanted = attention_block::Wanted {
            x,
            norm: gain || bias,
            qkv: wanted([qkv, qkv_bias, qkv_a, qkv_b], qkv_part),
            out: wanted([out, out_bias, out_a, out_b], out_part),
        };
        let g = block
            .with_weights(|w| attention_block::backward(block.input(), w, floats(&dy), kept, wanted, block.precision));
        let [_, _, d] = dims(&dy);
        let x = g.x.map(|x| tensor(x, dims::<3>(&dy)));
        let [gain, bias] = norm_gradients(g.norm, d);
        let [qkv, qkv_bias, qkv_a, qkv_b] = layer_gradients(g.qkv, [3 * d, d]);
        let [out, out_bias, out_a, out_b] = layer_gradients(g.out, [d, d]);
        register(gradients, parents, [x, gain, bias, qkv, qkv_bias, qkv_a, qkv_b, out, out_bias, out_a, out_b]);
    }
}
