//! One token for each base, between a first and a last one that stand for none; with the ids of MxDNA's published weights.

use rand::RngExt;
use serde::{Deserialize, Serialize};
use vqdna_data::alphabet::BaseId;
use vqdna_data::tokens::{Spans, Tokens};

use super::Special;
use crate::seed::Stream;

/// Ids of the alphabet, special ones included.
pub const IDS: usize = 9;
/// Behind the end of a sequence.
const PADDING: i32 = 0;
/// N, and what else is not one certain base.
const UNKNOWN: u32 = 1;
/// Before the first base.
const FIRST: i32 = 2;
/// After the last one, and between the sequences of a pair.
const LAST: i32 = 3;
/// In place of a masked base.
const MASKED: i32 = 4;
/// Ids of A, C, G and T; in the order of ids, A, T, C, G.
const OF_BASES: [u32; 4] = [5, 7, 8, 6];

/// One token for each base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Character {}

impl Character {
    /// What stands beside the tokens of a sequence.
    pub(super) const fn special() -> Special {
        Special { first: Some(FIRST), last: Some(LAST), between: LAST, padding: PADDING, mask: Some(MASKED) }
    }

    /// The id of a base.
    #[must_use]
    pub fn id(self, base: BaseId) -> u32 {
        OF_BASES.get(usize::from(base)).copied().unwrap_or(UNKNOWN)
    }

    /// The tokens of a sequence.
    #[must_use]
    pub fn encode(self, bases: &[BaseId]) -> Tokens {
        Tokens::single(bases.iter().map(|&base| self.id(base)).collect(), Spans::Bases(bases.len()))
    }

    /// A certain base, drawn.
    pub(super) fn draw(self, random: &mut Stream) -> u32 {
        self.id(random.random_range(0..4))
    }
}
