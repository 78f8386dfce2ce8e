//! Which sequences stand in several parts of a data set, or several times in one.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{Row, table::Table};
use crate::{
    alphabet::complement_letter,
    span::Strand,
    split::{Shares, Split},
};

/// The sequences that parts share, and that the training set repeats.
///
/// Two sequences are the same if their bases are: upper and lower case are alike, and so are U and T. Of pairs, both sequences
/// must be the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlap {
    /// Within the training set.
    pub train: Repeats,
    /// The training set and `dev`.
    pub train_dev: Shared,
    /// The training set and `test`.
    pub train_test: Shared,
    /// `dev` and `test`.
    pub dev_test: Shared,
}

/// Rows that repeat earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeats {
    /// Rows whose sequence stands in an earlier row.
    pub rows: usize,
    /// Of those, rows with another label than the earliest.
    pub conflicting: usize,
}

/// What two parts share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shared {
    /// Different sequences that stand in both.
    pub sequences: usize,
    /// Rows of the first part whose sequence stands in the second.
    pub rows: usize,
    /// Of those, rows with another label than the earliest of the second part.
    pub conflicting: usize,
    /// Further rows of the first part whose reverse complement stands in the second.
    pub reverse_complements: usize,
}

impl Overlap {
    pub(super) fn of(train: &Table, dev: Option<&Table>, test: Option<&Table>) -> Self {
        let (train, dev, test) = (Part::new(train), dev.map(Part::new), test.map(Part::new));
        let shared = |first: Option<&Part<'_>>, second: Option<&Part<'_>>| match (first, second) {
            (Some(first), Some(second)) => first.shared_with(second),
            _ => Shared::default(),
        };
        Self {
            train: train.repeats(),
            train_dev: shared(Some(&train), dev.as_ref()),
            train_test: shared(Some(&train), test.as_ref()),
            dev_test: shared(dev.as_ref(), test.as_ref()),
        }
    }
}

/// The rows of `train` whose sequence stands in none of the other parts.
pub(super) fn rows_of_its_own(train: &Table, others: &[&Table]) -> Vec<usize> {
    let others: HashSet<Key> = others.iter().flat_map(|other| keys(other, Strand::Forward)).collect();
    let train = keys(train, Strand::Forward);
    (0..).zip(train).filter(|(_, key)| !others.contains(key)).map(|(row, _)| row).collect()
}

/// The split of a sequence by its hash; its copies and those of its reverse complement go the same way.
pub(super) fn assign(row: Row<'_>, seed: u64, shares: Shares) -> Split {
    let [forward, reverse] = [Strand::Forward, Strand::Reverse].map(|strand| key(row, strand));
    let mut hash = blake3::Hasher::new();
    hash.update(&seed.to_le_bytes()).update(&forward.min(reverse));
    shares.assign(&hash)
}

/// The rows of one part by their sequences.
struct Part<'a> {
    table: &'a Table,
    keys: Vec<Key>,
    /// The first row of each sequence.
    first: HashMap<Key, usize>,
}

impl<'a> Part<'a> {
    fn new(table: &'a Table) -> Self {
        let keys: Vec<Key> = keys(table, Strand::Forward).collect();
        let mut first = HashMap::with_capacity(keys.len());
        for (row, key) in keys.iter().enumerate() {
            first.entry(*key).or_insert(row);
        }
        Self { table, keys, first }
    }

    fn repeats(&self) -> Repeats {
        let mut repeats = Repeats::default();
        for (row, key) in self.keys.iter().enumerate() {
            let first = self.first[key];
            if first < row {
                repeats.rows += 1;
                repeats.conflicting += usize::from(!self.table.labels(row).eq(self.table.labels(first)));
            }
        }
        repeats
    }

    fn shared_with(&self, other: &Self) -> Shared {
        let mut shared = Shared::default();
        let reverse = keys(self.table, Strand::Reverse);
        for ((row, key), reverse) in self.keys.iter().enumerate().zip(reverse) {
            if let Some(&twin) = other.first.get(key) {
                shared.rows += 1;
                shared.sequences += usize::from(self.first[key] == row);
                shared.conflicting += usize::from(!self.table.labels(row).eq(other.table.labels(twin)));
            } else if other.first.contains_key(&reverse) {
                shared.reverse_complements += 1;
            }
        }
        shared
    }
}

/// A hash of a sequence, or of both of a pair: equal for equal ones, and with no other chance than one in 2⁶⁴ rows.
type Key = [u8; 16];

