//! The only place where a byte becomes a base id.
//!
//! Five ids: A, C, G, T and N. N stands for every IUPAC letter that is not one certain base.

use serde::{Deserialize, Serialize};

use crate::words::words;

/// A base as a small number: 0 to 3 are A, C, G, T and 4 is N.
pub type BaseId = u8;

/// The id of an unknown base.
pub const N: BaseId = 4;

/// The upper-case letter of each [`BaseId`].
pub const BASES: [u8; 5] = *b"ACGTN";

/// What to do with IUPAC letters that are not one certain base: N, R, Y, S, W, K, M, B, D, H and V.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AmbiguousPolicy {
    /// They become [`N`] and stay in place.
    #[default]
    N,
    /// The sequence is cut there; they belong to no segment.
    Split,
    /// They are an error.
    Error,
}

words!(AmbiguousPolicy, "a policy for ambiguous letters", { N => "n", Split => "split", Error => "error" });

/// What to do with soft-masked (lower-case) bases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SoftMaskPolicy {
    /// They stay, marked in a track beside the bases.
    #[default]
    Keep,
    /// The sequence is cut there; they belong to no segment.
    Drop,
}

words!(SoftMaskPolicy, "a policy for soft-masked bases", { Keep => "keep", Drop => "drop" });

/// What a letter of a sequence file means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letter {
    /// One certain base: A, C, G, T, or U, which is read as T.
    Base(BaseId),
    /// An IUPAC code for several bases, N included.
    Ambiguous,
    /// Not a nucleotide: gaps, protein-only letters, digits, punctuation.
    Invalid,
}

/// Says what a letter means; upper and lower case mean the same.
#[must_use]
pub const fn classify(letter: u8) -> Letter {
    LETTERS[letter as usize]
}

/// What every byte means; a table, because every base of a genome is looked up.
static LETTERS: [Letter; 256] = {
    let mut letters = [Letter::Invalid; 256];
    let mut byte = 0;
    while byte <= u8::MAX as usize {
        #[expect(clippy::cast_possible_truncation, reason = "at most the largest byte")]
        let letter = byte as u8;
        letters[byte] = meaning(letter);
        byte += 1;
    }
    letters
};

const fn meaning(letter: u8) -> Letter {
    match letter.to_ascii_uppercase() {
        b'A' => Letter::Base(0),
        b'C' => Letter::Base(1),
        b'G' => Letter::Base(2),
        b'T' | b'U' => Letter::Base(3),
        b'R' | b'Y' | b'S' | b'W' | b'K' | b'M' | b'B' | b'D' | b'H' | b'V' | b'N' => Letter::Ambiguous,
        _ => Letter::Invalid,
    }
}

/// The upper-case letter of a base.
///
/// # Panics
/// If `base` is not a base id.
#[must_use]
pub const fn letter(base: BaseId) -> u8 {
    BASES[base as usize]
}

/// The base that pairs with `base`; N pairs with N.
#[must_use]
pub const fn complement(base: BaseId) -> BaseId {
    if base < N { 3 - base } else { N }
}

/// Turns a sequence into the one read from the other strand, in place.
pub fn reverse_complement(bases: &mut [BaseId]) {
    bases.reverse();
    for base in bases {
        *base = complement(*base);
    }
}

/// The letter that pairs with a letter, in the same case: IUPAC codes pair as the bases they stand for (R, which is A or G,
/// with Y). What is not a nucleotide code stays.
#[must_use]
pub const fn complement_letter(letter: u8) -> u8 {
    let pair = match letter.to_ascii_uppercase() {
        b'A' => b'T',
        b'C' => b'G',
        b'G' => b'C',
        b'T' | b'U' => b'A',
        b'R' => b'Y',
        b'Y' => b'R',
        b'K' => b'M',
        b'M' => b'K',
        b'B' => b'V',
        b'V' => b'B',
        b'D' => b'H',
        b'H' => b'D',
        // N, S and W pair with themselves.
        _ => return letter,
    };
    if letter.is_ascii_lowercase() { pair.to_ascii_lowercase() } else { pair }
}

/// Turns letters into those read from the other strand, in place.
pub fn reverse_complement_letters(letters: &mut [u8]) {
    letters.reverse();
    for letter in letters {
        *letter = complement_letter(*letter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_the_inverse_of_ids() {
        for base in 0..N {
            assert_eq!(classify(letter(base)), Letter::Base(base));
            assert_eq!(classify(letter(base).to_ascii_lowercase()), Letter::Base(base));
        }
        assert_eq!(classify(letter(N)), Letter::Ambiguous);
    }

    #[test]
    fn every_byte_has_one_meaning() {
        let is =
            |meaning: fn(Letter) -> bool| (0..=u8::MAX).filter(|byte| meaning(classify(*byte))).collect::<Vec<_>>();
        assert_eq!(is(|letter| matches!(letter, Letter::Base(_))), b"ACGTUacgtu");
        assert_eq!(is(|letter| letter == Letter::Ambiguous), b"BDHKMNRSVWYbdhkmnrsvwy");
    }

    #[test]
    fn the_other_strand_is_read_backwards() {
        let mut bases = [0, 1, 2, 3, N, 0];
        reverse_complement(&mut bases);
        assert_eq!(bases.map(letter), *b"TNACGT");
    }

    #[test]
    fn letters_pair_as_their_bases_do() {
        for letter in (0..=u8::MAX).filter(|letter| !letter.eq_ignore_ascii_case(&b'U')) {
            assert_eq!(complement_letter(complement_letter(letter)), letter);
            match (classify(letter), classify(complement_letter(letter))) {
                (Letter::Base(base), Letter::Base(pair)) => assert_eq!(complement(base), pair),
                (kind, other) => assert_eq!(kind, other),
            }
        }
        let mut letters = *b"ACgtRNuB";
        reverse_complement_letters(&mut letters);
        assert_eq!(letters, *b"VaNYacGT");
    }

    #[test]
    fn policies_are_the_same_word_everywhere() {
        for policy in [AmbiguousPolicy::N, AmbiguousPolicy::Split, AmbiguousPolicy::Error] {
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        for policy in [SoftMaskPolicy::Keep, SoftMaskPolicy::Drop] {
            assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
    }
}
