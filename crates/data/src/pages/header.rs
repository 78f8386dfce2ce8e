//! What the headers of pages claim.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom},
};

use flate2::read::MultiGzDecoder;
use parquet::{
    basic::Compression as Codec,
    file::metadata::{ParquetMetaData, RowGroupMetaData},
};

use super::thrift::{DEPTH, FALSE, INTEGERS, STRUCTURE, Thrift};

/// Most bytes of a page: a hundred times what is usual.
const MOST_PAGE: u64 = 1 << 27;
/// Most values of a dictionary, each of which takes 32 bytes.
const MOST_DICTIONARY: u64 = 1 << 22;

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    /// The column, counted from 0.
    pub(crate) column: usize,
    /// What is too much.
    pub(crate) what: String,
}

/// Looks at the headers of all pages of the columns that are read. A header that cannot be understood is left to the library, which
/// refuses it with better words.
pub(crate) fn check(file: &File, metadata: &ParquetMetaData, columns: &[usize]) -> io::Result<Option<Excess>> {
    for group in metadata.row_groups() {
        let excess = check_group(file, group, columns)?;
        if excess.is_some() {
            return Ok(excess);
        }
    }
    Ok(None)
}

/// As [`check`], for one row group.
pub(crate) fn check_group(file: &File, group: &RowGroupMetaData, columns: &[usize]) -> io::Result<Option<Excess>> {
    let schema = group.schema_descr();
    for (leaf, chunk) in group.columns().iter().enumerate() {
        let column = schema.get_column_root_idx(leaf);
        if !columns.contains(&column) {
            continue;
        }
        let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
        let (Ok(start), Ok(length)) = (u64::try_from(start), u64::try_from(chunk.compressed_size())) else {
            continue;
        };
        let end = start.saturating_add(length).min(file.metadata()?.len());
        if let Some(what) = check_chunk(file, start..end, chunk.compression())? {
            return Ok(Some(Excess { column, what }));
        }
    }
    Ok(None)
}

fn check_chunk(mut file: &File, range: std::ops::Range<u64>, codec: Codec) -> io::Result<Option<String>> {
    let mut place = range.start;
    while place < range.end {
        file.seek(SeekFrom::Start(place))?;
        let mut header = Thrift::new(BufReader::new(file).take(range.end - place));
        let page = match Page::read(&mut header) {
            Ok(page) => page,
            Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::InvalidData) => return Ok(None),
            Err(error) => return Err(error),
        };
        if let Some(what) = page.excess() {
            return Ok(Some(what));
        }
        let data = place + header.read();
        if codec_is_unbounded(codec) && page.is_compressed {
            let levels = page.levels.min(page.compressed);
            file.seek(SeekFrom::Start(data + levels))?;
            let packed = BufReader::new(file).take(page.compressed - levels);
            // An error here is one for the library too.
            let unpacked = io::copy(&mut MultiGzDecoder::new(packed).take(page.unpacked + 1), &mut io::sink());
            if unpacked.is_ok_and(|unpacked| unpacked > page.unpacked) {
                return Ok(Some(format!("a page unpacks to more than the {} bytes that it claims", page.unpacked)));
            }
        }
        place = data.saturating_add(page.compressed);
    }
    Ok(None)
}

/// Whether the library unpacks whatever comes, rather than no more than a page claims.
fn codec_is_unbounded(codec: Codec) -> bool {
    matches!(codec, Codec::GZIP(_))
}

/// The claims of a page.
#[derive(Debug)]
struct Page {
    unpacked: u64,
    compressed: u64,
    is_dictionary: bool,
    values: u64,
    /// Bytes before those that are compressed.
    levels: u64,
    is_compressed: bool,
}

impl Page {
    /// Reads the header of a page.
    fn read(thrift: &mut Thrift<impl Read>) -> io::Result<Self> {
        let mut page =
            Self { unpacked: 0, compressed: 0, is_dictionary: false, values: 0, levels: 0, is_compressed: true };
        thrift.fields(|thrift, field, kind| {
            match (field, kind) {
                (2, INTEGERS) => page.unpacked = thrift.size()?,
                (3, INTEGERS) => page.compressed = thrift.size()?,
                (7, STRUCTURE) => {
                    page.is_dictionary = true;
                    thrift.fields(|thrift, field, kind| match (field, kind) {
                        (1, INTEGERS) => thrift.size().map(|values| page.values = values),
                        _ => thrift.skip(kind, DEPTH),
                    })?;
                }
                (8, STRUCTURE) => thrift.fields(|thrift, field, kind| match (field, kind) {
                    (5 | 6, INTEGERS) => thrift.size().map(|bytes| page.levels += bytes),
                    (7, FALSE) => {
                        page.is_compressed = false;
                        Ok(())
                    }
                    _ => thrift.skip(kind, DEPTH),
                })?,
                _ => thrift.skip(kind, DEPTH)?,
            }
            Ok(())
        })?;
        Ok(page)
    }

