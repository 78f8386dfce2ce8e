//! What tables as people have them give: the right set, or one message that says where and why.

use std::{fmt::Write, fs, path::Path, sync::Arc};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use vqdna_data::{
    labelled::{
        ColumnRequest, LabelledError, Labelling, Missing, Options, Splits, TakenColumns, Targets, Task, read,
        unlabelled,
    },
    split::Shares,
};

/// A column of a Parquet file; the values of rows without one are left out.
enum Values<'a> {
    Text(&'a [Option<&'a str>]),
    Whole(&'a [Option<i64>]),
    Real(&'a [Option<f64>]),
    Truth(&'a [Option<bool>]),
}

fn write_parquet(path: &Path, columns: &[(&str, Values)]) {
    let kind = |values: &Values| match values {
        Values::Text(_) => ("binary", "(UTF8)"),
        Values::Whole(_) => ("int64", ""),
        Values::Real(_) => ("double", ""),
        Values::Truth(_) => ("boolean", ""),
    };
    let mut schema = "message schema {".to_owned();
    for (name, values) in columns {
        let (kind, note) = kind(values);
        write!(schema, "optional {kind} {name} {note};").unwrap();
    }
    let schema = Arc::new(parse_message_type(&(schema + "}")).unwrap());
    let codec = Compression::ZSTD(ZstdLevel::default());
    let properties = WriterProperties::builder().set_compression(codec).build();
    let mut file = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Arc::new(properties)).unwrap();
    let mut group = file.next_row_group().unwrap();
    fn split<T: Copy>(values: &[Option<T>]) -> (Vec<T>, Vec<i16>) {
        (values.iter().flatten().copied().collect(), values.iter().map(|value| i16::from(value.is_some())).collect())
    }
    for (_, values) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        match values {
            Values::Text(values) => {
                let (texts, levels) = split(values);
                let mut last = ("", ByteArray::from(""));
                let texts: Vec<ByteArray> = texts
                    .into_iter()
                    .map(|text| {
                        if text != last.0 {
                            last = (text, ByteArray::from(text));
                        }
                        last.1.clone()
                    })
                    .collect();
                column.typed::<ByteArrayType>().write_batch(&texts, Some(&levels), None).unwrap();
            }
            Values::Whole(values) => {
                let (values, levels) = split(values);
                column.typed::<Int64Type>().write_batch(&values, Some(&levels), None).unwrap();
            }
            Values::Real(values) => {
                let (values, levels) = split(values);
                column.typed::<DoubleType>().write_batch(&values, Some(&levels), None).unwrap();
            }
            Values::Truth(values) => {
                let (values, levels) = split(values);
                column.typed::<BoolType>().write_batch(&values, Some(&levels), None).unwrap();
            }
        }
        column.close().unwrap();
    }
    group.close().unwrap();
    file.close().unwrap();
}

/// All rows train.
fn whole() -> Options {
    Options { held_out: Shares { valid: 0.0, test: 0.0 }, ..Options::default() }
}

fn short(error: &LabelledError, path: &Path) -> String {
    error.to_string().replace(&*path.to_string_lossy(), "x")
}

/// A file learned from.
fn learn(name: &str, text: impl AsRef<[u8]>, options: &Options) -> Result<Splits, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    Splits::read(&path, options).map_err(|error| short(&error, &path))
}

/// The classes of a file and those of its rows.
fn classes(name: &str, text: impl AsRef<[u8]>, options: &Options) -> Result<(Vec<String>, Vec<u32>), String> {
    let splits = learn(name, text, options)?;
    match splits.train.targets {
        Targets::Classes(classes) => Ok((splits.labelling.outputs().to_vec(), classes)),
        other => panic!("{other:?}"),
    }
}

fn refusal(name: &str, text: impl AsRef<[u8]>) -> String {
    let error = learn(name, text, &whole()).map(|splits| splits.labelling);
    error.expect_err("a message")
}

