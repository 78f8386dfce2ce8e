//! Non-overlapping k-mers, with the ids of the Nucleotide Transformer.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ConfigError, DIGITS, IN_ORDER, Special, hugging_face, kmer, kmers, text, within};
use crate::{
    alphabet::{BaseId, N},
    tokens::{Context, Spans, Tokens},
    words::words,
};

const SPECIAL: [&str; 6] = ["<unk>", "<pad>", "<mask>", "<cls>", "<eos>", "<bos>"];

/// The release whose ids are used; they differ in the special ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BlocksLayout {
    /// The first release: `<unk>` 0, `<pad>` 1, `<mask>` 2, `<cls>` 3.
    V1,
    /// The second: as the first, then `<eos>` 4, `<bos>` 5.
    #[default]
    V2,
}

words!(BlocksLayout, "a layout of ids", { V1 => "v1", V2 => "v2" });

/// Settings of [`Blocks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BlocksConfig {
    /// Bases of a k-mer, 1 to 8. With 1, every token is a single base.
    pub k: usize,
    /// The release whose ids are used.
    pub layout: BlocksLayout,
}

impl Default for BlocksConfig {
    /// 6-mers with the ids of the second release.
    fn default() -> Self {
        Self { k: 6, layout: BlocksLayout::V2 }
    }
}

impl BlocksConfig {
    /// Checks all fields.
    ///
    /// # Errors
    /// If `k` is out of its range.
    pub fn check(self) -> Result<(), ConfigError> {
        within("k", self.k, 1..=8)
    }
}

/// Each run of bases without N is cut into k-mers from its left end on; what is left at its right end, and each N, are single
/// bases.
///
/// Ids: those of [`BlocksLayout`], then the k-mers, then single bases, both in the order A, T, C, G, and N last. With k = 1 the
/// single bases are the k-mers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    k: usize,
    special: u32,
    /// Number of k-mers with more than one base.
    kmers: u32,
}

impl Blocks {
    /// The tokenizer.
    ///
    /// # Errors
    /// If [`BlocksConfig::check`] fails.
    pub fn new(config: BlocksConfig) -> Result<Self, ConfigError> {
        config.check()?;
        let special = match config.layout {
            BlocksLayout::V1 => 4,
            BlocksLayout::V2 => 6,
        };
        Ok(Self { k: config.k, special, kmers: if config.k > 1 { kmers(config.k) } else { 0 } })
    }

    /// Number of ids, special ones included.
    #[must_use]
    pub const fn size(&self) -> usize {
        (self.first_single() + 5) as usize
    }

    /// Special ids. The Nucleotide Transformer puts `<cls>` before a sequence and nothing after it.
    #[must_use]
    pub const fn special(&self) -> Special {
        Special { padding: 1, unknown: 0, mask: 2, first: Some(3), last: None }
    }

    /// Ids that are not special; that of N is the last.
    #[must_use]
    pub const fn ordinary(&self) -> Range<u32> {
        self.special..self.first_single() + 5
    }

    /// K-mers are counted from the first base of a run of bases without N, and the tail of a run depends on where it ends.
    #[must_use]
    pub const fn context(&self) -> Context {
        Context::Grid { period: self.k }
    }

    /// The tokens of a sequence.
    ///
    /// # Panics
    /// If it has 2³² bases or more.
    #[must_use]
    pub fn encode(&self, bases: &[BaseId]) -> Tokens {
        let end = u32::try_from(bases.len()).expect("fewer than 2³² bases");
        let most = bases.len() / self.k + self.k;
        let (mut ids, mut ends) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let mut rest = bases;
        let mut at = 0;
        let mut push = |id, width| {
            ids.push(id);
            at += width;
            ends.push(at);
        };
        while let Some((&base, others)) = rest.split_first() {
            let number = rest.get(..self.k).filter(|_| self.k > 1).and_then(number);
            if let Some(number) = number {
                push(self.special + number, self.width());
                rest = &rest[self.k..];
            } else {
                push(self.first_single() + DIGITS.get(usize::from(base)).copied().unwrap_or(4), 1);
                rest = others;
            }
        }
        debug_assert_eq!(at, end, "tokens tile the sequence");
        Tokens::single(ids, Spans::Ends(ends))
    }

