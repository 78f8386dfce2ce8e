//! Labelled sequences in every format and compression, and the quirks of files as they are distributed.

use std::{fs, io::Write, path::Path};

use proptest::{collection::vec, prelude::*};
use vqdna_data::labelled::{
    ColumnNames, ColumnRequest, Format, Labelling, Options, Parts, Set, Splits, Target, Targets, Task, read, unlabelled,
};

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    fs::write(folder.join(name), bytes).unwrap();
}

/// Sequences and classes of a set.
fn rows(set: &Set) -> Vec<(&str, u32)> {
    let Targets::Classes(classes) = &set.targets else { panic!("{:?}", set.targets) };
    let sequence = |row| str::from_utf8(set.rows.get(row).sequence).unwrap();
    classes.iter().enumerate().map(|(row, &class)| (sequence(row), class)).collect()
}

#[test]
fn m7_files_are_read_as_distributed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    write(folder, "train.csv", "sequence,label\r\nACGT,1\r\nGGCC,0\r\nTTTT,2\r\n\r\n");
    write(folder, "dev.csv", "\u{feff}sequence,label\nacgt,0\n\n\n");
    write(folder, "test.csv", "sequence,label\r\nNNRY,2");
    let splits = Splits::read(folder, &Options::default()).unwrap();
    assert_eq!(splits.labelling.outputs(), ["0", "1", "2"]);
    assert_eq!(rows(&splits.train), [("ACGT", 1), ("GGCC", 0), ("TTTT", 2)]);
    assert_eq!(rows(&splits.dev.unwrap()), [("acgt", 0)]);
    assert_eq!(rows(&splits.test.unwrap()), [("NNRY", 2)]);

    write(folder, "test.csv", "sequence,label\r\nNNRY,2\r\n\r\nAAAA,3\r\n");
    let message = Splits::read(folder, &Options::default()).unwrap_err().to_string();
    let expected = "test.csv, line 4, column `label`: `3` is not among the labels of the training set: 0, 1, 2";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn m7_two_columns_of_sequences_are_a_pair() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.csv");
    fs::write(&path, "sequence1,sequence2,label\r\nACGT,GG,yes\r\nTT,A,no\r\n").unwrap();
    let parts = Parts::Files { train: path, dev: None, test: None };
    let train = Splits::of(&parts, None, &Options { seed: 3, ..Options::default() }).unwrap().train;
    let pair = train.rows.get(0);
    assert_eq!((pair.sequence, pair.second, train.targets.get(0)), (&b"ACGT"[..], Some(&b"GG"[..]), Target::Class(1)));
}

#[test]
fn every_format_and_compression_gives_the_same_set() {
    const ROWS: [(&str, &str); 3] = [("ACGT", "high"), ("nnTU", "low"), ("GG", "high")];
    let lines = |separator: char| {
        let rows = ROWS.map(|(sequence, label)| format!("{label}{separator}1.5{separator}{sequence}\n"));
        format!("label{separator}gc{separator}sequence\n{}", rows.concat())
    };
    let objects =
        ROWS.map(|(sequence, label)| format!("{{\"sequence\":\"{sequence}\",\"gc\":1,\"label\":\"{label}\"}}\n"));
    let texts = [("csv", lines(',')), ("tsv", lines('\t')), ("jsonl", objects.concat())];
    let folder = tempfile::tempdir().unwrap();
    let labelling = Labelling::Classes { column: "label".into(), classes: vec!["low".into(), "high".into()] };
    for (ending, text) in texts {
        for (compression, bytes) in compressed(text.as_bytes()) {
            let path = folder.path().join(format!("x.{ending}{compression}"));
            let anonymous = folder.path().join("x");
            fs::write(&path, &bytes).unwrap();
            fs::write(&anonymous, &bytes).unwrap();
            let declared = Some(ending.parse::<Format>().unwrap());
            for (path, format) in [(&path, None), (&anonymous, None), (&anonymous, declared)] {
                let (set, digest) = read(path, format, &ColumnRequest::default(), &labelling).unwrap();
                assert_eq!(rows(&set), [("ACGT", 1), ("nnTU", 0), ("GG", 1)], "{}", path.display());
                assert_eq!((digest.records, digest.bases, digest.bytes), (3, 10, bytes.len() as u64));
            }
        }
    }
}

fn compressed(text: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(text).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(text).unwrap();
    vec![
        ("", text.to_vec()),
        (".gz", gzip.finish().unwrap()),
        (".bz2", bzip2.finish().unwrap()),
        (".xz", xz.finish().unwrap()),
        (".zst", zstd::encode_all(text, 1).unwrap()),
    ]
}

#[test]
fn a_cut_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.csv.gz");
    let rows: Vec<String> =
        (0..2000).map(|number| format!("{}ACGT,{}\n", "A".repeat(number % 50), number % 2)).collect();
    let (_, bytes) = compressed(format!("sequence,label\n{}", rows.concat()).as_bytes()).swap_remove(1);
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let message = Splits::read(&path, &Options::default()).unwrap_err().to_string();
    assert!(message.ends_with("train.csv.gz: the gzip data is cut off; was it copied or downloaded completely?"));
}

