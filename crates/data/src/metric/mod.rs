//! Formulas on slices: how often a guess is right, how well scores rank, how evenly codes are used.
//!
//! [`Scores`] holds all measures that belong to a task, with [bootstrap](Bootstrap) intervals. So that those are quick, what is
//! costly is done once, such as sorting rows by score, and a resample only says how often each row was drawn.
//!
//! ```
//! use vqdna_data::metric::{Bootstrap, Predictions, Scores};
//!
//! let names = ["enhancer".to_owned(), "promoter".to_owned()];
//! let probabilities = [0.9, 0.1, 0.2, 0.8, 0.6, 0.4, 0.3, 0.7];
//! let predictions = Predictions::Classes { probabilities: &probabilities, truth: &[0, 1, 1, 1] };
//! let scores = Scores::of(predictions, &names, Some(Bootstrap::default()));
//! assert_eq!(scores.get("accuracy"), Some(0.75));
//! assert_eq!(scores.get("auroc"), Some(1.0));
//! ```

mod bootstrap;
mod confusion;
mod correlation;
mod ranking;
mod scores;
mod usage;

pub use bootstrap::{Bootstrap, Interval, drawn};
pub use confusion::{Answers, Confusion, macro_average, micro_average};
pub use correlation::{Correlation, cosine_distance, mse, pearson, r2, spearman};
pub use ranking::{auprc, auroc, paired_accuracy};
pub use scores::{Part, Predictions, Score, Scores};
pub use usage::{accuracy, perplexity, usage};

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "a share needs no more than 53 bits")]
fn real(count: u64) -> f64 {
    count as f64
}
