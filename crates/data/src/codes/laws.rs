//! What holds for every format, over seeded random files.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

const FULL: u64 = ROW_BASES as u64;
const FORMATS: [&str; 3] = ["parquet", "npy", "tsv"];

fn header() -> Header {
    Header { model: "6f1e".into(), codebook_sizes: vec![256, 512, 65_536], shard: None }
}

/// Records of one or two strands and one or more segments, some longer than a row.
fn random_rows(seed: u64) -> Vec<Row> {
    let rng = &mut ChaCha8Rng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for record in 0..rng.random_range(1..6) {
        let record = Arc::from(format!("chr{record}"));
        let strands: &[_] = match rng.random_range(0..3) {
            0 => &[Strand::Forward],
            1 => &[Strand::Reverse],
            _ => &[Strand::Forward, Strand::Reverse],
        };
        let mut edge = 0;
        let segments: Vec<_> = (0..rng.random_range(1..4)).map(|_| random_segment(rng, &mut edge)).collect();
        for &strand in strands {
            let rows_of = |segment: &Range<u64>| rows_of_segment(&record, segment.clone(), strand);
            match strand {
                Strand::Forward => rows.extend(segments.iter().flat_map(rows_of)),
                Strand::Reverse => rows.extend(segments.iter().rev().flat_map(rows_of)),
            }
        }
    }
    for row in &mut rows {
        let bases = row.end - row.start;
        let codes = |&size: &usize| (0..bases).map(|_| rng.random_range(0..size).try_into().unwrap()).collect();
        row.codes = header().codebook_sizes.iter().map(codes).collect();
    }
    rows
}

/// A segment after a gap, most often short.
fn random_segment(rng: &mut ChaCha8Rng, edge: &mut u64) -> Range<u64> {
    let start = *edge + rng.random_range(1..1000);
    let bases = match rng.random_range(0..8) {
        0 => FULL,
        1 | 2 => rng.random_range(FULL + 1..3 * FULL),
        _ => rng.random_range(1..200),
    };
    *edge = start + bases;
    start..*edge
}

/// Cuts a segment into rows without codes, as the documentation of the room says.
fn rows_of_segment(record: &Arc<str>, segment: Range<u64>, strand: Strand) -> Vec<Row> {
    let row = |offset: u64| {
        let bases = FULL.min(segment.end - segment.start - offset);
        let start = match strand {
            Strand::Forward => segment.start + offset,
            Strand::Reverse => segment.end - offset - bases,
        };
        Row { record: Arc::clone(record), start, end: start + bases, strand, codes: Vec::new() }
    };
    (0..segment.end - segment.start).step_by(ROW_BASES).map(row).collect()
}

/// A writer that has written the rows.
fn begin(path: &Path, shard: Option<ShardNumber>, rows: &[Row]) -> Writer {
    let mut writer = Writer::create(path, &Header { shard, ..header() }).unwrap();
    for row in rows {
        writer.write(row).unwrap();
    }
    writer
}

fn write(path: &Path, rows: &[Row]) -> Written {
    begin(path, None, rows).finish().unwrap()
}

/// Writes a file for each part, beside `path`; they are the shards of one file if they are numbered.
fn write_parts(path: &Path, parts: &[&[Row]], are_numbered: bool) -> Vec<PathBuf> {
    let name = path.file_name().unwrap().to_str().unwrap();
    let count = parts.len() as u64;
    let write = |(index, rows): (u64, &&[Row])| {
        let part = path.with_file_name(format!("{index}{name}"));
        begin(&part, are_numbered.then_some(ShardNumber { index, count }), rows).finish().unwrap();
        part
    };
    (1..).zip(parts).map(write).collect()
}

fn read(path: &Path) -> Result<Vec<Row>, CodesError> {
    Reader::open(path)?.collect()
}

/// The bytes of all files of a folder, by name.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut contents: Vec<_> = paths.map(|path| (name(&path), fs::read(path).unwrap())).collect();
    contents.sort();
    contents
}

/// Runs a law once per format, with an empty folder and the path of a file in it.
fn for_each_format(law: impl Fn(&Path, &Path)) {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        law(folder.path(), &folder.path().join(format!("x.{format}")));
    }
}

