//! What a fine-tuned model remembers, and how its predictions and measures are written.

use std::fmt::Write as _;
use std::io::Read as _;

use crate::finetune::{BRIEFLY, folder, number};
use crate::program::{Folder, Outcome, bases, record};

/// A folder with a probe, and settings that make it a matter of a second.
fn probe() -> Folder {
    let folder = folder();
    folder.ok(&format!("finetune model data -o probe --mode probe --epochs 2 {BRIEFLY}"));
    folder
}

#[track_caller]
fn refused(folder: &Folder, line: &str, parts: &[&str]) -> Outcome {
    let before = folder.names();
    let outcome = folder.run(line);
    assert_eq!(outcome.code, Some(2), "{line}: {}", outcome.stderr);
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{line}: {}", outcome.stderr);
    assert!(parts.iter().all(|part| errors[0].contains(part)), "{line}: {}", errors[0]);
    assert!(outcome.stdout.is_empty(), "{line} prints {}", outcome.text());
    assert_eq!(folder.names(), before, "{line} leaves a file");
    outcome
}

/// The cells of a table: notes, a bare line of column names, rows of as many cells.
#[track_caller]
fn table(text: &str) -> Vec<Vec<&str>> {
    let lines: Vec<&str> = text.lines().skip_while(|line| line.starts_with("# ")).collect();
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    assert!(!rows.is_empty() && !lines[0].starts_with('#'), "{text}");
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    rows
}

/// Rows of sequences and a label for each, under a header.
fn rows(header: &str, count: u64, label: impl Fn(u64) -> String) -> String {
    let row = |n| format!("{},{}\n", bases(n + 1, 30), label(n));
    format!("{header}\n{}", (0..count).map(row).collect::<String>())
}

#[test]
fn a_model_finds_the_columns_of_its_training_and_takes_no_others_for_them() {
    let folder = Folder::with_vocabulary();
    let label = |n: u64| if n.is_multiple_of(2) { "Y" } else { "N" }.to_owned();
    folder.write("guides.csv", rows("guide,active", 60, label));
    let trained = folder.ok(&format!(
        "finetune model guides.csv -o probe --mode probe --epochs 2 --sequence guide --label active {BRIEFLY}"
    ));
    assert!(trained.stderr.contains("inferred from the labels; --task says otherwise"), "{}", trained.stderr);
    assert!(trained.stderr.contains("sequence column `guide`, label column `active`"), "{}", trained.stderr);

    let predicted = folder.ok("predict probe guides.csv");
    assert!(predicted.stderr.contains("sequence column `guide`"), "{}", predicted.stderr);
    let evaluated = folder.ok("evaluate probe guides.csv");
    assert!(evaluated.stderr.contains("sequence column `guide`, label column `active`"), "{}", evaluated.stderr);
    // Letters of labels are letters of nucleotides, too: `Y` and `N`.
    folder.write("other.csv", rows("Sequence,Label", 60, label));
    let other = folder.ok("predict probe other.csv");
    assert_eq!(other.stdout, predicted.stdout);
    assert!(other.stderr.contains("sequence column `Sequence`"), "{}", other.stderr);

    folder.write("pairs.csv", rows("sequence_1,sequence_2,active", 60, |n| format!("{},{}", bases(n, 20), label(n))));
    for line in ["predict probe pairs.csv", "evaluate probe pairs.csv", "predict probe pairs.csv -o x.csv"] {
        refused(&folder, line, &["pairs.csv", "pairs of sequences", "single sequences", "`guide`"]);
    }
    folder.ok(&format!("finetune model pairs.csv -o pair --mode probe --epochs 2 --label active {BRIEFLY}"));
    assert_eq!(folder.ok("predict pair pairs.csv").text().lines().count(), 61);
    refused(&folder, "predict pair guides.csv", &["guides.csv", "sequence_1"]);
    refused(&folder, "evaluate pair guides.csv --sequence guide", &["guides.csv", "single sequences", "pairs"]);
    folder.write("x.fa", record("a", &bases(1, 60)));
    refused(&folder, "predict pair x.fa", &["x.fa", "pairs of sequences", "`a`", "single"]);

    // A folder of an older program remembers nothing.
    let config: serde_json::Value = serde_json::from_str(&folder.text("probe/config.json")).expect("JSON");
    let mut old = config;
    assert!(old["task"].as_object_mut().expect("a section").remove("columns").is_some());
    folder.write("probe/config.json", old.to_string());
    let old = folder.ok("predict probe guides.csv --sequence guide");
    assert_eq!(old.stdout, predicted.stdout);
}