fn keys(table: &Table, strand: Strand) -> impl Iterator<Item = Key> {
    table.rows.iter().map(move |row| key(row, strand))
}

fn key(row: Row<'_>, strand: Strand) -> Key {
    let mut hasher = blake3::Hasher::new();
    for sequence in [Some(row.sequence), row.second].into_iter().flatten() {
        let letters: Vec<u8> = match strand {
            Strand::Forward => sequence.iter().copied().map(plain).collect(),
            Strand::Reverse => sequence.iter().rev().copied().map(complement_letter).map(plain).collect(),
        };
        // No letter is 0, so it tells where the first of a pair ends.
        hasher.update(&letters).update(&[0]);
    }
    let mut key = Key::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

/// A letter in upper case, U as T.
fn plain(letter: u8) -> u8 {
    match letter.to_ascii_uppercase() {
        b'U' => b'T',
        letter => letter,
    }
}

#[cfg(test)]
mod tests {
    use super::super::ColumnRequest;
    use super::*;
    use std::fs;

    fn table(rows: &str) -> Table {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.csv");
        let header = if rows.matches(',').count() > rows.split(' ').count() {
            "sequence_1,sequence_2,label"
        } else {
            "sequence,label"
        };
        fs::write(&path, format!("{header}\n{}\n", rows.replace(' ', "\n"))).unwrap();
        Table::read(&path, None, &ColumnRequest::default()).unwrap().0
    }

    #[test]
    fn copies_within_a_set_are_counted_with_their_labels() {
        let train = table("ACGT,0 GGGG,1 acgu,0 GGGG,0 GGGG,1 CCCC,1");
        let overlap = Overlap::of(&train, None, None);
        assert_eq!(overlap.train, Repeats { rows: 3, conflicting: 1 });
        assert_eq!(overlap.train_test, Shared::default());
    }

    #[test]
    fn copies_in_another_set_are_counted_on_both_strands() {
        let train = table("AACC,0 aacc,1 GGTT,0 TTTT,1 RYAA,0 CCCG,0");
        let test = table("GGGG,0 AACC,0 AAAA,1 TTRY,0");
        let overlap = Overlap::of(&train, Some(&table("AAAA,0 GGGG,1")), Some(&test));
        let in_test = Shared { sequences: 1, rows: 2, conflicting: 1, reverse_complements: 3 };
        assert_eq!(overlap.train_test, in_test);
        assert_eq!(overlap.train_dev, Shared { reverse_complements: 1, ..Shared::default() });
        assert_eq!(overlap.dev_test, Shared { sequences: 2, rows: 2, conflicting: 2, reverse_complements: 0 });
        assert_eq!(rows_of_its_own(&train, &[&test]), [2, 3, 4, 5]);
    }

    #[test]
    fn pairs_are_the_same_if_both_are() {
        let train = table("AC,GT,0 ACG,T,0 GT,AC,1");
        let overlap = Overlap::of(&train, None, Some(&table("AC,GT,0 GT,AC,1")));
        assert_eq!((overlap.train_test.rows, overlap.train_test.reverse_complements), (2, 0));
        assert_eq!(overlap.train.rows, 0);
        // AC and GT are each other's reverse complements, so the pair of both is that of GT and AC.
        let overlap = Overlap::of(&train, None, Some(&table("GT,AC,0")));
        assert_eq!((overlap.train_test.rows, overlap.train_test.reverse_complements), (1, 1));
    }

    #[test]
    fn copies_go_to_the_same_part() {
        let shares = Shares { valid: 0.3, test: 0.3 };
        let assign = |sequence: &[u8]| assign(Row { id: "", sequence, second: None }, 7, shares);
        for number in 0..100 {
            let mut sequence = crate::synthetic::genome(number, 40, 0.5);
            let split = assign(&sequence);
            assert_eq!(split, assign(&sequence.to_ascii_lowercase()));
            crate::alphabet::reverse_complement_letters(&mut sequence);
            assert_eq!(split, assign(&sequence));
        }
    }

    #[test]
    fn an_assignment_never_changes() {
        // Written down once: what was held out must stay held out in later versions.
        let shares = Shares { valid: 0.3, test: 0.3 };
        let split = |sequence: &[u8]| assign(Row { id: "", sequence, second: None }, 1, shares).to_string();
        let splits = [&b"A"[..], b"AC", b"ACG", b"ACGT", b"ACGTA", b"ACGTAC"].map(split);
        assert_eq!(splits.join(" "), "valid test valid test test train");
    }
}
