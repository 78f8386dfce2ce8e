//! Reads an array and its table.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::super::error::{CodesError, Fault, Place};
use super::super::lines::Lines;
use super::super::{Header, ROW_BASES, Row};
use super::records::{RecordsReader, Stretch};
use super::{CODE_BYTES, array, records_path};
use crate::span::Strand;

/// Cuts the stretches of the table into rows and takes their codes from the array.
pub(in super::super) struct Reader {
    path: PathBuf,
    array: BufReader<File>,
    /// Bases of the array.
    bases: u64,
    levels: usize,
    records: RecordsReader,
    /// What is left of the stretch that is being cut.
    stretch: Option<Stretch>,
    /// Bytes of one row; kept for its memory.
    bytes: Vec<u8>,
}

impl Reader {
    pub(in super::super) fn open(path: &Path) -> Result<((Header, Option<String>), Self), CodesError> {
        let file = File::open(path).map_err(CodesError::io(path, "open the file"))?;
        let file_bytes = file.metadata().map_err(CodesError::io(path, "read the file"))?.len();
        let mut array = BufReader::with_capacity(1 << 16, file);
        let shape = read_shape(&mut array, file_bytes, path)?;
        let (bases, levels) = shape;
        let (head, records) = open_records(path, levels)?;
        let path = path.into();
        Ok((head, Self { path, array, bases, levels, records, stretch: None, bytes: Vec::new() }))
    }

    pub(in super::super) fn read(&mut self) -> Result<Option<Row>, CodesError> {
        if self.stretch.is_none() {
            self.stretch = self.records.read()?;
            self.check_bases()?;
        }
        let Some(stretch) = &mut self.stretch else { return Ok(None) };
        let full_row = ROW_BASES as u64;
        let (start, end) = match stretch.strand {
            Strand::Forward => (stretch.start, stretch.end.min(stretch.start.saturating_add(full_row))),
            Strand::Reverse => (stretch.start.max(stretch.end.saturating_sub(full_row)), stretch.end),
        };
        match stretch.strand {
            Strand::Forward => stretch.start = end,
            Strand::Reverse => stretch.end = start,
        }
        let mut row = Row { record: stretch.record.clone(), start, end, strand: stretch.strand, codes: Vec::new() };
        if stretch.start == stretch.end {
            self.stretch = None;
        }
        row.codes = self.read_codes(&row)?;
        Ok(Some(row))
    }

    /// Refuses a table that has other bases than the array: more as soon as it shows, fewer at its end.
    fn check_bases(&self) -> Result<(), CodesError> {
        let found = self.records.array_rows();
        if found > self.bases || (self.stretch.is_none() && found < self.bases) {
            let fault = Fault::Size { unit: "bases in the table of records", expected: self.bases, found };
            return Err(CodesError::content(&self.path, Place::File)(fault));
        }
        Ok(())
    }

    fn read_codes(&mut self, row: &Row) -> Result<Vec<Vec<u16>>, CodesError> {
        // At most `ROW_BASES`, so the conversion cannot lose anything.
        let bases = usize::try_from(row.end - row.start).unwrap_or(ROW_BASES);
        self.bytes.resize(bases * self.levels * CODE_BYTES, 0);
        self.array.read_exact(&mut self.bytes).map_err(CodesError::io(&self.path, "read the file"))?;
        let (codes, _) = self.bytes.as_chunks::<CODE_BYTES>();
        let level = |level| codes.iter().skip(level).step_by(self.levels).map(|&code| u16::from_le_bytes(code));
        Ok((0..self.levels).map(|index| level(index).collect()).collect())
    }
}

/// Opens the table beside the array `path`, which has codes of so many levels; it states the digest of all rows, if it is not old.
pub(super) fn open_records(
    path: &Path,
    levels: usize,
) -> Result<((Header, Option<String>), RecordsReader), CodesError> {
    let records_path = records_path(path);
    let records = File::open(&records_path)
        .map_err(CodesError::io(&records_path, "open the table of records that belongs to the array"))?;
    let lines = Lines::new(&records_path, Box::new(BufReader::new(records)));
    let ((header, digest), records) = RecordsReader::new(lines)?;
    if levels != header.levels() {
        let fault = Fault::Levels { expected: header.levels(), found: levels };
        return Err(CodesError::content(path, Place::File)(fault));
    }
    Ok(((header, digest), records))
}

