//! The search of codes and what stands around it, with a hand-written backward pass where gradients pass.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn::tensor::{Bytes, DType};
use burn_flex::{FlexTensor, Layout};
use std::slice;
use vqdna_kernels::codebook;
use vqdna_kernels::quantize::{self, Average, Averaged};

use super::{contiguous, dims, floats, frozen, integers, register, tensor};
use crate::ops::Averages;

/// The macro that generates dispatch knows no optional tensors; one without rows stands for none.
fn or_none(sum: Option<Tensor<2>>, like: &Tensor<2>) -> Tensor<2> {
    sum.unwrap_or_else(|| Tensor::empty([0, like.dims()[1]], &like.device()))
}

/// The sum of [`or_none`].
fn or_nothing(sum: &FlexTensor) -> Option<&[f32]> {
    Some(floats(sum)).filter(|sum| !sum.is_empty())
}

pub(in crate::ops) fn nearest(h: Tensor<2>, codes: Tensor<2>) -> Tensor<1, Int> {
    Tensor::from_dispatch(Dispatch::vqdna_nearest(h.into_dispatch(), codes.into_dispatch()))
}

pub(in crate::ops) fn code_statistics(
    h: Tensor<2>,
    index: Tensor<1, Int>,
    weight: Tensor<1>,
    codebook_size: usize,
) -> (Tensor<1>, Tensor<2>) {
    let (counts, sums) = Dispatch::vqdna_code_statistics(
        h.into_dispatch(),
        index.into_dispatch(),
        weight.into_dispatch(),
        codebook_size,
    );
    (Tensor::from_dispatch(counts), Tensor::from_dispatch(sums))
}

pub(in crate::ops) fn residual(
    tap: Tensor<2>,
    scale: f64,
    sum: Option<Tensor<2>>,
    codes: Tensor<2>,
    index: Tensor<1, Int>,
) -> Tensor<2> {
    let sum = or_none(sum, &codes);
    Tensor::from_dispatch(Dispatch::vqdna_residual(
        tap.into_dispatch(),
        sum.into_dispatch(),
        codes.into_dispatch(),
        index.into_dispatch(),
        scale as f32,
    ))
}

pub(in crate::ops) fn add_codes(
    sum: Option<Tensor<2>>,
    codes: Tensor<2>,
    index: Tensor<1, Int>,
    mask: Tensor<1>,
    levels: f64,
) -> (Tensor<2>, Tensor<2>) {
    let sum = or_none(sum, &codes);
    let (sum, mean) = Dispatch::vqdna_add_codes(
        sum.into_dispatch(),
        codes.into_dispatch(),
        index.into_dispatch(),
        mask.into_dispatch(),
        levels as f32,
    );
    (Tensor::from_dispatch(sum), Tensor::from_dispatch(mean))
}

pub(in crate::ops) fn average(old: Averages, new: Averages, decay: f64, smoothing: f64) -> (Tensor<2>, Averages) {
    let (codes, counts, sums) = Dispatch::vqdna_average(
        old.counts.into_dispatch(),
        old.sums.into_dispatch(),
        new.counts.into_dispatch(),
        new.sums.into_dispatch(),
        decay as f32,
        smoothing as f32,
    );
    let averages = Averages { counts: Tensor::from_dispatch(counts), sums: Tensor::from_dispatch(sums) };
    (Tensor::from_dispatch(codes), averages)
}

pub(in crate::ops) fn straight_through(z: Tensor<3>, mean: Tensor<3>, mask: Tensor<2>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::vqdna_straight_through(
        z.into_dispatch(),
        mean.into_dispatch(),
        mask.into_dispatch(),
    ))
}

pub(in crate::ops) fn commitment(z: Tensor<3>, mean: Tensor<3>, mask: Tensor<2>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::vqdna_commitment(z.into_dispatch(), mean.into_dispatch(), mask.into_dispatch()))
}

