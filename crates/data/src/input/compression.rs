//! How an input is compressed, told by its first bytes, and the decoder for it.

use std::{
    fmt,
    io::{self, BufRead, Read},
};

/// The compression of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// None: the bytes are the text.
    Plain,
    /// gzip, of one or many members.
    Gzip,
    /// gzip in blocks, as written by bgzip; allows random access.
    Bgzip,
    /// bzip2, of one or many streams.
    Bzip2,
    /// xz, of one or many streams.
    Xz,
    /// zstd, of one or many frames.
    Zstd,
}

impl Compression {
    /// Bytes that [`detect`](Self::detect) looks at.
    pub(crate) const HEAD: usize = 18;

    /// Tells the compression from the first bytes of an input, which may be fewer than [`HEAD`](Self::HEAD).
    pub(crate) fn detect(head: &[u8]) -> Self {
        match head {
            // A bgzip block is a gzip member with one extra field, `BC`, of two bytes.
            [0x1f, 0x8b, 8, flags, ..] if flags & 4 != 0 && head.get(12..16) == Some(b"BC\x02\x00") => Self::Bgzip,
            [0x1f, 0x8b, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// A reader of the text. All decoders go on to the last member, stream or frame, and fail on an input that ends within one.
    pub(super) fn decode<'a>(self, bytes: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(bytes),
            Self::Gzip | Self::Bgzip => Box::new(Members(flate2::bufread::MultiGzDecoder::new(bytes))),
            Self::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(bytes)),
            Self::Xz => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(bytes)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(bytes)?),
        })
    }
}

/// What the header of every bgzip block has in its extra field, before the size of the block less one.
const BGZIP_FIELD: &[u8] = b"BC\x02\x00";
/// That size in the block without text that ends every whole bgzip file; no other block is as small.
const BGZIP_END: [u8; 2] = [27, 0];

/// The members of gzip data in any order, plain ones and blocks of bgzip.
struct Members<R>(flate2::bufread::MultiGzDecoder<R>);

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read(buffer)?;
        let is_end = count == 0 && !buffer.is_empty();
        let extra = if is_end { self.0.header().and_then(|last| last.extra()) } else { None };
        // Data that was cut off between two blocks looks whole but for the block that must end it.
        match extra.and_then(|extra| extra.strip_prefix(BGZIP_FIELD)) {
            Some(size) if !size.starts_with(&BGZIP_END) => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(count),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "plain",
            Self::Gzip => "gzip",
            Self::Bgzip => "bgzip",
            Self::Bzip2 => "bzip2",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}
