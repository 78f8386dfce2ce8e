//! The quickstart makes only what it may make, goes on where it was stopped, and says which check failed.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use super::program::{Folder, finish};

#[test]
fn it_refuses_a_folder_with_models_of_others() {
    let folder = Folder::new();
    for stage in ["learn", "pretrain", "finetune"] {
        folder.write(&format!("out/{stage}/config.toml"), "mine");
        folder.write(&format!("out/{stage}/model.safetensors"), "mine, too");
    }
    let before = folder.names();
    let outcome = folder.run("quickstart --steps 2 -o out");
    assert_eq!(outcome.code, Some(2), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("out holds other files"), "{}", outcome.stderr);
    assert_eq!(folder.names(), before);
    assert_eq!(folder.read("out/finetune/model.safetensors"), b"mine, too");
}

/// Stopped in its second stage, run again, and begun anew.
#[cfg(unix)]
#[test]
fn a_stopped_one_goes_on_and_fails_its_own_check() {
    let folder = Folder::new();
    let line = "quickstart --steps 2 -o out";
    let child = folder.command(line).spawn().expect("started");
    let patience = Instant::now() + Duration::from_mins(5);
    while !folder.path("out/pretrain/config.toml").exists() {
        assert!(Instant::now() < patience, "no second stage");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs").success());
    let stopped = finish(child);
    assert_eq!(stopped.code, Some(143), "{}", stopped.stderr);
    assert!(stopped.stderr.contains("the same command goes on"), "{}", stopped.stderr);
    let learned = fs::metadata(folder.path("out/learn/model.safetensors")).expect("made").modified().expect("known");

    let outcome = folder.run(line);
    assert_eq!(outcome.code, Some(1), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("going on with the quickstart in out"), "{}", outcome.stderr);
    let again = fs::metadata(folder.path("out/learn/model.safetensors")).expect("made").modified().expect("known");
    assert_eq!(learned, again, "the first stage is not run again");
    assert!(outcome.stderr.contains("failed: ") && outcome.stderr.contains("points below 99 %"), "{}", outcome.stderr);
    let scores: Vec<&str> = outcome.value("mcc").split('\t').collect();
    assert_eq!(scores.len(), 2, "the model beside k-mers: {}", outcome.text());
    for stage in ["learn", "pretrain", "finetune"] {
        assert!(folder.path("out").join(stage).join("model.safetensors").exists(), "{stage}");
    }

    // What a person added keeps all of it.
    folder.write("out/learn/genes.bed", "chr1\t0\t10\n");
    let before = folder.names();
    let refused = folder.run(line);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("genes.bed was not made by quickstart"), "{}", refused.stderr);
    assert_eq!(folder.names(), before);
}
