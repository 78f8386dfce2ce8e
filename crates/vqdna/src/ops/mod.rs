//! The operations that networks are made of, each in two forms: a fused CPU kernel with a hand-written backward pass
//! ([`vqdna_kernels`]), and a composition of Burn's own operations for every other device.
//!
//! This file is the only place that chooses between them. Layout of activations: `[batch, bases, channels]`; weights keep
//! PyTorch's layout, `[d_out, d_in]` and `[d_out, d_in / groups, tap]`, in which they are published.

/// Calls the fused form of an operation, or the composed one, as the device asks.
macro_rules! dispatch {
    ($device:expr, $operation:ident($($argument:expr),* $(,)?)) => {{
        #[cfg(feature = "cpu")]
        if is_fused(&$device) {
            return flex::$operation($($argument),*);
        }
        composed::$operation($($argument),*)
    }};
}

mod composed;
#[cfg(feature = "cpu")]
mod flex;
mod key_values;
mod positions;
mod quantize;
#[cfg(feature = "cpu")]
mod recompute;
mod switched;

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::cell::Cell;

pub use key_values::KeyValues;

pub use positions::Positions;
pub use quantize::{Averages, add_codes, average, code_statistics, commitment, nearest, residual, straight_through};
pub use vqdna_kernels::mlp::Activation;

use switched::Switched;

/// A low-rank part of a weight `[d_out, d_in]` (LoRA; Hu et al. 2021): layers multiply with `weight + scale · b · a`, and where the
/// weight itself does not learn its gradient is never formed.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// `[rank, d_in]`, at least one row.
    pub a: Tensor<2>,
    /// `[d_out, rank]`.
    pub b: Tensor<2>,
    /// Factor of their product.
    pub scale: f64,
}

/// Weights of a [`conv_block`].
#[derive(Clone, Debug)]
pub struct ConvBlockWeights {
    /// Depth-wise convolution, `[d, 1, kernel]`, odd kernel.
    pub conv: Tensor<3>,
    /// `[d]`.
    pub conv_bias: Tensor<1>,
    /// Gain of the layer norm, `[d]`.
    pub gain: Tensor<1>,
    /// Bias of the layer norm, `[d]`.
    pub bias: Tensor<1>,
    /// ε of the layer norm.
    pub eps: f64,
    /// `[d_inner, d]`.
    pub up: Tensor<2>,
    /// `[d_inner]`.
    pub up_bias: Tensor<1>,
    /// `[d, d_inner]`.
    pub down: Tensor<2>,
    /// `[d]`.
    pub down_bias: Tensor<1>,
}

/// Weights of an [`attention`].
#[derive(Clone, Debug)]
pub struct AttentionWeights {
    /// Gain of the layer norm, `[d]`.
    pub gain: Tensor<1>,
    /// Bias of the layer norm, `[d]`.
    pub bias: Tensor<1>,
    /// ε of the layer norm.
    pub eps: f64,
    /// Queries, keys and values, one below the other, each with its heads side by side: `[3 d, d]`.
    pub qkv: Tensor<2>,
    /// `[3 d]`.
    pub qkv_bias: Tensor<1>,
    /// Of `qkv`.
    pub qkv_part: Option<LowRank>,
    /// `[d, d]`.
    pub out: Tensor<2>,
    /// `[d]`.
    pub out_bias: Tensor<1>,
    /// Of `out`.
    pub out_part: Option<LowRank>,
    /// Heads, a divisor of `d`.
    pub heads: usize,
    /// How positions enter.
    pub positions: Positions,
    /// Whether a position attends to itself and to earlier ones alone.
    pub causal: bool,
}

