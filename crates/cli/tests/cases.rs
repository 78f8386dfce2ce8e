//! Small inputs that newcomers met, and inputs on which programs of this kind fell short: each is read or refused with one clear error.
//!
//! The inputs lie beside the repository (`../shared/data`); without them these tests do nothing. What is small enough stands in the tests of
//! each command, too.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::program::{Folder, bases, record};

/// The folder of that name beside the repository, if it is there.
fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    path.canonicalize().ok().filter(|path| path.is_dir())
}

/// A folder with a vocabulary `model`, a classifier `probe` of single sequences and one of `pairs`, and a genome with the contigs of the
/// inputs.
fn folder() -> &'static Folder {
    static FOLDER: OnceLock<Folder> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = Folder::with_vocabulary();
        folder.write("genome.fa", record("I", &bases(1, 230_218)) + &record("II", &bases(2, 1000)));
        let rows = |head: &str, cells: fn(u64) -> String| {
            let rows: Vec<String> = (0..60).map(|n| format!("{},{}", cells(n), n % 2)).collect();
            format!("{head},label\n{}\n", rows.join("\n"))
        };
        folder.write("single.csv", rows("sequence", |n| bases(n, 70)));
        folder.write("pairs.csv", rows("sequence1,sequence2", |n| format!("{},{}", bases(n, 70), bases(n + 90, 70))));
        for (data, out) in [("single.csv", "probe"), ("pairs.csv", "pairs")] {
            folder.ok(&format!("finetune model {data} -o {out} --mode probe --steps 2 --set train.batch=8"));
        }
        folder
    })
}

/// Refused with exit code 2 and one line of error that holds these words; there is no output.
#[track_caller]
fn assert_refused(folder: &Folder, line: &str, part: &str) {
    let outcome = folder.run(line);
    assert_eq!(outcome.code, Some(2), "{line}: {}", outcome.stderr);
    let errors: Vec<&str> = outcome.stderr.lines().filter(|text| text.starts_with("error: ")).collect();
    assert!(errors.len() == 1 && errors[0].contains(part), "{line}: {}, not {part}", outcome.stderr);
    assert!(!folder.path("out").exists() && !folder.path("out.tsv").exists(), "{line} left an output");
}

/// Runs a command, with the input in place of `{}`, on inputs that must be read and others that must be refused with these words.
fn newcomers(line: &str, read: &[&str], refused: &[(&str, &str)]) {
    let Some(inputs) = shared("newcomer_cases") else { return };
    let on = |name: &str| line.replace("{}", &inputs.join(name).display().to_string());
    // Each test has its own names of outputs, since tests share the folder.
    let out = format!("out-{:?}", std::thread::current().id()).replace(['(', ')'], "");
    for name in read {
        folder().ok(&on(name).replace("-o out", &format!("-o {out}")));
        for made in [folder().path(&out), folder().path(&format!("{out}.tsv"))] {
            if made.is_dir() {
                fs::remove_dir_all(made).expect("removed");
            } else if made.exists() {
                fs::remove_file(made).expect("removed");
            }
        }
    }
    for (name, part) in refused {
        assert_refused(folder(), &on(name), part);
    }
}

/// Records that every command reads.
const RECORDS: [&str; 21] = [
    "allN.fa",
    "allempty.fa",
    "allsoft.fa",
    "crlf.fa",
    "lead.fa",
    "len1.fa",
    "len10.fa",
    "len2.fa",
    "len3.fa",
    "len40.fa",
    "len40.fsa",
    "longname.fa",
    "mixed.fa",
    "one.fa",
    "q.fastq",
    "quotename.fa",
    "slashname.fa",
    "space.fa",
    "tabname.fa",
    "utf8name.fa",
    "zero.fa",
];

/// Records that no command reads, and why.
const NO_RECORDS: [(&str, &str); 14] = [
    ("badcrc.fa.gz", "the gzip data is damaged: corrupt gzip stream does not have a"),
    ("cr.fa", "line 1: record has a carriage return within its header; convert the"),
    ("digit.fa", "record `g`, base 1: `1` is not a nucleotide code; is this a protein?"),
    ("empty.fa", "is empty"),
    ("emptyname.fa", "line 1: record has no name"),
    ("gap.fa", "record `g`, base 5: `-` is a gap; remove gaps from aligned sequences"),
    ("junk.fa.gz", "the gzip data is damaged: invalid gzip header"),
    ("nofq.fastq", "line 7: record `r2` is cut off: the file ends within it"),
    ("noheader.fa", "line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `A`"),
    ("protein.fa", "record `p`, base 4: `L` is not a nucleotide code; is this a protein?"),
    ("semi.fa", "line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `;`"),
    ("short.fastq", "line 5: record `r2` has 5 bases but 2 qualities"),
    ("star.fa", "record `g`, base 5: `*` is a gap; remove gaps from aligned sequences"),
    ("trunc.fa.gz", "the gzip data is cut off; was it copied or downloaded completely?"),
];

