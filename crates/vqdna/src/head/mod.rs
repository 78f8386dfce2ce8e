//! From hidden states to what a task asks for. One file per kind: [`masked`] tells the codes of masked positions, [`nucleotide`] the
//! bases; [`sequence`] and [`first`] tell something about a whole sequence.

pub mod first;
pub mod masked;
pub mod nucleotide;
pub mod sequence;
