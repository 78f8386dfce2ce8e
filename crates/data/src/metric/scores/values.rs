//! Measures of numbers.

use super::super::{
    correlation::{weighted_mse, weighted_pearson, weighted_r2},
    ranking::Ranking,
};
use super::{Measures, mean};

/// Predicted numbers, prepared.
pub(super) struct Values {
    targets: Vec<Target>,
    rows: usize,
}

/// One target: both series, and their rows by size.
struct Target {
    predicted: Vec<f64>,
    truth: Vec<f64>,
    by_prediction: Ranking,
    by_truth: Ranking,
}

impl Values {
    pub(super) fn new(predicted: &[f64], truth: &[f64], targets: usize) -> Self {
        let rows = truth.len() / targets;
        Self { targets: (0..targets).map(|target| Target::new(predicted, truth, target, targets)).collect(), rows }
    }

    pub(super) fn measures(&self, times: &[u32]) -> Measures {
        let fits: Vec<Measures> = self.targets.iter().map(|target| target.measures(times)).collect();
        match &fits[..] {
            [fit] => fit.clone(),
            fits => {
                let names = ["spearman_macro", "pearson_macro", "r2_macro", "mse_macro"];
                let average = |number: usize| mean(fits.iter().map(|fit| fit[number].1));
                names.into_iter().enumerate().map(|(number, name)| (name, average(number))).collect()
            }
        }
    }

    pub(super) fn parts(&self) -> Vec<(usize, Measures)> {
        match &self.targets[..] {
            [_] => Vec::new(),
            targets => targets.iter().map(|target| (self.rows, target.measures(&vec![1; self.rows]))).collect(),
        }
    }

    pub(super) fn constant(&self) -> usize {
        self.targets.iter().filter(|target| target.is_constant()).count()
    }
}

impl Target {
    fn new(predicted: &[f64], truth: &[f64], target: usize, targets: usize) -> Self {
        let column = |numbers: &[f64]| numbers.iter().skip(target).step_by(targets).copied().collect::<Vec<_>>();
        let (predicted, truth) = (column(predicted), column(truth));
        let [by_prediction, by_truth] = [&predicted, &truth].map(|series| Ranking::of(series.iter().copied()));
        Self { predicted, truth, by_prediction, by_truth }
    }

    fn measures(&self, times: &[u32]) -> Measures {
        if times.iter().all(|&times| times == 0) {
            return ["spearman", "pearson", "r2", "mse"].map(|name| (name, None)).into();
        }
        let r2 = weighted_r2(&self.predicted, &self.truth, times);
        let ranks = [&self.by_prediction, &self.by_truth].map(|ranking| ranking.ranks(times));
        vec![
            // Where all that is true is one number, no prediction could go with it.
            ("spearman", r2.map(|_| weighted_pearson(&ranks[0], &ranks[1], times).value)),
            ("pearson", r2.map(|_| weighted_pearson(&self.predicted, &self.truth, times).value)),
            ("r2", r2),
            ("mse", Some(weighted_mse(&self.predicted, &self.truth, times))),
        ]
    }

    /// Whether a correlation is 0 because the prediction is one number.
    fn is_constant(&self) -> bool {
        let once = vec![1; self.truth.len()];
        let has_truth = weighted_r2(&self.predicted, &self.truth, &once).is_some();
        has_truth && weighted_pearson(&self.predicted, &self.truth, &once).is_constant
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bootstrap, Predictions, Scores};
    use crate::metric::{mse, pearson, r2, spearman};

    #[test]
    fn one_target_has_plain_names() {
        let (predicted, truth) = ([2.0, 2.0, 2.5, 6.0], [1.0, 2.0, 3.0, 4.0]);
        let bootstrap = Some(Bootstrap { resamples: 20, seed: 1 });
        let scores = Scores::of(Predictions::Values { predicted: &predicted, truth: &truth }, &["y".into()], bootstrap);
        assert_eq!(scores.get("spearman"), Some(spearman(&predicted, &truth).value));
        assert_eq!(scores.get("pearson"), Some(pearson(&predicted, &truth).value));
        assert_eq!(scores.get("r2"), r2(&predicted, &truth));
        assert_eq!(scores.get("mse"), Some(mse(&predicted, &truth)));
        assert!(scores.parts.is_empty() && scores.constant == 0);
        assert!(scores.scores.iter().all(|score| score.interval.is_some()));
    }

    #[test]
    fn one_true_number_has_no_correlation() {
        let scores =
            Scores::of(Predictions::Values { predicted: &[1.0, 2.0], truth: &[3.0, 3.0] }, &["y".into()], None);
        let [spearman, pearson, r2, mse] = ["spearman", "pearson", "r2", "mse"].map(|name| scores.get(name));
        assert_eq!((spearman, pearson, r2, mse, scores.constant), (None, None, None, Some(2.5), 0));
    }

    #[test]
    fn several_targets_are_averaged_and_shown_apart() {
        // The first is met in its order, the second predicted as one number.
        let (predicted, truth) = ([1.0, 7.0, 2.0, 7.0, 5.0, 7.0], [0.0, 1.0, 1.0, 2.0, 2.0, 3.0]);
        let names = ["a", "b"].map(str::to_owned);
        let scores = Scores::of(Predictions::Values { predicted: &predicted, truth: &truth }, &names, None);
        assert_eq!(scores.get("spearman_macro"), Some(0.5));
        assert_eq!(scores.get("spearman"), None);
        assert_eq!(scores.constant, 1);
        let second = &scores.parts[1];
        assert_eq!((&second.name[..], second.rows, second.scores[0].value), ("b", 3, Some(0.0)));
        assert_eq!(scores.parts[0].scores[0].value, Some(1.0));
    }
}