#[test]
fn names_in_a_folder_that_would_break_a_table_are_refused() {
    let folder = probe();
    let text = folder.text("probe/config.json");
    for (from, to, part) in [
        (r#""1""#, r#""1\u001b[31m""#, "control character"),
        (r#""1""#, r#""1\tx""#, "control character"),
        (r#""1""#, r#""0""#, "two outputs have the name `0`"),
        ("\"sequence\"\n", "\"se\\nquence\"\n", "control character"),
    ] {
        assert!(text.contains(from), "{text}");
        folder.write("probe/config.json", text.replace(from, to));
        let outcome = refused(&folder, "predict probe data/test.csv", &["config.json", part]);
        assert!(!outcome.stderr.contains('\u{1b}') && !outcome.stderr.contains('\t'), "{}", outcome.stderr);
    }
}

#[test]
fn numbers_are_as_exact_as_they_are() {
    for scale in [1e-8, 1e38] {
        let folder = Folder::with_vocabulary();
        folder.write("values.csv", rows("sequence,y", 60, |n| format!("{:e}", scale * (1.0 + n as f64 / 60.0))));
        folder.ok(&format!(
            "finetune model values.csv -o probe --mode probe --label y --task regression --epochs 2 {BRIEFLY}"
        ));
        let tsv = folder.ok("predict probe values.csv");
        let values: Vec<&str> = table(tsv.text()).iter().skip(1).map(|row| row[4]).collect();
        assert_eq!(values.len(), 60);
        assert!(values.iter().all(|value| value.len() < 26), "{values:?}");
        assert!(values.iter().all(|value| (0.1 * scale..10.0 * scale).contains(&number(value))), "{values:?}");
        let json = folder.ok("predict probe values.csv --json");
        for (line, value) in json.text().lines().zip(values) {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(row["y"].as_f64().expect("a number").to_bits(), number(value).to_bits());
        }
        let evaluated = folder.ok("evaluate probe values.csv --resamples 20");
        assert!(evaluated.stderr.contains("sequence column `sequence`, label column `y`"), "{}", evaluated.stderr);
        let mse = evaluated.value("mse").split('\t').next().expect("a value");
        assert!(number(mse) > 0.0 && mse.contains('e'), "{mse}");
    }
}

#[test]
fn an_output_is_what_its_name_says_or_refused() {
    let folder = probe();
    let plain = folder.ok("predict probe data/test.csv").stdout;
    let text = String::from_utf8(plain.clone()).expect("text");
    let cells = table(&text);
    assert_eq!(cells[0], ["id", "start", "end", "windows", "class", "p_0", "p_1"]);
    for name in ["x.tsv", "x.txt", "x"] {
        folder.ok(&format!("predict probe data/test.csv -o {name}"));
        assert!(folder.read(name) == plain, "{name}");
    }
    folder.ok("predict probe data/test.csv -o x.tsv.gz");
    let mut unpacked = Vec::new();
    let bytes = folder.read("x.tsv.gz");
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).expect("gzip");
    assert!(unpacked == plain);
    folder.ok("predict probe data/test.csv -o x.csv");
    assert_eq!(folder.text("x.csv"), text.replace('\t', ","));
    folder.ok("predict probe data/test.csv -o x.jsonl");
    folder.ok("predict probe data/test.csv -o x.json.zst");
    let lines = folder.text("x.jsonl");
    assert_eq!(folder.ok("predict probe data/test.csv --json").text(), lines);
    assert_eq!(folder.ok("predict probe data/test.csv --format jsonl").text(), lines);
    for (line, row) in lines.lines().zip(&cells[1..]) {
        let found: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(found["id"], row[0]);
        assert_eq!(found["end"].as_u64().expect("a number").to_string(), row[2]);
        assert_eq!(found["p_1"].as_f64().expect("a number"), number(row[6]));
    }
    assert_eq!(lines.lines().count(), 40);
    folder.ok("predict probe data/test.csv -o x.parquet");
    assert!(folder.read("x.parquet").starts_with(b"PAR1"));

    for (line, parts) in [
        ("predict probe data/test.csv -o y.xlsx", &["y.xlsx", ".tsv, .csv, .jsonl, .parquet", ".bed"][..]),
        ("predict probe data/test.csv -o y.tsv.xz", &["y.tsv.xz", ".gz"]),
        ("predict probe data/test.csv -o y.parquet.gz", &["y.parquet.gz", ".parquet"]),
        ("predict probe data/test.csv -o y.csv --json", &["y.csv", "another format"]),
        ("predict probe data/test.csv --format parquet", &["-o"]),
        ("predict probe data/test.csv --class 1", &["--class"]),
        ("evaluate probe data -o y.bed", &["y.bed", ".parquet"]),
        ("evaluate probe data -o y.tsv --json", &["y.tsv", ".json"]),
        ("decode model y.tsv -o y.fa.xz", &["y.fa.xz", ".fasta"]),
        ("decode model y.tsv -o y.parquet", &["y.parquet", ".fasta"]),
        ("embed probe data/test.csv -o y.csv", &["y.csv", ".tsv"]),
    ] {
        refused(&folder, line, parts);
    }
}

#[test]
fn what_is_decoded_is_compressed_as_its_name_says() {
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", record("chr1", &bases(1, 3000)));
    folder.ok("tokenize model genome.fa -o codes.tsv");
    folder.ok("decode model codes.tsv -o plain.fa");
    folder.ok("decode model codes.tsv -o packed.fa.gz");
    let mut unpacked = Vec::new();
    let bytes = folder.read("packed.fa.gz");
    assert_eq!(bytes[12..14], *b"BC", "the mark of bgzip");
    flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut unpacked).expect("gzip");
    assert!(unpacked == folder.read("plain.fa"));
    folder.ok("decode model codes.tsv -o packed.fasta.zst");
    // What was written is read again, by its content.
    for name in ["packed.fa.gz", "packed.fasta.zst"] {
        folder.ok(&format!("tokenize model {name} -o again.npy"));
    }
    // A file of an older program, with `#` before its column names, is decoded to the same.
    let codes = folder.text("codes.tsv");
    assert!(
        codes.starts_with("# vqdna codes v1 ") && codes.contains("\nrecord\tstart\tend\tstrand\tcode_1"),
        "{}",
        &codes[..200]
    );
    assert_eq!(table(&codes).len(), 3001);
    folder.write("old.tsv", codes.replacen("# vqdna", "#vqdna", 1).replacen("\nrecord\t", "\n#record\t", 1));
    folder.ok("decode model old.tsv -o old.fa");
    assert!(folder.read("old.fa") == folder.read("plain.fa"));
}

#[test]
fn columns_of_a_table_are_kept_with_predictions() {
    let folder = probe();
    let sequences = [bases(1, 30), bases(2, 30)];
    let csv = format!("gene,sequence,windows\nlacZ,{},7\n,{},8\n", sequences[0], sequences[1]);
    folder.write("x.csv", csv);
    let plain = folder.ok("predict probe x.csv");
    let kept = folder.ok("predict probe x.csv --keep-columns");
    for (plain, (kept, cells)) in table(plain.text()).iter().zip(table(kept.text()).iter().zip([
        ["gene", "input_windows"],
        ["lacZ", "7"],
        ["", "8"],
    ])) {
        assert_eq!(kept[..], [&plain[..], &cells].concat());
    }
    let one = folder.ok("predict probe x.csv --keep-columns gene -o -");
    assert!(table(one.text())[0].ends_with(&["gene"]), "{}", one.text());
    let json = folder.ok("predict probe x.csv --json --keep-columns gene,windows");
    let lines: Vec<serde_json::Value> =
        json.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines[0]["gene"] == "lacZ" && lines[0]["input_windows"] == "7" && lines[1]["gene"].is_null());
    folder.ok("predict probe x.csv --keep-columns=gene -o x.parquet");

    folder.write("x.fa", record("a", &sequences[0]));
    refused(&folder, "predict probe x.fa --keep-columns", &["--keep-columns", "x.fa", "no table"]);
    refused(&folder, "predict probe x.csv --keep-columns -o y.bed", &["x.csv", "has no places"]);
    refused(&folder, "predict probe x.csv --keep-columns=genes -o y.tsv", &["no column `genes`", "`gene`"]);
}

