//! Byte-pair encoding from left to right, for merges that are in order: no queue of pairs, and time linear in the bases.
//!
//! **Why it is exact.** Let E(w) be the encoding of a text w by merging the pair of lowest rank again and again, the leftmost
//! first. Merges are in order if each token is made by one merge, whose parts are single bases or made by earlier ones. A
//! merge then makes no pair of its own or a lower rank, so E works in passes, one for each rank; a pass over a pair of
//! different tokens merges all its occurrences, which do not overlap, and a pass over a pair of equal ones takes each run of
//! them two by two from its left end. Call a boundary between two neighbours *kept* by E(w) if no merge crosses it.
//!
//! 1. If E(w) = t₁ … tₙ, then E(tᵢ … tⱼ) = tᵢ … tⱼ. By induction over the passes, the tokens between two kept boundaries are
//!    the same in both: pairs of different tokens do not look beyond them, and where a run of equal tokens reaches over such a
//!    boundary, an even number of them lies before it, since no merge crosses it.
//! 2. If E(tᵢ tᵢ₊₁) = tᵢ tᵢ₊₁ for all i, then E(t₁ … tₙ) = t₁ … tₙ. By induction again: a first merge that crosses a boundary,
//!    of different tokens, would also cross it in E(tᵢ tᵢ₊₁). One of equal tokens lies in a run of them that begins in some
//!    tₚ. Since no merge crosses the boundary behind tₚ in E(tₚ tₚ₊₁), an even number of them lies in tₚ; all tokens of the
//!    run up to the boundary in question consist of them alone, and hold an even number for the same reason. So no merge of
//!    the run crosses it.
//!
//! So a text has one sequence of tokens of which all neighbours are kept apart, and it is E(w). The search puts the longest
//! possible token next and steps back where none is possible. It reaches a place only with the encoding of what is before it,
//! which is unique; a place from which it had to step back is never entered again, so each is left at most once.

use super::rules::{Id, NONE, Rules};
use crate::alphabet::{BaseId, N};

/// What the search needs beside the rules.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// All tokens that can occur, by their bases.
    trie: Vec<Node>,
    /// The longest token that starts a token and is shorter.
    shorter: Vec<Id>,
    /// The two parts of each token; of a single base, [`NONE`].
    parts: Vec<[Id; 2]>,
    /// When each token is made.
    times: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// Nodes one base on; 0 for none, which is the root's number.
    next: [u32; N as usize + 1],
    token: Id,
}

impl Search {
    /// `None` if the merges are not in order.
    pub(super) fn new(rules: &Rules) -> Option<Self> {
        let times = rules.times()?;
        let tokens = rules.bases.len();
        let mut parts = vec![[NONE; 2]; tokens];
        for merge in &rules.merges {
            parts[usize::from(merge.made)] = [merge.left, merge.right];
        }
        let root = Node { next: [0; _], token: NONE };
        let mut search = Self { trie: vec![root], shorter: vec![NONE; tokens], parts, times };
        let mut occurs = vec![false; tokens];
        for letter in rules.letters.into_iter().filter(|&letter| letter != NONE) {
            occurs[usize::from(letter)] = true;
        }
        for (time, merge) in (1..).zip(&rules.merges) {
            let parts_occur = occurs[usize::from(merge.left)] && occurs[usize::from(merge.right)];
            // Earlier merges may break a token up before its own turn comes.
            occurs[usize::from(merge.made)] = parts_occur && search.are_apart(rules, merge.left, merge.right, time - 1);
        }
        for (id, _) in (0..NONE).zip(&occurs).filter(|(_, occurs)| **occurs) {
            search.insert(&rules.bases[usize::from(id)], id);
        }
        for (id, _) in (0..NONE).zip(&occurs).filter(|(_, occurs)| **occurs) {
            let bases = &rules.bases[usize::from(id)];
            search.shorter[usize::from(id)] = search.longest(&bases[..bases.len() - 1]);
        }
        Some(search)
    }

    /// Appends the tokens of a run of bases that all have tokens.
    pub(super) fn encode(&self, rules: &Rules, run: &[BaseId], ids: &mut Vec<u32>, ends: &mut Vec<u32>) {
        let before = ids.len();
        let start = ends.last().copied().unwrap_or(0);
        let mut left = Places::none(run.len());
        let mut tokens: Vec<Id> = Vec::with_capacity(run.len() / 4 + 1);
        let (mut at, mut next) = (0, self.longest(run));
        while at < run.len() {
            let last = tokens.last().copied();
            if next == NONE {
                left.insert(at);
                next = tokens.pop().expect("a text has an encoding");
                at -= rules.width(next);
                next = self.shorter[usize::from(next)];
                continue;
            }
            let end = at + rules.width(next);
            if !left.contains(end) && last.is_none_or(|last| self.are_apart(rules, last, next, u32::MAX)) {
                tokens.push(next);
                at = end;
                next = self.longest(&run[at..]);
            } else {
                next = self.shorter[usize::from(next)];
            }
        }
        ids.extend(tokens.iter().map(|&id| u32::from(id)));
        ends.extend(tokens.iter().scan(start, |end, &id| {
            *end += super::narrow(rules.width(id));
            Some(*end)
        }));
        debug_assert_eq!(ids.len() - before, tokens.len());
    }

