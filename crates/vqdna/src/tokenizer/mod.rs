//! From bases to tokens. [`vqdna`] learns a vocabulary of codes, which comes before any other model; the others are fixed, and live
//! without tensors in [`vqdna_data::vocab`].
//!
//! A tokenizer is fixed once a model is trained over its tokens. A further kind is a file there, or a file or folder here, and a variant in
//! each of the two enums below; no other room names a variant.

pub mod bpe;
pub mod rows;
pub mod vqdna;

use burn::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use vqdna_data::alphabet::{self, BaseId, Letter};
use vqdna_data::tokens::{Context, Tokens};
use vqdna_data::vocab::bpe::BpeError;
use vqdna_data::vocab::{self, Blocks, BlocksConfig, Bpe, Character, CharacterConfig, CharacterIds, Kmer, KmerConfig};

use crate::quantizer::Quantizer;
use crate::seed::Stream;
use bpe::{BpeFile, BpeFileError};
use vqdna::{Vqdna, VqdnaConfig, VqdnaConfigError};

pub use crate::batch::Batch;

/// A sequence of letters as base ids; what is not one certain base is N.
#[must_use]
pub fn bases_of(letters: &[u8]) -> Vec<BaseId> {
    let base = |&letter: &u8| match alphabet::classify(letter) {
        Letter::Base(base) => base,
        Letter::Ambiguous | Letter::Invalid => alphabet::N,
    };
    letters.iter().map(base).collect()
}

/// A tokenizer, as written in a config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum TokenizerConfig {
    /// One token for each base.
    Character(CharacterConfig),
    /// A k-mer from every base on.
    Kmer(KmerConfig),
    /// K-mers one after another.
    Blocks(BlocksConfig),
    /// Byte-pair encoding.
    Bpe(BpeFile),
    /// Learned codes, one for each base and level.
    Vqdna(VqdnaConfig),
}

