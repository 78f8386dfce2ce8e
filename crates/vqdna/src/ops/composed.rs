//! The operations out of Burn's own, for any device and for comparison.

use super::{AdamwStep, ConvBlockWeights};
use burn::prelude::*;
use burn::tensor::activation::gelu;
use burn::tensor::module::conv1d;
use burn::tensor::ops::ConvOptions;

pub(super) fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    let [batch, bases, d_in] = x.dims();
    let d_out = bias.dims()[0];
    let y = x.reshape([batch * bases, d_in]).matmul(weight.transpose()) + bias.unsqueeze();
    y.reshape([batch, bases, d_out])
}

pub(super) fn norm_gelu(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    gelu(layer_norm(x, gain, bias, eps))
}

fn layer_norm(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    let centred = x.clone() - x.mean_dim(2);
    let variance = centred.clone().square().mean_dim(2);
    centred / variance.add_scalar(eps).sqrt() * gain.unsqueeze() + bias.unsqueeze()
}

pub(super) fn conv_block(x: Tensor<3>, mask: Tensor<2>, w: ConvBlockWeights) -> Tensor<3> {
    let [d, _, kernel] = w.conv.dims();
    let seen = (x.clone() * mask.unsqueeze_dim(2)).swap_dims(1, 2);
    let y = conv1d(seen, w.conv, Some(w.conv_bias), same_size(kernel, d)).swap_dims(1, 2);
    let inner = gelu(linear(layer_norm(y, w.gain, w.bias, w.eps), w.up, w.up_bias));
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

pub(super) fn code_statistics(
    h: Tensor<2>,
    index: Tensor<1, Int>,
    weight: Tensor<1>,
    codebook_size: usize,
) -> (Tensor<1>, Tensor<2>) {
    let chosen = index.one_hot::<2>(codebook_size).float() * weight.unsqueeze_dim(1);
    (chosen.clone().sum_dim(0).squeeze_dim(0), chosen.transpose().matmul(h))
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
