//! Overlapping k-mers, with DNABERT's ids.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{ConfigError, DIGITS, Special, hugging_face, kmer, kmers, text, within};
use crate::{
    alphabet::{BaseId, N},
    tokens::{Context, Spans, Tokens},
};

const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const UNKNOWN: u32 = 1;

/// The id of the first k-mer.
const FIRST: u32 = 5;

/// Settings of [`Kmer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KmerConfig {
    /// Bases of a k-mer, 3 to 8.
    pub k: usize,
}

impl Default for KmerConfig {
    /// 6-mers.
    fn default() -> Self {
        Self { k: 6 }
    }
}

impl KmerConfig {
    /// Checks all fields.
    ///
    /// # Errors
    /// If `k` is out of its range.
    pub fn check(self) -> Result<(), ConfigError> {
        within("k", self.k, 3..=8)
    }
}

/// A k-mer from every base on, so that neighbours share k − 1 bases; a k-mer with N is `[UNK]`. A sequence of L bases has
/// L − k + 1 tokens, and none if it is shorter than a k-mer.
///
/// Ids: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4, then the k-mers in the order of bases A, T, C, G.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kmer {
    k: usize,
}

impl Kmer {
    /// The tokenizer.
    ///
    /// # Errors
    /// If [`KmerConfig::check`] fails.
    pub fn new(config: KmerConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { k: config.k })
    }

    /// Number of ids, special ones included.
    #[must_use]
    pub const fn size(&self) -> usize {
        (FIRST + kmers(self.k)) as usize
    }

    /// Special ids. DNABERT puts `[CLS]` before a sequence and `[SEP]` after it.
    #[must_use]
    pub const fn special(&self) -> Special {
        Special { padding: 0, unknown: UNKNOWN, mask: 4, first: Some(2), last: Some(3) }
    }

    /// Ids that are not special.
    #[must_use]
    pub const fn ordinary(&self) -> Range<u32> {
        FIRST..FIRST + kmers(self.k)
    }

    /// The last k-mer that starts in a piece reaches k − 1 bases beyond it.
    #[must_use]
    pub const fn context(&self) -> Context {
        Context::After(self.k - 1)
    }

    /// The tokens of a sequence.
    #[must_use]
    pub fn encode(&self, bases: &[BaseId]) -> Tokens {
        let count = (bases.len() + 1).saturating_sub(self.k);
        let spans = Spans::Fixed { width: self.k, stride: 1, count, bases: bases.len() };
        if count == 0 {
            return Tokens::single(Vec::new(), spans);
        }
        let last = kmers(self.k) - 1;
        // The k-mer that ends at a base, and how many bases without N end there.
        let (mut number, mut certain) = (0, 0);
        let mut extend = |base: BaseId| {
            if let Some(digit) = DIGITS.get(usize::from(base)) {
                number = (number << 2 | digit) & last;
                certain += 1;
            } else {
                certain = 0;
            }
            if certain >= self.k { FIRST + number } else { UNKNOWN }
        };
        let (before, rest) = bases.split_at(self.k - 1);
        for &base in before {
            extend(base);
        }
        Tokens::single(rest.iter().map(|&base| extend(base)).collect(), spans)
    }

    /// The bases of ids; `None` if an id is special or does not exist, or if neighbours disagree. `[UNK]` stands for a k-mer
    /// with N somewhere: a base that is in no other k-mer becomes N.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> Option<Vec<BaseId>> {
        if ids.is_empty() {
            return Some(Vec::new());
        }
        let mut bases = vec![N; ids.len() + self.k - 1];
        for (start, &id) in ids.iter().enumerate().filter(|(_, id)| **id != UNKNOWN) {
            let number = id.checked_sub(FIRST).filter(|&number| number < kmers(self.k))?;
            for (known, base) in bases[start..].iter_mut().zip(kmer(number, self.k)) {
                if *known != N && *known != base {
                    return None;
                }
                *known = base;
            }
        }
        let is_unknown = |(window, &id): (&[BaseId], &u32)| id != UNKNOWN || window.contains(&N);
        bases.windows(self.k).zip(ids).all(is_unknown).then_some(bases)
    }

    /// The text of a token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        let number = || id.checked_sub(FIRST).filter(|&number| number < kmers(self.k));
        SPECIAL.get(id as usize).map(ToString::to_string).or_else(|| number().map(|number| text(kmer(number, self.k))))
    }

    /// A `tokenizer.json` for sentences of k-mers, which is the form of DNABERT's own inputs: the library can only cut a text,
    /// not read parts of it twice. [`sentence`](Self::sentence) makes them; in Python, `" ".join(s[i:i + k] for i in
    /// range(len(s) - k + 1))`.
    #[must_use]
    pub fn hugging_face(&self) -> Value {
        let model = hugging_face::word_level(hugging_face::vocabulary(self.size(), |id| self.token(id)), "[UNK]");
        let around = [Some(("[CLS]", 2)), Some(("[SEP]", 3))];
        hugging_face::file(SPECIAL.into_iter().zip(0..), json!({ "type": "WhitespaceSplit" }), around, model)
    }

    /// The k-mers of a sequence, separated by spaces.
    #[must_use]
    pub fn sentence(&self, bases: &[BaseId]) -> String {
        let words: Vec<String> = bases.windows(self.k).map(|kmer| text(kmer.iter().copied())).collect();
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::bases_of;

    fn ids(k: usize, text: &str) -> Vec<u32> {
        Kmer::new(KmerConfig { k }).unwrap().encode(&bases_of(text).unwrap()).levels.remove(0)
    }

    #[test]
    fn ids_are_those_of_dnabert() {
        for (kmer, id) in
            [("AAA", 5), ("ATG", 12), ("GGG", 68), ("AAAAAA", 5), ("ACGTAC", 727), ("TTTTTT", 1370), ("GGGGGG", 4100)]
        {
            assert_eq!(ids(kmer.len(), kmer), [id], "{kmer}");
            assert_eq!(Kmer { k: kmer.len() }.token(id).as_deref(), Some(kmer));
        }
        assert_eq!([3, 4, 5, 6].map(|k| Kmer { k }.size()), [69, 261, 1029, 4101]);
        let [acg, cgt] = [ids(3, "ACG")[0], ids(3, "CGT")[0]];
        assert_eq!(ids(3, "ACGTNACG"), [acg, cgt, 1, 1, 1, acg]);
        assert!(ids(3, "AC").is_empty());
        assert_eq!(Kmer { k: 3 }.sentence(&[0, 1, 2, 3, N]), "ACG CGT GTN");
    }

    #[test]
    fn neighbours_that_disagree_have_no_bases() {
        let kmers = Kmer { k: 3 };
        let decoded = |names: [&str; 3]| {
            let id = |name: &str| if name == "?" { UNKNOWN } else { ids(3, name)[0] };
            kmers.decode(&names.map(id)).map(text)
        };
        assert_eq!(decoded(["ACG", "CGT", "GTT"]).as_deref(), Some("ACGTT"));
        assert_eq!(decoded(["ACG", "CGT", "?"]).as_deref(), Some("ACGTN"));
        assert_eq!(decoded(["ACG", "CAT", "ATT"]), None);
        // The unknown k-mer would be CGT, which is known.
        assert_eq!(decoded(["ACG", "?", "GTT"]), None);
        assert_eq!(kmers.decode(&[0]), None);
        assert_eq!(kmers.decode(&[69]), None);
    }

    #[test]
    fn k_has_a_range() {
        let message = |k| KmerConfig { k }.check().unwrap_err().to_string();
        assert_eq!(message(9), "`k` is 9; it must be between 3 and 8");
        assert_eq!(message(2), "`k` is 2; it must be between 3 and 8");
        assert!(serde_json::from_str::<KmerConfig>(r#"{"K": 6}"#).is_err());
        assert_eq!(serde_json::from_str::<KmerConfig>("{}").unwrap(), KmerConfig { k: 6 });
    }
}
