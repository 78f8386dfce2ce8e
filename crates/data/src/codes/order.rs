//! The rules that make a file of codes depend on nothing but its codes.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::error::{CodesError, Fault, Place};
use super::{Header, ROW_BASES, Row};
use crate::span::Strand;

/// Admits the rows of a file one after the other, on writing and on reading.
pub(super) struct Order {
    codebook_sizes: Vec<usize>,
    last: Option<Last>,
    /// Records and strands that others followed.
    ended: HashSet<(Arc<str>, Strand)>,
}

/// What the next row has to know of the last.
struct Last {
    record: Arc<str>,
    strand: Strand,
    /// Boundary where the row ended, in reading direction.
    edge: u64,
    /// Whether the row was full, so that its segment may go on.
    is_full: bool,
}

/// How bases follow those before them in the reading direction of a strand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// At once: the segment goes on.
    Adjacent,
    /// After bases without codes: a segment begins.
    Gap,
    /// Not at all: they lie before.
    Back,
}

impl Step {
    /// The step from the boundary where bases ended to the one where the next begin.
    pub(super) fn between(strand: Strand, ended: u64, begins: u64) -> Self {
        let forward = match strand {
            Strand::Forward => begins.cmp(&ended),
            Strand::Reverse => ended.cmp(&begins),
        };
        match forward {
            Ordering::Equal => Self::Adjacent,
            Ordering::Greater => Self::Gap,
            Ordering::Less => Self::Back,
        }
    }
}

impl Order {
    /// Rules for a file with this header.
    pub(super) fn new(header: &Header) -> Self {
        Self { codebook_sizes: header.codebook_sizes.clone(), last: None, ended: HashSet::new() }
    }

    /// Refuses a row that is malformed or out of place; `path` is the file it belongs to.
    pub(super) fn admit(&mut self, row: &Row, path: &Path) -> Result<(), CodesError> {
        let at = |offset| CodesError::content(path, Place::base(row, offset));
        check_shape(row, self.codebook_sizes.len()).map_err(at(0))?;
        check_codes(row, &self.codebook_sizes).map_err(|(offset, fault)| at(offset)(fault))?;
        self.follow(row).map_err(at(0))
    }

    fn follow(&mut self, row: &Row) -> Result<(), Fault> {
        if let Some(last) = &self.last {
            match last.step(row) {
                Some(Step::Back) => return Err(Fault::Overlap { edge: last.edge }),
                Some(Step::Adjacent) if !last.is_full => return Err(Fault::ShortRow),
                Some(Step::Adjacent | Step::Gap) => {}
                None if self.ended.contains(&(Arc::clone(&row.record), row.strand)) => return Err(Fault::Returns),
                None => {
                    self.ended.insert((Arc::clone(&last.record), last.strand));
                }
            }
        }
        let is_full = row.end - row.start == ROW_BASES as u64;
        let (record, (_, edge)) = (Arc::clone(&row.record), row.edges());
        self.last = Some(Last { record, strand: row.strand, edge, is_full });
        Ok(())
    }
}

impl Last {
    /// The step to a row of the same record and strand; `None` for any other.
    fn step(&self, row: &Row) -> Option<Step> {
        let is_same = self.record == row.record && self.strand == row.strand;
        is_same.then(|| Step::between(row.strand, self.edge, row.edges().0))
    }
}

fn check_shape(row: &Row, levels: usize) -> Result<(), Fault> {
    if row.record.is_empty() || row.record.contains(char::is_control) {
        return Err(Fault::Record { found: row.record.to_string() });
    }
    let bases = check_span(row.start, row.end)?;
    if row.codes.len() != levels {
        return Err(Fault::Levels { expected: levels, found: row.codes.len() });
    }
    match row.codes.iter().position(|codes| codes.len() != bases) {
        Some(level) => Err(Fault::Codes { level: level + 1, expected: bases, found: row.codes[level].len() }),
        None => Ok(()),
    }
}

/// Number of bases of a row at `start..end`. Parquet stores coordinates as `i64`, which bounds them for all.
pub(super) fn check_span(start: u64, end: u64) -> Result<usize, Fault> {
    let fault = Fault::Span { start, end };
    let bases = end.checked_sub(start).and_then(|bases| usize::try_from(bases).ok());
    match bases {
        Some(bases @ 1..=ROW_BASES) if i64::try_from(end).is_ok() => Ok(bases),
        _ => Err(fault),
    }
}

