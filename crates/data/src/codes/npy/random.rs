//! Reads an array from any place.

use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::Header;
use super::super::error::{CodesError, Fault, Place};
use super::CODE_BYTES;
use super::reader::{open_records, read_shape};
use super::records::Stretch;
use crate::random_access::RandomAccess;
use crate::span::Strand;

/// A `.npy` file of codes, of which any part is read without the others.
///
/// Nothing but the table of records is held. Codes are read from their place in the file when they are asked for, so that a
/// file of any size takes no memory of the process, while the system keeps in its cache what is read often. What is read in parts
/// cannot be held against the digest of the whole: [`verify`](super::super::verify) does that.
pub struct RandomReader {
    path: PathBuf,
    header: Header,
    stretches: Vec<Stretch>,
    array: RandomAccess,
    /// Where the first code lies in the file.
    first_code: u64,
}

impl RandomReader {
    /// Opens the file `path`, a `.npy` with its table beside it.
    ///
    /// # Errors
    ///
    /// When either cannot be read, or the two do not fit together.
    pub fn open(path: &Path) -> Result<Self, CodesError> {
        let file = File::open(path).map_err(CodesError::io(path, "open the file"))?;
        let file_bytes = file.metadata().map_err(CodesError::io(path, "read the file"))?.len();
        let (bases, levels) = read_shape(&mut BufReader::new(&file), file_bytes, path)?;
        let ((header, _), mut records) = open_records(path, levels)?;
        let mut stretches = Vec::new();
        while let Some(stretch) = records.read()? {
            stretches.push(stretch);
        }
        if records.array_rows() != bases {
            let fault =
                Fault::Size { unit: "bases in the table of records", expected: bases, found: records.array_rows() };
            return Err(CodesError::content(path, Place::File)(fault));
        }
        // No underflow: the shape was checked against the size.
        let first_code = file_bytes - bases * (levels * CODE_BYTES) as u64;
        Ok(Self { path: path.into(), header, stretches, array: RandomAccess::new(file), first_code })
    }

    /// What the file says about its origin.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The lines of the table of records, in the order of the file.
    #[must_use]
    pub fn stretches(&self) -> &[Stretch] {
        &self.stretches
    }

    /// Codes of some bases of a stretch, per level; the bases are counted in the reading direction of its strand. May be
    /// called from several threads at once.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or a code is none of its codebook.
    ///
    /// # Panics
    ///
    /// If there is no such stretch or the bases exceed it.
    pub fn read(&self, stretch: usize, bases: Range<usize>) -> Result<Vec<Vec<u16>>, CodesError> {
        let levels = self.header.levels();
        let stretch = &self.stretches[stretch];
        let is_inside = bases.start <= bases.end && bases.end as u64 <= stretch.end - stretch.start;
        assert!(is_inside, "bases {bases:?} of a stretch from {} to {}", stretch.start, stretch.end);

        let row_bytes = levels * CODE_BYTES;
        let mut bytes = vec![0; bases.len() * row_bytes];
        let first_row = stretch.first_row + bases.start as u64;
        let read = self.array.read(self.first_code + first_row * row_bytes as u64, &mut bytes);
        read.map_err(CodesError::io(&self.path, "read the file"))?;

        let (codes, _) = bytes.as_chunks::<CODE_BYTES>();
        let level = |level| codes.iter().skip(level).step_by(levels).map(|&code| u16::from_le_bytes(code)).collect();
        let codes: Vec<Vec<u16>> = (0..levels).map(level).collect();
        for ((level, codes), &codebook_size) in (1..).zip(&codes).zip(&self.header.codebook_sizes) {
            if let Some(offset) = codes.iter().position(|&code| usize::from(code) >= codebook_size) {
                let fault = Fault::Code { level, code: codes[offset].into(), codebook_size };
                let place = base(stretch, (bases.start + offset) as u64);
                return Err(CodesError::content(&self.path, place)(fault));
            }
        }
        Ok(codes)
    }
}

