//! How well scores rank what is true above what is not.

use super::real;

/// The area under the ROC curve: how often a score of a positive exceeds one of a negative, ties counting half, 0 to 1.
///
/// `None` if there are no positives or no negatives, or a score is NaN.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn auroc(scores: &[f64], truth: &[bool]) -> Option<f64> {
    areas_of(scores, truth).map(|areas| areas.roc)
}

/// The area under the precision-recall curve as average precision: `Σ (Rₙ - Rₙ₋₁) Pₙ` over distinct thresholds, without
/// interpolation, 0 to 1.
///
/// `None` as for [`auroc`].
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn auprc(scores: &[f64], truth: &[bool]) -> Option<f64> {
    areas_of(scores, truth).map(|areas| areas.precision_recall)
}

/// The share of pairs where the real sequence scores higher than its control; ties are wrong. NaN without pairs.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn paired_accuracy(real_scores: &[f64], control_scores: &[f64]) -> f64 {
    assert_eq!(real_scores.len(), control_scores.len(), "one control per sequence");
    let right = real_scores.iter().zip(control_scores).filter(|(real, control)| real > control).count();
    real(right as u64) / real(real_scores.len() as u64)
}

fn areas_of(scores: &[f64], truth: &[bool]) -> Option<Areas> {
    assert_eq!(scores.len(), truth.len(), "one score per truth");
    Ranking::of(scores.iter().copied()).areas(|row| truth[row], &vec![1; truth.len()])
}

/// The areas under both curves.
#[derive(Clone, Copy, Debug)]
pub(super) struct Areas {
    pub(super) roc: f64,
    pub(super) precision_recall: f64,
}

/// Rows in the order of their scores, the lowest first.
///
/// Made once, it serves every resample: those say how often each row counts.
#[derive(Clone, Debug)]
pub(super) struct Ranking {
    order: Vec<u32>,
    /// Where in the order each run of equal scores ends.
    ends: Vec<usize>,
    has_nan: bool,
}

impl Ranking {
    pub(super) fn of(scores: impl Iterator<Item = f64>) -> Self {
        let mut ranked: Vec<(f64, u32)> = scores.zip(0..).collect();
        let has_nan = ranked.iter().any(|(score, _)| score.is_nan());
        ranked.sort_unstable_by(|(a, row), (b, other)| a.total_cmp(b).then(row.cmp(other)));
        let mut ends = Vec::new();
        for run in ranked.chunk_by(|(a, _), (b, _)| a == b) {
            ends.push(ends.last().unwrap_or(&0) + run.len());
        }
        Self { order: ranked.into_iter().map(|(_, row)| row).collect(), ends, has_nan }
    }

    /// The rows of each run of equal scores, the lowest first.
    fn runs(&self) -> impl Iterator<Item = &[u32]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let run = &self.order[start..end];
            start = end;
            run
        })
    }

    /// The areas under both curves, each row counting `times[row]` times.
    pub(super) fn areas(&self, is_positive: impl Fn(usize) -> bool, times: &[u32]) -> Option<Areas> {
        let mut runs = Vec::with_capacity(self.ends.len());
        let (mut all_positives, mut all_negatives) = (0, 0);
        for run in self.runs() {
            let (mut positives, mut negatives) = (0_u64, 0_u64);
            for row in run.iter().map(|&row| row as usize) {
                *(if is_positive(row) { &mut positives } else { &mut negatives }) += u64::from(times[row]);
            }
            all_positives += positives;
            all_negatives += negatives;
            runs.push((positives, negatives));
        }
        if all_positives == 0 || all_negatives == 0 || self.has_nan {
            return None;
        }
        let (mut positives_below, mut negatives_below) = (0, 0);
        // Twice the number of pairs in the right order, so that ties count one.
        let mut pairs = 0;
        let mut precision_recall = 0.0;
        for (positives, negatives) in runs {
            pairs += positives * (2 * negatives_below + negatives);
            if positives > 0 {
                // With this run's score as the threshold, it and all above it are called positive.
                let found = real(all_positives - positives_below);
                let called = found + real(all_negatives - negatives_below);
                precision_recall += real(positives) / real(all_positives) * (found / called);
            }
            positives_below += positives;
            negatives_below += negatives;
        }
        let roc = real(pairs) / (2.0 * real(all_positives) * real(all_negatives));
        Some(Areas { roc, precision_recall })
    }

    /// The average rank of each row, counted from 1, each row counting `times[row]` times.
    pub(super) fn ranks(&self, times: &[u32]) -> Vec<f64> {
        let mut ranks = vec![0.0; self.order.len()];
        let mut below = 0;
        for run in self.runs() {
            let count: u64 = run.iter().map(|&row| u64::from(times[row as usize])).sum();
            let rank = f64::midpoint(real(below + 1), real(below + count));
            for &row in run {
                ranks[row as usize] = rank;
            }
            below += count;
        }
        ranks
    }
}

