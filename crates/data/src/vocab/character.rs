//! One token for each base, with HyenaDNA's ids.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConfigError, Special, hugging_face, text};
use crate::{
    alphabet::{BaseId, N},
    tokens::{Context, Spans, Tokens},
};

const SPECIAL: [&str; 7] = ["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]"];

/// The id of A; C, G, T and N follow.
const FIRST: u32 = 7;

/// Settings of [`Character`]: there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CharacterConfig {}

impl CharacterConfig {
    /// Checks all fields.
    ///
    /// # Errors
    /// Never, since there are none.
    pub const fn check(self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// One token for each base, N included. Ids: `[CLS]` 0, `[SEP]` 1, `[BOS]` 2, `[MASK]` 3, `[PAD]` 4, `[RESERVED]` 5, `[UNK]`
/// 6, then A, C, G, T and N from 7 to 11.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Character {}

impl Character {
    /// The tokenizer.
    ///
    /// # Errors
    /// Never; all kinds are made in the same way.
    pub fn new(config: CharacterConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {})
    }

    /// Number of ids, special ones included. HyenaDNA's embedding is filled up to 16 rows.
    #[must_use]
    pub const fn size(&self) -> usize {
        FIRST as usize + 5
    }

    /// Special ids. HyenaDNA puts `[SEP]` after a sequence and nothing before it.
    #[must_use]
    pub const fn special(&self) -> Special {
        Special { padding: 4, unknown: 6, mask: 3, first: None, last: Some(1) }
    }

    /// Ids that are not special; that of N is the last.
    #[must_use]
    pub const fn ordinary(&self) -> Range<u32> {
        FIRST..FIRST + 5
    }

    /// A piece needs no context.
    #[must_use]
    pub const fn context(&self) -> Context {
        Context::After(0)
    }

    /// The tokens of a sequence.
    #[must_use]
    pub fn encode(&self, bases: &[BaseId]) -> Tokens {
        let ids = bases.iter().map(|&base| FIRST + u32::from(base)).collect();
        Tokens::single(ids, Spans::Bases(bases.len()))
    }

    /// The bases of ids; `None` if one of them is special or there is no such id.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> Option<Vec<BaseId>> {
        ids.iter().map(|&id| base(id)).collect()
    }

    /// The text of a token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        SPECIAL.get(id as usize).map(ToString::to_string).or_else(|| base(id).map(|base| text([base])))
    }

    /// A `tokenizer.json`.
    #[must_use]
    pub fn hugging_face(&self) -> Value {
        let vocabulary = hugging_face::vocabulary(self.size(), |id| self.token(id));
        let model = hugging_face::bpe(vocabulary, Vec::new(), "[UNK]");
        hugging_face::file(SPECIAL.into_iter().zip(0..), Value::Null, [None, Some(("[SEP]", 1))], model)
    }
}

fn base(id: u32) -> Option<BaseId> {
    BaseId::try_from(id.checked_sub(FIRST)?).ok().filter(|&base| base <= N)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_hyenadna() {
        let characters = Character::new(CharacterConfig {}).unwrap();
        assert_eq!(characters.encode(&[0, 1, 2, 3, N]).levels, [[7, 8, 9, 10, 11]]);
        let names: Vec<_> = (0..13).map(|id| characters.token(id).unwrap_or_default()).collect();
        assert_eq!(names.join(" "), "[CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK] A C G T N ");
        assert_eq!(characters.decode(&[7, 6]), None);
        assert_eq!(characters.decode(&[12]), None);
    }
}
