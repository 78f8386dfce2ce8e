//! Measures of one class of several per row.

use super::super::{Answers, Confusion, macro_average, micro_average, ranking::Areas, ranking::Ranking};
use super::{Measures, mean};

/// Predictions of classes, prepared.
pub(super) struct Classes<'a> {
    truth: &'a [u32],
    predicted: Vec<u32>,
    /// Number of classes.
    width: usize,
    /// Rows by the probability of each class; of two classes, of the second alone.
    rankings: Vec<(u32, Ranking)>,
}

impl<'a> Classes<'a> {
    pub(super) fn new(probabilities: &[f32], truth: &'a [u32], classes: usize) -> Self {
        let ranking = |class: u32| {
            let column = probabilities.iter().skip(class as usize).step_by(classes);
            (class, Ranking::of(column.copied().map(f64::from)))
        };
        let first = usize::from(classes == 2);
        let rankings = (0..).take(classes).skip(first).map(ranking).collect();
        Self { truth, predicted: probabilities.chunks(classes).map(highest).collect(), width: classes, rankings }
    }

    pub(super) fn measures(&self, times: &[u32]) -> Measures {
        let confusion = self.confusion(times);
        let answers = confusion.answers();
        let mut measures = vec![
            ("mcc", confusion.mcc()),
            ("f1_macro", macro_average(&answers, Answers::f1)),
            ("f1_micro", micro_average(&answers, Answers::f1)),
            ("precision_macro", macro_average(&answers, Answers::precision)),
            ("recall_macro", macro_average(&answers, Answers::recall)),
            ("accuracy", (confusion.total() > 0).then(|| confusion.accuracy())),
        ];
        let areas = self.areas(times);
        let roc = mean(areas.iter().map(|areas| Some(areas.as_ref()?.roc)));
        let precision_recall = mean(areas.iter().map(|areas| Some(areas.as_ref()?.precision_recall)));
        if let [_, positive] = &answers[..] {
            let of = |measure: fn(&Answers) -> f64| positive.is_seen().then(|| measure(positive));
            measures.extend([
                ("auroc", roc),
                ("auprc", precision_recall),
                ("f1_positive", of(Answers::f1)),
                ("precision_positive", of(Answers::precision)),
                ("recall_positive", of(Answers::recall)),
            ]);
        } else {
            measures.extend([("auroc_macro", roc), ("auprc_macro", precision_recall)]);
        }
        measures
    }

    pub(super) fn parts(&self) -> Vec<(usize, Measures)> {
        if self.width == 2 {
            return Vec::new();
        }
        let once = vec![1; self.truth.len()];
        let part = |(answers, areas): (Answers, Option<Areas>)| {
            let measures = vec![
                ("f1", Some(answers.f1())),
                ("precision", Some(answers.precision())),
                ("recall", Some(answers.recall())),
                ("auroc", areas.map(|areas| areas.roc)),
                ("auprc", areas.map(|areas| areas.precision_recall)),
            ];
            (usize::try_from(answers.positives()).unwrap_or(usize::MAX), measures)
        };
        self.confusion(&once).answers().into_iter().zip(self.areas(&once)).map(part).collect()
    }

    pub(super) fn without_area(&self) -> usize {
        self.areas(&vec![1; self.truth.len()]).iter().filter(|areas| areas.is_none()).count()
    }

    fn confusion(&self, times: &[u32]) -> Confusion {
        let mut confusion = Confusion::empty(self.width);
        for ((&predicted, &truth), &times) in self.predicted.iter().zip(self.truth).zip(times) {
            confusion.record(predicted, truth, times.into());
        }
        confusion
    }

    /// The areas of each ranked class against the rest.
    fn areas(&self, times: &[u32]) -> Vec<Option<Areas>> {
        self.rankings.iter().map(|(class, ranking)| ranking.areas(|row| self.truth[row] == *class, times)).collect()
    }
}

