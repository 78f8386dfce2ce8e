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

pub use activation::Activation;
pub(crate) use backward::Backward;
pub(crate) use forward::{Forward, add_row};
pub(crate) use strips::{Kept, kept};

/// Columns of the wide layer computed at a time: a strip of a tile stays in the second cache, and so do the weights it meets.
const STRIP: usize = 512;

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
    pub(crate) fn d(&self) -> usize {
        self.down_bias.len()
    }

    /// Numbers of a row before the activation.
    pub(crate) fn d_inner(&self) -> usize {
        self.up_bias.len()
    }

    /// Numbers of a row after it.
    fn d_active(&self) -> usize {
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
