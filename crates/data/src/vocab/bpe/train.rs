//! Learns the merges of a byte-pair encoding from a corpus.
//!
//! Again and again, the pair of neighbouring tokens that occurs most often becomes a token; of those that occur equally often,
//! the one with the lower left id, and then with the lower right id. All of this, and how often a pair counts as occurring in
//! a run such as AAA, follows the trainer of the library `tokenizers`, to which the corpus would be a list of words. One
//! thread does it, so the result depends on the corpus and the settings alone.

use std::collections::{BinaryHeap, HashMap};
use std::{cmp::Reverse, mem::take};

use serde::{Deserialize, Serialize};

use super::{
    Bpe, MAX_SIZE, MAX_WIDTH, narrow,
    rules::{Id, Merge, NONE, key},
    sample::{CHUNK, Sample},
};
use crate::{
    alphabet::{BaseId, N},
    vocab::{ConfigError, Special, text, within},
};

/// Special tokens by id, as in DNABERT-2's vocabulary.
const SPECIAL: [&str; 5] = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"];

/// The id of A; C, G and T follow, and then a token for each merge.
const FIRST: Id = 5;

/// Settings of a vocabulary that is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BpeConfig {
    /// Number of ids, special ones and single bases included. There are fewer if the corpus runs out of pairs.
    pub size: usize,
    /// Bases of the corpus that are held, at most 2³⁰; N counts too. Learning takes about 15 bytes for each.
    ///
    /// Of a larger corpus, chunks of 16,384 bases are drawn, all with equal probability.
    pub max_bases: usize,
    /// How often a pair must occur to become a token.
    pub min_count: u32,
    /// Decides which chunks are drawn.
    pub seed: u64,
}

impl Default for BpeConfig {
    /// As many ids as DNABERT-2 has, from at most 64 Mb.
    fn default() -> Self {
        Self { size: 4096, max_bases: 1 << 26, min_count: 2, seed: 0 }
    }
}

impl BpeConfig {
    /// Checks all fields.
    ///
    /// # Errors
    /// If one is out of its range.
    pub fn check(self) -> Result<(), ConfigError> {
        within("size", self.size, usize::from(FIRST) + 4..=MAX_SIZE)?;
        within("max_bases", self.max_bases, CHUNK..=1 << 30)?;
        within("min_count", self.min_count as usize, 1..=1 << 30)
    }
}

/// Learns a vocabulary from segments of bases, which are given one after the other. No token reaches over the end of a segment or
/// over N.
#[derive(Debug)]
pub struct Trainer {
    config: BpeConfig,
    sample: Sample,
}

impl Trainer {
    /// Without a base yet.
    ///
    /// # Errors
    /// If [`BpeConfig::check`] fails.
    pub fn new(config: BpeConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { config, sample: Sample::new(config.max_bases, config.seed) })
    }

    /// Adds a segment to the corpus.
    pub fn add(&mut self, segment: &[BaseId]) {
        self.sample.add(segment);
    }

    /// The vocabulary. Ids: `[UNK]` 0, `[CLS]` 1, `[SEP]` 2, `[PAD]` 3, `[MASK]` 4, A 5, C 6, G 7, T 8, then one for each merge.
    #[must_use]
    pub fn train(self) -> Bpe {
        let (chunks, is_whole) = self.sample.finish();
        let mut corpus = Corpus::new(chunks, is_whole);
        let mut names: Vec<String> = SPECIAL.map(ToString::to_string).into();
        names.extend((0..N).map(|base| text([base])));
        let mut ids: HashMap<String, Id> = names.iter().cloned().zip(0..).collect();
        let mut merges = Vec::new();
        while names.len() < self.config.size
            && let Some((left, right)) = corpus.most_frequent(self.config.min_count)
        {
            let name = names[usize::from(left)].clone() + &names[usize::from(right)];
            let made = *ids.entry(name.clone()).or_insert_with(|| {
                names.push(name);
                corpus.widths.push(corpus.widths[usize::from(left)] + corpus.widths[usize::from(right)]);
                Id::try_from(names.len() - 1).expect("`size` is in its range")
            });
            let merge = Merge { left, right, made };
            corpus.merge(merge);
            merges.push(merge);
        }
        let special = Special { padding: 3, unknown: 0, mask: 4, first: Some(1), last: Some(2) };
        let ordinary = FIRST.into()..narrow(names.len());
        Bpe::new(names, special, ordinary, merges)
    }
}

