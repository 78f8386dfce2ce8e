//! From labelled sequences to a model that predicts.

use std::fmt::Write as _;
use std::fs;

use crate::program::{Folder, bases};

/// Settings that make fine-tuning a matter of a second.
pub const BRIEFLY: &str = "--preset tiny --set train.batch=8 --set train.log_every=1 --set train.evaluate_every=4";

/// What is planted in the sequences of class 1.
const MOTIF: &str = "TATAAAAGGC";

/// Rows of a table: sequences of 40 to 60 bases, every other one with a motif; CRLF line ends, as in GUE.
fn rows(seed: u64, count: u64) -> String {
    let mut text = "sequence,label\r\n".to_owned();
    for n in 0..count {
        let mut letters = bases(1000 * seed + n, 40 + (n % 21) as usize);
        if n % 2 == 1 {
            letters.replace_range(10..10 + MOTIF.len(), MOTIF);
        }
        let _ = write!(text, "{letters},{}\r\n", n % 2);
    }
    text
}

/// A folder with a vocabulary and a data set.
pub fn folder() -> Folder {
    let folder = Folder::with_vocabulary();
    folder.write("data/train.csv", rows(1, 120));
    folder.write("data/dev.csv", format!("\u{feff}{}", rows(2, 40)));
    folder.write("data/test.csv", rows(3, 40));
    folder
}

