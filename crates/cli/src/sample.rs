//! How many bases files hold, from a look at their beginnings.

use std::io::Read;
use std::path::{Path, PathBuf};
use vqdna_data::input;

/// Bytes of text that are looked at.
const LOOK: usize = 1 << 23;

/// About how many bases FASTA and FASTQ files hold together, for a bar: exact for small ones. None if one is a stream, something else, or
/// cannot be read, which is found out where it is read in earnest.
pub fn bases(inputs: &[PathBuf]) -> Option<u64> {
    inputs.iter().map(|path| of_file(path)).sum()
}

fn of_file(path: &Path) -> Option<u64> {
    let bytes = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.len();
    let (text, watch) = input::open(path).ok()?;
    let mut look = Vec::new();
    text.take(LOOK as u64).read_to_end(&mut look).ok()?;
    let found = count(&look)?;
    if look.len() < LOOK {
        return Some(found);
    }
    Some((found as f64 * bytes as f64 / watch.bytes().max(1) as f64) as u64)
}

/// Letters of sequences in a text.
fn count(text: &[u8]) -> Option<u64> {
    let lines = || text.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    let bases = match text.first()? {
        b'>' => lines().filter(|line| line.first() != Some(&b'>')).map(<[u8]>::len).sum::<usize>(),
        b'@' => lines().skip(1).step_by(4).map(<[u8]>::len).sum(),
        _ => return None,
    };
    Some(bases as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_of_sequences_are_counted() {
        assert_eq!(count(b">a b\nACGT\r\nAC\n\n>c\nTTT"), Some(9));
        assert_eq!(count(b"@a\nACGT\n+\n!!!!\n@b\nAC\n+\n!!\n"), Some(6));
        assert_eq!((count(b""), count(b"sequence,label\nACGT,1\n")), (None, None));
    }

    #[test]
    fn a_large_file_is_estimated_and_a_small_one_counted() {
        let folder = tempfile::tempdir().unwrap();
        let [large, small] = ["large.fa", "small.fa"].map(|name| folder.path().join(name));
        let record = format!(">a\n{}\n", "ACGTACGTAC\n".repeat(100_000));
        std::fs::write(&large, record.repeat(20)).unwrap();
        std::fs::write(&small, ">a\nACGTAC\n").unwrap();
        assert_eq!(bases(std::slice::from_ref(&small)), Some(6));
        let both = bases(&[small, large]).unwrap();
        assert!((19_000_000..21_000_000).contains(&both), "{both}");
        assert_eq!(bases(&[folder.path().join("none.fa")]), None);
        assert_eq!(bases(&[PathBuf::from("-")]), None);
    }
}
