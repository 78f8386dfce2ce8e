//! How often a guess is right, how evenly codes are used.

use super::real;

/// The share of positions where both slices agree, 0 to 1; NaN for empty slices.
///
/// # Panics
/// If the slices differ in length.
#[must_use]
pub fn accuracy<T: PartialEq>(predicted: &[T], truth: &[T]) -> f64 {
    assert_eq!(predicted.len(), truth.len(), "one prediction per truth");
    let correct = predicted.iter().zip(truth).filter(|(a, b)| a == b).count();
    real(correct as u64) / real(truth.len() as u64)
}

/// The perplexity of a histogram: `exp(-Σ p ln p)` with p the share of each count.
///
/// It is the number of codes that, evenly used, would be as unpredictable: 1 if a single code is used, all if all are used
/// alike, 0 if nothing was counted.
#[must_use]
pub fn perplexity(counts: &[u64]) -> f64 {
    let total: f64 = counts.iter().map(|&count| real(count)).sum();
    if total == 0.0 {
        return 0.0;
    }
    let entropy_nats: f64 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| real(count) / total)
        .map(|share| -share * share.ln())
        .sum();
    entropy_nats.exp()
}

/// The share of codes that were used at least once, 0 to 1; NaN if there are no codes.
#[must_use]
pub fn usage(counts: &[u64]) -> f64 {
    real(counts.iter().filter(|&&count| count > 0).count() as u64) / real(counts.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_close(value: f64, expected: f64) {
        assert!((value - expected).abs() < 1e-12, "{value} is not {expected}");
    }

    #[test]
    fn accuracy_counts_agreements() {
        assert_close(accuracy(b"ACGT", b"ACGA"), 0.75);
        assert!(accuracy::<u8>(&[], &[]).is_nan());
    }

    #[test]
    fn perplexity_is_the_number_of_evenly_used_codes() {
        assert_close(perplexity(&[7, 0, 0]), 1.0);
        assert_close(perplexity(&[5, 5, 5, 5]), 4.0);
        // Shares 1/2, 1/4, 1/4: entropy 1.5 ln 2.
        assert_close(perplexity(&[2, 1, 1]), 2f64.powf(1.5));
        assert_close(perplexity(&[0, 0]), 0.0);
    }

    #[test]
    fn usage_counts_codes_not_uses() {
        assert_close(usage(&[9, 0, 1, 0]), 0.5);
        assert!(usage(&[]).is_nan());
    }
}
