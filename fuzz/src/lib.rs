//! What the fuzz targets do with an input: one function for each parser of `vqdna-data`, none of which may panic, abort, hang or take
//! memory that the input does not justify. Values and errors are both fine.
//!
//! An input of several files holds them one after the other, each but the last ended by [`END`].

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use vqdna_data::labelled::{ColumnRequest, Format, Options, Splits, unlabelled};
use vqdna_data::vocab::Bpe;
use vqdna_data::{bed, codes, fasta};

/// Ends a file within an input.
pub const END: &[u8] = b"\n=====\n";

/// A target by its name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets; their names are those of the folders in `corpus`.
pub const TARGETS: [Target; 10] = [
    ("fasta", fasta),
    ("region", region),
    ("gzi", gzi),
    ("table", table),
    ("parquet", parquet),
    ("bed", bed),
    ("codes_npy", codes_npy),
    ("codes_tsv", codes_tsv),
    ("codes_parquet", codes_parquet),
    ("tokenizer_json", tokenizer_json),
];

/// Lets the reader catch panics of the Parquet library and make them errors, where a fuzzer's hook would end the process. Panics of this
/// project's own code, and those that nobody catches, still end it.
pub fn allow_caught_panics() {
    let ends = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let ours = panic.location().is_none_or(|place| place.file().contains("crates/data"));
        if ours || !vqdna_data::panics_are_caught() {
            ends(panic);
        }
    }));
}

/// A folder of this process that is removed with it; in memory where the system offers that.
fn folder() -> PathBuf {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let base = Path::new("/dev/shm");
    let base = if base.is_dir() { base.to_owned() } else { std::env::temp_dir() };
    base.join(format!("vqdna-fuzz-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)))
}

/// Writes files, lets `work` read them in the folder, and removes them.
fn with_files(files: &[(&str, &[u8])], work: impl FnOnce(&Path)) {
    let folder = folder();
    fs::create_dir_all(&folder).expect("a folder");
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes).expect("written");
    }
    work(&folder);
    fs::remove_dir_all(&folder).expect("removed");
}

/// The first file of an input, and the rest.
fn split(data: &[u8]) -> (&[u8], &[u8]) {
    let at = data.windows(END.len()).position(|part| part == END);
    at.map_or((data, &[][..]), |at| (&data[..at], &data[at + END.len()..]))
}

/// FASTA or FASTQ, plain or compressed.
pub fn fasta(data: &[u8]) {
    with_files(&[("x", data)], |folder| {
        if let Ok(records) = fasta::read(&folder.join("x")) {
            records.take_while(Result::is_ok).for_each(drop);
        }
    });
}

/// A region string, an index, and the FASTA file that it is said to fit.
pub fn region(data: &[u8]) {
    let (region, rest) = split(data);
    let (index, genome) = split(rest);
    let region = String::from_utf8_lossy(region);
    with_files(&[("x.fa", genome), ("x.fa.fai", index)], |folder| drop(fasta::fetch(&folder.join("x.fa"), &region)));
}

/// A `.gzi`, a `.fai`, and a bgzip file.
pub fn gzi(data: &[u8]) {
    let (blocks, rest) = split(data);
    let (index, genome) = split(rest);
    with_files(&[("x.gz", genome), ("x.gz.gzi", blocks), ("x.gz.fai", index)], |folder| {
        drop(fasta::fetch(&folder.join("x.gz"), "a:2-9"));
    });
}

/// Labelled and unlabelled rows of CSV, TSV or JSON Lines; the format is detected from content.
pub fn table(data: &[u8]) {
    rows("x", data);
}

/// The same as Parquet.
pub fn parquet(data: &[u8]) {
    rows("x.parquet", data);
}

fn rows(name: &str, data: &[u8]) {
    with_files(&[(name, data)], |folder| {
        let path = folder.join(name);
        let format = Format::of(&path);
        drop(Splits::read(&path, &Options::default()));
        if let Ok(chunks) = unlabelled(&path, format, &ColumnRequest::default(), 1000) {
            chunks.take_while(Result::is_ok).for_each(drop);
        }
    });
}

/// BED, with a genome of two contigs.
pub fn bed(data: &[u8]) {
    with_files(&[("x.bed", data), ("x.fa", b">a\nACGTACGTAC\nGT\n>chr1\nAACCGGTT\n")], |folder| {
        if let Ok(found) = bed::sequences(&folder.join("x.bed"), &folder.join("x.fa")) {
            found.take_while(Result::is_ok).for_each(drop);
        }
    });
}

/// Codes as numpy, with their table of records.
pub fn codes_npy(data: &[u8]) {
    let (records, array) = split(data);
    with_files(&[("x.npy", array), ("x.npy.records.tsv", records)], |folder| {
        read_codes(&folder.join("x.npy"));
        if let Ok(reader) = codes::RandomReader::open(&folder.join("x.npy")) {
            for (number, stretch) in reader.stretches().iter().enumerate().take(4) {
                let bases = (stretch.end - stretch.start).min(4) as usize;
                drop(reader.read(number, 0..bases));
            }
        }
    });
}

/// Codes as text.
pub fn codes_tsv(data: &[u8]) {
    with_files(&[("x.tsv", data)], |folder| read_codes(&folder.join("x.tsv")));
}

/// Codes as Parquet.
pub fn codes_parquet(data: &[u8]) {
    with_files(&[("x.parquet", data)], |folder| read_codes(&folder.join("x.parquet")));
}

/// A `tokenizer.json`; one that can be used encodes a sequence, gives its bases back, and is the same when it was written and read again.
pub fn tokenizer_json(data: &[u8]) {
    let name = Path::new("x.json");
    let Ok(bpe) = Bpe::parse(name, data) else { return };
    let bases = [0, 0, 0, 0, 3, 1, 2, 1, 2, 1, 4, 4, 0, 1, 2, 3, 0, 1, 2, 3, 3, 3, 3];
    let tokens = bpe.encode(&bases);
    assert_eq!(tokens.spans.bases(), bases.len());
    assert_eq!(bpe.decode(&tokens.levels[0]).as_deref(), Some(&bases[..]));
    let again = Bpe::parse(name, bpe.hugging_face().to_string().as_bytes()).expect("what was written is read");
    assert_eq!(again.encode(&bases), tokens);
}

fn read_codes(path: &Path) {
    if let Ok(reader) = codes::Reader::open(path) {
        reader.take_while(Result::is_ok).for_each(drop);
    }
}
