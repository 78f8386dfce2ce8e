//! The merges of a vocabulary, by rank and by pair.

use crate::alphabet::BaseId;

/// A token's id. The largest is no token's.
pub(super) type Id = u16;

/// No token.
pub(super) const NONE: Id = Id::MAX;

/// Two neighbouring tokens that become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Merge {
    pub(super) left: Id,
    pub(super) right: Id,
    pub(super) made: Id,
}

/// Tokens over bases, and the merges that make them. The rank of a merge is its place; lower ranks come first.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// The token of each base; [`NONE`] for N where the vocabulary has no token for it.
    pub(super) letters: [Id; 5],
    /// The bases of each token; none for special ones.
    pub(super) bases: Vec<Box<[BaseId]>>,
    pub(super) merges: Vec<Merge>,
    pairs: Pairs,
}

impl Rules {
    /// Merges whose parts joined are the text of what they make.
    pub(super) fn new(letters: [Id; 5], bases: Vec<Box<[BaseId]>>, merges: Vec<Merge>) -> Self {
        let pairs = Pairs::new(&merges);
        Self { letters, bases, merges, pairs }
    }

    /// The rank of the merge of two tokens.
    pub(super) fn rank(&self, left: Id, right: Id) -> Option<u32> {
        self.pairs.rank(left, right)
    }

    pub(super) fn width(&self, id: Id) -> usize {
        self.bases[usize::from(id)].len()
    }

    /// When each token is made: 0 for single bases, else one more than the rank of its merge, and [`u32::MAX`] for never.
    ///
    /// `None` if the merges are not in order: if two make the same token, or if one has a part that a later one makes.
    pub(super) fn times(&self) -> Option<Vec<u32>> {
        let mut times = vec![u32::MAX; self.bases.len()];
        for letter in self.letters.into_iter().filter(|&letter| letter != NONE) {
            times[usize::from(letter)] = 0;
        }
        for (time, merge) in (1..).zip(&self.merges) {
            let is_made = |id: Id| times[usize::from(id)] != u32::MAX;
            if is_made(merge.made) || !is_made(merge.left) || !is_made(merge.right) {
                return None;
            }
            times[usize::from(merge.made)] = time;
        }
        Some(times)
    }
}

/// Ranks by pair of ids, in open addressing: a sequence asks about every few bases.
#[derive(Clone, Debug)]
struct Pairs {
    /// A pair and its rank; free ones have the largest rank.
    slots: Vec<(u32, u32)>,
}

const FREE: u32 = u32::MAX;

impl Pairs {
    fn new(merges: &[Merge]) -> Self {
        let mut pairs = Self { slots: vec![(0, FREE); (4 * merges.len()).next_power_of_two()] };
        for (rank, merge) in (0..).zip(merges) {
            let key = key(merge.left, merge.right);
            let slot = pairs.slot(key);
            pairs.slots[slot] = (key, rank);
        }
        pairs
    }

    fn rank(&self, left: Id, right: Id) -> Option<u32> {
        let rank = self.slots[self.slot(key(left, right))].1;
        (rank != FREE).then_some(rank)
    }

    /// Where a pair is, or would be: at most half of the slots are taken.
    fn slot(&self, key: u32) -> usize {
        let last = self.slots.len() - 1;
        let hash = u64::from(key).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let mut slot = hash as usize & last;
        while self.slots[slot].1 != FREE && self.slots[slot].0 != key {
            slot = (slot + 1) & last;
        }
        slot
    }
}

/// A pair as one number, which orders pairs by left and then by right id.
pub(super) fn key(left: Id, right: Id) -> u32 {
    u32::from(left) << 16 | u32::from(right)
}