#[test]
fn places_of_a_genome_stay_places() {
    let folder = probe();
    folder.write("genome.fa", record("chr1", &bases(9, 400)) + &record("chr2", &bases(8, 90)));
    folder.write("places.bed", "chr1\t10\t50\tpeak 1\t7.5\t-\nchr2\t0\t40\nchr1\t100\t250\tlong\t.\t-\n");
    let predict = "predict probe places.bed --fasta genome.fa --window 60 --stride 60";
    let outcome = folder.ok(predict);
    let rows = table(outcome.text());
    assert_eq!(rows[0], ["contig", "start", "end", "name", "score", "strand", "windows", "class", "p_0", "p_1"]);
    assert_eq!(rows[1][..7], ["chr1", "10", "50", "peak 1", "7.5", "-", "1"]);
    assert_eq!(rows[2][..7], ["chr2", "0", "40", "", "", ".", "1"]);
    assert_eq!(rows[3][..7], ["chr1", "100", "250", "long", "", "-", "3"]);

    // Windows on the reverse strand are read from its end.
    let each = folder.ok(&format!("{predict} --merge none"));
    let each = table(each.text());
    let places: Vec<&[&str]> = each[3..].iter().map(|row| &row[1..3]).collect();
    assert_eq!(places, [["190", "250"], ["130", "190"], ["100", "160"]]);
    let letters = "ACGT".chars().zip("TGCA".chars()).collect::<Vec<_>>();
    let complement = |base: char| letters.iter().find(|(from, _)| *from == base).expect("a base").1;
    let window: String = bases(9, 400)[190..250].chars().rev().map(complement).collect();
    let alone = folder.run_on("predict probe -", format!("sequence\n{window}\n").as_bytes());
    assert!((number(table(alone.text())[1][6]) - number(each[3][9])).abs() < 1e-6);

    folder.ok(&format!("{predict} -o x.bed"));
    let bed = folder.text("x.bed");
    let bed: Vec<Vec<&str>> =
        bed.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect()).collect();
    let score = |probability: &str| (1000.0 * number(probability)).round().to_string();
    for (bed, row) in bed.iter().zip(&rows[1..]) {
        assert_eq!(bed[..3], row[..3]);
        let name = if row[3].is_empty() { "." } else { row[3] };
        assert_eq!(bed[3..], [name, &score(row[9]), row[5], row[7], row[8], row[9]]);
    }
    assert_eq!(bed.len(), 3);
    let other = folder.ok(&format!("{predict} --format bed --class 0"));
    let other = other.text().lines().nth(1).expect("a row").split('\t').nth(4).expect("a score").to_owned();
    assert_eq!(other, score(rows[1][8]));

    folder.ok(&format!("{predict} -o x.bedgraph.gz --class 0"));
    let mut graph = String::new();
    flate2::read::MultiGzDecoder::new(&folder.read("x.bedgraph.gz")[..]).read_to_string(&mut graph).expect("gzip");
    let expected = rows[1..].iter().fold("# contig\tstart\tend\tp_0\n".to_owned(), |mut text, row| {
        let _ = writeln!(text, "{}\t{}\t{}\t{}", row[0], row[1], row[2], row[8]);
        text
    });
    assert_eq!(graph, expected);
    refused(&folder, &format!("{predict} -o y.bed --class 2"), &["--class 2", "0, 1"]);

    // Records of FASTA are contigs; overlapping windows are no bedGraph.
    let contigs = folder.ok("predict probe genome.fa --window 60 --stride 30 --merge none --format bedgraph");
    assert!(contigs.text().contains("\nchr2\t30\t90\t"), "{}", contigs.text());
    assert!(contigs.stderr.contains("--stride"), "{}", contigs.stderr);
    // The last window of a contig ends with it; the values of bases are those of the window before.
    let apart = folder.ok("predict probe genome.fa --window 60 --stride 60 --merge none --format bedgraph");
    assert!(apart.text().contains("\t300\t360\t") && apart.text().contains("\nchr1\t360\t400\t"), "{}", apart.text());
    assert!(!apart.stderr.contains("--stride"), "{}", apart.stderr);
    folder.write("empty.fa", ">a\n>b\nACGTACGTAC\n");
    let left_out = folder.ok("predict probe empty.fa --format bed");
    assert!(left_out.stderr.contains("1 sequence has no base and is not in the output"), "{}", left_out.stderr);
    refused(&folder, "predict probe data/test.csv -o y.bed", &["data/test.csv", "has no places", "--fasta"]);
    refused(&folder, "predict probe places.bed -o y.tsv", &["places.bed", "a BED file needs its genome, with --fasta"]);
}

