//! Fused CPU kernels on slices, forward and backward; no tensors, no Burn.
//!
//! Every matrix is row-major `f32`; weights keep the layout `[d_out, d_in]` in which they are published. A *row* is one
//! position of one sequence. Three promises hold for all kernels, and tests guard them:
//!
//! * **A row never depends on its neighbours in memory.** A product sums each element in the order of the inner dimension,
//!   wherever its row stands ([`product`]). Codes of a chromosome are therefore the same for any chunk, batch and thread count.
//! * **Results do not depend on the number of threads.** Sums over rows run over a fixed number of parts.
//! * **SIMD is chosen at run time** ([`simd::level`]); one binary runs on any machine.
//!
//! Every public function first holds its arguments against the shapes that its documentation gives, and panics where they do not fit:
//! no call from safe code reads or returns memory that was not written.

#![allow(unsafe_code, reason = "SIMD and matrix products; each block says why it is sound")]
#![warn(clippy::undocumented_unsafe_blocks)]
#![allow(clippy::inline_always, reason = "a body must end up inside the function that has the SIMD features")]

pub mod adamw;
pub mod attention;
pub mod attention_block;
pub mod codebook;
pub mod conv_block;
pub mod cross_entropy;
pub mod experts;
mod fresh;
pub mod gelu;
mod glu;
pub mod linear;
pub mod low_rank;
pub mod mlp;
pub mod mlp_block;
pub mod norm;
pub mod pool;
pub mod product;
pub mod quantize;
mod rows;
pub mod sample;
mod shape;
pub mod simd;
pub mod stem;
pub mod units;
