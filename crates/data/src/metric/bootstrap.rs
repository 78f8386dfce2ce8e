//! How far a measure would move had other rows been drawn: seeded percentile intervals.

use serde::{Deserialize, Serialize};

use crate::random::{below, stream};

/// An interval that covers 95 % of what resamples give.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// The 2.5th percentile.
    pub low: f64,
    /// The 97.5th percentile.
    pub high: f64,
}

/// How often, and from which seed, rows are drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: u32,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// A thousand resamples.
    fn default() -> Self {
        Self { resamples: 1000, seed: 42 }
    }
}

impl Bootstrap {
    /// The interval of one measure of `rows` rows.
    ///
    /// `measure` is told how often each row was drawn, which is all a measure needs; [`drawn`] lists the rows themselves. A
    /// resample where it has no value, or none that is finite, is left out; without any value there is no interval.
    pub fn interval(&self, rows: usize, mut measure: impl FnMut(&[u32]) -> Option<f64>) -> Option<Interval> {
        self.intervals(rows, |times| vec![measure(times)]).pop().flatten()
    }

    /// The intervals of several measures that are computed together, always the same ones in the same order.
    pub fn intervals(
        &self,
        rows: usize,
        mut measures: impl FnMut(&[u32]) -> Vec<Option<f64>>,
    ) -> Vec<Option<Interval>> {
        let mut values: Vec<Vec<f64>> = Vec::new();
        let mut times = vec![0_u32; rows];
        for resample in 0..self.resamples {
            // A stream for each resample: the first are the same however many follow.
            let mut random = stream(self.seed, resample.into());
            times.fill(0);
            for _ in 0..rows {
                times[below(rows, &mut random)] += 1;
            }
            let found = measures(&times);
            values.resize_with(found.len(), Vec::new);
            let finite = found.into_iter().map(|value| value.filter(|value| value.is_finite()));
            values.iter_mut().zip(finite).for_each(|(values, value)| values.extend(value));
        }
        values.into_iter().map(interval_of).collect()
    }
}

/// The rows of a resample, each as often as it was drawn.
pub fn drawn(times: &[u32]) -> impl Iterator<Item = usize> {
    times.iter().enumerate().flat_map(|(row, &times)| (0..times).map(move |_| row))
}

fn interval_of(mut values: Vec<f64>) -> Option<Interval> {
    values.sort_unstable_by(f64::total_cmp);
    Some(Interval { low: percentile(&values, 2.5)?, high: percentile(&values, 97.5)? })
}

/// The value below which so many percent of sorted values lie, between two of them by their distance.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "a place among a few thousand values"
)]
fn percentile(sorted: &[f64], percent: f64) -> Option<f64> {
    let place = percent / 100.0 * sorted.len().checked_sub(1)? as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    Some(sorted[below] + (sorted[above] - sorted[below]) * place.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64], times: &[u32]) -> Option<f64> {
        let (sum, count) = drawn(times).fold((0.0, 0.0), |(sum, count), row| (sum + values[row], count + 1.0));
        (count > 0.0).then_some(sum / count)
    }

    #[test]
    fn percentiles_lie_between_values() {
        let values = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert_eq!(
            [0.0, 50.0, 62.5, 100.0].map(|percent| percentile(&values, percent)),
            [Some(1.0), Some(3.0), Some(3.5), Some(5.0)]
        );
        assert_eq!(percentile(&[7.0], 2.5), Some(7.0));
        assert_eq!(percentile(&[], 2.5), None);
    }

    #[test]
    fn the_interval_of_a_mean_is_as_wide_as_theory_says() {
        // Alternating 0 and 1: the mean of 400 has standard error 0.5 / 20.
        let values: Vec<f64> = (0..400).map(|row| f64::from(row % 2)).collect();
        let interval = Bootstrap::default().interval(values.len(), |times| mean(&values, times)).unwrap();
        assert!((interval.low - (0.5 - 1.96 * 0.025)).abs() < 0.005, "{interval:?}");
        assert!((interval.high - (0.5 + 1.96 * 0.025)).abs() < 0.005, "{interval:?}");
    }

    #[test]
    fn the_seed_decides() {
        let values = [0.1, 0.7, 0.3, 0.9, 0.2, 0.5];
        let interval = |seed| Bootstrap { resamples: 200, seed }.interval(6, |times| mean(&values, times));
        assert_eq!(interval(1), interval(1));
        assert_ne!(interval(1), interval(2));
    }

    #[test]
    fn without_values_there_is_no_interval() {
        let bootstrap = Bootstrap::default();
        assert_eq!(bootstrap.interval(0, |times| mean(&[], times)), None);
        assert_eq!(bootstrap.interval(5, |_| None), None);
        assert_eq!(Bootstrap { resamples: 0, ..bootstrap }.interval(5, |_| Some(1.0)), None);
    }

    #[test]
    fn a_resample_holds_as_many_rows() {
        Bootstrap { resamples: 20, seed: 3 }.interval(50, |times| {
            assert_eq!(drawn(times).count(), 50);
            None
        });
        assert_eq!(drawn(&[0, 2, 1]).collect::<Vec<_>>(), [1, 1, 2]);
    }
}
