//! What all stages share: the folder that a run makes, its inputs, its loop, and what it leaves behind.

use burn::prelude::*;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use vqdna_data::aside::{AsideFile, write_aside};
use vqdna_data::corpus::{Corpus, Names};
use vqdna_data::fasta::FastaError;
use vqdna_data::input::InputDigest;
use vqdna_data::labelled::LabelledError;
use vqdna_data::lock::{self, FolderLock, LockError};
use vqdna_data::segment::Counts;
use vqdna_data::split::{SplitError, SplitPolicy};

use super::config::{ConfigError, CorpusConfig, DataConfig, StageConfig};
use crate::model_dir::{FolderError, Manifest, measures_json};
use crate::objective::{Measures, Objective};
use crate::train::checkpoint::Checkpoint;
use crate::train::identity::Identity;
use crate::train::record::Recorder;
use crate::train::selection::Best;
use crate::train::{Ending, Observer, Source, TrainError, Trained, Training};
use crate::transcode::TranscodeError;

/// Where a run reads, writes and computes.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// FASTA or FASTQ files; `-` is standard input.
    pub inputs: &'a [PathBuf],
    /// The run's folder.
    pub folder: &'a Path,
    /// Name of the device, for the manifest.
    pub device_name: &'a str,
    /// The device, without autodiff.
    pub device: &'a Device,
    /// Go on from the folder's checkpoint.
    pub resume: bool,
    /// The command line, for the manifest.
    pub command_line: &'a [String],
    /// Set by another thread to stop after the current step.
    pub stop: &'a AtomicBool,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Finished {
    /// Whether all steps were done.
    pub ending: Ending,
    /// The evaluation whose model is kept; none if that of the last step is.
    pub best: Option<Best>,
    /// `test` or `valid`, whichever windows the measures were taken on; `nothing` if none are held out.
    pub evaluated_on: &'static str,
    /// Final measures; empty if interrupted or nothing is held out.
    pub measures: Measures,
    /// Duration of this call in seconds.
    pub wall_s: f64,
}

/// What the caller is told on the way, besides [`Observer`].
pub trait StageObserver: Observer {
    /// While inputs are read: letters so far.
    fn reading(&mut self, bases: u64);
    /// When they are read: what the policies did, and numbers of windows to train on and held out.
    fn read(&mut self, counts: &Counts, windows: (usize, usize));
    /// While codes of the inputs are computed: how many bases have theirs, of how many on all strands.
    fn tokenizing(&mut self, _bases: u64, _of: u64) {}
    /// Instead, where the folder has them from an earlier run.
    fn found_codes(&mut self) {}
    /// Before the final evaluation of this many windows.
    fn evaluating(&mut self, windows: usize);
}

