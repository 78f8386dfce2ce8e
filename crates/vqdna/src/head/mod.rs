//! From hidden states to what a task asks for. One file per kind: [`masked`] tells the codes of masked positions, [`sequence`] something
//! about a whole sequence.

pub mod masked;
pub mod sequence;
