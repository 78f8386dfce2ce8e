//! Measures of any number of labels per row.

use super::super::{Answers, macro_average, micro_average, ranking::Areas, ranking::Ranking, real};
use super::{Measures, mean};

/// Predictions of labels, prepared.
pub(super) struct Labels<'a> {
    /// `[rows, labels]`.
    truth: &'a [bool],
    /// `[rows, labels]`.
    predicted: Vec<bool>,
    /// Number of labels.
    width: usize,
    /// Rows by the probability of each label.
    rankings: Vec<Ranking>,
}

impl<'a> Labels<'a> {
    pub(super) fn new(probabilities: &[f32], truth: &'a [bool], labels: usize) -> Self {
        let ranking = |label| Ranking::of(probabilities.iter().skip(label).step_by(labels).copied().map(f64::from));
        let predicted = probabilities.iter().map(|&probability| probability > 0.5).collect();
        Self { truth, predicted, width: labels, rankings: (0..labels).map(ranking).collect() }
    }

    pub(super) fn measures(&self, times: &[u32]) -> Measures {
        let answers = self.answers(times);
        let areas = self.areas(times);
        vec![
            ("f1_macro", macro_average(&answers, Answers::f1)),
            ("f1_micro", micro_average(&answers, Answers::f1)),
            ("precision_macro", macro_average(&answers, Answers::precision)),
            ("precision_micro", micro_average(&answers, Answers::precision)),
            ("recall_macro", macro_average(&answers, Answers::recall)),
            ("recall_micro", micro_average(&answers, Answers::recall)),
            ("mcc_macro", mean(answers.iter().map(Answers::mcc))),
            ("auroc_macro", mean(areas.iter().map(|areas| Some(areas.as_ref()?.roc)))),
            ("auprc_macro", mean(areas.iter().map(|areas| Some(areas.as_ref()?.precision_recall)))),
            ("accuracy_subset", self.accuracy(times)),
        ]
    }

    pub(super) fn parts(&self) -> Vec<(usize, Measures)> {
        let once = vec![1; self.truth.len() / self.width];
        let part = |(answers, areas): (Answers, Option<Areas>)| {
            let measures = vec![
                ("f1", Some(answers.f1())),
                ("precision", Some(answers.precision())),
                ("recall", Some(answers.recall())),
                ("mcc", answers.mcc()),
                ("auroc", areas.map(|areas| areas.roc)),
                ("auprc", areas.map(|areas| areas.precision_recall)),
            ];
            (usize::try_from(answers.positives()).unwrap_or(usize::MAX), measures)
        };
        self.answers(&once).into_iter().zip(self.areas(&once)).map(part).collect()
    }

    pub(super) fn without_area(&self) -> usize {
        let once = vec![1; self.truth.len() / self.width];
        self.areas(&once).iter().filter(|areas| areas.is_none()).count()
    }

    fn answers(&self, times: &[u32]) -> Vec<Answers> {
        let mut answers = vec![Answers::default(); self.width];
        let rows = self.predicted.chunks(self.width).zip(self.truth.chunks(self.width));
        for ((predicted, truth), &times) in rows.zip(times) {
            for ((answers, &predicted), &truth) in answers.iter_mut().zip(predicted).zip(truth) {
                answers.record(predicted, truth, times.into());
            }
        }
        answers
    }

    fn areas(&self, times: &[u32]) -> Vec<Option<Areas>> {
        let areas =
            |(label, ranking): (usize, &Ranking)| ranking.areas(|row| self.truth[row * self.width + label], times);
        self.rankings.iter().enumerate().map(areas).collect()
    }

    /// The share of rows where all labels are right.
    fn accuracy(&self, times: &[u32]) -> Option<f64> {
        let rows = self.predicted.chunks(self.width).zip(self.truth.chunks(self.width)).zip(times);
        let right: u64 =
            rows.filter(|((predicted, truth), _)| predicted == truth).map(|(_, &times)| u64::from(times)).sum();
        let total: u64 = times.iter().map(|&times| u64::from(times)).sum();
        (total > 0).then(|| real(right) / real(total))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bootstrap, Predictions, Scores};

    #[test]
    fn labels_by_hand() {
        // Three rows, three labels; the last is never true and never predicted.
        let probabilities = [0.9, 0.2, 0.1, 0.8, 0.6, 0.0, 0.4, 0.7, 0.2];
        let truth = [true, false, false, false, true, false, true, true, false];
        let names = ["a", "b", "c"].map(str::to_owned);
        let bootstrap = Some(Bootstrap { resamples: 20, seed: 1 });
        let scores =
            Scores::of(Predictions::Labels { probabilities: &probabilities, truth: &truth }, &names, bootstrap);
        let close = |name: &str, expected: f64| {
            let value = scores.get(name).unwrap();
            assert!((value - expected).abs() < 1e-6, "{name}: {value} is not {expected}");
        };
        // a: one right yes, one wrong yes, one missed; b: two right yeses, nothing else.
        close("f1_macro", f64::midpoint(0.5, 1.0));
        close("precision_micro", 0.75);
        close("recall_micro", 0.75);
        close("f1_micro", 0.75);
        // a: (1·0 - 1·1) / √(2·2·1·1); b: 1.
        close("mcc_macro", f64::midpoint(-0.5, 1.0));
        // a: true scores 0.9 and 0.4 against 0.8; b: all in order.
        close("auroc_macro", f64::midpoint(0.5, 1.0));
        close("accuracy_subset", 1.0 / 3.0);
        assert_eq!(scores.without_area, 1);
        assert_eq!(scores.parts.iter().map(|part| part.rows).collect::<Vec<_>>(), [2, 2, 0]);
        assert_eq!(scores.parts[2].scores.last().unwrap().value, None);
    }
}
