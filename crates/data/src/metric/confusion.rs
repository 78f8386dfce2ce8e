//! Which class was taken for which, and the measures that follow from it.

use std::{iter::Sum, ops::Add};

use super::real;

/// How often each class was taken for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confusion {
    classes: usize,
    /// `[classes, classes]`: truth, then prediction.
    counts: Vec<u64>,
}

impl Confusion {
    /// A table of nothing yet.
    #[must_use]
    pub fn empty(classes: usize) -> Self {
        Self { classes, counts: vec![0; classes * classes] }
    }

    /// The table of a set of rows.
    ///
    /// # Panics
    /// If the slices differ in length, or hold a class that is not below `classes`.
    #[must_use]
    pub fn new(predicted: &[u32], truth: &[u32], classes: usize) -> Self {
        assert_eq!(predicted.len(), truth.len(), "one prediction per truth");
        let mut table = Self::empty(classes);
        predicted.iter().zip(truth).for_each(|(&predicted, &truth)| table.record(predicted, truth, 1));
        table
    }

    /// Counts one answer, so many times.
    ///
    /// # Panics
    /// If there is no such class.
    pub fn record(&mut self, predicted: u32, truth: u32, times: u64) {
        assert!((predicted as usize) < self.classes, "class {predicted} of {}", self.classes);
        self.counts[truth as usize * self.classes + predicted as usize] += times;
    }

    /// How often class `truth` was taken for class `predicted`.
    ///
    /// # Panics
    /// If there is no such class.
    #[must_use]
    pub fn count(&self, predicted: u32, truth: u32) -> u64 {
        self.counts[truth as usize * self.classes + predicted as usize]
    }

    /// Number of answers.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    fn correct(&self) -> u64 {
        self.counts.iter().step_by(self.classes + 1).sum()
    }

    /// The share of right answers; NaN if there are none.
    #[must_use]
    pub fn accuracy(&self) -> f64 {
        real(self.correct()) / real(self.total())
    }

    /// Matthews' correlation coefficient for any number of classes (`R_K`), -1 to 1; 0 if a single class is predicted.
    ///
    /// `None` if a single class is true, or there are no answers: then nothing can be distinguished, rightly or wrongly.
    #[must_use]
    pub fn mcc(&self) -> Option<f64> {
        let (correct, total) = (real(self.correct()), real(self.total()));
        let [mut both, mut predicted_squares, mut true_squares] = [0.0; 3];
        for answers in self.answers() {
            let (predicted, positive) = (real(answers.predicted()), real(answers.positives()));
            both += predicted * positive;
            predicted_squares += predicted * predicted;
            true_squares += positive * positive;
        }
        let spreads = [total * total - predicted_squares, total * total - true_squares];
        correlation(correct * total - both, spreads)
    }

    /// The answers to "is it this class?", for every class.
    #[must_use]
    pub fn answers(&self) -> Vec<Answers> {
        let total = self.total();
        let answers = |class: usize| {
            let true_positives = self.counts[class * self.classes + class];
            let row: u64 = self.counts[class * self.classes..][..self.classes].iter().sum();
            let column: u64 = self.counts.iter().skip(class).step_by(self.classes).sum();
            Answers {
                true_positives,
                false_positives: column - true_positives,
                false_negatives: row - true_positives,
                true_negatives: total + true_positives - row - column,
            }
        };
        (0..self.classes).map(answers).collect()
    }
}

/// How a question of yes or no was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Yes, rightly.
    pub true_positives: u64,
    /// Yes, wrongly.
    pub false_positives: u64,
    /// No, wrongly.
    pub false_negatives: u64,
    /// No, rightly.
    pub true_negatives: u64,
}

impl Answers {
    /// Counts one answer, so many times.
    pub fn record(&mut self, predicted: bool, truth: bool, times: u64) {
        *match (predicted, truth) {
            (true, true) => &mut self.true_positives,
            (true, false) => &mut self.false_positives,
            (false, true) => &mut self.false_negatives,
            (false, false) => &mut self.true_negatives,
        } += times;
    }

