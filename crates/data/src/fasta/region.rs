//! Reads one region of a file, through its index where it has one, else by reading the file through.

use std::{ops::Range, path::Path, sync::Arc};

use super::{FastaError, Record, index::Indexed, read};
use crate::{
    input::label,
    span::{Region, RegionError},
};

/// A region with the bases around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The bases of the region and of the halo on either side, cut at the ends of the contig; its `start` says where they begin.
    pub record: Record,
    /// Number of bases of the whole contig.
    pub contig_len: u64,
    /// The region without the halo, as 0-based positions of the contig.
    pub region: Range<u64>,
}

/// Reads a region, written as samtools does: `chr1:1,000-2,000`, 1-based and inclusive.
///
/// Returns its bases and the region as resolved, with its end. Plain and bgzipped FASTA are read through their `.fai` and
/// `.gzi` index; a missing one is made and, if the folder allows it, left beside the file. Everything else is read through.
///
/// # Errors
/// If the file cannot be read, the contig is unknown, the region starts beyond its end, or an index does not fit the file.
pub fn fetch(path: &Path, region: &str) -> Result<(Record, Region), FastaError> {
    let Fetched { record, region, .. } = fetch_padded(path, region, 0)?;
    let region = Region { contig: record.name.clone(), start: region.start, end: Some(region.end) };
    Ok((record, region))
}

/// As [`fetch`], with `halo` more bases on either side as far as the contig goes.
///
/// # Errors
/// As [`fetch`].
pub fn fetch_padded(path: &Path, region: &str, halo: u64) -> Result<Fetched, FastaError> {
    match Indexed::open(path)? {
        Some(mut indexed) => fetch_indexed(&mut indexed, label(path), region, halo),
        None => fetch_streamed(path, region, halo),
    }
}

fn fetch_indexed(indexed: &mut Indexed, file: Arc<str>, region: &str, halo: u64) -> Result<Fetched, FastaError> {
    let in_file = in_file(&file, indexed.found());
    let asked = Region::parse(region, indexed.names()).map_err(&in_file)?;
    let contig_len = indexed.bases(&asked.contig).unwrap_or(0);
    let region = asked.on_contig(contig_len).map_err(&in_file)?;
    let padded = pad(&region, halo, contig_len);
    let bases = indexed.read(&asked.contig, padded.clone())?;
    let record = Record { name: asked.contig, bases, start: padded.start, file };
    Ok(Fetched { record, contig_len, region })
}

fn fetch_streamed(path: &Path, region: &str, halo: u64) -> Result<Fetched, FastaError> {
    // Which record is meant is known only when all names are; until then those that may be meant are kept, a few at most.
    let meant: Vec<&str> = Region::names(region).collect();
    let mut names = Vec::new();
    let mut kept = Vec::new();
    for record in read(path)? {
        let record = record?;
        names.push(record.name.clone());
        if meant.contains(&record.name.as_str()) {
            kept.push(record);
        }
    }
    let file = label(path);
    let in_file = in_file(&file, None);
    let region = Region::parse(region, names.iter().map(String::as_str)).map_err(&in_file)?;
    let unknown = || RegionError::UnknownContig { name: region.contig.clone(), suggestion: None };
    let mut record =
        kept.into_iter().find(|record| record.name == region.contig).ok_or_else(unknown).map_err(&in_file)?;
    let contig_len = record.bases.len() as u64;
    let region = region.on_contig(contig_len).map_err(&in_file)?;
    let padded = pad(&region, halo, contig_len);
    record.bases =
        (0..).zip(&record.bases).filter(|(position, _)| padded.contains(position)).map(|(_, &base)| base).collect();
    record.start = padded.start;
    Ok(Fetched { record, contig_len, region })
}

fn in_file(file: &Arc<str>, index: Option<Arc<str>>) -> impl Fn(RegionError) -> FastaError + use<> {
    let file = file.clone();
    move |fault| {
        // An index has no say in how a region is written.
        let is_of_index = matches!(
            fault,
            RegionError::UnknownContig { .. } | RegionError::BeyondEnd { .. } | RegionError::EndsBeyond { .. }
        );
        FastaError::Region { file: file.clone(), fault, index: index.clone().filter(|_| is_of_index) }
    }
}