    /// Whether no merge of a rank below `until` crosses the boundary between two tokens.
    ///
    /// Goes back in time, from the two whole tokens to the two bases at the boundary: the part that was made last is taken apart.
    fn are_apart(&self, rules: &Rules, mut left: Id, mut right: Id, until: u32) -> bool {
        // Ranks at which the two become parts of something larger. On the left, the last of equal tokens that merge two by two is
        // no longer free at that rank; on the right, the first still is.
        let (mut left_until, mut right_until) = (until, until);
        loop {
            if rules.rank(left, right).is_some_and(|rank| rank < left_until && rank <= right_until) {
                return false;
            }
            let [left_time, right_time] = [left, right].map(|id| self.times[usize::from(id)]);
            if left_time > right_time {
                left_until = left_time - 1;
                left = self.parts[usize::from(left)][1];
            } else if right_time > 0 {
                right_until = right_time - 1;
                right = self.parts[usize::from(right)][0];
            } else {
                return true;
            }
        }
    }

    fn insert(&mut self, bases: &[BaseId], id: Id) {
        let mut node = 0;
        for &base in bases {
            let next = self.trie[node].next[usize::from(base)] as usize;
            node = if next > 0 { next } else { self.grow(node, base) };
        }
        self.trie[node].token = id;
    }

    fn grow(&mut self, node: usize, base: BaseId) -> usize {
        let new = self.trie.len();
        self.trie.push(Node { next: [0; _], token: NONE });
        self.trie[node].next[usize::from(base)] = super::narrow(new);
        new
    }

    /// The longest token that a text starts with.
    fn longest(&self, text: &[BaseId]) -> Id {
        let (mut node, mut longest) = (&self.trie[0], NONE);
        for &base in text {
            let next = node.next[usize::from(base)] as usize;
            if next == 0 {
                break;
            }
            node = &self.trie[next];
            longest = if node.token == NONE { longest } else { node.token };
        }
        longest
    }
}

/// A set of places in a text.
struct Places(Vec<u64>);

impl Places {
    fn none(length: usize) -> Self {
        Self(vec![0; length / 64 + 1])
    }

    fn insert(&mut self, place: usize) {
        self.0[place / 64] |= 1 << (place % 64);
    }

    fn contains(&self, place: usize) -> bool {
        self.0[place / 64] >> (place % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::vocab::bpe::{queue, rules::Merge};

    /// Rules that are made by chance: each merge joins any two tokens that are there, in `in_order` only to new ones.
    fn rules(picks: &[(prop::sample::Index, prop::sample::Index)], in_order: bool) -> Rules {
        let mut bases: Vec<Box<[BaseId]>> = (0..N).map(|base| [base].into()).collect();
        let mut merges: Vec<Merge> = Vec::new();
        for (left, right) in picks {
            let [left, right] = [left, right].map(|pick| pick.index(bases.len()));
            let made: Box<[BaseId]> = [&*bases[left], &*bases[right]].concat().into();
            let [left, right] = [left, right].map(|id| Id::try_from(id).unwrap());
            let known = bases.iter().position(|bases| *bases == made);
            let is_merged = merges.iter().any(|merge| (merge.left, merge.right) == (left, right));
            if made.len() > 12 || is_merged || (in_order && known.is_some()) {
                continue;
            }
            let made = known.unwrap_or_else(|| {
                bases.push(made);
                bases.len() - 1
            });
            merges.push(Merge { left, right, made: Id::try_from(made).unwrap() });
        }
        if !in_order {
            merges.reverse();
        }
        Rules::new([0, 1, 2, 3, NONE], bases, merges)
    }

    /// The definition: the merge of lowest rank, the leftmost first.
    fn by_definition(rules: &Rules, text: &[BaseId]) -> Vec<u32> {
        let mut tokens: Vec<Id> = text.iter().map(|&base| base.into()).collect();
        loop {
            let ranks =
                tokens.windows(2).enumerate().filter_map(|(at, pair)| Some((rules.rank(pair[0], pair[1])?, at)));
            let Some((rank, at)) = ranks.min() else { break };
            tokens.splice(at..at + 2, [rules.merges[rank as usize].made]);
        }
        tokens.into_iter().map(u32::from).collect()
    }

    fn picks() -> impl Strategy<Value = (prop::sample::Index, prop::sample::Index)> {
        any::<(prop::sample::Index, prop::sample::Index)>()
    }

    fn text() -> impl Strategy<Value = Vec<BaseId>> {
        let part = (vec(0..N, 1..5), 1..10_usize);
        vec(part, 0..8).prop_map(|parts| parts.into_iter().flat_map(|(motif, times)| motif.repeat(times)).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_search_finds_what_the_definition_says(picks in vec(picks(), 0..40), text in text()) {
            let rules = rules(&picks, true);
            let search = Search::new(&rules).unwrap();
            let (mut ids, mut ends) = (Vec::new(), Vec::new());
            search.encode(&rules, &text, &mut ids, &mut ends);
            prop_assert_eq!(&ids, &by_definition(&rules, &text));
            let (mut queued, mut queued_ends) = (Vec::new(), Vec::new());
            queue::encode(&rules, &text, &mut queued, &mut queued_ends);
            prop_assert_eq!((ids, ends), (queued, queued_ends));
        }

        #[test]
        fn the_queue_needs_no_order(picks in vec(picks(), 0..40), text in text()) {
            let rules = rules(&picks, false);
            let (mut ids, mut ends) = (Vec::new(), Vec::new());
            queue::encode(&rules, &text, &mut ids, &mut ends);
            prop_assert_eq!(ids, by_definition(&rules, &text));
            prop_assert_eq!(ends.last().map_or(0, |&end| end as usize), text.len());
        }
    }
}
