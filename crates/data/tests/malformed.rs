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
fn utf16_is_called_so() {
    const SAID: &str = "x: is UTF-16 text; save it as UTF-8 or plain text (or run `iconv -f UTF-16 -t UTF-8` on it)";
    let text: Vec<u16> = ">a\nACGT\n".encode_utf16().collect();
    let little: Vec<u8> = text.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let big: Vec<u8> = text.iter().flat_map(|unit| unit.to_be_bytes()).collect();
    for (mark, text) in [(&b"\xff\xfe"[..], &little), (b"\xfe\xff", &big), (b"", &little), (b"", &big)] {
        assert_error(&[mark, text].concat(), SAID);
    }
}

#[test]
fn names_that_are_not_utf8_stay_apart() {
    assert_records(b">caf\xe9 x\nAC\n>caf\xe8\nGT\n", &[("caf\\xE9", "AC"), ("caf\\xE8", "GT")]);
    assert_records("@g\u{e9}ne\nA\n+g\u{e9}ne\nI\n".as_bytes(), &[("g\u{e9}ne", "A")]);
    let same = b">caf\xe9\nAC\n>caf\xe9\nGT\n";
    assert_error(same, "x, line 3: record `caf\\xE9` has the name of an earlier record (x, line 1)");
    assert_error(
        ">a\u{9b}2J\nA\n".as_bytes(),
        "x, line 1: record has a name that is not text; is this a sequence file?",
    );
}

#[test]
fn long_names_are_read_and_endless_ones_are_not() {
    let name = "n".repeat(100_000);
    let text = format!(">{name} x\nACGT\n>b\n");
    assert_records(text.as_bytes(), &[(&name, "ACGT"), ("b", "")]);
    let message = outcome(format!("{text}>{name}\n").as_bytes()).unwrap_err();
    assert!(message.contains("has the name of an earlier record") && message.len() < 300, "{message}");
    let endless = "n".repeat(2 << 20);
    for (before, line) in [(">a\nAC\n>", 3), ("\n@a\nAC\n+\nII\n@", 6), ("@a\nAC\n+", 3)] {
        let said =
            format!("x, line {line}: record has a header line of more than 1048576 bytes; is this a sequence file?");
        assert_error(format!("{before}{endless}\n").as_bytes(), &said);
    }
}

/// Pairs of reads, in two files or in one.
#[test]
fn names_may_repeat_where_that_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let paths = ["r1.fq", "r2.fq"].map(|name| folder.path().join(name));
    for path in &paths {
        fs::write(path, "@r\nAC\n+\nII\n@r\nG\n+\nI\n").unwrap();
    }
    let records = read_all(&paths).unwrap().with_repeated_names();
    let names: Vec<_> = records.map(|record| record.unwrap().name).collect();
    assert_eq!(names, ["r"; 4]);
    assert!(read_all(&paths).unwrap().any(|record| record.is_err()));
}

/// What people who are new to the program give it.
#[test]
fn small_odd_files_give_their_records_or_one_clear_error() {
    assert_records(b">zero\n>two\nACGT\n>three\n\n", &[("zero", ""), ("two", "ACGT"), ("three", "")]);
    assert_records(b">x\nT\n", &[("x", "T")]);
    assert_records(b">\"a,b\"\nGT\n", &[("\"a,b\"", "GT")]);
    assert_records(b">../../etc/x:1-5\nGC\n", &[("../../etc/x:1-5", "GC")]);
    assert_records(b">a\tb\nCC\n", &[("a", "CC")]);
    assert_records(b">m\nACGT ACGT\n  ACGT\n", &[("m", "ACGTACGTACGT")]);
    assert_error(b">a x\nAC\n>a y\nCC\n", "x, line 3: record `a` has the name of an earlier record (x, line 1)");
    assert_error(b">\nCAAA\n", "x, line 1: record has no name");
    assert_error(b"ACGTACGT\n", "x, line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `A`");
    assert_error(b";comment\n>m\nAC\n", "x, line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `;`");
    assert_error(b"LOCUS  X 10 bp DNA\n", "x, line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `L`");
    assert_error(b"@r1\nACGT\n+\nIIII\n@r2\nACGTA\n", "x, line 7: record `r2` is cut off: the file ends within it");
    assert_error(b"@r1\nACGT\n+\nIIII\n@r2\nACGTA\n+\nII\n", "x, line 5: record `r2` has 5 bases but 2 qualities");
    let random: Vec<u8> = (0..4096_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8 | 0x80).collect();
    let message = outcome(&random).unwrap_err();
    assert!(message.is_ascii() && message.len() < 200, "{message}");
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