/// The region widened by the halo, as far as the contig goes.
fn pad(region: &Range<u64>, halo: u64, contig_len: u64) -> Range<u64> {
    region.start.saturating_sub(halo)..region.end.saturating_add(halo).min(contig_len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write, path::PathBuf};

    const TEXT: &[u8] = b">chr1 first\nACGTA\nCGTac\ngt\n>none\n>HLA:1\nTTTTT\nGG\n";

    /// The same text in each form of file.
    fn files(folder: &Path) -> [PathBuf; 3] {
        let paths = ["plain.fa", "blocks.fa.gz", "stream.fa.gz"].map(|name| folder.join(name));
        fs::write(&paths[0], TEXT).unwrap();
        let mut bgzip = noodles_bgzf::io::Writer::new(fs::File::create(&paths[1]).unwrap());
        for block in TEXT.chunks(7) {
            bgzip.write_all(block).unwrap();
            bgzip.flush().unwrap();
        }
        bgzip.finish().unwrap();
        let mut gzip = flate2::write::GzEncoder::new(fs::File::create(&paths[2]).unwrap(), flate2::Compression::fast());
        gzip.write_all(TEXT).unwrap();
        gzip.finish().unwrap();
        paths
    }

    #[test]
    fn every_form_of_file_gives_the_same_bases() {
        let folder = tempfile::tempdir().unwrap();
        for path in files(folder.path()) {
            // Twice: the second time with the index that the first left.
            for _ in 0..2 {
                for (region, start, bases) in [
                    ("chr1", 0, &b"ACGTACGTacgt"[..]),
                    ("chr1:4-7", 3, b"TACG"),
                    ("chr1:5-6", 4, b"AC"),
                    ("chr1:10-99", 9, b"cgt"),
                    ("chr1:12", 11, b"t"),
                    ("none", 0, b""),
                    ("HLA:1", 0, b"TTTTTGG"),
                    ("HLA:1:5-6", 4, b"TG"),
                ] {
                    let (record, resolved) = fetch(&path, region).unwrap();
                    assert_eq!((record.start, &record.bases[..]), (start, bases), "{region} of {path:?}");
                    assert_eq!((resolved.start, resolved.end), (start, Some(start + bases.len() as u64)));
                }
            }
        }
        let exists = |name| folder.path().join(name).exists();
        assert!(exists("plain.fa.fai") && exists("blocks.fa.gz.fai") && exists("blocks.fa.gz.gzi"));
        assert!(!exists("stream.fa.gz.fai"));
    }

    #[test]
    fn a_halo_ends_with_the_contig() {
        let folder = tempfile::tempdir().unwrap();
        for path in files(folder.path()) {
            let fetched = fetch_padded(&path, "chr1:3-9", 4).unwrap();
            assert_eq!((fetched.record.start, &fetched.record.bases[..]), (0, &b"ACGTACGTacgt"[..]));
            assert_eq!((fetched.contig_len, fetched.region), (12, 2..9));
            assert_eq!(fetch_padded(&path, "chr1:6-6", 2).unwrap().record.bases, b"TACGT"[..].to_vec());
        }
    }

    #[test]
    fn errors_name_the_file_and_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        for path in files(folder.path()) {
            let message = |region| fetch(&path, region).unwrap_err().to_string();
            assert!(message("1:2-3").contains(": no contig `1`; did you mean `chr1`?"));
            assert!(message("chr1:13").contains("starts after the end of its contig, which has 12 bases"));
            assert!(message("chr1:a-b").contains("`a-b` is not a range"));
            assert!(message("chr2").contains(path.file_name().unwrap().to_str().unwrap()));
        }
    }

    #[test]
    fn an_index_that_does_not_fit_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("genome.fa");
        let index = folder.path().join("genome.fa.fai");
        fs::write(&path, TEXT).unwrap();
        let good = "chr1\t12\t12\t5\t6\nnone\t0\t33\t0\t0\nHLA:1\t7\t40\t5\t6\n";
        for (bad, region) in [
            ("chr1\t12\t12\t5", "chr1"),
            ("chr2\t12\t12\t5\t6\n", "chr2"),
            ("chr1\t11\t12\t5\t6\n", "chr1:1-2"),
            ("chr1\t12\t13\t5\t6\n", "chr1:1-2"),
            ("chr1\t12\t12\t4\t5\n", "chr1:1-2"),
            ("chr1\t12\t12000\t5\t6\n", "chr1"),
            ("chr1\t18446744073709551615\t12\t1\t18446744073709551615\n", "chr1"),
            ("chr1\t18446744073709551615\t12\t60\t61\n", "chr1"),
        ] {
            fs::write(&index, bad).unwrap();
            let message = fetch(&path, region).unwrap_err().to_string();
            assert!(message.contains("genome.fa.fai") && message.contains("delete it"), "{bad}: {message}");
        }
        fs::write(&index, good).unwrap();
        assert_eq!(fetch(&path, "HLA:1").unwrap().0.bases, b"TTTTTGG");
    }

    /// Writes a FASTA and an index beside it, which is an hour older or newer, and fetches.
    fn fetch_with(text: &[u8], fai: &[u8], is_newer: bool, region: &str) -> Result<Vec<u8>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.fa");
        fs::write(&path, text).unwrap();
        let index = folder.path().join("g.fa.fai");
        fs::write(&index, fai).unwrap();
        let hour = std::time::Duration::from_hours(1);
        let written = fs::metadata(&path).unwrap().modified().unwrap();
        let written = if is_newer { written + hour } else { written - hour };
        fs::File::options().write(true).open(&index).unwrap().set_modified(written).unwrap();
        fetch(&path, region).map(|(record, _)| record.bases).map_err(|error| error.to_string())
    }

    #[test]
    fn an_index_of_another_text_is_stale_whatever_its_date() {
        let good = b"old\t8\t5\t4\t5\nsame\t3\t21\t3\t4\n";
        let text = b">old\nACGT\nTTGG\n>same\nCCC\n";
        for is_newer in [false, true] {
            let fetched = |text: &[u8], region| fetch_with(text, good, is_newer, region);
            assert_eq!(fetched(text, "old:4-6"), Ok(b"TTT".to_vec()));
            for (what, changed) in [
                ("a record behind", &b">old\nACGT\nTTGG\n>same\nCCC\n>more\nA\n"[..]),
                ("a record before", b">new\nA\n>old\nACGT\nTTGG\n>same\nCCC\n"),
                ("a record between", b">old\nACGT\nTTGG\n>x\nA\n>same\nCCC\n"),
                ("other lines", b">old\nACG\nTTTGG\n>same\nCCC\n"),
                ("another name", b">odd\nACGT\nTTGG\n>same\nCCC\n"),
                ("fewer bases", b">old\nACGT\nTTG\n>same\nCCC\n"),
                ("a cut file", b">old\nACGT\nTTGG\n"),
                ("blanks", b">old\nACGT\nT GG\n>same\nCCC\n"),
            ] {
                let message = fetched(changed, if what == "a record between" { "same" } else { "old:4-6" });
                let message = message.expect_err(what);
                assert!(message.contains("g.fa.fai: is stale") && message.contains("delete it"), "{what}: {message}");
            }
        }
        let message = fetch_with(text, good, true, "added").unwrap_err();
        assert!(message.contains("no contig `added`") && message.contains("g.fa.fai"), "{message}");
    }

    #[test]
    fn an_older_index_is_checked_from_the_start_of_the_record() {
        // The line that is read begins and ends where it did, but stands one base further on.
        let fai = b"a\t20\t3\t4\t5\n";
        let good = b">a\nACGT\nACGT\nACGT\nACGT\nTTTT\n";
        let shifted = b">a\nACGTTACGT\nACGT\nAC\nT\nTTTT\n";
        assert_eq!(shifted.len(), good.len());
        assert_eq!(fetch_with(good, fai, false, "a:9-12"), Ok(b"ACGT".to_vec()));
        let message = fetch_with(shifted, fai, false, "a:9-12").unwrap_err();
        assert!(message.contains("g.fa.fai: is stale") && message.contains("other lengths"), "{message}");
    }

    #[test]
    fn a_name_twice_is_an_error_in_the_index_and_in_the_file() {
        let text = b">a\nAAAA\n>b\nCC\n>a\nTTTT\n";
        let fai = b"a\t4\t3\t4\t5\nb\t2\t11\t2\t3\na\t4\t17\t4\t5\n";
        let message = fetch_with(text, fai, true, "b").unwrap_err();
        assert!(message.contains("g.fa.fai: lists `a` twice, in lines 1 and 3"), "{message}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("g.fa");
        fs::write(&path, text).unwrap();
        let message = fetch(&path, "b").unwrap_err().to_string();
        assert!(message.contains("line 5: record `a` has the name of an earlier record"), "{message}");
    }

    #[test]
    fn malformed_indexes_name_the_line() {
        let text = b">a\nAAAA\n";
        for (fai, said) in [
            (&b""[..], "g.fa.fai: is empty; delete it"),
            (b"a\t4\t3\t4\n", "g.fa.fai: line 1 is not that of an index"),
            (b"a\t4\t3\t4\t5\nrest", "g.fa.fai: line 2 is not that of an index"),
            (b"a\t4\t3\t4\t5\nb\t0\t3\t0\t0\n", "g.fa.fai: is stale"),
        ] {
            let message = fetch_with(text, fai, true, "a").unwrap_err();
            assert!(message.contains(said), "{message}");
        }
    }

    #[test]
    fn headers_of_any_usual_length_are_found_again() {
        let folder = tempfile::tempdir().unwrap();
        for (bytes, end) in [(70_000, "\n"), (70_000, "\r\n"), (1 << 19, "\n"), (511, "\n"), (512, "\n")] {
            let path = folder.path().join(format!("{bytes}{}.fa", end.len()));
            let header = "x".repeat(bytes);
            fs::write(&path, format!(">a{end}AC{end}>b {header}{end}ACGT{end}AC{end}>c {header}")).unwrap();
            for _ in 0..2 {
                assert_eq!(fetch(&path, "b:3-6").unwrap().0.bases, b"GTAC");
                assert_eq!(fetch(&path, "c").unwrap().0.bases, b"");
            }
        }
    }

    #[test]
    fn a_header_without_end_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.fa");
        fs::write(&path, [b">a\nAC\n>".to_vec(), vec![b'x'; 3 << 20]].concat()).unwrap();
        let message = fetch(&path, "a").unwrap_err().to_string();
        assert!(message.contains("line 3: record has a header line of more than 1048576 bytes"), "{message}");
        assert!(message.len() < 400);
    }

    #[test]
    fn names_that_are_not_utf8_stay_apart() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["n.fa", "uneven.fa"].map(|name| folder.path().join(name)) {
            let line = if path.ends_with("n.fa") { &b""[..] } else { b"A\n" };
            fs::write(&path, [b">caf\xe9\nACGT\n", line, b">caf\xe8\nTTTTT\n"].concat()).unwrap();
            for _ in 0..2 {
                assert_eq!(fetch(&path, "caf\\xE8").unwrap().0.bases, b"TTTTT");
            }
        }
    }

    #[test]
    fn a_stale_list_of_blocks_is_named_itself() {
        let folder = tempfile::tempdir().unwrap();
        let [_, path, _] = files(folder.path());
        fetch(&path, "chr1").unwrap();
        let gzi = folder.path().join("blocks.fa.gz.gzi");
        let good = fs::read(&gzi).unwrap();
        let mut moved = good.clone();
        moved[8] ^= 1;
        let fewer = [(good[0] - 1).to_le_bytes().to_vec(), good[1..good.len() - 16].to_vec()].concat();
        let none = vec![0; 8];
        let cut = good[..good.len() - 1].to_vec();
        let huge = u64::MAX.to_le_bytes().to_vec();
        for (what, bad) in
            [("moved", moved), ("fewer", fewer), ("none", none), ("cut", cut), ("huge", huge), ("empty", vec![])]
        {
            for is_newer in [false, true] {
                fs::write(&gzi, &bad).unwrap();
                let hour = std::time::Duration::from_hours(1);
                let written = fs::metadata(&path).unwrap().modified().unwrap();
                let written = if is_newer { written + hour } else { written - hour };
                fs::File::options().write(true).open(&gzi).unwrap().set_modified(written).unwrap();
                let message = fetch(&path, "chr1").map(|_| ()).expect_err(what).to_string();
                assert!(message.contains(".gzi: is ") && message.contains("delete it"), "{what}: {message}");
            }
        }
        fs::write(&gzi, good).unwrap();
        assert_eq!(fetch(&path, "HLA:1:5-6").unwrap().0.bases, b"TG");
    }

    #[test]
    fn bgzip_joined_with_gzip_is_read_through() {
        let folder = tempfile::tempdir().unwrap();
        let [_, blocks, stream] = files(folder.path());
        let path = folder.path().join("joined.fa.gz");
        let more = ">more\nACG\n";
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(more.as_bytes()).unwrap();
        let gzip = gzip.finish().unwrap();
        for first in [blocks, stream] {
            fs::write(&path, [fs::read(first).unwrap(), gzip.clone()].concat()).unwrap();
            assert_eq!(fetch(&path, "more:2-3").unwrap().0.bases, b"CG");
            assert_eq!(fetch(&path, "HLA:1:5-6").unwrap().0.bases, b"TG");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_failing_disk_is_not_blamed_on_the_index() {
        // A process's own memory is a regular file whose start cannot be read.
        let message = fetch(Path::new("/proc/self/mem"), "a").unwrap_err().to_string();
        assert!(message.contains("/proc/self/mem: cannot be read"), "{message}");
    }

    #[test]
    fn texts_that_no_index_describes_are_read_through() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("uneven.fa");
        fs::write(&path, ">a\nAC\nGTACG\nT\n").unwrap();
        assert_eq!(fetch(&path, "a:2-6").unwrap().0.bases, b"CGTAC");
        fs::write(&path, "@read\nACGT\n+\nIIII\n").unwrap();
        assert_eq!(fetch(&path, "read:2-3").unwrap().0.bases, b"CG");
    }
}
