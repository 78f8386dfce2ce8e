//! A Parquet file whose pages are looked at between being unpacked and being read.

use std::fs::File;

use parquet::{
    basic::Encoding,
    bloom_filter::Sbbf,
    column::page::{Page, PageMetadata, PageReader},
    errors::ParquetError,
    file::{
        metadata::{ParquetMetaData, RowGroupMetaData},
        reader::{FileReader, RowGroupReader, SerializedFileReader},
    },
    record::reader::RowIter,
    schema::types::{ColumnDescPtr, Type},
};

use super::{damaged, delta, footer, levels::Lengths};

/// A file whose pages cannot claim more than they hold.
pub(crate) struct Guarded {
    file: SerializedFileReader<File>,
    longest: u64,
}

impl Guarded {
    /// Opens a file whose lists have at most `longest` values.
    pub(crate) fn new(file: File, longest: u64) -> Result<Self, ParquetError> {
        footer::check(&file)?;
        Ok(Self { file: SerializedFileReader::new(file)?, longest })
    }
}

impl FileReader for Guarded {
    fn metadata(&self) -> &ParquetMetaData {
        self.file.metadata()
    }

    fn num_row_groups(&self) -> usize {
        self.file.num_row_groups()
    }

    fn get_row_group(&self, number: usize) -> Result<Box<dyn RowGroupReader + '_>, ParquetError> {
        Ok(Box::new(Group { group: self.file.get_row_group(number)?, longest: self.longest }))
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>, ParquetError> {
        RowIter::from_file(projection, self)
    }
}

struct Group<'a> {
    group: Box<dyn RowGroupReader + 'a>,
    longest: u64,
}

impl RowGroupReader for Group<'_> {
    fn metadata(&self) -> &RowGroupMetaData {
        self.group.metadata()
    }

    fn num_columns(&self) -> usize {
        self.group.num_columns()
    }

    fn get_column_page_reader(&self, leaf: usize) -> Result<Box<dyn PageReader>, ParquetError> {
        Ok(Box::new(Pages {
            inner: self.group.get_column_page_reader(leaf)?,
            column: self.metadata().schema_descr().column(leaf),
            rows: u64::try_from(self.metadata().num_rows()).map_err(|_| damaged())?,
            lengths: Lengths::new(self.longest),
        }))
    }

    fn get_column_bloom_filter(&self, leaf: usize) -> Option<&Sbbf> {
        self.group.get_column_bloom_filter(leaf)
    }

    fn get_row_iter(&self, projection: Option<Type>) -> Result<RowIter<'_>, ParquetError> {
        RowIter::from_row_group(projection, self)
    }
}

/// The pages of a column in a row group.
struct Pages {
    inner: Box<dyn PageReader>,
    column: ColumnDescPtr,
    rows: u64,
    lengths: Lengths,
}

impl Pages {
    fn check(&mut self, page: &Page) -> Result<(), ParquetError> {
        let values = u64::from(page.num_values());
        let [repetition, definition] =
            [self.column.max_rep_level(), self.column.max_def_level()].map(|most| 16 - most.leading_zeros());
        let (data, repeated) = match page {
            Page::DictionaryPage { .. } => return Ok(()),
            Page::DataPage { buf, def_level_encoding, rep_level_encoding, .. } => {
                let mut rest = &buf[..];
                let repeated = levels(&mut rest, *rep_level_encoding, repetition, values)?;
                levels(&mut rest, *def_level_encoding, definition, values)?;
                (rest, (*rep_level_encoding, repeated))
            }
            Page::DataPageV2 { buf, def_levels_byte_len, rep_levels_byte_len, .. } => {
                let (repeated, rest) = buf.split_at_checked(*rep_levels_byte_len as usize).ok_or_else(damaged)?;
                let (_, rest) = rest.split_at_checked(*def_levels_byte_len as usize).ok_or_else(damaged)?;
                (rest, (Encoding::RLE, repeated))
            }
        };
        if repetition > 0 {
            self.lengths.check(repeated.0, repeated.1, repetition, values)?;
        } else if values > self.rows {
            let message = format!("a page claims {values} values in a group of {} rows", self.rows);
            return Err(ParquetError::General(message));
        }
        delta::check(page.encoding(), data, values)
    }

    fn checked(&mut self, page: Option<Page>) -> Result<Option<Page>, ParquetError> {
        page.as_ref().map_or(Ok(()), |page| self.check(page))?;
        Ok(page)
    }
}