/// Operations outside the graph.
#[backend_extension(Flex)]
pub(super) trait CodeOps: Backend {
    fn vqdna_nearest(h: FloatTensor<Self>, codes: FloatTensor<Self>) -> IntTensor<Self>;
    fn vqdna_code_statistics(
        h: FloatTensor<Self>,
        index: IntTensor<Self>,
        weight: FloatTensor<Self>,
        codebook_size: usize,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    fn vqdna_residual(
        tap: FloatTensor<Self>,
        sum: FloatTensor<Self>,
        codes: FloatTensor<Self>,
        index: IntTensor<Self>,
        scale: f32,
    ) -> FloatTensor<Self>;
    fn vqdna_add_codes(
        sum: FloatTensor<Self>,
        codes: FloatTensor<Self>,
        index: IntTensor<Self>,
        mask: FloatTensor<Self>,
        levels: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
    fn vqdna_average(
        counts: FloatTensor<Self>,
        sums: FloatTensor<Self>,
        new_counts: FloatTensor<Self>,
        new_sums: FloatTensor<Self>,
        decay: f32,
        smoothing: f32,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

/// Operations that gradients of z pass.
#[backend_extension(Flex, Autodiff)]
pub(super) trait PassOps: Backend {
    fn vqdna_straight_through(
        z: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mask: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    fn vqdna_commitment(z: FloatTensor<Self>, mean: FloatTensor<Self>, mask: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl CodeOps for Flex {
    fn vqdna_nearest(h: FlexTensor, codes: FlexTensor) -> FlexTensor {
        let [h, codes] = contiguous([h, codes]);
        let [rows, d] = dims(&h);
        let prepared = frozen::prepared(slice::from_ref(&codes), &[], || codebook::Prepared::new(floats(&codes), d));
        let mut index = vec![0; rows];
        prepared.nearest(floats(&h), &mut index);
        FlexTensor::new(Bytes::from_elems(index), Layout::contiguous([rows].into()), DType::I32)
    }

    fn vqdna_code_statistics(
        h: FlexTensor,
        index: FlexTensor,
        weight: FlexTensor,
        codebook_size: usize,
    ) -> (FlexTensor, FlexTensor) {
        let [h, index, weight] = contiguous([h, index, weight]);
        let [_, d] = dims(&h);
        let (counts, sums) = codebook::statistics(floats(&h), &integers(&index), floats(&weight), codebook_size, d);
        (tensor(counts, [codebook_size]), tensor(sums, [codebook_size, d]))
    }

    fn vqdna_residual(
        tap: FlexTensor,
        sum: FlexTensor,
        codes: FlexTensor,
        index: FlexTensor,
        scale: f32,
    ) -> FlexTensor {
        let [mut tap, sum, codes, index] = contiguous([tap, sum, codes, index]);
        let [_, d] = dims(&tap);
        // In place where nobody else holds the tap.
        quantize::residual(tap.storage_mut(), scale, or_nothing(&sum), floats(&codes), &integers(&index), d);
        tap
    }

    fn vqdna_add_codes(
        sum: FlexTensor,
        codes: FlexTensor,
        index: FlexTensor,
        mask: FlexTensor,
        levels: f32,
    ) -> (FlexTensor, FlexTensor) {
        let [sum, codes, index, mask] = contiguous([sum, codes, index, mask]);
        let ([_, d], index) = (dims(&codes), integers(&index));
        let (sum, mean) = quantize::add_codes(or_nothing(&sum), floats(&codes), &index, floats(&mask), levels, d);
        (tensor(sum, [index.len(), d]), tensor(mean, [index.len(), d]))
    }

    fn vqdna_average(
        counts: FlexTensor,
        sums: FlexTensor,
        new_counts: FlexTensor,
        new_sums: FlexTensor,
        decay: f32,
        smoothing: f32,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [counts, sums, new_counts, new_sums] = contiguous([counts, sums, new_counts, new_sums]);
        let shape: [usize; 2] = dims(&sums);
        let (all_counts, all_sums) = ([&counts, &new_counts].map(floats), [&sums, &new_sums].map(floats));
        let Averaged { codes, counts, sums } = quantize::average(Average { decay, smoothing }, all_counts, all_sums);
        (tensor(codes, shape), tensor(counts, [shape[0]]), tensor(sums, shape))
    }
}

impl PassOps for Flex {
    fn vqdna_straight_through(z: FlexTensor, mean: FlexTensor, mask: FlexTensor) -> FlexTensor {
        let [z, mean, mask] = contiguous([z, mean, mask]);
        let shape: [usize; 3] = dims(&z);
        tensor(quantize::straight_through(floats(&z), floats(&mean), floats(&mask), shape[2]), shape)
    }

    fn vqdna_commitment(z: FlexTensor, mean: FlexTensor, mask: FlexTensor) -> FlexTensor {
        let [z, mean, mask] = contiguous([z, mean, mask]);
        let [.., d] = dims::<3>(&z);
        tensor(vec![quantize::commitment(floats(&z), floats(&mean), floats(&mask), d)], [1])
    }
}

impl<C: CheckpointStrategy> PassOps for Autodiff<Flex, C> {
    fn vqdna_straight_through(
        z: FloatTensor<Self>,
        mean: FloatTensor<Self>,
        mask: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let node = z.node();
        let [z, mean, mask] = contiguous([z, mean, mask].map(FloatTensor::<Self>::into_primitive));
        let y = Flex::vqdna_straight_through(z, mean, mask.clone());
        match StraightThroughBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(mask, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn vqdna_commitment(z: FloatTensor<Self>, mean: FloatTensor<Self>, mask: FloatTensor<Self>) -> FloatTensor<Self> {
        let node = z.node();
        let tensors = contiguous([z, mean, mask].map(FloatTensor::<Self>::into_primitive));
        let [z, mean, mask] = tensors.clone();
        let y = Flex::vqdna_commitment(z, mean, mask);
        match CommitmentBackward.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(tensors, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[derive(Debug)]
struct StraightThroughBackward;

impl Backward<Flex, 1> for StraightThroughBackward {
    /// The mask.
    type State = FlexTensor;

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [mut dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let [.., d] = dims::<3>(&dy);
        quantize::straight_through_backward(dy.storage_mut(), floats(&ops.state), d);
        register(gradients, ops.parents.map(|parent| parent.map(|node| node.id)), [Some(dy)]);
    }
}

#[derive(Debug)]
struct CommitmentBackward;

impl Backward<Flex, 1> for CommitmentBackward {
    type State = [FlexTensor; 3];

    fn backward(self, ops: Ops<Self::State, 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let [z, mean, mask] = &ops.state;
        let shape: [usize; 3] = dims(z);
        let dz = quantize::commitment_backward(floats(z), floats(mean), floats(mask), shape[2], floats(&dy)[0]);
        register(gradients, ops.parents.map(|parent| parent.map(|node| node.id)), [Some(tensor(dz, shape))]);
    }
}
