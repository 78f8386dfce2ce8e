//! Attention of rows to others, wherever they stand, as an operation with a hand-written backward pass.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use vqdna_kernels::attention::{self, Input, Positions};
use vqdna_kernels::product::{Pair, Precision, Saved, Unit};

use super::super::{Rotation, precision};
use super::{contiguous, dims, floats, integers, register, tensor, wrap};

pub(in crate::ops) fn attend(
    qkv: Tensor<3>,
    queries: Tensor<2>,
    keys: Tensor<2>,
    places: Tensor<2, Int>,
    rotation: Rotation,
) -> Tensor<3> {
    wrap(Dispatch::vqdna_attend(
        qkv.into_dispatch(),
        queries.into_dispatch(),
        keys.into_dispatch(),
        places.into_dispatch(),
        rotation,
    ))
}

#[backend_extension(Flex, Autodiff)]
pub(super) trait AttendOps: Backend {
    fn vqdna_attend(
        qkv: FloatTensor<Self>,
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        places: IntTensor<Self>,
        rotation: Rotation,
    ) -> FloatTensor<Self>;
}

impl AttendOps for Flex {
    fn vqdna_attend(
        qkv: FlexTensor,
        queries: FlexTensor,
        keys: FlexTensor,
        places: FlexTensor,
        rotation: Rotation,
    ) -> FlexTensor {
        Attend::new(qkv, [queries, keys], &places, rotation).run(false)
    }
}

/// What an attention works on, and what its backward pass needs.
#[derive(Clone, Debug)]
struct Attend {
    qkv: Saved,
    /// Queries and keys.
    masks: [FlexTensor; 2],
    places: Vec<u32>,
    rotation: Rotation,
    precision: Precision,
    shape: [usize; 3],
    /// The output and its statistics, if they are kept.
    out: Saved,
    stats: Vec<f32>,
}

impl Attend {
    fn new(qkv: FlexTensor, masks: [FlexTensor; 2], places: &FlexTensor, rotation: Rotation) -> Self {
        let ([qkv], [places]) = (contiguous([qkv]), contiguous([places.clone()]));
        let (shape, precision) = (dims::<3>(&qkv), precision());
        let qkv = match precision {
            Precision::F32 => Saved::of::<f32>(floats(&qkv), shape[2]),
            Precision::Bf16 => Saved::of::<Pair>(floats(&qkv), shape[2]),
        };
        let places = integers(&places).iter().map(|&place| u32::try_from(place).unwrap_or(0)).collect();
        let (masks, out, stats) = (contiguous(masks), Saved::default(), Vec::new());
        Self { qkv, masks, places, rotation, precision, shape, out, stats }
    }

    fn input<U: Unit>(&self) -> Input<'_, U> {
        let [_, length, _] = self.shape;
        let Rotation { heads, theta } = self.rotation;
        let positions = Positions::Rotary { theta: theta as f32 };
        let queries = Input::among(self.qkv.units::<U>(), floats(&self.masks[0]), length, heads, positions);
        Input { keys: Some(floats(&self.masks[1])), places: Some(&self.places), ..queries }
    }

    fn run(&mut self, keep: bool) -> FlexTensor {
        let [batch, length, width] = self.shape;
        let numbers = match self.precision {
            Precision::F32 => self.run_in::<f32>(keep),
            Precision::Bf16 => self.run_in::<Pair>(keep),
        };
        tensor(numbers, [batch, length, width / 3])
    }

    fn run_in<U: Unit>(&mut self, keep: bool) -> Vec<f32> {
        let (out, stats) = attention::forward(self.input::<U>(), keep);
        let numbers = out.numbers::<U>(self.shape[2] / 3);
        if keep {
            (self.out, self.stats) = (out, stats);
        }
        numbers
    }
}

impl<C: CheckpointStrategy> AttendOps for Autodiff<Flex, C> {
    fn vqdna_attend(
        qkv: FloatTensor<Self>,
        queries: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        places: IntTensor<Self>,
        rotation: Rotation,
    ) -> FloatTensor<Self> {
        let nodes = [qkv.node()];
        let masks = [queries, keys].map(FloatTensor::<Self>::into_primitive);
        let mut attend = Attend::new(qkv.into_primitive(), masks, &places, rotation);
        match AttendBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let y = attend.run(true);
                prepared.finish(attend, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(attend.run(false)),
        }
    }
}

#[derive(Debug)]
struct AttendBackward;

impl Backward<Flex, 1> for AttendBackward {
    type State = Attend;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let attend = &ops.state;
        let found = match attend.precision {
            Precision::F32 => attention::backward(attend.input::<f32>(), &attend.out, &attend.stats, floats(&dy)),
            Precision::Bf16 => attention::backward(attend.input::<Pair>(), &attend.out, &attend.stats, floats(&dy)),
        };
        let found = tensor(found, attend.shape);
        register(gradients, ops.parents.map(|parent| parent.map(|node| node.id)), [Some(found)]);
    }
}
