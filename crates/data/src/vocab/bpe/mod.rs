//! Byte-pair encoding: read from a `tokenizer.json` of Hugging Face, or trained here.
//!
//! A run of bases without N is one word. Starting from single bases, the two neighbours whose merge has the lowest rank become
//! one token, the leftmost first, until no merge applies.
//!
//! **Pieces.** A merge may reach over any cut that is not a token's end, and in a tandem repeat the ends of all tokens depend
//! on where the repeat begins, however long it is. So the tokens of a region are those of its whole record only if the whole
//! of its run of bases without N is tokenized ([`Context::Run`]). That is cheap: it takes time linear in the run.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use self::{
    rules::{Merge, NONE, Rules},
    search::Search,
};
use super::{Special, bases_of, hugging_face};
use crate::{
    alphabet::{BaseId, N},
    bounded,
    tokens::{Context, Spans, Tokens},
};

mod file;
#[cfg(test)]
mod published;
mod queue;
mod rules;
mod sample;
mod search;
mod small;
mod steps;
mod train;

pub use train::{BpeConfig, Trainer};

/// The most ids that a vocabulary may have.
pub const MAX_SIZE: usize = NONE as usize - 1;

/// The most bases that a token may have.
pub const MAX_WIDTH: usize = 4096;

/// The most bytes of a `tokenizer.json`: ten times those of the largest vocabulary with tokens of ten bases.
pub const MAX_FILE: u64 = 16 << 20;

