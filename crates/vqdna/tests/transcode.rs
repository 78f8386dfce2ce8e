//! Tokenizing reads, computes and writes at the same time; nobody can tell but by the clock.

use burn::prelude::*;
use std::fs;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use vqdna::model_dir::Vocabulary;
use vqdna::ops::Precision;
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::transcode::TranscodeError;
use vqdna::transcode::encode::{Progress, Tokenize, Tokenized};
use vqdna_data::alphabet::{AmbiguousPolicy, SoftMaskPolicy};
use vqdna_data::codes::Writer;
use vqdna_data::corpus::Corpus;
use vqdna_data::segment::Policy;
use vqdna_data::synthetic;

/// Bases of a genome of many pieces.
const BASES: usize = 5000;
/// Bases of a piece; with pieces computed one by one, more of them than wait anywhere.
const CHUNK: usize = 100;

struct Job {
    folder: TempDir,
    vocabulary: Vocabulary,
}

impl Job {
    fn new() -> Self {
        let tokenizer = Preset::Tiny.config(Kind::Hrq);
        let model = tokenizer.init(0, &Device::flex());
        let vocabulary = Vocabulary { tokenizer, letters: Policy::default(), model, digest: "test".to_owned() };
        Self { folder: tempfile::tempdir().expect("a folder"), vocabulary }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file with one record, and something behind it.
    fn genome(&self, seed: u64, behind: &str) -> PathBuf {
        let bases = String::from_utf8(synthetic::genome(seed, BASES, 0.5)).expect("letters");
        let path = self.path(&format!("{seed}.fa"));
        fs::write(&path, format!(">record{seed}\n{bases}\n{behind}")).expect("written");
        path
    }

    /// Tokenizes as the program does: a file that is not finished leaves nothing behind.
    fn run(
        &self,
        inputs: &[PathBuf],
        output: &Path,
        division: (usize, Option<usize>),
        progress: Progress,
    ) -> Result<Tokenized, TranscodeError> {
        let job = Tokenize {
            vocabulary: &self.vocabulary,
            device: &Device::flex(),
            letters: Policy::default(),
            both_strands: false,
            chunk: division.0,
            batch: division.1,
            precision: Precision::F32,
        };
        let mut writer = Writer::create(output, &job.header(None))?;
        let tokenized = job.files(inputs, None, &mut writer, progress)?;
        writer.finish()?;
        Ok(tokenized)
    }

    #[track_caller]
    fn assert_nothing_was_written(&self, inputs: &[PathBuf]) {
        let names = fs::read_dir(self.folder.path()).expect("readable").map(|entry| entry.expect("readable").path());
        let others: Vec<PathBuf> = names.filter(|path| !inputs.contains(path)).collect();
        assert!(others.is_empty(), "{others:?}");
    }
}

const ONE_BY_ONE: (usize, Option<usize>) = (CHUNK, Some(1));

fn go_on(_: u64) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn progress_counts_every_base_in_order_and_division_changes_no_byte() {
    let job = Job::new();
    let inputs = [job.genome(1, ""), job.genome(2, "")];
    let outputs: Vec<Vec<u8>> = [ONE_BY_ONE, (CHUNK, Some(7)), (2 * BASES, None)]
        .into_iter()
        .map(|division| {
            let mut seen = vec![0];
            let output = job.path("codes.tsv");
            let tokenized = job.run(&inputs, &output, division, &mut |bases| {
                seen.push(bases);
                ControlFlow::Continue(())
            });
            assert_eq!(tokenized.expect("tokenized").bases, 2 * BASES as u64);
            assert!(seen.is_sorted_by(|a, b| a < b) && seen.last() == Some(&(2 * BASES as u64)), "{seen:?}");
            fs::read(output).expect("written")
        })
        .collect();
    assert!(outputs.iter().all(|bytes| *bytes == outputs[0]));
}

#[test]
fn a_corpus_gives_the_file_of_its_inputs() {
    let job = Job::new();
    let inputs = [job.genome(1, ">gaps\nACGTNNNNACGTacgtACGNN\nACNNA\n>empty\n"), job.genome(2, "")];
    for letters in [Policy::default(), Policy { ambiguous: AmbiguousPolicy::Split, soft_mask: SoftMaskPolicy::Drop }] {
        let corpus = Corpus::read(&inputs, letters, 1000).expect("readable");
        for both_strands in [false, true] {
            let tokenize = Tokenize {
                vocabulary: &job.vocabulary,
                device: &Device::flex(),
                letters,
                both_strands,
                chunk: CHUNK,
                batch: None,
                precision: Precision::F32,
            };
            let made = |name: &str, from_corpus: bool| {
                let path = job.path(name);
                let mut writer = Writer::create(&path, &tokenize.header(None)).expect("created");
                let tokenized = if from_corpus {
                    tokenize.corpus(&corpus, &mut writer, &mut go_on)
                } else {
                    tokenize.files(&inputs, None, &mut writer, &mut go_on)
                };
                writer.finish().expect("written");
                let tokenized = tokenized.expect("tokenized");
                (fs::read(&path).expect("readable"), tokenized.bases, tokenized.counts)
            };
            assert!(made("corpus.tsv", true) == made("files.tsv", false), "both strands: {both_strands}");
        }
    }
}

#[test]
fn an_error_far_into_the_second_file_is_the_readers_own_and_leaves_nothing() {
    let job = Job::new();
    for (behind, said) in [(">protein\nMEEPQ\n", "protein"), (">record1\nACGT\n", "record1"), (">\nACGT\n", "no name")]
    {
        let inputs = [job.genome(1, ""), job.genome(2, behind)];
        let mut done = 0;
        let result = job.run(&inputs, &job.path("codes.parquet"), ONE_BY_ONE, &mut |bases| {
            done = bases;
            ControlFlow::Continue(())
        });
        let error = result.expect_err("the second file is no genome");
        assert!(matches!(error, TranscodeError::Fasta(_)), "{error:?}");
        let message = error.to_string();
        assert!(message.contains("2.fa") && message.contains(said), "{message}");
        assert_eq!(done, 2 * BASES as u64, "what stands before the error is computed, as if nothing ran ahead");
        job.assert_nothing_was_written(&inputs);
    }
}

#[test]
fn an_interruption_stops_after_the_batch_in_which_it_came() {
    let job = Job::new();
    let inputs = [job.genome(1, ""), job.genome(2, ">protein\nMEEPQ\n")];
    let mut calls = 0;
    let result = job.run(&inputs, &job.path("codes.npy"), ONE_BY_ONE, &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(result, Err(TranscodeError::Interrupted)), "{result:?}");
    assert_eq!(calls, 3, "nothing is computed after the request to stop");
    job.assert_nothing_was_written(&inputs);
}

#[cfg(target_os = "linux")]
#[test]
fn a_row_that_cannot_be_written_counts_before_an_error_of_the_reader() {
    let job = Job::new();
    // The device is full: the first row fails, while the reader stands at its own error.
    let full = job.path("full.tsv");
    let inputs = [job.genome(1, ""), job.genome(2, ">protein\nMEEPQ\n")];
    std::os::unix::fs::symlink("/dev/full", &full).expect("linked");
    let result = job.run(&inputs, &full, ONE_BY_ONE, &mut go_on);
    assert!(matches!(result, Err(TranscodeError::Codes(_))), "{result:?}");
}

#[test]
fn a_panic_ends_all_stages() {
    let job = Job::new();
    let inputs = [job.genome(1, "")];
    let run = || job.run(&inputs, &job.path("codes.npy"), ONE_BY_ONE, &mut |_| panic!("on purpose"));
    let panic = catch_unwind(AssertUnwindSafe(run)).expect_err("it goes on in the caller's thread");
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"on purpose"));
    job.assert_nothing_was_written(&inputs);
}
