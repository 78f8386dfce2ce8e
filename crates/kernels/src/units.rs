//! Choice of disjoint units of a sequence by score: the basic units of MxDNA (Qiao et al. 2024), by greedy non-maximum suppression
//! that tolerates no overlap.

use crate::shape::fits;
use std::ops::Range;

/// What a position is that no unit covers, or at which none is anchored.
pub const NONE: i32 = -1;

/// The positions of a unit of `size` that is anchored at `anchor`: the middle one, right of the middle where `size` is even. None if it
/// does not lie within `range`, or has no positions.
#[must_use]
pub fn unit(anchor: usize, size: usize, range: &Range<usize>) -> Option<Range<usize>> {
    let start = anchor.checked_sub(size / 2)?;
    let end = start.checked_add(size)?;
    (start >= range.start && start < end && end <= range.end).then_some(start..end)
}

/// Chooses units within `range` of a sequence: of all candidates, one for each position and size, those with the highest score that
/// overlap no better one.
///
/// Equal scores go to the leftmost anchor, then to the first size; what is not a number comes last. With a size of 1 every position of
/// `range` is covered.
///
/// - `scores`: `[positions, sizes]`
/// - `anchors`, `owners`: `[positions]`, overwritten: the number of a unit's size at its anchor, and at all of its positions; [`NONE`]
///   elsewhere
///
/// # Panics
/// If a slice does not fit its shape, `range` is not one of positions, or there are 2³² candidates or more.
pub fn select(scores: &[f32], sizes: &[usize], range: Range<usize>, anchors: &mut [i32], owners: &mut [i32]) {
    let count = sizes.len();
    let positions = anchors.len();
    fits("scores", scores, &[positions, count]);
    fits("owners", owners, &[positions]);
    assert!(range.start <= range.end && range.end <= positions, "`range` is {range:?}, of {positions} positions");
    assert!(u32::try_from(scores.len()).is_ok(), "`scores` holds {} elements, too many to number", scores.len());
    anchors.fill(NONE);
    owners.fill(NONE);
    for candidate in by_score(scores, sizes, &range) {
        let (anchor, size) = (candidate / count, candidate % count);
        let Some(covered) = unit(anchor, sizes[size], &range) else { continue };
        if owners[covered.clone()].iter().all(|&owner| owner == NONE) {
            owners[covered].fill(size as i32);
            anchors[anchor] = size as i32;
        }
    }
}

/// The candidates that fit, the best first, as their places in `scores`.
fn by_score(scores: &[f32], sizes: &[usize], range: &Range<usize>) -> impl Iterator<Item = usize> + use<> {
    let count = sizes.len();
    let places = range.start * count..range.end * count;
    let fits = |&place: &usize| unit(place / count, sizes[place % count], range).is_some();
    // Score and place in one number, so that there are no equal ones and any sort will do.
    let key = |place: usize| u64::from(descending(scores[place])) << 32 | place as u64;
    let mut keys: Vec<u64> = places.filter(fits).map(key).collect();
    keys.sort_unstable();
    keys.into_iter().map(|key| (key & u64::from(u32::MAX)) as usize)
}

