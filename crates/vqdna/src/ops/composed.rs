//! The operations out of Burn's own, for any device and for comparison.

use super::{
    Activation, AdamwStep, AttentionWeights, Averages, ConvBlockWeights, ExpertWeights, LowRank, MlpWeights, Positions,
    Rotation,
};
use burn::prelude::*;
use burn::tensor::activation::{gelu, log_softmax, sigmoid, silu, softmax};
use burn::tensor::module::conv1d;
use burn::tensor::ops::ConvOptions;
use vqdna_kernels::attention::{alibi_slopes, rotary_table};

pub(super) fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    let [batch, bases, d_in] = x.dims();
    let d_out = bias.dims()[0];
    let y = x.reshape([batch * bases, d_in]).matmul(weight.transpose()) + bias.unsqueeze();
    y.reshape([batch, bases, d_out])
}

/// [`linear`] with a low-rank part: two thin products beside that of the weight, so that autodiff forms no gradient of the whole.
fn adapted(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>, part: Option<LowRank>) -> Tensor<3> {
    let [batch, bases, d_in] = x.dims();
    let y = linear(x.clone(), weight, bias);
    let Some(LowRank { a, b, scale }) = part else { return y };
    let narrow = x.reshape([batch * bases, d_in]).matmul(a.transpose()).mul_scalar(scale);
    let shape = y.dims();
    y + narrow.matmul(b.transpose()).reshape(shape)
}

pub(super) fn merged(weight: Tensor<2>, part: LowRank) -> Tensor<2> {
    weight + part.b.matmul(part.a.mul_scalar(part.scale))
}

pub(super) fn linear_gelu(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    gelu(linear(x, weight, bias))
}

pub(super) fn norm_gelu(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    gelu(layer_norm(x, gain, bias, eps))
}

pub(super) fn layer_norm(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    centred / variance.add_scalar(eps).sqrt() * gain.unsqueeze() + bias.unsqueeze()
}

/// Added to the scores of padding. Finite, so that a sequence of nothing but padding has a softmax; far below any score, so
/// that beside a real position its weight is exactly 0.
const PADDING_SCORE: f64 = -1e9;

pub(super) fn attention(
    x: Tensor<3>,
    mask: Tensor<2>,
    places: Option<Tensor<2, Int>>,
    w: AttentionWeights,
) -> Tensor<3> {
    let [batch, bases, d] = x.dims();
    let (heads, d_head, device) = (w.heads, d / w.heads, x.device());
    let qkv = adapted(layer_norm(x.clone(), w.gain, w.bias, w.eps), w.qkv, w.qkv_bias, w.qkv_part);
    let qkv = qkv.reshape([batch, bases, 3, heads, d_head]).permute([2, 0, 3, 1, 4]);
    let part = |part: usize| qkv.clone().narrow(0, part, 1).squeeze_dim::<4>(0); // [batch, heads, bases, d_head]
    let (mut q, mut k, v) = (part(0), part(1), part(2));
    let mut bias = mask.sub_scalar(1.0).mul_scalar(-PADDING_SCORE).reshape([batch, 1, 1, bases]);
    match w.positions {
        Positions::Rotary { theta } => {
            let [cos, sin] = if let Some(places) = places {
                turns(places, theta, d_head / 2)
            } else {
                let table = TensorData::new(rotary_table(theta as f32, bases, d_head / 2), [1, 1, bases, d_head]);
                let table = Tensor::<4>::from_data(table, &device);
                [table.clone().narrow(3, 0, d_head / 2), table.narrow(3, d_head / 2, d_head / 2)]
            };
            (q, k) = (rotate(q, cos.clone(), sin.clone()), rotate(k, cos, sin));
        }
        Positions::Alibi => {
            let slopes = Tensor::<4>::from_data(TensorData::new(alibi_slopes(heads), [1, heads, 1, 1]), &device);
            bias = bias - slopes * distances(bases, &device);
        }
    }
    if w.causal {
        bias = bias + Tensor::<2>::full([bases, bases], PADDING_SCORE, &device).triu(1).unsqueeze_dims(&[0, 1]);
    }
    let scores = q.mul_scalar(1.0 / (d_head as f64).sqrt()).matmul(k.transpose()) + bias;
    let y = softmax(scores, 3).matmul(v).swap_dims(1, 2).reshape([batch, bases, d]);
    x + adapted(y, w.out, w.out_bias, w.out_part)
}

