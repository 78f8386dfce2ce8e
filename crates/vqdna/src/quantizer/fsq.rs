//! Finite scalar quantization (Mentzer et al. 2024): a few bounded channels, each rounded to a few values; no codebook, so
//! nothing that could collapse. The control in every comparison of codebooks.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use super::Quantized;
use crate::layers::Linear;
use crate::seed::Stream;

/// Numbers of values per channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FsqConfig {
    /// Values of each channel; their product is the number of codes. The paper suggests `[8, 8, 8]` for 512 codes.
    pub levels: Vec<usize>,
}

impl Default for FsqConfig {
    fn default() -> Self {
        Self { levels: vec![8, 8, 8] }
    }
}

/// Projection to the channels, rounding, projection back.
#[derive(Module, Debug)]
pub struct Fsq {
    /// `d_code` to channels.
    pub narrow: Linear,
    /// Channels to `d_code`.
    pub widen: Linear,
    levels: Vec<usize>,
}

impl Fsq {
    /// Fresh projections.
    #[must_use]
    pub fn new(config: &FsqConfig, d_code: usize, random: &mut Stream, device: &Device) -> Self {
        let channels = config.levels.len();
        Self {
            narrow: Linear::new(d_code, channels, random, device),
            widen: Linear::new(channels, d_code, random, device),
            levels: config.levels.clone(),
        }
    }

    /// See [`super::Quantizer::forward`].
    pub(super) fn forward(&self, taps: &[Tensor<3>], mask: &Tensor<2>) -> Quantized {
        assert_eq!(taps.len(), 1, "this quantizer reads one tap");
        let bounded = bound(self.narrow.forward(taps[0].clone()), &self.levels);
        let rounded = bounded.clone().inner().round();
        let digits = bounded.clone() + (rounded.clone() - bounded.detach());
        let output = self.widen.forward(scale(digits, &self.levels));
        Quantized {
            codes: vec![index(rounded, &self.levels)],
            means: vec![output.clone().inner()],
            searched: Vec::new(),
            commitment: Tensor::zeros([1], &mask.device()),
            output,
        }
    }

    /// See [`super::Quantizer::encode`].
    pub(super) fn encode(&self, taps: &[Tensor<3>]) -> Vec<Tensor<2, Int>> {
        let bounded = bound(self.narrow.forward(taps[0].clone()), &self.levels);
        vec![index(bounded.inner().round(), &self.levels)]
    }

    /// See [`super::Quantizer::decode`].
    pub(super) fn decode(&self, codes: &[Tensor<2, Int>]) -> Tensor<3> {
        assert_eq!(codes.len(), 1, "one code a position");
        let mut rest = codes[0].clone();
        let mut digits = Vec::new();
        for &values in &self.levels {
            digits.push(
                rest.clone().remainder_scalar(values as i32).float().sub_scalar((values / 2) as f64).unsqueeze_dim(2),
            );
            rest = rest.div_scalar(values as i32);
        }
        self.widen.forward(scale(Tensor::cat(digits, 2), &self.levels))
    }
}

/// One number a channel, as a `[1, 1, channels]` tensor.
fn per_channel(levels: &[usize], device: &Device, f: impl Fn(f64) -> f64) -> Tensor<3> {
    let values: Vec<f32> = levels.iter().map(|&values| f(values as f64) as f32).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, levels.len()]), device)
}

/// `tanh(z + s) · h − o`, so that rounding gives exactly as many values as the channel has.
fn bound(z: Tensor<3>, levels: &[usize]) -> Tensor<3> {
    let half = |values: f64| (values - 1.0) * (1.0 + 1e-3) / 2.0;
    let offset = |values: f64| if values % 2.0 == 0.0 { 0.5 } else { 0.0 };
    let device = z.device();
    let shift = per_channel(levels, &device, |v| (offset(v) / half(v)).atanh());
    (z + shift).tanh() * per_channel(levels, &device, half) - per_channel(levels, &device, offset)
}

/// Rounded digits to −1..1.
fn scale(digits: Tensor<3>, levels: &[usize]) -> Tensor<3> {
    let halves = per_channel(levels, &digits.device(), |values| (values / 2.0).floor());
    digits / halves
}

/// `Σ_i (r_i + ⌊L_i/2⌋) · Π_{j<i} L_j`.
fn index(rounded: Tensor<3>, levels: &[usize]) -> Tensor<2, Int> {
    let halves = per_channel(levels, &rounded.device(), |values| (values / 2.0).floor());
    let places: Vec<f32> = (0..levels.len()).map(|i| levels[..i].iter().product::<usize>() as f32).collect();
    let places = Tensor::from_data(TensorData::new(places, [1, 1, levels.len()]), &rounded.device());
    ((rounded + halves) * places).sum_dim(2).squeeze_dim::<2>(2).round().int()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::to_array;

    /// T10 of `docs/vectors.md`.
    #[test]
    fn four_channels_of_a_thousand_codes() {
        let levels = [8, 5, 5, 5];
        let z = Tensor::from_data(TensorData::new(vec![0.3f32, -0.7, 1.2, 0.05], [1, 1, 4]), &Device::flex());
        let bounded = bound(z, &levels);
        let want = [0.959_918, -1.209_944, 1.668_977, 0.100_017];
        for (got, want) in to_array(bounded.clone()).values.iter().zip(want) {
            assert!((got - want).abs() < 1e-5, "{got}, not {want}");
        }
        let rounded = bounded.round();
        assert_eq!(to_array(scale(rounded.clone(), &levels)).values, [0.25, -0.5, 1.0, 0.0]);
        assert_eq!(to_array(index(rounded, &levels).float()).values, [573.0]);
    }
}
