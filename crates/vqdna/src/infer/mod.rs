//! Finished models on sequences of any number and length: some sequences at a time, those that are longer than a window in windows,
//! results in the order of the input.

mod budget;
pub mod embed;
mod execution;
pub mod generate;
pub mod input;
pub mod predict;
mod sequence;
pub mod units;
pub mod windows;

pub use budget::Budget;
pub use execution::{Execution, Interrupted};
pub use input::InputError;
pub use sequence::Sequence;
pub use windows::Windows;
