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
    let in_file = in_file(&file);
    let asked = Region::parse(region, indexed.names()).map_err(&in_file)?;
    let contig_len = indexed.bases(&asked.contig).unwrap_or(0);
    let region = asked.on_contig(contig_len).map_err(&in_file)?;
    let padded = pad(&region, halo, contig_len);
    let bases = indexed.read(&asked.contig, padded.clone())?;
    let record = Record { name: asked.contig, bases, start: padded.start, file };
    Ok(Fetched { record, contig_len, region })
}

fn fetch_streamed(path: &Path, region: &str, halo: u64) -> Result<Fetched, FastaError> {
    // Which record is meant is known only when all names are; until then those that may be meant are kept, at most two.
    let before_range = region.rsplit_once(':').map(|(name, _)| name);
    let mut names = Vec::new();
    let mut kept = Vec::new();
    for record in read(path)? {
        let record = record?;
        names.push(record.name.clone());
        if record.name == region || Some(record.name.as_str()) == before_range {
            kept.push(record);
        }
    }
    let file = label(path);
    let region = Region::parse(region, names.iter().map(String::as_str)).map_err(in_file(&file))?;
    let unknown = || RegionError::UnknownContig { name: region.contig.clone(), suggestion: None };
    let mut record =
        kept.into_iter().find(|record| record.name == region.contig).ok_or_else(unknown).map_err(in_file(&file))?;
    let contig_len = record.bases.len() as u64;
    let region = region.on_contig(contig_len).map_err(in_file(&file))?;
    let padded = pad(&region, halo, contig_len);
    record.bases =
        (0..).zip(&record.bases).filter(|(position, _)| padded.contains(position)).map(|(_, &base)| base).collect();
    record.start = padded.start;
    Ok(Fetched { record, contig_len, region })
}

fn in_file(file: &Arc<str>) -> impl Fn(RegionError) -> FastaError + use<> {
    let file = file.clone();
    move |fault| FastaError::Region { file: file.clone(), fault }
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
            assert!(message("1:2-3").ends_with(": no contig `1`; did you mean `chr1`?"));
            assert!(message("chr1:13").ends_with("starts after the end of its contig, which has 12 bases"));
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