/// A number that is the smaller, the larger the score.
fn descending(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    // Zero has one sign only.
    let bits = (score + 0.0).to_bits();
    // Of two negative numbers, the one with the larger bits is the smaller.
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(scores: &[f32], sizes: &[usize], positions: usize) -> (Vec<i32>, Vec<i32>) {
        // Both ends are special, and their scores must not count.
        let ends = vec![9.0; sizes.len()];
        let all = [&ends[..], scores, &ends].concat();
        let (mut anchors, mut owners) = (vec![0; positions], vec![0; positions]);
        select(&all, sizes, 1..positions - 1, &mut anchors, &mut owners);
        (anchors, owners)
    }

    /// Vectors T1 to T6 of the project's specification of MxDNA.
    #[test]
    fn units_are_those_worked_out_by_hand() {
        let scores = [0.1, 0.0, 0.2, 0.3, 0.9, 0.4, 0.0, 0.5, 0.8, 0.2, 0.1, 0.7, 0.6, 0.65, 0.3, 0.05, 0.15, 0.0];
        let (anchors, owners) = selected(&scores, &[1, 2, 3], 8);
        assert_eq!(anchors, [-1, -1, 1, -1, 2, -1, 0, -1]);
        assert_eq!(owners, [-1, 1, 1, 2, 2, 2, 0, -1]);
        // Ties go to the left, then to the first size.
        assert_eq!(selected(&[0.0; 18], &[1, 2, 3], 8).1, [-1, 0, 0, 0, 0, 0, 0, -1]);
        assert_eq!(selected(&[0.1, 0.2, 0.3, 0.4], &[2], 6).0, [-1, -1, 0, -1, 0, -1]);
        assert_eq!(selected(&[0.1, 0.9, 0.2, 0.3, 0.8, 0.7, 0.6], &[3], 9).0, [-1, -1, 0, -1, -1, 0, -1, -1, -1]);
        assert_eq!(selected(&[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7], &[4], 9).1, [-1, -1, -1, -1, 0, 0, 0, 0, -1]);
        assert_eq!(selected(&[1.0; 5], &[10], 7).0, [-1; 7]);
    }

    #[test]
    fn nothing_and_one_position_are_sequences() {
        select(&[], &[1, 2], 0..0, &mut [], &mut []);
        for range in [0..1, 1..1] {
            let (mut anchors, mut owners) = ([7], [7]);
            select(&[0.5, 0.9], &[1, 2], range.clone(), &mut anchors, &mut owners);
            assert_eq!(owners, if range.is_empty() { [NONE] } else { [0] }, "{range:?}");
        }
    }

    #[test]
    fn scores_are_put_in_a_total_order() {
        let falling = [f32::INFINITY, f32::MAX, 1.0, 1e-30, 0.0, -1e-30, -1.0, f32::MIN, f32::NEG_INFINITY, f32::NAN];
        assert!(falling.is_sorted_by(|a, b| descending(*a) < descending(*b)));
        assert_eq!(descending(-0.0), descending(0.0));
    }

    /// Greedy choice as it is defined: the best candidate that is left, again and again.
    fn one_by_one(scores: &[f32], sizes: &[usize], range: &Range<usize>) -> Vec<i32> {
        let mut owners = vec![NONE; scores.len() / sizes.len()];
        loop {
            let free = |owners: &[i32], place: usize| {
                let covered = unit(place / sizes.len(), sizes[place % sizes.len()], range)?;
                owners[covered.clone()].iter().all(|&owner| owner == NONE).then_some(covered)
            };
            let left = (0..scores.len()).filter_map(|place| Some((place, free(&owners, place)?)));
            let best = left.reduce(|best, next| if scores[next.0] > scores[best.0] { next } else { best });
            let Some((place, covered)) = best else { return owners };
            owners[covered].fill((place % sizes.len()) as i32);
        }
    }

    #[test]
    fn the_best_candidate_that_is_left_is_taken_next() {
        let sizes: Vec<usize> = (1..=10).collect();
        for seed in 0..20u32 {
            let positions = 1 + seed as usize * 3;
            // Few values, so that many are equal.
            let score = |place: u32| (place.wrapping_mul(2_654_435_761).wrapping_add(seed * 97) >> 24) as f32;
            let scores: Vec<f32> = (0..positions as u32 * 10).map(score).collect();
            let (mut anchors, mut owners) = (vec![0; positions], vec![0; positions]);
            select(&scores, &sizes, 0..positions, &mut anchors, &mut owners);
            assert_eq!(owners, one_by_one(&scores, &sizes, &(0..positions)), "{positions} positions");
            assert!(owners.iter().all(|&owner| owner != NONE), "every position is covered");
        }
    }
}