#[test]
fn several_label_columns_and_numbers_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.csv");
    let options = |label: &[&str]| Options {
        columns: ColumnNames { label: label.iter().map(ToString::to_string).collect(), ..ColumnNames::default() },
        held_out: vqdna_data::split::Shares { valid: 0.0, test: 0.0 },
        ..Options::default()
    };
    fs::write(&path, "sequence,liver,brain,activity\nAC,0,1,-0.5\nGG,1,1,1e-2\n").unwrap();
    let learn = |label: &[&str]| Splits::read(&path, &options(label)).unwrap();

    let labels = learn(&["brain", "liver"]);
    assert_eq!(
        (labels.labelling.task(), labels.labelling.outputs()),
        (Task::MultiLabel, &["brain", "liver"].map(str::to_owned)[..])
    );
    assert_eq!(labels.train.targets.get(0), Target::Labels(&[true, false]));

    let values = learn(&["activity", "liver"]);
    assert_eq!(values.labelling.task(), Task::Regression);
    assert_eq!(values.train.targets.get(1), Target::Values(&[0.01, 1.0]));

    for (text, message) in [
        (
            "sequence,label\nAC,0.5\nGG,\n",
            "train.csv, line 3, column `label`: has no label; correct it, remove the row, or say --missing-labels drop to leave such rows out",
        ),
        (
            "sequence,label\nAC,0.5\nGG,NaN\n",
            "train.csv, line 3, column `label`: `NaN` is no label; correct it, remove the row, or say --missing-labels drop to leave such \
             rows out",
        ),
        (
            "sequence,label\nAC,0.5\nGG,1.5\nTT,-inf\n",
            "train.csv, line 4, column `label`: `-inf` is not a finite number",
        ),
        (
            "sequence,label\nA-C,0.5\n",
            "train.csv, line 2, column `sequence`: letter 2: `-` is a gap; remove gaps from aligned sequences",
        ),
        ("sequence,y\nAC,0.5\n", "train.csv: no column `label`; the columns are sequence, y"),
        ("sequence,label\nAC,0,5\n", "train.csv, line 2: has 3 columns, but the header has 2"),
    ] {
        fs::write(&path, text).unwrap();
        let found = Splits::read(&path, &options(&[])).unwrap_err().to_string();
        assert!(found.ends_with(message), "{found}");
    }
}

/// Bytes that look enough like rows to get past the first checks.
fn nearly_rows() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&[u8]; 15] = [
        b"sequence",
        b"label",
        b",",
        b"\t",
        b"\n",
        b"\r\n",
        b"\r",
        b"\"",
        b"ACGT",
        b"{\"sequence\":\"",
        b"\"}",
        b"PAR1",
        b"0.5",
        b"\0",
        b"\xff",
    ];
    let piece = prop::sample::select(&PIECES[..]);
    vec(piece, 0..40).prop_map(|pieces| [b"sequence,label\n", &pieces.concat()[..]].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_written_gives_rows_or_one_clear_error(bytes in nearly_rows(), whole: bool) {
        let folder = tempfile::tempdir().unwrap();
        let bytes = if whole { &bytes[..] } else { &bytes[15..] };
        for ending in ["csv", "tsv", "jsonl", "parquet", "txt"] {
            let path = folder.path().join(format!("x.{ending}"));
            fs::write(&path, bytes).unwrap();
            let errors = [
                Splits::read(&path, &Options::default()).err(),
                unlabelled(&path, None, &ColumnRequest::default(), 1000).and_then(Iterator::collect::<Result<Vec<_>, _>>).err(),
            ];
            for error in errors.into_iter().flatten() {
                let message = error.to_string();
                prop_assert!(message.contains(path.to_str().unwrap()) && !message.contains(char::is_control), "{message}");
            }
        }
    }

    #[test]
    fn labels_are_read_as_they_were_written(
        rows in vec(("[ACGTNacgtu]{1,30}", "x[a-z\", {}é]{0,5}[!-~]", "[a-z\",\t\n ]{0,5}"), 2..20), delimiter in prop::sample::select(&b",\t"[..]),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if delimiter == b',' { "x.csv" } else { "x.tsv" });
        let mut writer = csv::WriterBuilder::new().delimiter(delimiter).from_path(&path).unwrap();
        writer.write_record(["sequence", "label", "note"]).unwrap();
        for (sequence, label, note) in &rows {
            writer.write_record([sequence, label, note]).unwrap();
        }
        writer.flush().unwrap();
        let labels: Vec<&str> = rows.iter().map(|(_, label, _)| label.trim_ascii()).collect();
        let mut classes: Vec<String> = labels.iter().map(ToString::to_string).collect();
        classes.sort_unstable();
        classes.dedup();
        let labelling = Labelling::Classes { column: "label".into(), classes: classes.clone() };
        let (set, _) = read(&path, None, &ColumnRequest::default(), &labelling).unwrap();
        let mut line = 2;
        for (number, (sequence, _, note)) in rows.iter().enumerate() {
            prop_assert_eq!(set.rows.get(number).sequence, sequence.as_bytes());
            let Target::Class(class) = set.targets.get(number) else { panic!("classes") };
            prop_assert_eq!(&classes[class as usize], labels[number]);
            prop_assert_eq!(set.rows.place(number).number, line);
            line += 1 + note.matches('\n').count() as u64;
        }
    }
}