    /// How often the answer was yes.
    #[must_use]
    pub fn predicted(&self) -> u64 {
        self.true_positives + self.false_positives
    }

    /// How often yes was right.
    #[must_use]
    pub fn positives(&self) -> u64 {
        self.true_positives + self.false_negatives
    }

    /// Whether yes was right, or said, at least once.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.true_positives + self.false_positives + self.false_negatives > 0
    }

    /// The share of yeses that were right; 0 if there were none.
    #[must_use]
    pub fn precision(&self) -> f64 {
        share(self.true_positives, self.predicted())
    }

    /// The share of true yeses that were found; 0 if there were none.
    #[must_use]
    pub fn recall(&self) -> f64 {
        share(self.true_positives, self.positives())
    }

    /// The harmonic mean of precision and recall; 0 where it is not defined.
    #[must_use]
    pub fn f1(&self) -> f64 {
        share(2 * self.true_positives, self.predicted() + self.positives())
    }

    /// Matthews' correlation coefficient, -1 to 1; 0 if the answer was always the same, `None` if the truth was.
    #[must_use]
    pub fn mcc(&self) -> Option<f64> {
        let [tp, fp, fn_, tn] =
            [self.true_positives, self.false_positives, self.false_negatives, self.true_negatives].map(real);
        correlation(tp * tn - fp * fn_, [(tp + fp) * (tn + fn_), (tp + fn_) * (tn + fp)])
    }
}

impl Add for Answers {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            true_positives: self.true_positives + other.true_positives,
            false_positives: self.false_positives + other.false_positives,
            false_negatives: self.false_negatives + other.false_negatives,
            true_negatives: self.true_negatives + other.true_negatives,
        }
    }
}

impl Sum for Answers {
    fn sum<I: Iterator<Item = Self>>(answers: I) -> Self {
        answers.fold(Self::default(), |sum, answers| sum + answers)
    }
}

/// The unweighted mean of a measure over the classes that occur in truth or prediction; `None` if none does.
///
/// ```
/// use vqdna_data::metric::{Answers, Confusion, macro_average};
///
/// let confusion = Confusion::new(&[0, 2, 1, 0, 0, 2], &[0, 1, 2, 0, 1, 2], 3);
/// let f1 = macro_average(&confusion.answers(), Answers::f1);
/// assert!((f1.unwrap() - 1.3 / 3.0).abs() < 1e-12);
/// ```
#[must_use]
pub fn macro_average(answers: &[Answers], measure: fn(&Answers) -> f64) -> Option<f64> {
    let values: Vec<f64> = answers.iter().filter(|answers| answers.is_seen()).map(measure).collect();
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / real(values.len() as u64))
}

/// A measure of the answers of all classes taken together; `None` if there are none.
#[must_use]
pub fn micro_average(answers: &[Answers], measure: fn(&Answers) -> f64) -> Option<f64> {
    let all: Answers = answers.iter().copied().sum();
    all.is_seen().then(|| measure(&all))
}

