//! The block of the tokenizer's encoder and decoder, as an operation with a hand-written backward pass.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use vqdna_kernels::conv_block::{self, Input, Weights};
use vqdna_kernels::mlp as mlp_kernel;
use vqdna_kernels::norm::Norm;
use vqdna_kernels::product::{Pair, Precision, Saved, Unit};

use super::{contiguous, dims, floats, frozen, layer_gradients, register, tensor, wrap};
use crate::ops::{ConvBlockWeights, keeps, precision};

pub(in crate::ops) fn conv_block(x: Tensor<3>, mask: Tensor<2>, w: ConvBlockWeights) -> Tensor<3> {
    wrap(Dispatch::vqdna_conv_block(
        x.into_dispatch(),
        mask.into_dispatch(),
        w.conv.into_dispatch(),
        w.conv_bias.into_dispatch(),
        w.gain.into_dispatch(),
        w.bias.into_dispatch(),
        w.up.into_dispatch(),
        w.up_bias.into_dispatch(),
        w.down.into_dispatch(),
        w.down_bias.into_dispatch(),
        w.eps as f32,
    ))
}

#[backend_extension(Flex, Autodiff)]
pub(super) trait ConvBlockOps: Backend {
    #[allow(
        clippy::too_many_arguments,
        reason = "the ten tensors of a block; the macro that generates dispatch wants them flat"
    )]
    fn vqdna_conv_block(
        x: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        conv: FloatTensor<Self>,
        conv_bias: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
}

impl ConvBlockOps for Flex {
    fn vqdna_conv_block(
        x: FlexTensor,
        mask: FlexTensor,
        conv: FlexTensor,
        conv_bias: FlexTensor,
        gain: FlexTensor,
        bias: FlexTensor,
        up: FlexTensor,
        up_bias: FlexTensor,
        down: FlexTensor,
        down_bias: FlexTensor,
        eps: f32,
    ) -> FlexTensor {
        let tensors = contiguous([x, mask, conv, conv_bias, gain, bias, up, up_bias, down, down_bias]);
        Block { tensors, eps, precision: precision(), pre: Saved::default() }.output()
    }
}

/// What a block's backward pass needs.
#[derive(Clone, Debug)]
struct Block {
    /// Contiguous, in the order of the operation's arguments.
    tensors: [FlexTensor; 10],
    eps: f32,
    precision: Precision,
    /// What the forward pass kept.
    pre: Saved,
}

impl Block {
    /// Output of the forward pass alone.
    fn output(&self) -> FlexTensor {
        let out = match self.precision {
            Precision::F32 => self.forward::<f32>(),
            Precision::Bf16 => self.forward::<Pair>(),
        };
        tensor(out, dims::<3>(&self.tensors[0]))
    }

    fn forward<U: Unit>(&self) -> Vec<f32> {
        let [_, _, weights @ ..] = &self.tensors;
        let settings = [u64::from(self.eps.to_bits())];
        let prepared = frozen::prepared(weights, &settings, || conv_block::Prepared::<U>::new(self.weights()));
        prepared.forward(self.input())
    }

    fn input(&self) -> Input<'_> {
        let [_, length, _] = dims(&self.tensors[0]);
        Input { x: floats(&self.tensors[0]), mask: floats(&self.tensors[1]), length }
    }

    fn weights(&self) -> Weights<'_> {
        let [_, _, conv, conv_bias, gain, bias, up, up_bias, down, down_bias] = &self.tensors;
        Weights {
            conv: floats(conv),
            conv_bias: floats(conv_bias),
            norm: Norm { gain: floats(gain), bias: floats(bias), eps: self.eps },
            mlp: mlp_kernel::Weights {
                up: floats(up),
                up_bias: floats(up_bias),
                down: floats(down),
                down_bias: floats(down_bias),
                activation: mlp_kernel::Activation::Gelu,
            },
        }
    }
}

impl<C: CheckpointStrategy> ConvBlockOps for Autodiff<Flex, C> {
    fn vqdna_conv_block(
        x: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        conv: FloatTensor<Self>,
        conv_bias: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let differentiated = [&x, &conv, &conv_bias, &gain, &bias, &up, &up_bias, &down, &down_bias];
        let nodes = differentiated.map(FloatTensor::<Self>::node);
        let tensors = [x, mask, conv, conv_bias, gain, bias, up, up_bias, down, down_bias];
        let tensors = contiguous(tensors.map(FloatTensor::<Self>::into_primitive));
        let mut block = Block { tensors, eps, precision: precision(), pre: Saved::default() };
        match ConvBlockBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (y, pre) = conv_block::forward(block.input(), block.weights(), block.precision, keeps());
                block.pre = pre;
                let y = tensor(y, dims::<3>(&block.tensors[0]));
                prepared.finish(block, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(block.output()),
        }
    }
}

#[derive(Debug)]
struct ConvBlockBackward;

impl Backward<Flex, 9> for ConvBlockBackward {
    type State = Block;

    fn backward(self, ops: Ops<Self::State, 9>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let block = ops.state;
        let g = conv_block::backward(block.input(), block.weights(), floats(&dy), &block.pre, block.precision);
        let ([d, d_inner], [_, _, kernel]) = (dims(&block.tensors[8]), dims(&block.tensors[2]));
        let [up, up_bias, ..] = layer_gradients(g.up, [d_inner, d]);
        let [down, down_bias, ..] = layer_gradients(g.down, [d, d_inner]);
        let found = [
            Some(tensor(g.x, dims::<3>(&dy))),
            Some(tensor(g.conv, [d, 1, kernel])),
            Some(tensor(g.conv_bias, [d])),
            Some(tensor(g.gain, [d])),
            Some(tensor(g.bias, [d])),
            up,
            up_bias,
            down,
            down_bias,
        ];
        register(gradients, ops.parents.map(|parent| parent.map(|node| node.id)), found);
    }
}
