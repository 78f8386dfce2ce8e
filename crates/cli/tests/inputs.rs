//! What finished models are used on: any format under any name, letters by policy, and sequences of nothing.

use std::fs::OpenOptions;
use std::io::{BufRead as _, Read as _, Write as _};

use crate::program::{Folder, Outcome, bases, finish};

const BRIEFLY: &str = "--preset tiny --mode probe --epochs 1 --set train.batch=8 --set train.evaluate_every=0";

/// A folder with a probe that hardly learned, `probe`.
fn folder() -> Folder {
    let folder = Folder::with_vocabulary();
    let row = |n: u64| format!("{},{}\n", bases(n, 40), n % 2);
    folder.write("data.csv", "sequence,label\n".to_owned() + &(0..60).map(row).collect::<String>());
    folder.ok(&format!("finetune model data.csv -o probe {BRIEFLY}"));
    folder
}

/// The rows of a table, without what stands above them.
fn rows(outcome: &Outcome) -> Vec<Vec<String>> {
    let lines = outcome.text().lines().filter(|line| !line.starts_with("# ")).skip(1);
    lines.map(|line| line.split('\t').map(str::to_owned).collect()).collect()
}

fn ids(outcome: &Outcome) -> Vec<String> {
    rows(outcome).into_iter().map(|row| row[0].clone()).collect()
}

#[test]
fn content_tells_the_format_whatever_the_name() {
    let folder = folder();
    let fasta = format!(">a first\n{}\n>b\nACGTAC\n", bases(1, 50));
    folder.write("x.fa", &fasta);
    let expected = folder.ok("predict probe x.fa");
    let embedded = folder.ok("embed probe x.fa -o -");
    assert_eq!(ids(&expected), ["a", "b"]);
    for name in ["x.fsa", "x.fas", "x.txt", "x", "x.csv", "x.parquet"] {
        folder.write(name, &fasta);
        let outcome = folder.ok(&format!("predict probe {name}"));
        assert!(outcome.stdout == expected.stdout, "{name}");
        assert!(folder.ok(&format!("embed probe {name} -o -")).stdout == embedded.stdout, "{name}");
        let is_unlike = matches!(name, "x.csv" | "x.parquet");
        assert_eq!(outcome.stderr.contains("is FASTA, whatever its name says"), is_unlike, "{}", outcome.stderr);
    }
    let piped = folder.run_on("predict probe -", fasta.as_bytes());
    assert!(piped.stdout == expected.stdout, "{}", piped.stderr);
    let table = format!("id\tsequence\na\t{}\nb\tACGTAC\n", bases(1, 50));
    folder.write("table.fa", &table);
    let outcome = folder.ok("predict probe table.fa");
    assert!(outcome.stdout == expected.stdout && outcome.stderr.contains("is TSV, whatever its name says"));
    assert!(folder.run_on("predict probe -", table.as_bytes()).stdout == expected.stdout);
    // FASTA has no labels.
    for line in ["evaluate probe x.csv", "finetune model x.csv -o out --mode probe"] {
        let refused = folder.run(line);
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains("x.csv: is FASTA, which has no labels"), "{}", refused.stderr);
    }
}

/// What a shell makes of `<(…)` is a pipe with a name: nothing can be read twice.
#[cfg(unix)]
#[test]
fn a_pipe_with_a_name_is_read_once() {
    let folder = folder();
    let text = format!(">a\n{}\n>b\nACGTAC\n", bases(1, 50));
    folder.write("x.fa", &text);
    for line in ["predict probe", "embed probe -o -"] {
        let expected = folder.ok(&format!("{line} x.fa"));
        let pipe = folder.path("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo");
        assert!(made.success());
        let child = folder.command(&format!("{line} pipe")).spawn().expect("started");
        let (path, text) = (pipe.clone(), text.clone());
        // Opening waits for a reader. Should there never be one, the test fails below and does not wait.
        std::thread::spawn(move || {
            let writer = OpenOptions::new().write(true).open(path);
            writer.and_then(|mut writer| writer.write_all(text.as_bytes())).expect("written");
        });
        let outcome = finish(child);
        assert!(outcome.stdout == expected.stdout, "{line}: {}", outcome.stderr);
        std::fs::remove_file(&pipe).expect("removed");
    }
}