#[test]
fn labels_are_no_second_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.csv");
    fs::write(&path, "Sequence,Label\nACGTACGTAC,Y\nACGTACGTAC,N\n").unwrap();
    let mut chunks = unlabelled(&path, None, &ColumnRequest::default(), 1000).unwrap();
    assert_eq!(chunks.columns().to_string(), "sequence column `Sequence`");
    let rows = chunks.next().unwrap().unwrap();
    assert!(!rows.are_pairs() && rows.len() == 2);

    // A model for pairs refuses the file, and one for single sequences refuses pairs.
    let pairs = TakenColumns { sequence: vec!["a".into(), "b".into()], ..TakenColumns::default() };
    let error = unlabelled(&path, None, &ColumnRequest::of_model(&[], Some(pairs)), 1000).err().unwrap();
    assert!(
        short(&error, &path)
            .starts_with("x: has single sequences (column `Sequence`), but the model learns from pairs")
    );
    fs::write(&path, "sequence_1,sequence_2\nAC,GT\n").unwrap();
    let single = TakenColumns { sequence: vec!["sequence".into()], ..TakenColumns::default() };
    let error = unlabelled(&path, None, &ColumnRequest::of_model(&[], Some(single)), 1000).err().unwrap();
    assert!(short(&error, &path).starts_with("x: has pairs of sequences (columns `sequence_1` and `sequence_2`), but"));
}

#[test]
fn columns_are_found_again_and_reported() {
    let splits = learn("x.csv", "ID, SEQUENCE ,Label\na,AC,0\nb,GG,1\n", &whole()).unwrap();
    let columns = splits.train.rows.columns.clone();
    assert_eq!(columns.to_string(), "sequence column `SEQUENCE`, label column `Label`, names of rows from column `ID`");
    assert_eq!(splits.train.rows.get(1).id, "b");
    // What a model remembers of a training set finds the columns of another file.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.tsv");
    fs::write(&path, "label\tsequence\n1\tTT\n").unwrap();
    let request = ColumnRequest::of_model(&[], Some((*columns).clone()));
    let (set, _) = read(&path, None, &request, &splits.labelling).unwrap();
    assert_eq!(set.targets, Targets::Classes(vec![1]));
    assert_eq!(set.rows.columns.to_string(), "sequence column `sequence`, label column `label`");
}

