//! A transformer layer that keeps only its input for the backward pass and computes everything else again (Chen et al. 2016).
//!
//! The layer is a single operation of the outer graph. Its backward pass runs the layer once more in a graph of its own, out of
//! the same operations, so gradients are those of the plain layer but for rounding.

use super::flex::low_rank_arguments;
use super::{Activation, AttentionWeights, LowRank, MlpWeights, Positions, attention, mlp};
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, Flex, backend_extension};
use burn::prelude::*;
use burn_flex::FlexTensor;

/// Tensors that a layer is differentiated by: its input, ten weights of attention and ten of the linear layers, low-rank parts among them.
const DIFFERENTIATED: usize = 21;
/// A forward pass alone learns none of them.
const NOTHING: [bool; DIFFERENTIATED] = [false; DIFFERENTIATED];

/// What a layer needs beside tensors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    heads: usize,
    positions: Positions,
    causal: bool,
    eps: [f64; 2],
    /// Of the low-rank parts of `qkv`, `out`, `up` and `down`.
    scales: [f64; 4],
    activation: Activation,
}

pub(super) fn transformer_layer(x: Tensor<3>, mask: Tensor<2>, a: AttentionWeights, m: MlpWeights) -> Tensor<3> {
    let device = x.device();
    let parts = [a.qkv_part, a.out_part, m.up_part, m.down_part].map(|part| low_rank_arguments(part, &device));
    let scales = parts.each_ref().map(|(_, scale)| *scale);
    let [[qkv_a, qkv_b], [out_a, out_b], [up_a, up_b], [down_a, down_b]] = parts.map(|(factors, _)| factors);
    let (eps, activation) = ([a.eps, m.eps], m.activation);
    let settings = Settings { heads: a.heads, positions: a.positions, causal: a.causal, eps, scales, activation };
    Tensor::from_dispatch(Dispatch::vqdna_transformer_layer(
        x.into_dispatch(),
        a.gain.into_dispatch(),
        a.bias.into_dispatch(),
        a.qkv.into_dispatch(),
        a.qkv_bias.into_dispatch(),
        qkv_a,
        qkv_b,
        a.out.into_dispatch(),
        a.out_bias.into_dispatch(),
        out_a,
        out_b,
        m.gain.into_dispatch(),
        m.bias.into_dispatch(),
        m.up.into_dispatch(),
        m.up_bias.into_dispatch(),
        up_a,
        up_b,
        m.down.into_dispatch(),
        m.down_bias.into_dispatch(),
        down_a,
        down_b,
        mask.inner().into_dispatch(),
        settings,
    ))
}

#[backend_extension(Flex, Autodiff)]
pub(super) trait RecomputedOps: Backend {
    #[allow(
        clippy::too_many_arguments,
        reason = "the tensors of a layer; the macro that generates dispatch wants them flat"
    )]
    fn vqdna_transformer_layer(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        qkv_bias: FloatTensor<Self>,
        qkv_a: FloatTensor<Self>,
        qkv_b: FloatTensor<Self>,
        out: FloatTensor<Self>,
        out_bias: FloatTensor<Self>,
        out_a: FloatTensor<Self>,
        out_b: FloatTensor<Self>,
        gain2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self>;
}

/// The layer on tensors as they come: x, then the weights of [`AttentionWeights`] and [`MlpWeights`] in their order.
struct Layer {
    x: Tensor<3>,
    mask: Tensor<2>,
    attention: AttentionWeights,
    mlp: MlpWeights,
}

impl Layer {
    /// `learned`: which tensors a gradient is wanted of.
    fn new(
        tensors: [FlexTensor; DIFFERENTIATED],
        mask: FlexTensor,
        settings: Settings,
        learned: [bool; DIFFERENTIATED],
    ) -> Self {
        fn open<const D: usize>((tensor, learned): (FlexTensor, bool)) -> Tensor<D> {
            let tensor = Tensor::from_primitive::<Flex>(tensor);
            if learned { tensor.autodiff().require_grad() } else { tensor }
        }
        fn part(a: (FlexTensor, bool), b: (FlexTensor, bool), scale: f64) -> Option<LowRank> {
            let (a, b) = (open::<2>(a), open(b));
            (a.dims()[0] > 0).then_some(LowRank { a, b, scale })
        }
        let [qkv_scale, out_scale, up_scale, down_scale] = settings.scales;
        let mut learned = learned.into_iter();
        let tensors = tensors.map(|tensor| (tensor, learned.next().unwrap_or_default()));
        let [
            x,
            gain,
            bias,
            qkv,
            qkv_bias,
            qkv_a,
            qkv_b,
            out,
            out_bias,
            out_a,
            out_b,
            gain2,
            bias2,
            up,
            up_bias,
            up_a,
            up_b,
            down,
            down_bias,
            down_a,
            down_b,
        ] = tensors;
        Self {
            x: open(x),
            mask: open((mask, false)),
            attention: AttentionWeights {
                gain: open(gain),
                bias: open(bias),
                eps: settings.eps[0],
                qkv: open(qkv),
                qkv_bias: open(qkv_bias),
                qkv_part: part(qkv_a, qkv_b, qkv_scale),
                out: open(out),
                out_bias: open(out_bias),
                out_part: part(out_a, out_b, out_scale),
                heads: settings.heads,
                positions: settings.positions,
                causal: settings.causal,
            },
            mlp: MlpWeights {
                gain: open(gain2),
                bias: open(bias2),
                eps: settings.eps[1],
                up: open(up),
                up_bias: open(up_bias),
                up_part: part(up_a, up_b, up_scale),
                down: open(down),
                down_bias: open(down_bias),
                down_part: part(down_a, down_b, down_scale),
                activation: settings.activation,
            },
        }
    }

