//! What the footer claims of the schema, before the library makes room for it.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom},
};

use parquet::errors::ParquetError;

use super::thrift::{DEPTH, INTEGERS, LIST, STRUCTURE, Thrift, damaged};

/// Checks that the columns of a schema are those that it lists, and not nested too deeply: the library makes room for as many as a group
/// claims, and follows groups within groups by calls within calls. A footer that cannot be understood is left to the library.
///
/// # Errors
/// If they are not, or the file cannot be read.
pub(super) fn check(mut file: &File) -> Result<(), ParquetError> {
    let length = file.metadata()?.len();
    let Some(end) = length.checked_sub(8) else { return Ok(()) };
    let mut tail = [0; 8];
    file.seek(SeekFrom::Start(end))?;
    file.read_exact(&mut tail)?;
    let [a, b, c, d, magic @ ..] = tail;
    let Some(start) = end.checked_sub(u32::from_le_bytes([a, b, c, d]).into()) else { return Ok(()) };
    if magic != *b"PAR1" {
        return Ok(());
    }
    file.seek(SeekFrom::Start(start))?;
    let mut footer = Thrift::new(BufReader::new(file).take(end - start));
    match schema(&mut footer) {
        Ok(None) => Ok(()),
        Ok(Some(excess)) => Err(ParquetError::General(excess.into())),
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What is wrong with the schema of a footer.
fn schema(footer: &mut Thrift<impl Read>) -> io::Result<Option<&'static str>> {
    let mut excess = None;
    footer.fields(|thrift, field, kind| match (field, kind) {
        (2, LIST) => {
            excess = excess.or(elements(thrift)?);
            Ok(())
        }
        _ => thrift.skip(kind, DEPTH),
    })?;
    Ok(excess)
}

/// A schema is a list of its groups and columns, each group before what it holds.
fn elements(thrift: &mut Thrift<impl Read>) -> io::Result<Option<&'static str>> {
    let (count, kind) = thrift.list()?;
    if kind != STRUCTURE {
        return Err(damaged());
    }
    let mut excess = None;
    // Of each group around the next element, how many elements it still claims.
    let mut open: Vec<u64> = Vec::new();
    for number in 0..count {
        let mut children = 0;
        thrift.fields(|thrift, field, kind| match (field, kind) {
            (5, INTEGERS) => thrift.size().map(|claimed| children = claimed),
            _ => thrift.skip(kind, DEPTH),
        })?;
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if children > count - number - 1 {
            excess = excess.or(Some("a group of the schema claims more columns than the file lists"));
        } else if children > 0 {
            open.push(children);
        }
        if open.len() > DEPTH as usize {
            return Ok(Some("the columns are nested too deeply"));
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    Ok(excess)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer with groups of so many children: version, and the list, each element with its name and number of children.
    fn footer(groups: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x02, 0x19, 0xfc];
        number(&mut bytes, groups.len() as u64);
        for &children in groups {
            bytes.extend([0x48, 0x01, b'x']);
            if children > 0 {
                bytes.push(0x15);
                number(&mut bytes, 2 * children);
            }
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }

    fn number(bytes: &mut Vec<u8>, mut number: u64) {
        while number > 127 {
            bytes.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        bytes.push(number.to_le_bytes()[0]);
    }

    fn excess(groups: &[u64]) -> Option<&'static str> {
        let bytes = footer(groups);
        schema(&mut Thrift::new(bytes.take(bytes.len() as u64))).unwrap()
    }

    #[test]
    fn groups_hold_what_is_listed() {
        assert_eq!(excess(&[2, 0, 1, 0]), None);
        assert_eq!(excess(&[3, 1, 1, 0, 2, 0, 0, 0]), None);
        let claims = Some("a group of the schema claims more columns than the file lists");
        assert_eq!(excess(&[1 << 30]), claims);
        assert_eq!(excess(&[2, 0, 1 << 31, 0]), claims);
    }

    #[test]
    fn groups_within_groups_end() {
        let nested = |depth: usize| [vec![1; depth], vec![0]].concat();
        assert_eq!(excess(&nested(64)), None);
        assert_eq!(excess(&nested(100_000)), Some("the columns are nested too deeply"));
    }

    #[test]
    fn what_is_not_understood_is_left_to_the_library() {
        let bytes = footer(&[1, 0]);
        for end in 0..bytes.len() {
            assert!(schema(&mut Thrift::new(bytes[..end].take(end as u64))).is_err());
        }
    }
}
