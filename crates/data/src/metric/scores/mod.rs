//! All measures of a task together, each under a name that says how it averages.
//!
//! | predictions | measures |
//! | --- | --- |
//! | classes | `mcc`, `f1_macro`, `f1_micro`, `precision_macro`, `recall_macro`, `accuracy` |
//! | … two | `auroc`, `auprc`, and of the second class alone `f1_positive`, `precision_positive`, `recall_positive` |
//! | … more | `auroc_macro`, `auprc_macro`, each class against the rest |
//! | labels | `f1_`, `precision_` and `recall_` `macro` and `micro`; `mcc_macro`, `auroc_macro`, `auprc_macro`, `accuracy_subset` |
//! | values | `spearman`, `pearson`, `r2`, `mse`; of several targets their mean, as `spearman_macro` and so on |
//!
//! A class or label that occurs neither in truth nor in prediction is no part of a mean; one that is always or never true has no
//! area, and a label no MCC either, and is left out of their means. Where all rows have one class the MCC has no value, and where all have
//! one number correlations and R² have none; a prediction that is always the same has an MCC or a correlation of 0.

mod classes;
mod labels;
mod values;

use serde::{Deserialize, Serialize};

use super::{Bootstrap, Interval};
use classes::Classes;
use labels::Labels;
use values::Values;

/// What a model said about each row of a set, beside what is true.
#[derive(Clone, Copy, Debug)]
pub enum Predictions<'a> {
    /// One class of several for each row; the one with the highest probability is the prediction.
    Classes {
        /// `[rows, classes]`, or anything that rises with probability.
        probabilities: &'a [f32],
        /// `[rows]`.
        truth: &'a [u32],
    },
    /// Any number of labels for each row; those with a probability above one half are predicted.
    Labels {
        /// `[rows, labels]`.
        probabilities: &'a [f32],
        /// `[rows, labels]`.
        truth: &'a [bool],
    },
    /// A number per target for each row.
    Values {
        /// `[rows, targets]`.
        predicted: &'a [f64],
        /// `[rows, targets]`.
        truth: &'a [f64],
    },
}

/// One measure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Its name, which says how it averages.
    pub name: String,
    /// Its value; absent where it is not defined.
    pub value: Option<f64>,
    /// The bootstrap interval of 95 %, if one was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
}

/// The measures of one class, label or target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Name of the class, label or target.
    pub name: String,
    /// Rows it is true for; of a target, all.
    pub rows: usize,
    /// Its measures, without intervals.
    pub scores: Vec<Score>,
}

/// All measures of a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Rows that were measured.
    pub rows: usize,
    /// The measures, in a fixed order.
    pub scores: Vec<Score>,
    /// The same for each class, label or target, where there are more than two classes or more than one of the others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// How many classes or labels have no area under a curve, because they are always or never true.
    #[serde(default)]
    pub without_area: usize,
    /// How many targets have a correlation of 0 because their prediction is constant.
    #[serde(default)]
    pub constant: usize,
}