/// What two series have in common, by the spread of the prediction and that of the truth.
fn correlation(common: f64, [predicted, truth]: [f64; 2]) -> Option<f64> {
    match () {
        () if truth <= 0.0 => None,
        () if predicted <= 0.0 => Some(0.0),
        () => Some(common / (predicted * truth).sqrt()),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { real(part) / real(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[track_caller]
    fn assert_close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
    }

    #[test]
    fn m1_mcc_and_f1() {
        let two = Confusion::new(&[1, 0, 0, 0, 1, 1], &[1, 1, 0, 0, 1, 0], 2);
        assert_close(two.mcc().unwrap(), 1.0 / 3.0);

        let three = Confusion::new(&[0, 2, 1, 0, 0, 2], &[0, 1, 2, 0, 1, 2], 3);
        assert_close(three.mcc().unwrap(), 0.261_116);
        let answers = three.answers();
        for (answers, f1) in answers.iter().zip([0.8, 0.0, 0.5]) {
            assert_close(answers.f1(), f1);
        }
        assert_close(macro_average(&answers, Answers::f1).unwrap(), 0.433_333);

        assert_eq!(Confusion::new(&[1, 1, 1, 1], &[0, 1, 1, 0], 2).mcc(), Some(0.0));
        // With one class in truth there is nothing to tell apart.
        for predicted in [[1, 1, 1], [0, 1, 0]] {
            assert_eq!(Confusion::new(&predicted, &[1, 1, 1], 2).mcc(), None);
        }
        assert_eq!((Confusion::empty(2).mcc(), Answers::default().mcc()), (None, None));
    }

    #[test]
    fn precision_and_recall_of_each_class() {
        // Truth in rows: 3 of class 0 (2 found), 2 of class 1 (1 found), 1 of class 2 (found).
        let confusion = Confusion::new(&[0, 0, 1, 1, 2, 2], &[0, 0, 0, 1, 1, 2], 3);
        let answers = confusion.answers();
        let of = |measure: fn(&Answers) -> f64| answers.iter().map(measure).collect::<Vec<_>>();
        assert_eq!(of(Answers::precision), [1.0, 0.5, 0.5]);
        assert_eq!(of(Answers::recall), [2.0 / 3.0, 0.5, 1.0]);
        assert_eq!((confusion.count(1, 0), confusion.count(0, 1), confusion.total()), (1, 0, 6));
        assert_close(macro_average(&answers, Answers::precision).unwrap(), 2.0 / 3.0);
        assert_close(macro_average(&answers, Answers::recall).unwrap(), 13.0 / 18.0);
    }

    #[test]
    fn classes_that_do_not_occur_are_no_part_of_a_mean() {
        let confusion = Confusion::new(&[0, 1], &[0, 0], 4);
        // Class 1 was predicted: its F1 of 0 counts. Classes 2 and 3 were not heard of.
        assert_close(macro_average(&confusion.answers(), Answers::f1).unwrap(), 1.0 / 3.0);
        assert_eq!(macro_average(&Confusion::empty(3).answers(), Answers::f1), None);
        assert_eq!(micro_average(&Confusion::empty(3).answers(), Answers::f1), None);
        assert!(Confusion::empty(3).accuracy().is_nan());
    }

    proptest! {
        #[test]
        fn measures_agree(rows in vec((0_u32..4, 0_u32..4), 1..60)) {
            let (predicted, truth): (Vec<u32>, Vec<u32>) = rows.iter().copied().unzip();
            let confusion = Confusion::new(&predicted, &truth, 4);
            let accuracy = crate::metric::accuracy(&predicted, &truth);
            prop_assert!((confusion.accuracy() - accuracy).abs() < 1e-12);
            // With one answer per row, every wrong yes is a wrong no elsewhere.
            for measure in [Answers::precision, Answers::recall, Answers::f1] {
                let micro = micro_average(&confusion.answers(), measure).unwrap();
                prop_assert!((micro - accuracy).abs() < 1e-12);
            }
            let swapped = Confusion::new(&truth, &predicted, 4);
            let is_mixed = |series: &[u32]| series.iter().any(|class| *class != series[0]);
            prop_assert_eq!(confusion.mcc().is_some(), is_mixed(&truth));
            if let (Some(mcc), Some(swapped)) = (confusion.mcc(), swapped.mcc()) {
                prop_assert!((mcc - swapped).abs() < 1e-12);
                prop_assert!(mcc.abs() <= 1.0 + 1e-12);
            }
            if let (true, Some(mcc)) = (predicted == truth, confusion.mcc()) {
                prop_assert!((mcc - 1.0).abs() < 1e-12);
            }
        }

        #[test]
        fn two_classes_are_one_question(rows in vec((any::<bool>(), any::<bool>()), 1..60)) {
            let mut question = Answers::default();
            let mut confusion = Confusion::empty(2);
            for (predicted, truth) in rows {
                question.record(predicted, truth, 2);
                confusion.record(predicted.into(), truth.into(), 2);
            }
            prop_assert_eq!(confusion.answers()[1], question);
            match (confusion.mcc(), question.mcc()) {
                (Some(one), Some(other)) => prop_assert!((one - other).abs() < 1e-12),
                (one, other) => prop_assert_eq!(one, other),
            }
        }
    }
}
