//! How closely numbers follow others.

use super::{ranking::Ranking, real};

/// How closely two series go together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Correlation {
    /// -1 to 1; 0 if a series is constant, NaN if one holds a NaN.
    pub value: f64,
    /// Whether a series is constant, so that nothing can go with it: to be told to whoever reads the value.
    pub is_constant: bool,
}

impl Correlation {
    const CONSTANT: Self = Self { value: 0.0, is_constant: true };
}

/// Pearson's correlation coefficient.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn pearson(x: &[f64], y: &[f64]) -> Correlation {
    assert_eq!(x.len(), y.len(), "numbers in pairs");
    weighted_pearson(x, y, &vec![1; x.len()])
}

/// Spearman's correlation coefficient: Pearson's of the ranks, where ties share their average rank.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn spearman(x: &[f64], y: &[f64]) -> Correlation {
    assert_eq!(x.len(), y.len(), "numbers in pairs");
    let times = vec![1; x.len()];
    let [x, y] = [x, y].map(|series| Ranking::of(series.iter().copied()).ranks(&times));
    weighted_pearson(&x, &y, &times)
}

/// The mean of squared differences; NaN for empty slices.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn mse(predicted: &[f64], truth: &[f64]) -> f64 {
    assert_eq!(predicted.len(), truth.len(), "one prediction per truth");
    weighted_mse(predicted, truth, &vec![1; truth.len()])
}

/// The coefficient of determination: 1 less the share of the variance of `truth` that is left; negative if the mean of `truth`
/// would predict better. `None` if `truth` is constant or empty.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn r2(predicted: &[f64], truth: &[f64]) -> Option<f64> {
    assert_eq!(predicted.len(), truth.len(), "one prediction per truth");
    weighted_r2(predicted, truth, &vec![1; truth.len()])
}

/// 1 less the cosine of the angle between two vectors, 0 to 2; NaN if one is all zeros.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn cosine_distance(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len(), "vectors of one space");
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    1.0 - dot(x, y) / (dot(x, x) * dot(y, y)).sqrt()
}

/// As [`pearson`], row `i` counting `times[i]` times.
pub(super) fn weighted_pearson(x: &[f64], y: &[f64], times: &[u32]) -> Correlation {
    if is_constant(x, times) || is_constant(y, times) {
        return Correlation::CONSTANT;
    }
    let products = |scales: [f64; 2]| {
        let means = [mean(x, times), mean(y, times)];
        let [mut xx, mut xy, mut yy] = [0.0; 3];
        for ((x, y), &times) in x.iter().zip(y).zip(times) {
            let (x, y, times) = ((x - means[0]) / scales[0], (y - means[1]) / scales[1], f64::from(times));
            xx += times * x * x;
            xy += times * x * y;
            yy += times * y * y;
        }
        [xx, xy, yy]
    };
    let [mut xx, mut xy, mut yy] = products([1.0; 2]);
    if !is_safe(xx) || !is_safe(yy) {
        [xx, xy, yy] = products([spread(x, times), spread(y, times)]);
    }
    // Rounding may lead a little beyond; `clamp` keeps NaN.
    Correlation { value: (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0), is_constant: false }
}

/// Whether a sum of squares, and the product of two, is far from the ends of the range of numbers.
fn is_safe(squares: f64) -> bool {
    (1e-140..1e140).contains(&squares) || squares.is_nan()
}

/// The largest distance of a number that counts from their mean.
fn spread(series: &[f64], times: &[u32]) -> f64 {
    let mean = mean(series, times);
    let counted = series.iter().zip(times).filter(|(_, times)| **times > 0);
    counted.map(|(number, _)| (number - mean).abs()).fold(0.0, f64::max)
}

/// As [`mse`], row `i` counting `times[i]` times.
pub(super) fn weighted_mse(predicted: &[f64], truth: &[f64], times: &[u32]) -> f64 {
    squares(predicted.iter().zip(truth).map(|(predicted, truth)| predicted - truth), times) / total(times)
}

/// As [`r2`], row `i` counting `times[i]` times.
pub(super) fn weighted_r2(predicted: &[f64], truth: &[f64], times: &[u32]) -> Option<f64> {
    if is_constant(truth, times) {
        return None;
    }
    let mean = mean(truth, times);
    let shares = |scale: f64| {
        let left = squares(predicted.iter().zip(truth).map(|(predicted, truth)| (predicted - truth) / scale), times);
        (left, squares(truth.iter().map(|truth| (truth - mean) / scale), times))
    };
    let (left, all) = match shares(1.0) {
        (left, all) if is_safe(all) => (left, all),
        _ => shares(spread(truth, times)),
    };
    Some(1.0 - left / all)
}

/// Whether the rows that count hold a single number, or there are none.
fn is_constant(series: &[f64], times: &[u32]) -> bool {
    let mut counted = series.iter().zip(times).filter(|(_, times)| **times > 0).map(|(number, _)| number);
    counted.next().is_none_or(|first| counted.all(|number| number == first))
}

