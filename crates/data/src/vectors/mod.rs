//! Writes vectors of sequences, or of their positions: Parquet, numpy, or text.
//!
//! | name ends in | holds |
//! | --- | --- |
//! | `.parquet` | columns `id`, `start`, `end`, `vector` (a list of floats); notes in the footer say what was embedded how |
//! | `.npy` | an array `[rows, width]` of little-endian `f32`; `NAME.rows.tsv` beside it has `id`, `start`, `end` of each row, under lines of notes |
//! | `.tsv`, with or without `.gz`, `.bgz` or `.zst`, or `-` for standard output | lines of notes, then `id`, `start`, `end`, `v1` … |
//!
//! `start` and `end` are the bases of the sequence that a vector stands for, counted from 0.

mod npy;
mod parquet;
mod text;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use ::parquet::errors::ParquetError;

use crate::output;

/// What vectors are of; kept in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Numbers of a vector.
    pub width: usize,
    /// What was embedded how, as names and values.
    pub notes: Vec<(String, String)>,
}

/// A file that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum VectorsError {
    /// The name does not tell the format.
    #[error("{}: cannot tell the format; name it .parquet, .npy or .tsv (also .tsv.gz or .tsv.zst), or `-` for text on standard output", path.display())]
    Format {
        /// The file.
        path: PathBuf,
    },
    /// The system says no.
    #[error("{}: cannot write the file: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The format says no.
    #[error("{}: cannot write the file: {source}", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: ParquetError,
    },
}

impl VectorsError {
    fn io(path: &Path) -> impl Fn(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path: path.clone(), source }
    }
}

/// A file of vectors in the making; dropped before [`Writer::finish`], it leaves no trace.
pub struct Writer {
    inner: Inner,
    width: usize,
}

enum Inner {
    Parquet(parquet::Writer),
    Npy(npy::Writer),
    Text(text::Writer),
}

impl Writer {
    /// Begins a file, or text on standard output for `-`.
    ///
    /// # Errors
    /// If the name tells no format, or the file cannot be written.
    pub fn create(path: &Path, header: &Header) -> Result<Self, VectorsError> {
        let extension = path.extension().map(std::ffi::OsStr::to_ascii_lowercase);
        let inner = match extension.as_ref().and_then(|extension| extension.to_str()) {
            _ if path == Path::new("-") => Inner::Text(text::Writer::create(path, header)?),
            Some("parquet") => Inner::Parquet(parquet::Writer::create(path, header)?),
            Some("npy") => Inner::Npy(npy::Writer::create(path, header)?),
            Some(_) if output::ending(path, &[".tsv"]).is_ok() => Inner::Text(text::Writer::create(path, header)?),
            _ => return Err(VectorsError::Format { path: path.to_owned() }),
        };
        Ok(Self { inner, width: header.width })
    }

    /// Writes the next vector.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// Names must hold no control characters, such as tabs and line ends; whoever reads them from a file refuses those.
    ///
    /// # Panics
    /// If the vector has another width than the header says.
    pub fn write(&mut self, id: &str, bases: Range<u64>, vector: &[f32]) -> Result<(), VectorsError> {
        assert_eq!(vector.len(), self.width, "numbers of a vector");
        debug_assert!(!id.contains(char::is_control), "a name that tables cannot hold: {id:?}");
        match &mut self.inner {
            Inner::Parquet(writer) => writer.write(id, bases, vector),
            Inner::Npy(writer) => writer.write(id, bases, vector),
            Inner::Text(writer) => writer.write(id, bases, vector),
        }
    }

    /// Hands the rows so far on to standard output or a pipe; of a file nobody sees any before its end.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn flush(&mut self) -> Result<(), VectorsError> {
        match &mut self.inner {
            Inner::Text(writer) => writer.flush(),
            Inner::Parquet(_) | Inner::Npy(_) => Ok(()),
        }
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(self) -> Result<(), VectorsError> {
        match self.inner {
            Inner::Parquet(writer) => writer.finish(),
            Inner::Npy(writer) => writer.finish(),
            Inner::Text(writer) => writer.finish(),
        }
    }
}