/// The base of a stretch that is read `offset` bases after its first.
fn base(stretch: &Stretch, offset: u64) -> Place {
    let position = match stretch.strand {
        Strand::Forward => stretch.start + offset,
        Strand::Reverse => stretch.end - 1 - offset,
    };
    Place::Base { record: stretch.record.clone(), strand: stretch.strand, position }
}

#[cfg(test)]
mod tests {
    use super::super::super::{Row, Writer};
    use super::*;

    /// Two records, the first on both strands, in a file `x.npy`.
    fn write(folder: &Path) -> PathBuf {
        let path = folder.join("x.npy");
        let header = Header { model: "m".into(), codebook_sizes: vec![300, 9], shard: None };
        let mut writer = Writer::create(&path, &header).unwrap();
        let row = |record: &str, start, end, strand, first: u16| {
            let codes = vec![(first..first + 4).collect(), vec![1, 2, 3, 8]];
            Row { record: record.into(), start, end, strand, codes }
        };
        writer.write(&row("a", 5, 9, Strand::Forward, 0)).unwrap();
        writer.write(&row("a", 5, 9, Strand::Reverse, 100)).unwrap();
        writer.write(&row("b", 0, 4, Strand::Forward, 256)).unwrap();
        writer.finish().unwrap();
        path
    }

    #[test]
    fn any_part_is_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let codes = RandomReader::open(&write(folder.path())).unwrap();
        assert_eq!(codes.header().model, "m");
        let names: Vec<_> = codes.stretches().iter().map(|s| (&*s.record, s.start..s.end, s.strand)).collect();
        let expected = [("a", 5..9, Strand::Forward), ("a", 5..9, Strand::Reverse), ("b", 0..4, Strand::Forward)];
        assert_eq!(names, expected);
        assert_eq!(codes.read(2, 1..3).unwrap(), [[257, 258], [2, 3]]);
        assert_eq!(codes.read(1, 0..4).unwrap(), [[100, 101, 102, 103], [1, 2, 3, 8]]);
        assert_eq!(codes.read(0, 3..4).unwrap(), [[3], [8]]);
        assert_eq!(codes.read(0, 2..2).unwrap(), [[], [] as [u16; 0]]);
    }

    #[test]
    fn a_code_outside_its_codebook_names_strand_and_base() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path());
        let mut bytes = std::fs::read(&path).unwrap();
        // The second code of the reverse strand, level 2.
        bytes[128 + 4 * (4 + 1) + 2] = 9;
        std::fs::write(&path, bytes).unwrap();
        let codes = RandomReader::open(&path).unwrap();
        assert!(codes.read(1, 0..1).is_ok());
        let message = codes.read(1, 1..3).unwrap_err().to_string();
        assert!(
            message.contains("record a, strand -, base 7: level 2: code 9 is outside the codebook of 9"),
            "{message}"
        );
    }

    #[test]
    fn a_file_that_shrinks_meanwhile_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path());
        let codes = RandomReader::open(&path).unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(150).unwrap();
        assert!(codes.read(0, 0..4).is_ok());
        let message = codes.read(2, 0..4).unwrap_err().to_string();
        assert!(message.contains("x.npy: cannot read the file"), "{message}");
    }

    #[test]
    fn a_table_that_does_not_fit_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path());
        let table = folder.path().join("x.npy.records.tsv");
        let text = std::fs::read_to_string(&table).unwrap();
        std::fs::write(&table, text.rsplit_once("b\t").unwrap().0).unwrap();
        let message = RandomReader::open(&path).err().unwrap().to_string();
        assert!(message.contains("expected 12 bases in the table of records, found 8"), "{message}");
    }

    #[test]
    #[should_panic(expected = "bases 0..5 of a stretch from 5 to 9")]
    fn bases_beyond_a_stretch_are_a_mistake() {
        let folder = tempfile::tempdir().unwrap();
        drop(RandomReader::open(&write(folder.path())).unwrap().read(0, 0..5));
    }
}