/// A contradiction in a [`TokenizerConfig`]; each message names the field.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerConfigError {
    /// See [`VqdnaConfigError`].
    #[error(transparent)]
    Vqdna(#[from] VqdnaConfigError),
    /// In a fixed tokenizer.
    #[error("in `tokenizer`: {0}")]
    Fixed(#[from] vocab::ConfigError),
    /// See [`BpeFileError`].
    #[error(transparent)]
    Bpe(#[from] BpeFileError),
}

/// What ids stand for before an encoder sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Vectors that the tokenizer has learned, so wide.
    Vectors(usize),
    /// Rows of a table that the model learns, so many.
    Table(usize),
}

impl TokenizerConfig {
    /// Names of fixed tokenizers, and what they are.
    pub const FIXED: [(&'static str, &'static str); 4] = [
        ("character", "one token for each base (HyenaDNA)"),
        ("kmer", "an overlapping k-mer from every base on (DNABERT)"),
        ("blocks", "non-overlapping k-mers (Nucleotide Transformer)"),
        ("bpe:FILE", "byte-pair encoding by a tokenizer.json (DNABERT-2)"),
    ];

    /// The fixed tokenizer of that name, with its defaults; none if it names none.
    ///
    /// # Errors
    /// If it names a file that cannot be used.
    pub fn named(name: &str) -> Result<Option<Self>, BpeError> {
        if let Some(file) = name.strip_prefix("bpe:") {
            return Ok(Some(Self::Bpe(BpeFile::of(Path::new(file))?)));
        }
        Ok(match name {
            "character" => Some(Self::Character(CharacterConfig::default())),
            "kmer" => Some(Self::Kmer(KmerConfig::default())),
            "blocks" => Some(Self::Blocks(BlocksConfig::default())),
            _ => None,
        })
    }

    /// The tokens that `MxDNA` was published with: bases, with ids of its own.
    #[must_use]
    pub fn mxdna() -> Self {
        Self::Character(CharacterConfig { ids: CharacterIds::MxDna })
    }

    /// Finds contradictions before a device opens.
    ///
    /// # Errors
    /// The first contradiction, naming its field.
    pub fn check(&self) -> Result<(), TokenizerConfigError> {
        match self {
            Self::Character(character) => Ok(character.check()?),
            Self::Kmer(kmer) => Ok(kmer.check()?),
            Self::Blocks(blocks) => Ok(blocks.check()?),
            Self::Bpe(file) => Ok(file.read().map(drop)?),
            Self::Vqdna(vqdna) => Ok(vqdna.check()?),
        }
    }

    /// What its tokens are, for people.
    #[must_use]
    pub fn described(&self) -> String {
        match self {
            Self::Character(_) => "single bases".to_owned(),
            Self::Kmer(kmer) => format!("overlapping {}-mers", kmer.k),
            Self::Blocks(blocks) => format!("{}-mers one after another", blocks.k),
            Self::Bpe(_) => "the tokens of a byte-pair encoding".to_owned(),
            Self::Vqdna(_) => "learned codes".to_owned(),
        }
    }

    /// Number of ids of each level, special ones included.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        match (self, self.fixed()) {
            (Self::Vqdna(vqdna), _) => vqdna.quantizer.codebook_sizes(),
            (_, fixed) => fixed.iter().map(Tokenizer::size).collect(),
        }
    }

    /// What ids stand for.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            Self::Vqdna(vqdna) => Source::Vectors(vqdna.d_code),
            _ => Source::Table(self.sizes().into_iter().sum()),
        }
    }

    /// Neighbouring tokens that all depend on one base: masking fewer of them hides no base. 1 where every base has a token of its own.
    #[must_use]
    pub fn overlap(&self) -> usize {
        match self {
            Self::Character(_) | Self::Blocks(_) | Self::Bpe(_) => 1,
            Self::Kmer(kmer) => kmer.k,
            Self::Vqdna(vqdna) => 2 * vqdna.encoder_halo() + 1,
        }
    }

    /// The network of a vocabulary that was learned; none of a fixed tokenizer.
    #[must_use]
    pub fn learned(&self) -> Option<&VqdnaConfig> {
        match self {
            Self::Vqdna(vqdna) => Some(vqdna),
            _ => None,
        }
    }

    /// The tokenizer, if it needs no weights, and its settings are sound.
    #[must_use]
    pub fn fixed(&self) -> Option<Tokenizer> {
        match self {
            Self::Character(character) => Character::new(*character).ok().map(Tokenizer::Character),
            Self::Kmer(kmer) => Kmer::new(*kmer).ok().map(Tokenizer::Kmer),
            Self::Blocks(blocks) => Blocks::new(*blocks).ok().map(Tokenizer::Blocks),
            Self::Bpe(file) => file.read().ok().map(|bpe| Tokenizer::Bpe(Arc::new(bpe))),
            Self::Vqdna(_) => None,
        }
    }

    /// The same with its file, if it has one, in a folder; with none, as the config of a folder names it.
    #[must_use]
    pub fn within(&self, folder: Option<&Path>) -> Self {
        match self {
            Self::Bpe(file) => Self::Bpe(file.within(folder)),
            other => other.clone(),
        }
    }
}

impl From<VqdnaConfig> for TokenizerConfig {
    fn from(config: VqdnaConfig) -> Self {
        Self::Vqdna(config)
    }
}

/// A tokenizer in use.
#[derive(Clone, Debug)]
pub enum Tokenizer {
    /// See [`Character`].
    Character(Character),
    /// See [`Kmer`].
    Kmer(Kmer),
    /// See [`Blocks`].
    Blocks(Blocks),
    /// See [`Bpe`].
    Bpe(Arc<Bpe>),
    /// A frozen vocabulary, without autodiff.
    Vqdna(Box<Vqdna>),
}

/// What stands beside the tokens of a sequence, as ids; a negative one stands for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Before the first token.
    pub first: Option<i32>,
    /// After the last one.
    pub last: Option<i32>,
    /// Between the sequences of a pair: what stands after a sequence, or else before one.
    pub between: i32,
    /// Behind the end of a sequence.
    pub padding: i32,
    /// In place of a masked token; none if models learn a vector for it.
    pub mask: Option<i32>,
}

impl From<vocab::Special> for Special {
    fn from(special: vocab::Special) -> Self {
        let vocab::Special { padding, mask, first, last, .. } = special;
        let id = |id: u32| id as i32;
        let between = id(last.or(first).unwrap_or(padding));
        Self { first: first.map(id), last: last.map(id), between, padding: id(padding), mask: Some(id(mask)) }
    }
}