/// Turns the pairs (i, i + `d_head`/2) of `[batch, heads, bases, d_head]`.
fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let half = x.dims()[3] / 2;
    let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
    let turned = a.clone() * cos.clone() - b.clone() * sin.clone();
    Tensor::cat(vec![turned, b * cos + a * sin], 3)
}

/// Cosines and sines of the angles of rows at `places [batch, rows]`, `[batch, 1, rows, half]` each.
fn turns(places: Tensor<2, Int>, theta: f64, half: usize) -> [Tensor<4>; 2] {
    let speed = |pair: usize| theta.powf(-(pair as f64) / half as f64) as f32;
    let speeds: Vec<f32> = (0..half).map(speed).collect();
    let speeds = Tensor::<4>::from_data(TensorData::new(speeds, [1, 1, 1, half]), &places.device());
    let angles = places.float().unsqueeze_dims::<4>(&[1, 3]) * speeds;
    [angles.clone().cos(), angles.sin()]
}

/// |i − j|, `[1, 1, bases, bases]`.
fn distances(bases: usize, device: &Device) -> Tensor<4> {
    let place = Tensor::<1, Int>::arange(0..bases as i64, device).float();
    (place.clone().reshape([1, 1, bases, 1]) - place.reshape([1, 1, 1, bases])).abs()
}

pub(super) fn mlp(x: Tensor<3>, w: MlpWeights) -> Tensor<3> {
    let inner = adapted(layer_norm(x.clone(), w.gain, w.bias, w.eps), w.up, w.up_bias, w.up_part);
    let inner = match w.activation {
        Activation::Gelu => gelu(inner),
        Activation::SwiGlu => {
            let [gates, values] = halves(inner);
            silu(gates) * values
        }
        Activation::GeGlu => {
            let [gates, values] = halves(inner);
            gelu(gates) * values
        }
    };
    x + adapted(inner, w.down, w.down_bias, w.down_part)
}

pub(super) fn experts(x: Tensor<2>, experts: Vec<ExpertWeights>, covered: &[Vec<u32>]) -> Tensor<2> {
    let device = x.device();
    let used = experts.into_iter().zip(covered).filter(|(_, covered)| !covered.is_empty());
    let vectors = used.map(|(w, covered)| {
        let [d, _, size] = w.conv.dims();
        let numbers = covered.iter().map(|&row| row as i32).collect::<Vec<_>>();
        let rows = x.clone().select(0, Tensor::from_data(TensorData::new(numbers, [covered.len()]), &device));
        let [values, open] = halves(rows.matmul(w.pre.transpose()));
        let inner = values * sigmoid(open);
        let convolved = convolve(inner.reshape([covered.len() / size, size, d]), w.conv);
        let normed = layer_norm(convolved.unsqueeze(), w.gain, w.bias, w.eps).squeeze_dim::<2>(0);
        silu(normed).matmul(w.post.transpose())
    });
    Tensor::cat(vectors.collect(), 0)
}

/// A grouped convolution as long as a unit, one product for each group: `[units, size, d]` to `[units, d]`.
fn convolve(x: Tensor<3>, weight: Tensor<3>) -> Tensor<2> {
    let ([units, size, d], [_, inside, _]) = (x.dims(), weight.dims());
    let groups = d / inside;
    let x = x.reshape([units, size, groups, inside]).permute([2, 0, 1, 3]).reshape([groups, units, size * inside]);
    let weight = weight.reshape([groups, inside, inside, size]).permute([0, 3, 2, 1]);
    let weight = weight.reshape([groups, size * inside, inside]);
    x.matmul(weight).permute([1, 0, 2]).reshape([units, d])
}

