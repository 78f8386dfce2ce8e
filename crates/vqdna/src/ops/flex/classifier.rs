//! What heads are made of, as operations: layer norm, a linear layer with GELU, and the cross-entropy of a classifier.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use vqdna_kernels::norm::{self, Norm};
use vqdna_kernels::product::Precision;
use vqdna_kernels::{cross_entropy as classifier, gelu, linear as linear_kernel};

use super::{contiguous, dims, floats, integers, linear_backward, register, tensor, wrap};
use crate::ops::precision;

pub(in crate::ops) fn layer_norm(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    wrap(Dispatch::vqdna_layer_norm(x.into_dispatch(), gain.into_dispatch(), bias.into_dispatch(), eps as f32))
}

pub(in crate::ops) fn linear_gelu(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    wrap(Dispatch::vqdna_linear_gelu(x.into_dispatch(), weight.into_dispatch(), bias.into_dispatch()))
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

#[backend_extension(Flex, Autodiff)]
pub(super) trait ClassifierOps: Backend {
    fn vqdna_layer_norm(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self>;
    fn vqdna_linear_gelu(x: FloatTensor<Self>, weight: FloatTensor<Self>, bias: FloatTensor<Self>)
    -> FloatTensor<Self>;
    fn vqdna_cross_entropy(
        h: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        target: IntTensor<Self>,
    ) -> FloatTensor<Self>;
}

impl ClassifierOps for Flex {
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

    fn vqdna_cross_entropy(h: FlexTensor, weight: FlexTensor, bias: FlexTensor, target: FlexTensor) -> FlexTensor {
        let tensors = contiguous([h, weight, bias, target]);
        let classes = Classes { tensors, precision: precision(), stats: Vec::new() };
        tensor(vec![classes.forward().0], [1])
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

impl<C: CheckpointStrategy> ClassifierOps for Autodiff<Flex, C> {
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