#[cfg(test)]
mod tests {
    use super::super::drawn;
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[track_caller]
    fn assert_areas(truth: &[u8], scores: &[f64], roc: f64, precision_recall: f64) {
        let truth: Vec<bool> = truth.iter().map(|&truth| truth == 1).collect();
        assert!((auroc(scores, &truth).unwrap() - roc).abs() < 1e-6);
        assert!((auprc(scores, &truth).unwrap() - precision_recall).abs() < 1e-6);
    }

    #[test]
    fn m3_areas() {
        assert_areas(&[0, 0, 1, 1], &[0.1, 0.4, 0.35, 0.8], 0.75, 0.833_333);
        let scores = [0.9, 0.8, 0.8, 0.4, 0.4, 0.3, 0.2, 0.1];
        assert_areas(&[1, 0, 1, 1, 0, 0, 1, 0], &scores, 0.6875, 0.709_524);
        assert_areas(&[1, 0, 0, 1], &[0.3; 4], 0.5, 0.5);
    }

    #[test]
    fn one_class_or_nan_has_no_area() {
        assert_eq!(auroc(&[0.1, 0.2], &[true, true]), None);
        assert_eq!(auprc(&[0.1, 0.2], &[false, false]), None);
        assert_eq!(auroc(&[0.1, f64::NAN], &[true, false]), None);
        assert_eq!(auroc(&[], &[]), None);
    }

    #[test]
    fn m5_ties_of_pairs_are_wrong() {
        assert!((paired_accuracy(&[1.0, 2.0, 3.0], &[0.0, 2.0, 4.0]) - 1.0 / 3.0).abs() < 1e-12);
        assert!(paired_accuracy(&[], &[]).is_nan());
    }

    #[test]
    fn zeros_of_either_sign_are_equal() {
        assert_eq!(auroc(&[-0.0, 0.0], &[true, false]), Some(0.5));
    }

    /// A few scores, with ties, and how often each row counts.
    fn rows() -> impl Strategy<Value = Vec<((u8, bool), u32)>> {
        vec(((0_u8..8, any::<bool>()), 0_u32..4), 1..40)
    }

    proptest! {
        #[test]
        fn the_area_is_the_share_of_ordered_pairs(rows in rows()) {
            let scores: Vec<f64> = rows.iter().map(|((score, _), _)| (*score).into()).collect();
            let truth: Vec<bool> = rows.iter().map(|((_, truth), _)| *truth).collect();
            let (mut right, mut pairs) = (0.0, 0.0);
            for (positive, _) in scores.iter().zip(&truth).filter(|(_, truth)| **truth) {
                for (negative, _) in scores.iter().zip(&truth).filter(|(_, truth)| !**truth) {
                    pairs += 1.0;
                    right += if positive > negative { 1.0 } else if positive < negative { 0.0 } else { 0.5 };
                }
            }
            prop_assert_eq!(auroc(&scores, &truth), (pairs > 0.0).then_some(right / pairs));
            // What rises with the score ranks alike; what falls ranks the other way round.
            let steep: Vec<f64> = scores.iter().map(|score| score.exp()).collect();
            prop_assert_eq!(auroc(&steep, &truth), auroc(&scores, &truth));
            prop_assert_eq!(auprc(&steep, &truth), auprc(&scores, &truth));
            let falling: Vec<f64> = scores.iter().map(|score| -score).collect();
            if let (Some(area), Some(other)) = (auroc(&scores, &truth), auroc(&falling, &truth)) {
                prop_assert!((area + other - 1.0).abs() < 1e-12);
            }
        }

        #[test]
        fn counting_a_row_twice_is_having_it_twice(rows in rows()) {
            let scores: Vec<f64> = rows.iter().map(|((score, _), _)| (*score).into()).collect();
            let times: Vec<u32> = rows.iter().map(|(_, times)| *times).collect();
            let ranking = Ranking::of(scores.iter().copied());
            let repeated: Vec<f64> = drawn(&times).map(|row| scores[row]).collect();
            let truth: Vec<bool> = drawn(&times).map(|row| rows[row].0.1).collect();
            let areas = ranking.areas(|row| rows[row].0.1, &times);
            prop_assert_eq!(areas.map(|areas| areas.roc), auroc(&repeated, &truth));
            prop_assert_eq!(areas.map(|areas| areas.precision_recall), auprc(&repeated, &truth));

            let ranks = ranking.ranks(&times);
            let expected = Ranking::of(repeated.iter().copied()).ranks(&vec![1; repeated.len()]);
            prop_assert_eq!(drawn(&times).map(|row| ranks[row]).collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn ties_share_their_ranks() {
        assert_eq!(Ranking::of([0.3, 0.1, 0.3, 0.2].into_iter()).ranks(&[1; 4]), [3.5, 1.0, 3.5, 2.0]);
    }
}