fn mean(series: &[f64], times: &[u32]) -> f64 {
    series.iter().zip(times).map(|(number, &times)| number * f64::from(times)).sum::<f64>() / total(times)
}

fn squares(differences: impl Iterator<Item = f64>, times: &[u32]) -> f64 {
    differences.zip(times).map(|(difference, &times)| difference * difference * f64::from(times)).sum()
}

fn total(times: &[u32]) -> f64 {
    real(times.iter().map(|&times| u64::from(times)).sum())
}

#[cfg(test)]
mod tests {
    use super::super::drawn;
    use super::*;
    use proptest::{collection::vec, prelude::*};

    #[track_caller]
    fn assert_close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-6, "{value} is not {expected}");
    }

    #[test]
    fn m2_spearman() {
        let spearman = spearman(&[0.1, 0.4, 0.4, 0.9, 0.2], &[1.0, 3.0, 2.0, 5.0, 4.0]);
        assert_close(spearman.value, 0.666_886);
        assert!(!spearman.is_constant);
    }

    #[test]
    fn m4_cosine_distance() {
        assert_close(cosine_distance(&[1.0, 2.0, 2.0], &[2.0, 1.0, 2.0]), 0.111_111);
        assert!(cosine_distance(&[0.0], &[1.0]).is_nan());
    }

    #[test]
    fn a_constant_goes_with_nothing() {
        let constant = Correlation { value: 0.0, is_constant: true };
        assert_eq!(pearson(&[0.1; 3], &[1.0, 2.0, 3.0]), constant);
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[0.1; 3]), constant);
        assert_eq!(pearson(&[], &[]), constant);
        assert_eq!(r2(&[1.0, 2.0], &[3.0, 3.0]), None);
        assert!(pearson(&[f64::NAN, 1.0], &[1.0, 2.0]).value.is_nan());
    }

    #[test]
    fn tiny_and_huge_numbers_go_together_as_others_do() {
        let (x, y) = ([1.0, 2.0, 2.5, 6.0], [1.0, 3.0, 2.0, 4.0]);
        for scale in [1e-200, 1e-8, 1e100, 1e200] {
            let [many_x, many_y] = [x, y].map(|series| series.map(|number| number * scale));
            assert_close(pearson(&many_x, &many_y).value, pearson(&x, &y).value);
            assert_close(pearson(&many_x, &y).value, pearson(&x, &y).value);
            assert_close(r2(&many_x, &many_y).unwrap(), r2(&x, &y).unwrap());
        }
    }

    #[test]
    fn fits_by_hand() {
        // Differences 1, 0, -1, 2; the truth has mean 2.5 and squares 2.25 + 0.25 + 0.25 + 2.25.
        let (predicted, truth) = ([2.0, 2.0, 2.0, 6.0], [1.0, 2.0, 3.0, 4.0]);
        assert_close(mse(&predicted, &truth), 1.5);
        assert_close(r2(&predicted, &truth).unwrap(), 1.0 - 6.0 / 5.0);
        // Around their means: (-1, -1, -1, 3) and (-1.5, -0.5, 0.5, 1.5): 6 / √(12 · 5).
        assert_close(pearson(&predicted, &truth).value, 6.0 / 60f64.sqrt());
        assert!(mse(&[], &[]).is_nan());
    }

    proptest! {
        #[test]
        fn counting_a_row_twice_is_having_it_twice(
            rows in vec((0_u8..6, 0_u8..6, 0_u32..4), 1..30), scale in 0.5_f64..9.0,
        ) {
            let x: Vec<f64> = rows.iter().map(|row| f64::from(row.0)).collect();
            let y: Vec<f64> = rows.iter().map(|row| f64::from(row.1)).collect();
            let times: Vec<u32> = rows.iter().map(|row| row.2).collect();
            let repeated = |series: &[f64]| drawn(&times).map(|row| series[row]).collect::<Vec<_>>();
            let (many_x, many_y) = (repeated(&x), repeated(&y));
            let weighted = weighted_pearson(&x, &y, &times);
            prop_assert!((weighted.value - pearson(&many_x, &many_y).value).abs() < 1e-9);
            prop_assert_eq!(weighted.is_constant, pearson(&many_x, &many_y).is_constant);
            if let Some(r2) = weighted_r2(&x, &y, &times) {
                prop_assert!((weighted_mse(&x, &y, &times) - mse(&many_x, &many_y)).abs() < 1e-9);
                prop_assert!((r2 - self::r2(&many_x, &many_y).unwrap()).abs() < 1e-9);
            }
            // Neither scale nor place matter, and ranks do not change with either.
            let moved: Vec<f64> = x.iter().map(|x| scale * x - 3.0).collect();
            prop_assert!((pearson(&moved, &y).value - pearson(&x, &y).value).abs() < 1e-9);
            prop_assert!((spearman(&moved, &y).value - spearman(&x, &y).value).abs() < 1e-9);
            prop_assert!((spearman(&y, &x).value - spearman(&x, &y).value).abs() < 1e-9);
        }
    }
}