#[test]
fn newcomers_records_are_read_or_refused() {
    // Predictions are rows, which may have equal names, and are made of tables, too.
    let tables = [
        ("genbank.gb", "no sequence column `sequence`, as in training; no column"),
        ("notfasta.txt", "no sequence column `sequence`, as in training; no column"),
        ("random.bin", "is neither text nor Parquet: it holds control characters in its"),
    ];
    newcomers(
        "predict probe {} -o out.tsv",
        &[RECORDS.as_slice(), &["dupnames.fa"]].concat(),
        &[NO_RECORDS.as_slice(), &tables].concat(),
    );
}

#[test]
fn newcomers_codes_are_read_or_refused() {
    let others = [
        ("dupnames.fa", "line 3: record `a` has the name of an earlier record"),
        ("genbank.gb", "line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `L`"),
        ("notfasta.txt", "line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `h`"),
        ("random.bin", "line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `j`"),
    ];
    newcomers("tokenize model {} -o out.tsv", &RECORDS, &[NO_RECORDS.as_slice(), &others].concat());
}

#[test]
fn newcomers_places_are_read_or_refused() {
    newcomers(
        "predict probe {} --fasta genome.fa -o out.tsv",
        &["bed3.bed", "crlf.bed", "dot.bed", "empty.bed", "narrow.narrowPeak", "ok.bed", "spaces.bed", "track.bed"],
        &[
            ("bed2.bed", "line 1: has 2 fields; BED has at least three: contig, start and end"),
            ("beyond.bed", "line 1: the interval is not in the genome"),
            ("float.bed", "line 1: the start `5.0` is not a whole number from 0 on"),
            ("inv.bed", "line 1: holds no base, from 400 to 100: BED counts from 0 and the"),
            ("neg.bed", "line 1: the start `-5` is not a whole number from 0 on"),
            ("nochrom.bed", "line 1: the interval is not in the genome"),
            ("zero.bed", "line 1: holds no base, from 400 to 400: BED counts from 0 and the"),
        ],
    );
}

#[test]
fn newcomers_sets_are_read_or_refused() {
    newcomers(
        "finetune model {} -o out --mode probe --steps 1 --set train.batch=8",
        &[
            "bom.csv",
            "contradict.csv",
            "count.csv",
            "dups.csv",
            "emptyseq.csv",
            "float_ints.csv",
            "hugelabel.csv",
            "idnum.csv",
            "ids.csv",
            "ints150.csv",
            "iupac.csv",
            "ok.csv",
            "oneBase.csv",
            "pairs.csv",
            "plusminus.csv",
            "quoted.csv",
            "rna.csv",
            "spacehead.csv",
            "three.csv",
            "truefalse.csv",
            "two.csv",
            "upper.csv",
            "wordlabels.csv",
        ],
        &[
            ("constlabel.csv", "all rows have the label `0.5`, so there is nothing to learn"),
            ("dupids.csv", "no column `label`; the columns are id, sequence"),
            ("empty.csv", "has no rows"),
            ("emptylabel.csv", "line 9, column `label`: has no label; correct it, remove the row"),
            ("headeronly.csv", "has no rows"),
            ("ids_tab.csv", "no column `label`; the columns are id, sequence"),
            ("inflabel.csv", "line 9, column `label`: `inf` is not a finite number"),
            ("latin1.csv", "line 3, column `label`: is not UTF-8 text: byte 2 is 0xE8; if it is"),
            ("manyclass.csv", "is not among the labels of the training set"),
            ("name_col.csv", "no column `label`; the columns are name, sequence"),
            ("nanlabel.csv", "line 9, column `label`: `NaN` is no label; correct it, remove the"),
            ("noheader.csv", "no column `label`"),
            ("nolabel.csv", "no column `label`; the only column is `sequence`"),
            ("nosequence.csv", "no column `sequence`, nor `sequence_1` and `sequence_2`; the"),
            ("oneclass.csv", "all rows have the label `1`, so there is nothing to learn"),
            ("protein.csv", "line 9, column `sequence`: letter 4: `L` is not a nucleotide code; is this"),
            ("ragged.csv", "line 9: has 3 columns, but the header has 2"),
            ("semicolon.csv", "no column `label`; the only column is `sequence;label`; separate"),
            ("single_fields_pair.csv", "no column `label`; the columns are sequence_1, sequence_2"),
            ("tworeg.csv", "no column `label`; the columns are sequence, a, b"),
        ],
    );
}

