//! The best state of a run by a measure of its evaluations, and when to stop looking for a better one.

use serde::{Deserialize, Serialize};

use crate::objective::Measures;
use crate::weights::Arrays;

/// Which evaluation is the best.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectionConfig {
    /// A measure of the evaluation. Of `loss` and `mse` the lowest is best, of all others the highest.
    pub measure: String,
    /// Evaluations in a row without a better one after which the run ends; 0 never ends it early.
    pub patience: u64,
}

impl Default for SelectionConfig {
    fn default() -> Self {
        // The checkpoint with the lowest dev loss, as DNABERT-2 selects.
        Self { measure: "loss".to_owned(), patience: 0 }
    }
}

impl SelectionConfig {
    /// Whether one value of the measure is better than another.
    #[must_use]
    pub fn is_better(&self, new: f64, old: f64) -> bool {
        if matches!(self.measure.as_str(), "loss" | "mse") { new < old } else { new > old }
    }
}

/// Where the best evaluation so far was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// After how many steps.
    pub step: u64,
    /// Its measure.
    pub value: f64,
    /// Evaluations since.
    pub waited: u64,
}

/// The best so far and its weights.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Where it was.
    pub best: Best,
    /// Weights and buffers by module path.
    pub weights: Arrays,
}

/// The best after one more evaluation: `weights` is called only if that is the one. None while no measure was a number.
///
/// # Errors
/// The names that there are, if the measure is not among them.
pub(super) fn consider(
    config: &SelectionConfig,
    before: Option<Kept>,
    step: u64,
    measures: &Measures,
    weights: impl FnOnce() -> Arrays,
) -> Result<Option<Kept>, Vec<String>> {
    let found = measures.iter().find(|(name, _)| *name == config.measure);
    let value = found.ok_or_else(|| measures.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>())?.1;
    Ok(Some(match before {
        // What is not a number is never better.
        Some(kept) if !value.is_finite() || !config.is_better(value, kept.best.value) => {
            Kept { best: Best { waited: kept.best.waited + 1, ..kept.best }, ..kept }
        }
        None if !value.is_finite() => return Ok(None),
        _ => Kept { best: Best { step, value, waited: 0 }, weights: weights() },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_first_of_the_best_and_counts_the_others() {
        for (measure, values, want) in [
            ("loss", [0.5, 0.4, 0.4, 0.6], Best { step: 2, value: 0.4, waited: 2 }),
            ("mcc", [0.5, 0.4, 0.7, f64::NAN], Best { step: 3, value: 0.7, waited: 1 }),
            ("mcc", [f64::NAN, 0.4, f64::INFINITY, 0.3], Best { step: 2, value: 0.4, waited: 2 }),
        ] {
            let config = SelectionConfig { measure: measure.to_owned(), patience: 0 };
            let mut kept = None;
            for (step, value) in (1..).zip(values) {
                let measures = vec![("other".to_owned(), 0.0), (measure.to_owned(), value)];
                kept = consider(&config, kept, step, &measures, Arrays::new).expect("a known measure");
            }
            assert_eq!(kept.map(|kept| kept.best), Some(want));
        }
        let names = consider(&SelectionConfig::default(), None, 1, &vec![("mcc".to_owned(), 0.0)], Arrays::new);
        assert_eq!(names.expect_err("no loss"), ["mcc"]);
    }
}
