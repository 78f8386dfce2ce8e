//! A convolution expert: the bases of a unit to one vector.

use burn::module::Param;
use burn::prelude::*;

use super::DEVIATION;
use crate::layers::{LayerNorm, Projection};
use crate::ops::ExpertWeights;
use crate::seed::Stream;
use crate::weights::normal;

/// An expert for units of one size: `post(silu(norm(conv(glu(pre(x))))))`. Its convolution covers a unit exactly, and so is a product.
#[derive(Module, Debug)]
pub struct Expert {
    /// `d` to `2 d`: values, and their gates.
    pub pre: Projection,
    /// Grouped, without bias: `[d, d / groups, size]`.
    pub conv: Convolution,
    /// Norm before the activation.
    pub norm: LayerNorm,
    /// `d` to `d`.
    pub post: Projection,
}

/// Weight of a grouped convolution.
#[derive(Module, Debug)]
pub struct Convolution {
    /// `[d_out, d_in / groups, taps]`.
    pub weight: Param<Tensor<3>>,
}

/// The number of groups of an expert's convolution: the divisor of `d` that is nearest to `size`. Divisors are visited as 1, d, 2, d/2,
/// and so on, and of two that are as near the first counts.
#[must_use]
pub fn groups(d: usize, size: usize) -> usize {
    let pairs = (1..=d.isqrt()).filter(|small| d.is_multiple_of(*small)).flat_map(|small| [small, d / small]);
    pairs.min_by_key(|divisor| divisor.abs_diff(size)).unwrap_or(1)
}

impl Expert {
    /// A fresh expert for units of `size`.
    #[must_use]
    pub fn new(d: usize, size: usize, norm_eps: f64, random: &mut Stream, device: &Device) -> Self {
        Self {
            pre: Projection::new(d, 2 * d, DEVIATION, random, device),
            conv: Convolution { weight: normal([d, d / groups(d, size), size], DEVIATION, random, device) },
            norm: LayerNorm::new(d, norm_eps, device),
            post: Projection::new(d, d, DEVIATION, random, device),
        }
    }

    /// Its weights for [`ops::experts`](crate::ops::experts).
    pub(super) fn weights(&self) -> ExpertWeights {
        ExpertWeights {
            pre: self.pre.weight.val(),
            conv: self.conv.weight.val(),
            gain: self.norm.weight.val(),
            bias: self.norm.bias.val(),
            eps: self.norm.eps,
            post: self.post.weight.val(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::groups;

    /// Vector T7 of the project's specification of MxDNA.
    #[test]
    fn groups_are_the_nearest_divisors() {
        let of = |d| (1..=10).map(|size| groups(d, size)).collect::<Vec<_>>();
        assert_eq!(of(512), [1, 2, 2, 4, 4, 4, 8, 8, 8, 8]);
        assert_eq!(of(768), [1, 2, 3, 4, 4, 6, 6, 8, 8, 8]);
        assert_eq!(of(48), [1, 2, 3, 4, 4, 6, 6, 8, 8, 12]);
        assert_eq!((groups(40, 9), groups(24, 7), groups(24, 10), groups(8, 6), groups(16, 6)), (10, 8, 12, 8, 8));
    }
}
