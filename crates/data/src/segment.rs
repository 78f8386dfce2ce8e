//! Applies the policies for letters to a record: what is left are segments of base ids.

use std::{
    mem::discriminant,
    ops::{Add, AddAssign, Range},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use crate::{
    alphabet::{AmbiguousPolicy, BaseId, Letter, N, SoftMaskPolicy, classify},
    fasta::{FastaError, LetterFault, Record},
};

/// What to do with letters that are not certain, unmasked bases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// For IUPAC letters that stand for several bases.
    pub ambiguous: AmbiguousPolicy,
    /// For lower-case letters.
    pub soft_mask: SoftMaskPolicy,
}

/// Policies that are given in place of those of a model; none keeps the model's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyChange {
    /// For IUPAC letters that stand for several bases.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ambiguous: Option<AmbiguousPolicy>,
    /// For lower-case letters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft_mask: Option<SoftMaskPolicy>,
}

impl PolicyChange {
    /// Whether nothing is changed.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The policies of a model with these in their place.
    #[must_use]
    pub fn over(&self, model: Policy) -> Policy {
        Policy {
            ambiguous: self.ambiguous.unwrap_or(model.ambiguous),
            soft_mask: self.soft_mask.unwrap_or(model.soft_mask),
        }
    }
}

/// A stretch of a contig that holds no letter the policy cuts out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Name of the contig.
    pub contig: Arc<str>,
    /// Where the segment starts on its contig, counted from 0.
    pub start: u64,
    /// The bases.
    pub bases: Vec<BaseId>,
    /// The soft-masked stretches, as sorted, disjoint positions of `bases`.
    pub soft_masked: Vec<Range<usize>>,
}

/// How many letters of each kind were met, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Records without a letter.
    pub empty_records: u64,
    /// Letters of all records.
    pub bases: u64,
    /// Letters that stand for several bases.
    pub ambiguous: u64,
    /// Lower-case letters.
    pub soft_masked: u64,
    /// Letters that a policy cut out.
    pub dropped: u64,
    /// Segments.
    pub segments: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.records += other.records;
        self.empty_records += other.empty_records;
        self.bases += other.bases;
        self.ambiguous += other.ambiguous;
        self.soft_masked += other.soft_masked;
        self.dropped += other.dropped;
        self.segments += other.segments;
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

/// A letter of a sequence that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// Its place in the sequence, counted from 0.
    pub position: usize,
    /// The letter.
    pub letter: u8,
    /// Why it cannot be used.
    pub fault: LetterFault,
}

/// Cuts a record into segments and adds what it saw to `counts`.
///
/// With the default policy this is one segment, the whole record; an empty record has none.
///
/// # Errors
/// If a letter is not a nucleotide code, or is ambiguous where the policy forbids it. `counts` is then unchanged.
pub fn segments(record: &Record, policy: Policy, counts: &mut Counts) -> Result<Vec<Segment>, FastaError> {
    let contig: Arc<str> = record.name.as_str().into();
    let mut segments: Vec<Segment> = Vec::new();
    let scanned = scan(&record.bases, policy, counts, |position, run, is_masked| {
        let start = record.start + position as u64;
        let is_next = |open: &&mut Segment| open.start + open.bases.len() as u64 == start;
        if let Some(open) = segments.last_mut().filter(is_next) {
            open.push(run, is_masked);
        } else {
            let mut open = Segment { contig: contig.clone(), start, bases: Vec::new(), soft_masked: Vec::new() };
            open.push(run, is_masked);
            segments.push(open);
        }
    });
    scanned.map_err(|Unusable { position, letter, fault }| FastaError::Letter {
        file: record.file.clone(),
        record: record.name.clone(),
        position: record.start + position as u64 + 1,
        letter,
        fault,
    })?;
    Ok(segments)
}

/// The parts of a sequence that the policies keep, as sorted positions between which something is cut out; adds what it saw to
/// `counts`, as one record.
///
/// # Errors
/// As [`segments`].
pub fn kept(letters: &[u8], policy: Policy, counts: &mut Counts) -> Result<Vec<Range<usize>>, Unusable> {
    let mut parts: Vec<Range<usize>> = Vec::new();
    scan(letters, policy, counts, |start, run, _| match parts.last_mut().filter(|open| open.end == start) {
        Some(open) => open.end += run.len(),
        None => parts.push(start..start + run.len()),
    })?;
    Ok(parts)
}

/// Hands runs of like letters that the policies keep to `keep`, with their place and whether they are soft-masked.
fn scan<'a>(
    letters: &'a [u8],
    policy: Policy,
    counts: &mut Counts,
    mut keep: impl FnMut(usize, &'a [u8], bool),
) -> Result<(), Unusable> {
    let mut seen = Counts { records: 1, bases: letters.len() as u64, ..Counts::default() };
    seen.empty_records = u64::from(letters.is_empty());
    let (mut position, mut is_open) = (0, false);
    for run in letters.chunk_by(|&a, &b| is_alike(a, b)) {
        let (letter, bases) = (run[0], run.len() as u64);
        let unusable = |fault| Err(Unusable { position, letter, fault });
        let is_masked = letter.is_ascii_lowercase();
        let is_ambiguous = match classify(letter) {
            Letter::Base(_) => false,
            Letter::Ambiguous if policy.ambiguous == AmbiguousPolicy::Error => return unusable(LetterFault::Ambiguous),
            Letter::Ambiguous => true,
            Letter::Invalid => return unusable(LetterFault::of(letter)),
        };
        seen.ambiguous += if is_ambiguous { bases } else { 0 };
        seen.soft_masked += if is_masked { bases } else { 0 };
        if (is_ambiguous && policy.ambiguous == AmbiguousPolicy::Split)
            || (is_masked && policy.soft_mask == SoftMaskPolicy::Drop)
        {
            seen.dropped += bases;
            is_open = false;
        } else {
            seen.segments += u64::from(!is_open);
            is_open = true;
            keep(position, run, is_masked);
        }
        position += run.len();
    }
    *counts += seen;
    Ok(())
}

