//! Gated linear units, as an operation with a hand-written backward pass.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use vqdna_kernels::glu::{self, Gate};

use super::{contiguous, dims, floats, register, tensor, wrap};

pub(in crate::ops) fn glu(x: Tensor<3>, gate: Gate) -> Tensor<3> {
    wrap(Dispatch::vqdna_glu(x.into_dispatch(), gate))
}

#[backend_extension(Flex, Autodiff)]
pub(super) trait GluOps: Backend {
    fn vqdna_glu(x: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self>;
}

impl GluOps for Flex {
    fn vqdna_glu(x: FlexTensor, gate: Gate) -> FlexTensor {
        let [x] = contiguous([x]);
        let [batch, rows, width] = dims(&x);
        tensor(glu::forward(floats(&x), width / 2, gate), [batch, rows, width / 2])
    }
}

impl<C: CheckpointStrategy> GluOps for Autodiff<Flex, C> {
    fn vqdna_glu(x: FloatTensor<Self>, gate: Gate) -> FloatTensor<Self> {
        let nodes = [x.node()];
        let [x] = contiguous([x.into_primitive()]);
        let y = Flex::vqdna_glu(x.clone(), gate);
        match GluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((x, gate), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[derive(Debug)]
struct GluBackward;

impl Backward<Flex, 1> for GluBackward {
    type State = (FlexTensor, Gate);

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let (x, gate) = &ops.state;
        let [batch, rows, d] = dims(&dy);
        let dx = tensor(glu::backward(floats(x), d, *gate, floats(&dy)), [batch, rows, 2 * d]);
        register(gradients, ops.parents.map(|parent| parent.map(|node| node.id)), [Some(dx)]);
    }
}
