//! Places on a genome: contig, 0-based half-open `start..end`, strand; and the region strings people write for them.

use std::{fmt, ops::Range, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    nearest::{did_you_mean, nearest},
    words::words,
};

/// The strand of the double helix a sequence is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Strand {
    /// As written in the file: `+`.
    #[default]
    #[serde(rename = "+")]
    Forward,
    /// The reverse complement of what is written: `-`.
    #[serde(rename = "-")]
    Reverse,
}

words!(Strand, "a strand", { Forward => "+", Reverse => "-" });

/// Which strands of a window are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrandPolicy {
    /// The strand in the file.
    #[default]
    Forward,
    /// Both, each once.
    Both,
    /// One of the two by a seeded coin; for training only.
    Random,
}

words!(StrandPolicy, "a strand policy", { Forward => "forward", Both => "both", Random => "random" });

/// A stretch of one contig.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Name of the contig.
    pub contig: Arc<str>,
    /// First base, counted from 0 on the forward strand.
    pub start: u64,
    /// One past the last base, on the forward strand.
    pub end: u64,
    /// The strand it is read from; `start < end` holds for both.
    pub strand: Strand,
}

impl Span {
    /// Number of bases.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it holds no base.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    /// Whether the base at `position` of the same contig lies inside.
    #[must_use]
    pub const fn contains(&self, position: u64) -> bool {
        self.start <= position && position < self.end
    }

    /// The place of some of its bases, counted from 0 in the direction in which it is read: on the reverse strand from its end.
    ///
    /// # Panics
    /// If they are not among its bases.
    #[must_use]
    pub fn part(&self, bases: Range<u64>) -> Range<u64> {
        assert!(bases.start <= bases.end && bases.end <= self.len(), "bases {bases:?} of {}", self.len());
        match self.strand {
            Strand::Forward => self.start + bases.start..self.start + bases.end,
            Strand::Reverse => self.end - bases.end..self.end - bases.start,
        }
    }

    /// The bases both spans hold, on this span's strand; none if the contigs differ or nothing is shared.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (self.contig == other.contig && start < end).then(|| Self { start, end, ..self.clone() })
    }
}

impl fmt::Display for Span {
    /// As a region string, 1-based and inclusive, with the strand: `chr1:1001-2000(+)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}({})", self.contig, self.start + 1, self.end, self.strand)
    }
}

/// A region of a contig as asked for, before the contig's length is known.
///
/// Parsed from and printed as the 1-based inclusive strings of samtools: `chr1`, `chr1:1000` (from base 1000 to the end),
/// `chr1:1,000-2,000`. Braces say where a name that holds a `:` ends, as in samtools: `{HLA:01}` and `{HLA:01}:5-9`. Without
/// them `FromStr` takes the last `:` for the end of the name; use [`Region::parse`] where the names are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Name of the contig.
    pub contig: String,
    /// First base, counted from 0.
    pub start: u64,
    /// One past the last base; to the end of the contig if absent.
    pub end: Option<u64>,
}

/// Why a region string could not be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// Nothing was written before the range.
    #[error("region `{region}` names no contig")]
    NoContig {
        /// The region as given.
        region: String,
    },
    /// What follows the `:` is no range.
    #[error("region `{region}`: `{range}` is not a range of bases such as 1,000-2,000")]
    Range {
        /// The region as given.
        region: String,
        /// The part that is no range.
        range: String,
    },
    /// The range ends before it starts, or starts at 0.
    #[error("region `{region}` holds no base: bases are counted from 1 and the end is included")]
    Empty {
        /// The region as given.
        region: String,
    },
    /// The region starts after the contig's last base.
    #[error("region `{region}` starts after the end of its contig, which has {bases} bases")]
    BeyondEnd {
        /// The region as given.
        region: String,
        /// Length of the contig in bases.
        bases: u64,
    },
    /// The region ends after the contig's last base.
    #[error("region `{region}` ends after the end of its contig, which has {bases} bases")]
    EndsBeyond {
        /// The region as given.
        region: String,
        /// Length of the contig in bases.
        bases: u64,
    },
    /// The text is the name of a contig and also a range of another.
    #[error("region `{region}` has two meanings: write `{}`", .readings.join("` or `"))]
    Ambiguous {
        /// The region as given.
        region: String,
        /// Each meaning, written so that it has no other.
        readings: Vec<String>,
    },
    /// No contig has this name.
    #[error("no contig `{name}`{}", did_you_mean(.suggestion.as_deref()))]
    UnknownContig {
        /// The name as given.
        name: String,
        /// The known name that was probably meant.
        suggestion: Option<String>,
    },
}

