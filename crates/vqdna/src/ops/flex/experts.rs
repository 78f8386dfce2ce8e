//! Experts of units as an operation with a hand-written backward pass.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use std::sync::Arc;
use vqdna_kernels::experts::{self, Expert, Kept};
use vqdna_kernels::norm::Norm;
use vqdna_kernels::product::{Pair, Precision, Unit};

use super::{contiguous, dims, floats, frozen, register, tensor};
use crate::ops::{ExpertWeights, precision};

pub(in crate::ops) fn experts(x: Tensor<2>, experts: Vec<ExpertWeights>, covered: &[Vec<u32>]) -> Tensor<2> {
    // Weights that no unit needs get no gradient rather than one of zeros. A frozen model is joined as a whole, and once.
    let is_frozen = experts[0].post.clone().try_into_primitive::<Flex>().is_ok();
    let used = |(_, covered): &(ExpertWeights, &Vec<u32>)| is_frozen || !covered.is_empty();
    let (experts, covered): (Vec<_>, Vec<_>) =
        experts.into_iter().zip(covered).filter(used).map(|(expert, covered)| (expert, covered.clone())).unzip();
    let of = |expert: &ExpertWeights| {
        let [d, inside, size] = expert.conv.dims();
        [size, d / inside]
    };
    let settings = Settings { shapes: experts.iter().map(of).collect(), covered, eps: experts[0].eps as f32 };
    let joined = |part: &dyn Fn(&ExpertWeights) -> Tensor<2>| {
        frozen::joined(experts.iter().map(part).collect()).0.into_dispatch()
    };
    let row = |values: &Tensor<1>| values.clone().unsqueeze::<2>();
    Tensor::from_dispatch(Dispatch::vqdna_experts(
        x.into_dispatch(),
        joined(&|expert| expert.pre.clone()),
        // As a column, since convolutions of several sizes have no width in common.
        joined(&|expert| {
            let count = expert.conv.dims().iter().product::<usize>();
            expert.conv.clone().reshape([count, 1])
        }),
        joined(&|expert| row(&expert.gain)),
        joined(&|expert| row(&expert.bias)),
        joined(&|expert| expert.post.clone()),
        Arc::new(settings),
    ))
}

/// What experts need beside tensors.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Rows of a unit of each expert, and groups of its convolution.
    shapes: Vec<[usize; 2]>,
    /// The rows that its units cover.
    covered: Vec<Vec<u32>>,
    eps: f32,
}

#[backend_extension(Flex, Autodiff)]
pub(super) trait ExpertsOps: Backend {
    fn vqdna_experts(
        x: FloatTensor<Self>,
        pre: FloatTensor<Self>,
        conv: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        post: FloatTensor<Self>,
        settings: Arc<Settings>,
    ) -> FloatTensor<Self>;
}

impl ExpertsOps for Flex {
    fn vqdna_experts(
        x: FlexTensor,
        pre: FlexTensor,
        conv: FlexTensor,
        gain: FlexTensor,
        bias: FlexTensor,
        post: FlexTensor,
        settings: Arc<Settings>,
    ) -> FlexTensor {
        Units::new([x, pre, conv, gain, bias, post], settings).output()
    }
}

/// What experts work on, and what their backward pass needs.
#[derive(Clone, Debug)]
struct Units {
    /// Contiguous, in the order of the operation's arguments.
    tensors: [FlexTensor; 6],
    settings: Arc<Settings>,
    precision: Precision,
    kept: Kept,
}

impl Units {
    fn new(tensors: [FlexTensor; 6], settings: Arc<Settings>) -> Self {
        Self { tensors: contiguous(tensors), settings, precision: precision(), kept: Kept::default() }
    }

