//! Folders of runs: one run at a time has one, and what a model folder holds is not believed.

use crate::program::{BRIEFLY, Folder, Outcome, bases, finish, record, small_genome};
use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};
use vqdna_data::lock::FolderLock;

/// Rows of a table to fine-tune on.
fn table() -> String {
    (0..24).fold("sequence,label\n".to_owned(), |mut text, n| {
        let _ = writeln!(text, "{},{}", bases(n + 1, 40), n % 2);
        text
    })
}

#[track_caller]
fn refused(outcome: &Outcome, parts: &[&str]) {
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{}", outcome.stderr);
    assert!(parts.iter().all(|part| errors[0].contains(part)), "{parts:?}: {}", outcome.stderr);
}

#[test]
fn a_folder_in_use_takes_no_second_run() {
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", small_genome());
    folder.write("table.csv", table());
    let lock = FolderLock::take(&folder.path("run")).expect("free");
    let process = format!("process {}", std::process::id());
    for command in [
        "learn genome.fa -o run",
        "pretrain model genome.fa -o run",
        "pretrain --tokenizer mxdna genome.fa -o run",
        "finetune model table.csv -o run --mode probe",
        "finetune model table.csv -o run --mode probe --seeds 2",
    ] {
        for resume in ["", " --resume"] {
            let outcome = folder.run(&format!("{command}{resume} --steps 2 --preset tiny"));
            refused(&outcome, &["run is in use", &process]);
            let names: Vec<_> =
                fs::read_dir(folder.path("run")).expect("there").map(|e| e.expect("readable").file_name()).collect();
            assert_eq!(names, [".lock"], "{command}{resume}: nothing changes");
        }
    }
    drop(lock);
    assert!(!folder.path("run").exists(), "nothing was in it");
    folder.ok(&format!("learn genome.fa -o run --steps 2 {BRIEFLY}"));
    assert!(!folder.path("run/.lock").exists());
}

/// The first waits for its input, which never comes.
#[test]
fn the_lock_ends_with_its_process() {
    let folder = Folder::new();
    folder.write("genome.fa", small_genome());
    let mut first = folder.command(&format!("learn - -o run --steps 2 {BRIEFLY}"));
    let mut first = first.stdin(Stdio::piped()).spawn().expect("started");
    let stdin = first.stdin.take();
    let begun = Instant::now();
    while fs::read(folder.path("run/.lock")).is_ok_and(|id| id.is_empty()) || !folder.path("run/.lock").exists() {
        assert!(begun.elapsed() < Duration::from_mins(2), "no lock");
        std::thread::sleep(Duration::from_millis(20));
    }
    let second = format!("learn genome.fa -o run --steps 2 {BRIEFLY}");
    refused(&folder.run(&second), &["run is in use", &format!("process {}", first.id())]);
    first.kill().expect("killed");
    drop(stdin);
    finish(first);
    assert!(folder.path("run/.lock").exists(), "a killed process cannot clean up");
    folder.ok(&second);
    assert!(!folder.path("run/.lock").exists());
}

/// A copy of a model folder with other bytes in one file.
fn copy(folder: &Folder, model: &str, to: &str, file: &str, bytes: &[u8]) {
    for name in ["config.json", "model.safetensors", "run.json"] {
        let held = folder.read(&format!("{model}/{name}"));
        folder.write(&format!("{to}/{name}"), if name == file { bytes } else { &held });
    }
}

/// The file of weights with its last number changed.
fn with_number(mut bytes: Vec<u8>, value: f32) -> Vec<u8> {
    let end = bytes.len() - 4;
    bytes.splice(end.., value.to_le_bytes());
    bytes
}

