//! Low-rank parts of weights: among the arguments of operations, and added to their weights.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use std::borrow::Cow;
use vqdna_kernels::low_rank::LowRank as Part;

use super::{contiguous, dims, floats, tensor};
use crate::ops::LowRank;

/// Factors and scale as arguments of an operation. The macro that generates dispatch knows no optional tensors; factors of rank 0
/// stand for none.
pub(in crate::ops) fn arguments(part: Option<LowRank>, device: &Device) -> ([FloatTensor<Dispatch>; 2], f64) {
    let (factors, scale) = match part {
        Some(LowRank { a, b, scale }) => ([a, b], scale),
        None => ([Tensor::empty([0, 1], device), Tensor::empty([1, 0], device)], 0.0),
    };
    (factors.map(Tensor::into_dispatch), scale)
}

/// What [`arguments`] was made of, as kernels take it.
pub(super) fn part<'a>(a: &'a FlexTensor, b: &'a FlexTensor, scale: f64) -> Option<Part<'a>> {
    let [rank, _] = dims(a);
    (rank > 0).then(|| Part { a: floats(a), b: floats(b), rank, scale: scale as f32 })
}

/// What a layer multiplies with.
pub(super) fn effective<'a>(weight: &'a FlexTensor, part: Option<Part>) -> Cow<'a, [f32]> {
    part.map_or(floats(weight).into(), |part| part.added_to(floats(weight)).into())
}

pub(in crate::ops) fn merged(weight: Tensor<2>, part: LowRank) -> Tensor<2> {
    let (a, b) = (part.a.into_dispatch(), part.b.into_dispatch());
    Tensor::from_dispatch(Dispatch::vqdna_merged(weight.into_dispatch(), a, b, part.scale))
}

#[backend_extension(Flex)]
pub(super) trait LowRankOps: Backend {
    fn vqdna_merged(
        weight: FloatTensor<Self>,
        a: FloatTensor<Self>,
        b: FloatTensor<Self>,
        scale: f64,
    ) -> FloatTensor<Self>;
}

impl LowRankOps for Flex {
    fn vqdna_merged(weight: FlexTensor, a: FlexTensor, b: FlexTensor, scale: f64) -> FlexTensor {
        let [weight, a, b] = contiguous([weight, a, b]);
        tensor(effective(&weight, part(&a, &b, scale)).into_owned(), dims::<2>(&weight))
    }
}
