//! Markov models of bases, what a model that predicts the next base has to beat: how often each base follows each context of up to `most`
//! bases, on both strands or one.
//!
//! Two ways to a probability are measured, for every order at once. *Add-one*: (n(c, x) + 1) / (n(c) + 4) in the context of exactly as many
//! bases as the order; a base with fewer known ones before it costs 2 bits. *Back-off*: from p = 1/4 over the contexts of 0, 1, 2 and so on
//! bases, p ← (n(c, x) + d p) / (n(c) + d); a base with fewer known ones before it stops at the longest context there is.

use crate::alphabet::{BaseId, N, reverse_complement};

/// The longest context: counts of order `k` take 4^(k + 2) bytes.
pub const MOST_ORDER: usize = 12;

/// Counts of bases after contexts.
#[derive(Clone, Debug)]
pub struct Markov {
    /// For each order, four counts a context.
    counts: Vec<Vec<u32>>,
}

/// What bases cost under every order.
#[derive(Clone, Debug, PartialEq)]
pub struct Costs {
    /// Bits of all bases, order by order, by add-one.
    pub add_one: Vec<f64>,
    /// The same by back-off.
    pub back_off: Vec<f64>,
    /// Bases that were charged: all but N.
    pub bases: u64,
}

impl Markov {
    /// No counts yet, for orders up to `most`.
    ///
    /// # Panics
    /// If `most` is above [`MOST_ORDER`].
    #[must_use]
    pub fn new(most: usize) -> Self {
        assert!(most <= MOST_ORDER, "`most` is {most}, but must be at most {MOST_ORDER}");
        Self { counts: (0..=most).map(|order| vec![0; 4 << (2 * order)]).collect() }
    }

    /// Counts a sequence on the strand that it is on. N is no base, and no context reaches over it. Counts stay at 2³² − 1.
    pub fn add(&mut self, sequence: &[BaseId]) {
        let mut context = Context::default();
        for &base in sequence {
            if base < N {
                for (order, counts) in self.counts.iter_mut().enumerate().take(context.known + 1) {
                    let count = &mut counts[context.place(order) + usize::from(base)];
                    *count = count.saturating_add(1);
                }
            }
            context.push(base);
        }
    }

    /// Counts a sequence and its reverse complement.
    pub fn add_both(&mut self, sequence: &[BaseId]) {
        self.add(sequence);
        let mut other = sequence.to_vec();
        reverse_complement(&mut other);
        self.add(&other);
    }

    /// What a sequence costs; `weight` is d of back-off.
    #[must_use]
    pub fn costs(&self, sequence: &[BaseId], weight: f64) -> Costs {
        let orders = self.counts.len();
        let mut costs = Costs { add_one: vec![0.0; orders], back_off: vec![0.0; orders], bases: 0 };
        let mut context = Context::default();
        for &base in sequence {
            if base < N {
                costs.bases += 1;
                let mut backed = 0.25;
                for (order, counts) in self.counts.iter().enumerate() {
                    let mut alone = 0.25;
                    if order <= context.known {
                        let counts = &counts[context.place(order)..][..4];
                        let (own, all) =
                            (f64::from(counts[usize::from(base)]), counts.iter().map(|&n| f64::from(n)).sum::<f64>());
                        alone = (own + 1.0) / (all + 4.0);
                        backed = (own + weight * backed) / (all + weight);
                    }
                    costs.add_one[order] -= alone.log2();
                    costs.back_off[order] -= backed.log2();
                }
            }
            context.push(base);
        }
        costs
    }
}

impl Costs {
    /// With what other bases cost, by the same model.
    pub fn add(&mut self, other: &Self) {
        for (sums, others) in [(&mut self.add_one, &other.add_one), (&mut self.back_off, &other.back_off)] {
            sums.resize(others.len(), 0.0);
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum += other;
            }
        }
        self.bases += other.bases;
    }
}

/// The last bases before one.
#[derive(Clone, Copy, Debug, Default)]
struct Context {
    /// Two bits each, the latest lowest.
    bases: usize,
    /// How many there are since the last N.
    known: usize,
}

impl Context {
    fn push(&mut self, base: BaseId) {
        self.known = if base < N { (self.known + 1).min(MOST_ORDER) } else { 0 };
        self.bases = (self.bases << 2 | usize::from(base & 3)) & ((1 << (2 * MOST_ORDER)) - 1);
    }

    /// Where the four counts after the last `order` bases begin.
    const fn place(self, order: usize) -> usize {
        4 * (self.bases & ((1 << (2 * order)) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alphabet::{Letter, classify};

    fn ids(letters: &[u8]) -> Vec<BaseId> {
        let id = |&letter: &u8| match classify(letter) {
            Letter::Base(id) => id,
            _ => N,
        };
        letters.iter().map(id).collect()
    }

    /// Vector G13 of our specification of objectives.
    #[test]
    fn costs_by_hand() {
        type Learn = fn(&mut Markov, &[BaseId]);
        let one: (Learn, _, _) =
            (Markov::add, [1.970_837, 1.861_392, 1.801_377, 2.091_979], [1.970_837, 1.850_163, 1.663_286, 1.755_265]);
        let both: (Learn, _, _) = (
            Markov::add_both,
            [1.985_966, 1.862_684, 1.738_561, 2.167_132],
            [1.985_966, 1.874_382, 1.642_540, 1.809_672],
        );
        for (learn, add_one, back_off) in [one, both] {
            let mut markov = Markov::new(3);
            for contig in [&b"ACGTTGCAAC"[..], b"GGATCC"] {
                learn(&mut markov, &ids(contig));
            }
            let costs = markov.costs(&ids(b"ACGATGC"), 4.0);
            assert_eq!(costs.bases, 7);
            for (found, expected) in costs.add_one.iter().zip(add_one).chain(costs.back_off.iter().zip(back_off)) {
                assert!((found / 7.0 - expected).abs() < 1e-6, "{found}, not {expected}");
            }
        }
    }

    #[test]
    fn n_is_free_and_ends_every_context() {
        let mut markov = Markov::new(4);
        markov.add(&ids(b"ACGNTTGCAAC"));
        let mut apart = Markov::new(4);
        apart.add(&ids(b"ACG"));
        apart.add(&ids(b"TTGCAAC"));
        assert_eq!(markov.counts, apart.counts);
        let mut sum = apart.costs(&ids(b"TTG"), 4.0);
        sum.add(&apart.costs(&ids(b"CAAC"), 4.0));
        let found = markov.costs(&ids(b"TTGNNCAAC"), 4.0);
        assert_eq!(found.bases, sum.bases);
        for (found, expected) in found.add_one.iter().zip(&sum.add_one).chain(found.back_off.iter().zip(&sum.back_off))
        {
            assert!((found - expected).abs() < 1e-12);
        }
    }
}