/// The class with the highest probability, the first of equals.
fn highest(probabilities: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, &probability) in (0..).zip(probabilities) {
        if probability > best.1 {
            best = (class, probability);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::super::{Bootstrap, Predictions, Scores};

    fn scores(probabilities: &[f32], truth: &[u32], classes: usize) -> Scores {
        let names: Vec<String> = (0..classes).map(|name| format!("class {name}")).collect();
        let bootstrap = Some(Bootstrap { resamples: 100, seed: 1 });
        Scores::of(Predictions::Classes { probabilities, truth }, &names, bootstrap)
    }

    #[test]
    fn two_classes_by_hand() {
        // Predicted 0 1 1 0 0 against 0 1 0 1 0; the second class scored 0.1, 0.9, 0.6, 0.4, 0.2.
        let scores = scores(&[0.9, 0.1, 0.1, 0.9, 0.4, 0.6, 0.6, 0.4, 0.8, 0.2], &[0, 1, 0, 1, 0], 2);
        let close = |name: &str, expected: f64| {
            let value = scores.get(name).unwrap();
            assert!((value - expected).abs() < 1e-6, "{name}: {value} is not {expected}");
        };
        close("accuracy", 0.6);
        close("f1_micro", 0.6);
        // Class 0: 2 of 3 found, 2 of 3 right; class 1: 1 of 2, 1 of 2.
        close("recall_macro", f64::midpoint(2.0 / 3.0, 0.5));
        close("precision_macro", f64::midpoint(2.0 / 3.0, 0.5));
        close("f1_macro", f64::midpoint(2.0 / 3.0, 0.5));
        close("f1_positive", 0.5);
        close("precision_positive", 0.5);
        close("recall_positive", 0.5);
        // (1·2 - 1·1) / √(2·2·3·3).
        close("mcc", 1.0 / 6.0);
        // Of six pairs, 0.4 lies below 0.6.
        close("auroc", 5.0 / 6.0);
        close("auprc", 0.5 + 0.5 * 2.0 / 3.0);
        assert!(scores.parts.is_empty());
        assert_eq!((scores.rows, scores.without_area), (5, 0));
        for score in &scores.scores {
            let interval = score.interval.unwrap();
            assert!(interval.low <= score.value.unwrap() && score.value.unwrap() <= interval.high, "{score:?}");
        }
    }

    #[test]
    fn each_class_has_a_part_and_absent_ones_are_counted() {
        let probabilities = [0.6, 0.3, 0.1, 0.2, 0.7, 0.1, 0.5, 0.4, 0.1];
        let scores = scores(&probabilities, &[0, 1, 1], 3);
        assert_eq!(scores.without_area, 1);
        let [first, second, third] = &scores.parts[..] else { panic!("three classes") };
        assert_eq!((&first.name[..], first.rows, second.rows, third.rows), ("class 0", 1, 2, 0));
        let value =
            |part: usize, name: &str| scores.parts[part].scores.iter().find(|score| score.name == name).unwrap().value;
        assert_eq!(value(0, "precision"), Some(0.5));
        assert_eq!(value(1, "recall"), Some(0.5));
        assert_eq!([value(0, "auroc"), value(1, "auroc"), value(2, "auroc")], [Some(1.0), Some(1.0), None]);
        assert_eq!(scores.get("auroc_macro"), Some(1.0));
        assert_eq!(scores.get("auroc"), None);
        // Both known classes have an F1 of 2/3; the third is no part of the mean.
        assert!((scores.get("f1_macro").unwrap() - 2.0 / 3.0).abs() < 1e-12);
    }

    #[test]
    fn one_class_in_truth_has_neither_area_nor_mcc() {
        let scores = scores(&[0.9, 0.1, 0.2, 0.8], &[0, 0], 2);
        assert_eq!((scores.get("auroc"), scores.get("mcc"), scores.without_area), (None, None, 1));
    }
}
