//! A convolution that finds by itself where along the sequence it reads (Dai et al. 2017; modulation: Zhu et al. 2019), in one
//! dimension.

use burn::module::Param;
use burn::prelude::*;

use super::unbiased;
use crate::ops;
use crate::seed::Stream;
use crate::weights::normal;

/// A convolution without bias whose taps have places and strengths of their own at every position, the same for all channels.
#[derive(Module, Debug)]
pub struct DeformableConv {
    /// `[d_out, d_in, taps]`.
    pub weight: Param<Tensor<3>>,
}

impl DeformableConv {
    /// `d` channels in and out, drawn from a normal distribution around 0.
    #[must_use]
    pub fn new(d: usize, taps: usize, deviation: f64, random: &mut Stream, device: &Device) -> Self {
        Self { weight: normal([d, d, taps], deviation, random, device) }
    }

    /// Tap k of position t reads at `t - taps / 2 + k + offset`, linearly between neighbours, 0 beyond the sequence, times a factor. The
    /// gradient of an offset at a whole place is the one to the right.
    ///
    /// # Shapes
    /// - `x`: `[batch, positions, d_in]`; `offsets`, in positions, and `factors`: `[batch, positions, taps]`
    /// - output: `[batch, positions, d_out]`
    pub fn forward(&self, x: Tensor<3>, offsets: Tensor<3>, factors: Tensor<3>) -> Tensor<3> {
        let [d_out, d_in, taps] = self.weight.dims();
        let weight = self.weight.val().swap_dims(1, 2).reshape([d_out, taps * d_in]);
        unbiased(ops::sample(x, offsets, factors), weight)
    }
}
