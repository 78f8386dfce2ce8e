//! Which sequences form a batch: those of like length, so that little of a batch is padding.

use crate::random::{shuffle, stream};

/// Batches whose worth of sequences is sorted by length at a time.
///
/// More would leave less padding, and less to chance.
const GROUP: usize = 50;

/// The batches of one epoch of training: every sequence once, in an order that is a pure function of the arguments.
///
/// The sequences are shuffled and taken in groups; each group is sorted by length and cut into batches, and the batches are
/// shuffled again. All batches but one have `batch_size` sequences.
///
/// # Panics
/// If `batch_size` is 0, or there are 2³² sequences or more.
#[must_use]
pub fn batches(lengths: &[usize], batch_size: usize, seed: u64, epoch: u64) -> Vec<Vec<u32>> {
    assert!(batch_size > 0, "a batch holds at least one sequence");
    let mut random = stream(seed, epoch);
    let mut order = numbers(lengths);
    shuffle(&mut order, &mut random);
    let mut batches = Vec::with_capacity(order.len().div_ceil(batch_size));
    for group in order.chunks_mut(GROUP * batch_size) {
        group.sort_by_key(|&sequence| lengths[sequence as usize]);
        batches.extend(group.chunks(batch_size).map(<[u32]>::to_vec));
    }
    shuffle(&mut batches, &mut random);
    batches
}

/// Batches for inference, the longest sequences first: each holds as many as fit into `max_padded_bases`, which is the number of
/// sequences times the longest of them, and at least one.
///
/// The numbers in the batches say where the result of each sequence belongs.
///
/// # Panics
/// If there are 2³² sequences or more.
#[must_use]
pub fn by_budget(lengths: &[usize], max_padded_bases: usize) -> Vec<Vec<u32>> {
    let mut order = numbers(lengths);
    order.sort_by_key(|&sequence| std::cmp::Reverse(lengths[sequence as usize]));
    let mut batches = Vec::new();
    let mut rest = &order[..];
    while let Some(&longest) = rest.first() {
        let room = max_padded_bases / lengths[longest as usize].max(1);
        let (batch, after) = rest.split_at(room.clamp(1, rest.len()));
        batches.push(batch.to_vec());
        rest = after;
    }
    batches
}

fn numbers(lengths: &[usize]) -> Vec<u32> {
    assert!(u32::try_from(lengths.len()).is_ok(), "more sequences than can be numbered");
    (0..).take(lengths.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn padding(batches: &[Vec<u32>], lengths: &[usize]) -> usize {
        let of = |batch: &Vec<u32>| {
            let lengths = batch.iter().map(|&sequence| lengths[sequence as usize]);
            batch.len() * lengths.clone().max().unwrap_or(0) - lengths.sum::<usize>()
        };
        batches.iter().map(of).sum()
    }

    proptest! {
        #[test]
        fn every_sequence_is_in_one_batch(
            lengths in vec(0_usize..300, 0..2000), size in 1_usize..9, budget in 0_usize..2000, seed: u64, epoch: u64,
        ) {
            let all: Vec<u32> = (0..).take(lengths.len()).collect();
            let training = batches(&lengths, size, seed, epoch);
            prop_assert!(training.iter().filter(|batch| batch.len() != size).count() <= 1);
            prop_assert_eq!(&training, &batches(&lengths, size, seed, epoch));
            for batches in [training, by_budget(&lengths, budget)] {
                let mut sequences = batches.concat();
                sequences.sort_unstable();
                prop_assert_eq!(&sequences, &all);
            }
            for batch in by_budget(&lengths, budget) {
                let longest = batch.iter().map(|&sequence| lengths[sequence as usize]).max().unwrap_or(0);
                prop_assert!(batch.len() == 1 || batch.len() * longest <= budget);
            }
        }
    }

    #[test]
    fn batches_differ_between_epochs_and_hold_like_lengths() {
        let lengths: Vec<usize> = (0..1000).map(|number| 100 + number * 7919 % 400).collect();
        let batches = |epoch| batches(&lengths, 8, 1, epoch);
        assert_ne!(batches(0), batches(1));
        // By chance, a batch of eight such lengths would be about a quarter padding.
        let share = padding(&batches(0), &lengths) * 100 / lengths.iter().sum::<usize>();
        assert!(share <= 2, "{share} % padding");
    }

    #[test]
    fn an_order_never_changes() {
        // Written down once: a run resumed by a later version must go on where it stopped.
        assert_eq!(batches(&[5, 1, 4, 2, 3], 2, 1, 0).concat(), [0, 4, 2, 1, 3]);
    }

    #[test]
    fn a_budget_is_filled_from_the_longest() {
        assert_eq!(by_budget(&[3, 10, 4, 5, 99], 12), [vec![4], vec![1], vec![3, 2], vec![0]]);
        assert_eq!(by_budget(&[], 12), Vec::<Vec<u32>>::new());
        assert_eq!(by_budget(&[0, 0, 0], 2), [vec![0, 1], vec![2]]);
    }
}