    fn experts(&self) -> Vec<Expert<'_>> {
        let [x, pre, conv, gain, bias, post] = &self.tensors;
        let [_, d] = dims(x);
        let mut conv = floats(conv);
        let of = |(n, &[size, groups]): (usize, &[usize; 2])| {
            let part = |tensor| &floats(tensor)[n * d..(n + 1) * d];
            let own;
            (own, conv) = conv.split_at(d * (d / groups) * size);
            Expert {
                size,
                groups,
                pre: &floats(pre)[2 * n * d * d..2 * (n + 1) * d * d],
                conv: own,
                norm: Norm { gain: part(gain), bias: part(bias), eps: self.settings.eps },
                post: &floats(post)[n * d * d..(n + 1) * d * d],
            }
        };
        self.settings.shapes.iter().enumerate().map(of).collect()
    }

    fn tensor(&self, units: Vec<f32>) -> FlexTensor {
        let [_, d] = dims(&self.tensors[0]);
        let count = units.len() / d;
        tensor(units, [count, d])
    }

    /// Output of the forward pass alone.
    fn output(&self) -> FlexTensor {
        self.tensor(match self.precision {
            Precision::F32 => self.forward::<f32>(),
            Precision::Bf16 => self.forward::<Pair>(),
        })
    }

    fn forward<U: Unit>(&self) -> Vec<f32> {
        let [x, weights @ ..] = &self.tensors;
        let shapes = self.settings.shapes.iter().flatten().map(|&number| number as u64);
        let settings: Vec<u64> = shapes.chain([u64::from(self.settings.eps.to_bits())]).collect();
        let prepared = frozen::prepared(weights, &settings, || experts::Prepared::<U>::new(&self.experts()));
        prepared.forward(floats(x), &self.settings.covered)
    }

    /// Output, and what the backward pass needs.
    fn output_kept(&mut self) -> FlexTensor {
        let (x, covered) = (floats(&self.tensors[0]), &self.settings.covered);
        let (out, kept) = experts::forward(x, &self.experts(), covered, self.precision, true);
        self.kept = kept;
        self.tensor(out)
    }
}

impl<C: CheckpointStrategy> ExpertsOps for Autodiff<Flex, C> {
    fn vqdna_experts(
        x: FloatTensor<Self>,
        pre: FloatTensor<Self>,
        conv: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        post: FloatTensor<Self>,
        settings: Arc<Settings>,
    ) -> FloatTensor<Self> {
        let tensors = [x, pre, conv, gain, bias, post];
        let nodes = tensors.each_ref().map(FloatTensor::<Self>::node);
        let learns = tensors[1..].iter().any(FloatTensor::<Self>::is_tracked);
        let mut units = Units::new(tensors.map(FloatTensor::<Self>::into_primitive), settings);
        match ExpertsBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let y = units.output_kept();
                prepared.finish((units, learns), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(units.output()),
        }
    }
}

#[derive(Debug)]
struct ExpertsBackward;

impl Backward<Flex, 6> for ExpertsBackward {
    type State = (Units, bool);

    fn backward(self, ops: Ops<Self::State, 6>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let (units, learns) = &ops.state;
        let (x, covered) = (&units.tensors[0], &units.settings.covered);
        let (dx, found) =
            experts::backward(floats(x), &units.experts(), covered, &units.kept, floats(&dy), *learns, units.precision);
        let mut joined: [Vec<f32>; 5] = std::array::from_fn(|_| Vec::new());
        for found in found {
            let [gain, bias] = found.norm;
            for (all, own) in joined.iter_mut().zip([found.pre, found.conv, gain, bias, found.post]) {
                all.extend(own);
            }
        }
        let mut weights = joined.into_iter().zip(&units.tensors[1..]);
        let of_weights = std::array::from_fn::<_, 5, _>(|_| {
            weights.next().filter(|_| *learns).map(|(values, weight)| tensor(values, dims::<2>(weight)))
        });
        let [pre, conv, gain, bias, post] = of_weights;
        let found = [Some(tensor(dx, dims::<2>(x))), pre, conv, gain, bias, post];
        register(gradients, ops.parents.map(|parent| parent.map(|node| node.id)), found);
    }
}
