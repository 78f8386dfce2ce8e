//! Signals end the program soon, with a true word on what is left, no unfinished file, and an exit code that names the signal.

#![cfg(unix)]

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::program::{BRIEFLY, Folder, bases, finish, record, small_genome};

/// Starts a command that waits for more on stdin.
fn start(folder: &Folder, line: &str) -> Child {
    folder.command(line).stdin(Stdio::piped()).spawn().expect("started")
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success());
}

#[track_caller]
fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let patience = Instant::now() + Duration::from_mins(1);
    while !is_there() {
        assert!(Instant::now() < patience, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether this process ignores hang-ups; known on Linux.
fn are_hangups_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}

fn has_unfinished(folder: &Folder) -> bool {
    folder.names().iter().any(|name| Path::new(name).extension().is_some_and(|end| end == "part"))
}

#[test]
fn the_exit_code_names_the_signal_and_no_file_is_left() {
    let folder = Folder::with_vocabulary();
    let before = folder.names();
    let mut signals = vec![("INT", 130), ("TERM", 143)];
    // The program inherits that hang-ups are ignored, where these tests run under `nohup`.
    if !are_hangups_ignored() {
        signals.push(("HUP", 129));
    }
    for (name, code) in signals {
        let mut child = start(&folder, "tokenize model - -o codes.tsv");
        let stdin = child.stdin.take().expect("piped");
        wait_for("an output is begun", || has_unfinished(&folder));
        signal(&child, name);
        let outcome = finish(child);
        drop(stdin);
        assert_eq!(outcome.code, Some(code), "{}", outcome.stderr);
        assert_eq!(outcome.stderr, "stopped; nothing was written\n");
        assert_eq!(folder.names(), before);
    }
}

#[test]
fn what_went_to_standard_output_is_said_to_be_a_part() {
    let folder = Folder::with_vocabulary();
    // Rows of so many bases fill the pipe. Nobody reads on, so that the program waits until it is stopped.
    folder.write("genome.fa", record("a", &bases(3, 200_000)));
    let mut child = start(&folder, "tokenize model genome.fa -o - --chunk 256");
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0]).expect("rows");
    signal(&child, "INT");
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(130), "{}", outcome.stderr);
    assert!(outcome.stderr.ends_with("stopped; the output is not whole\n"), "{}", outcome.stderr);
}

#[test]
fn learning_that_has_read_nothing_leaves_no_folder() {
    let folder = Folder::new();
    let mut child = start(&folder, &format!("learn - -o runs/new {BRIEFLY}"));
    let stdin = child.stdin.take().expect("piped");
    wait_for("a folder", || folder.path("runs/new").exists());
    signal(&child, "TERM");
    let outcome = finish(child);
    drop(stdin);
    assert_eq!(outcome.code, Some(143), "{}", outcome.stderr);
    assert_eq!(outcome.stderr, "stopped; nothing was written\n");
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn a_second_signal_ends_learning_at_once() {
    let folder = Folder::new();
    folder.write("genome.fa", small_genome());
    let line = format!("learn genome.fa -o out --steps 100000 --set train.checkpoint_every=1 {BRIEFLY}");
    let child = folder.command(&line).spawn().expect("started");
    wait_for("a checkpoint", || folder.path("out/checkpoint").exists());
    signal(&child, "INT");
    signal(&child, "TERM");
    let outcome = finish(child);
    assert!(matches!(outcome.code, Some(130 | 143)), "{:?} {}", outcome.code, outcome.stderr);
    assert!(outcome.stderr.lines().last().expect("words").starts_with("stopped"), "{}", outcome.stderr);
    assert!(!has_unfinished(&folder), "{:?}", folder.names());
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_under_nohup_outlives_its_terminal() {
    let folder = Folder::with_vocabulary();
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" tokenize model - -o codes.tsv", env!("CARGO_BIN_EXE_vqdna")]);
    command.current_dir(folder.path("")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("started");
    let mut stdin = child.stdin.take().expect("piped");
    wait_for("an output is begun", || has_unfinished(&folder));
    signal(&child, "HUP");
    stdin.write_all(small_genome().as_bytes()).expect("read");
    drop(stdin);
    let outcome = finish(child);
    assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
    assert!(folder.path("codes.tsv").exists());
}

#[test]
fn a_line_says_how_far_a_long_job_is() {
    let folder = Folder::new();
    folder.write("genome.fa", small_genome());
    let line = format!("learn genome.fa --steps 30 {BRIEFLY}");
    let quiet = folder.ok(&format!("{line} -o quiet"));
    assert!(!quiet.stderr.contains("learning:"), "{}", quiet.stderr);

    let often = folder.command(&format!("{line} -o often")).env("VQDNA_PROGRESS_EVERY", "0.001").spawn();
    let often = finish(often.expect("started"));
    assert_eq!(often.code, Some(0), "{}", often.stderr);
    let says_all = |line: &str| [" of 30 steps (", " left", " bases/s"].iter().all(|part| line.contains(part));
    assert!(often.stderr.lines().any(|line| line.starts_with("learning: ") && says_all(line)), "{}", often.stderr);

    let silent = folder.command("tokenize often genome.fa -o codes.tsv").env("VQDNA_PROGRESS_EVERY", "0").spawn();
    assert!(!finish(silent.expect("started")).stderr.contains("tokenizing:"));
}

#[test]
fn names_of_files_cannot_steer_the_terminal() {
    let folder = Folder::with_vocabulary();
    let name = "evil\u{1b}[2Jname.fa";
    folder.write(name, ">a\nAC!T\n");
    let outcome = folder.run(&format!("tokenize model {name} -o codes.tsv"));
    assert_eq!(outcome.code, Some(2));
    assert!(
        !outcome.stderr.contains('\u{1b}') && outcome.stderr.contains("evil\\u{1b}[2Jname.fa"),
        "{}",
        outcome.stderr
    );
}