    fn excess(&self) -> Option<String> {
        if self.unpacked > MOST_PAGE {
            return Some(format!("a page unpacks to {} bytes, more than the {MOST_PAGE} that are read", self.unpacked));
        }
        let has_many = self.is_dictionary && self.values > MOST_DICTIONARY;
        has_many
            .then(|| format!("a dictionary has {} values, more than the {MOST_DICTIONARY} that are read", self.values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::parquet::{
        basic::GzipLevel,
        data_type::{ByteArray, ByteArrayType},
        file::{
            properties::{WriterProperties, WriterVersion},
            reader::{FileReader, SerializedFileReader},
            writer::SerializedFileWriter,
        },
        schema::parser::parse_message_type,
    };
    use std::{io::Write, sync::Arc};

    /// A file of two columns, and what is too much in some of them.
    fn excess(codec: Codec, version: WriterVersion, change: impl Fn(&mut Vec<u8>)) -> Option<Excess> {
        let schema = Arc::new(parse_message_type("message schema { required binary a; optional binary b; }").unwrap());
        let properties = WriterProperties::builder().set_compression(codec).set_writer_version(version).build();
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        let mut group = file.next_row_group().unwrap();
        for (text, levels) in [("ACGT", None), ("GG", Some([1; 3]))] {
            let mut column = group.next_column().unwrap().unwrap();
            let values = [text, "x", text].map(ByteArray::from);
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, levels.as_ref().map(|levels| &levels[..]), None)
                .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        let mut bytes = file.into_inner().unwrap();
        change(&mut bytes);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let reader = SerializedFileReader::new(file.try_clone().unwrap()).unwrap();
        check(&file, reader.metadata(), &[0, 1]).unwrap()
    }

    #[test]
    fn ordinary_pages_pass() {
        for codec in [Codec::UNCOMPRESSED, Codec::SNAPPY, Codec::GZIP(GzipLevel::default())] {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                assert_eq!(excess(codec, version, |_| {}), None, "{codec:?}");
            }
        }
    }

    #[test]
    fn claims_are_held_against_what_is_read() {
        let gzip = Codec::GZIP(GzipLevel::default());
        // The first page is the dictionary of `a`: its header begins after `PAR1` with the kind, 2, and the unpacked size, 13.
        let header = [0x15, 0x04, 0x15, 0x1a];
        let smaller = |bytes: &mut Vec<u8>| {
            assert_eq!(bytes[4..8], header);
            bytes[7] = 0x10;
        };
        let found = excess(gzip, WriterVersion::PARQUET_1_0, smaller).unwrap();
        assert_eq!(found, Excess { column: 0, what: "a page unpacks to more than the 8 bytes that it claims".into() });
        // Other codecs stop at the claim by themselves.
        assert_eq!(excess(Codec::SNAPPY, WriterVersion::PARQUET_1_0, smaller), None);
    }

    fn page(bytes: &[u8]) -> io::Result<Page> {
        Page::read(&mut Thrift::new(bytes.take(bytes.len() as u64)))
    }

    #[test]
    fn headers_are_understood() {
        // Kind 2, unpacked 2^31 - 1, compressed 10, a checksum, and a dictionary of 2^23 values, plain, sorted.
        let header = [
            0x15, 0x04, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0x14, 0x15, 0x02, 0x3c, 0x15, 0x80, 0x80, 0x80, 0x08,
            0x15, 0x00, 0x11, 0x00, 0x00,
        ];
        let found = page(&header).unwrap();
        assert_eq!((found.unpacked, found.compressed, found.values), ((1 << 31) - 1, 10, 1 << 23));
        assert!(found.excess().unwrap().starts_with("a page unpacks to 2147483647 bytes"));
        let found = Page { unpacked: 10, ..found };
        assert!(found.excess().unwrap().starts_with("a dictionary has 8388608 values"));
        // Cut anywhere, or with lists within lists without end, a header is an error.
        for end in 0..header.len() {
            assert!(page(&header[..end]).is_err());
        }
        assert!(page(&[0x19; 64]).is_err());
        assert!(page(&[0x15, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).is_err());
    }
}
