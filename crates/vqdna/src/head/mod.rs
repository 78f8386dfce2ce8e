//! From hidden states to what a task needs. One file per kind: [`token`] predicts ids of tokens; [`sequence`] and [`first`] are
//! sequence-level classification or regression heads.

pub mod first;
pub mod sequence;
pub mod token;
