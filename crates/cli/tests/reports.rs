//! What commands say of models, machines and memory, and what they leave alone meanwhile.

use crate::pipeline::{hard_genome, tokenize};
use crate::program::{Folder, Outcome, bases, small_genome};

#[test]
fn inspect_shows_the_model() {
    let folder = hard_genome();
    let outcome = folder.ok("inspect model");
    assert_eq!([outcome.value("quantizer"), outcome.value("kernel"), outcome.value("d_code")], ["hrq", "7", "64"]);
    assert_eq!(outcome.value("code_vectors"), ((64 + 128) * 64).to_string());
    assert_eq!(outcome.value("file_bytes"), folder.read("model/model.safetensors").len().to_string());
    let header = String::from_utf8(tokenize(&folder, "-", "--region one")).expect("text");
    assert!(header.contains(&format!("model={}", outcome.value("model"))), "codes name the model that inspect shows");
    let levels: Vec<Vec<&str>> = outcome.text().lines().map(|line| line.split('\t').collect()).collect();
    let level = |name: &str| levels.iter().find(|fields| fields[0] == name && fields.len() == 5).expect("a level");
    assert_eq!((level("1")[1], level("1")[2]), ("64", "23"));
    assert_eq!((level("2")[1], level("2")[2]), ("128", "41"));
    for usage in [level("1")[3], level("2")[3]] {
        assert!((0.0..=1.0).contains(&usage.parse::<f64>().expect("measured on held-out windows")));
    }
}

/// What a person asks of a model that they were given: what for, with which columns, how good, and from what.
#[test]
fn inspect_shows_the_task_and_the_training_of_a_model_that_predicts() {
    let folder = Folder::with_vocabulary();
    let row = |n: u64| format!("{},{}\n", bases(n + 1, 40), ["no", "yes"][n as usize % 2]);
    let rows: Vec<String> = (0..60).map(row).collect();
    folder.write("rows.csv", format!("sequence,active\n{}", rows.concat()));
    folder.ok("finetune model rows.csv -o probe --mode probe --label active --epochs 2 --seed 7");
    let outcome = folder.ok("inspect probe");
    let config: serde_json::Value = serde_json::from_slice(&folder.read("probe/config.json")).expect("JSON");
    assert_eq!(outcome.value("holds"), "a fine-tuned model");
    assert_eq!([outcome.value("task"), outcome.value("classes")], ["binary", "no, yes"]);
    assert_eq!([outcome.value("label_columns"), outcome.value("window")], ["active", "40"]);
    assert_eq!(outcome.value("sequence_columns"), "sequence");
    assert_eq!(
        [outcome.value("learned_from"), outcome.value("mode"), outcome.value("seed")],
        ["rows.csv", "probe", "7"]
    );
    assert_eq!(outcome.value("vocabulary"), config["vocabulary"]);
    assert_eq!(outcome.value("base"), folder.ok("inspect model").value("model"));
    assert!(outcome.value("mcc").parse::<f64>().is_ok(), "{}", outcome.text());

    let shown = folder.ok("inspect probe --json");
    let shown: serde_json::Value = serde_json::from_str(shown.text()).expect("JSON");
    assert_eq!((&shown["task"], &shown["classes"]), (&"binary".into(), &serde_json::json!(["no", "yes"])));
    assert_eq!(shown["levels"].as_array().map(Vec::len), Some(2));
    assert_eq!(shown["measures"]["mcc"].as_f64().expect("a number"), outcome.value("mcc").parse::<f64>().expect("one"));

    // The name of a model is one for all commands.
    folder.ok("embed probe rows.csv -o rows.tsv");
    assert!(folder.text("rows.tsv").contains(outcome.value("model")), "{}", folder.text("rows.tsv"));
}

#[test]
fn doctor_shows_what_will_be_used() {
    let folder = Folder::new();
    let outcome = folder.ok("doctor --threads 3");
    assert!(outcome.value("will_use").contains("cpu") && outcome.value("will_use").contains(", 3 threads,"));
    for name in
        ["program", "system", "devices_in_this_build", "gpu", "cores", "simd", "memory_total", "memory_available"]
    {
        assert!(!outcome.value(name).is_empty());
    }
    assert!(folder.ok("doctor").value("will_use").contains(", 1 thread,"), "what Slurm grants");
}