#[test]
fn what_is_written_is_read() {
    for seed in 0..6 {
        let rows = random_rows(seed);
        for_each_format(|folder, path| {
            let written = write(path, &rows);
            assert_eq!(Reader::open(path).unwrap().header(), &header());
            assert!(read(path).unwrap() == rows, "{} {seed}", path.display());
            let bytes: usize = contents(folder).iter().map(|(_, bytes)| bytes.len()).sum();
            let bases = rows.iter().map(|row| row.end - row.start).sum();
            assert_eq!(written, Written { bases, rows: rows.len() as u64, bytes: bytes as u64 });
        });
    }
}

#[test]
fn readers_and_writers_move_between_threads() {
    fn is_send<T: Send>() {}
    is_send::<Reader>();
    is_send::<Writer>();
}

#[test]
fn a_file_without_rows_is_a_file() {
    for_each_format(|_, path| {
        assert_eq!(write(path, &[]).rows, 0);
        assert!(read(path).unwrap().is_empty());
    });
}

#[test]
fn more_rows_than_a_row_group_are_read() {
    let row = |record: u64| Row {
        record: format!("contig{record}").into(),
        start: 0,
        end: 2,
        strand: Strand::Forward,
        codes: vec![vec![1, 2]; 3],
    };
    let rows: Vec<Row> = (0..200).map(row).collect();
    for_each_format(|_, path| {
        write(path, &rows);
        assert_eq!(read(path).unwrap(), rows);
    });
}

#[test]
fn a_shard_has_its_number() {
    let rows = random_rows(7);
    for_each_format(|_, path| {
        let parts: [&[Row]; 3] = [&[], &rows, &[]];
        for (index, shard) in (1..).zip(write_parts(path, &parts, true)) {
            let reader = Reader::open(&shard).unwrap();
            assert_eq!(reader.header(), &Header { shard: Some(ShardNumber { index, count: 3 }), ..header() });
        }
        let impossible = Header { shard: Some(ShardNumber { index: 4, count: 3 }), ..header() };
        let message = Writer::create(path, &impossible).err().unwrap().to_string();
        assert!(message.ends_with("such as 2/3, found \"4/3\""), "{message}");
    });
}

#[test]
fn a_damaged_number_is_an_error() {
    for_each_format(|folder, path| {
        let shard = write_parts(path, &[&few_rows(), &[]], true).remove(0);
        for number in ["0/2", "3/2", "1/x"] {
            for (name, bytes) in contents(folder) {
                let mut damaged = bytes.clone();
                for place in 0..bytes.len() {
                    if bytes[place..].starts_with(b"1/2") {
                        damaged[place..place + number.len()].copy_from_slice(number.as_bytes());
                    }
                }
                fs::write(folder.join(&name), damaged).unwrap();
            }
            let message = read(&shard).unwrap_err().to_string();
            assert!(message.ends_with(&format!("such as 2/3, found {number:?}")), "{message}");
            write_parts(path, &[&few_rows(), &[]], true);
        }
    });
}

/// Joins the parts and compares with the file of all rows.
fn assert_merges(path: &Path, parts: &[&[Row]], are_numbered: bool) {
    let folder = tempfile::tempdir().unwrap();
    let name = path.file_name().unwrap();
    let shards = write_parts(&folder.path().join(name), parts, are_numbered);
    let whole = write(path, &parts.concat());
    let merged = tempfile::tempdir().unwrap();
    assert_eq!(merge(&shards, &merged.path().join(name)).unwrap(), whole);
    assert!(contents(merged.path()) == contents(path.parent().unwrap()), "{}", path.display());
}

#[test]
fn merged_shards_are_the_whole_file_byte_for_byte() {
    for seed in 10..16 {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let rows = random_rows(seed);
        let mut cuts: Vec<usize> = (0..3).map(|_| rng.random_range(0..=rows.len())).collect();
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        let parts: Vec<&[Row]> = cuts.windows(2).map(|cut| &rows[cut[0]..cut[1]]).collect();
        for_each_format(|_, path| {
            assert_merges(path, &parts, true);
            assert_merges(path, &parts, false);
            assert_merges(path, &[&rows], true);
        });
    }
}

