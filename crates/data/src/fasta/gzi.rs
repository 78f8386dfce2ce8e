//! Makes the `.gzi` index of a bgzip file: which compressed offset holds which offset of the text.

use std::io::{self, Read, Seek, SeekFrom};

use noodles_bgzf::gzi::Index;

use crate::input::Compression;

/// Lists the blocks of a bgzip file, from its start, without decompressing them.
///
/// # Errors
/// `UnexpectedEof` if the file ends within a block or without the block that marks its end, `InvalidData` if a block is not of
/// bgzip.
pub(super) fn build(file: &mut (impl Read + Seek)) -> io::Result<Index> {
    let mut offsets = Vec::new();
    let (mut compressed, mut text) = (0, 0);
    let mut bases_of_last = u64::MAX;
    file.seek(SeekFrom::Start(0))?;
    loop {
        let mut head = [0; Compression::HEAD];
        let read = file.by_ref().take(head.len() as u64).read(&mut head)?;
        match read {
            0 if bases_of_last == 0 => return Ok(Index::from(offsets)),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => file.read_exact(&mut head[read..])?,
        }
        if Compression::detect(&head) != Compression::Bgzip {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // The block's size less one is the last field of the header; the size of its text ends the block.
        let block = u64::from(u16::from_le_bytes([head[16], head[17]])) + 1;
        let mut size = [0; 4];
        let size_at = compressed + block.checked_sub(4).ok_or(io::ErrorKind::InvalidData)?;
        file.seek(SeekFrom::Start(size_at))?;
        file.read_exact(&mut size)?;
        bases_of_last = u64::from(u32::from_le_bytes(size));
        // As bgzip does it: the first block is implied, and blocks without text are left out.
        if compressed > 0 && bases_of_last > 0 {
            offsets.push((compressed, text));
        }
        compressed += block;
        text += bases_of_last;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Cursor, Write};

    fn bgzip(blocks: &[&[u8]]) -> Vec<u8> {
        let mut writer = noodles_bgzf::io::Writer::new(Vec::new());
        for block in blocks {
            writer.write_all(block).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn blocks_after_the_first_are_listed() {
        let bytes = bgzip(&[b">chr1\n", b"ACGT\n", b"TTT\n"]);
        let index = build(&mut Cursor::new(&bytes)).unwrap();
        let texts: Vec<u64> = index.as_ref().iter().map(|(_, text)| *text).collect();
        assert_eq!(texts, [6, 11]);
        for &(compressed, _) in index.as_ref() {
            let block = &bytes[usize::try_from(compressed).unwrap()..];
            assert_eq!(Compression::detect(block), Compression::Bgzip);
        }
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_it_is_cut() {
        let bytes = bgzip(&[b">chr1\n", b"ACGT\n"]);
        for end in 0..bytes.len() {
            assert!(build(&mut Cursor::new(&bytes[..end])).is_err(), "cut at {end}");
        }
    }
}