#[test]
fn names_and_labels_that_tables_cannot_hold_are_refused_in_every_format() {
    let end = "holds a tab, a line end or another control character, which tables cannot hold";
    for (name, text, place) in [
        ("x.csv", "id,sequence,label\n\"sample\t7\",AC,0\n", "line 2, column `id`: `sample\\t7`"),
        ("x.csv", "id,sequence,label\n1,AC,0\n\"two\nlines\",AC,0\n", "line 3, column `id`: `two\\nlines`"),
        ("x.tsv", "id\tsequence\tlabel\n\"a\tb\"\tAC\t0\n", "line 2, column `id`: `a\\tb`"),
        (
            "x.jsonl",
            "{\"name\":\"a\\u001b[31m\",\"sequence\":\"AC\",\"label\":0}\n",
            "line 1, column `name`: `a\\u{1b}[31m`",
        ),
        ("x.csv", "sequence,label\nAC,\"a\rb\"\n", "line 2, column `label`: `a\\rb`"),
        ("x.jsonl", "{\"sequence\":\"AC\",\"label\":\"a\\tb\"}\n", "line 1, column `label`: `a\\tb`"),
    ] {
        assert_eq!(refusal(name, text), format!("x, {place} {end}"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let columns =
        [("id", Values::Text(&[Some("a"), Some("b\nc")])), ("sequence", Values::Text(&[Some("AC"), Some("GG")]))];
    write_parquet(&path, &columns);
    let chunk = unlabelled(&path, None, &ColumnRequest::default(), 1000).unwrap().next().unwrap();
    assert_eq!(short(&chunk.unwrap_err(), &path), format!("x, row 2, column `id`: `b\\nc` {end}"));
}

#[test]
fn labels_that_statistics_cannot_take_are_refused_in_every_format() {
    for (name, text, message) in [
        ("x.csv", "sequence,label\nAC,1e308\nGG,-1e308\n", "x, line 2, column `label`: `1e308` is too large"),
        ("x.tsv", "sequence\tlabel\nAC\t0.5\nGG\t-1e300\n", "x, line 3, column `label`: `-1e300` is too large"),
        ("x.csv", "sequence,label\nAC,0\nGG,inf\n", "x, line 3, column `label`: `inf` is not a finite number"),
        ("x.csv", "sequence,label\nAC,0\nGG,1e999\n", "x, line 3, column `label`: `1e999` is not a finite number"),
        ("x.jsonl", "{\"sequence\":\"AC\",\"label\":1e300}\n", "x, line 1, column `label`: `1e300` is too large"),
        (
            "x.jsonl",
            "{\"sequence\":\"AC\",\"label\":\"-inf\"}\n",
            "x, line 1, column `label`: `-inf` is not a finite number",
        ),
        ("x.jsonl", "{\"sequence\":\"AC\",\"label\":Infinity}\n", "x, line 1: is no JSON object"),
    ] {
        let found = refusal(name, text);
        assert!(found.starts_with(message), "{found}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    for (value, message) in [(f64::INFINITY, "`inf` is not a finite number"), (1e300, "`1e300` is too large")] {
        let labels = [Some(0.5), Some(value)];
        write_parquet(
            &path,
            &[("sequence", Values::Text(&[Some("AC"), Some("GG")])), ("label", Values::Real(&labels))],
        );
        let found = short(&Splits::read(&path, &whole()).unwrap_err(), &path);
        assert!(found.starts_with(&format!("x, row 2, column `label`: {message}")), "{found}");
    }
    // As large as a single-precision number can be is not too large.
    let splits = learn("x.csv", "sequence,label\nAC,3e38\nGG,-3e38\nTT,0\n", &whole()).unwrap();
    let Labelling::Values { standardization, .. } = &splits.labelling else { panic!("{:?}", splits.labelling) };
    assert!(standardization[0].sd.is_finite() && (standardization[0].apply(3e38) - 1.5f64.sqrt()).abs() < 1e-9);
}

#[test]
fn missing_labels_are_an_error_or_left_out_or_kept() {
    let drop = Options { missing_labels: Missing::Drop, ..whole() };
    let keep = Options { missing_labels: Missing::Keep, ..whole() };
    for missing in ["NA", "N/A", "None", "null", "nan", "NaN", "", "."] {
        let csv = format!("sequence,label\nAC,0\nGG,{missing}\nTT,1\n");
        let message = refusal("x.csv", &csv);
        assert!(message.starts_with("x, line 3, column `label`: "), "{message}");
        assert!(
            message.ends_with("correct it, remove the row, or say --missing-labels drop to leave such rows out"),
            "{message}"
        );
        let splits = learn("x.csv", &csv, &drop).unwrap();
        assert_eq!((splits.train.len(), splits.left_out.to_string().as_str()), (2, "1 row without a label"));
        assert_eq!(splits.labelling.task(), Task::Binary);
        let kept = classes("x.csv", &csv, &keep);
        assert_eq!(kept.is_ok(), !missing.is_empty(), "{missing}: {kept:?}");
    }
    assert_eq!(classes("x.csv", "sequence,label\nAC,HA\nGG,NA\n", &keep).unwrap().0, ["HA", "NA"]);
    // The word is a class.
    assert_eq!(classes("x.csv", "sequence,label\nAC,none\nGG,promoter\n", &whole()).unwrap().0, ["none", "promoter"]);

    for object in
        ["{\"sequence\":\"GG\",\"label\":null}", "{\"sequence\":\"GG\"}", "{\"sequence\":\"GG\",\"label\":\"NA\"}"]
    {
        let jsonl = format!("{{\"sequence\":\"AC\",\"label\":0}}\n{object}\n{{\"sequence\":\"TT\",\"label\":1}}\n");
        assert!(refusal("x.jsonl", &jsonl).starts_with("x, line 2, column `label`: "));
        assert_eq!(classes("x.jsonl", &jsonl, &drop).unwrap().1, [0, 1]);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let sequences = || ("sequence", Values::Text(&[Some("AC"), Some("GG"), Some("TT")]));
    for labels in [
        Values::Real(&[Some(0.0), None, Some(1.0)]),
        Values::Real(&[Some(0.0), Some(f64::NAN), Some(1.0)]),
        Values::Truth(&[Some(false), None, Some(true)]),
        Values::Text(&[Some("a"), Some("NA"), Some("b")]),
    ] {
        write_parquet(&path, &[sequences(), ("label", labels)]);
        assert!(short(&Splits::read(&path, &whole()).unwrap_err(), &path).starts_with("x, row 2, column `label`: "));
        let splits = Splits::read(&path, &drop).unwrap();
        assert_eq!((splits.train.targets, splits.left_out.without_label), (Targets::Classes(vec![0, 1]), 1));
    }
    // Of a row with several labels all must be there.
    let text = "sequence,a,b\nAC,0.5,1\nGG,NA,2\nTT,1,3\n";
    let columns = vqdna_data::labelled::ColumnNames { label: vec!["a".into(), "b".into()], ..Default::default() };
    let splits = learn("x.csv", text, &Options { columns, ..drop.clone() }).unwrap();
    assert_eq!((splits.train.len(), splits.left_out.without_label), (2, 1));
    let message = learn("x.csv", "sequence,label\nAC,NA\nGG,NA\n", &drop).map(|_| ()).unwrap_err();
    assert_eq!(message, "x: has nothing but 2 rows without a label");
}

#[test]
fn a_label_means_the_same_in_every_format() {
    let numbers = (vec!["0".to_owned(), "1".to_owned()], vec![1, 1, 0, 0]);
    let truths = (vec!["false".to_owned(), "true".to_owned()], vec![1, 1, 0, 0]);
    let rows = |labels: [&str; 4]| -> [String; 3] {
        let csv = labels.iter().fold("sequence,label\n".to_owned(), |text, label| text + "AC," + label + "\n");
        let json = labels.map(|label| format!("{{\"sequence\":\"AC\",\"label\":{label}}}\n")).concat();
        [csv.replace(',', "\t"), json, csv]
    };
    let [tsv, jsonl, csv] = rows(["1", "1.0", "0", "0.0"]);
    for (name, text) in [("x.tsv", tsv), ("x.jsonl", jsonl), ("x.csv", csv)] {
        assert_eq!(classes(name, text, &whole()).unwrap(), numbers, "{name}");
    }
    assert_eq!(
        classes("x.jsonl", rows(["true", "\"True\"", "\"FALSE\"", "false"])[1].as_str(), &whole()).unwrap(),
        truths
    );
    assert_eq!(classes("x.csv", rows(["True", "true", "False", "FALSE"])[2].as_str(), &whole()).unwrap(), truths);
    assert_eq!(classes("x.csv", rows(["+1", "1", "0", "-0"])[2].as_str(), &whole()).unwrap(), numbers);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    for (labels, expected) in [
        (Values::Whole(&[Some(1), Some(1), Some(0), Some(0)]), &numbers),
        (Values::Real(&[Some(1.0), Some(1.0), Some(0.0), Some(-0.0)]), &numbers),
        (Values::Text(&[Some("1"), Some("1.0"), Some("0"), Some("00")]), &numbers),
        (Values::Truth(&[Some(true), Some(true), Some(false), Some(false)]), &truths),
        (Values::Text(&[Some("True"), Some("TRUE"), Some("false"), Some("False")]), &truths),
    ] {
        write_parquet(&path, &[("sequence", Values::Text(&[Some("AC"); 4])), ("label", labels)]);
        let splits = Splits::read(&path, &whole()).unwrap();
        assert_eq!(splits.labelling.outputs(), expected.0);
        assert_eq!(splits.train.targets, Targets::Classes(expected.1.clone()));
        // Other labels of one sequence in conflict are counted by value, too.
        assert_eq!(splits.overlap.train.conflicting, 2);
    }
}

#[test]
fn rows_without_a_sequence_are_left_out_and_counted() {
    let splits =
        learn("x.csv", "sequence,label\nAC,0\n,1\nGG,1\n,\n\n", &Options { missing_labels: Missing::Drop, ..whole() });
    let splits = splits.unwrap();
    assert_eq!((splits.train.len(), splits.left_out.to_string().as_str()), (2, "2 rows without a sequence"));
    let text = "sequence_1,sequence_2,label\nAC,GT,0\nAC,,1\nGG,A,1\n";
    assert_eq!(learn("x.csv", text, &whole()).unwrap().left_out.without_sequence, 1);
}

#[test]
fn whole_numbers_are_classes_or_values_and_that_is_said() {
    let rows = |labels: &[u32]| {
        labels.iter().fold("sequence,label\n".to_owned(), |text, label| text + "ACGT," + &label.to_string() + "\n")
    };
    let counts: Vec<u32> = (0..79).map(|number| number * number * 5000 / 6084).collect();
    let splits = learn("x.csv", rows(&counts), &whole()).unwrap();
    assert_eq!(splits.labelling.task(), Task::Regression);
    assert!(splits.inferred.unwrap().to_string().ends_with("for classes say --task multi-class"));
    let splits = learn("x.csv", rows(&(0..40).collect::<Vec<_>>()), &whole()).unwrap();
    assert_eq!(splits.labelling.outputs().len(), 40);
    assert_eq!(
        splits.inferred.unwrap().to_string(),
        "40 different whole numbers are taken for 40 classes; for a regression say --task regression"
    );
    assert_eq!(
        learn("x.csv", rows(&(0..150).collect::<Vec<_>>()), &whole()).unwrap().labelling.task(),
        Task::Regression
    );
}

#[test]
fn tables_as_people_write_them_are_read() {
    let sequence = "CAGATTTTCATATTATGCAGAAAATCTACTTCGCC";
    for (text, expected) in [
        (format!("\u{feff}sequence,label\n{sequence},0\nAC,1\n"), ["0", "1"]),
        (format!("Sequence, Label\n{sequence},0\nAC,1\n"), ["0", "1"]),
        (format!("\"sequence\",\"label\"\n\"{sequence}\",\"0\"\n\"AC\",\"1\"\n"), ["0", "1"]),
        (format!("sequence,label\r\n{sequence},0\r\nAC,1\r\n\r\n"), ["0", "1"]),
        ("sequence,label\nRYSWKMBDHVN,none\nacguACGU,promoter\n".to_owned(), ["none", "promoter"]),
        (format!("sequence,label\n{sequence},-1\nAC,+1\n"), ["-1", "1"]),
        (format!("sequence,label\n{sequence},Gène\nAC,rien\n"), ["Gène", "rien"]),
        ("sequence,label\nA,0\nC,1\n".to_owned(), ["0", "1"]),
        ("# made by hand\nsequence,label\nA,0\nC,1\n".to_owned(), ["0", "1"]),
    ] {
        assert_eq!(classes("x.csv", &text, &whole()).unwrap().0, expected, "{text}");
    }
    let floats = learn("x.csv", "sequence,label\nAC,2.0\nGG,0.0\nTT,1.0\n", &whole()).unwrap();
    assert_eq!(floats.labelling.outputs(), ["0", "1", "2"]);
    let constant =
        learn("x.csv", "sequence,label\nAC,0.5\nGG,0.5\n", &Options { task: Some(Task::Regression), ..whole() });
    assert_eq!(constant.unwrap().train.targets, Targets::Values { targets: 1, values: vec![0.5, 0.5] });
}

#[test]
fn tables_that_cannot_be_right_say_where_and_why() {
    let sequence = "CAGATTTTCATATTATGCAGAAAATCTACTTCGCC";
    for (name, text, message) in [
        ("x.csv", String::new(), "x: has no rows".to_owned()),
        ("x.csv", "sequence,label\n".to_owned(), "x: has no rows".to_owned()),
        (
            "x.csv",
            "sequence;label\nAC;0\n".to_owned(),
            "x: no column `label`; the only column is `sequence;label`; separate cells by commas or tabs instead of semicolons".to_owned(),
        ),
        (
            "x.csv",
            format!("{sequence},0\n{sequence},1\n"),
            format!("x: no column `label`; the columns are {sequence}, 0; the file seems to lack a line of column names"),
        ),
        ("x.csv", "sequence\nAC\n".to_owned(), "x: no column `label`; the only column is `sequence`".to_owned()),
        (
            "x.csv",
            "seq,label\nAC,0\n".to_owned(),
            "x: no column `sequence`, nor `sequence_1` and `sequence_2`; the columns are seq, label; name the column of sequences with \
             --sequence, twice for pairs"
                .to_owned(),
        ),
        (
            "x.csv",
            "sequence,label\nAC,0\nGG,1,x\n".to_owned(),
            "x, line 3: has 3 columns, but the header has 2".to_owned(),
        ),
        ("x.csv", "sequence,label\nAC,0\n\nGG\n".to_owned(), "x, line 4: has 1 columns, but the header has 2".to_owned()),
        (
            "x.csv",
            "sequence,label\nAC,0\nMKV*,1\n".to_owned(),
            "x, line 3, column `sequence`: letter 4: `*` is a stop codon; is this a protein?".to_owned(),
        ),
        (
            "x.csv",
            "sequence,label\nAC,1\nGG,1\n".to_owned(),
            "x: all rows have the label `1`, so there is nothing to learn".to_owned(),
        ),
        ("x.csv", "sequence,label\nAC,1\nGG,\"1\nTT,0\n".to_owned(), "x, line 3: a quote opens here and never closes".to_owned()),
        ("x.json", "[{\"sequence\":\"AC\"}]".to_owned(), "x: is a JSON array; write one object a line instead (JSON Lines)".to_owned()),
    ] {
        let found = refusal(name, &text);
        // What a wrong letter is called is the business of another room.
        let is_letter = message.contains("letter 4");
        assert!(if is_letter { found.starts_with("x, line 3, column `sequence`: letter ") } else { found == message }, "{found}");
    }
    let latin1 = refusal("x.csv", b"sequence,label\nAC,rien\nGG,G\xe8ne\n");
    assert_eq!(
        latin1,
        "x, line 3, column `label`: is not UTF-8 text: byte 2 is 0xE8; if it is Latin-1, `iconv -f LATIN1 -t UTF-8` converts the file"
    );
}

#[test]
fn bytes_that_are_no_text_are_not_shown() {
    let noise: Vec<u8> = (0_u32..2000).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for name in ["x.csv", "x.tsv", "x.jsonl", "x"] {
        let message = refusal(name, &noise);
        assert!(message.len() < 300 && !message.contains(char::is_control), "{message}");
    }
    let message = refusal("x", b"\0\x01\x02,\x03\n");
    assert_eq!(message, "x: is neither text nor Parquet: it holds control characters in its first line");
    // A header that is not text stays short in a message, and every byte can be identified.
    let message = refusal("x.csv", [&b"s\xff\xfe"[..], &[0xfd; 500], b",b\n"].concat());
    assert!(message.len() < 300 && message.contains("s\\\\xFF\\\\xFE"), "{message}");
}

#[test]
fn files_made_to_fill_memory_are_refused() {
    let Some(folder) = crate::shared("data/field_cases/18_parquet_bombs") else { return };
    for name in ["dict.parquet", "one.parquet"] {
        let path = folder.join(name);
        let labelled = short(&Splits::read(&path, &whole()).unwrap_err(), &path);
        let chunks = unlabelled(&path, None, &ColumnRequest::default(), 1 << 20);
        let unlabelled =
            short(&chunks.and_then(|mut chunks| chunks.try_for_each(|rows| rows.map(drop))).unwrap_err(), &path);
        for message in [labelled, unlabelled] {
            assert!(message.contains("damaged"), "{message}");
        }
    }
}

#[test]
fn what_would_fill_memory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    let message = |path: &Path| {
        let labelled = short(&Splits::read(path, &whole()).unwrap_err(), path);
        let chunks = unlabelled(path, None, &ColumnRequest::default(), 1 << 20);
        let unlabelled = chunks.and_then(|mut chunks| chunks.try_for_each(|rows| rows.map(drop)));
        (labelled, short(&unlabelled.unwrap_err(), path))
    };
    // One cell of 34 MB.
    let long = "A".repeat(34_000_000);
    write_parquet(&path, &[("sequence", Values::Text(&[Some(&long)])), ("label", Values::Whole(&[Some(1)]))]);
    let expected =
        "x, row 1, column `sequence`: has 34000000 bytes, more than the 33554432 that a cell of its kind may have";
    assert_eq!(message(&path), (expected.to_owned(), expected.to_owned()));
    drop(long);
    // A dictionary of one text of 500 kB, 1000 times.
    let text = "ACGTA".repeat(100_000);
    write_parquet(
        &path,
        &[("sequence", Values::Text(&[Some(&text[..]); 1000])), ("label", Values::Whole(&[Some(1); 1000]))],
    );
    let (labelled, unlabelled) = message(&path);
    for message in [labelled, unlabelled] {
        assert!(
            message.starts_with("x, row 5") && message.contains(" times the bytes of the file; is it damaged"),
            "{message}"
        );
    }
    // The same as text in a compressed shell.
    let path = folder.path().join("x.csv.zst");
    let csv = format!("sequence,label\n{}", format!("{text},1\n").repeat(600));
    fs::write(&path, zstd::encode_all(csv.as_bytes(), 1).unwrap()).unwrap();
    drop(csv);
    assert!(message(&path).0.contains(" times the bytes of the file; is it damaged"));

    let name = "a".repeat(5000);
    assert_eq!(
        refusal("x.csv", format!("id,sequence,label\n{name},AC,1\n")),
        "x, line 2, column `id`: has 5000 bytes, more than the 4096 that a cell of its kind may have"
    );
    let header = (0..70_000).fold("sequence,label".to_owned(), |header, number| header + "," + &number.to_string());
    assert_eq!(refusal("x.csv", header + "\n"), "x: has 70002 columns, more than the 65536 that are read");
}