/// Reads the header of the array and checks the size of the file against it.
pub(super) fn read_shape(array: &mut impl Read, file_bytes: u64, path: &Path) -> Result<(u64, usize), CodesError> {
    let fail = |fault| CodesError::content(path, Place::File)(fault);
    let mut prefix = [0; array::PREFIX_BYTES];
    read_header(array, &mut prefix, path)?;
    let header_bytes = array::header_bytes(prefix).map_err(fail)?;
    let mut text = vec![0; header_bytes - prefix.len()];
    read_header(array, &mut text, path)?;
    let (bases, levels) = array::parse_header(&text).map_err(fail)?;

    let array_bytes = bases.checked_mul(levels as u64).and_then(|codes| codes.checked_mul(CODE_BYTES as u64));
    let expected = array_bytes.and_then(|bytes| bytes.checked_add(header_bytes as u64)).unwrap_or(u64::MAX);
    if file_bytes != expected {
        return Err(fail(Fault::Size { unit: "bytes", expected, found: file_bytes }));
    }
    Ok((bases, levels))
}

/// Fills `part`; a file that ends inside its header is no array.
fn read_header(array: &mut impl Read, part: &mut [u8], path: &Path) -> Result<(), CodesError> {
    array.read_exact(part).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => CodesError::content(path, Place::File)(array::DAMAGED),
        _ => CodesError::io(path, "read the file")(error),
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::{Reader, Writer};
    use super::*;

    /// Writes three bases of two levels, and reads them after `change` touched the folder.
    fn read_after(change: impl FnOnce(&Path, &Path)) -> Result<Vec<Row>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        let mut writer =
            Writer::create(&path, &Header { model: "m".into(), codebook_sizes: vec![9, 9], shard: None }).unwrap();
        let codes = vec![vec![1, 2, 3], vec![4, 5, 6]];
        writer.write(&Row { record: "a".into(), start: 5, end: 8, strand: Strand::Forward, codes }).unwrap();
        writer.finish().unwrap();
        change(&path, &records_path(&path));
        let rows = Reader::open(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        rows.map_err(|error| error.to_string().replace(&folder.path().display().to_string(), ""))
    }

    #[test]
    fn the_array_is_base_by_base() {
        let mut array = Vec::new();
        read_after(|path, _| array = std::fs::read(path).unwrap()).unwrap();
        assert_eq!(array[array::HEADER_BYTES..], [1, 0, 4, 0, 2, 0, 5, 0, 3, 0, 6, 0]);
    }

    #[test]
    fn a_missing_table_is_named() {
        let message = read_after(|_, records| std::fs::remove_file(records).unwrap()).unwrap_err();
        assert_eq!(message, "/x.npy.records.tsv: cannot open the table of records that belongs to the array");
    }

    #[test]
    fn array_and_table_must_agree() {
        let edit = |from: &'static str, to: &'static str| {
            move |_: &Path, records: &Path| {
                let text = std::fs::read_to_string(records).unwrap();
                std::fs::write(records, text.replace(from, to)).unwrap();
            }
        };
        let more = read_after(edit("\t8\t", "\t9\t")).unwrap_err();
        assert!(more.contains("expected 3 bases in the table of records, found 4"), "{more}");
        let fewer = read_after(edit("\t8\t", "\t7\t")).unwrap_err();
        assert!(fewer.contains("expected 3 bases in the table of records, found 2"), "{fewer}");
        let levels = read_after(edit("=9,9", "=9")).unwrap_err();
        assert!(levels.contains("expected codes of 1 levels, found 2"), "{levels}");
        let code = read_after(edit("=9,9", "=9,6")).unwrap_err();
        assert!(code.contains("record a, strand +, base 7: level 2: code 6 is outside"), "{code}");
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        let grown = read_after(|path, _| {
            let mut bytes = std::fs::read(path).unwrap();
            bytes.push(0);
            std::fs::write(path, bytes).unwrap();
        });
        assert!(grown.unwrap_err().contains("expected 140 bytes, found 141"));
    }
}