/// What ends a word; there is one before the first.
const BREAK: Id = NONE;

/// No token starts or ends with this base.
const WITHIN: Id = NONE - 1;

/// The tokens of a corpus while they become fewer.
struct Corpus {
    /// Where a token starts and where it ends stands its id; between its ends stands [`WITHIN`], and between words [`BREAK`].
    at: Vec<Id>,
    /// Bases of each token.
    widths: Vec<u32>,
    /// Pairs by [`key`].
    pairs: HashMap<u32, Pair, BuildKeyHasher>,
    /// Pairs, those that occur most often first. Counts may be out of date, and then are too large.
    queue: BinaryHeap<(u32, Reverse<u32>)>,
    /// How often each token is before a merged pair, and behind it.
    around: [Vec<u32>; 2],
}

/// Two neighbouring tokens.
#[derive(Default)]
struct Pair {
    count: u32,
    /// Where its left token starts, ascending. Some of the pairs may be gone; all that are there are listed.
    starts: Vec<u32>,
}

impl Corpus {
    fn new(chunks: Vec<Vec<BaseId>>, is_whole: bool) -> Self {
        let bases = chunks.iter().map(|chunk| chunk.len() + 1).sum::<usize>() + 2;
        let mut at = Vec::with_capacity(bases);
        at.push(BREAK);
        for chunk in chunks {
            at.extend(chunk.into_iter().map(|base| if base < N { FIRST + Id::from(base) } else { BREAK }));
            if !is_whole {
                at.push(BREAK);
            }
        }
        at.push(BREAK);
        let widths = (0..FIRST + 4).map(|id| u32::from(id >= FIRST)).collect();
        let mut corpus =
            Self { at, widths, pairs: HashMap::default(), queue: BinaryHeap::new(), around: Default::default() };
        let mut counts = HashMap::<u32, u32, BuildKeyHasher>::default();
        for pair in corpus.at.windows(2).filter(|pair| !pair.contains(&BREAK)) {
            *counts.entry(key(pair[0], pair[1])).or_default() += 1;
        }
        for (key, count) in counts {
            corpus.pairs.insert(key, Pair { count, starts: Vec::with_capacity(count as usize) });
            corpus.queue.push((count, Reverse(key)));
        }
        for (start, pair) in corpus.at.windows(2).enumerate().filter(|(_, pair)| !pair.contains(&BREAK)) {
            if let Some(pair) = corpus.pairs.get_mut(&key(pair[0], pair[1])) {
                pair.starts.push(narrow(start));
            }
        }
        corpus
    }

    fn width(&self, id: Id) -> usize {
        self.widths[usize::from(id)] as usize
    }

    fn most_frequent(&mut self, min_count: u32) -> Option<(Id, Id)> {
        while let Some((count, Reverse(key))) = self.queue.pop() {
            let now = self.pairs.get(&key).map_or(0, |pair| pair.count);
            if now != count {
                if now >= min_count {
                    self.queue.push((now, Reverse(key)));
                }
                continue;
            }
            if count < min_count {
                return None;
            }
            let [left, right] = [key >> 16, key & 0xffff].map(|id| Id::try_from(id).expect("16 bits"));
            if self.width(left) + self.width(right) <= MAX_WIDTH {
                return Some((left, right));
            }
        }
        None
    }