/// Rows of the segments of one record, all with the code 0.
fn rows_of_zeros(segments: &[Range<u64>], strand: Strand) -> Vec<Row> {
    let mut rows: Vec<Row> =
        segments.iter().flat_map(|segment| rows_of_segment(&"a".into(), segment.clone(), strand)).collect();
    for row in &mut rows {
        row.codes = vec![vec![0; usize::try_from(row.end - row.start).unwrap()]; 3];
    }
    rows
}

#[test]
fn a_segment_may_end_with_a_full_row_at_the_end_of_a_shard() {
    let forward = rows_of_zeros(&[0..FULL, FULL + 5..FULL + 9], Strand::Forward);
    let reverse = rows_of_zeros(&[9..FULL + 9, 0..4], Strand::Reverse);
    for rows in [forward, reverse] {
        for_each_format(|_, path| {
            assert_merges(path, &[&rows[..1], &rows[1..]], true);
            assert_merges(path, &[&rows[..1], &rows[1..]], false);
        });
    }
}

/// The errors of merges of parts, by their indices; then, nothing must be left under `path`.
fn refusals(path: &Path, parts: &[PathBuf]) -> impl Fn(&[usize]) -> String {
    move |order: &[usize]| {
        let order: Vec<_> = order.iter().map(|&part| parts[part].clone()).collect();
        let message = merge(&order, path).unwrap_err().to_string();
        assert!(!path.exists());
        message.replace(&path.parent().unwrap().display().to_string(), "")
    }
}

#[test]
fn a_merge_refuses_missing_swapped_and_repeated_shards() {
    // Where rows alone would not tell: the second shard has none, and the others are of segments of their own.
    let rows = rows_of_zeros(&[0..5, 10..15], Strand::Forward);
    for_each_format(|folder, path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut parts = write_parts(path, &[&rows[..1], &[], &rows[1..]], true);
        let other = folder.join("other");
        fs::create_dir(&other).unwrap();
        parts.extend(write_parts(&other.join(name), &[&rows[..1], &[]], true));
        parts.push(folder.join(format!("whole.{name}")));
        write(&parts[5], &[]);
        let refused = refusals(path, &parts);
        assert_eq!(refused(&[0, 1]), format!("/2{name}: shard 3/3 is missing; it should follow this file"));
        assert_eq!(refused(&[0]), format!("/1{name}: shard 2/3 is missing; it should follow this file"));
        assert_eq!(refused(&[0, 2]), format!("/3{name}: expected shard 2/3, found 3/3"));
        assert_eq!(refused(&[1, 2]), format!("/2{name}: expected shard 1/3, found 2/3"));
        assert_eq!(refused(&[2, 1, 0]), format!("/3{name}: expected shard 1/3, found 3/3"));
        assert_eq!(refused(&[0, 2, 1]), format!("/3{name}: expected shard 2/3, found 3/3"));
        assert_eq!(refused(&[0, 1, 1, 2]), format!("/2{name}: expected shard 3/3, found 2/3"));
        assert_eq!(refused(&[0, 1, 2, 2]), format!("/3{name}: expected no file after shard 3/3"));
        assert_eq!(refused(&[0, 4, 2]), format!("/other/2{name}: expected shard 2/3, found 2/2"));
        assert_eq!(refused(&[0, 5, 2]), format!("/whole.{name}: expected shard 2/3, found a whole file"));
        assert_eq!(refused(&[5, 0]), format!("/1{name}: expected a whole file like the first, found shard 1/3"));
    });
}

#[test]
fn a_merge_refuses_whole_files_out_of_order_and_foreign_ones() {
    let segment = 0..2 * FULL + 9;
    let rows = rows_of_zeros(std::slice::from_ref(&segment), Strand::Forward);
    for_each_format(|folder, path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut parts = write_parts(path, &[&rows[..1], &rows[1..2], &rows[2..]], false);
        parts.push(folder.join(format!("foreign{name}")));
        Writer::create(&parts[3], &Header { model: "other".into(), ..header() }).unwrap().finish().unwrap();
        let refused = refusals(path, &parts);
        assert!(refused(&[1, 0, 2]).contains(&format!("1{name}: record a, strand +, base 0: overlaps")));
        assert!(refused(&[0, 0]).contains("overlaps"));
        assert!(refused(&[]).contains("no shards"));
        assert!(refused(&[0, 3]).contains("differs in model"));
    });
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let rows = random_rows(20);
    for_each_format(|folder, path| {
        let writer = begin(path, None, &rows);
        assert!(!path.exists());
        drop(writer);
        assert_eq!(contents(folder), []);
    });
}

