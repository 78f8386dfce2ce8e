//! A file opened once, to read many of its stretches in any order.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
    sync::Arc,
};

use super::{FastaError, index::Indexed, read};
use crate::{
    alphabet::reverse_complement_letters,
    input::label,
    nearest::nearest,
    span::{Region, RegionError, Span, Strand},
};

/// The contigs of a file, open to random access.
///
/// A plain or bgzipped FASTA is read through its index. Everything else is read through once, into a temporary file of one
/// byte a base.
pub struct Contigs {
    file: Arc<str>,
    bases: Bases,
}

enum Bases {
    Indexed(Indexed),
    Spooled(Spooled),
}

/// The letters of all records, one after the other.
struct Spooled {
    letters: File,
    places: HashMap<String, Range<u64>>,
}

impl Contigs {
    /// Opens a file.
    ///
    /// # Errors
    /// If it cannot be read, or its index does not fit.
    pub fn open(path: &Path) -> Result<Self, FastaError> {
        let bases = match Indexed::open(path)? {
            Some(indexed) => Bases::Indexed(indexed),
            None => Bases::Spooled(Spooled::read(path)?),
        };
        Ok(Self { file: label(path), bases })
    }

    /// Number of bases of a contig; `None` if there is no such contig.
    #[must_use]
    pub fn bases(&self, contig: &str) -> Option<u64> {
        match &self.bases {
            Bases::Indexed(indexed) => indexed.bases(contig),
            Bases::Spooled(spooled) => spooled.places.get(contig).map(|place| place.end - place.start),
        }
    }

    /// The name of a contig that an unknown `name` probably meant.
    #[must_use]
    pub fn nearest(&self, name: &str) -> Option<&str> {
        match &self.bases {
            Bases::Indexed(indexed) => nearest(name, indexed.names()),
            Bases::Spooled(spooled) => nearest(name, spooled.places.keys().map(String::as_str)),
        }
    }

    /// The letters of a span as they stand in the file, or, on the reverse strand, their reverse complement; case is kept.
    ///
    /// # Errors
    /// If the contig is unknown, the span ends beyond it, or the file cannot be read.
    pub fn read(&mut self, span: &Span) -> Result<Vec<u8>, FastaError> {
        let contig = &*span.contig;
        let fault = match self.bases(contig) {
            None => {
                let suggestion = self.nearest(contig).map(str::to_owned);
                Some(RegionError::UnknownContig { name: contig.to_owned(), suggestion })
            }
            Some(bases) if span.end > bases => {
                let region = Region { contig: contig.to_owned(), start: span.start, end: Some(span.end) };
                Some(RegionError::EndsBeyond { region: region.to_string(), bases })
            }
            Some(_) => None,
        };
        if let Some(fault) = fault {
            let index = if let Bases::Indexed(indexed) = &self.bases { indexed.found() } else { None };
            return Err(FastaError::Region { file: self.file.clone(), fault, index });
        }
        let mut letters = match &mut self.bases {
            Bases::Indexed(indexed) => indexed.read(contig, span.start..span.end)?,
            Bases::Spooled(spooled) => spooled.letters(contig, span.start..span.end).map_err(FastaError::spool)?,
        };
        if span.strand == Strand::Reverse {
            reverse_complement_letters(&mut letters);
        }
        Ok(letters)
    }
}

impl Spooled {
    fn read(path: &Path) -> Result<Self, FastaError> {
        let mut letters = BufWriter::with_capacity(1 << 16, tempfile::tempfile().map_err(FastaError::spool)?);
        let (mut places, mut end) = (HashMap::new(), 0);
        for record in read(path)? {
            let record = record?;
            letters.write_all(&record.bases).map_err(FastaError::spool)?;
            let start = end;
            end += record.bases.len() as u64;
            places.insert(record.name, start..end);
        }
        let letters = letters.into_inner().map_err(|error| FastaError::spool(error.into_error()))?;
        Ok(Self { letters, places })
    }

    fn letters(&mut self, contig: &str, range: Range<u64>) -> io::Result<Vec<u8>> {
        let start = self.places.get(contig).map_or(0, |place| place.start);
        self.letters.seek(SeekFrom::Start(start + range.start))?;
        let mut letters = Vec::new();
        (&self.letters).take(range.end.saturating_sub(range.start)).read_to_end(&mut letters)?;
        Ok(letters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn every_form_of_file_gives_the_same_letters() {
        let folder = tempfile::tempdir().unwrap();
        let text = b">chr1 first\nACGTA\nCGTac\ngt\n>none\n>chr2\nTTRTT\nGG\n";
        let paths = ["plain.fa", "stream.fa.gz", "uneven.fa"].map(|name| folder.path().join(name));
        fs::write(&paths[0], text).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(fs::File::create(&paths[1]).unwrap(), flate2::Compression::fast());
        gzip.write_all(text).unwrap();
        gzip.finish().unwrap();
        fs::write(&paths[2], b">chr1\nA\nCGTACGTacgt\n>none\n>chr2\nTTR\nTTGG\n").unwrap();
        for path in paths {
            let mut contigs = Contigs::open(&path).unwrap();
            assert_eq!(["chr1", "none", "2"].map(|name| contigs.bases(name)), [Some(12), Some(0), None]);
            let mut read = |contig: &str, start, end, strand| {
                let letters = contigs.read(&Span { contig: contig.into(), start, end, strand });
                letters.map(|letters| String::from_utf8(letters).unwrap()).map_err(|error| error.to_string())
            };
            assert_eq!(read("chr2", 1, 6, Strand::Forward).unwrap(), "TRTTG");
            assert_eq!(read("chr2", 1, 6, Strand::Reverse).unwrap(), "CAAYA");
            assert_eq!(read("chr1", 7, 11, Strand::Reverse).unwrap(), "cgtA");
            assert_eq!(read("chr1", 3, 3, Strand::Forward).unwrap(), "");
            assert!(read("2", 0, 1, Strand::Forward).unwrap_err().ends_with("no contig `2`; did you mean `chr2`?"));
            assert!(read("chr1", 12, 13, Strand::Forward).unwrap_err().contains("which has 12 bases"));
        }
    }
}