#[test]
fn newcomers_tables_are_read_or_refused() {
    newcomers(
        "predict probe {} -o out.tsv",
        &[
            "bom.csv",
            "constlabel.csv",
            "contradict.csv",
            "count.csv",
            "dupids.csv",
            "dups.csv",
            "emptylabel.csv",
            "emptyseq.csv",
            "float_ints.csv",
            "headeronly.csv",
            "hugelabel.csv",
            "idnum.csv",
            "ids.csv",
            "inflabel.csv",
            "ints150.csv",
            "iupac.csv",
            "latin1.csv",
            "manyclass.csv",
            "name_col.csv",
            "nanlabel.csv",
            "nolabel.csv",
            "ok.csv",
            "oneBase.csv",
            "oneclass.csv",
            "plusminus.csv",
            "quoted.csv",
            "rna.csv",
            "spacehead.csv",
            "three.csv",
            "truefalse.csv",
            "two.csv",
            "tworeg.csv",
            "upper.csv",
            "wordlabels.csv",
        ],
        &[
            ("empty.csv", "has no rows"),
            ("ids_tab.csv", "line 2, column `id`: `a\\tb` holds a tab, a line end or another"),
            ("noheader.csv", "no sequence column `sequence`"),
            ("nosequence.csv", "no sequence column `sequence`, as in training; no column"),
            ("pairs.csv", "has pairs of sequences (columns `sequence1` and `sequence2`), but"),
            ("protein.csv", "line 9, column `sequence`: letter 4: `L` is not a nucleotide code; is this"),
            ("ragged.csv", "line 9: has 3 columns, but the header has 2"),
            ("semicolon.csv", "no sequence column `sequence`, as in training; no column"),
            ("single_fields_pair.csv", "has pairs of sequences (columns `sequence_1` and `sequence_2`), but"),
        ],
    );
}

/// A folder of its own with copies of an input's files, the vocabulary and the classifier of single sequences.
fn field_case(name: &str) -> Option<Folder> {
    let inputs = shared(&format!("field_cases/{name}"))?;
    let own = Folder::with_vocabulary();
    for file in fs::read_dir(inputs).expect("readable") {
        let file = file.expect("an entry");
        own.write(&file.file_name().to_string_lossy(), fs::read(file.path()).expect("readable"));
    }
    for file in ["config.json", "model.safetensors", "run.json"] {
        own.write(&format!("probe/{file}"), folder().read(&format!("probe/{file}")));
    }
    Some(own)
}

#[test]
fn a_header_may_be_long() {
    let Some(folder) = field_case("01_long_header") else { return };
    for _ in 0..2 {
        folder.ok("tokenize model long_header.fa -o codes.tsv --region second:1-20");
        assert_eq!(folder.text("codes.tsv").lines().filter(|line| line.starts_with("second\t")).count(), 20);
    }
}

#[test]
fn labels_are_no_second_sequences() {
    let Some(folder) = field_case("02_label_as_sequence") else { return };
    let outcome = folder.ok("predict probe capital_header.csv");
    assert!(outcome.stderr.contains("sequence column `Sequence`"), "{}", outcome.stderr);
    let values: Vec<&str> =
        outcome.text().lines().skip(1).map(|line| line.split_once('\t').expect("fields").1).collect();
    assert!(values.len() == 2 && values[0] == values[1], "equal sequences: {}", outcome.text());
}

#[test]
fn ids_that_would_break_a_table_are_refused() {
    let Some(folder) = field_case("03_tab_in_id") else { return };
    for line in ["predict probe ids.csv -o out.tsv", "embed model ids.csv -o out.tsv"] {
        assert_refused(&folder, line, "ids.csv, line 2, column `id`: `sample\\t7` holds a tab");
    }
}