/// Why a run made nothing.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// See [`FastaError`].
    #[error(transparent)]
    Fasta(#[from] FastaError),
    /// See [`SplitError`].
    #[error(transparent)]
    Split(#[from] SplitError),
    /// See [`LabelledError`].
    #[error(transparent)]
    Labelled(#[from] LabelledError),
    /// See [`TrainError`].
    #[error(transparent)]
    Train(#[from] TrainError),
    /// See [`FolderError`].
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// See [`TranscodeError`].
    #[error(transparent)]
    Transcode(#[from] TranscodeError),
    /// See [`LockError`].
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The caller asked for the end before the work was done.
    #[error("stopped before the end")]
    Interrupted,
    /// The folder cannot be made or written.
    #[error("cannot write to {}: {source}", folder.display())]
    Output {
        /// The folder.
        folder: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The folder is taken.
    #[error("{} already holds {what}; choose another folder{hint}", folder.display())]
    Taken {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        what: &'static str,
        /// What else to do, where there is something.
        hint: &'static str,
    },
    /// An encoder is wanted where there is only a vocabulary.
    #[error(
        "the model is a vocabulary, or a probe of one, and has no encoder to fine-tune: pre-train one, or use --from-scratch with --mode full, or \
         --mode probe"
    )]
    NoEncoder,
    /// Adapters for a model that has no place for them.
    #[error("adapters are for transformer encoders; fine-tune an MxDNA model with --mode full, or --mode probe")]
    NoAdapters,
    /// A measure to select by that no prediction has on dev.
    #[error(
        "`selection.measure` is `{measure}`, which has no value on dev whatever is predicted, since the labels there are too much alike; select \
         by {}, or hold out rows with other labels too",
        known.join(", ")
    )]
    NoValue {
        /// As written.
        measure: String,
        /// Those that have a value.
        known: Vec<String>,
    },
    /// No bases to learn from.
    #[error("there is no window to train on: {bases} bases were read, and {reason}")]
    NothingToLearn {
        /// Letters read.
        bases: u64,
        /// Where they went.
        reason: &'static str,
    },
}

impl Job<'_> {
    /// Takes the folder for the life of the run, so that an unwritable place, and another run there, are known before any work. Dropped
    /// while nothing is in the folder, it leaves no trace of it.
    pub(super) fn claim(&self, observer: &mut dyn StageObserver) -> Result<FolderLock, StageError> {
        // Once before anything is written there, and once when nobody else can change it any more.
        self.check_folder()?;
        let lock = FolderLock::take(self.folder)?;
        self.check_folder()?;
        if !lock.is_held() {
            observer.alarm(&format!(
                "the file system of {} knows no locks: make sure that no other run writes to it",
                self.folder.display()
            ));
        }
        // Dropped at once: only whether it can be made matters.
        AsideFile::create(&self.folder.join("config.toml")).map_err(self.output_error())?;
        Ok(lock)
    }

    /// Refuses a folder that is not for this run.
    fn check_folder(&self) -> Result<(), StageError> {
        let taken = |what, hint| StageError::Taken { folder: self.folder.to_owned(), what, hint };
        let has_model = self.holds("model.safetensors");
        if self.resume {
            if has_model && !self.has_checkpoint() {
                return Err(taken("a finished model, and no checkpoint to go on from", ""));
            }
        } else if has_model || self.has_checkpoint() {
            return Err(taken("a model or checkpoint", ", or go on with `--resume`"));
        } else if !self.holds("config.toml") {
            // A run that diverged leaves its config and log, and may be tried again; anything else is not ours.
            let foreign =
                |entry: std::io::Result<std::fs::DirEntry>| entry.is_ok_and(|entry| entry.file_name() != lock::NAME);
            if std::fs::read_dir(self.folder).is_ok_and(|mut files| files.any(foreign)) {
                return Err(taken("other files", ""));
            }
        }
        Ok(())
    }

    fn holds(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    fn has_checkpoint(&self) -> bool {
        self.holds("checkpoint") || self.holds("checkpoint.former")
    }

    pub(super) fn output_error(&self) -> impl Fn(std::io::Error) -> StageError {
        let folder = self.folder.to_owned();
        move |source| StageError::Output { folder: folder.clone(), source }
    }

    /// Reads the inputs.
    pub(super) fn read(&self, data: &DataConfig, observer: &mut dyn StageObserver) -> Result<Corpus, StageError> {
        let memory = data.memory_megabases.saturating_mul(1_000_000);
        let progress = &mut |bases| {
            observer.reading(bases);
            self.poll()
        };
        // Names matter where contigs are held out by them.
        let names = if matches!(data.split, SplitPolicy::Contig { .. }) { Names::Unique } else { Names::Any };
        let corpus = Corpus::read_with_progress(self.inputs, data.letters, names, memory, progress)?;
        data.split.check(corpus.contigs().iter().map(|name| &**name))?;
        Ok(corpus)
    }

    /// Says what was read, if that is something to train on, and writes the resolved config. A folder with a checkpoint keeps its
    /// own: the run goes on only if the two are of one essence.
    pub(super) fn begin(
        &self,
        config: &impl CorpusConfig,
        corpus: &Corpus,
        windows: (usize, usize),
        observer: &mut dyn StageObserver,
    ) -> Result<(), StageError> {
        let Counts { bases, ambiguous, soft_masked, .. } = corpus.counts();
        let reason = match (windows.0, bases) {
            (0, 0) => Some("no record holds any"),
            (_, bases) if bases > 0 && ambiguous == bases => Some("all are ambiguous letters, such as N"),
            (_, bases) if bases > 0 && soft_masked == bases && config.data().soft_masked_weight == 0.0 => {
                Some("all are soft-masked, which `data.soft_masked_weight = 0` leaves out")
            }
            (0, _) => Some("all are dropped by a letter policy (`data.letters`) or held out (`data.split`)"),
            _ => None,
        };
        if let Some(reason) = reason {
            return Err(StageError::NothingToLearn { bases, reason });
        }
        observer.read(&corpus.counts(), windows);
        self.write_config(config)
    }

    /// Whether to go on.
    pub(super) fn poll(&self) -> ControlFlow<()> {
        poll(self.stop)
    }

    /// What a run returns that was asked to stop before its first step or after its last one: a checkpoint stays as it is.
    pub(super) fn unless_stopped<T: From<Finished>>(
        &self,
        begun: Instant,
        result: Result<T, StageError>,
    ) -> Result<T, StageError> {
        use StageError::{Fasta, Interrupted, Transcode};
        let is_stopped = matches!(
            result,
            Err(Fasta(FastaError::Interrupted) | Transcode(TranscodeError::Interrupted) | Interrupted)
        );
        if !is_stopped {
            return result;
        }
        let finished = Finished {
            ending: Ending::Interrupted(Checkpoint::steps(self.folder)),
            best: None,
            evaluated_on: "nothing",
            measures: Measures::new(),
            wall_s: begun.elapsed().as_secs_f64(),
        };
        Ok(finished.into())
    }

    /// Writes the resolved config, but for a folder with a checkpoint.
    pub(super) fn write_config(&self, config: &impl StageConfig) -> Result<(), StageError> {
        if self.resume && self.has_checkpoint() {
            return Ok(());
        }
        let config = toml::to_string_pretty(config).expect("a checked config is TOML");
        write_aside(&self.folder.join("config.toml"), config.as_bytes()).map_err(self.output_error())
    }

    /// Trains; then measures on the windows kept for the test, or on those for validation if there are none.
    pub(super) fn train<O, S>(
        &self,
        training: &Training<'_, O, S>,
        test: &S,
        model: O::Model,
        begun: Instant,
        observer: &mut dyn StageObserver,
    ) -> Result<(O::Model, Finished), StageError>
    where
        O: Objective,
        S: Source<Batch = O::Batch>,
    {
        let device = self.device.clone().autodiff();
        let Trained { model, mut ending, best } = training.run(model, self.resume, &device, observer)?;
        let (mut evaluated_on, mut measures) = ("nothing", Measures::new());
        if ending == Ending::Finished {
            let (name, source) = if test.held_out_windows() > 0 { ("test", test) } else { ("valid", training.source) };
            observer.evaluating(source.held_out_windows());
            let steps = training.config.steps;
            match (Training { source, identity: Identity::default(), ..*training }).evaluate(&model, usize::MAX)? {
                Some(found) if self.poll().is_continue() => measures = found,
                // The checkpoint holds all steps, from which a resumed run comes here again.
                _ => ending = Ending::Interrupted(steps),
            }
            if let Some((measure, value)) = measures.iter().find(|(_, value)| !value.is_finite()) {
                return Err(TrainError::Measure { name: measure.clone(), split: name, value: *value }.into());
            }
            if !measures.is_empty() {
                evaluated_on = name;
                Recorder::open(self.folder, steps)?.write(steps, name, &measures)?;
            }
        }
        Ok((model, Finished { ending, best, evaluated_on, measures, wall_s: begun.elapsed().as_secs_f64() }))
    }

    /// What `run.json` says of a run over a corpus; `vocabulary` names the one that it began with.
    pub(super) fn manifest<C: StageConfig>(
        &self,
        config: &C,
        corpus: &Corpus,
        vocabulary: Option<&str>,
        windows: (usize, usize),
        finished: &Finished,
    ) -> Manifest<C> {
        let counts = Some(corpus.counts());
        Manifest { counts, ..self.manifest_of(config, corpus.digests(), vocabulary, windows, finished) }
    }

    /// [`Job::manifest`] of any inputs.
    pub(super) fn manifest_of<C: StageConfig>(
        &self,
        config: &C,
        inputs: &[InputDigest],
        vocabulary: Option<&str>,
        windows: (usize, usize),
        finished: &Finished,
    ) -> Manifest<C> {
        let elapsed = std::time::Duration::from_secs_f64(finished.wall_s);
        let started = SystemTime::now().checked_sub(elapsed).and_then(|start| start.duration_since(UNIX_EPOCH).ok());
        Manifest {
            program: concat!("vqdna ", env!("CARGO_PKG_VERSION")).to_owned(),
            command_line: self.command_line.to_vec(),
            started_unix_s: started.map_or(0, |since| since.as_secs()),
            wall_s: finished.wall_s,
            device: self.device_name.to_owned(),
            threads: rayon::current_num_threads(),
            machine: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            config: config.clone(),
            vocabulary: vocabulary.map(str::to_owned),
            inputs: inputs.to_vec(),
            counts: None,
            windows,
            steps: config.train().steps,
            evaluated_on: finished.evaluated_on.to_owned(),
            measures: measures_json(&finished.measures),
        }
    }
}

/// Whether to go on while a flag is not set.
pub(super) fn poll(stop: &AtomicBool) -> ControlFlow<()> {
    if stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}

/// Rule by which windows of reads are held out: by a hash of what stands for the name of a read (see [`Names::Any`]), not of the name.
const HELD_OUT_READS: u64 = 2;

/// [`identity`] of a run over a corpus.
pub(super) fn identity_over(config: &impl CorpusConfig, corpus: &Corpus, model: Option<&str>) -> Identity {
    let holds_out = matches!(config.data().split, SplitPolicy::Hash { valid, test } if valid + test > 0.0);
    let held_out_reads = (corpus.has_shared_names() && holds_out).then_some(HELD_OUT_READS);
    Identity { held_out_reads, ..identity(config, corpus.digests(), model) }
}

/// What a run depends on: the essence of its config, the contents of its inputs, and the vocabulary or model that it began with.
pub(super) fn identity(config: &impl StageConfig, inputs: &[InputDigest], model: Option<&str>) -> Identity {
    Identity {
        settings: toml::to_string(&config.essence()).expect("a checked config is TOML"),
        inputs: inputs.iter().map(|input| input.blake3.clone()).collect(),
        model: model.map(str::to_owned),
        held_out_reads: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::learn::LearnConfig;
    use vqdna_data::segment::Policy;

    #[test]
    fn runs_that_hold_out_reads_name_the_rule() {
        let version = |names, text: &str, valid: f64| {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("input");
            std::fs::write(&path, text).expect("written");
            let go_on = &mut |_| ControlFlow::Continue(());
            let corpus =
                Corpus::read_with_progress(&[path], Policy::default(), names, u64::MAX, go_on).expect("readable");
            let mut config = LearnConfig::default();
            config.data.split = SplitPolicy::Hash { valid, test: 0.0 };
            identity_over(&config, &corpus, None).held_out_reads
        };
        let (reads, contigs) = ("@a\nACGT\n+\nIIII\n", ">a\nACGT\n");
        assert_eq!(version(Names::Any, reads, 0.1), Some(HELD_OUT_READS));
        // Nothing is chosen by names, or by the names of reads.
        assert_eq!(version(Names::Any, reads, 0.0), None);
        assert_eq!(version(Names::Unique, reads, 0.1), None);
        assert_eq!(version(Names::Any, contigs, 0.1), None);
    }
}
