//! The fused CPU kernels as operations of Burn's Flex backend, with hand-written backward passes.

mod attend;
mod attention;
mod classifier;
mod conv_block;
mod experts;
mod frozen;
mod low_rank;
mod mlp;
mod quantize;
mod sample;

pub(super) use attend::attend;
pub(super) use attention::attention;
pub(super) use classifier::{cross_entropy, layer_norm, linear_gelu};
pub(super) use conv_block::conv_block;
pub(super) use experts::experts;
pub(super) use frozen::{Preparations, joined, with_frozen_weights};
pub(super) use low_rank::{arguments as low_rank_arguments, merged};
pub(super) use mlp::mlp;
pub(super) use quantize::{add_codes, average, code_statistics, commitment, nearest, residual, straight_through};
pub(super) use sample::sample;

use super::{AdamwStep, precision};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn::tensor::{Bytes, DType};
use burn_flex::{FlexTensor, Layout};
use vqdna_kernels::low_rank::LowRank as Part;
use vqdna_kernels::norm::{self, Norm};
use vqdna_kernels::product::Precision;
use vqdna_kernels::{adamw as adamw_kernel, linear as linear_kernel, stem as stem_kernel};

pub(super) fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    wrap(Dispatch::vqdna_linear(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()))
}

pub(super) fn norm_gelu(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    wrap(Dispatch::vqdna_norm_gelu(x.into_dispatch(), gain.into_dispatch(), bias.into_dispatch(), eps as f32))
}

pub(super) fn stem(bases: Tensor<2, Int>, weight: Tensor<3>, bias: Tensor<1>) -> Tensor<3> {
    wrap(Dispatch::vqdna_stem(bases.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()))
}

pub(super) fn sum_of_squares(x: Tensor<1>) -> Tensor<1> {
    Tensor::from_dispatch(Dispatch::vqdna_sum_of_squares(x.into_dispatch()))
}

pub(super) fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let (parameter, first, second) = Dispatch::vqdna_adamw(
        parameter.into_dispatch(),
        gradient.into_dispatch(),
        first.into_dispatch(),
        second.into_dispatch(),
        step,
    );
    (Tensor::from_dispatch(parameter), [Tensor::from_dispatch(first), Tensor::from_dispatch(second)])
}

fn wrap(output: FloatTensor<Dispatch>) -> Tensor<3> {
    Tensor::from_dispatch(output)
}

