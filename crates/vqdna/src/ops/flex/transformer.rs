//! The operations of transformer layers and classifiers.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use vqdna_kernels::attention::Positions as KernelPositions;
use vqdna_kernels::attention_block::{self, Input as AttentionInput, Kept, Weights as BlockWeights};
use vqdna_kernels::norm::{self, Norm};
use vqdna_kernels::product::{Pair, Precision, Saved, Unit};
use vqdna_kernels::{cross_entropy as classifier, gelu, linear as linear_kernel, mlp, mlp_block};

use super::{contiguous, dims, floats, frozen, integers, linear_backward, register, tensor, wrap};
use crate::ops::{AttentionWeights, MlpWeights, Positions, keeps, precision};

pub(in crate::ops) fn layer_norm(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    wrap(Dispatch::vqdna_layer_norm(x.into_dispatch(), gain.into_dispatch(), bias.into_dispatch(), eps as f32))
}

pub(in crate::ops) fn linear_gelu(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    wrap(Dispatch::vqdna_linear_gelu(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()))
}

pub(in crate::ops) fn attention(x: Tensor<3>, mask: Tensor<2>, w: AttentionWeights) -> Tensor<3> {
    let positions = match w.positions {
        Positions::Rotary { theta } => KernelPositions::Rotary { theta: theta as f32 },
        Positions::Alibi => KernelPositions::Alibi,
    };
    wrap(Dispatch::vqdna_attention(
        x.into_dispatch(),
        mask.into_dispatch(),
        w.gain.into_dispatch(),
        w.bias.into_dispatch(),
        w.qkv.into_dispatch(),
        w.qkv_bias.into_dispatch(),
        w.out.into_dispatch(),
        w.out_bias.into_dispatch(),
        AttentionSettings { eps: w.eps as f32, heads: w.heads, positions },
    ))
}

