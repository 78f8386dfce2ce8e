//! The two linear layers inside a block, `down(activation(up(y)))`, tile by tile: of the wide layer between them only a strip exists.
//!
//! Where the activation joins two halves of the wide layer, each strip holds columns of both, so that it needs no other strip.
//!
//! [`conv_block`](crate::conv_block) and [`mlp_block`](crate::mlp_block) are this with what stands before it.

mod activation;
mod backward;
mod forward;
mod strips;

use crate::linear;
use crate::shape::{fits, positive};

pub use activation::Activation;
pub(crate) use backward::Backward;
pub(crate) use forward::{Forward, add_row};
pub(crate) use strips::{Kept, keeping};

/// Columns of the wide layer computed at a time: a strip of a tile stays in the second cache, and so do the weights it meets.
const STRIP: usize = if cfg!(miri) { 32 } else { 512 };

/// Weights of the two layers; the inner width is that of `up_bias`.
#[derive(Clone, Copy, Debug)]
pub struct Weights<'a> {
    /// `[d_inner, d]`.
    pub up: &'a [f32],
    /// `[d_inner]`.
    pub up_bias: &'a [f32],
    /// `[d, d_inner]`, or with an activation that joins halves `[d, d_inner / 2]`.
    pub down: &'a [f32],
    /// `[d]`.
    pub down_bias: &'a [f32],
    /// What stands between them.
    pub activation: Activation,
}

impl Weights<'_> {
    /// Panics unless the weights fit rows of `d` numbers, and the activation the inner width.
    pub(crate) fn check(&self, d: usize) {
        let (d_inner, inputs) = (self.d_inner(), self.activation.inputs());
        positive("mlp.down_bias", d);
        fits("mlp.down_bias", self.down_bias, &[d]);
        positive("mlp.up_bias", d_inner);
        assert!(
            d_inner.is_multiple_of(inputs),
            "`mlp.up_bias` holds {d_inner} elements, which are not {inputs} equal parts"
        );
        fits("mlp.up", self.up, &[d_inner, d]);
        fits("mlp.down", self.down, &[d, d_inner / inputs]);
    }

    pub(crate) fn d(&self) -> usize {
        self.down_bias.len()
    }

    /// Numbers of a row before the activation.
    pub(crate) fn d_inner(&self) -> usize {
        self.up_bias.len()
    }

    /// Numbers of a row after it.
    pub(crate) fn d_active(&self) -> usize {
        self.d_inner() / self.activation.inputs()
    }
}

/// Which gradients of the two layers are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// That of y.
    pub y: bool,
    pub up: linear::Wanted<'a>,
    pub down: linear::Wanted<'a>,
}

/// Gradients of the parameters, those that were wanted.
#[derive(Clone, Debug)]
pub(crate) struct Gradients {
    pub up: linear::Gradients,
    pub down: linear::Gradients,
}