/// Notes as lines of comments.
fn comments(header: &Header) -> String {
    let mut lines = String::new();
    for (name, value) in &header.notes {
        lines.extend(["# ", name, "\t", value, "\n"]);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::parquet::file::reader::{FileReader, SerializedFileReader};
    use std::fs::{self, File};

    fn header() -> Header {
        Header { width: 3, notes: vec![("model".into(), "abc".into()), ("layer".into(), "2".into())] }
    }

    fn write(path: &Path) -> Result<(), VectorsError> {
        let mut writer = Writer::create(path, &header())?;
        writer.write("a", 0..5, &[1.0, -0.5, 1e-9])?;
        writer.write("b\u{e9}", 2..4, &[f32::MIN, 0.0, 3.25])?;
        writer.finish()
    }

    #[test]
    fn text_holds_every_number_exactly() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tsv");
        write(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..4], ["# model\tabc", "# layer\t2", "id\tstart\tend\tv1\tv2\tv3", "a\t0\t5\t1\t-0.5\t1e-9"]);
        let numbers: Vec<f32> = lines[4].split('\t').skip(3).map(|number| number.parse().unwrap()).collect();
        assert_eq!(numbers, [f32::MIN, 0.0, 3.25]);
        assert!(lines[4].contains("\t-3.4028235e38\t0\t3.25"), "{}", lines[4]);

        let packed = folder.path().join("x.tsv.zst");
        write(&packed).unwrap();
        assert_eq!(zstd::decode_all(&fs::read(packed).unwrap()[..]).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_vector_of_nothing_is_empty_in_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.tsv");
        let mut writer = Writer::create(&path, &header()).unwrap();
        writer.write("a", 0..0, &[f32::NAN; 3]).unwrap();
        writer.finish().unwrap();
        assert!(fs::read_to_string(&path).unwrap().ends_with("\na\t0\t0\t\t\t\n"));
    }

    #[test]
    fn numpy_has_the_shape_and_a_table_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.npy");
        write(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let head = String::from_utf8_lossy(&bytes[10..128]);
        assert!(
            bytes.starts_with(b"\x93NUMPY\x01\x00") && head.contains("'<f4'") && head.contains("'shape': (2, 3)"),
            "{head}"
        );
        let numbers: Vec<f32> = bytes[128..].chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(numbers, [1.0, -0.5, 1e-9, f32::MIN, 0.0, 3.25]);
        let table = fs::read_to_string(folder.path().join("x.npy.rows.tsv")).unwrap();
        assert_eq!(table, "# model\tabc\n# layer\t2\nid\tstart\tend\na\t0\t5\nb\u{e9}\t2\t4\n");
    }

    #[test]
    fn parquet_is_read_by_the_library() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.parquet");
        write(&path).unwrap();
        let reader = SerializedFileReader::new(File::open(&path).unwrap()).unwrap();
        let notes = reader.metadata().file_metadata().key_value_metadata().unwrap();
        assert!(notes.iter().any(|note| note.key == "vqdna.layer" && note.value.as_deref() == Some("2")));
        let rows: Vec<String> = reader.get_row_iter(None).unwrap().map(|row| row.unwrap().to_string()).collect();
        assert_eq!(rows.len(), 2);
        assert!(rows[0].contains("id: \"a\"") && rows[0].contains("end: 5, vector: [1.0"), "{}", rows[0]);
    }

    #[test]
    fn other_names_and_places_are_refused_and_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(&folder.path().join("x.csv")).unwrap_err().to_string().contains(".parquet, .npy or .tsv"));
        assert!(write(&folder.path().join("no/x.npy")).unwrap_err().to_string().contains("x.npy"));
        let mut writer = Writer::create(&folder.path().join("y.npy"), &header()).unwrap();
        writer.write("a", 0..1, &[0.0; 3]).unwrap();
        drop(writer);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
