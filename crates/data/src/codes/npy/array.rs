//! The header of a `.npy` file, as numpy's `numpy.lib.format` describes it.

use super::super::error::Fault;

/// Bytes of the header that is written: room for any shape, and a multiple of 64 as the format asks.
pub(super) const HEADER_BYTES: usize = 128;

/// Bytes that hold the magic, the version and the length of version 1.
pub(super) const PREFIX_BYTES: usize = 10;

const MAGIC: &[u8] = b"\x93NUMPY";

pub(super) const DAMAGED: Fault = Fault::NotCodes { missing: "the header of the array" };

/// The header of an array of little-endian `u16` in C order.
pub(super) fn format_header(bases: u64, levels: usize) -> Vec<u8> {
    let text = format!("{{'descr': '<u2', 'fortran_order': False, 'shape': ({bases}, {levels}), }}");
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&[1, 0]);
    let [low, high, ..] = (HEADER_BYTES - PREFIX_BYTES).to_le_bytes();
    header.extend_from_slice(&[low, high]);
    header.extend_from_slice(text.as_bytes());
    header.resize(HEADER_BYTES - 1, b' ');
    header.push(b'\n');
    header
}

/// Length of the whole header, from the first [`PREFIX_BYTES`] of the file.
pub(super) fn header_bytes(prefix: [u8; PREFIX_BYTES]) -> Result<usize, Fault> {
    match prefix {
        [b'\x93', b'N', b'U', b'M', b'P', b'Y', 1, 0, low, high] => {
            Ok(PREFIX_BYTES + usize::from(u16::from_le_bytes([low, high])))
        }
        _ => Err(DAMAGED),
    }
}

/// The shape `[bases, levels]` that a header states.
pub(super) fn parse_header(text: &[u8]) -> Result<(u64, usize), Fault> {
    let text = str::from_utf8(text).map_err(|_| DAMAGED)?;
    let value = |key: &str| text.split_once(key).map(|(_, rest)| rest.trim_start()).ok_or(DAMAGED);
    if !value("'descr':")?.starts_with("'<u2'") {
        return Err(unexpected("an array of type <u2", text));
    }
    if !value("'fortran_order':")?.starts_with("False") {
        return Err(unexpected("an array in C order", text));
    }
    let shape = value("'shape':")?.strip_prefix('(').and_then(|rest| rest.split_once(')'));
    let shape = shape.and_then(|(shape, _)| shape.split_once(','));
    let shape = shape.and_then(|(bases, levels)| Some((bases.trim().parse().ok()?, levels.trim().parse().ok()?)));
    shape.ok_or_else(|| unexpected("an array of shape (bases, levels)", text))
}

fn unexpected(expected: &'static str, text: &str) -> Fault {
    Fault::Unexpected { expected, found: text.trim_end().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_room_for_any_shape_and_survives() {
        for shape in [(0, 1), (3_117_292_070, 2), (u64::MAX, usize::MAX)] {
            let header = format_header(shape.0, shape.1);
            assert_eq!(header.len(), HEADER_BYTES);
            assert_eq!(header_bytes(header[..PREFIX_BYTES].try_into().unwrap()), Ok(HEADER_BYTES));
            assert_eq!(parse_header(&header[PREFIX_BYTES..]), Ok(shape));
        }
    }

    #[test]
    fn other_arrays_are_refused() {
        let parse = |text: &str| parse_header(text.as_bytes());
        assert!(parse("{'descr': '<u2', 'fortran_order': False, 'shape': (5, 2), }").is_ok());
        assert!(parse("{'descr': '<f4', 'fortran_order': False, 'shape': (5, 2), }").is_err());
        assert!(parse("{'descr': '<u2', 'fortran_order': True, 'shape': (5, 2), }").is_err());
        assert!(parse("{'descr': '<u2', 'fortran_order': False, 'shape': (5,), }").is_err());
        assert!(parse("{'descr': '<u2', 'fortran_order': False, 'shape': (5, 2, 1), }").is_err());
        assert!(parse("{'descr': '<u2'").is_err());
        assert!(header_bytes(*b"PAR1......").is_err());
    }
}
