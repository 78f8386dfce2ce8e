//! Byte-pair encoding by its definition, with a queue of pairs: for merges that are not in order, and to compare with.
//!
//! As in the library `tokenizers`, a queued merge is skipped if the two tokens at its place no longer make the same token.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::{
    narrow,
    rules::{Id, NONE, Rules},
};
use crate::alphabet::BaseId;

/// Appends the tokens of a run of bases that all have tokens. The time grows as n log n.
pub(super) fn encode(rules: &Rules, run: &[BaseId], ids: &mut Vec<u32>, ends: &mut Vec<u32>) {
    let start = ends.last().copied().unwrap_or(0);
    // The token that starts at a base, and the one that ends with it.
    let mut starting: Vec<Id> = run.iter().map(|&base| rules.letters[usize::from(base)]).collect();
    let mut ending = starting.clone();
    let rank = |left, right| rules.rank(left, right);
    let pairs = starting.windows(2).zip(0_u32..);
    let mut queue: BinaryHeap<_> =
        pairs.filter_map(|(pair, at)| Some(Reverse((rank(pair[0], pair[1])?, at)))).collect();
    while let Some(Reverse((queued, at))) = queue.pop() {
        let (at, made) = (at as usize, rules.merges[queued as usize].made);
        let left = starting[at];
        if left == NONE {
            continue;
        }
        let middle = at + rules.width(left);
        let Some(&right) = starting.get(middle) else { continue };
        if rank(left, right).is_none_or(|rank| rules.merges[rank as usize].made != made) {
            continue;
        }
        let end = middle + rules.width(right);
        starting[middle] = NONE;
        starting[at] = made;
        ending[end - 1] = made;
        if at > 0 {
            let before = ending[at - 1];
            queue.extend(rank(before, made).map(|rank| Reverse((rank, narrow(at - rules.width(before))))));
        }
        if let Some(&after) = starting.get(end) {
            queue.extend(rank(made, after).map(|rank| Reverse((rank, narrow(at)))));
        }
    }
    let mut at = 0;
    while let Some(&id) = starting.get(at) {
        at += rules.width(id);
        ids.push(u32::from(id));
        ends.push(start + narrow(at));
    }
}