/// Measures in order; a value that is not defined, or not a finite number, is absent.
type Measures = Vec<(&'static str, Option<f64>)>;

/// Predictions, prepared so that measuring a resample is quick.
enum Prepared<'a> {
    Classes(Classes<'a>),
    Labels(Labels<'a>),
    Values(Values),
}

impl Scores {
    /// Measures predictions; `names` are the classes, labels or targets, in the order of the model's outputs.
    ///
    /// # Panics
    /// If there are no names, a slice does not hold whole rows, the slices hold different numbers of rows, or a class has no
    /// name.
    #[must_use]
    pub fn of(predictions: Predictions<'_>, names: &[String], bootstrap: Option<Bootstrap>) -> Self {
        let (rows, prepared) = Prepared::new(predictions, names.len());
        let once = vec![1; rows];
        let measures = prepared.measures(&once);
        let values = |times: &[u32]| prepared.measures(times).into_iter().map(|(_, value)| value).collect();
        let intervals = bootstrap.map(|bootstrap| bootstrap.intervals(rows, values)).unwrap_or_default();
        let interval = |number: usize| intervals.get(number).copied().flatten();
        let scores = measures
            .into_iter()
            .enumerate()
            .map(|(number, measure)| Score { interval: interval(number), ..Score::from(measure) })
            .collect();
        let part = |(name, (rows, measures)): (&String, (usize, Measures))| {
            let scores = measures.into_iter().map(Score::from).collect();
            Part { name: name.clone(), rows, scores }
        };
        let parts = names.iter().zip(prepared.parts()).map(part).collect();
        let (without_area, constant) = prepared.warnings();
        Self { rows, scores, parts, without_area, constant }
    }

    /// The value of a measure; `None` if it is not defined or has another name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<f64> {
        self.scores.iter().find(|score| score.name == name)?.value
    }
}

impl From<(&'static str, Option<f64>)> for Score {
    fn from((name, value): (&'static str, Option<f64>)) -> Self {
        Self { name: name.to_owned(), value: value.filter(|value| value.is_finite()), interval: None }
    }
}

impl<'a> Prepared<'a> {
    /// Prepares predictions with so many outputs; also the number of rows.
    fn new(predictions: Predictions<'a>, outputs: usize) -> (usize, Self) {
        assert!(outputs > 0, "a model has at least one output");
        let rows = |numbers: usize| {
            assert_eq!(numbers % outputs, 0, "{numbers} numbers are no whole rows of {outputs}");
            numbers / outputs
        };
        match predictions {
            Predictions::Classes { probabilities, truth } => {
                assert_eq!(rows(probabilities.len()), truth.len(), "one prediction per truth");
                (truth.len(), Self::Classes(Classes::new(probabilities, truth, outputs)))
            }
            Predictions::Labels { probabilities, truth } => {
                assert_eq!(probabilities.len(), truth.len(), "one prediction per truth");
                (rows(truth.len()), Self::Labels(Labels::new(probabilities, truth, outputs)))
            }
            Predictions::Values { predicted, truth } => {
                assert_eq!(predicted.len(), truth.len(), "one prediction per truth");
                (rows(truth.len()), Self::Values(Values::new(predicted, truth, outputs)))
            }
        }
    }

    /// The measures of the rows, each counting `times[row]` times.
    fn measures(&self, times: &[u32]) -> Measures {
        match self {
            Self::Classes(classes) => classes.measures(times),
            Self::Labels(labels) => labels.measures(times),
            Self::Values(values) => values.measures(times),
        }
    }

    /// Rows and measures of each class, label or target, where that tells more than the whole.
    fn parts(&self) -> Vec<(usize, Measures)> {
        match self {
            Self::Classes(classes) => classes.parts(),
            Self::Labels(labels) => labels.parts(),
            Self::Values(values) => values.parts(),
        }
    }

    /// How many areas are not defined, and how many correlations.
    fn warnings(&self) -> (usize, usize) {
        match self {
            Self::Classes(classes) => (classes.without_area(), 0),
            Self::Labels(labels) => (labels.without_area(), 0),
            Self::Values(values) => (0, values.constant()),
        }
    }
}

/// The mean of the values that are defined; `None` without any.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let values: Vec<f64> = values.flatten().collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / super::real(values.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|name| name.to_string()).collect()
    }

    #[test]
    fn scores_survive_json() {
        let truth = [0, 1, 1, 0, 1, 0];
        let probabilities = [0.9, 0.1, 0.3, 0.7, 0.6, 0.4, 0.8, 0.2, 0.1, 0.9, 0.4, 0.6];
        let predictions = Predictions::Classes { probabilities: &probabilities, truth: &truth };
        let scores = Scores::of(predictions, &names(2), Some(Bootstrap { resamples: 50, seed: 1 }));
        let json = serde_json::to_string(&scores).unwrap();
        assert_eq!(serde_json::from_str::<Scores>(&json).unwrap(), scores);
        assert!(json.starts_with(r#"{"rows":6,"scores":[{"name":"mcc","value":0.3333333333333333,"interval":{"low":"#));
        assert_eq!(scores, Scores::of(predictions, &names(2), Some(Bootstrap { resamples: 50, seed: 1 })));
    }

    #[test]
    fn no_rows_have_no_scores() {
        for predictions in [
            Predictions::Classes { probabilities: &[], truth: &[] },
            Predictions::Labels { probabilities: &[], truth: &[] },
            Predictions::Values { predicted: &[], truth: &[] },
        ] {
            let scores = Scores::of(predictions, &names(3), Some(Bootstrap { resamples: 5, seed: 1 }));
            assert_eq!(scores.rows, 0);
            assert!(scores.scores.iter().all(|score| score.interval.is_none()), "{scores:?}");
            assert!(scores.get("accuracy").is_none() && scores.get("mse_macro").is_none());
        }
    }

    #[test]
    #[should_panic(expected = "no whole rows of 2")]
    fn rows_are_whole() {
        let _ = Scores::of(Predictions::Values { predicted: &[1.0; 3], truth: &[1.0; 3] }, &names(2), None);
    }
}
