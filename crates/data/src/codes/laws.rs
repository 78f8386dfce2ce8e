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
    Header { model: "6f1e".into(), codebook_sizes: vec![256, 512, 65_536] }
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
fn begin(path: &Path, rows: &[Row]) -> Writer {
    let mut writer = Writer::create(path, &header()).unwrap();
    for row in rows {
        writer.write(row).unwrap();
    }
    writer
}

fn write(path: &Path, rows: &[Row]) -> Written {
    begin(path, rows).finish().unwrap()
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

/// Whether a shard may begin at this row: not at a gap after a full row.
fn is_seam(rows: &[Row], index: usize) -> bool {
    let (Some(last), Some(row)) = (rows[..index].last(), rows.get(index)) else { return true };
    let is_same = last.record == row.record && last.strand == row.strand;
    !is_same || last.end - last.start < FULL || last.edges().1 == row.edges().0
}

#[test]
fn merged_shards_are_the_whole_file_byte_for_byte() {
    for seed in 10..16 {
        let rng = &mut ChaCha8Rng::seed_from_u64(seed);
        let rows = random_rows(seed);
        let mut cuts: Vec<usize> = (0..3).map(|_| rng.random_range(0..=rows.len())).collect();
        cuts.retain(|&cut| is_seam(&rows, cut));
        cuts.extend([0, rows.len()]);
        cuts.sort_unstable();
        for_each_format(|_, path| {
            let folder = tempfile::tempdir().unwrap();
            let name = path.file_name().unwrap().to_str().unwrap();
            let shards: Vec<PathBuf> =
                (1..cuts.len()).map(|shard| folder.path().join(format!("{shard}{name}"))).collect();
            for (shard, cut) in shards.iter().zip(cuts.windows(2)) {
                write(shard, &rows[cut[0]..cut[1]]);
            }
            let whole = write(path, &rows);
            let merged = tempfile::tempdir().unwrap();
            assert_eq!(merge(&shards, &merged.path().join(name)).unwrap(), whole);
            assert!(contents(merged.path()) == contents(path.parent().unwrap()), "{name} {seed} {cuts:?}");
        });
    }
}

#[test]
fn a_merge_refuses_swapped_missing_and_foreign_shards() {
    let mut rows = rows_of_segment(&"a".into(), 0..2 * FULL + 9, Strand::Forward);
    for row in &mut rows {
        row.codes = vec![vec![0; usize::try_from(row.end - row.start).unwrap()]; 3];
    }
    for_each_format(|folder, path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let shards: Vec<PathBuf> = (0..3).map(|shard| folder.join(format!("{shard}{name}"))).collect();
        for (shard, row) in shards.iter().zip(&rows) {
            write(shard, std::slice::from_ref(row));
        }
        let refused = |order: &[usize]| {
            let order: Vec<_> = order.iter().map(|&shard| shards[shard].clone()).collect();
            merge(&order, path).unwrap_err().to_string()
        };
        assert!(refused(&[0, 2]).contains(&format!("2{name}: record a, strand +, base 32768: gap")));
        assert!(refused(&[1, 0, 2]).contains(&format!("0{name}: record a, strand +, base 0: overlaps")));
        assert!(refused(&[0, 0]).contains("overlaps"));
        assert!(refused(&[]).contains("no shards"));
        let foreign = folder.join(format!("foreign{name}"));
        Writer::create(&foreign, &Header { model: "other".into(), ..header() }).unwrap().finish().unwrap();
        assert!(merge(&[shards[0].clone(), foreign], path).unwrap_err().to_string().contains("differs in model"));
        assert!(!path.exists());
    });
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let rows = random_rows(20);
    for_each_format(|folder, path| {
        let writer = begin(path, &rows);
        assert!(!path.exists());
        drop(writer);
        assert_eq!(contents(folder), []);
    });
}

#[test]
fn a_refused_row_leaves_the_file_as_it_was() {
    let rows = random_rows(21);
    for_each_format(|_, path| {
        let mut writer = begin(path, &rows);
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