impl From<Vqdna> for Tokenizer {
    fn from(vqdna: Vqdna) -> Self {
        Self::Vqdna(Box::new(vqdna))
    }
}

/// No token: its vector is 0.
const NOTHING: i32 = -1;

/// What all fixed tokenizers can do, of the one that there is; else what a vocabulary does.
macro_rules! of_fixed {
    ($tokenizer:expr, $fixed:ident => $found:expr, $vqdna:ident => $learned:expr) => {
        match $tokenizer {
            Tokenizer::Character($fixed) => $found,
            Tokenizer::Kmer($fixed) => $found,
            Tokenizer::Blocks($fixed) => $found,
            Tokenizer::Bpe($fixed) => $found,
            Tokenizer::Vqdna($vqdna) => $learned,
        }
    };
}

impl Tokenizer {
    /// What stands beside the tokens of a sequence.
    #[must_use]
    pub fn special(&self) -> Special {
        let of_codes = Special { first: None, last: None, between: NOTHING, padding: NOTHING, mask: None };
        of_fixed!(self, fixed => fixed.special().into(), _vqdna => of_codes)
    }

    /// Number of ids of all levels, special ones included.
    #[must_use]
    pub fn size(&self) -> usize {
        of_fixed!(self, fixed => fixed.size(), vqdna => vqdna.quantizer.levels())
    }

    /// The network of a vocabulary that was learned; none of a fixed tokenizer.
    #[must_use]
    pub fn learned(&self) -> Option<&Vqdna> {
        of_fixed!(self, _fixed => None, vqdna => Some(vqdna))
    }

    /// The vectors that ids stand for, if they were learned.
    #[must_use]
    pub fn vectors(&self) -> Option<&Quantizer> {
        self.learned().map(|vqdna| &vqdna.quantizer)
    }

    /// An id in place of that of a masked token, of a level with so many ids: never a special one, nor one of N alone.
    pub(crate) fn draw(&self, size: usize, random: &mut Stream) -> u32 {
        match self {
            Self::Character(character) => character.id(random.random_range(0..4)),
            _ => {
                of_fixed!(self, fixed => random.random_range(fixed.ordinary()), _vqdna => random.random_range(0..size) as u32)
            }
        }
    }

    /// The tokens of each sequence alone: none sees beyond its ends. Before each part of the work `poll` is asked whether to go on; none if
    /// not. `device` is that of the tokenizer.
    #[must_use]
    pub fn tokenize(
        &self,
        sequences: &[Vec<BaseId>],
        device: &Device,
        poll: &dyn Fn() -> ControlFlow<()>,
    ) -> Option<Vec<Tokens>> {
        of_fixed!(
            self,
            fixed => Some(sequences.iter().map(|bases| fixed.encode(bases)).collect()),
            vqdna => rows::codes(vqdna, sequences, device, poll)
        )
    }

    /// The tokens of a sequence, where that needs no device.
    #[must_use]
    pub fn encode(&self, bases: &[BaseId]) -> Option<Tokens> {
        of_fixed!(self, fixed => Some(fixed.encode(bases)), _vqdna => None)
    }

    /// The text of a token of a fixed tokenizer.
    #[must_use]
    pub fn token(&self, id: u32) -> Option<String> {
        of_fixed!(self, fixed => fixed.token(id), _vqdna => None)
    }

    /// The bases of a token of a fixed tokenizer; none of a special one, or one that tells of N.
    #[must_use]
    pub fn bases(&self, id: u32) -> Option<Vec<BaseId>> {
        let bases = of_fixed!(self, fixed => fixed.decode(&[id]), _vqdna => None);
        bases.filter(|bases| !bases.is_empty() && !bases.contains(&alphabet::N))
    }

    /// What a piece of a sequence needs so that its tokens are those of the whole, of a fixed tokenizer.
    #[must_use]
    pub fn context(&self) -> Option<Context> {
        of_fixed!(self, fixed => Some(fixed.context()), _vqdna => None)
    }

    /// What Hugging Face's library reads as `tokenizer.json`, of a fixed tokenizer.
    #[must_use]
    pub fn hugging_face(&self) -> Option<Value> {
        of_fixed!(self, fixed => Some(fixed.hugging_face()), _vqdna => None)
    }
}
