//! What outputs say: probabilities of classes or labels, or values in the units of the training set.

use vqdna_data::labelled::{Labelling, Targets};
use vqdna_data::metric::{Bootstrap, Predictions, Scores};

/// Predictions for some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction<'a> {
    labelling: &'a Labelling,
    /// `[rows, outputs]`: probabilities, or values.
    values: Vec<f64>,
}

impl<'a> Prediction<'a> {
    /// Of raw outputs, `[rows, outputs]`: logits of classes or labels, or standardized values.
    #[must_use]
    pub fn new(labelling: &'a Labelling, outputs: &[f32]) -> Self {
        let width = labelling.outputs().len();
        let values = match labelling {
            Labelling::Classes { .. } => outputs.chunks(width).flat_map(softmax).collect(),
            Labelling::Labels { .. } => outputs.iter().map(|&logit| 1.0 / (1.0 + (-f64::from(logit)).exp())).collect(),
            Labelling::Values { standardization, .. } => {
                outputs.iter().zip(standardization.iter().cycle()).map(|(&v, s)| s.invert(f64::from(v))).collect()
            }
        };
        Self { labelling, values }
    }

    /// Of probabilities or values that were merged from several parts of a sequence, `[rows, outputs]`.
    #[must_use]
    pub fn merged(labelling: &'a Labelling, values: Vec<f64>) -> Self {
        Self { labelling, values }
    }

    /// Probabilities of a row, or its values.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &[f64]> {
        self.values.chunks(self.labelling.outputs().len())
    }

    /// What is predicted for a row: the name of its class, its labels joined by `,` (or nothing), or its values joined by `,`.
    #[must_use]
    pub fn said(&self, row: &[f64]) -> String {
        let names = self.labelling.outputs();
        match self.labelling {
            Labelling::Classes { .. } => {
                // The first of equals, as the measures have it.
                let best = row.iter().enumerate().rev().max_by(|a, b| a.1.total_cmp(b.1));
                best.map_or_else(String::new, |(class, _)| names[class].clone())
            }
            Labelling::Labels { .. } => {
                let applies = names.iter().zip(row).filter(|(_, probability)| **probability > 0.5);
                applies.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(",")
            }
            Labelling::Values { .. } => row.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
        }
    }

    /// All measures beside what is true of the rows.
    ///
    /// # Panics
    /// If the targets are of another kind than the labelling, or of another number of rows.
    #[must_use]
    pub fn scores(&self, truth: &Targets, bootstrap: Option<Bootstrap>) -> Scores {
        let names = self.labelling.outputs();
        let probabilities = || self.values.iter().map(|&value| value as f32).collect::<Vec<_>>();
        match truth {
            Targets::Classes(truth) => {
                Scores::of(Predictions::Classes { probabilities: &probabilities(), truth }, names, bootstrap)
            }
            Targets::Labels { values: truth, .. } => {
                Scores::of(Predictions::Labels { probabilities: &probabilities(), truth }, names, bootstrap)
            }
            Targets::Values { values: truth, .. } => {
                Scores::of(Predictions::Values { predicted: &self.values, truth }, names, bootstrap)
            }
        }
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |most, &logit| most.max(logit));
    let weights: Vec<f64> = logits.iter().map(|&logit| f64::from(logit - largest).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vqdna_data::labelled::Standardization;

    #[test]
    fn outputs_become_what_people_read() {
        let names = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let classes = Labelling::Classes { column: "label".to_owned(), classes: names(&["none", "promoter"]) };
        let found = Prediction::new(&classes, &[0.0, 3f32.ln(), 5.0, 5.0, 1000.0, -1000.0]);
        let rows: Vec<&[f64]> = found.rows().collect();
        assert!((rows[0][1] - 0.75).abs() < 1e-7 && rows[1] == [0.5, 0.5] && rows[2] == [1.0, 0.0]);
        assert_eq!(rows.map_said(&found), ["promoter", "none", "none"]);
        let scores = found.scores(&Targets::Classes(vec![1, 0, 1]), None);
        assert_eq!(scores.get("accuracy"), Some(2.0 / 3.0));

        let labels = Labelling::Labels { columns: names(&["a", "b"]) };
        let found = Prediction::new(&labels, &[2.0, 1.0, -2.0, 0.0]);
        assert_eq!(found.rows().collect::<Vec<_>>().map_said(&found), ["a,b", ""]);

        let standardization = vec![Standardization { mean: 3.0, sd: 2.0 }];
        let values = Labelling::Values { columns: names(&["y"]), standardization };
        let found = Prediction::new(&values, &[0.0, -1.5]);
        assert_eq!(found.rows().collect::<Vec<_>>(), [&[3.0][..], &[0.0]]);
        assert_eq!(found.said(&[0.25]), "0.25");
    }

    trait MapSaid {
        fn map_said(&self, prediction: &Prediction) -> Vec<String>;
    }

    impl MapSaid for Vec<&[f64]> {
        fn map_said(&self, prediction: &Prediction) -> Vec<String> {
            self.iter().map(|row| prediction.said(row)).collect()
        }
    }
}