pub fn number(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

#[test]
fn a_probe_learns_is_moved_and_predicts_the_same() {
    let folder = folder();
    let outcome = folder.ok(&format!("finetune model data -o probe --mode probe --epochs 40 --kmers {BRIEFLY}"));
    assert!(outcome.stderr.contains("binary task: classes 0, 1"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("120 rows to train on, 40 in dev, 40 in test"), "{}", outcome.stderr);
    assert!(number(outcome.value("auroc")) > 0.7, "{}", outcome.text());
    assert!(outcome.text().contains("\nmeasure on test\t"), "and what k-mers achieve: {}", outcome.text());
    let kmers: serde_json::Value = serde_json::from_str(&folder.text("probe/kmers.json")).expect("JSON");
    assert!(kmers["measures"]["auroc"].as_f64().expect("a number") > 0.7, "{kmers}");

    let predicted = folder.ok("predict probe data/test.csv");
    let lines: Vec<&str> = predicted.text().lines().collect();
    assert_eq!(lines[0], "id\tstart\tend\twindows\tclass\tp_0\tp_1");
    assert_eq!(lines.len(), 41);
    assert!(lines[1].starts_with("1\t0\t40\t1\t"), "{}", lines[1]);
    fs::create_dir(folder.path("elsewhere")).expect("made");
    fs::rename(folder.path("probe"), folder.path("elsewhere/m")).expect("moved");
    fs::remove_dir_all(folder.path("model")).expect("removed");
    assert_eq!(folder.ok("predict elsewhere/m data/test.csv").stdout, predicted.stdout);

    let scores = folder.ok("evaluate elsewhere/m data");
    assert!(scores.text().contains("\nconfusion\t"), "{}", scores.text());
    let mcc = scores.text().lines().find(|line| line.starts_with("mcc\t")).expect("an MCC");
    assert_eq!(mcc.split('\t').count(), 6, "value and interval: {mcc}");
}

#[test]
fn a_fresh_encoder_is_trained_with_several_seeds() {
    let folder = folder();
    let outcome = folder
        .ok(&format!("finetune model data -o runs --mode full --from-scratch --seeds 2 --seed 7 --steps 6 {BRIEFLY}"));
    assert!(outcome.text().starts_with("measure on test\tmean\tsd\tseed 7\tseed 8\n"), "{}", outcome.text());
    for name in ["config.json", "model.safetensors", "seeds.json", "seed-7/model.safetensors", "seed-8/run.json"] {
        assert!(folder.path("runs").join(name).is_file(), "{name}");
    }
    // Neither what stands beside a sequence nor its order changes what is said of it.
    let probabilities = |text: &str| -> Vec<f64> {
        text.lines().skip(1).map(|line| number(line.split('\t').next_back().expect("a field"))).collect()
    };
    let together = probabilities(folder.ok("predict runs data/test.csv").text());
    let table = folder.text("data/test.csv");
    let mut reversed: Vec<&str> = table.lines().collect();
    reversed[1..].reverse();
    folder.write("reversed.csv", reversed.join("\n"));
    let mut back = probabilities(folder.ok("predict runs reversed.csv").text());
    back.reverse();
    for (n, line) in table.lines().skip(1).enumerate().step_by(9) {
        let alone = folder.run_on("predict runs -", format!("sequence,label\n{line}\n").as_bytes());
        let alone = probabilities(alone.text())[0];
        assert!((alone - together[n]).abs() < 1e-5 && (back[n] - together[n]).abs() < 1e-5, "{alone} {}", together[n]);
    }
}

#[test]
fn long_sequences_and_other_inputs_are_predicted_in_windows() {
    let folder = folder();
    folder.ok(&format!("finetune model data -o probe --mode probe --epochs 2 {BRIEFLY}"));
    folder.write("long.fa", format!(">a first\n{}\n>b\nACGT\n", bases(9, 150)));
    let outcome = folder.ok("predict probe long.fa --window 60 --stride 30");
    let starts = |text: &str| {
        text.lines().skip(1).map(|line| line.split('\t').take(4).collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    assert_eq!(starts(outcome.text()), ["a 0 150 4", "b 0 4 1"]);
    assert!(outcome.stderr.contains("1 sequence is longer than a window of 60 bases"), "{}", outcome.stderr);
    let each = folder.ok("predict probe long.fa --window 60 --stride 30 --merge none");
    assert_eq!(starts(each.text()), ["a 0 60 1", "a 30 90 1", "a 60 120 1", "a 90 150 1", "b 0 4 1"]);
}

#[test]
fn embeddings_are_written_in_every_format() {
    let folder = folder();
    folder.ok(&format!("finetune model data -o tuned --mode full --from-scratch --steps 2 {BRIEFLY}"));
    let text = folder.ok("embed tuned data/test.csv -o - --layer 1");
    let table: Vec<&str> = text.text().lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(table.len(), 41);
    assert_eq!(table[1].split('\t').count(), 3 + 64);
    for output in ["x.parquet", "x.npy", "x.tsv"] {
        folder.ok(&format!("embed tuned data/test.csv -o {output}"));
        assert!(folder.path(output).is_file());
    }
    // One vector for each base, and that of a base does not depend on where its window ends.
    folder.write("long.fa", format!(">a\n{}\n", bases(9, 150)));
    let each = folder.ok("embed model long.fa -o - --pool none");
    let lines: Vec<&str> = each.text().lines().filter(|line| line.starts_with("a\t")).collect();
    assert_eq!(lines.len(), 150);
    assert!(lines.iter().enumerate().all(|(n, line)| line.starts_with(&format!("a\t{n}\t{}\t", n + 1))));
    // Nor does any number depend on how much is worked on at a time.
    folder.write("longer.fa", format!(">a\n{}\n>b\n{}\n", bases(9, 3000), bases(8, 200)));
    for command in ["embed tuned longer.fa -o - --pool none", "embed tuned longer.fa -o -", "predict tuned longer.fa"] {
        let little = folder.ok(&format!("{command} --memory 1"));
        assert!(little.stdout == folder.ok(command).stdout, "{command}");
    }
    let refused = folder.run("embed tuned data/test.csv -o x.npy --layer 3");
    assert_eq!(refused.code, Some(2));
    assert!(
        refused.stderr.contains("--layer 3: this model has layers 0 (vectors of codes or letters) to 2"),
        "{}",
        refused.stderr
    );
}

#[test]
fn regression_and_several_labels_are_told_from_the_table() {
    let folder = Folder::with_vocabulary();
    let (mut values, mut labels) = ("seq,y\n".to_owned(), "sequence,a,b\n".to_owned());
    for n in 0..90 {
        let letters = bases(n, 30);
        let share = letters.matches('G').count() as f64 / 30.0;
        let _ = writeln!(values, "{letters},{:.3}", 10.0 + 5.0 * share);
        let _ = writeln!(labels, "{letters},{},{}", u8::from(share > 0.25), u8::from(letters.starts_with('A')));
    }
    folder.write("values.csv", values);
    folder.write("labels.csv", labels);
    let outcome = folder.ok(&format!(
        "finetune model values.csv -o values --mode probe --sequence seq --label y --epochs 60 {BRIEFLY}"
    ));
    assert!(outcome.stderr.contains("regression task"), "{}", outcome.stderr);
    assert!(number(outcome.value("pearson")) > 0.3, "{}", outcome.text());
    let predicted = folder.ok("predict values values.csv");
    let value = number(predicted.text().lines().nth(1).expect("a row").split('\t').next_back().expect("a value"));
    assert!((8.0..16.0).contains(&value), "in the units of the table: {value}");

    let outcome =
        folder.ok(&format!("finetune model labels.csv -o labels --mode probe --label a,b --epochs 2 {BRIEFLY}"));
    assert!(outcome.stderr.contains("multi-label task: labels a, b"), "{}", outcome.stderr);
    assert!(folder.ok("predict labels labels.csv").text().starts_with("id\tstart\tend\twindows\tlabels\tp_a\tp_b\n"));
}

#[test]
fn a_dry_run_tells_what_learns_and_writes_nothing() {
    let folder = folder();
    let before = folder.names();
    let line = "finetune model data -o run --preset tiny --dry-run";
    let learned = |mode: &str| {
        let outcome = folder.ok(&format!("{line} {mode}"));
        assert!(number(outcome.value("total").split('\t').next().expect("a sum")) > 0.0);
        number(outcome.value("moments").split('\t').next_back().expect("numbers")) / 2.0
    };
    // Code vectors of 64 channels and two classes: weights and biases.
    assert!((learned("--mode probe") - 130.0).abs() < 0.5);
    assert!(learned("--mode full --from-scratch") > 50_000.0);
    let refused = folder.run(line);
    assert_eq!(refused.code, Some(2), "adapters need an encoder: {}", refused.stderr);
    assert!(folder.names() == before);
}

#[test]
fn what_cannot_be_learned_is_said_in_one_line() {
    let folder = folder();
    let train = rows(1, 20);
    let refused = |line: &str, parts: &[&str]| {
        let outcome = folder.run(&format!("{line} {BRIEFLY}"));
        assert_eq!(outcome.code, Some(2), "{line}: {}", outcome.stderr);
        let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{line}: {}", outcome.stderr);
        assert!(parts.iter().all(|part| errors[0].contains(part)), "{line}: {}", errors[0]);
        assert!(!folder.path("out").exists(), "{line} leaves a folder");
    };
    let with = |name: &str, train: &str, dev: &str| {
        folder.write(&format!("{name}/train.csv"), train);
        folder.write(&format!("{name}/dev.csv"), dev);
    };
    with("unseen", &train, "sequence,label\nACGT,2\n");
    refused("finetune model unseen -o out --mode probe", &["dev.csv, line 2", "`2`", "0, 1"]);
    with("column", "dna,label\nACGT,1\nAC,0\n", "sequence,label\nACGT,1\n");
    refused("finetune model column -o out --mode probe", &["train.csv", "sequence"]);
    with("protein", &format!("{train}MKLVEF,1\n"), &train);
    refused("finetune model protein -o out --mode probe", &["train.csv", "line 22", "not a nucleotide code"]);
    with("nan", "sequence,label\nACGT,0.5\nAC,nan\nACC,7.5\n", &train);
    refused("finetune model nan -o out --mode probe --task regression", &["train.csv", "line 3", "nan"]);
    refused("finetune model data -o out", &["model", "vocabulary", "--from-scratch"]);
    refused("finetune data data -o out", &["config.json"]);
    refused("finetune model data -o out --mode full --from-scratch --set train.stepz=3", &["stepz"]);
    let wrong = folder.run("predict model data/test.csv");
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("a vocabulary") && wrong.stderr.contains("finetune"), "{}", wrong.stderr);
}

#[test]
fn sequences_shorter_than_a_kernel_and_ambiguous_letters_are_sequences() {
    let folder = Folder::with_vocabulary();
    folder.write("x.csv", "sequence,label\nA,0\nNNRYU,1\nacgtn,0\nT,1\nGG,1\nCC,0\nAAA,0\nTTT,1\nACG,0\nGCA,1\n");
    folder.ok(&format!("finetune model x.csv -o out --mode probe --epochs 2 --set data.held_out.valid=0 --set data.held_out.test=0 {BRIEFLY}"));
    assert_eq!(folder.ok("predict out x.csv").text().lines().count(), 11);
}
