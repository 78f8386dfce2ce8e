//! What is held of a corpus: all of it up to a bound, and beyond that chunks of it that chance chooses.

use rand_chacha::ChaCha8Rng;

use crate::{
    alphabet::{BaseId, N},
    random::{below, stream},
};

/// Bases of a chunk: short, so that many places of a corpus are seen; long, so that few words are cut.
pub(super) const CHUNK: usize = 1 << 14;

/// Chunks of a corpus, in which N ends each segment.
#[derive(Debug)]
pub(super) struct Sample {
    most: usize,
    chunks: Vec<Vec<BaseId>>,
    /// The chunk that is being filled.
    open: Vec<BaseId>,
    seen: usize,
    random: ChaCha8Rng,
}

impl Sample {
    /// Room for `most` bases, in whole chunks.
    pub(super) fn new(most: usize, seed: u64) -> Self {
        let open = Vec::with_capacity(CHUNK);
        Self { most: (most / CHUNK).max(1), chunks: Vec::new(), open, seen: 0, random: stream(seed, 0) }
    }

    pub(super) fn add(&mut self, segment: &[BaseId]) {
        self.extend(segment);
        self.extend(&[N]);
    }

    fn extend(&mut self, mut bases: &[BaseId]) {
        while !bases.is_empty() {
            let (now, later) = bases.split_at(bases.len().min(CHUNK - self.open.len()));
            self.open.extend_from_slice(now);
            bases = later;
            if self.open.len() == CHUNK {
                self.close();
            }
        }
    }

    /// Every chunk is equally likely to be held (Algorithm R). Which ones are depends on the seed and on the corpus alone.
    fn close(&mut self) {
        let chunk = std::mem::replace(&mut self.open, Vec::with_capacity(CHUNK));
        self.seen += 1;
        if self.chunks.len() < self.most {
            self.chunks.push(chunk);
        } else if let Some(held) = self.chunks.get_mut(below(self.seen, &mut self.random)) {
            *held = chunk;
        }
    }

    /// The chunks, and whether each goes on where the one before it ends.
    pub(super) fn finish(mut self) -> (Vec<Vec<BaseId>>, bool) {
        if !self.open.is_empty() {
            self.close();
        }
        (self.chunks, self.seen <= self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(most: usize, seed: u64, segments: &[Vec<BaseId>]) -> (Vec<BaseId>, bool) {
        let mut sample = Sample::new(most, seed);
        for segment in segments {
            sample.add(segment);
        }
        let (chunks, is_whole) = sample.finish();
        (chunks.concat(), is_whole)
    }

    #[test]
    fn a_small_corpus_is_held_whole() {
        let segments = [vec![0; 20_000], vec![], vec![1; 3]];
        let (bases, is_whole) = sample(40_000, 0, &segments);
        assert!(is_whole);
        assert_eq!(bases, [&*vec![0; 20_000], &[N, N], &[1; 3], &[N]].concat());
    }

    #[test]
    fn chunks_of_a_large_one_are_chosen_by_the_seed() {
        let segments: Vec<Vec<BaseId>> = (0..N).cycle().take(400).map(|base| vec![base; CHUNK - 1]).collect();
        let (first, is_whole) = sample(100 * CHUNK, 1, &segments);
        assert!(!is_whole);
        assert_eq!(first.len(), 100 * CHUNK);
        assert_eq!(first, sample(100 * CHUNK, 1, &segments).0);
        assert_ne!(first, sample(100 * CHUNK, 2, &segments).0);
        let of = |base: BaseId| first.iter().map(|&other| usize::from(other == base)).sum::<usize>() / CHUNK;
        assert!((0..4).all(|base| (10..40).contains(&of(base))), "{:?}", [0, 1, 2, 3].map(of));
    }
}