#[test]
fn bench_prints_the_line_of_its_peer() {
    let folder = Folder::new();
    folder.write("genome.fa", small_genome());
    for (arguments, work, bases) in [
        ("learn", "learn", 16 * 512),
        ("encode", "encode", 16 * 512),
        ("encode --batch 3 --length 50", "encode", 150),
        ("tokenize genome.fa codes.npy", "tokenize", 3000),
        ("pretrain --batch 2 --length 40", "pretrain", 80),
        ("embed --length 40", "embed", 16 * 40),
        ("finetune", "finetune-lora", 32 * 101),
        ("finetune --mode full --batch 2 --length 40 --checkpoint", "finetune-full", 80),
    ] {
        let outcome = folder.ok(&format!("bench {arguments} --preset tiny --runs 1"));
        let line: serde_json::Value = serde_json::from_str(outcome.text()).expect("one JSON object");
        let names: Vec<&str> = line.as_object().expect("an object").keys().map(String::as_str).collect();
        let expected =
            ["peer", "work", "preset", "bf16", "bases", "seconds", "min", "max", "bases_per_s", "peak_rss_mb"];
        assert_eq!(names, expected);
        assert_eq!((&line["work"], &line["bases"]), (&work.into(), &bases.into()));
        assert!(line["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0));
    }
    assert!(folder.path("codes.npy").exists());
    let refused = folder.run("bench tokenize genome.fa codes.npy --length 100");
    assert!(refused.code == Some(2) && refused.stderr.contains("--length"), "{}", refused.stderr);
}

/// MiB of a part in the table of `--dry-run`.
#[track_caller]
fn mebibytes(outcome: &Outcome, part: &str) -> f64 {
    outcome.value(part).split('\t').next().and_then(|text| text.parse().ok()).expect("a number")
}

/// Within 35 % for `tiny`, most of which is the program; `small` and `base` are within 20 % (`docs/guide.md`).
#[test]
fn dry_runs_tell_the_memory_of_a_step() {
    let folder = Folder::new();
    let bf16 = "pretrain --precision bf16";
    for arguments in ["learn --batch 16", "learn --batch 16 --recompute", "pretrain", "pretrain --checkpoint", bf16] {
        let arguments = format!("bench {arguments} --length 512 --preset tiny --runs 1 --threads 2");
        let measured: serde_json::Value = serde_json::from_str(folder.ok(&arguments).text()).expect("one JSON object");
        let measured = measured["peak_rss_mb"].as_f64().expect("measured on this system");
        let estimate = mebibytes(&folder.ok(&format!("{arguments} --dry-run")), "total");
        let off = (estimate / measured - 1.0).abs();
        assert!(off < 0.35, "{arguments}: {estimate} MiB, but {measured} were measured");
    }
    for wrong in ["embed --dry-run", "learn --checkpoint", "encode --recompute", "pretrain --mode full"] {
        assert_eq!(folder.run(&format!("bench {wrong} --preset tiny")).code, Some(2), "{wrong}");
    }
}

#[test]
fn a_dry_run_of_learning_writes_nothing() {
    let folder = Folder::new();
    folder.write("genome.fa", small_genome());
    let outcome = folder.ok("learn genome.fa -o runs/a --preset tiny --dry-run");
    let parts = ["program", "parameters", "gradients", "moments", "kept", "work", "data"];
    let sum: f64 = parts.iter().map(|part| mebibytes(&outcome, part)).sum();
    assert!((sum - mebibytes(&outcome, "total")).abs() < 1.0, "{}", outcome.text());
    assert!(!folder.path("runs").exists());
    let recomputed = folder.ok("learn genome.fa -o runs/a --preset tiny --recompute --dry-run");
    assert!(mebibytes(&recomputed, "kept") < mebibytes(&outcome, "kept"));
    for (wrong, part) in [("missing.fa", "missing.fa"), ("genome.fa --set train.batch=0", "train.batch")] {
        let refused = folder.run(&format!("learn {wrong} -o runs/a --preset tiny --dry-run"));
        assert!(refused.code == Some(2) && refused.stderr.contains(part), "{}", refused.stderr);
    }
}

#[test]
fn a_dry_run_of_pretraining_counts_the_vocabulary_and_writes_nothing() {
    let folder = Folder::with_vocabulary();
    folder.write("genome.fa", small_genome());
    let before = folder.names();
    let line = "pretrain model genome.fa -o run --preset tiny --dry-run";
    let outcome = folder.ok(line);
    let numbers = |outcome: &Outcome| -> f64 {
        outcome.value("parameters").split('\t').next_back().expect("numbers").parse().expect("a number")
    };
    let step = folder.ok("bench pretrain --preset tiny --dry-run");
    assert!(numbers(&outcome) > numbers(&step) && mebibytes(&outcome, "total") > mebibytes(&step, "total"));
    let less = folder.ok(&format!("{line} --recompute --set backbone.checkpoint=true"));
    assert!(mebibytes(&less, "kept") < mebibytes(&outcome, "kept"));
    assert!(folder.names() == before);
}
