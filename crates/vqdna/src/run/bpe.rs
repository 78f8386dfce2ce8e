//! Byte-pair encoding trained on genomes: FASTA in, a `tokenizer.json` out.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use vqdna_data::aside::write_aside;
use vqdna_data::fasta;
use vqdna_data::lock::FolderLock;
use vqdna_data::segment::{Counts, Policy, segments};
use vqdna_data::vocab::BpeConfig;
use vqdna_data::vocab::bpe::Trainer;

use super::config::ConfigError;
use super::stage::{StageError, poll};
use crate::tokenizer::TokenizerConfigError;
use crate::tokenizer::bpe::FILE;

/// What is trained, from what, and where to.
pub struct TrainBpe<'a> {
    /// FASTA or FASTQ files; `-` is standard input.
    pub inputs: &'a [PathBuf],
    /// Folder of the `tokenizer.json`.
    pub folder: &'a Path,
    /// What becomes of letters; no token reaches over N.
    pub letters: Policy,
    /// How many ids, and from how many bases.
    pub config: BpeConfig,
    /// Set by another thread to stop.
    pub stop: &'a AtomicBool,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct TrainedBpe {
    /// Ids of the vocabulary, special ones included.
    pub ids: usize,
    /// What the policies did to the letters that were read.
    pub counts: Counts,
}

impl TrainBpe<'_> {
    /// Reads the inputs, trains, and writes the folder; `reading` hears of the letters read so far.
    ///
    /// # Errors
    /// See [`StageError`]; nothing is written before the end.
    pub fn run(&self, mut reading: impl FnMut(u64)) -> Result<TrainedBpe, StageError> {
        let wrong = |error| ConfigError::from(TokenizerConfigError::from(error));
        let mut trainer = Trainer::new(self.config).map_err(wrong)?;
        let is_foreign = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.is_ok_and(|entry| entry.file_name() != vqdna_data::lock::NAME)
        };
        if std::fs::read_dir(self.folder).is_ok_and(|mut files| files.any(is_foreign)) {
            return Err(StageError::Taken { folder: self.folder.to_owned(), what: "other files", hint: "" });
        }
        let _lock = FolderLock::take(self.folder)?;
        let mut counts = Counts::default();
        for record in fasta::read_all(self.inputs)? {
            let record = record?;
            for segment in segments(&record, self.letters, &mut counts)? {
                trainer.add(&segment.bases);
            }
            reading(counts.bases);
            if poll(self.stop).is_break() {
                return Err(StageError::Interrupted);
            }
        }
        if counts.bases == counts.ambiguous {
            let reason = "none of them is one certain base";
            return Err(StageError::NothingToLearn { bases: counts.bases, reason });
        }
        let bpe = trainer.train();
        let text = serde_json::to_string_pretty(&bpe.hugging_face()).expect("plain fields") + "\n";
        let output = |source| StageError::Output { folder: self.folder.to_owned(), source };
        write_aside(&self.folder.join(FILE), text.as_bytes()).map_err(output)?;
        Ok(TrainedBpe { ids: bpe.size(), counts })
    }
}