    /// The bases of ids; `None` if one of them is special or there is no such id.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> Option<Vec<BaseId>> {
        let mut bases = Vec::with_capacity(ids.len() * self.k);
        for &id in ids {
            match (id.checked_sub(self.special)?, id.checked_sub(self.first_single())) {
                (number, None) => bases.extend(kmer(number, self.k)),
                (_, Some(single)) => bases.push(single_base(single)?),
            }
        }
        Some(bases)
    }

    /// The text of a token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        let special = SPECIAL.get(id as usize).filter(|_| id < self.special).map(ToString::to_string);
        special.or_else(|| self.decode(&[id]).map(text))
    }

    /// A `tokenizer.json`.
    #[must_use]
    pub fn hugging_face(&self) -> Value {
        let model = hugging_face::word_level(hugging_face::vocabulary(self.size(), |id| self.token(id)), SPECIAL[0]);
        // From left to right: a k-mer where there is one, and else one letter.
        let pattern = format!("[ACGT]{{{}}}|.", self.k);
        let cut = json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        let special = SPECIAL.into_iter().zip(0..self.special);
        hugging_face::file(special, cut, [Some((SPECIAL[3], 3)), None], model)
    }

    const fn first_single(&self) -> u32 {
        self.special + self.kmers
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most 8")]
    const fn width(&self) -> u32 {
        self.k as u32
    }
}

/// The number of a k-mer; `None` if it holds N.
fn number(kmer: &[BaseId]) -> Option<u32> {
    // Without a branch for each base: N is rare.
    let number = kmer.iter().fold(0, |number, &base| number << 2 | DIGITS[usize::from(base & 3)]);
    kmer.iter().all(|&base| base < N).then_some(number)
}

/// A single base by its place behind the k-mers.
fn single_base(place: u32) -> Option<BaseId> {
    IN_ORDER.iter().copied().chain([N]).nth(place as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::bases_of;

    fn blocks(layout: BlocksLayout, k: usize) -> Blocks {
        Blocks::new(BlocksConfig { k, layout }).unwrap()
    }

    fn names(blocks: Blocks, text: &str) -> String {
        let tokens = blocks.encode(&bases_of(text).unwrap());
        let ids = blocks.special().first.into_iter().chain(tokens.levels[0].iter().copied());
        ids.map(|id| blocks.token(id).unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn tokens_and_ids_are_those_of_the_nucleotide_transformer() {
        for layout in [BlocksLayout::V1, BlocksLayout::V2] {
            let names = |text| names(blocks(layout, 6), text);
            assert_eq!(names("ACGTGTACGTGCACGGACGACTAGTCAGCA"), "<cls> ACGTGT ACGTGC ACGGAC GACTAG TCAGCA");
            assert_eq!(names("ACGTGTACNTGCACGGANCGACTAGTCTGA"), "<cls> ACGTGT A C N TGCACG G A N CGACTA GTCTGA");
        }
        for (layout, ids, size) in
            [(BlocksLayout::V1, [4, 737, 4099, 4104], 4105), (BlocksLayout::V2, [6, 739, 4101, 4106], 4107)]
        {
            let blocks = blocks(layout, 6);
            let of = |text| blocks.encode(&bases_of(text).unwrap()).levels[0][0];
            assert_eq!(["AAAAAA", "ACGTGT", "GGGGGG", "N"].map(of), ids);
            assert_eq!(blocks.size(), size);
        }
    }

    #[test]
    fn other_widths_keep_the_layout() {
        let singles = blocks(BlocksLayout::V1, 1);
        assert_eq!(singles.encode(&[0, 3, 1, 2, N]).levels, [[4, 5, 6, 7, 8]]);
        assert_eq!((singles.size(), singles.token(9)), (9, None));
        let pairs = blocks(BlocksLayout::V2, 2);
        assert_eq!(names(pairs, "ACGTANNT"), "<cls> AC GT A N N T");
        assert_eq!(pairs.size(), 6 + 16 + 5);
        assert_eq!(pairs.decode(&[5]), None);
        assert_eq!(pairs.decode(&[27]), None);
    }

    #[test]
    fn words_are_those_of_the_configuration() {
        for layout in [BlocksLayout::V1, BlocksLayout::V2] {
            assert_eq!(serde_json::to_string(&layout).unwrap(), format!("\"{layout}\""));
        }
        let message = BlocksConfig { k: 0, ..BlocksConfig::default() }.check().unwrap_err().to_string();
        assert_eq!(message, "`k` is 0; it must be between 1 and 8");
    }
}
