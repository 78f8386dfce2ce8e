//! What each kind of unusual or malformed text gives.

use std::{fs, path::Path};

use vqdna_data::fasta::{FastaError, read, read_all};

/// Name and bases of each record, or the message without the folder.
fn outcome(text: &[u8]) -> Result<Vec<(String, String)>, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, text).unwrap();
    let records = read(&path).and_then(Iterator::collect::<Result<Vec<_>, FastaError>>);
    let folder = format!("{}/", folder.path().display());
    records
        .map(|records| {
            records.into_iter().map(|record| (record.name, String::from_utf8(record.bases).unwrap())).collect()
        })
        .map_err(|error| error.to_string().replace(&folder, ""))
}

#[track_caller]
fn assert_records(text: &[u8], expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|&(name, bases)| (name.to_owned(), bases.to_owned())).collect();
    assert_eq!(outcome(text), Ok(expected), "{}", text.escape_ascii());
}

#[track_caller]
fn assert_error(text: &[u8], expected: &str) {
    assert_eq!(outcome(text), Err(expected.to_owned()), "{}", text.escape_ascii());
}

#[test]
fn unusual_fasta_is_read() {
    assert_records(b">a one\nAC\nGT\n>b\nTT\n", &[("a", "ACGT"), ("b", "TT")]);
    assert_records(b">a\r\nAC\r\nGT\r\n\r\n>b\r\nTT", &[("a", "ACGT"), ("b", "TT")]);
    assert_records(b">a\n>b\n\n>c", &[("a", ""), ("b", ""), ("c", "")]);
    assert_records(b">a\n", &[("a", "")]);
    assert_records(b"\n \n\n>a\nAC\n", &[("a", "AC")]);
    assert_records(b"\xef\xbb\xbf>a\nAC\n", &[("a", "AC")]);
    assert_records(b">a\tx\n acgt NNNN\t\n  10\n", &[("a", "acgtNNNN10")]);
    assert_records(b"> a x\nAC\n", &[("a", "AC")]);
    assert_records(b">a\nAC\n\n\nGT\n\n", &[("a", "ACGT")]);
}

#[test]
fn unusual_fastq_is_read() {
    assert_records(b"@r/1 x\nACGT\n+\nII@I\n@s\n\n+s\n\n", &[("r/1", "ACGT"), ("s", "")]);
    assert_records(b"@r x\r\nACGT\r\n+r x\r\nIIII\r\n", &[("r", "ACGT")]);
    assert_records(b"@r\nACGT\n+\nIIII", &[("r", "ACGT")]);
}

#[test]
fn what_is_not_a_sequence_file_says_so() {
    assert_error(b"", "x: is empty");
    assert_error(b"\n\n \n", "x: is empty");
    assert_error(b"This is text.\n", "x, line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `T`");
    assert_error(
        b"\n\n; old comment\n>a\nAC\n",
        "x, line 3: neither FASTA nor FASTQ: expected `>` or `@` but found `;`",
    );
    assert_error(b"\x7fELF\0\0", "x, line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `\\x7f`");
    assert_error(b">\0\x01\x02", "x, line 1: record has a name that is not text; is this a sequence file?");
}

#[test]
fn malformed_fasta_says_where() {
    assert_error(b">", "x, line 1: record has no name");
    assert_error(b">a\nAC\n> \nGT\n", "x, line 3: record has no name");
    assert_error(
        b">a\rACGT\r>b\rTT\r",
        "x, line 1: record has a carriage return within its header; convert the line ends of this file to Unix",
    );
    assert_error(b"\n>a\nAC\n>b\n>a\n", "x, line 5: record `a` has the name of an earlier record (x, line 2)");
}

#[test]
fn malformed_fastq_says_where() {
    assert_error(b"@r\nACGT\n+\nIII\n", "x, line 1: record `r` has 4 bases but 3 qualities");
    assert_error(b"@q\nA\n+\nI\n@r\nACGT\n", "x, line 7: record `r` is cut off: the file ends within it");
    assert_error(b"@q\nA\n+\nI\n@r", "x, line 5: record is cut off: the file ends within it");
    assert_error(b"@r\nACGT\n+\nI\x7fII\n", "x, line 1: record `r` has `\\x7f` among its qualities");
    assert_error(b"@r\nACGT\n+s\nIIII\n", "x, line 1: record `r` has another name after its `+`");
    assert_error(
        b"@r\nACGT\nACGT\n+\nIIII\nIIII\n",
        "x, line 3: record `r` should have `+` on its third line but has `A` (a FASTQ record has exactly four lines)",
    );
    assert_error(b"\n@q\nA\n+\nI\nr\nA\n+\nI\n", "x, line 6: record should start with `@` but starts with `r`");
}

#[test]
fn inputs_that_cannot_be_opened_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let message = |path: &Path| read(path).err().unwrap().to_string();
    let missing = folder.path().join("missing.fa");
    assert_eq!(message(&missing), format!("{}: no such file", missing.display()));
    assert_eq!(message(folder.path()), format!("{}: is a folder, not a file", folder.path().display()));
}

#[test]
fn a_missing_later_input_is_told_before_the_first_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let present = folder.path().join("present.fa");
    fs::write(&present, ">a\nA\n").unwrap();
    assert!(read_all(&[present, folder.path().join("missing.fa")]).is_err());
}

#[test]
fn nothing_follows_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, ">a\nA\n>a\nA\n>b\nA\n").unwrap();
    let ends: Vec<_> = read(&path).unwrap().map(|record| record.is_ok()).collect();
    assert_eq!(ends, [true, false]);
}

/// Records longer than the parser's buffer, with the ends of records and lines at every place around its end.
#[test]
fn long_records_are_read_across_buffers() {
    for first in (65_536 - 12)..(65_536 + 4) {
        let text = format!(">a\n{}\n>b\nAC\n>c\n", "A".repeat(first));
        let bases: Vec<_> = outcome(text.as_bytes()).unwrap().into_iter().map(|(_, bases)| bases.len()).collect();
        assert_eq!(bases, [first, 2, 0]);

        let text = format!("@a\n{}\n+\n{}\n@b\nA\n+\nI\n", "A".repeat(first / 2), "I".repeat(first / 2));
        let bases: Vec<_> = outcome(text.as_bytes()).unwrap().into_iter().map(|(_, bases)| bases.len()).collect();
        assert_eq!(bases, [first / 2, 1]);
    }
}
