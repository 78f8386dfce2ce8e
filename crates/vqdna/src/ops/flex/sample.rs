//! Rows at fractional places, as an operation with a hand-written backward pass.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use vqdna_kernels::sample::{self, Taps};

use super::{contiguous, dims, floats, register, tensor, wrap};

pub(in crate::ops) fn sample(x: Tensor<3>, offsets: Tensor<3>, factors: Tensor<3>) -> Tensor<3> {
    wrap(Dispatch::vqdna_sample(x.into_dispatch(), offsets.into_dispatch(), factors.into_dispatch()))
}

#[backend_extension(Flex, Autodiff)]
pub(super) trait SampleOps: Backend {
    fn vqdna_sample(x: FloatTensor<Self>, offsets: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl SampleOps for Flex {
    fn vqdna_sample(x: FlexTensor, offsets: FlexTensor, factors: FlexTensor) -> FlexTensor {
        let tensors = contiguous([x, offsets, factors]);
        let ([batch, length, d], [.., count]) = (dims::<3>(&tensors[0]), dims::<3>(&tensors[1]));
        tensor(sample::forward(floats(&tensors[0]), &taps(&tensors), d), [batch, length, count * d])
    }
}

/// Of rows, offsets and factors.
fn taps([_, offsets, factors]: &[FlexTensor; 3]) -> Taps<'_> {
    let [_, length, count] = dims(offsets);
    Taps { offsets: floats(offsets), factors: floats(factors), count, length }
}

impl<C: CheckpointStrategy> SampleOps for Autodiff<Flex, C> {
    fn vqdna_sample(x: FloatTensor<Self>, offsets: FloatTensor<Self>, factors: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), offsets.node(), factors.node()];
        let tensors = contiguous([x, offsets, factors].map(FloatTensor::<Self>::into_primitive));
        let [x, offsets, factors] = tensors.clone();
        let y = Flex::vqdna_sample(x, offsets, factors);
        match SampleBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(tensors, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[derive(Debug)]
struct SampleBackward;

impl Backward<Flex, 3> for SampleBackward {
    type State = [FlexTensor; 3];

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let tensors = &ops.state;
        let (shape, taps_shape) = (dims::<3>(&tensors[0]), dims::<3>(&tensors[1]));
        let found = sample::backward(floats(&tensors[0]), &taps(tensors), shape[2], floats(&dy));
        let found = [tensor(found.x, shape), tensor(found.offsets, taps_shape), tensor(found.factors, taps_shape)];
        register(gradients, ops.parents.map(|parent| parent.map(|node| node.id)), found.map(Some));
    }
}