/// Weights of an [`mlp`].
#[derive(Clone, Debug)]
pub struct MlpWeights {
    /// Gain of the layer norm, `[d]`.
    pub gain: Tensor<1>,
    /// Bias of the layer norm, `[d]`.
    pub bias: Tensor<1>,
    /// ε of the layer norm.
    pub eps: f64,
    /// `[d_inner, d]`.
    pub up: Tensor<2>,
    /// `[d_inner]`.
    pub up_bias: Tensor<1>,
    /// Of `up`; none beside an activation that joins halves.
    pub up_part: Option<LowRank>,
    /// `[d, d_inner]`, or with an activation that joins halves `[d, d_inner / 2]`.
    pub down: Tensor<2>,
    /// `[d]`.
    pub down_bias: Tensor<1>,
    /// Of `down`.
    pub down_part: Option<LowRank>,
    /// What stands between them.
    pub activation: Activation,
}

/// Heads whose queries and keys are rotated by their places; see [`attend`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotation {
    /// Heads, each of an even width.
    pub heads: usize,
    /// Base of the wavelengths.
    pub theta: f64,
}

/// Weights of one of several [`experts`].
#[derive(Clone, Debug)]
pub struct ExpertWeights {
    /// Values, then their gates, `[2 d, d]`.
    pub pre: Tensor<2>,
    /// Grouped, `[d, d / groups, size]`.
    pub conv: Tensor<3>,
    /// Gain of the layer norm, `[d]`.
    pub gain: Tensor<1>,
    /// Bias of the layer norm, `[d]`.
    pub bias: Tensor<1>,
    /// ε of the layer norm, the same for all experts.
    pub eps: f64,
    /// `[d, d]`.
    pub post: Tensor<2>,
}

/// One step of AdamW; see [`adamw`].
#[derive(Clone, Copy, Debug)]
pub struct AdamwStep {
    /// Learning rate.
    pub rate: f64,
    /// Decays of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The step, counted from 1.
    pub time: u64,
    /// Factor of the gradient, from clipping by global norm.
    pub scale: f64,
}