pub(in crate::ops) fn mlp(x: Tensor<3>, w: MlpWeights) -> Tensor<3> {
    wrap(Dispatch::vqdna_mlp(
        x.into_dispatch(),
        w.gain.into_dispatch(),
        w.bias.into_dispatch(),
        w.up.into_dispatch(),
        w.up_bias.into_dispatch(),
        w.down.into_dispatch(),
        w.down_bias.into_dispatch(),
        w.eps as f32,
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
#[derive(Clone, Copy, Debug)]
pub(super) struct AttentionSettings {
    eps: f32,
    heads: usize,
    positions: KernelPositions,
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
        out: FloatTensor<Self>,
        out_bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self>;
    fn vqdna_mlp(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        eps: f32,
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
        out: FlexTensor,
        out_bias: FlexTensor,
        settings: AttentionSettings,
    ) -> FlexTensor {
        let tensors = contiguous([x, mask, gain, bias, qkv, qkv_bias, out, out_bias]);
        Attention { tensors, settings, precision: precision(), kept: Kept::default() }.output()
    }

    fn vqdna_mlp(
        x: FlexTensor,
        gain: FlexTensor,
        bias: FlexTensor,
        up: FlexTensor,
        up_bias: FlexTensor,
        down: FlexTensor,
        down_bias: FlexTensor,
        eps: f32,
    ) -> FlexTensor {
        let tensors = contiguous([x, gain, bias, up, up_bias, down, down_bias]);
        Mlp { tensors, eps, precision: precision(), pre: Saved::default() }.output()
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
    tensors: [FlexTensor; 8],
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
        let AttentionSettings { eps, heads, positions } = self.settings;
        let positions = match positions {
            KernelPositions::Rotary { theta } => u64::from(theta.to_bits()),
            KernelPositions::Alibi => u64::MAX,
        };
        let settings = [u64::from(eps.to_bits()), heads as u64, positions];
        let prepared = frozen::prepared(weights, &settings, || attention_block::Prepared::<U>::new(self.weights()));
        prepared.forward(self.input())
    }

    fn input(&self) -> AttentionInput<'_> {
        let [_, length, _] = dims(&self.tensors[0]);
        AttentionInput { x: floats(&self.tensors[0]), mask: floats(&self.tensors[1]), length }
    }

    fn weights(&self) -> BlockWeights<'_> {
        let [_, _, gain, bias, qkv, qkv_bias, out, out_bias] = self.tensors.each_ref().map(floats);
        let AttentionSettings { eps, heads, positions } = self.settings;
        BlockWeights { norm: Norm { gain, bias, eps }, qkv, qkv_bias, out, out_bias, heads, positions }
    }
}

/// What the backward pass of the linear layers needs.
#[derive(Clone, Debug)]
struct Mlp {
    /// Contiguous, in the order of the operation's arguments.
    tensors: [FlexTensor; 7],
    eps: f32,
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
        let settings = [u64::from(self.eps.to_bits())];
        let prepared =
            frozen::prepared(weights, &settings, || mlp_block::Prepared::<U>::new(self.norm(), self.weights()));
        prepared.forward(floats(x))
    }

    fn norm(&self) -> Norm<'_> {
        Norm { gain: floats(&self.tensors[1]), bias: floats(&self.tensors[2]), eps: self.eps }
    }

    fn weights(&self) -> mlp::Weights<'_> {
        let [_, _, _, up, up_bias, down, down_bias] = self.tensors.each_ref().map(floats);
        mlp::Weights { up, up_bias, down, down_bias }
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
        out: FloatTensor<Self>,
        out_bias: FloatTensor<Self>,
        settings: AttentionSettings,
    ) -> FloatTensor<Self> {
        let nodes = [&x, &gain, &bias, &qkv, &qkv_bias, &out, &out_bias].map(FloatTensor::<Self>::node);
        let tensors = [x, mask, gain, bias, qkv, qkv_bias, out, out_bias];
        let tensors = contiguous(tensors.map(FloatTensor::<Self>::into_primitive));
        let mut block = Attention { tensors, settings, precision: precision(), kept: Kept::default() };
        match AttentionBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (y, kept) = attention_block::forward(block.input(), block.weights(), block.precision, keeps());
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
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let tensors = [x, gain, bias, up, up_bias, down, down_bias];
        let nodes = tensors.each_ref().map(FloatTensor::<Self>::node);
        let tensors = contiguous(tensors.map(FloatTensor::<Self>::into_primitive));
        let mut block = Mlp { tensors, eps, precision: precision(), pre: Saved::default() };
        match MlpBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let x = &block.tensors[0];
                let (y, pre) = mlp_block::forward(floats(x), block.norm(), block.weights(), block.precision, keeps());
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

impl Backward<Flex, 7> for AttentionBackward {
    type State = Attention;

    fn backward(self, ops: Ops<Self::State, 7>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let mut block = ops.state;
        let kept = std::mem::take(&mut block.kept);
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let [x, gain, bias, qkv, qkv_bias, out, out_bias] = parents.map(|parent| parent.is_some());
        let wanted = attention_block::Wanted {
            x,
            norm: gain || bias,
            qkv: linear_kernel::Wanted { weight: qkv, bias: qkv_bias, low_rank: None },
            out: linear_kernel::Wanted { weight: out, bias: out_bias, low_rank: None },
        };
        let g = attention_block::backward(block.input(), block.weights(), floats(&dy), kept, wanted, block.precision);
        let [_, _, d] = dims(&dy);
        let [gain, bias] = norm_gradients(g.norm, d);
        let found = [
            g.x.map(|x| tensor(x, dims::<3>(&dy))),
            gain,
            bias,
            g.qkv.weight.map(|qkv| tensor(qkv, [3 * d, d])),
            g.qkv.bias.map(|bias| tensor(bias, [3 * d])),
            g.out.weight.map(|out| tensor(out, [d, d])),
            g.out.bias.map(|bias| tensor(bias, [d])),
        ];
        register(gradients, parents, found);
    }
}

/// Of gain and bias, if they were wanted.
fn norm_gradients(found: Option<[Vec<f32>; 2]>, d: usize) -> [Option<FlexTensor>; 2] {
    found.map_or([None, None], |found| found.map(|gradient| Some(tensor(gradient, [d]))))
}

#[derive(Debug)]
struct MlpBackward;

impl Backward<Flex, 7> for MlpBackward {
    type State = Mlp;

    fn backward(self, ops: Ops<Self::State, 7>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let block = ops.state;
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let [x, gain, bias, up, up_bias, down, down_bias] = parents.map(|parent| parent.is_some());
        let wanted = mlp_block::Wanted {
            x,
            norm: gain || bias,
            up: linear_kernel::Wanted { weight: up, bias: up_bias, low_rank: None },
            down: linear_kernel::Wanted { weight: down, bias: down_bias, low_rank: None },
        };
        let x = floats(&block.tensors[0]);
        let (norm, w) = (block.norm(), block.weights());
        let g = mlp_block::backward(x, norm, w, floats(&dy), &block.pre, wanted, block.precision);
        let [d, d_inner] = dims(&block.tensors[5]);
        let [gain, bias] = norm_gradients(g.norm, d);
        let found = [
            g.x.map(|x| tensor(x, dims::<3>(&dy))),
            gain,
            bias,
            g.up.weight.map(|up| tensor(up, [d_inner, d])),
            g.up.bias.map(|bias| tensor(bias, [d_inner])),
            g.down.weight.map(|down| tensor(down, [d, d_inner])),
            g.down.bias.map(|bias| tensor(bias, [d])),
        ];
        register(gradients, parents, found);
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
