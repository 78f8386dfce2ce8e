//! Why a run stopped short.

use std::path::PathBuf;

use super::checkpoint;
use crate::weights::WeightError;

/// Why a run stopped short.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The loss or a gradient is not a number.
    #[error(
        "the loss is not finite at step {step} (learning rate {rate:e}; {parts}). Try a lower `train.schedule.rate`; \
         a checkpoint of an earlier step is unharmed"
    )]
    Diverged {
        /// The step, counted from 1.
        step: u64,
        /// Its learning rate.
        rate: f64,
        /// Parts of its loss, and the gradient norm.
        parts: String,
    },
    /// A measure to select by that no evaluation has.
    #[error("`selection.measure` is `{measure}`, but an evaluation measures {}", known.join(", "))]
    Selection {
        /// As written.
        measure: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Training data could not be read.
    #[error("training data: {0}")]
    Data(std::io::Error),
    /// A file of the run could not be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// A measure that came out as no number.
    #[error("`{name}` of the {split} windows is {value}: the weights have diverged; try a lower `train.schedule.rate`")]
    Measure {
        /// Its name.
        name: String,
        /// What it was taken on.
        split: &'static str,
        /// Its value.
        value: f64,
    },
    /// A checkpoint that is not what was written.
    #[error(
        "{}: {reason}. The checkpoint is damaged: put back a whole copy of its folder, or delete that folder to start anew",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint that does not fit.
    #[error("checkpoint {}: {source}", path.display())]
    Checkpoint {
        /// The folder of the checkpoint.
        path: PathBuf,
        /// What does not fit.
        source: WeightError,
    },
    /// A checkpoint from a program newer than this one.
    #[error("{}: `format_version` is {found}, but this program reads up to {}; use a newer vqdna", path.display(), checkpoint::FORMAT_VERSION)]
    NewerCheckpoint {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u64,
    },
    /// A checkpoint of another run.
    #[error("{} belongs to a run with other settings ({what}); resume with the same config, or choose another folder", path.display())]
    OtherRun {
        /// The folder of the checkpoint.
        path: PathBuf,
        /// What differs.
        what: String,
    },
}
