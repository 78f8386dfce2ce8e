//! The feed-forward part of a transformer layer, with its norm, as an operation.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;
use vqdna_kernels::low_rank::LowRank as Part;
use vqdna_kernels::norm::Norm;
use vqdna_kernels::product::{Pair, Precision, Saved, Unit};
use vqdna_kernels::{mlp, mlp_block};

use super::{
    contiguous, dims, floats, frozen, layer_gradients, low_rank, norm_gradients, register, tensor, wanted, wrap,
};
use crate::ops::{Activation, MlpWeights, keeps, precision};

pub(in crate::ops) fn mlp(x: Tensor<3>, w: MlpWeights) -> Tensor<3> {
    let device = x.device();
    let ([up_a, up_b], up_scale) = low_rank::arguments(w.up_part, &device);
    let ([down_a, down_b], down_scale) = low_rank::arguments(w.down_part, &device);
    wrap(Dispatch::vqdna_mlp(
        x.into_dispatch(),
        w.gain.into_dispatch(),
        w.bias.into_dispatch(),
        w.up.into_dispatch(),
        w.up_bias.into_dispatch(),
        up_a,
        up_b,
        w.down.into_dispatch(),
        w.down_bias.into_dispatch(),
        down_a,
        down_b,
        MlpSettings { eps: w.eps as f32, scales: [up_scale, down_scale], activation: w.activation },
    ))
}

/// What the linear layers need beside tensors.
#[derive(Clone, Copy, Debug)]
pub(super) struct MlpSettings {
    eps: f32,
    /// Of the low-rank parts of `up` and `down`.
    scales: [f64; 2],
    activation: Activation,
}

#[backend_extension(Flex, Autodiff)]
#[allow(clippy::too_many_arguments, reason = "tensors of a block; the macro that generates dispatch wants them flat")]
pub(super) trait MlpOps: Backend {
    fn vqdna_mlp(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        settings: MlpSettings,
    ) -> FloatTensor<Self>;
}

impl MlpOps for Flex {
    fn vqdna_mlp(
        x: FlexTensor,
        gain: FlexTensor,
        bias: FlexTensor,
        up: FlexTensor,
        up_bias: FlexTensor,
        up_a: FlexTensor,
        up_b: FlexTensor,
        down: FlexTensor,
        down_bias: FlexTensor,
        down_a: FlexTensor,
        down_b: FlexTensor,
        settings: MlpSettings,
    ) -> FlexTensor {
        let tensors = contiguous([x, gain, bias, up, up_bias, up_a, up_b, down, down_bias, down_a, down_b]);
        Mlp { tensors, settings, precision: precision(), pre: Saved::default() }.output()
    }
}

/// What the backward pass of the linear layers needs.
#[derive(Clone, Debug)]
struct Mlp {
    /// Contiguous, in the order of the operation's arguments.
    tensors: [FlexTensor; 11],
    settings: MlpSettings,
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
        let MlpSettings { eps, scales: [up_scale, down_scale], activation } = self.settings;
        let settings = [u64::from(eps.to_bits()), up_scale.to_bits(), down_scale.to_bits(), activation as u64];
        let prepared = frozen::prepared(weights, &settings, || self.with_weights(mlp_block::Prepared::<U>::new));
        prepared.forward(floats(x))
    }

    /// Low-rank parts of `up` and `down`.
    fn parts(&self) -> [Option<Part<'_>>; 2] {
        let [_, _, _, _, _, up_a, up_b, _, _, down_a, down_b] = &self.tensors;
        let [up_scale, down_scale] = self.settings.scales;
        [low_rank::part(up_a, up_b, up_scale), low_rank::part(down_a, down_b, down_scale)]
    }

    /// Runs `work` on the norm and the weights with their low-rank parts, which are formed for that time only.
    fn with_weights<R>(&self, work: impl FnOnce(Norm, mlp::Weights) -> R) -> R {
        let [_, gain, bias, up, up_bias, _, _, down, down_bias, _, _] = &self.tensors;
        let [up_part, down_part] = self.parts();
        let weights = mlp::Weights {
            up: &low_rank::effective(up, up_part),
            up_bias: floats(up_bias),
            down: &low_rank::effective(down, down_part),
            down_bias: floats(down_bias),
            activation: self.settings.activation,
        };
        work(Norm { gain: floats(gain), bias: floats(bias), eps: self.settings.eps }, weights)
    }
}

impl<C: CheckpointStrategy> MlpOps for Autodiff<Flex, C> {
    fn vqdna_mlp(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        settings: MlpSettings,
    ) -> FloatTensor<Self> {
        let tensors = [x, gain, bias, up, up_bias, up_a, up_b, down, down_bias, down_a, down_b];
        let nodes = tensors.each_ref().map(FloatTensor::<Self>::node);
        let tensors = contiguous(tensors.map(FloatTensor::<Self>::into_primitive));
        let mut block = Mlp { tensors, settings, precision: precision(), pre: Saved::default() };
        match MlpBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let x = &block.tensors[0];
                let (y, pre) =
                    block.with_weights(|norm, w| mlp_block::forward(floats(x), norm, w, block.precision, keeps()));
                let y = tensor(y, dims::<3>(x));
                block.pre = pre;
                prepared.finish(block, y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(block.output()),
        }
    }
}

#[derive(Debug)]
struct MlpBackward;

impl Backward<Flex, 11> for MlpBackward {
    type State = Mlp;

    fn backward(self, ops: Ops<Self::State, 11>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let [dy] = contiguous([gradients.consume::<Flex>(&ops.node)]);
        let block = ops.state;
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        let [x, gain, bias, up, up_bias, up_a, up_b, down, down_bias, down_a, down_b] =
            parents.map(|parent| parent.is_some());
        let [up_part, down_part] = block.parts();
        let wanted = mlp_block::Wanted {
            x,
            norm: gain || bias,
            up: wanted([up, up_bias, up_a, up_b], up_part),
            down: wanted([down, down_bias, down_a, down_b], down_part),
        };
        let x = floats(&block.tensors[0]);
        let g = block
            .with_weights(|norm, w| mlp_block::backward(x, norm, w, floats(&dy), &block.pre, wanted, block.precision));
        let [d_inner, d] = dims(&block.tensors[3]);
        let x = g.x.map(|x| tensor(x, dims::<3>(&dy)));
        let [gain, bias] = norm_gradients(g.norm, d);
        let [up, up_bias, up_a, up_b] = layer_gradients(g.up, [d_inner, d]);
        let active = d_inner / block.settings.activation.inputs();
        let [down, down_bias, down_a, down_b] = layer_gradients(g.down, [d, active]);
        register(gradients, parents, [x, gain, bias, up, up_bias, up_a, up_b, down, down_bias, down_a, down_b]);
    }
}