/// Takes the levels of a page off its beginning; there are none of no bits.
fn levels<'a>(rest: &mut &'a [u8], encoding: Encoding, width: u32, values: u64) -> Result<&'a [u8], ParquetError> {
    if width == 0 {
        return Ok(&[]);
    }
    let length = if encoding == Encoding::RLE {
        let (length, after) = rest.split_first_chunk().ok_or_else(damaged)?;
        *rest = after;
        u64::from(u32::from_le_bytes(*length))
    } else {
        (values * u64::from(width)).div_ceil(8)
    };
    let (taken, after) = usize::try_from(length).ok().and_then(|end| rest.split_at_checked(end)).ok_or_else(damaged)?;
    *rest = after;
    Ok(taken)
}

impl Iterator for Pages {
    type Item = Result<Page, ParquetError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Pages {
    fn get_next_page(&mut self) -> Result<Option<Page>, ParquetError> {
        let page = self.inner.get_next_page()?;
        self.checked(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>, ParquetError> {
        self.inner.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<(), ParquetError> {
        self.inner.skip_next_page()
    }

    fn supports_deferred_dictionary(&self) -> bool {
        self.inner.supports_deferred_dictionary()
    }

    fn take_deferred_dictionary(&mut self) -> Result<Option<Page>, ParquetError> {
        self.inner.take_deferred_dictionary()
    }

    fn at_record_boundary(&mut self) -> Result<bool, ParquetError> {
        self.inner.at_record_boundary()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::parquet::{
        column::writer::ColumnWriter,
        data_type::{ByteArray, ByteArrayType, Int32Type},
        file::{
            properties::{WriterProperties, WriterVersion},
            writer::SerializedFileWriter,
        },
        schema::parser::parse_message_type,
    };
    use std::{io::Write, sync::Arc};

    /// A file of 50 texts in an encoding, and as many lists of 3 numbers.
    fn file(encoding: Encoding, version: WriterVersion) -> Vec<u8> {
        let schema = "message schema { optional binary a; required group b (LIST) { repeated group list { required int32 element; } } }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let properties = WriterProperties::builder()
            .set_dictionary_enabled(false)
            .set_column_encoding("a".into(), encoding)
            .set_writer_version(version)
            .build();
        let mut file = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
        let mut group = file.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let texts: Vec<ByteArray> = (0..49).map(|n| ByteArray::from(format!("ACGT{n}").as_str())).collect();
        let present: Vec<i16> = (0..50).map(|n| i16::from(n != 7)).collect();
        column.typed::<ByteArrayType>().write_batch(&texts, Some(&present), None).unwrap();
        column.close().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        assert!(matches!(column.untyped(), ColumnWriter::Int32ColumnWriter(_)));
        let repeated: Vec<i16> = (0..150).map(|n| i16::from(n % 3 > 0)).collect();
        column.typed::<Int32Type>().write_batch(&[7; 150], Some(&[1; 150]), Some(&repeated)).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        file.into_inner().unwrap()
    }

    /// How many rows are read, in rows of lists of at most `longest` values.
    fn rows(bytes: &[u8], longest: u64) -> Result<usize, String> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let file = Guarded::new(file, longest).map_err(|error| error.to_string())?;
        let rows: Result<Vec<_>, _> = RowIter::from_file_into(Box::new(file)).collect();
        rows.map(|rows| rows.len()).map_err(|error| error.to_string())
    }

    const ENCODINGS: [Encoding; 3] = [Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY];

    #[test]
    fn ordinary_pages_are_read() {
        for encoding in ENCODINGS {
            for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
                let bytes = file(encoding, version);
                assert_eq!(rows(&bytes, 3), Ok(50), "{encoding} {version:?}");
                let refused = rows(&bytes, 2).unwrap_err();
                assert!(refused.ends_with("a row has a list of more than 2 values"), "{refused}");
            }
        }
    }

    #[test]
    fn a_page_cannot_claim_more_values_than_its_header() {
        for encoding in &ENCODINGS[1..] {
            let mut bytes = file(*encoding, WriterVersion::PARQUET_1_0);
            // Blocks of 128 numbers in 4 parts, and 49 of them; of the two heads of shared and other lengths, the last is changed.
            let head = bytes.windows(4).rposition(|bytes| bytes == [0x80, 0x01, 0x04, 49]).unwrap();
            bytes[head + 3] = 51;
            let refused = rows(&bytes, 3).unwrap_err();
            assert!(refused.ends_with("a page of 50 values claims 51 within"), "{refused}");
        }
    }
}