#[test]
fn labels_that_overflow_are_refused_and_missing_ones_are_said() {
    let Some(folder) = field_case("05_overflow_label") else { return };
    assert_refused(
        &folder,
        "finetune model train.csv -o out --mode probe --steps 2",
        "train.csv, line 2, column `label`: `1e308`",
    );
    let Some(folder) = field_case("06_missing_label") else { return };
    let learn = "finetune model r_na.csv -o out --mode probe --steps 2 --set train.batch=8";
    assert_refused(&folder, learn, "r_na.csv, line 4, column `label`: `NA` is no label");
    let outcome = folder.ok(&format!("{learn} --missing-labels drop"));
    assert!(outcome.stderr.contains("binary task: classes 0, 1"), "{}", outcome.stderr);
}

#[test]
fn stale_and_contradictory_indexes_are_refused() {
    let Some(folder) = field_case("09_stale_fai_new_record") else { return };
    for region in ["added:1-20", "old:1-20"] {
        assert_refused(&folder, &format!("tokenize model g.fa -o out.tsv --region {region}"), "g.fa.fai: is stale");
    }
    let Some(folder) = field_case("11_fai_name_twice") else { return };
    assert_refused(
        &folder,
        "tokenize model g.fa -o out.tsv --region a:1-2",
        "g.fa.fai: lists `a` twice, in lines 1 and 3",
    );
}

#[test]
fn contigs_may_be_called_like_remarks() {
    let Some(folder) = field_case("12_contig_called_track") else { return };
    let outcome = folder.ok("predict probe t.bed --fasta t.fa");
    let contigs: Vec<&str> = outcome.text().lines().skip(1).filter_map(|line| line.split('\t').next()).collect();
    assert_eq!(contigs, ["track", "#x"]);
}

#[test]
fn a_region_that_is_a_name_is_ambiguous() {
    let Some(folder) = field_case("13_region_or_name") else { return };
    let line = "tokenize model g.fa -o out.tsv --region";
    assert_refused(&folder, &format!("{line} part:1-100"), "`{part:1-100}` or `{part}:1-100`");
    for (region, contig, bases) in [("{part}:1-100", "part", 100), ("{part:1-100}", "part:1-100", 120)] {
        let outcome = folder.ok(&format!("tokenize model g.fa -o - --region {region}"));
        let of_contig = outcome.text().lines().filter(|line| line.starts_with(&format!("{contig}\t")));
        assert_eq!(of_contig.count(), bases, "{region}");
    }
}

#[test]
fn empty_records_have_rows_without_values() {
    let Some(folder) = field_case("14_empty_record") else { return };
    let outcome = folder.ok("predict probe e.fa");
    assert!(outcome.text().contains("\ny\t0\t0\t0\t\t\t\n"), "{}", outcome.text());
    assert!(outcome.stderr.contains("empty records: 1"), "{}", outcome.stderr);
    folder.ok("embed model e.fa -o out.npy");
}

#[test]
fn sizes_are_held_against_the_weights() {
    let Some(inputs) = shared("field_cases/16_config_larger_than_weights") else { return };
    for line in ["inspect MODEL", "tokenize MODEL genome.fa -o out.tsv"] {
        let line = line.replace("MODEL", &inputs.display().to_string());
        assert_refused(folder(), &line, "they do not belong together");
    }
}

#[test]
fn pages_that_unpack_to_gigabytes_are_refused() {
    let Some(folder) = field_case("18_parquet_bombs") else { return };
    for command in ["predict probe", "embed model"] {
        let refused = |file: &str, words| assert_refused(&folder, &format!("{command} {file} -o out.tsv"), words);
        refused("one.parquet", "one.parquet, column `sequence`: a page unpacks to");
        refused("dict.parquet", "the rows so far take");
    }
}

#[test]
fn names_that_are_not_utf8_stay_apart() {
    let Some(folder) = field_case("20_latin1_names") else { return };
    let outcome = folder.ok("tokenize model n.fa -o -");
    for name in [r"caf\xE9", r"caf\xE8"] {
        assert_eq!(outcome.text().lines().filter(|line| line.starts_with(&format!("{name}\t"))).count(), 4, "{name}");
    }
}

#[cfg(unix)]
#[test]
fn endless_files_in_a_model_folder_are_refused() {
    if shared("field_cases/24_run_json_pipe").is_none() {
        return;
    }
    for target in ["/dev/zero", "pipe"] {
        let folder = Folder::with_vocabulary();
        fs::remove_file(folder.path("model/run.json")).expect("removed");
        if target == "pipe" {
            let made = std::process::Command::new("mkfifo").arg(folder.path("model/run.json")).status();
            assert!(made.expect("mkfifo runs").success());
        } else {
            std::os::unix::fs::symlink(target, folder.path("model/run.json")).expect("linked");
        }
        assert_refused(&folder, "inspect model", "run.json");
    }
}
