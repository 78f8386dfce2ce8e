//! The operations of transformer layers and classifiers.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use std::sync::Arc;
use vqdna_kernels::attention::Positions as KernelPositions;
use vqdna_kernels::attention_block::{self, Input as AttentionInput, Kept, Weights as BlockWeights};
use vqdna_kernels::low_rank::LowRank as Part;
use vqdna_kernels::norm::{self, Norm};
use vqdna_kernels::product::{Pair, Precision, Saved, Unit};
use vqdna_kernels::{cross_entropy as classifier, gelu, linear as linear_kernel, mlp, mlp_block};

use super::{
    contiguous, dims, floats, frozen, integers, layer_gradients, linear_backward, low_rank, register, tensor, wrap,
};
use crate::ops::{Activation, AttentionWeights, MlpWeights, Positions, keeps, precision};

pub(in crate::ops) fn layer_norm(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    wrap(Dispatch::vqdna_layer_norm(x.into_dispatch(), gain.into_dispatch(), bias.into_dispatch(), eps as f32))
}

pub(in crate::ops) fn linear_gelu(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    wrap(Dispatch::vqdna_linear_gelu(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()))
}

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
        AttentionSettings { eps: w.eps as f32, heads: w.heads, positions, scales: [qkv_scale, out_scale], places },
    ))
}

pub(in crate::ops) fn mlp(x: Tensor<3>, w: MlpWeights) -> Tensor<3> {
    let device = x.device();
    let ([up_a, up_b], up_scale) = low_rank::arguments(w.up_part, &device);
    let ([down_a, down_b], down_scale) = low_rank::arguments(w.down_part, &device);
    wrap(Dispatch::vqdna_mlp(
        x.into_dispatch(),
        w.gain.into_dispatch(),
        w.bias.into_dispatch(),
        w.up.into_dispatch(),
        w.up_bias.into_dispatch(),
        up_a,
        up_b,
        w.down.into_dispatch(),
        w.down_bias.into_dispatch(),
        down_a,
        down_b,
        MlpSettings { eps: w.eps as f32, scales: [up_scale, down_scale], activation: w.activation },
    ))
}

pub(in crate::ops) fn cross_entropy(
    h: Tensor<2>,
    weight: Tensor<2>,
    bias: Tensor<1>,
    target: Tensor<1, Int>,
) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::vqdna_cross_entropy(
        h.into_dispatch(),
        weight.into_dispatch(),
        bias.into_dispatch(),
        target.into_dispatch(),
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
    /// Where rows stand, if not at their numbers.
    places: Option<Arc<[u32]>>,
}

/// What the linear layers need beside tensors.
#[derive(Clone, Copy, Debug)]
pub(super) struct MlpSettings {
    eps: f32,
    /// Of the low-rank parts of `up` and `down`.
    scales: [f64; 2],
    activation: Activation,
}