pub(super) fn cross_entropy(h: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, target: Tensor<1, Int>) -> Tensor<1> {
    if h.dims()[0] == 0 {
        // Zero, but in the graph: a backward pass from a tensor outside it is refused.
        return bias.sum().mul_scalar(0.0);
    }
    let log_p = log_softmax(h.matmul(weight.transpose()) + bias.unsqueeze(), 1);
    log_p.gather(1, target.unsqueeze_dim(1)).mean().neg()
}

pub(super) fn conv_block(x: Tensor<3>, mask: Tensor<2>, w: ConvBlockWeights) -> Tensor<3> {
    let [d, _, kernel] = w.conv.dims();
    let seen = (x.clone() * mask.unsqueeze_dim(2)).swap_dims(1, 2);
    let y = conv1d(seen, w.conv, Some(w.conv_bias), same_size(kernel, d)).swap_dims(1, 2);
    let inner = linear_gelu(layer_norm(y, w.gain, w.bias, w.eps), w.up, w.up_bias);
    x + linear(inner, w.down, w.down_bias)
}

fn same_size(kernel: usize, groups: usize) -> ConvOptions<1> {
    ConvOptions::new([1], [kernel / 2], [1], groups)
}

pub(super) fn stem(bases: Tensor<2, Int>, weight: Tensor<3>, bias: Tensor<1>) -> Tensor<3> {
    let [batch, length] = bases.dims();
    let kernel = weight.dims()[2];
    let one_hot = bases.clamp_max(4).one_hot::<3>(5).float().slice([0..batch, 0..length, 0..4]);
    conv1d(one_hot.swap_dims(1, 2), weight, Some(bias), same_size(kernel, 1)).swap_dims(1, 2)
}

pub(super) fn nearest(h: Tensor<2>, codes: Tensor<2>) -> Tensor<1, Int> {
    let norms = codes.clone().square().sum_dim(1).transpose();
    (norms - h.matmul(codes.transpose()).mul_scalar(2.0)).argmin(1).squeeze_dim(1)
}

pub(super) fn residual(
    tap: Tensor<2>,
    scale: f64,
    sum: Option<Tensor<2>>,
    codes: Tensor<2>,
    index: Tensor<1, Int>,
) -> Tensor<2> {
    let last = codes.select(0, index);
    let sum = match sum {
        Some(sum) => sum + last,
        None => last,
    };
    tap.mul_scalar(scale) - sum
}

pub(super) fn add_codes(
    sum: Option<Tensor<2>>,
    codes: Tensor<2>,
    index: Tensor<1, Int>,
    mask: Tensor<1>,
    levels: f64,
) -> (Tensor<2>, Tensor<2>) {
    let last = codes.select(0, index);
    let sum = match sum {
        Some(sum) => sum + last,
        None => last,
    };
    (sum.clone(), sum.div_scalar(levels) * mask.unsqueeze_dim(1))
}

pub(super) fn straight_through(z: Tensor<3>, mean: Tensor<3>, mask: Tensor<2>) -> Tensor<3> {
    (z.clone() + (mean - z.detach())) * mask.unsqueeze_dim(2)
}

pub(super) fn commitment(z: Tensor<3>, mean: Tensor<3>, mask: Tensor<2>) -> Tensor<1> {
    let numbers = mask.clone().sum().clamp_min(1.0).mul_scalar(z.dims()[2] as f64);
    ((z - mean).square() * mask.unsqueeze_dim(2)).sum() / numbers
}

pub(super) fn average(old: Averages, new: Averages, decay: f64, smoothing: f64) -> (Tensor<2>, Averages) {
    let take = 1.0 - decay;
    let counts = old.counts.mul_scalar(decay) + new.counts.mul_scalar(take);
    let sums = old.sums.mul_scalar(decay) + new.sums.mul_scalar(take);
    let size = counts.dims()[0] as f64;
    let total = counts.clone().sum();
    let smoothed = counts.clone().add_scalar(smoothing) / total.clone().add_scalar(size * smoothing) * total;
    (sums.clone() / smoothed.unsqueeze_dim(1), Averages { counts, sums })
}

pub(super) fn code_statistics(
    h: Tensor<2>,
    index: Tensor<1, Int>,
    weight: Tensor<1>,
    codebook_size: usize,
) -> (Tensor<1>, Tensor<2>) {
    let chosen = index.one_hot::<2>(codebook_size).float() * weight.unsqueeze_dim(1);
    (chosen.clone().sum_dim(0).squeeze_dim(0), chosen.transpose().matmul(h))
}

