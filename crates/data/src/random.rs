//! Random choices that a seed fixes: the same on every machine and in every version.
//!
//! Written out because what a run drew must not change with the version of a crate that shuffles.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// One of the streams of random numbers that a seed has; they do not depend on each other.
#[must_use]
pub fn stream(seed: u64, number: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(number);
    random
}

/// A random number in `0..bound`, by multiplication; its bias, `bound` in 2⁶⁴, is beyond notice.
#[expect(clippy::cast_possible_truncation, reason = "smaller than `bound`")]
pub fn below(bound: usize, random: &mut ChaCha8Rng) -> usize {
    ((u128::from(random.next_u64()) * bound as u128) >> 64) as usize
}

/// Brings items into a random order (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for unplaced in (1..items.len()).rev() {
        items.swap(unplaced, below(unplaced + 1, random));
    }
}

/// A number in 0..1 that looks random and depends on nothing but what was hashed.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
pub fn share(hash: &blake3::Hasher) -> f64 {
    let mut bits = [0; 8];
    hash.finalize_xof().fill(&mut bits);
    (u64::from_le_bytes(bits) >> 11) as f64 / 2f64.powi(53)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_below_a_bound_are_evenly_spread() {
        let mut random = stream(1, 0);
        let mut counts = [0; 5];
        (0..10_000).for_each(|_| counts[below(5, &mut random)] += 1);
        assert!(counts.iter().all(|count| (1850..2150).contains(count)), "{counts:?}");
    }

    #[test]
    fn streams_differ_and_are_repeatable() {
        let shuffled = |seed, number| {
            let mut items: Vec<u32> = (0..20).collect();
            shuffle(&mut items, &mut stream(seed, number));
            items
        };
        assert_eq!(shuffled(1, 0), shuffled(1, 0));
        assert_ne!(shuffled(1, 0), shuffled(1, 1));
        assert_ne!(shuffled(1, 0), shuffled(2, 0));
    }
}