#[test]
fn measures_are_a_table_or_an_object() {
    let folder = probe();
    let outcome = folder.ok("evaluate probe data --resamples 50");
    folder.write("alone/test.csv", folder.read("data/test.csv"));
    assert_eq!(folder.ok("evaluate probe alone --resamples 50").text(), outcome.text());
    let rows = table(outcome.text());
    assert_eq!(rows[0], ["measure", "value", "low", "high", "class", "predicted"]);
    assert_eq!(rows[1], ["rows", "40", "", "", "", ""]);
    let confusion: f64 = rows.iter().filter(|row| row[0] == "confusion").map(|row| number(row[1])).sum();
    assert_eq!(confusion, 40.0);

    let json = folder.ok("evaluate probe data --resamples 50 --json");
    let found: serde_json::Value = serde_json::from_str(json.text()).expect("one object");
    assert_eq!((&found["task"], &found["rows"]), (&"binary".into(), &40.into()));
    let mcc = rows.iter().find(|row| row[0] == "mcc").expect("an MCC");
    assert_eq!(found["measures"]["mcc"]["value"].as_f64(), Some(number(mcc[1])));
    assert_eq!(found["measures"]["mcc"]["interval"][1].as_f64(), Some(number(mcc[3])));
    let counts = found["confusion"]["counts"].as_array().expect("rows").iter();
    let counts: u64 =
        counts.flat_map(|row| row.as_array().expect("a row")).map(|count| count.as_u64().expect("a count")).sum();
    assert_eq!(counts, 40);
    assert_eq!(found["data"]["blake3"].as_str().expect("a digest").len(), 64);
    assert_eq!(found["model"]["digest"], folder.ok("inspect probe").value("model"));
    folder.ok("evaluate probe data --resamples 50 --json -o scores.json");
    assert_eq!(folder.text("scores.json"), json.text());
    folder.ok("evaluate probe data --resamples 50 -o scores.csv");
    assert!(folder.text("scores.csv").starts_with("measure,value,low,high,class,predicted\nrows,40,,,,\n"));

    // What is not defined is NaN.
    folder.write("one.csv", rows_of_one_class());
    let one = folder.ok("evaluate probe one.csv --resamples 10");
    let auroc = table(one.text()).into_iter().find(|row| row[0] == "auroc").expect("its row");
    assert_eq!(auroc[1], "", "{}", one.text());
    assert!(one.stderr.contains("not defined for these rows") && one.stderr.contains("auroc"), "{}", one.stderr);
    let one = folder.ok("evaluate probe one.csv --resamples 10 --json");
    let one: serde_json::Value = serde_json::from_str(one.text()).expect("one object");
    assert!(one["measures"]["auroc"]["value"].is_null());
}