thread_local! {
    static COMPOSED_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` with Burn's own operations on every device, for tests that compare the two forms.
pub fn with_composed_ops<R>(work: impl FnOnce() -> R) -> R {
    let _before = Switched::to(&COMPOSED_ONLY, true);
    work()
}

/// How the fused kernels compute products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// In single precision.
    #[default]
    F32,
    /// Operands rounded to bf16, sums in f32. Searches of codebooks and statistics stay in f32.
    Bf16,
}

thread_local! {
    static PRECISION: Cell<Precision> = const { Cell::new(Precision::F32) };
    static KEEPS: Cell<bool> = const { Cell::new(true) };
}

/// Runs `work` with products in that precision, and so the backward pass of what it computes. Only the fused CPU kernels know
/// bf16; composed operations stay in f32.
pub fn with_precision<R>(precision: Precision, work: impl FnOnce() -> R) -> R {
    let _before = Switched::to(&PRECISION, precision);
    work()
}

/// Runs `work` so that the backward pass computes wide layers again instead of keeping them: a sixth more work, and a fraction of
/// the memory (gradient checkpointing; Chen et al. 2016).
pub fn with_recomputation<R>(work: impl FnOnce() -> R) -> R {
    let _before = Switched::to(&KEEPS, false);
    work()
}

/// Runs `work`, a step of training, without threads falling asleep between its operations.
pub fn with_awake_threads<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "cpu")]
    return vqdna_kernels::pool::awake(work);
    #[cfg(not(feature = "cpu"))]
    work()
}

/// Runs `work` on models that nobody trains meanwhile: weights are brought into the order in which kernels read them once, and stay
/// so until the end. They take their memory a second time, and weights that are [`joined`] a third time.
pub fn with_frozen_weights<R>(work: impl FnOnce() -> R) -> R {
    #[cfg(feature = "cpu")]
    return flex::with_frozen_weights(work);
    #[cfg(not(feature = "cpu"))]
    work()
}

/// A frozen model that is used again and again between other work: its weights are brought into the order of kernels once, see
/// [`with_frozen_weights`].
#[derive(Default)]
pub struct Frozen {
    #[cfg(feature = "cpu")]
    preparations: flex::Preparations,
}

impl Frozen {
    /// Runs `work` on the model.
    pub fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        #[cfg(feature = "cpu")]
        return self.preparations.run(work);
        #[cfg(not(feature = "cpu"))]
        work()
    }
}

#[cfg(feature = "cpu")]
fn precision() -> vqdna_kernels::product::Precision {
    match PRECISION.get() {
        Precision::F32 => vqdna_kernels::product::Precision::F32,
        Precision::Bf16 => vqdna_kernels::product::Precision::Bf16,
    }
}

/// Whether wide layers are kept for the backward pass.
#[cfg(feature = "cpu")]
fn keeps() -> bool {
    KEEPS.get()
}

/// Whether operations on this device run as fused kernels.
#[must_use]
pub fn is_fused(device: &Device) -> bool {
    is_cpu(device) && !COMPOSED_ONLY.get()
}

fn is_cpu(device: &Device) -> bool {
    #[cfg(feature = "cpu")]
    {
        use burn::backend::DispatchDevice;
        matches!(device.clone().without_autodiff().as_dispatch(), DispatchDevice::Flex(_))
    }
    #[cfg(not(feature = "cpu"))]
    {
        let _ = device;
        false
    }
}

/// SIMD level of the fused kernels, for people.
///
/// # Errors
/// If `VQDNA_SIMD` asks for a level that there is not.
pub fn simd_level() -> Result<&'static str, vqdna_kernels::simd::SimdError> {
    #[cfg(feature = "cpu")]
    {
        use vqdna_kernels::simd::{Level, check_environment};
        Ok(match check_environment()? {
            Level::Avx512 => "AVX-512",
            Level::Avx2 => "AVX2",
            Level::Baseline => "baseline of the target",
        })
    }
    #[cfg(not(feature = "cpu"))]
    Ok("no CPU kernels in this build")
}

/// `x · weightᵀ + bias`.
///
/// # Shapes
/// - `x`: `[batch, bases, d_in]`; `weight`: `[d_out, d_in]`; `bias`: `[d_out]`
/// - output: `[batch, bases, d_out]`
pub fn linear(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    dispatch!(x.device(), linear(x, weight, bias))
}

/// Weights of layers without biases that read the same rows, one below the other, and zeros in place of a bias. Of a
/// [frozen](with_frozen_weights) model they are joined once.
///
/// # Shapes
/// - `weights`: `[d_out, d_in]` each, at least one
/// - output: `[sum of d_out, d_in]` and `[sum of d_out]`
pub fn joined(weights: Vec<Tensor<2>>) -> (Tensor<2>, Tensor<1>) {
    #[cfg(feature = "cpu")]
    if is_fused(&weights[0].device()) {
        return flex::joined(weights);
    }
    join(weights)
}

fn join(weights: Vec<Tensor<2>>) -> (Tensor<2>, Tensor<1>) {
    let joined = if weights.len() == 1 { weights[0].clone() } else { Tensor::cat(weights, 0) };
    let zeros = Tensor::zeros([joined.dims()[0]], &joined.device());
    (joined, zeros)
}

/// `gelu(x · weightᵀ + bias)`, with the exact GELU.
///
/// # Shapes
/// - `x`: `[batch, bases, d_in]`; `weight`: `[d_out, d_in]`; `bias`: `[d_out]`
/// - output: `[batch, bases, d_out]`
pub fn linear_gelu(x: Tensor<3>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<3> {
    dispatch!(x.device(), linear_gelu(x, weight, bias))
}

/// Layer norm over the last axis.
///
/// # Shapes
/// - `x`, output: `[batch, bases, d]`; `gain`, `bias`: `[d]`
pub fn layer_norm(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    dispatch!(x.device(), layer_norm(x, gain, bias, eps))
}

/// `gelu(layer_norm(x))` over the last axis, with the exact GELU.
///
/// # Shapes
/// - `x`, output: `[batch, bases, d]`; `gain`, `bias`: `[d]`
pub fn norm_gelu(x: Tensor<3>, gain: Tensor<1>, bias: Tensor<1>, eps: f64) -> Tensor<3> {
    dispatch!(x.device(), norm_gelu(x, gain, bias, eps))
}

/// `x + down(gelu(up(layer_norm(conv(x · mask)))))`, the ConvNeXt block in one dimension.
///
/// # Shapes
/// - `x`, output: `[batch, bases, d]`
/// - `mask`: `[batch, bases]`, 1 for a real base and 0 for padding; not differentiated
pub fn conv_block(x: Tensor<3>, mask: Tensor<2>, weights: ConvBlockWeights) -> Tensor<3> {
    dispatch!(x.device(), conv_block(x, mask, weights))
}

/// `x + out(attention(qkv(layer_norm(x))))`: every position attends to every real one, on both sides unless attention is causal, by
/// scores scaled by 1/√`d_head`.
///
/// What comes out at padding is finite and means nothing, also where a whole sequence is padding.
///
/// # Shapes
/// - `x`, output: `[batch, bases, d]`
/// - `mask`: `[batch, bases]`, 1 for a real base and 0 for padding; not differentiated
pub fn attention(x: Tensor<3>, mask: Tensor<2>, weights: AttentionWeights) -> Tensor<3> {
    dispatch!(x.device(), attention(x, mask, None, weights))
}

/// [`attention`] of rows that stand at `places` rather than at 0, 1, 2 and so on; with rotary positions.
///
/// # Shapes
/// - `x`, output: `[batch, rows, d]`; `mask`: `[batch, rows]`
/// - `places`: `[batch, rows]`, 0 or more; not differentiated
pub fn attention_at(x: Tensor<3>, mask: Tensor<2>, places: Tensor<2, Int>, weights: AttentionWeights) -> Tensor<3> {
    dispatch!(x.device(), attention(x, mask, Some(places), weights))
}

/// `x + down(activation(up(layer_norm(x))))`.
///
/// # Shapes
/// - `x`, output: `[batch, bases, d]`
pub fn mlp(x: Tensor<3>, weights: MlpWeights) -> Tensor<3> {
    dispatch!(x.device(), mlp(x, weights))
}

/// [`attention`], then [`mlp`].
///
/// With `recompute` nothing but `x` is kept for the backward pass, which computes the layer a second time. On the CPU only;
/// elsewhere everything is kept.
///
/// # Shapes
/// - `x`, output: `[batch, bases, d]`; `mask`: `[batch, bases]`
pub fn transformer_layer(
    x: Tensor<3>,
    mask: Tensor<2>,
    attention_weights: AttentionWeights,
    mlp_weights: MlpWeights,
    recompute: bool,
) -> Tensor<3> {
    #[cfg(feature = "cpu")]
    if recompute && is_cpu(&x.device()) {
        return recompute::transformer_layer(x, mask, attention_weights, mlp_weights);
    }
    let _ = recompute;
    mlp(attention(x, mask, attention_weights), mlp_weights)
}

/// `weight + scale · b · a`, what layers with a low-rank part multiply with, in the same bits; without autodiff.
///
/// # Shapes
/// - `weight`, output: `[d_out, d_in]`
pub fn merged(weight: Tensor<2>, part: LowRank) -> Tensor<2> {
    let part = LowRank { a: part.a.inner(), b: part.b.inner(), ..part };
    dispatch!(weight.device(), merged(weight.inner(), part))
}

/// Mean cross-entropy in nats of the classifier `h · weightᵀ + bias`; 0 if there is no row.
///
/// # Shapes
/// - `h`: `[rows, d]`; `weight`: `[classes, d]`; `bias`: `[classes]`; `target`: `[rows]`, below `classes`
/// - output: `[1]`
pub fn cross_entropy(h: Tensor<2>, weight: Tensor<2>, bias: Tensor<1>, target: Tensor<1, Int>) -> Tensor<1> {
    dispatch!(h.device(), cross_entropy(h, weight, bias, target))
}

/// Convolution of one-hot bases; ids of 4 and more (N and padding) are all-zero.
///
/// # Shapes
/// - `bases`: `[batch, bases]`; `weight`: `[d, 4, kernel]`, odd kernel; `bias`: `[d]`
/// - output: `[batch, bases, d]`
pub fn stem(bases: Tensor<2, Int>, weight: Tensor<3>, bias: Tensor<1>) -> Tensor<3> {
    dispatch!(bias.device(), stem(bases, weight, bias))
}

/// A vector for each unit of rows: `post(silu(layer_norm(conv(glu(pre(rows))))))`, where `glu` is `a · sigmoid(b)` of the halves of a row
/// and the convolution covers a unit exactly. Experts without units get no gradient.
///
/// # Shapes
/// - `x`: `[rows, d]`
/// - `covered`: for each expert the rows that its units cover, one unit of `size` rows after another; none twice
/// - output: `[units, d]`, those of the first expert first; `[0, d]` without units
///
/// # Panics
/// If there are not as many lists of rows as experts.
#[must_use]
pub fn experts(x: Tensor<2>, experts: Vec<ExpertWeights>, covered: &[Vec<u32>]) -> Tensor<2> {
    assert_eq!(experts.len(), covered.len(), "rows of each expert");
    if covered.iter().all(Vec::is_empty) {
        return Tensor::zeros([0, x.dims()[1]], &x.device());
    }
    dispatch!(x.device(), experts(x, experts, covered))
}

/// Attention of some rows of a sequence to others, wherever they stand: `softmax(q · kᵀ / √d_head) · v` for each head, with queries and
/// keys rotated by their places. Rows that do not attend are 0.
///
/// # Shapes
/// - `qkv`: `[batch, rows, 3 d]`, queries, keys and values of a row, each with its heads side by side
/// - `queries`, `keys`: `[batch, rows]`, 1 for a row that attends, or is attended to, else 0; `places`: `[batch, rows]`, 0 or more
/// - output: `[batch, rows, d]`
pub fn attend(
    qkv: Tensor<3>,
    queries: Tensor<2>,
    keys: Tensor<2>,
    places: Tensor<2, Int>,
    rotation: Rotation,
) -> Tensor<3> {
    dispatch!(qkv.device(), attend(qkv, queries, keys, places, rotation))
}

/// Rows at fractional places, between which they are interpolated, each times a factor; rows beyond a sequence are 0. Tap k of
/// position t reads at `t - taps / 2 + k + offset`. The gradient of an offset at a whole place is the one to the right.
///
/// # Shapes
/// - `x`: `[batch, positions, d]`; `offsets`, `factors`: `[batch, positions, taps]`
/// - output: `[batch, positions, taps · d]`, tap by tap
pub fn sample(x: Tensor<3>, offsets: Tensor<3>, factors: Tensor<3>) -> Tensor<3> {
    dispatch!(x.device(), sample(x, offsets, factors))
}

/// Sum of squares, without autodiff.
///
/// # Shapes
/// - `x`: `[elements]`; output: `[1]`
pub fn sum_of_squares(x: Tensor<1>) -> Tensor<1> {
    dispatch!(x.device(), sum_of_squares(x))
}

/// A parameter and its two moments after one step of AdamW (Loshchilov and Hutter 2019); all four without autodiff.
pub fn adamw<const D: usize>(
    parameter: Tensor<D>,
    gradient: Tensor<D>,
    moments: [Tensor<D>; 2],
    step: AdamwStep,
) -> (Tensor<D>, [Tensor<D>; 2]) {
    dispatch!(parameter.device(), adamw(parameter, gradient, moments, step))
}