#[test]
fn sequences_of_nothing_are_counted_and_have_their_row() {
    let folder = folder();
    folder.write("x.fa", ">x\nACGTACGT\n>y\n>z\nGGCCAATT\n");
    folder.write("x.csv", "id,sequence,label\nx,ACGTACGT,0\ny,,1\nz,GGCCAATT,1\n");
    for name in ["x.fa", "x.csv"] {
        let outcome = folder.ok(&format!("predict probe {name}"));
        let found = rows(&outcome);
        assert_eq!(ids(&outcome), ["x", "y", "z"]);
        assert_eq!(found[1][1..], ["0", "0", "0", "", "", ""]);
        assert!(found[0][5..].iter().all(|value| !value.is_empty()));
        assert!(outcome.stderr.contains("16 bases in 3 records, empty records: 1"), "{}", outcome.stderr);
        let outcome = folder.ok(&format!("embed probe {name} -o -"));
        let found = rows(&outcome);
        assert!(found.len() == 3 && found[1][3..].iter().all(String::is_empty) && !found[2][3].is_empty());
        assert!(outcome.stderr.contains("empty records: 1"), "{}", outcome.stderr);
        let each = folder.ok(&format!("embed probe {name} -o - --pool none"));
        assert_eq!(rows(&each).len(), 16);
    }
    let scores = folder.ok("evaluate probe x.csv");
    assert!(scores.text().contains("\nrows\t2\t"), "{}", scores.text());
    let text = folder.text("data.csv") + ",1\n";
    folder.write("data.csv", text);
    folder.ok(&format!("finetune model data.csv -o again {BRIEFLY}"));
}

#[test]
fn letter_policies_apply_in_every_command_and_are_counted() {
    let folder = folder();
    let (left, right) = (bases(5, 30), bases(6, 20));
    folder.write("x.fa", format!(">a\n{left}NNRacgt{right}\n>b\nNNN\n"));
    folder.write("x.csv", format!("id,sequence,label\na,{left}NNRacgt{right},1\nb,NNN,0\n"));
    folder.write("parts.fa", format!(">l\n{left}\n>r\nacgt{right}\n"));
    let counted = "60 bases in 2 records, ambiguous letters: 6, soft-masked bases: 4";
    let values = |outcome: &Outcome| -> Vec<f64> {
        rows(outcome).iter().map(|row| row[row.len() - 1].parse().unwrap_or(f64::NAN)).collect()
    };
    let parts = values(&folder.ok("predict probe parts.fa"));
    for name in ["x.fa", "x.csv"] {
        for line in ["predict probe", "embed probe -o -"] {
            let outcome = folder.ok(&format!("{line} {name}"));
            assert!(outcome.stderr.lines().any(|line| line == counted), "{line}: {}", outcome.stderr);
            let split = folder.ok(&format!("{line} {name} --ambiguous split --soft-mask drop"));
            assert!(split.stderr.contains(&format!("{counted}, dropped bases: 10")), "{line}: {}", split.stderr);
            assert_ne!(split.stdout, outcome.stdout);
            let refused = folder.run(&format!("{line} {name} --ambiguous error"));
            assert_eq!(refused.code, Some(2));
            assert!(refused.stderr.contains("31: `N` is ambiguous"), "{line}: {}", refused.stderr);
        }
        let split = folder.ok(&format!("predict probe {name} --ambiguous split"));
        let found = values(&split);
        assert!((found[0] - f64::midpoint(parts[0], parts[1])).abs() < 1e-9, "{found:?} {parts:?}");
        assert_eq!(rows(&split)[0][..4], ["a", "0", "57", "2"]);
        assert_eq!(rows(&split)[1][..4], ["b", "0", "0", "0"]);
    }
    let evaluated = folder.ok("evaluate probe x.csv --ambiguous split");
    assert!(evaluated.text().contains("\nrows\t1\t"), "{}", evaluated.text());
    assert!(evaluated.stderr.contains(&format!("{counted}, dropped bases: 6")), "{}", evaluated.stderr);
    assert!(evaluated.stderr.contains("1 row is left out"), "{}", evaluated.stderr);
    let refused = folder.run("evaluate probe x.csv --ambiguous error");
    assert!(refused.stderr.contains("x.csv, line 2, column `sequence`: letter 31: `N`"), "{}", refused.stderr);

    // Fine-tuning has the same policies as a setting, and its model goes on with them.
    let text = folder.text("data.csv") + &format!("{left}NN{right},1\n");
    folder.write("data.csv", text);
    let tuned = folder.ok(&format!("finetune model data.csv -o split {BRIEFLY} --ambiguous split"));
    assert!(tuned.stderr.contains("ambiguous letters: 2, dropped bases: 2"), "{}", tuned.stderr);
    assert!(folder.ok("predict split x.fa").stderr.contains("dropped bases: 6"));
    let refused =
        folder.run(&format!("finetune model data.csv -o error {BRIEFLY} --set data.letters.ambiguous=\"error\""));
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("data.csv, line 62, column `sequence`: letter 31"), "{}", refused.stderr);
    folder.write("pairs.csv", "sequence_1,sequence_2,label\nACNGT,ACGT,0\nACG,GGT,1\n");
    let held = "--set data.held_out.valid=0 --set data.held_out.test=0";
    let refused = folder.run(&format!("finetune model pairs.csv -o pairs {BRIEFLY} {held} --ambiguous split"));
    assert!(refused.stderr.contains("column `sequence_1`: holds letters that a policy cuts"), "{}", refused.stderr);
}

