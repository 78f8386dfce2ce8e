//! The `.gzi` index of a bgzip file: which compressed offset holds which offset of the text.

use std::io::{self, Read, Seek, SeekFrom};

use noodles_bgzf::gzi::Index;

use crate::input::Compression;

/// The blocks of a bgzip file.
#[derive(Debug)]
pub(super) struct Blocks {
    /// Where each begins, but for the first and for those without text.
    pub(super) index: Index,
    /// Bytes of the whole text.
    pub(super) text: u64,
}

/// Lists the blocks of a bgzip file, from its start, without decompressing them. `None` if a member that is plain gzip follows
/// on a block: such a file has no random access.
///
/// # Errors
/// `UnexpectedEof` if the file ends within a block or without the block that marks its end, `InvalidData` if what follows on a
/// block is no gzip at all.
pub(super) fn build(file: &mut (impl Read + Seek)) -> io::Result<Option<Blocks>> {
    walk(file, 0, 0)
}

/// As [`build`], from a block on: one that begins at these offsets of the file and of the text.
fn walk(file: &mut (impl Read + Seek), mut compressed: u64, mut text: u64) -> io::Result<Option<Blocks>> {
    let mut offsets = Vec::new();
    let first = compressed;
    let mut text_of_last = u64::MAX;
    file.seek(SeekFrom::Start(compressed))?;
    loop {
        let mut head = [0; Compression::HEAD];
        let read = file.by_ref().take(head.len() as u64).read(&mut head)?;
        match read {
            0 if text_of_last == 0 => return Ok(Some(Blocks { index: Index::from(offsets), text })),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            _ => file.read_exact(&mut head[read..])?,
        }
        match Compression::detect(&head) {
            Compression::Bgzip => {}
            Compression::Gzip => return Ok(None),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
        // The block's size less one is the last field of the header; the size of its text ends the block.
        let block = u64::from(u16::from_le_bytes([head[16], head[17]])) + 1;
        let mut size = [0; 4];
        let size_at = compressed + block.checked_sub(4).ok_or(io::ErrorKind::InvalidData)?;
        file.seek(SeekFrom::Start(size_at))?;
        file.read_exact(&mut size)?;
        text_of_last = u64::from(u32::from_le_bytes(size));
        // As bgzip does it: the first block is implied, and blocks without text are left out.
        if compressed > first && text_of_last > 0 {
            offsets.push((compressed, text));
        }
        compressed += block;
        text += text_of_last;
    }
}

/// Reads an index; `None` if it has not the length that its first number says.
pub(super) fn parse(bytes: &[u8]) -> Option<Index> {
    let (numbers, []) = bytes.as_chunks::<8>() else { return None };
    let mut numbers = numbers.iter().map(|&number| u64::from_le_bytes(number));
    let count = usize::try_from(numbers.next()?).ok()?;
    let (pairs, []) = bytes[8..].as_chunks::<16>() else { return None };
    (pairs.len() == count).then(|| {
        let pairs: Vec<_> = std::iter::from_fn(|| numbers.next().zip(numbers.next())).collect();
        Index::from(pairs)
    })
}

/// The blocks that an index lists, if the last of them is the last of the file with text, which a changed file hardly has at the
/// same place.
pub(super) fn continued(file: &mut (impl Read + Seek), index: Index) -> io::Result<Option<Blocks>> {
    let (compressed, text) = index.as_ref().last().copied().unwrap_or((0, 0));
    if !index.as_ref().is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1) {
        return Ok(None);
    }
    let end = walk(file, compressed, text)?;
    Ok(end.filter(|end| end.index.as_ref().is_empty()).map(|end| Blocks { index, text: end.text }))
}

/// Whether an index says of a file what its blocks are. It may also list blocks without text.
pub(super) fn lists(index: &Index, blocks: &Blocks) -> bool {
    let pairs = index.as_ref();
    let holds_text = |&(number, &(_, text)): &(usize, &(u64, u64))| {
        text < blocks.text && pairs.get(number + 1).is_none_or(|&(_, next)| next > text)
    };
    pairs.iter().enumerate().filter(holds_text).map(|(_, pair)| pair).eq(blocks.index.as_ref())
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
        let blocks = build(&mut Cursor::new(&bytes)).unwrap().unwrap();
        let index = &blocks.index;
        let texts: Vec<u64> = index.as_ref().iter().map(|(_, text)| *text).collect();
        assert_eq!((&texts[..], blocks.text), (&[6, 11][..], 15));
        for &(compressed, _) in index.as_ref() {
            let block = &bytes[usize::try_from(compressed).unwrap()..];
            assert_eq!(Compression::detect(block), Compression::Bgzip);
        }
    }

    #[test]
    fn what_is_written_is_read_and_fits() {
        let bytes = bgzip(&[b">chr1\n", b"ACGT\n", b"TTT\n"]);
        let blocks = build(&mut Cursor::new(&bytes)).unwrap().unwrap();
        let mut written = Vec::new();
        noodles_bgzf::gzi::io::Writer::new(&mut written).write_index(&blocks.index).unwrap();
        let index = parse(&written).unwrap();
        assert!(index == blocks.index && lists(&index, &blocks));
        assert_eq!(continued(&mut Cursor::new(&bytes), index).unwrap().unwrap().text, 15);
        for end in 0..written.len() {
            assert!(parse(&written[..end]).is_none(), "cut at {end}");
        }
        assert!(parse(&u64::MAX.to_le_bytes()).is_none(), "a number without its pairs");

        let [first, second] = *blocks.index.as_ref() else { panic!("two blocks") };
        let with_end = Index::from(vec![first, second, (bytes.len() as u64 - 28, 15)]);
        assert!(lists(&with_end, &blocks), "some writers list the end");
        assert!(continued(&mut Cursor::new(&bytes), with_end).unwrap().is_some());
        for other in [vec![], vec![first], vec![second], vec![first, (second.0, 10)], vec![(first.0 + 1, 6), second]] {
            assert!(!lists(&Index::from(other), &blocks));
        }
        for other in [vec![], vec![first], vec![second, first]] {
            assert!(continued(&mut Cursor::new(&bytes), Index::from(other)).is_ok_and(|found| found.is_none()));
        }
    }

    #[test]
    fn a_plain_member_among_the_blocks_is_told() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"ACGT\n").unwrap();
        let joined = [bgzip(&[b">chr1\n"]), gzip.finish().unwrap()].concat();
        assert!(build(&mut Cursor::new(joined)).unwrap().is_none());
    }

    #[test]
    fn a_cut_file_is_an_error_wherever_it_is_cut() {
        let bytes = bgzip(&[b">chr1\n", b"ACGT\n"]);
        for end in 0..bytes.len() {
            assert!(build(&mut Cursor::new(&bytes[..end])).is_err(), "cut at {end}");
        }
    }
}