fn rows_of_one_class() -> String {
    rows("sequence,label", 5, |_| "1".to_owned())
}

#[test]
fn nothing_is_printed_before_there_is_something_to_print() {
    let folder = probe();
    folder.write("bad.csv", "sequence,label\nMKLV,1\n");
    folder.write("bad.fa", ">a\nMKLV\n");
    for line in [
        "predict probe missing.csv",
        "predict probe bad.csv",
        "predict probe bad.fa --format bed",
        "predict probe missing.bed --fasta missing.fa",
        "evaluate probe missing.csv",
        "embed probe missing.csv -o -",
        "embed probe bad.csv -o -",
        "tokenize model missing.fa -o -",
        "tokenize model bad.fa -o -",
        "decode model missing.tsv -o -",
    ] {
        refused(&folder, line, &[]);
    }
}

#[test]
fn a_fine_tuned_model_is_fine_tuned_again() {
    let folder = folder();
    folder.ok(&format!("finetune model data -o tuned --mode full --from-scratch --steps 4 {BRIEFLY}"));
    folder.write("values.csv", rows("sequence,y", 40, |n| format!("{n}.5")));
    for mode in ["lora", "full", "probe"] {
        let output = format!("again-{mode}");
        let outcome =
            folder.ok(&format!("finetune tuned values.csv -o {output} --mode {mode} --label y --epochs 1 {BRIEFLY}"));
        assert!(outcome.stderr.contains("regression task: values of y"), "{}", outcome.stderr);
        assert_eq!(folder.ok(&format!("predict {output} values.csv")).text().lines().count(), 41);
    }
    // A probe has an encoder only if what it was made of has.
    folder.ok(&format!("finetune model data -o probe --mode probe --epochs 1 {BRIEFLY}"));
    refused(&folder, &format!("finetune probe data -o out {BRIEFLY}"), &["no encoder", "--from-scratch"]);
}

#[test]
fn without_held_out_rows_nothing_is_best() {
    let folder = Folder::with_vocabulary();
    folder.write("rows.csv", rows("sequence,label", 24, |n| (n % 2).to_string()));
    let nothing = "--set data.held_out.valid=0 --set data.held_out.test=0";
    let line =
        format!("finetune model rows.csv -o runs --mode probe --epochs 1 --seeds 2 --seed 5 {nothing} {BRIEFLY}");
    let outcome = folder.ok(&line);
    assert!(!outcome.text().contains("best on dev"), "{}", outcome.text());
    assert!(outcome.stderr.contains("the folder holds the model of seed 5"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("`data.held_out`") && !outcome.stderr.contains("data.split"), "{}", outcome.stderr);
    let seeds: serde_json::Value = serde_json::from_str(&folder.text("runs/seeds.json")).expect("JSON");
    assert!(seeds["best_on_dev"].is_null(), "{seeds}");
    assert_eq!(folder.read("runs/model.safetensors"), folder.read("runs/seed-5/model.safetensors"));
}