    fn forward(&self) -> Tensor<3> {
        mlp(attention(self.x.clone(), self.mask.clone(), self.attention.clone()), self.mlp.clone())
    }

    /// Gradients of the learned ones of the tensors it was made of, in their order.
    fn gradients(&self, dy: FlexTensor) -> [Option<FlexTensor>; DIFFERENTIATED] {
        // The gradient of this sum by the output is dy.
        let sum = (self.forward() * Tensor::from_primitive::<Flex>(dy).autodiff()).sum();
        let mut found = sum.backward();
        let (a, m) = (&self.attention, &self.mlp);
        let mut of = |tensor: &Tensor<1>| tensor.grad_remove(&mut found).map(close);
        let vectors =
            [&a.gain, &a.bias, &a.qkv_bias, &a.out_bias, &m.gain, &m.bias, &m.up_bias, &m.down_bias].map(&mut of);
        let mut of = |tensor: &Tensor<2>| tensor.grad_remove(&mut found).map(close);
        let matrices = [&a.qkv, &a.out, &m.up, &m.down].map(&mut of);
        let factors = [&a.qkv_part, &a.out_part, &m.up_part, &m.down_part]
            .map(|part| part.as_ref().map_or([None, None], |part| [&part.a, &part.b].map(&mut of)));
        let x = self.x.grad_remove(&mut found).map(close);
        let [gain, bias, qkv_bias, out_bias, gain2, bias2, up_bias, down_bias] = vectors;
        let [qkv, out, up, down] = matrices;
        let [[qkv_a, qkv_b], [out_a, out_b], [up_a, up_b], [down_a, down_b]] = factors;
        [
            x, gain, bias, qkv, qkv_bias, qkv_a, qkv_b, out, out_bias, out_a, out_b, gain2, bias2, up, up_bias, up_a,
            up_b, down, down_bias, down_a, down_b,
        ]
    }
}

fn close<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    tensor.try_into_primitive::<Flex>().expect("made of Flex tensors without autodiff")
}

impl RecomputedOps for Flex {
    fn vqdna_transformer_layer(
        x: FlexTensor,
        gain: FlexTensor,
        bias: FlexTensor,
        qkv: FlexTensor,
        qkv_bias: FlexTensor,
        qkv_a: FlexTensor,
        qkv_b: FlexTensor,
        out: FlexTensor,
        out_bias: FlexTensor,
        out_a: FlexTensor,
        out_b: FlexTensor,
        gain2: FlexTensor,
        bias2: FlexTensor,
        up: FlexTensor,
        up_bias: FlexTensor,
        up_a: FlexTensor,
        up_b: FlexTensor,
        down: FlexTensor,
        down_bias: FlexTensor,
        down_a: FlexTensor,
        down_b: FlexTensor,
        mask: FlexTensor,
        settings: Settings,
    ) -> FlexTensor {
        let tensors = [
            x, gain, bias, qkv, qkv_bias, qkv_a, qkv_b, out, out_bias, out_a, out_b, gain2, bias2, up, up_bias, up_a,
            up_b, down, down_bias, down_a, down_b,
        ];
        close(Layer::new(tensors, mask, settings, NOTHING).forward())
    }
}

impl<C: CheckpointStrategy> RecomputedOps for Autodiff<Flex, C> {
    fn vqdna_transformer_layer(
        x: FloatTensor<Self>,
        gain: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        qkv: FloatTensor<Self>,
        qkv_bias: FloatTensor<Self>,
        qkv_a: FloatTensor<Self>,
        qkv_b: FloatTensor<Self>,
        out: FloatTensor<Self>,
        out_bias: FloatTensor<Self>,
        out_a: FloatTensor<Self>,
        out_b: FloatTensor<Self>,
        gain2: FloatTensor<Self>,
        bias2: FloatTensor<Self>,
        up: FloatTensor<Self>,
        up_bias: FloatTensor<Self>,
        up_a: FloatTensor<Self>,
        up_b: FloatTensor<Self>,
        down: FloatTensor<Self>,
        down_bias: FloatTensor<Self>,
        down_a: FloatTensor<Self>,
        down_b: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        settings: Settings,
    ) -> FloatTensor<Self> {
        let tensors = [
            x, gain, bias, qkv, qkv_bias, qkv_a, qkv_b, out, out_bias, out_a, out_b, gain2, bias2, up, up_bias, up_a,
            up_b, down, down_bias, down_a, down_b,
        ];
        let nodes = tensors.each_ref().map(FloatTensor::<Self>::node);
        let (tensors, mask) = (tensors.map(FloatTensor::<Self>::into_primitive), mask.into_primitive());
        let y = close(Layer::new(tensors.clone(), mask.clone(), settings, NOTHING).forward());
        match LayerBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((tensors, mask, settings), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        }
    }
}

#[derive(Debug)]
struct LayerBackward;

impl Backward<Flex, DIFFERENTIATED> for LayerBackward {
    type State = ([FlexTensor; DIFFERENTIATED], FlexTensor, Settings);

    fn backward(self, ops: Ops<Self::State, DIFFERENTIATED>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let dy = gradients.consume::<Flex>(&ops.node);
        let (tensors, mask, settings) = ops.state;
        let learned = ops.parents.each_ref().map(Option::is_some);
        let found = Layer::new(tensors, mask, settings, learned).gradients(dy);
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(node.id, gradient);
            }
        }
    }
}