    /// Merges all occurrences of a pair, from left to right.
    fn merge(&mut self, Merge { left, right, made }: Merge) {
        let own = key(left, right);
        let [left_width, right_width] = [left, right].map(|id| self.width(id));
        let starts = self.pairs.get_mut(&own).map(|pair| take(&mut pair.starts)).unwrap_or_default();
        let mut neighbours: [Vec<(Id, u32)>; 2] = [Vec::new(), Vec::new()];
        for side in &mut self.around {
            side.resize(self.widths.len(), 0);
        }
        for start in starts {
            let first = start as usize;
            let middle = first + left_width;
            // Tokens only grow. If the one that started here became part of a wider one, this base is within it, or it starts
            // or ends it; the id that stands here is then another.
            if self.at[first] != left || self.at[middle] != right {
                continue;
            }
            let end = middle + right_width;
            self.at[middle - 1] = WITHIN;
            self.at[middle] = WITHIN;
            self.at[end - 1] = made;
            self.at[first] = made;
            let before = self.at[first - 1];
            if before != BREAK {
                self.around[0][usize::from(before)] += 1;
                neighbours[0].push((before, start - self.widths[usize::from(before)]));
            }
            let after = self.at[end];
            if after != BREAK {
                self.around[1][usize::from(after)] += 1;
                neighbours[1].push((after, start));
            }
        }
        let keys: [fn(Id, Merge) -> [u32; 2]; 2] = [
            |before, merge| [key(before, merge.left), key(before, merge.made)],
            |after, merge| [key(merge.right, after), key(merge.made, after)],
        ];
        let mut touched = Vec::new();
        for side in [0, 1] {
            self.replace(
                side,
                take(&mut neighbours[side]),
                |id| keys[side](id, Merge { left, right, made }),
                &mut touched,
            );
        }
        // Counts are final only now.
        for key in touched {
            let count = self.pairs.get(&key).map_or(0, |pair| pair.count);
            if count > 0 {
                self.queue.push((count, Reverse(key)));
            }
        }
    }

    /// Lists the new pairs of neighbours on one side, and takes the old ones away. `keys` are those of the old and the new pair
    /// with a neighbour.
    fn replace(
        &mut self,
        side: usize,
        neighbours: Vec<(Id, u32)>,
        keys: impl Fn(Id) -> [u32; 2],
        touched: &mut Vec<u32>,
    ) {
        let mut lists: HashMap<Id, Vec<u32>, BuildKeyHasher> = HashMap::default();
        for (id, start) in neighbours {
            let count = self.around[side][usize::from(id)] as usize;
            lists.entry(id).or_insert_with(|| Vec::with_capacity(count)).push(start);
        }
        for (id, starts) in lists {
            let count = take(&mut self.around[side][usize::from(id)]);
            let [old, new] = keys(id);
            let old = self.pairs.entry(old).or_default();
            old.count = old.count.wrapping_sub(count);
            let pair = self.pairs.entry(new).or_default();
            pair.count = pair.count.wrapping_add(count);
            if pair.starts.is_empty() {
                pair.starts = starts;
            } else {
                pair.starts.extend(starts);
                pair.starts.sort_unstable();
            }
            touched.push(new);
        }
    }
}

/// Hashes a key by one multiplication: keys are our own, and looked up for every pair of a corpus.
#[derive(Clone, Copy, Default)]
struct BuildKeyHasher;

impl std::hash::BuildHasher for BuildKeyHasher {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher(0)
    }
}

struct KeyHasher(u64);