/// Why a `tokenizer.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BpeError {
    /// It cannot be read.
    #[error("cannot read {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not JSON, or a field is missing, unknown, or not what it must be.
    #[error("{}: `{field}`: {source}", .file.display())]
    Json {
        /// The file.
        file: PathBuf,
        /// The field, `.` for the whole.
        field: String,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A field has a value with which other ids would come out than those of the library `tokenizers`.
    #[error("{}: `{field}`: {reason}", .file.display())]
    Field {
        /// The file.
        file: PathBuf,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// A byte-pair encoding of bases.
///
/// Where the vocabulary has no token for N, as DNABERT-2's has none, each N is one unknown token.
#[derive(Clone, Debug)]
pub struct Bpe {
    /// Texts by id, those of special tokens included.
    names: Vec<String>,
    special: Special,
    ordinary: Range<u32>,
    rules: Rules,
    /// Absent if the merges are not in order.
    search: Option<Search>,
}

impl Bpe {
    /// Reads a `tokenizer.json`.
    ///
    /// Truncation, padding and the decoder are passed over: they do not change which ids stand for a sequence.
    ///
    /// # Errors
    /// If it cannot be read, is larger than [`MAX_FILE`], or describes a tokenizer whose ids would not be reproduced.
    pub fn read(file: &Path) -> Result<Self, BpeError> {
        let bytes = bounded::read(file, MAX_FILE).map_err(|source| BpeError::Read { file: file.to_owned(), source })?;
        Self::parse(file, &bytes)
    }

    /// As [`read`](Self::read), of the content of a file; its name is for messages.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for reading.
    pub fn parse(file: &Path, content: &[u8]) -> Result<Self, BpeError> {
        file::parse(file, content)
    }

    /// A tokenizer of texts by id. Those over ACGTN have ids in `ordinary`, all others are special; merges are pairs of ordinary
    /// ids, and `made` the id of the joined text.
    fn new(names: Vec<String>, special: Special, ordinary: Range<u32>, merges: Vec<Merge>) -> Self {
        let bases: Vec<Box<[BaseId]>> = (0..)
            .zip(&names)
            .map(
                |(id, name)| if ordinary.contains(&id) { bases_of(name).unwrap_or_default().into() } else { [].into() },
            )
            .collect();
        let mut letters = [NONE; 5];
        for (id, bases) in (0..NONE).zip(&bases) {
            if let [base] = **bases {
                letters[usize::from(base)] = id;
            }
        }
        let rules = Rules::new(letters, bases, merges);
        let search = Search::new(&rules);
        Self { names, special, ordinary, rules, search }
    }

    /// Number of ids, special ones included.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.names.len()
    }

    /// Special ids.
    #[must_use]
    pub const fn special(&self) -> Special {
        self.special
    }

    /// Ids that are not special.
    #[must_use]
    pub fn ordinary(&self) -> Range<u32> {
        self.ordinary.clone()
    }

    /// The run of bases without N, since a merge may reach over any cut; the whole sequence, if there are merges with N.
    #[must_use]
    pub fn context(&self) -> Context {
        let has_n = |merge: &Merge| self.rules.bases[usize::from(merge.made)].contains(&N);
        if self.rules.merges.iter().any(has_n) { Context::Whole } else { Context::Run }
    }

    /// The tokens of a sequence, in time linear in its bases if the merges are in order, as those of a trained vocabulary are.
    ///
    /// # Panics
    /// If it has 2³² bases or more.
    #[must_use]
    pub fn encode(&self, bases: &[BaseId]) -> Tokens {
        assert!(u32::try_from(bases.len()).is_ok(), "fewer than 2³² bases");
        let (mut ids, mut ends) = (Vec::new(), Vec::new());
        for (run, is_known) in self.runs(bases) {
            match &self.search {
                _ if !is_known => {
                    for _ in run {
                        ids.push(self.special.unknown);
                        ends.push(ends.last().copied().unwrap_or(0) + 1);
                    }
                }
                Some(search) => search.encode(&self.rules, run, &mut ids, &mut ends),
                None => queue::encode(&self.rules, run, &mut ids, &mut ends),
            }
        }
        Tokens::single(ids, Spans::Ends(ends))
    }

    /// The bases of ids; `None` if one of them is special or there is no such id. Where N has no token, the unknown one is N.
    #[must_use]
    pub fn decode(&self, ids: &[u32]) -> Option<Vec<BaseId>> {
        let mut bases = Vec::new();
        for &id in ids {
            if self.ordinary.contains(&id) {
                bases.extend_from_slice(&self.rules.bases[id as usize]);
            } else if id == self.special.unknown && !self.has_n() {
                bases.push(N);
            } else {
                return None;
            }
        }
        Some(bases)
    }

    /// The text of a token.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        self.names.get(id as usize).cloned()
    }

    /// A `tokenizer.json` with the layout of DNABERT-2's, and a normalizer for lower case and IUPAC codes.
    #[must_use]
    pub fn hugging_face(&self) -> Value {
        let name = |id: u32| &*self.names[id as usize];
        let special = (0..).zip(&self.names).filter(|(id, _)| !self.ordinary.contains(id));
        let vocabulary = hugging_face::vocabulary(self.size(), |id| self.token(id));
        let merges = self.rules.merges.iter().map(|merge| json!([name(merge.left.into()), name(merge.right.into())]));
        let model = hugging_face::bpe(vocabulary, merges.collect(), name(self.special.unknown));
        let around = [self.special.first, self.special.last].map(|id| id.map(|id| (name(id), id)));
        hugging_face::file(special.map(|(id, name)| (&**name, id)), json!({ "type": "Whitespace" }), around, model)
    }

    /// Whether N has a token.
    const fn has_n(&self) -> bool {
        self.rules.letters[N as usize] != NONE
    }

    /// Runs of bases that have tokens, and between them those of N that have none.
    fn runs<'a>(&self, bases: &'a [BaseId]) -> impl Iterator<Item = (&'a [BaseId], bool)> {
        let has_n = self.has_n();
        let is_known = move |base: BaseId| has_n || base != N;
        bases.chunk_by(move |&a, &b| is_known(a) == is_known(b)).map(move |run| (run, is_known(run[0])))
    }
}

/// A number of bases or of ids, which are fewer than 2³².
fn narrow(number: usize) -> u32 {
    u32::try_from(number).expect("fewer than 2³²")
}
