//! One line of BED.

use std::sync::Arc;

use super::{BedFault, Interval};
use crate::{
    input::readable,
    span::{Span, Strand},
};

/// The place of a line, without its number; `None` if the line is a remark. `contig` is the last contig, to be shared.
///
/// Contigs may be called `track` or `#1`: a line is a remark if it begins like one and has not the shape of an interval.
pub(super) fn parse(line: &[u8], contig: &Arc<str>) -> Result<Option<Interval>, BedFault> {
    let line = &*readable(line);
    // Names may hold blanks where tabs separate the fields.
    let fields: Vec<&str> =
        if line.contains('\t') { line.split('\t').collect() } else { line.split_ascii_whitespace().collect() };
    let is_number = |field: Option<&&str>| field.is_some_and(|field| field.parse::<u64>().is_ok());
    let has_shape = is_number(fields.get(1)) && is_number(fields.get(2));
    let begins_like_remark =
        line.starts_with('#') || matches!(line.split_ascii_whitespace().next(), Some("track" | "browser"));
    if begins_like_remark && !has_shape {
        return Ok(None);
    }
    let [name, start, end, ..] = fields[..] else { return Err(BedFault::Fields { found: fields.len() }) };
    let (start, end) = (number("start", start)?, number("end", end)?);
    if name.is_empty() {
        return Err(BedFault::NoContig);
    }
    if start >= end {
        return Err(BedFault::Empty { start, end });
    }
    if let Some(broken) = fields.iter().take(6).find(|field| field.contains(char::is_control)) {
        return Err(BedFault::Control { found: (*broken).to_owned() });
    }
    let strand = match fields.get(5).copied() {
        None | Some(".") => None,
        Some("+") => Some(Strand::Forward),
        Some("-") => Some(Strand::Reverse),
        Some(found) => return Err(BedFault::Strand { found: found.to_owned() }),
    };
    let contig = if **contig == *name { contig.clone() } else { name.into() };
    let text =
        |field: usize| fields.get(field).filter(|text| !matches!(**text, "" | ".")).map(|text| (*text).to_owned());
    let span = Span { contig, start, end, strand: strand.unwrap_or_default() };
    Ok(Some(Interval { span, name: text(3), score: text(4), is_stranded: strand.is_some(), line: 0 }))
}

fn number(field: &'static str, text: &str) -> Result<u64, BedFault> {
    text.parse().map_err(|_| BedFault::Number { field, found: text.to_owned() })
}