#[test]
fn a_refused_row_leaves_the_file_as_it_was() {
    let rows = random_rows(21);
    for_each_format(|_, path| {
        let mut writer = begin(path, None, &rows);
        assert!(writer.write(&rows[0]).is_err());
        writer.finish().unwrap();
        assert!(read(path).unwrap() == rows);
    });
}

#[test]
fn a_missing_folder_is_an_error_at_once() {
    for_each_format(|folder, path| {
        let path = folder.join("none").join(path.file_name().unwrap());
        let message = Writer::create(&path, &header()).err().unwrap().to_string();
        assert!(message.contains("none") && message.contains("cannot create"), "{message}");
    });
}

/// Rows of a small file, whose every byte can be damaged in turn.
fn few_rows() -> Vec<Row> {
    let row = |record: &str, strand| Row {
        record: record.into(),
        start: 3,
        end: 9,
        strand,
        codes: vec![vec![1, 2, 3, 4, 5, 255]; 3],
    };
    vec![row("a", Strand::Forward), row("a", Strand::Reverse), row("b", Strand::Forward)]
}

#[test]
fn a_truncated_file_is_an_error() {
    for_each_format(|folder, path| {
        write(path, &few_rows());
        for (name, whole) in contents(folder) {
            for bytes in 0..whole.len() {
                fs::write(folder.join(&name), &whole[..bytes]).unwrap();
                // Text may end after any line of a base.
                let is_complete_text = path.extension().unwrap() == "tsv" && whole[..bytes].ends_with(b"\n");
                assert!(read(path).is_err() || is_complete_text, "{name} {bytes}");
            }
            fs::write(folder.join(&name), &whole).unwrap();
        }
    });
}

#[test]
fn a_damaged_file_does_not_panic() {
    for_each_format(|folder, path| {
        write(path, &few_rows());
        for (name, whole) in contents(folder) {
            for place in 0..whole.len() {
                for flip in [1 << (place % 8), 0xff] {
                    let mut damaged = whole.clone();
                    damaged[place] ^= flip;
                    fs::write(folder.join(&name), damaged).unwrap();
                    drop(read(path));
                }
            }
            fs::write(folder.join(&name), &whole).unwrap();
        }
    });
}

/// Damage that leaves every code in its codebook and every number in its place.
#[test]
fn a_changed_code_is_found_by_the_digest() {
    let rows = random_rows(3);
    for format in ["parquet", "npy"] {
        let folder = tempfile::tempdir().unwrap();
        let [good, bad] = ["good", "bad"].map(|name| folder.path().join(format!("{name}.{format}")));
        write(&good, &rows);
        verify(&good).unwrap();
        // The file of other codes, with the digest of these.
        let mut changed = rows.clone();
        let last = changed.last_mut().unwrap().codes[0].last_mut().unwrap();
        *last = (*last + 1) % 256;
        write(&bad, &changed);
        let digest = |rows: &[Row]| {
            let mut digest = super::digest::Digest::default();
            for row in rows {
                digest.add(row);
            }
            digest.text()
        };
        let stating = if format == "npy" { folder.path().join("bad.npy.records.tsv") } else { bad.clone() };
        let mut bytes = fs::read(&stating).unwrap();
        let (found, wanted) = (digest(&changed), digest(&rows));
        let at = bytes.windows(found.len()).position(|window| window == found.as_bytes()).unwrap();
        bytes[at..at + found.len()].copy_from_slice(wanted.as_bytes());
        fs::write(&stating, bytes).unwrap();
        let message = verify(&bad).unwrap_err().to_string();
        assert!(message.ends_with("of which the file holds a digest"), "{message}");
    }
}

#[test]
fn files_without_a_digest_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    let rows = random_rows(4);
    write(&path, &rows);
    let table = folder.path().join("x.npy.records.tsv");
    let text = fs::read_to_string(&table).unwrap();
    let (first, rest) = text.split_once('\n').unwrap();
    fs::write(&table, format!("{}\n{rest}", first.split_once(" blake3=").unwrap().0)).unwrap();
    assert_eq!(read(&path).unwrap(), rows);
}
