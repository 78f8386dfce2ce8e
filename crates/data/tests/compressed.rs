//! Every compression gives the same records, in one piece or several, and a cut file is an error wherever it is cut.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use vqdna_data::{
    fasta::{FastaError, Record, read},
    input::InputError,
};

/// One way to compress bytes, and the name it is told by in messages.
struct Form {
    name: &'static str,
    compress: fn(&[u8]) -> Vec<u8>,
}

const FORMS: [Form; 5] = [
    Form { name: "gzip", compress: gzip },
    Form { name: "bgzip", compress: bgzip },
    Form { name: "bzip2", compress: bzip2 },
    Form { name: "xz", compress: xz },
    Form { name: "zstd", compress: zstd },
];

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn bgzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = noodles_bgzf::io::Writer::new(Vec::new());
    for block in bytes.chunks(64) {
        encoder.write_all(block).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

fn bzip2(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    // The checksum is optional in zstd; the command-line tool writes it.
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn text() -> Vec<u8> {
    let genome = vqdna_data::synthetic::genome(1, 600, 0.4);
    let mut text = Vec::new();
    for (index, bases) in genome.chunks(150).enumerate() {
        text.extend(format!(">contig{index} of four\n").bytes());
        bases.chunks(60).for_each(|line| text.extend(line.iter().chain(b"\n")));
    }
    text
}

fn read_bytes(path: &Path, bytes: &[u8]) -> Result<Vec<Record>, FastaError> {
    fs::write(path, bytes).unwrap();
    read(path)?.collect()
}

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("genome");
    (folder, path)
}

#[test]
fn every_form_gives_the_same_records() {
    let (_folder, path) = scratch();
    let plain = read_bytes(&path, &text()).unwrap();
    assert_eq!(plain.len(), 4);
    for Form { name, compress } in FORMS {
        assert_eq!(read_bytes(&path, &compress(&text())).unwrap(), plain, "{name}");
    }
}

#[test]
fn joined_pieces_are_the_whole() {
    let (_folder, path) = scratch();
    let text = text();
    let plain = read_bytes(&path, &text).unwrap();
    let (left, right) = text.split_at(333);
    for Form { name, compress } in FORMS {
        assert_eq!(read_bytes(&path, &[compress(left), compress(right)].concat()).unwrap(), plain, "{name}");
    }
}

#[test]
fn bgzip_and_plain_gzip_may_be_joined_in_any_order() {
    let (_folder, path) = scratch();
    let text = text();
    let plain = read_bytes(&path, &text).unwrap();
    let (left, right) = text.split_at(333);
    let end = bgzip(b"").len();
    for (left, right) in [(bgzip(left), gzip(right)), (gzip(left), bgzip(right)), (bgzip(left), bgzip(right))] {
        assert_eq!(read_bytes(&path, &[&left[..], &right].concat()).unwrap(), plain);
        assert_eq!(read_bytes(&path, &[&left[..], &gzip(b""), &right].concat()).unwrap(), plain);
    }
    // Without its last block bgzip data is cut off, whatever came before.
    let right = bgzip(right);
    let cut = [&gzip(left)[..], &right[..right.len() - end]].concat();
    assert!(matches!(read_bytes(&path, &cut), Err(FastaError::Input(InputError::Truncated { .. }))));
}

#[test]
fn what_follows_on_compressed_data_is_damage() {
    let (_folder, path) = scratch();
    for compress in [gzip, bgzip] {
        let message = read_bytes(&path, &[&compress(&text())[..], b"junk behind it"].concat()).unwrap_err().to_string();
        assert!(message.contains("data is damaged"), "{message}");
    }
}

#[test]
fn a_cut_file_is_an_error_wherever_it_is_cut() {
    let (_folder, path) = scratch();
    for Form { name, compress } in FORMS {
        let bytes = compress(&text());
        for end in 0..bytes.len() {
            let error = read_bytes(&path, &bytes[..end]).expect_err(name);
            match error {
                FastaError::Input(InputError::Truncated { .. }) => {}
                // With the mark of the compression itself cut, nothing tells it any more.
                FastaError::Empty { .. } | FastaError::UnknownFormat { .. } if end < 6 => {}
                other => panic!("{name} cut at {end} of {}: {other}", bytes.len()),
            }
        }
    }
}

#[test]
fn a_damaged_file_is_an_error() {
    let (_folder, path) = scratch();
    for Form { name, compress } in FORMS {
        let mut bytes = compress(&text());
        let middle = bytes.len() / 2;
        bytes[middle..middle + 8].fill(0x55);
        let message = read_bytes(&path, &bytes).expect_err(name).to_string();
        assert!(message.contains("genome") && message.contains(name), "{message}");
    }
}

#[test]
fn the_digest_is_of_the_bytes_in_the_file() {
    let (_folder, path) = scratch();
    for Form { name, compress } in FORMS {
        let bytes = compress(&text());
        fs::write(&path, &bytes).unwrap();
        let mut records = read(&path).unwrap();
        assert_eq!(records.by_ref().count(), 4, "{name}");
        let [digest] = records.digests() else { panic!("one input, one digest") };
        assert_eq!((digest.bytes, digest.records, digest.bases), (bytes.len() as u64, 4, 600));
        assert_eq!(digest.blake3, blake3::hash(&bytes).to_string());
    }
}
