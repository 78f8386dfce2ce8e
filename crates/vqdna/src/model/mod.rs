//! The networks: tokens to vectors ([`embed`]), a [backbone](crate::backbone), and a [head](crate::head). [`LanguageModel`] predicts
//! tokens, [`SequenceModel`] something about whole sequences.

pub mod embed;
pub mod language;
pub mod sequence;

pub use embed::Embed;
pub use language::{LanguageModel, Masked, Predicted};
pub use sequence::{Predictor, Probe, SequenceModel};