#[backend_extension(Flex, Autodiff)]
#[allow(clippy::too_many_arguments, reason = "tensors of a block; the macro that generates dispatch wants them flat")]
pub(super) trait TransformerOps: Backend {
    fn vqdna_layer_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    fn vqdna_linear_gelu(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>)
    -> FloatTensor<Self>;
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
    fn vqdna_mlp(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        settings: MlpSettings,
    ) -> FloatTensor<Self>;
    fn vqdna_cross_entropy(
        h: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        target: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

// ---------------------------------------------------------------- forward

impl TransformerOps for Flex {
    fn vqdna_layer_norm(x: FlexTensor, gain: FlexTensor, bias: FlexTensor, eps: f32) -> FlexTensor {
        let [x, gain, bias] = contiguous([x, gain, bias]);
        let norm = Norm { gain: floats(&gain), bias: floats(&bias), eps };
        tensor(norm::forward(norm, floats(&x)), dims::<3>(&x))
    }

    fn vqdna_linear_gelu(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let [x, weight, bias] = contiguous([x, weight, bias]);
        let mut y = linear_kernel::forward(floats(&x), floats(&weight), floats(&bias), precision());
        gelu::in_place(&mut y);
        let [batch, bases, _] = dims(&x);
        tensor(y, [batch, bases, floats(&bias).len()])
    }

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

    fn vqdna_mlp(
        x: FlexTensor,
        gain: FlexTensor,
        bias: FlexTensor,
        up: FlexTensor,
        up_bias: FlexTensor,
        up_a: FlexTensor,
        up_b: FlexTensor,
        down: FlexTensor,
        down_bias: FlexTensor,
        down_a: FlexTensor,
        down_b: FlexTensor,
        settings: MlpSettings,
    ) -> FlexTensor {
        let tensors = contiguous([x, gain, bias, up, up_bias, up_a, up_b, down, down_bias, down_a, down_b]);
        Mlp { tensors, settings, precision: precision(), pre: Saved::default() }.output()
    }

    fn vqdna_cross_entropy(h: FlexTensor, weight: FlexTensor, bias: FlexTensor, target: FlexTensor) -> FlexTensor {
        let tensors = contiguous([h, weight, bias, target]);
        let classes = Classes { tensors, precision: precision(), stats: Vec::new() };
        tensor(vec![classes.forward().0], [1])
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
        AttentionInput { x: floats(x), mask: floats(mask), length, places: self.settings.places.as_deref() }
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

/// What the backward pass of the linear layers needs.
#[derive(Clone, Debug)]
struct Mlp {
    /// Contiguous, in the order of the operation's arguments.
    tensors: [FlexTensor; 11],
    settings: MlpSettings,
    precision: Precision,
    pre: Saved,
}

impl Mlp {
    /// Output of the forward pass alone.
    fn output(&self) -> FlexTensor {
        let y = match self.precision {
            Precision::F32 => self.forward::<f32>(),
            Precision::Bf16 => self.forward::<Pair>(),
        };
        tensor(y, dims::<3>(&self.tensors[0]))
    }

    fn forward<U: Unit>(&self) -> Vec<f32> {
        let [x, weights @ ..] = &self.tensors;
        let MlpSettings { eps, scales: [up_scale, down_scale], activation } = self.settings;
        let settings = [u64::from(eps.to_bits()), up_scale.to_bits(), down_scale.to_bits(), activation as u64];
        let prepared = frozen::prepared(weights, &settings, || self.with_weights(mlp_block::Prepared::<U>::new));
        prepared.forward(floats(x))
    }

    /// Low-rank parts of `up` and `down`.
    fn parts(&self) -> [Option<Part<'_>>; 2] {
        let [_, _, _, _, _, up_a, up_b, _, _, down_a, down_b] = &self.tensors;
        let [up_scale, down_scale] = self.settings.scales;
        [low_rank::part(up_a, up_b, up_scale), low_rank::part(down_a, down_b, down_scale)]
    }

    /// Runs `work` on the norm and the weights with their low-rank parts, which are formed for that time only.
    fn with_weights<R>(&self, work: impl FnOnce(Norm, mlp::Weights) -> R) -> R {
        let [_, gain, bias, up, up_bias, _, _, down, down_bias, _, _] = &self.tensors;
        let [up_part, down_part] = self.parts();
        let weights = mlp::Weights {
            up: &low_rank::effective(up, up_part),
            up_bias: floats(up_bias),
            down: &low_rank::effective(down, down_part),
            down_bias: floats(down_bias),
            activation: self.settings.activation,
        };
        work(Norm { gain: floats(gain), bias: floats(bias), eps: self.settings.eps }, weights)
    }
}

/// What the backward pass of a classifier needs.
#[derive(Clone, Debug)]
struct Classes {
    /// h, weight, bias, target; contiguous.
    tensors: [FlexTensor; 4],
    precision: Precision,
    stats: Vec<f32>,
}

impl Classes {
    fn with_input<R>(&self, work: impl FnOnce(classifier::Input) -> R) -> R {
        let [h, weight, bias, target] = &self.tensors;
        let target = integers(target);
        work(classifier::Input { h: floats(h), weight: floats(weight), bias: floats(bias), target: &target })
    }

    fn forward(&self) -> (f32, Vec<f32>) {
        self.with_input(|input| classifier::forward(input, self.precision))
    }
}

// --------------------------------------------------------------- backward

impl<C: CheckpointStrategy> TransformerOps for Autodiff<Flex, C> {
    fn vqdna_layer_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let tensors = [x, gain, bias];
        let nodes = tensors.each_ref().map(FloatTensor::<Self>::node);
        let [x, gain, bias] = contiguous(tensors.map(FloatTensor::<Self>::into_primitive));
        let y = Flex::vqdna_layer_norm(x.clone(), gain.clone(), bias.clone(), eps);
        match LayerNormBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(([x, gain, bias], eps), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn vqdna_linear_gelu(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let tensors = [x, weight, bias];
        let nodes = tensors.each_ref().map(FloatTensor::<Self>::node);
        let learns = tensors[1].is_tracked();
        let [x, weight, bias] = contiguous(tensors.map(FloatTensor::<Self>::into_primitive));
        match LinearGeluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let pre = linear_kernel::forward(floats(&x), floats(&weight), floats(&bias), precision());
                let mut y = pre.clone();
                gelu::in_place(&mut y);
                let [batch, bases, _] = dims(&x);
                let y = tensor(y, [batch, bases, floats(&bias).len()]);
                prepared.finish((learns.then_some(x), weight, pre, precision()), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(Flex::vqdna_linear_gelu(x, weight, bias)),
        }
    }

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

    fn vqdna_mlp(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        settings: MlpSettings,
    ) -> FloatTensor<Self> {
        let tensors = [x, gain, bias, up, up_bias, up_a, up_b, down, down_bias, down_a, down_b];
        let nodes = tensors.each_ref().map(FloatTensor::<Self>::node);
        let tensors = contiguous(tensors.map(FloatTensor::<Self>::into_primitive));
        let mut block = Mlp { tensors, settings, precision: precision(), pre: Saved::default() };
        match MlpBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let x = &block.tensors[0];
                let (y, pre) =
                    block.with_weights(|norm, w| mlp_block::forward(floats(x), norm, w, block.precision, keeps()));
                let y = tensor(y, dims::<3>(x));
                block.pre = pre;
                prepared.finish(block, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(block.output()),
        }
    }

    fn vqdna_cross_entropy(
        h: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        target: IntTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [&h, &weight, &bias].map(FloatTensor::<Self>::node);
        let [h, weight, bias] = [h, weight, bias].map(FloatTensor::<Self>::into_primitive);
        let tensors = contiguous([h, weight, bias, target]);
        let mut classes = Classes { tensors, precision: precision(), stats: Vec::new() };
        let (loss, stats) = classes.forward();
        classes.stats = stats;
        let loss = tensor(vec![loss], [1]);
        match CrossEntropyBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(classes, loss),
            OpsKind::UnTracked(prepared) => prepared.finish(loss),
        }
    }
}

#[derive(Debug)]
struct LayerNormBackward;

impl Backward<Flex, 3> for LayerNormBackward {
    type State = ([FlexTensor; 3], f32);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let ([x, gain, bias], eps) = &ops.state;
        let norm = Norm { gain: floats(gain), bias: floats(bias), eps: *eps };
        let g = norm::backward(norm, floats(x), floats(&dy));
        let d = norm.gain.len();
        register(
            gradients,
            ops.parents.map(|parent| parent.map(|node| node.id)),
            [tensor(g.x, dims::<3>(x)), tensor(g.gain, [d]), tensor(g.bias, [d])].map(Some),
        );
    }
}

#[derive(Debug)]
struct LinearGeluBackward;

impl Backward<Flex, 3> for LinearGeluBackward {
    /// x if the weight learns, the weight, the input of GELU.
    type State = (Option<FlexTensor>, FlexTensor, Vec<f32>, Precision);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [mut dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let (x, weight, pre, precision) = ops.state;
        gelu::backward(&pre, dy.storage_mut());
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        linear_backward(gradients, parents, x.as_ref(), &weight, &dy, precision);
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

/// What is wanted of a linear layer, by which of weight, bias and the two factors are tracked.
fn wanted([weight, bias, a, b]: [bool; 4], part: Option<Part<'_>>) -> linear_kernel::Wanted<'_> {
    linear_kernel::Wanted { weight, bias, low_rank: part.filter(|_| a || b) }
}

/// Of gain and bias, if they were wanted.
fn norm_gradients(found: Option<[Vec<f32>; 2]>, d: usize) -> [Option<FlexTensor>; 2] {
    found.map_or([None, None], |found| found.map(|gradient| Some(tensor(gradient, [d]))))
}

#[derive(Debug)]
struct MlpBackward;

impl Backward<Flex, 11> for MlpBackward {
    type State = Mlp;

    fn backward(self, ops: Ops<Self::State, 11>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let block = ops.state;
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let [x, gain, bias, up, up_bias, up_a, up_b, down, down_bias, down_a, down_b] =
            parents.map(|parent| parent.is_some());
        let [up_part, down_part] = block.parts();
        let wanted = mlp_block::Wanted {
            x,
            norm: gain || bias,
            up: wanted([up, up_bias, up_a, up_b], up_part),
            down: wanted([down, down_bias, down_a, down_b], down_part),
        };
        let x = floats(&block.tensors[0]);
        let g = block
            .with_weights(|norm, w| mlp_block::backward(x, norm, w, floats(&dy), &block.pre, wanted, block.precision));
        let [d_inner, d] = dims(&block.tensors[3]);
        let x = g.x.map(|x| tensor(x, dims::<3>(&dy)));
        let [gain, bias] = norm_gradients(g.norm, d);
        let [up, up_bias, up_a, up_b] = layer_gradients(g.up, [d_inner, d]);
        let active = d_inner / block.settings.activation.inputs();
        let [down, down_bias, down_a, down_b] = layer_gradients(g.down, [d, active]);
        register(gradients, parents, [x, gain, bias, up, up_bias, up_a, up_b, down, down_bias, down_a, down_b]);
    }
}

#[derive(Debug)]
struct CrossEntropyBackward;

impl Backward<Flex, 3> for CrossEntropyBackward {
    type State = Classes;

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dloss] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let classes = ops.state;
        let dloss = floats(&dloss)[0];
        let g = classes.with_input(|input| classifier::backward(input, &classes.stats, dloss, classes.precision));
        let ([rows, d], [classes, _]) = (dims(&classes.tensors[0]), dims(&classes.tensors[1]));
        register(
            gradients,
            ops.parents.map(|parent| parent.map(|node| node.id)),
            [tensor(g.h, [rows, d]), tensor(g.weight, [classes, d]), tensor(g.bias, [classes])].map(Some),
        );
    }
}
