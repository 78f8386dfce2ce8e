//! Formulas on slices: how often a guess is right, how well scores rank, how evenly codes are used.
//!
//! So that [bootstrap](Bootstrap) intervals are quick, what is costly is done once, such as sorting rows by score, and a resample
//! only says how often each row was drawn.

mod bootstrap;
mod confusion;
mod correlation;
mod ranking;
mod usage;

pub use bootstrap::{Bootstrap, Interval, drawn};
pub use confusion::{Answers, Confusion, macro_average, micro_average};
pub use correlation::{Correlation, cosine_distance, mse, pearson, r2, spearman};
pub use ranking::{auprc, auroc, paired_accuracy};
pub use usage::{accuracy, perplexity, usage};

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn real(count: u64) -> f64 {
    count as f64
}
