//! From bases to tokens. One file or folder per kind: [`vqdna`] learns a vocabulary of codes, which comes before any other model;
//! [`character`] takes bases as they are.
//!
//! A tokenizer is fixed once a model is trained over its tokens. A further kind is a file here and a variant in each of the two enums
//! below; no other room names a variant.

pub mod character;
pub mod rows;
pub mod vqdna;

use burn::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;
use vqdna_data::alphabet::{self, BaseId, Letter};
use vqdna_data::tokens::Tokens;

use crate::quantizer::Quantizer;
use crate::seed::Stream;
use character::Character;
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
    Character(Character),
    /// Learned codes, one for each base and level.
    Vqdna(VqdnaConfig),
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
    /// Finds contradictions before a device opens.
    ///
    /// # Errors
    /// The first contradiction, naming its field.
    pub fn check(&self) -> Result<(), VqdnaConfigError> {
        match self {
            Self::Character(_) => Ok(()),
            Self::Vqdna(vqdna) => vqdna.check(),
        }
    }

    /// Number of ids of each level, special ones included.
    #[must_use]
    pub fn sizes(&self) -> Vec<usize> {
        match self {
            Self::Character(_) => vec![character::IDS],
            Self::Vqdna(vqdna) => vqdna.quantizer.codebook_sizes(),
        }
    }

    /// What ids stand for.
    #[must_use]
    pub fn source(&self) -> Source {
        match self {
            Self::Character(_) => Source::Table(character::IDS),
            Self::Vqdna(vqdna) => Source::Vectors(vqdna.d_code),
        }
    }

    /// Bases on either side of a token that decide its ids, beyond those that it stands for.
    #[must_use]
    pub fn halo(&self) -> usize {
        match self {
            Self::Character(_) => 0,
            Self::Vqdna(vqdna) => vqdna.encoder_halo(),
        }
    }

    /// The network of a vocabulary that was learned; none of a fixed tokenizer.
    #[must_use]
    pub fn learned(&self) -> Option<&VqdnaConfig> {
        match self {
            Self::Character(_) => None,
            Self::Vqdna(vqdna) => Some(vqdna),
        }
    }

    /// The tokenizer, if it needs no weights.
    #[must_use]
    pub fn fixed(&self) -> Option<Tokenizer> {
        match self {
            Self::Character(character) => Some(Tokenizer::Character(*character)),
            Self::Vqdna(_) => None,
        }
    }
}

impl From<Character> for TokenizerConfig {
    fn from(config: Character) -> Self {
        Self::Character(config)
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
    /// Between the sequences of a pair.
    pub between: i32,
    /// Behind the end of a sequence.
    pub padding: i32,
    /// In place of a masked token; none if models learn a vector for it.
    pub mask: Option<i32>,
}

impl From<Vqdna> for Tokenizer {
    fn from(vqdna: Vqdna) -> Self {
        Self::Vqdna(Box::new(vqdna))
    }
}

/// No token: its vector is 0.
const NOTHING: i32 = -1;

impl Tokenizer {
    /// What stands beside the tokens of a sequence.
    #[must_use]
    pub fn special(&self) -> Special {
        match self {
            Self::Character(_) => Character::special(),
            Self::Vqdna(_) => Special { first: None, last: None, between: NOTHING, padding: NOTHING, mask: None },
        }
    }

    /// The network of a vocabulary that was learned; none of a fixed tokenizer.
    #[must_use]
    pub fn learned(&self) -> Option<&Vqdna> {
        match self {
            Self::Character(_) => None,
            Self::Vqdna(vqdna) => Some(vqdna),
        }
    }

    /// The vectors that ids stand for, if they were learned.
    #[must_use]
    pub fn vectors(&self) -> Option<&Quantizer> {
        match self {
            Self::Character(_) => None,
            Self::Vqdna(vqdna) => Some(&vqdna.quantizer),
        }
    }

    /// An id in place of that of a masked token, of a level with so many ids: never a special one.
    pub(crate) fn draw(&self, size: usize, random: &mut Stream) -> u32 {
        match self {
            Self::Character(character) => character.draw(random),
            Self::Vqdna(_) => random.random_range(0..size) as u32,
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
        match self {
            Self::Character(character) => Some(sequences.iter().map(|bases| character.encode(bases)).collect()),
            Self::Vqdna(vqdna) => rows::codes(vqdna, sequences, device, poll),
        }
    }

    /// The tokens of a sequence, where that needs no device.
    #[must_use]
    pub fn encode(&self, bases: &[BaseId]) -> Option<Tokens> {
        match self {
            Self::Character(character) => Some(character.encode(bases)),
            Self::Vqdna(_) => None,
        }
    }
}
