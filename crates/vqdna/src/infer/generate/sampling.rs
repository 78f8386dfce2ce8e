//! From logits to the next id.

use rand::RngExt;

use crate::seed::stream;

/// How ids are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely id.
    pub temperature: f64,
    /// Ids that may be drawn, the most likely ones; 0 for all.
    pub top_k: usize,
    /// The smallest set of most likely ids with more than this probability may be drawn; 0 for all.
    pub top_p: f64,
    /// From which everything is drawn.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 0.0, seed: 1 }
    }
}

impl Sampling {
    /// Draws one of the allowed ids; none if there is none. What is drawn depends on the seed and on `place` alone: sequence, position, level.
    pub(super) fn draw(&self, logits: &[f32], allowed: &dyn Fn(u32) -> bool, place: [u64; 3]) -> Option<u32> {
        let ids: Vec<u32> = (0..logits.len() as u32).filter(|&id| allowed(id)).collect();
        let logits: Vec<f64> = ids.iter().map(|&id| f64::from(logits[id as usize])).collect();
        if self.temperature <= 0.0 {
            return by_probability(&logits).first().map(|&at| ids[at]);
        }
        let number: f64 = stream(self.seed, "next token", &place).random();
        let shares = self.probabilities(&logits);
        let mut below = 0.0;
        let drawn = shares.iter().position(|&share| {
            below += share;
            number < below
        });
        // Of rounding, the sum may end a little below 1.
        let last = || shares.iter().rposition(|&share| share > 0.0);
        drawn.or_else(last).map(|at| ids[at])
    }

    /// Probabilities of ids with these logits: temperature, then the most likely `top_k`, then `top_p`.
    fn probabilities(&self, logits: &[f64]) -> Vec<f64> {
        let order = by_probability(logits);
        let highest = order.first().map_or(0.0, |&at| logits[at]);
        let kept = if self.top_k == 0 { order.len() } else { self.top_k.min(order.len()) };
        let mut shares = vec![0.0; logits.len()];
        for &at in &order[..kept] {
            shares[at] = ((logits[at] - highest) / self.temperature).exp();
        }
        normalize(&mut shares);
        if self.top_p > 0.0 {
            let mut mass = 0.0;
            for &at in &order {
                if mass > self.top_p {
                    shares[at] = 0.0;
                }
                mass += shares[at];
            }
            normalize(&mut shares);
        }
        shares
    }
}

/// Places by falling logit; of equal ones, the first comes first.
fn by_probability(logits: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
    order
}

fn normalize(shares: &mut [f64]) {
    let sum: f64 = shares.iter().sum();
    for share in shares {
        *share /= sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 5] = [2.0, 1.0, 0.5, -1.0, 1.0];

    fn shares(temperature: f64, top_k: usize, top_p: f64) -> Vec<f64> {
        Sampling { temperature, top_k, top_p, seed: 1 }.probabilities(&LOGITS)
    }

    /// Vectors G1 and G2 of our specification of objectives.
    #[test]
    fn filters_keep_what_they_should() {
        for (found, expected) in [
            (shares(1.0, 0, 0.0), [0.497_840, 0.183_145, 0.111_083, 0.024_786, 0.183_145]),
            (shares(0.5, 0, 0.0), [0.755_894, 0.102_299, 0.037_634, 0.001_874, 0.102_299]),
            (shares(1.0, 2, 0.0), [0.731_059, 0.268_941, 0.0, 0.0, 0.0]),
            (shares(1.0, 0, 0.7), [0.576_117, 0.211_942, 0.0, 0.0, 0.211_942]),
            (shares(1.0, 3, 0.7), [0.731_059, 0.268_941, 0.0, 0.0, 0.0]),
            (shares(2.0, 0, 0.9), [0.372_380, 0.225_860, 0.175_900, 0.0, 0.225_860]),
        ] {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
            }
        }
    }

    #[test]
    fn draws_are_those_of_their_place() {
        let logits = LOGITS.map(|v| v as f32);
        let sampling = Sampling::default();
        let draw = |place| sampling.draw(&logits, &|_| true, [0, place, 0]).expect("an id");
        let drawn: Vec<u32> = (0..2000).map(draw).collect();
        assert_eq!(drawn, (0..2000).map(draw).collect::<Vec<_>>());
        for (id, share) in (0..).zip(sampling.probabilities(&LOGITS)) {
            let found = drawn.iter().filter(|&&drawn| drawn == id).count() as f64 / 2000.0;
            assert!((found - share).abs() < 0.05, "{id}: {found}, not {share}");
        }
        let greedy = Sampling { temperature: 0.0, ..sampling };
        let single = Sampling { top_k: 1, ..sampling };
        for sampling in [greedy, single] {
            assert_eq!(sampling.draw(&logits, &|_| true, [0, 7, 0]), Some(0));
            assert_eq!(sampling.draw(&logits, &|id| id % 2 == 1, [0, 7, 0]), Some(1));
            assert_eq!(sampling.draw(&logits, &|_| false, [0, 7, 0]), None);
        }
    }
}