/// The first code outside its codebook, as offset in the row and fault.
fn check_codes(row: &Row, codebook_sizes: &[usize]) -> Result<(), (usize, Fault)> {
    for (level, (codes, &codebook_size)) in row.codes.iter().zip(codebook_sizes).enumerate() {
        if let Some(offset) = codes.iter().position(|&code| usize::from(code) >= codebook_size) {
            let fault = Fault::Code { level: level + 1, code: codes[offset].into(), codebook_size };
            return Err((offset, fault));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u64 = ROW_BASES as u64;

    fn row(record: &str, strand: Strand, start: u64, end: u64) -> Row {
        let bases = usize::try_from(end - start).unwrap();
        Row { record: Arc::from(record), start, end, strand, codes: vec![vec![1; bases]; 2] }
    }

    /// The fault of the last row, after all others were admitted.
    fn last(rows: &[Row]) -> Result<(), String> {
        let mut order = Order::new(&Header { model: "m".into(), codebook_sizes: vec![4, 2], shard: None });
        let (last, before) = rows.split_last().unwrap();
        for row in before {
            order.admit(row, Path::new("f")).unwrap();
        }
        order.admit(last, Path::new("f")).map_err(|error| error.to_string())
    }

    #[test]
    fn forward_rows_ascend_and_reverse_rows_descend() {
        use Strand::{Forward, Reverse};
        last(&[
            row("a", Forward, 100, 100 + FULL),
            row("a", Forward, 100 + FULL, 101 + FULL),
            row("a", Reverse, 101, 101 + FULL),
            row("a", Reverse, 100, 101),
            row("b", Forward, 0, FULL),
            row("c", Forward, 7, 8),
        ])
        .unwrap();
    }

    #[test]
    fn a_gap_begins_a_segment_also_after_a_full_row() {
        use Strand::{Forward, Reverse};
        last(&[row("a", Forward, 0, 5), row("a", Forward, 9, 9 + FULL), row("a", Forward, 10 + FULL, 11 + FULL)])
            .unwrap();
        last(&[row("a", Reverse, 10, 10 + FULL), row("a", Reverse, 7, 8), row("a", Reverse, 1, 2)]).unwrap();
    }

    #[test]
    fn an_overlap_and_a_swap_name_record_and_base() {
        use Strand::{Forward, Reverse};
        let overlap = last(&[row("a", Forward, 0, FULL), row("a", Forward, FULL - 1, FULL)]).unwrap_err();
        assert!(overlap.starts_with("f: record a, strand +, base 16383: overlaps"), "{overlap}");
        assert!(overlap.ends_with("ended at 16384"), "{overlap}");
        let swap = last(&[row("a", Reverse, 5, FULL + 5), row("a", Reverse, FULL + 5, FULL + 6)]).unwrap_err();
        assert!(swap.starts_with("f: record a, strand -, base 16389"), "{swap}");
        assert!(swap.ends_with("ended at 5"), "{swap}");
    }

    #[test]
    fn only_the_last_row_of_a_segment_is_short_and_records_do_not_return() {
        use Strand::Forward;
        let short = last(&[row("a", Forward, 0, 5), row("a", Forward, 5, 6)]).unwrap_err();
        assert!(short.contains("fewer than 16384"), "{short}");
        let returns = last(&[row("a", Forward, 0, 5), row("b", Forward, 0, 5), row("a", Forward, 9, 10)]).unwrap_err();
        assert!(returns.contains("out of order"), "{returns}");
    }

    #[test]
    fn malformed_rows_are_refused() {
        use Strand::{Forward, Reverse};
        let refused = |row: Row| last(&[row]).unwrap_err();
        assert!(refused(row("", Forward, 0, 1)).contains("record name"));
        assert!(refused(row("a\tb", Forward, 0, 1)).contains("record name"));
        assert!(refused(row("a", Forward, 3, 3)).contains("found 3..3"));
        assert!(refused(row("a", Forward, 0, FULL + 1)).contains("found 0..16385"));
        assert!(refused(Row { start: 9, end: 3, ..row("a", Reverse, 0, 1) }).contains("found 9..3"));
        assert!(refused(row("a", Forward, u64::MAX - 1, u64::MAX)).contains("1 to 16384"));
        assert!(refused(Row { codes: vec![vec![0]], ..row("a", Forward, 0, 1) }).contains("expected codes of 2"));
        assert!(refused(Row { codes: vec![vec![0], vec![]], ..row("a", Forward, 0, 1) }).contains("level 2"));
    }

    #[test]
    fn a_code_outside_its_codebook_names_level_and_base() {
        let mut reverse = row("a", Strand::Reverse, 10, 20);
        reverse.codes[1][3] = 2;
        let message = last(&[reverse]).unwrap_err();
        assert_eq!(message, "f: record a, strand -, base 16: level 2: code 2 is outside the codebook of 2");
    }
}