/// Operations that take part in a backward pass.
#[backend_extension(Flex, Autodiff)]
pub(super) trait NetworkOps: Backend {
    fn vqdna_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
    fn vqdna_norm_gelu(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    fn vqdna_stem(bases: IntTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Operations outside the graph.
#[backend_extension(Flex)]
pub(super) trait PlainOps: Backend {
    fn vqdna_sum_of_squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
    fn vqdna_adamw(
        parameter: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        first: FloatTensor<Self>,
        second: FloatTensor<Self>,
        step: AdamwStep,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

// ---------------------------------------------------------------- forward

impl NetworkOps for Flex {
    fn vqdna_linear(x: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let [x, weight, bias] = contiguous([x, weight, bias]);
        let y = linear_kernel::forward(floats(&x), floats(&weight), floats(&bias), precision());
        let [batch, bases, _] = dims(&x);
        tensor(y, [batch, bases, floats(&bias).len()])
    }

    fn vqdna_norm_gelu(x: FlexTensor, gain: FlexTensor, bias: FlexTensor, eps: f32) -> FlexTensor {
        let [x, gain, bias] = contiguous([x, gain, bias]);
        let norm = Norm { gain: floats(&gain), bias: floats(&bias), eps };
        tensor(norm::gelu_forward(norm, floats(&x)), dims::<3>(&x))
    }

    fn vqdna_stem(bases: FlexTensor, weight: FlexTensor, bias: FlexTensor) -> FlexTensor {
        let [bases, weight, bias] = contiguous([bases, weight, bias]);
        let [batch, length] = dims(&bases);
        let y = stem_kernel::forward(&integers(&bases), length, floats(&weight), floats(&bias));
        tensor(y, [batch, length, floats(&bias).len()])
    }
}

impl PlainOps for Flex {
    fn vqdna_sum_of_squares(x: FlexTensor) -> FlexTensor {
        let [x] = contiguous([x]);
        tensor(vec![adamw_kernel::sum_of_squares(floats(&x)) as f32], [1])
    }

    fn vqdna_adamw(
        parameter: FlexTensor,
        gradient: FlexTensor,
        first: FlexTensor,
        second: FlexTensor,
        step: AdamwStep,
    ) -> (FlexTensor, FlexTensor, FlexTensor) {
        let [mut parameter, gradient, mut first, mut second] = contiguous([parameter, gradient, first, second]);
        let correction = |beta: f64| (1.0 - beta.powf(step.time as f64)) as f32;
        let step = adamw_kernel::Step {
            rate: step.rate as f32,
            beta1: step.betas.0 as f32,
            beta2: step.betas.1 as f32,
            eps: step.eps as f32,
            weight_decay: step.weight_decay as f32,
            correction1: correction(step.betas.0),
            correction2: correction(step.betas.1),
            scale: step.scale as f32,
        };
        adamw_kernel::update(
            step,
            parameter.storage_mut(),
            floats(&gradient),
            first.storage_mut(),
            second.storage_mut(),
        );
        (parameter, first, second)
    }
}

/// Contiguous from the start of their storage, as kernels read them.
fn contiguous<const N: usize>(tensors: [FlexTensor; N]) -> [FlexTensor; N] {
    tensors.map(|tensor| {
        let whole = tensor
            .layout()
            .contiguous_offsets()
            .is_some_and(|(start, end)| start == 0 && end * tensor.dtype().size() == tensor.bytes().len());
        if whole { tensor } else { tensor.to_contiguous() }
    })
}

fn floats(tensor: &FlexTensor) -> &[f32] {
    tensor.storage()
}

/// Values of an integer tensor; Flex makes them 32 bits wide unless told otherwise.
fn integers(tensor: &FlexTensor) -> std::borrow::Cow<'_, [i32]> {
    match tensor.dtype() {
        DType::I32 => tensor.storage::<i32>().into(),
        DType::I64 => tensor.storage::<i64>().iter().map(|&v| v as i32).collect::<Vec<_>>().into(),
        other => panic!("integer tensors are 32 or 64 bits wide, not {other:?}"),
    }
}

fn dims<const D: usize>(tensor: &FlexTensor) -> [usize; D] {
    tensor.layout().shape().dims()
}

fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(values), Layout::contiguous(shape.into()), DType::F32)
}

// --------------------------------------------------------------- backward

impl<C: CheckpointStrategy> NetworkOps for Autodiff<Flex, C> {
    fn vqdna_linear(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x.node(), weight.node(), bias.node()];
        let learns = weight.is_tracked();
        let (x, weight, bias) = (x.into_primitive(), weight.into_primitive(), bias.into_primitive());
        let [x, weight] = contiguous([x, weight]);
        let y = Flex::vqdna_linear(x.clone(), weight.clone(), bias);
        match LinearBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((learns.then_some(x), weight, precision()), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn vqdna_norm_gelu(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), gain.node(), bias.node()];
        let [x, gain, bias] = contiguous([x.into_primitive(), gain.into_primitive(), bias.into_primitive()]);
        let y = Flex::vqdna_norm_gelu(x.clone(), gain.clone(), bias.clone(), eps);
        match NormGeluBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(([x, gain, bias], eps), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }

    fn vqdna_stem(bases: IntTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [weight.node(), bias.node()];
        let [bases, weight] = contiguous([bases, weight.into_primitive()]);
        let y = Flex::vqdna_stem(bases.clone(), weight.clone(), bias.into_primitive());
        match StemBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((bases, dims::<3>(&weight)), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[derive(Debug)]
struct LinearBackward;

impl Backward<Flex, 3> for LinearBackward {
    /// x if the weight learns, and the weight.
    type State = (Option<FlexTensor>, FlexTensor, Precision);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let (x, weight, precision) = &ops.state;
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        linear_backward(gradients, parents, x.as_ref(), weight, &dy, *precision);
    }
}

/// Gradients of x, weight and bias of a linear layer, as far as they are wanted; `x` is there if that of the weight is.
fn linear_backward(
    gradients: &mut Gradients,
    parents: [Option<NodeId>; 3],
    x: Option<&FlexTensor>,
    weight: &FlexTensor,
    dy: &FlexTensor,
    precision: Precision,
) {
    let ([batch, bases, _], [d_out, d_in]) = (dims(dy), dims(weight));
    let [of_x, of_weight, of_bias] = parents.map(|parent| parent.is_some());
    let wanted = linear_kernel::Wanted { weight: of_weight, bias: of_bias, low_rank: None };
    let x = x.map_or(&[][..], floats);
    let (dx, g) = linear_kernel::backward(x, floats(weight), d_out, floats(dy), of_x, wanted, precision);
    let [weight, bias, ..] = layer_gradients(g, [d_out, d_in]);
    register(gradients, parents, [dx.map(|dx| tensor(dx, [batch, bases, d_in])), weight, bias]);
}

/// What is wanted of a linear layer, by which of weight, bias and the two factors are tracked.
fn wanted([weight, bias, a, b]: [bool; 4], part: Option<Part<'_>>) -> linear_kernel::Wanted<'_> {
    linear_kernel::Wanted { weight, bias, low_rank: part.filter(|_| a || b) }
}

/// Of gain and bias, if they were wanted.
fn norm_gradients(found: Option<[Vec<f32>; 2]>, d: usize) -> [Option<FlexTensor>; 2] {
    found.map_or([None, None], |found| found.map(|gradient| Some(tensor(gradient, [d]))))
}

/// Gradients of weight, bias and the two factors of a linear layer, those that were found.
fn layer_gradients(found: linear_kernel::Gradients, [d_out, d_in]: [usize; 2]) -> [Option<FlexTensor>; 4] {
    let [a, b] = found.low_rank.map_or([None, None], |[a, b]| {
        let rank = a.len() / d_in;
        [Some(tensor(a, [rank, d_in])), Some(tensor(b, [d_out, rank]))]
    });
    let weight = found.weight.map(|weight| tensor(weight, [d_out, d_in]));
    [weight, found.bias.map(|bias| tensor(bias, [d_out])), a, b]
}

#[derive(Debug)]
struct NormGeluBackward;

impl Backward<Flex, 3> for NormGeluBackward {
    type State = ([FlexTensor; 3], f32);

    fn backward(self, ops: Ops<Self::State, 3>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let ([x, gain, bias], eps) = &ops.state;
        let norm = Norm { gain: floats(gain), bias: floats(bias), eps: *eps };
        let g = norm::gelu_backward(norm, floats(x), floats(&dy));
        let d = norm.gain.len();
        register(
            gradients,
            ops.parents.map(|parent| parent.map(|node| node.id)),
            [tensor(g.x, dims::<3>(x)), tensor(g.gain, [d]), tensor(g.bias, [d])].map(Some),
        );
    }
}

#[derive(Debug)]
struct StemBackward;

impl Backward<Flex, 2> for StemBackward {
    type State = (FlexTensor, [usize; 3]);

    fn backward(self, ops: Ops<Self::State, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let (bases, shape) = ops.state;
        let ([_, length], [d, _, kernel]) = (dims(&bases), shape);
        let (weight, bias) = stem_kernel::backward(&integers(&bases), length, d, kernel, floats(&dy));
        register(
            gradients,
            ops.parents.map(|parent| parent.map(|node| node.id)),
            [tensor(weight, shape), tensor(bias, [d])].map(Some),
        );
    }
}

/// Hands each gradient that was found to its argument, where that argument is tracked.
fn register<const N: usize>(gradients: &mut Gradients, parents: [Option<NodeId>; N], found: [Option<FlexTensor>; N]) {
    for (parent, gradient) in parents.into_iter().zip(found) {
        if let (Some(id), Some(gradient)) = (parent, gradient) {
            gradients.register::<Flex>(id, gradient);
        }
    }
}
