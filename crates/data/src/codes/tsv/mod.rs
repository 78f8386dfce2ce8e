//! Codes as text: the [preamble](super::preamble), a line of column names, then one line per base. In files of older programs the
//! column names begin with `#`.

mod reader;
mod writer;

pub(super) use reader::Reader;
pub(super) use writer::Writer;

/// The line of column names, without its end.
fn column_names(levels: usize) -> String {
    let mut names = String::from("record\tstart\tend\tstrand");
    for level in 1..=levels {
        names.push_str("\tcode_");
        names.push_str(&level.to_string());
    }
    names
}
