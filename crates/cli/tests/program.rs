//! Runs the program as a person would: in a folder, by command lines.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use tempfile::TempDir;

/// Settings that make learning a matter of a second.
pub const BRIEFLY: &str = "--preset tiny --set data.length=128 --set train.batch=8 --set train.log_every=1";

/// What a run of the program gave.
pub struct Outcome {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Outcome {
    /// What was printed on stdout, as text.
    pub fn text(&self) -> &str {
        str::from_utf8(&self.stdout).expect("text")
    }

    /// The second word of a line of stdout by its first word.
    #[track_caller]
    pub fn value(&self, name: &str) -> &str {
        let mut pairs = self.text().lines().filter_map(|line| line.split_once('\t'));
        pairs.find(|(found, _)| *found == name).unwrap_or_else(|| panic!("no {name} in {}", self.text())).1
    }
}

/// A folder that vanishes with the test; commands run in it, so that names in command lines are short.
pub struct Folder(TempDir);

impl Folder {
    /// An empty folder.
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// A folder with a learned vocabulary, `model`.
    pub fn with_vocabulary() -> Self {
        let folder = Self::new();
        for (name, bytes) in vocabulary() {
            folder.write(&format!("model/{name}"), bytes);
        }
        folder
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file, and the folder around it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    #[track_caller]
    pub fn text(&self, name: &str) -> String {
        String::from_utf8(self.read(name)).expect("text")
    }

    /// Names of all files and folders, at any depth.
    pub fn names(&self) -> BTreeSet<String> {
        let shorten = |path: &PathBuf| path.strip_prefix(self.0.path()).expect("inside").display().to_string();
        walk(self.0.path()).iter().map(shorten).collect()
    }

    /// A run that is about to begin, on one thread unless told otherwise. Words are separated by spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vqdna"));
        command.args(line.split_whitespace()).current_dir(self.0.path());
        command.env("SLURM_CPUS_PER_TASK", "1").env_remove("VQDNA_DEVICE");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command line.
    pub fn run(&self, line: &str) -> Outcome {
        finish(self.command(line).spawn().expect("started"))
    }

    /// Runs a command line with this on stdin.
    pub fn run_on(&self, line: &str, input: &[u8]) -> Outcome {
        let mut child = self.command(line).stdin(Stdio::piped()).spawn().expect("started");
        let mut stdin = child.stdin.take().expect("piped");
        std::thread::scope(|scope| {
            // A program that refuses its input closes the pipe, which is no failure of the test.
            scope.spawn(move || drop(stdin.write_all(input)));
            finish(child)
        })
    }

    /// Runs a command line that must succeed.
    #[track_caller]
    pub fn ok(&self, line: &str) -> Outcome {
        let outcome = self.run(line);
        assert_eq!(outcome.code, Some(0), "{line}: {}", outcome.stderr);
        outcome
    }
}

/// Waits for the end of a run.
pub fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().expect("ended");
    let stderr = String::from_utf8(output.stderr).expect("messages are text");
    Outcome { code: output.status.code(), stdout: output.stdout, stderr }
}

/// All files and folders below a folder.
pub fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path);
    }
    found
}

/// Bases that look random and are always the same.
pub fn bases(seed: u64, length: usize) -> String {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b"ACGT"[(state >> 60) as usize % 4])
    };
    (0..length).map(|_| next()).collect()
}

/// A record of FASTA with lines of 60 bases.
pub fn record(name: &str, bases: &str) -> String {
    let mut text = format!(">{name}\n");
    for line in bases.as_bytes().chunks(60) {
        let _ = writeln!(text, "{}", str::from_utf8(line).expect("letters"));
    }
    text
}

/// A genome to learn from and to make mistakes with.
pub fn small_genome() -> String {
    record("chr1 the first", &bases(1, 2000)) + &record("chr2", &bases(2, 1000))
}

/// Names and contents of the files of a vocabulary that all tests share, learned once.
fn vocabulary() -> &'static [(&'static str, Vec<u8>)] {
    static LEARNED: OnceLock<Vec<(&str, Vec<u8>)>> = OnceLock::new();
    LEARNED.get_or_init(|| {
        let folder = Folder::new();
        folder.write("genome.fa", small_genome());
        folder.ok(&format!("learn genome.fa -o model --steps 10 --set data.split.valid=0.2 {BRIEFLY}"));
        ["config.json", "model.safetensors", "run.json"]
            .map(|name| (name, folder.read(&format!("model/{name}"))))
            .into()
    })
}