#[test]
fn units_checks_its_outputs_before_it_works_and_plots_many_classes() {
    let folder = Folder::new();
    let letters = bases(1, 3000);
    folder.write("genome.fa", format!(">a\n{letters}\n"));
    let briefly = "--preset tiny --steps 2 --set train.batch=4 --set data.length=64";
    folder.ok(&format!("pretrain --tokenizer mxdna genome.fa -o mxdna {briefly}"));
    let line = |n: usize| format!("a\t{}\t{}\tgene{n}\n", 100 * n, 100 * n + 60 + n);
    folder.write("genes.bed", (0..20).map(line).collect::<String>());
    let before = folder.names();
    for (plot, part) in [("lengths.png", "plots are SVG"), ("none/lengths.svg", "its folder does not exist")] {
        let refused = folder.run(&format!("units mxdna genes.bed --fasta genome.fa -o table.tsv --plot {plot}"));
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains(part), "{}", refused.stderr);
        assert_eq!(folder.names(), before.clone(), "nothing is left");
    }
    let outcome = folder.ok("units mxdna genes.bed --fasta genome.fa -o table.tsv --plot lengths.svg");
    assert!(outcome.stderr.contains("11 classes with the most bases of 20"), "{}", outcome.stderr);
    let (table, plot) = (folder.text("table.tsv"), folder.text("lengths.svg"));
    assert!((0..20).all(|n| table.contains(&format!("gene{n}\t1\t"))), "{table}");
    assert!(plot.contains("gene19") && plot.contains("all 20 classes") && !plot.contains("gene8\n"), "{plot}");
    folder.write("x.fa", ">b\nACGTNNACGT\n>c\n");
    let outcome = folder.ok("units mxdna x.fa --ambiguous split");
    assert!(outcome.stderr.contains("10 bases in 2 records, empty records: 1, ambiguous letters: 2, dropped bases: 2"));
    assert!(outcome.text().contains("x.fa\t2\t8\t"), "{}", outcome.text());
}

/// Rows that were written stay, and the message says how many there are.
#[cfg(unix)]
#[test]
fn a_stopped_prediction_says_how_many_rows_there_are() {
    let folder = folder();
    let records: Vec<String> = (0..1500).map(|n| format!(">s{n}\n{}\n", bases(n, 3000))).collect();
    folder.write("big.fa", records.concat());
    let mut child = folder.command("predict probe big.fa --memory 1").spawn().expect("started");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut text = String::new();
    for _ in 0..3 {
        stdout.read_line(&mut text).expect("a line");
    }
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
    stdout.read_to_string(&mut text).expect("the rest");
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    let rows = text.lines().count() - 1;
    assert!(rows < 1500 && text.ends_with('\n'), "{rows} rows");
    let message = format!("stopped; {rows} rows written; the output is not whole\n");
    assert!(outcome.stderr.ends_with(&message), "{rows} rows: {}", outcome.stderr);
}
