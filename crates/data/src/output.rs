//! Opens a file, or standard output, for text: compressed as its name says, and there whole or not at all.
//!
//! | name ends in | is written as |
//! | --- | --- |
//! | `.gz`, `.bgz` | bgzip: gzip in blocks, which every reader of gzip reads, and samtools and tabix from any place |
//! | `.zst` | Zstandard |
//! | anything else, or `-` for standard output | as it is |

use std::io::{self, BufWriter, Stdout, Write};
use std::path::{Path, PathBuf};

use noodles_bgzf as bgzf;

use crate::aside::AsideFile;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Gzip in blocks, as bgzip writes it.
    Bgzip,
    /// Zstandard.
    Zstd,
}

impl Compression {
    /// Endings of the names of such files.
    pub const ENDINGS: [(&'static str, Self); 3] = [(".gz", Self::Bgzip), (".bgz", Self::Bgzip), (".zst", Self::Zstd)];

    /// What the name of a file asks for, and the name in lower case without that ending.
    #[must_use]
    pub fn of(path: &Path) -> (Option<Self>, String) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let found = Self::ENDINGS.iter().find_map(|(end, kind)| Some((*kind, name.strip_suffix(end)?.to_owned())));
        match found {
            Some((kind, rest)) => (Some(kind), rest),
            None => (None, name),
        }
    }
}

/// Whether a path means standard output.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    path == Path::new("-")
}

/// A name that ends in something this program would not write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: files of this ending cannot be written here; name it {}{}, or `-` for standard output", path.display(), known.join(", "), if *compressed { ", with or without .gz, .bgz or .zst" } else { "" })]
pub struct UnknownEnding {
    /// The file.
    pub path: PathBuf,
    /// The endings that are written.
    pub known: Vec<&'static str>,
    /// Whether each may be followed by that of a compression.
    pub compressed: bool,
}

/// The ending that the name of a text has before that of a [`Compression`], of those that are `known`; `None` if it has none, or the
/// path is standard output, a device or a pipe, which any text may be written to.
///
/// # Errors
/// If it ends in something else: a file should be what its name says.
pub fn ending(path: &Path, known: &[&'static str]) -> Result<Option<&'static str>, UnknownEnding> {
    let (_, name) = Compression::of(path);
    if let Some(ending) = known.iter().find(|ending| name.ends_with(**ending)) {
        return Ok(Some(ending));
    }
    let is_special = path.exists() && !path.is_file() && !path.is_dir();
    // The dot of a hidden file begins its name.
    let has_none = !name.get(1..).unwrap_or_default().contains('.');
    if is_stdout(path) || is_special || has_none {
        return Ok(None);
    }
    Err(UnknownEnding { path: path.to_owned(), known: known.to_vec(), compressed: true })
}

/// A text in the making. Dropped without [`TextOutput::finish`], a file leaves no trace.
pub struct TextOutput(Encoder);

enum Encoder {
    Plain(Sink),
    Bgzip(bgzf::io::Writer<Sink>),
    Zstd(zstd::Encoder<'static, Sink>),
}

/// Where bytes go in the end.
enum Sink {
    File(AsideFile),
    /// Not the lock of standard output, which could not move to another thread.
    Pipe(BufWriter<Stdout>),
}

impl TextOutput {
    /// Begins the file that will be `path`, or standard output for `-`. Nothing is on standard output before something is written.
    ///
    /// # Errors
    /// If the path is a folder, or its folder does not exist or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if is_stdout(path) {
            return Ok(Self(Encoder::Plain(Sink::Pipe(BufWriter::with_capacity(1 << 16, io::stdout())))));
        }
        let sink = Sink::File(AsideFile::create(path)?);
        Ok(Self(match Compression::of(path).0 {
            None => Encoder::Plain(sink),
            Some(Compression::Bgzip) => Encoder::Bgzip(bgzf::io::Writer::new(sink)),
            Some(Compression::Zstd) => Encoder::Zstd(zstd::Encoder::new(sink, zstd::DEFAULT_COMPRESSION_LEVEL)?),
        }))
    }

    /// Completes the text and puts the file in its place.
    ///
    /// # Errors
    /// If it cannot be completed.
    pub fn finish(self) -> io::Result<()> {
        let sink = match self.0 {
            Encoder::Plain(sink) => sink,
            Encoder::Bgzip(encoder) => encoder.finish()?,
            Encoder::Zstd(encoder) => encoder.finish()?,
        };
        match sink {
            Sink::File(file) => file.keep().map(drop),
            Sink::Pipe(mut pipe) => pipe.flush(),
        }
    }
}

impl Write for TextOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Encoder::Plain(sink) => sink.write(bytes),
            Encoder::Bgzip(encoder) => encoder.write(bytes),
            Encoder::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Encoder::Plain(sink) => sink.flush(),
            Encoder::Bgzip(encoder) => encoder.flush(),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Pipe(pipe) => pipe.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Pipe(pipe) => pipe.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;

    fn written(name: &str, text: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        let mut output = TextOutput::create(&path).unwrap();
        output.write_all(text.as_bytes()).unwrap();
        assert!(!path.exists(), "{name} before it is whole");
        output.finish().unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::read(path).unwrap()
    }

    #[test]
    fn the_name_says_how_the_text_is_compressed() {
        let text = "some text\n".repeat(20_000);
        assert_eq!(written("x.tsv", &text), text.as_bytes());
        for name in ["x.tsv.gz", "X.FA.GZ", "x.bgz"] {
            let bytes = written(name, &text);
            assert!(bytes.starts_with(&[0x1f, 0x8b, 8, 4]) && bytes.len() < text.len() / 10, "{name}: blocks of gzip");
            let mut found = String::new();
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut found).unwrap();
            assert!(found == text, "{name}");
        }
        let bytes = written("x.zst", &text);
        assert!(zstd::decode_all(&bytes[..]).unwrap() == text.as_bytes());
        assert_eq!(Compression::of(Path::new("a.gz/x.tsv")), (None, "x.tsv".to_owned()));
        assert_eq!(Compression::of(Path::new("X.tsv.ZST")), (Some(Compression::Zstd), "x.tsv".to_owned()));
    }

    #[test]
    fn a_name_is_kept_or_refused() {
        let known = [".fa", ".fasta"];
        let of = |name: &str| ending(Path::new(name), &known).map_err(|error| error.to_string());
        for (name, found) in [("x.fa", Some(".fa")), ("a.b.FASTA.gz", Some(".fasta")), ("x.fa.zst", Some(".fa"))] {
            assert_eq!(of(name), Ok(found), "{name}");
        }
        for name in ["-", "x", "a.b/x", ".x", "x.gz"] {
            assert_eq!(of(name), Ok(None), "{name}");
        }
        #[cfg(unix)]
        assert_eq!(of("/dev/null"), Ok(None));
        for name in ["x.fa.xz", "x.parquet", "x.fa.bz2"] {
            let message = of(name).unwrap_err();
            let expected = "cannot be written here; name it .fa, .fasta, with or without .gz, .bgz or .zst";
            assert!(message.starts_with(name) && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_text_that_is_dropped_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["x", "x.gz", "x.zst"] {
            let mut output = TextOutput::create(&folder.path().join(name)).unwrap();
            output.write_all(b"half").unwrap();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(TextOutput::create(&folder.path().join("none/x.gz")).is_err());
    }
}