pub(super) fn sum_of_squares(x: Tensor<1>) -> Tensor<1> {
    x.square().sum()
}

pub(super) fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    [first, second]: [Tensor<D>; 2],
    step: AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    let (beta1, beta2) = step.betas;
    let correction = |beta: f64| 1.0 - beta.powf(step.time as f64);
    let gradient = gradient.mul_scalar(step.scale);
    let first = first.mul_scalar(beta1) + gradient.clone().mul_scalar(1.0 - beta1);
    let second = second.mul_scalar(beta2) + gradient.square().mul_scalar(1.0 - beta2);
    let root = second.clone().div_scalar(correction(beta2)).sqrt().add_scalar(step.eps);
    let change = first.clone().mul_scalar(step.rate / correction(beta1)) / root;
    (parameter.mul_scalar(1.0 - step.rate * step.weight_decay) - change, [first, second])
}

pub(super) fn sample(x: Tensor<3>, offsets: Tensor<3>, factors: Tensor<3>) -> Tensor<3> {
    let ([batch, positions, d], [_, _, taps], device) = (x.dims(), offsets.dims(), x.device());
    // Whole and fractional part apart, or far along a sequence nothing would be left of the latter.
    let whole = offsets.clone().detach().floor();
    let share = offsets - whole.clone();
    let whole = whole.clamp(-(positions as f64) - taps as f64, (positions + taps) as f64).int();
    let along = Tensor::<1, Int>::arange(0..positions as i64, &device).reshape([1, positions, 1]);
    let tap = Tensor::<1, Int>::arange(0..taps as i64, &device).sub_scalar((taps / 2) as i64).reshape([1, 1, taps]);
    let left = whole + along + tap;
    let read = |place: Tensor<3, Int>| {
        let real = place.clone().greater_equal_elem(0).bool_and(place.clone().lower_elem(positions as i64));
        let place = place.clamp(0, positions as i64 - 1).reshape([batch, positions * taps, 1]);
        let rows = x.clone().gather(1, place.expand([batch, positions * taps, d]));
        rows.reshape([batch, positions, taps, d]) * real.float().unsqueeze_dim(3)
    };
    let share = share.unsqueeze_dim(3);
    let between = read(left.clone()) * (share.clone().neg() + 1.0) + read(left + 1) * share;
    (between * factors.unsqueeze_dim(3)).reshape([batch, positions, taps * d])
}

/// The two halves of the last axis.
fn halves<const D: usize>(x: Tensor<D>) -> [Tensor<D>; 2] {
    let half = x.dims()[D - 1] / 2;
    [x.clone().narrow(D - 1, 0, half), x.narrow(D - 1, half, half)]
}

pub(super) fn attend(
    qkv: Tensor<3>,
    queries: Tensor<2>,
    keys: Tensor<2>,
    places: Tensor<2, Int>,
    rotation: Rotation,
) -> Tensor<3> {
    let ([batch, rows, width], heads) = (qkv.dims(), rotation.heads);
    let (d, half) = (width / 3, width / 3 / heads / 2);
    let qkv = qkv.reshape([batch, rows, 3, heads, 2 * half]).permute([2, 0, 3, 1, 4]);
    let part = |part: usize| qkv.clone().narrow(0, part, 1).squeeze_dim::<4>(0); // [batch, heads, rows, d_head]
    let [cos, sin] = turns(places, rotation.theta, half);
    let (q, k) = (rotate(part(0), cos.clone(), sin.clone()), rotate(part(1), cos, sin));
    let bias = keys.sub_scalar(1.0).mul_scalar(-PADDING_SCORE).reshape([batch, 1, 1, rows]);
    let scores = q.mul_scalar(1.0 / ((2 * half) as f64).sqrt()).matmul(k.transpose()) + bias;
    let y = softmax(scores, 3).matmul(part(2)).swap_dims(1, 2).reshape([batch, rows, d]);
    y * queries.unsqueeze_dim(2)
}