impl Region {
    /// Parses a region string against the names of the contigs that exist.
    ///
    /// A text that is itself a name means that whole contig, so most names that contain `:` need no braces.
    ///
    /// # Errors
    /// If the name is not known (the nearest known one is suggested), the range is malformed or empty, or the text is a name and
    /// also a range of another contig.
    pub fn parse<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Result<Self, RegionError> {
        let known: Vec<&str> = known.into_iter().collect();
        let (named, unnamed): (Vec<Meaning>, Vec<_>) =
            Meaning::all(text).partition(|meaning| known.contains(&meaning.name));
        let is_range = |meaning: &&Meaning| meaning.range.is_none_or(|range| parse_range(range).is_some());
        let readings: Vec<&Meaning> = named.iter().filter(is_range).collect();
        match readings[..] {
            [] => {}
            [meaning] => return meaning.region(text),
            _ => {
                let readings = readings.iter().map(ToString::to_string).collect();
                return Err(RegionError::Ambiguous { region: text.to_owned(), readings });
            }
        }
        if let Some(meaning) = named.first() {
            return meaning.region(text);
        }
        // With an unknown name, what the message should be about is the text before a `:`.
        let name = unnamed.last().map_or(text, |meaning| meaning.name);
        let suggestion = nearest(name, known.iter().copied()).map(str::to_owned);
        Err(RegionError::UnknownContig { name: name.to_owned(), suggestion })
    }

    /// The names that a region string may mean, at most four.
    pub fn names(text: &str) -> impl Iterator<Item = &str> {
        Meaning::all(text).map(|meaning| meaning.name)
    }

    /// The bases of the region on a contig of `bases` bases; an end beyond the contig is cut, as samtools does.
    ///
    /// # Errors
    /// If the region starts beyond the contig's end.
    pub fn on_contig(&self, bases: u64) -> Result<Range<u64>, RegionError> {
        if self.start > bases || (self.start == bases && self.start > 0) {
            return Err(RegionError::BeyondEnd { region: self.to_string(), bases });
        }
        Ok(self.start..self.end.unwrap_or(bases).min(bases))
    }
}

impl FromStr for Region {
    type Err = RegionError;

    fn from_str(text: &str) -> Result<Self, RegionError> {
        let meaning = Meaning::all(text).last().filter(|meaning| !meaning.name.is_empty());
        meaning.ok_or_else(|| RegionError::NoContig { region: text.to_owned() })?.region(text)
    }
}

/// A way to read a region string.
struct Meaning<'text> {
    name: &'text str,
    range: Option<&'text str>,
}

impl<'text> Meaning<'text> {
    /// Every way to read a text, whatever the names: as it stands, up to its last `:`, and by its braces.
    fn all(text: &'text str) -> impl Iterator<Item = Self> {
        let whole = Some(Self { name: text, range: None });
        let split = text.rsplit_once(':').map(|(name, range)| Self { name, range: Some(range) });
        let inside = text.strip_prefix('{');
        let braced = inside.and_then(|inside| inside.strip_suffix('}')).map(|name| Self { name, range: None });
        let part = inside.and_then(|inside| inside.rsplit_once("}:"));
        let part = part.map(|(name, range)| Self { name, range: Some(range) });
        [whole, split, braced, part].into_iter().flatten()
    }

    fn region(&self, text: &str) -> Result<Region, RegionError> {
        let (region, contig) = (text.to_owned(), self.name.to_owned());
        let Some(range) = self.range else { return Ok(Region { contig, start: 0, end: None }) };
        let Some((first, last)) = parse_range(range) else {
            return Err(RegionError::Range { region, range: range.to_owned() });
        };
        match (first.checked_sub(1), last) {
            (Some(start), end) if end.is_none_or(|end| end > start) => Ok(Region { contig, start, end }),
            _ => Err(RegionError::Empty { region }),
        }
    }
}

impl fmt::Display for Meaning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.name)?;
        self.range.map_or(Ok(()), |range| write!(f, ":{range}"))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.start, self.end) {
            (0, None) => f.write_str(&self.contig),
            (start, None) => write!(f, "{}:{}", self.contig, start + 1),
            (start, Some(end)) => write!(f, "{}:{}-{end}", self.contig, start + 1),
        }
    }
}

/// `1,000-2,000`, `1000-` or `1000` as first and last base, 1-based and inclusive.
fn parse_range(range: &str) -> Option<(u64, Option<u64>)> {
    match range.split_once('-') {
        None => Some((parse_number(range)?, None)),
        Some((first, "")) => Some((parse_number(first)?, None)),
        Some((first, last)) => Some((parse_number(first)?, Some(parse_number(last)?))),
    }
}