/// Whether the policies treat two letters alike: the same kind of letter in the same case.
fn is_alike(a: u8, b: u8) -> bool {
    discriminant(&classify(a)) == discriminant(&classify(b)) && a.is_ascii_lowercase() == b.is_ascii_lowercase()
}

impl Segment {
    fn push(&mut self, letters: &[u8], is_masked: bool) {
        let start = self.bases.len();
        self.bases.extend(letters.iter().map(|&letter| match classify(letter) {
            Letter::Base(base) => base,
            Letter::Ambiguous | Letter::Invalid => N,
        }));
        let end = self.bases.len();
        match self.soft_masked.last_mut() {
            _ if !is_masked => {}
            Some(run) if run.end == start => run.end = end,
            _ => self.soft_masked.push(start..end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(bases: &[u8], ambiguous: AmbiguousPolicy, soft_mask: SoftMaskPolicy) -> (Vec<(u64, usize)>, Counts) {
        let mut counts = Counts::default();
        let policy = Policy { ambiguous, soft_mask };
        let segments = segments(&Record::in_memory("chr1", bases), policy, &mut counts).unwrap();
        let mut again = Counts::default();
        let parts = kept(bases, policy, &mut again).unwrap();
        assert_eq!(again, counts);
        assert!(
            parts
                .iter()
                .map(|part| (part.start as u64, part.len()))
                .eq(segments.iter().map(|segment| (segment.start, segment.bases.len())))
        );
        (segments.iter().map(|segment| (segment.start, segment.bases.len())).collect(), counts)
    }

    #[test]
    fn by_default_everything_stays() {
        let record = Record::in_memory("chr1", b"ACgtNrA");
        let segments = segments(&record, Policy::default(), &mut Counts::default()).unwrap();
        let expected = Segment {
            contig: "chr1".into(),
            start: 0,
            bases: vec![0, 1, 2, 3, N, N, 0],
            soft_masked: vec![2..4, 5..6],
        };
        assert_eq!(segments, [expected]);
    }

    #[test]
    fn policies_cut_and_everything_is_counted() {
        let bases = b"NNACgtRRAcN";
        let all = Counts { records: 1, bases: 11, ambiguous: 5, soft_masked: 3, segments: 1, ..Counts::default() };
        assert_eq!(cut(bases, AmbiguousPolicy::N, SoftMaskPolicy::Keep), (vec![(0, 11)], all));

        let split = Counts { dropped: 5, segments: 2, ..all };
        assert_eq!(cut(bases, AmbiguousPolicy::Split, SoftMaskPolicy::Keep), (vec![(2, 4), (8, 2)], split));

        let dropped = Counts { dropped: 3, segments: 3, ..all };
        assert_eq!(cut(bases, AmbiguousPolicy::N, SoftMaskPolicy::Drop), (vec![(0, 4), (6, 3), (10, 1)], dropped));

        let both = Counts { dropped: 8, segments: 2, ..all };
        assert_eq!(cut(bases, AmbiguousPolicy::Split, SoftMaskPolicy::Drop), (vec![(2, 2), (8, 1)], both));
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let model = Policy { ambiguous: AmbiguousPolicy::Split, soft_mask: SoftMaskPolicy::Drop };
        let change = PolicyChange { ambiguous: Some(AmbiguousPolicy::Error), soft_mask: None };
        assert_eq!(change.over(model), Policy { ambiguous: AmbiguousPolicy::Error, ..model });
        assert_eq!(PolicyChange::default().over(model), model);
    }

    #[test]
    fn an_empty_record_has_no_segment() {
        let counts = Counts { records: 1, empty_records: 1, ..Counts::default() };
        assert_eq!(cut(b"", AmbiguousPolicy::N, SoftMaskPolicy::Keep), (vec![], counts));
    }

    #[test]
    fn errors_name_file_record_base_and_letter() {
        let message = |bases: &[u8], ambiguous, start| {
            let record = Record { start, ..Record::in_memory("x", bases) };
            let policy = Policy { ambiguous, ..Policy::default() };
            segments(&record, policy, &mut Counts::default()).unwrap_err().to_string()
        };
        assert_eq!(
            message(b"MKVL", AmbiguousPolicy::N, 0),
            "memory: record `x`, base 4: `L` is not a nucleotide code; is this a protein?"
        );
        assert!(message(b"AC-GT", AmbiguousPolicy::N, 0).contains("base 3: `-` is a gap"));
        assert!(message(b"ACn", AmbiguousPolicy::Error, 100).contains("base 103: `n` is ambiguous"));
    }
}