#[test]
fn weights_and_sizes_of_a_folder_are_checked_in_every_kind() {
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", record("a", &bases(1, 1500)));
    folder.write("table.csv", table());
    folder.ok(&format!("pretrain model genome.fa -o encoder --steps 2 {BRIEFLY}"));
    folder.ok(&format!("pretrain --tokenizer mxdna genome.fa -o mxdna --steps 2 {BRIEFLY}"));
    folder.ok("finetune encoder table.csv -o tuned --mode full --steps 2");
    folder.ok("finetune mxdna table.csv -o letters --mode probe --steps 2");
    for (model, size, uses) in [
        ("model", "d_code", &["tokenize BAD genome.fa -o new.tsv", "embed BAD genome.fa -o new.tsv"][..]),
        ("encoder", "d_ff", &["embed BAD genome.fa -o new.tsv", "finetune BAD table.csv -o new --steps 2"]),
        ("mxdna", "d_model", &["embed BAD genome.fa -o new.tsv", "units BAD genome.fa -o new.tsv"]),
        ("tuned", "d_ff", &["predict BAD genome.fa -o new.tsv", "embed BAD genome.fa -o new.tsv"]),
        ("letters", "d_ff", &["predict BAD genome.fa -o new.tsv"]),
    ] {
        let weights = folder.read(&format!("{model}/model.safetensors"));
        for (value, word) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf")] {
            copy(&folder, model, "bad", "model.safetensors", &with_number(weights.clone(), value));
            for line in uses {
                refused(&folder.run(&line.replace("BAD", "bad")), &["bad/model.safetensors", word, "finite"]);
            }
        }
        let config = folder.text(&format!("{model}/config.json"));
        let at = config.find(&format!("\"{size}\": ")).expect("a size") + size.len() + 4;
        let end = at + config[at..].find([',', '\n']).expect("an end");
        let larger = format!("{}65536{}", &config[..at], &config[end..]);
        copy(&folder, model, "bad", "config.json", larger.as_bytes());
        for line in uses {
            refused(&folder.run(&line.replace("BAD", "bad")), &["bad/config.json", "numbers", "bad/model.safetensors"]);
        }
        for (from, to) in [
            ("\"format_version\": ", "\"format_version\": 0, \"x\": "),
            ("\"model_type\": \"vqdna\"", "\"model_type\": \"bert\""),
        ] {
            copy(&folder, model, "bad", "config.json", config.replacen(from, to, 1).as_bytes());
            refused(&folder.run(&uses[0].replace("BAD", "bad")), &["bad/config.json"]);
        }
        let controlled = config.replacen("\"architectures\": [\n    \"", "\"architectures\": [\n    \"\\u001b[31m", 1);
        assert_ne!(controlled, config);
        copy(&folder, model, "bad", "config.json", controlled.as_bytes());
        refused(
            &folder.run(&uses[0].replace("BAD", "bad")),
            &["bad/config.json", "`architectures.0`", "control character"],
        );
    }
    assert!(!folder.path("new.tsv").exists() && !folder.path("new").exists());
}

#[cfg(unix)]
#[test]
fn pipes_and_devices_in_a_folder_are_refused() {
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", small_genome());
    for name in ["config.json", "model.safetensors", "run.json"] {
        for device in [true, false] {
            let _ = fs::remove_dir_all(folder.path("bad"));
            copy(&folder, "model", "bad", "", &[]);
            let path = folder.path("bad").join(name);
            fs::remove_file(&path).expect("there");
            if device {
                std::os::unix::fs::symlink("/dev/zero", &path).expect("linked");
            } else {
                assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("run").success());
            }
            for line in ["inspect bad", "tokenize bad genome.fa -o new.tsv"] {
                let outcome = folder.run(line);
                if name == "run.json" && line.starts_with("tokenize") {
                    // It says what was measured; a model works without it.
                    assert_eq!(outcome.code, Some(0), "{line}: {}", outcome.stderr);
                } else {
                    refused(&outcome, &[&format!("bad/{name}"), "no plain file"]);
                }
            }
        }
    }
}

#[test]
fn the_window_of_pre_training_is_that_of_embedding() {
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", small_genome());
    let window = |line: &str| {
        let outcome = folder.ok(line);
        let line = outcome.text().lines().find(|line| line.contains("window")).map(str::to_owned);
        line.expect("a note").split_whitespace().last().expect("a number").to_owned()
    };
    for (pretrain, own) in [("pretrain model", "96"), ("pretrain --tokenizer mxdna", "80")] {
        let _ = fs::remove_dir_all(folder.path("run"));
        folder.ok(&format!("{pretrain} genome.fa -o run --steps 2 {BRIEFLY} --set data.length={own}"));
        let config = folder.text("run/config.json");
        assert!(config.contains(&format!("\"window\": {own}")) && config.contains("\"format_version\": 4"), "{config}");
        assert_eq!(window("embed run genome.fa -o -"), own);
        assert_eq!(window("embed run genome.fa -o - --window 200"), "200");
        // A folder of before does not say.
        let before =
            config.replace(&format!("  \"window\": {own},\n"), "").replace(&format!(",\n  \"window\": {own}"), "");
        assert!(!before.contains("window"), "{before}");
        folder.write("run/config.json", before);
        assert_eq!(window("embed run genome.fa -o -"), "512");
    }
}

#[test]
fn inputs_without_a_base_to_learn_from() {
    let folder = Folder::with_vocabulary();
    for (text, part) in [
        (String::new(), "no"),
        (">a\n>b\n".to_owned(), "no record holds any"),
        (format!(">a\n{}\n", "N".repeat(900)), "ambiguous"),
    ] {
        folder.write("genome.fa", &text);
        for command in ["learn genome.fa", "pretrain model genome.fa", "pretrain --tokenizer mxdna genome.fa"] {
            refused(&folder.run(&format!("{command} -o run --steps 2 {BRIEFLY}")), &[part]);
            assert!(!folder.path("run").exists(), "{command}");
        }
    }
    folder.write("genome.fa", small_genome().to_lowercase());
    let line = format!("learn genome.fa -o run --steps 2 {BRIEFLY} --set data.soft_masked_weight=0");
    refused(&folder.run(&line), &["soft-masked", "data.soft_masked_weight"]);
    folder.write("genome.fa", format!(">empty\n{}>last\n", small_genome()));
    folder.ok(&format!("learn genome.fa -o run --steps 2 {BRIEFLY}"));
}