fn parse_number(text: &str) -> Option<u64> {
    let is_number = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b',');
    if is_number { text.replace(',', "").parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(contig: &str, start: u64, end: Option<u64>) -> Region {
        Region { contig: contig.to_owned(), start, end }
    }

    #[test]
    fn region_strings_are_one_based_and_inclusive() {
        for (text, expected) in [
            ("chr1", region("chr1", 0, None)),
            ("chr1:1000", region("chr1", 999, None)),
            ("chr1:1000-", region("chr1", 999, None)),
            ("chr1:1,000-2,000", region("chr1", 999, Some(2000))),
            ("chr1:5-5", region("chr1", 4, Some(5))),
        ] {
            assert_eq!(Region::parse(text, ["chr1"]), Ok(expected), "{text}");
        }
    }

    #[test]
    fn names_with_colons_are_resolved_against_the_known_ones() {
        let known = ["HLA:01:x", "HLA:01", "HLA:01:02"];
        assert_eq!(Region::parse("HLA:01:x", known), Ok(region("HLA:01:x", 0, None)));
        assert_eq!(Region::parse("HLA:01:3-4", known), Ok(region("HLA:01", 2, Some(4))));
        assert_eq!(Region::parse("HLA:01:02:3-4", known), Ok(region("HLA:01:02", 2, Some(4))));
    }

    #[test]
    fn a_name_that_is_also_a_range_needs_braces() {
        let known = ["part", "part:1-100", "{odd}"];
        assert_eq!(
            Region::parse("part:1-100", known).unwrap_err().to_string(),
            "region `part:1-100` has two meanings: write `{part:1-100}` or `{part}:1-100`"
        );
        for (text, expected) in [
            ("{part:1-100}", region("part:1-100", 0, None)),
            ("{part}:1-100", region("part", 0, Some(100))),
            ("{part:1-100}:2-3", region("part:1-100", 1, Some(3))),
            ("{part}", region("part", 0, None)),
            ("part:2-100", region("part", 1, Some(100))),
            ("part:1-100:7", region("part:1-100", 6, None)),
            ("{odd}", region("{odd}", 0, None)),
            ("{odd}:2", region("{odd}", 1, None)),
            ("{{odd}}:2", region("{odd}", 1, None)),
        ] {
            assert_eq!(Region::parse(text, known), Ok(expected), "{text}");
        }
        assert_eq!("{part:1-100}:2-3".parse(), Ok(region("part:1-100", 1, Some(3))));
        assert_eq!("{part:1-100}".parse(), Ok(region("part:1-100", 0, None)));
        let message = Region::parse("{prt}:1-100", known).unwrap_err().to_string();
        assert_eq!(message, "no contig `prt`; did you mean `part`?");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let message = |text| Region::parse(text, ["chr1", "chr2"]).unwrap_err().to_string();
        assert_eq!(message("1"), "no contig `1`; did you mean `chr1`?");
        assert_eq!(message("2:5-10"), "no contig `2`; did you mean `chr2`?");
        assert_eq!(message("scaffold"), "no contig `scaffold`");
        assert_eq!(message("chr1:x-y"), "region `chr1:x-y`: `x-y` is not a range of bases such as 1,000-2,000");
        assert_eq!(
            message("chr1:0-5"),
            "region `chr1:0-5` holds no base: bases are counted from 1 and the end is included"
        );
        assert_eq!(
            message("chr1:9-5"),
            "region `chr1:9-5` holds no base: bases are counted from 1 and the end is included"
        );
    }

    #[test]
    fn the_end_is_cut_and_the_start_is_not() {
        assert_eq!(region("a", 5, Some(99)).on_contig(10), Ok(5..10));
        assert_eq!(region("a", 0, None).on_contig(0), Ok(0..0));
        assert!(region("a", 10, Some(11)).on_contig(10).is_err());
    }

    #[test]
    fn spans_intersect_on_one_contig() {
        let span = |contig: &str, start, end| Span { contig: contig.into(), start, end, strand: Strand::Forward };
        assert_eq!(span("a", 0, 10).intersect(&span("a", 5, 20)), Some(span("a", 5, 10)));
        assert_eq!(span("a", 0, 10).intersect(&span("a", 10, 20)), None);
        assert_eq!(span("a", 0, 10).intersect(&span("b", 5, 20)), None);
        let reverse = Span { strand: Strand::Reverse, ..span("a", 100, 110) };
        assert_eq!(
            [span("a", 100, 110).part(0..4), reverse.part(0..4), reverse.part(0..10)],
            [100..104, 106..110, 100..110]
        );
        assert_eq!((span("a", 3, 10).len(), span("a", 3, 10).contains(10)), (7, false));
        assert_eq!(span("chr1", 1000, 2000).to_string(), "chr1:1001-2000(+)");
    }
}