impl std::hash::Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(byte.into());
        }
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u32(number.into());
    }

    fn write_u32(&mut self, number: u32) {
        // Both ends of the hash are used.
        let mixed = (self.0 ^ u64::from(number)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ mixed >> 32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokens::Context;

    fn trained(config: BpeConfig, segments: &[&[BaseId]]) -> Bpe {
        let mut trainer = Trainer::new(config).unwrap();
        for segment in segments {
            trainer.add(segment);
        }
        trainer.train()
    }

    fn names(bpe: &Bpe) -> Vec<String> {
        (9..).map_while(|id| bpe.token(id)).collect()
    }

    /// Bases that favour A and T, so that there are runs of them.
    fn bases(count: usize) -> Vec<BaseId> {
        let mut state = 1_u64;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            [0, 0, 0, 1, 2, 3, 3, 3][(state >> 61) as usize]
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    #[test]
    fn merges_are_those_of_the_trainer_of_hugging_face() {
        // `BpeTrainer` of tokenizers 0.23.3, from a list of the four quarters, with min_frequency 2 and the alphabet ACGT.
        let bases = bases(100_000);
        let quarters: Vec<_> = bases.chunks(25_000).collect();
        let bpe = trained(BpeConfig { size: 1500, ..BpeConfig::default() }, &quarters);
        let merge = |merge: &Merge| [merge.left, merge.right].map(|id: Id| bpe.token(id.into()).unwrap()).join(" ");
        let merges: Vec<String> = bpe.rules.merges.iter().map(merge).collect();
        assert_eq!(merges[..8], ["T T", "A A", "T A", "T AA", "T G", "T C", "A TT", "A C"]);
        assert_eq!(merges[1488..], ["TTTT GATTAA", "TTTT TACTAA", "TTTT GCAG"]);
        let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        assert_eq!(merges.join("\n").bytes().fold(0xcbf2_9ce4_8422_2325, step), 0xcf4b_ff16_7fec_74c4);
        // N and the end of a segment are the same.
        let joined = quarters.join(&N);
        assert_eq!(names(&trained(BpeConfig { size: 1500, ..BpeConfig::default() }, &[&joined])), names(&bpe));
        assert_eq!((bpe.size(), bpe.ordinary(), bpe.context()), (1500, 5..1500, Context::Run));
    }

    #[test]
    fn a_corpus_beyond_the_bound_is_sampled_by_the_seed() {
        let bases = bases(400_000);
        let of = |seed| {
            names(&trained(BpeConfig { size: 300, max_bases: 100_000, seed, ..BpeConfig::default() }, &[&bases]))
        };
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert_eq!(of(1).len(), 291);
    }

    #[test]
    fn a_corpus_without_pairs_leaves_single_bases() {
        let short: [&[BaseId]; 4] = [&[], &[0], &[3], &[N, N]];
        for segments in [0..0, 0..1, 0..4] {
            let bpe = trained(BpeConfig::default(), &short[segments]);
            assert_eq!((bpe.size(), bpe.ordinary()), (9, 5..9));
            assert_eq!(bpe.encode(&[0, 1, N, 2, 3]).levels, [[5, 6, 0, 7, 8]]);
        }
    }

    #[test]
    fn tokens_of_a_run_have_a_bound() {
        let bpe = trained(BpeConfig { size: 100, ..BpeConfig::default() }, &[&vec![0; 100_000]]);
        let widest = names(&bpe).iter().map(String::len).max();
        assert_eq!(widest, Some(MAX_WIDTH));
        assert_eq!(bpe.encode(&[0; 10_000]).levels[0].len(), 2 + 4);
    }

    #[test]
    fn settings_have_ranges() {
        let message = |config: BpeConfig| Trainer::new(config).unwrap_err().to_string();
        let config = BpeConfig::default();
        assert_eq!(message(BpeConfig { size: 8, ..config }), "`size` is 8; it must be between 9 and 65534");
        assert!(message(BpeConfig { max_bases: 1, ..config }).starts_with("`max_bases` is 1; "));
        assert!(message(BpeConfig { min_count: 0, ..config }).starts_with("`min_count` is 0; "));
        assert!(serde_json::from_str::<BpeConfig>("{\"vocab\": 1}").is_err());
        assert_eq!(serde_json::from_str::<BpeConfig>("{}").unwrap(), config);
    }
}
