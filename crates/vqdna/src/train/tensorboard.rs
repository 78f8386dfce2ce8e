//! Writes the curves of a run as an event file, which `TensorBoard` and its relatives show.
//!
//! An event file is a sequence of `TFRecords`, each a length and some bytes with a checksum for both; the bytes are a
//! protobuf `Event`. Scalars need four of its messages' fields, so they are written by hand here. Field numbers are
//! those of `tensorboard/compat/proto/event.proto` and `summary.proto`.

use std::fs::{self, File};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

/// Appends scalars to one event file.
///
/// `TensorBoard` reads all event files of a folder as one run, so a run that resumes begins a new file.
pub struct EventWriter {
    file: BufWriter<File>,
}

impl EventWriter {
    /// Begins an event file in `dir`, which is made if missing; `start_time` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// When the folder or the file cannot be made.
    pub fn create(dir: &Path, start_time: f64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let mut writer = Self { file: BufWriter::new(create_new(dir, start_time)?) };
        let mut event = Message::default();
        event.double(1, start_time).bytes(3, b"brain.Event:2");
        writer.record(&event.0)?;
        writer.flush()?;
        Ok(writer)
    }

    /// Appends one point of the curve `tag`; `wall_time` is in seconds since 1970.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn scalar(&mut self, step: u64, tag: &str, value: f32, wall_time: f64) -> io::Result<()> {
        let (mut point, mut summary, mut event) = (Message::default(), Message::default(), Message::default());
        point.bytes(1, tag.as_bytes()).float(2, value);
        summary.bytes(1, &point.0);
        event.double(1, wall_time).number(2, step).bytes(5, &summary.0);
        self.record(&event.0)
    }

    /// Hands all points so far to the operating system, so that a viewer sees them.
    ///
    /// # Errors
    ///
    /// When the file cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// Appends a `TFRecord`.
    fn record(&mut self, data: &[u8]) -> io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(data)?;
        self.file.write_all(&masked_crc(data).to_le_bytes())
    }
}

/// A file that did not exist. Its name must hold `tfevents`, and `TensorBoard` reads the files of a folder in the order
/// of their names, hence the time; a second file of the same second is counted.
fn create_new(dir: &Path, start_time: f64) -> io::Result<File> {
    let name = format!("events.out.tfevents.{:010.0}.vqdna", start_time.max(0.0).floor());
    let mut result = File::create_new(dir.join(&name));
    for count in 1..100 {
        match result {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                result = File::create_new(dir.join(format!("{name}.{count:02}")));
            }
            _ => break,
        }
    }
    result
}

/// CRC-32C as `TFRecords` store it: turned and shifted, since the CRC of data that holds CRCs is weak.
fn masked_crc(data: &[u8]) -> u32 {
    crc32c::crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The bytes of a protobuf message, to which fields are appended.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(&mut self, field: u8, value: u64) -> &mut Self {
        self.key(field, 0).varint(value)
    }

    fn double(&mut self, field: u8, value: f64) -> &mut Self {
        self.key(field, 1).0.extend_from_slice(&value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u8, value: &[u8]) -> &mut Self {
        self.key(field, 2).varint(value.len() as u64).0.extend_from_slice(value);
        self
    }

    fn float(&mut self, field: u8, value: f32) -> &mut Self {
        self.key(field, 5).0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// Number and wire type of the next field; one byte holds field numbers up to 15.
    fn key(&mut self, field: u8, wire_type: u8) -> &mut Self {
        self.0.push(field << 3 | wire_type);
        self
    }

    /// Seven bits per byte, the low ones first, and the top bit where more follow.
    fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of all records of a file, whose checksums must hold.
    fn records(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut take = |count: usize| {
            let (taken, rest) = bytes.split_at_checked(count)?;
            bytes = rest;
            Some(taken.to_vec())
        };
        let checksum = |data: &[u8]| masked_crc(data).to_le_bytes().to_vec();
        let mut records = Vec::new();
        while let Some(length) = take(8) {
            assert_eq!(take(4), Some(checksum(&length)));
            let data = take(usize::from_le_bytes(length.try_into().unwrap())).unwrap();
            assert_eq!(take(4), Some(checksum(&data)));
            records.push(data);
        }
        records
    }

    fn read_varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (&byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }

    /// The fields of a message, numbered, with their bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = read_varint(&mut bytes);
            let value = match key & 7 {
                0 => read_varint(&mut bytes).to_le_bytes().to_vec(),
                wire_type => {
                    let count = match wire_type {
                        1 => 8,
                        5 => 4,
                        _ => usize::try_from(read_varint(&mut bytes)).unwrap(),
                    };
                    bytes.split_off(..count).unwrap().to_vec()
                }
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    #[test]
    fn scalars_survive_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = EventWriter::create(&dir.path().join("curves"), 1_700_000_000.75).unwrap();
        writer.scalar(0, "loss_nats", 1.25, 1_700_000_001.5).unwrap();
        writer.scalar(u64::from(u32::MAX) + 300, "längere/Kurve", f32::NAN, 1_700_000_002.0).unwrap();
        writer.flush().unwrap();

        let bytes = fs::read(dir.path().join("curves/events.out.tfevents.1700000000.vqdna")).unwrap();
        let records = records(&bytes);
        assert_eq!(records.len(), 3);
        let time = |seconds: f64| (1, seconds.to_le_bytes().to_vec());
        assert_eq!(fields(&records[0]), [time(1_700_000_000.75), (3, b"brain.Event:2".to_vec())]);
        for (record, step, tag, value, seconds) in [
            (&records[1], 0, "loss_nats", 1.25, 1_700_000_001.5),
            (&records[2], u64::from(u32::MAX) + 300, "längere/Kurve", f32::NAN, 1_700_000_002.0),
        ] {
            let [event_time, event_step, (5, summary)] = &fields(record)[..] else { panic!("{record:?}") };
            assert_eq!((event_time, event_step), (&time(seconds), &(2, step.to_le_bytes().to_vec())));
            let [(1, point)] = &fields(summary)[..] else { panic!("{summary:?}") };
            assert_eq!(fields(point), [(1, tag.as_bytes().to_vec()), (2, value.to_le_bytes().to_vec())]);
        }
    }

    #[test]
    fn the_checksum_is_that_of_tensorflow() {
        // The first twelve bytes of every event file of TensorFlow: its first record has 24 bytes of data.
        assert_eq!(masked_crc(&24_u64.to_le_bytes()).to_le_bytes(), [0xa3, 0x7f, 0x4b, 0x22]);
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn two_files_of_one_second_are_two_files() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..3 {
            EventWriter::create(dir.path(), 5.0).unwrap();
        }
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let name = "events.out.tfevents.0000000005.vqdna";
        assert_eq!(names, [name.to_owned(), format!("{name}.01"), format!("{name}.02")]);
    }
}
