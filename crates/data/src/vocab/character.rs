//! One token for each base, with the ids of HyenaDNA or of MxDNA.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{ConfigError, DIGITS, IN_ORDER, Special, hugging_face, text};
use crate::{
    alphabet::{BaseId, N},
    tokens::{Context, Spans, Tokens},
};

/// Names of special ids, in their order.
const OF_HYENADNA: [&str; 7] = ["[CLS]", "[SEP]", "[BOS]", "[MASK]", "[PAD]", "[RESERVED]", "[UNK]"];
const OF_MXDNA: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// Whose ids a base has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CharacterIds {
    /// HyenaDNA's: `[CLS]` 0, `[SEP]` 1, `[BOS]` 2, `[MASK]` 3, `[PAD]` 4, `[RESERVED]` 5, `[UNK]` 6, then A, C, G, T and N from 7 to
    /// 11. `[SEP]` stands after a sequence.
    #[default]
    HyenaDna,
    /// `MxDNA`'s: `[PAD]` 0, `[UNK]` 1, `[CLS]` 2, `[SEP]` 3, `[MASK]` 4, then A, T, C and G from 5 to 8; N is `[UNK]`. `[CLS]` stands
    /// before a sequence, `[SEP]` after it.
    MxDna,
}

/// Settings of [`Character`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CharacterConfig {
    /// Whose ids a base has.
    pub ids: CharacterIds,
}

impl CharacterConfig {
    /// Checks all fields.
    ///
    /// # Errors
    /// Never, since every value is right.
    pub const fn check(self) -> Result<(), ConfigError> {
        Ok(())
    }
}

/// One token for each base, N included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Character {
    ids: CharacterIds,
}

impl Character {
    /// The tokenizer.
    ///
    /// # Errors
    /// Never; all kinds are made in the same way.
    pub fn new(config: CharacterConfig) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self { ids: config.ids })
    }

    /// Names of special ids, in their order.
    const fn names(self) -> &'static [&'static str] {
        match self.ids {
            CharacterIds::HyenaDna => &OF_HYENADNA,
            CharacterIds::MxDna => &OF_MXDNA,
        }
    }

    /// Number of ids, special ones included. HyenaDNA's embedding is filled up to 16 rows.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.ordinary().end as usize
    }

    /// Special ids.
    #[must_use]
    pub const fn special(&self) -> Special {
        match self.ids {
            CharacterIds::HyenaDna => Special { padding: 4, unknown: 6, mask: 3, first: None, last: Some(1) },
            CharacterIds::MxDna => Special { padding: 0, unknown: 1, mask: 4, first: Some(2), last: Some(3) },
        }
    }

    /// Ids that are not special; of HyenaDNA's, that of N is the last.
    #[must_use]
    pub const fn ordinary(&self) -> Range<u32> {
        match self.ids {
            CharacterIds::HyenaDna => 7..12,
            CharacterIds::MxDna => 5..9,
        }
    }

    /// A piece needs no context.
    #[must_use]
    pub const fn context(&self) -> Context {
        Context::After(0)
    }

    /// The id of a base.
    #[must_use]
    pub fn id(&self, base: BaseId) -> u32 {
        let first = self.ordinary().start;
        match (self.ids, DIGITS.get(usize::from(base))) {
            (CharacterIds::HyenaDna, _) => first + u32::from(base),
            (CharacterIds::MxDna, Some(digit)) => first + digit,
            (CharacterIds::MxDna, None) => self.special().unknown,
        }
    }

    /// The base of an id.
    fn base(self, id: u32) -> Option<BaseId> {
        let number = id.checked_sub(self.ordinary().start)?;
        match self.ids {
            CharacterIds::HyenaDna => BaseId::try_from(number).ok().filter(|&base| base <= N),
            CharacterIds::MxDna => IN_ORDER.get(number as usize).copied(),
        }
    }

    /// The tokens of a sequence.
    #[must_use]
    pub fn encode(&self, bases: &[BaseId]) -> Tokens {
        Tokens::single(bases.iter().map(|&base| self.id(base)).collect(), Spans::Bases(bases.len()))
    }

    /// The bases of ids, `[UNK]` being N where it stands for that; `None` if one of them is special or there is no such id.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> Option<Vec<BaseId>> {
        let is_n = |id: u32| self.ids == CharacterIds::MxDna && id == self.special().unknown;
        ids.iter().map(|&id| if is_n(id) { Some(N) } else { self.base(id) }).collect()
    }

    /// The text of a token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        let special = self.names().get(id as usize).map(ToString::to_string);
        special.or_else(|| self.base(id).map(|base| text([base])))
    }

    /// A `tokenizer.json`.
    #[must_use]
    pub fn hugging_face(&self) -> Value {
        let vocabulary = hugging_face::vocabulary(self.size(), |id| self.token(id));
        let model = hugging_face::bpe(vocabulary, Vec::new(), "[UNK]");
        let Special { first, last, .. } = self.special();
        let around = [first.map(|id| ("[CLS]", id)), last.map(|id| ("[SEP]", id))];
        hugging_face::file(self.names().iter().copied().zip(0..), Value::Null, around, model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_of_hyenadna() {
        let characters = Character::new(CharacterConfig::default()).unwrap();
        assert_eq!(characters.encode(&[0, 1, 2, 3, N]).levels, [[7, 8, 9, 10, 11]]);
        let names: Vec<_> = (0..13).map(|id| characters.token(id).unwrap_or_default()).collect();
        assert_eq!(names.join(" "), "[CLS] [SEP] [BOS] [MASK] [PAD] [RESERVED] [UNK] A C G T N ");
        assert_eq!(characters.decode(&[7, 6]), None);
        assert_eq!(characters.decode(&[12]), None);
    }

    #[test]
    fn ids_are_those_of_mxdna() {
        let characters = Character::new(CharacterConfig { ids: CharacterIds::MxDna }).unwrap();
        assert_eq!(characters.encode(&[0, 1, 2, 3, N]).levels, [[5, 7, 8, 6, 1]]);
        let names: Vec<_> = (0..10).map(|id| characters.token(id).unwrap_or_default()).collect();
        assert_eq!(names.join(" "), "[PAD] [UNK] [CLS] [SEP] [MASK] A T C G ");
        assert_eq!(characters.decode(&[5, 7, 8, 6, 1]), Some(vec![0, 1, 2, 3, N]));
        assert_eq!(characters.decode(&[4]), None);
    }
}
