//! Stage 1 as one call: FASTA in, a folder with a vocabulary out.

use burn::prelude::*;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use vqdna_data::aside::{AsideFile, write_aside};
use vqdna_data::corpus::Corpus;
use vqdna_data::fasta::FastaError;
use vqdna_data::segment::Counts;
use vqdna_data::split::{Split, SplitError};

use super::config::{ConfigError, RunConfig};
use super::source::WindowSource;
use crate::folder::{self, FolderError, Manifest, ModelConfig, measures_json};
use crate::objective::{Measures, reconstruct::Reconstruct};
use crate::train::record::Recorder;
use crate::train::{Ending, Observer, TrainError, Trained, Training};

/// What to learn, from what, and where to.
pub struct Learn<'a> {
    /// FASTA or FASTQ files; `-` is standard input.
    pub inputs: &'a [PathBuf],
    /// The run's folder.
    pub folder: &'a Path,
    /// The checked config.
    pub config: &'a RunConfig,
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

/// What came of it.
#[derive(Clone, Debug)]
pub struct Learned {
    /// Whether all steps were done.
    pub ending: Ending,
    /// `test` or `valid`, whichever windows the measures were taken on; `nothing` if none are held out.
    pub evaluated_on: &'static str,
    /// Final measures; empty if interrupted or nothing is held out.
    pub measures: Measures,
    /// Duration of this call in seconds.
    pub wall_s: f64,
}

/// What the caller is told on the way, besides [`Observer`].
pub trait LearnObserver: Observer {
    /// While inputs are read: letters so far.
    fn reading(&mut self, bases: u64);
    /// When they are read: what the policies did, and numbers of windows to train on and held out.
    fn read(&mut self, counts: &Counts, windows: (usize, usize));
    /// Before the final evaluation of this many windows.
    fn evaluating(&mut self, windows: usize);
}

/// Why nothing was learned.
#[derive(Debug, thiserror::Error)]
pub enum LearnError {
    /// See [`ConfigError`].
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// See [`FastaError`].
    #[error(transparent)]
    Fasta(#[from] FastaError),
    /// See [`SplitError`].
    #[error(transparent)]
    Split(#[from] SplitError),
    /// See [`TrainError`].
    #[error(transparent)]
    Train(#[from] TrainError),
    /// See [`FolderError`].
    #[error(transparent)]
    Folder(#[from] FolderError),
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
    /// No bases to learn from.
    #[error("there is no window to train on: {bases} bases were read, and {reason}")]
    NothingToLearn {
        /// Letters read.
        bases: u64,
        /// Where they went.
        reason: &'static str,
    },
}

impl Learn<'_> {
    /// Reads the inputs, trains, evaluates, and writes the folder.
    ///
    /// # Errors
    /// See [`LearnError`]. Nothing but logs and checkpoints is written before training ends.
    pub fn run(&self, observer: &mut dyn LearnObserver) -> Result<Learned, LearnError> {
        let begun = Instant::now();
        self.config.check()?;
        let created = self.prepare_folder()?;
        let memory = self.config.data.memory_megabases.saturating_mul(1_000_000);
        let letters = self.config.data.letters;
        let read = Corpus::read_with_progress(self.inputs, letters, memory, &mut |bases| observer.reading(bases));
        let corpus = read.inspect_err(|_| leave_no_trace(&created))?;
        let training_device = self.device.clone().autodiff();
        let source = WindowSource::new(&corpus, self.config, &training_device);
        self.check_data(&corpus, &source).inspect_err(|_| leave_no_trace(&created))?;
        observer.read(&corpus.counts(), source.sizes());
        self.write_config()?;

        let objective =
            Reconstruct { config: self.config.tokenizer.clone(), seed: self.config.seed, start_rows: START_ROWS };
        let training = Training {
            objective: &objective,
            source: &source,
            config: &self.config.train,
            selection: None,
            fingerprint: self.fingerprint(&corpus),
            folder: self.folder,
            stop: self.stop,
        };
        let model = self.config.tokenizer.init(self.config.seed, &training_device);
        let Trained { model, ending, .. } = training.run(model, self.resume, &training_device, observer)?;
        let (mut evaluated_on, mut measures) = ("nothing", Measures::new());
        let windows = source.sizes();
        if ending == Ending::Finished {
            let test = WindowSource::new(&corpus, self.config, &training_device).holding_out(Split::Test);
            let (name, held_out) = if test.sizes().1 > 0 { ("test", &test) } else { ("valid", &source) };
            observer.evaluating(held_out.sizes().1);
            measures =
                Training { source: held_out, fingerprint: String::new(), ..training }.evaluate(&model, usize::MAX)?;
            if !measures.is_empty() {
                evaluated_on = name;
                let steps = self.config.train.steps;
                Recorder::open(self.folder, steps)?.write(steps, name, &measures)?;
            }
            let manifest = self.manifest(&corpus, begun, windows, evaluated_on, &measures);
            folder::save(self.folder, &ModelConfig::new(&self.config.tokenizer, letters), &model.valid(), &manifest)?;
        }
        Ok(Learned { ending, evaluated_on, measures, wall_s: begun.elapsed().as_secs_f64() })
    }

    /// Makes the folder, so that an unwritable place is known before any work; returns the folders that were not there.
    fn prepare_folder(&self) -> Result<Vec<PathBuf>, LearnError> {
        let taken = |what, hint| LearnError::Taken { folder: self.folder.to_owned(), what, hint };
        let holds = |name: &str| self.folder.join(name).exists();
        let has_checkpoint = holds("checkpoint") || holds("checkpoint.former");
        if self.resume {
            if holds("model.safetensors") && !has_checkpoint {
                return Err(taken("a finished model, and no checkpoint to go on from", ""));
            }
        } else if holds("model.safetensors") || has_checkpoint {
            return Err(taken("a model or checkpoint", ", or go on with `--resume`"));
        } else if !holds("config.toml") && std::fs::read_dir(self.folder).is_ok_and(|mut files| files.next().is_some())
        {
            // A run that diverged leaves its config and log, and may be tried again; anything else is not ours.
            return Err(taken("other files", ""));
        }
        let missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let created = self.folder.ancestors().take_while(missing).map(Path::to_owned).collect();
        std::fs::create_dir_all(self.folder).map_err(self.output_error())?;
        // Dropped at once: only whether it can be made matters.
        AsideFile::create(&self.folder.join("config.toml")).map_err(self.output_error())?;
        Ok(created)
    }

    /// Writes the resolved config. A folder with a checkpoint keeps its own: the run goes on only if the two are equal.
    fn write_config(&self) -> Result<(), LearnError> {
        if self.resume && (self.folder.join("checkpoint").exists() || self.folder.join("checkpoint.former").exists()) {
            return Ok(());
        }
        let config = toml::to_string_pretty(self.config).expect("a checked config is TOML");
        write_aside(&self.folder.join("config.toml"), config.as_bytes()).map_err(self.output_error())
    }

    fn output_error(&self) -> impl Fn(std::io::Error) -> LearnError {
        let folder = self.folder.to_owned();
        move |source| LearnError::Output { folder: folder.clone(), source }
    }

    fn check_data(&self, corpus: &Corpus, source: &WindowSource) -> Result<(), LearnError> {
        self.config.data.split.check(corpus.contigs().iter().map(|name| &**name))?;
        if source.sizes().0 > 0 {
            return Ok(());
        }
        let bases = corpus.counts().bases;
        let reason = if bases == 0 { "no record holds any" } else { "all are dropped by a letter policy or held out" };
        Err(LearnError::NothingToLearn { bases, reason })
    }

    /// Names what the run depends on: the config and the contents of the inputs. What is computed again changes no bit of a result, so
    /// that a run that died for want of memory may go on with less.
    fn fingerprint(&self, corpus: &Corpus) -> String {
        let mut hash = blake3::Hasher::new();
        let mut config = self.config.clone();
        config.train.recompute = false;
        hash.update(toml::to_string(&config).expect("a checked config is TOML").as_bytes());
        corpus.digests().iter().for_each(|input| {
            hash.update(input.blake3.as_bytes());
        });
        hash.finalize().to_string()
    }

    fn manifest(
        &self,
        corpus: &Corpus,
        begun: Instant,
        windows: (usize, usize),
        evaluated_on: &str,
        measures: &Measures,
    ) -> Manifest<RunConfig> {
        let elapsed = begun.elapsed();
        let started = SystemTime::now().checked_sub(elapsed).and_then(|start| start.duration_since(UNIX_EPOCH).ok());
        Manifest {
            program: concat!("vqdna ", env!("CARGO_PKG_VERSION")).to_owned(),
            command_line: self.command_line.to_vec(),
            started_unix_s: started.map_or(0, |since| since.as_secs()),
            wall_s: elapsed.as_secs_f64(),
            device: self.device_name.to_owned(),
            threads: rayon::current_num_threads(),
            machine: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            config: self.config.clone(),
            inputs: corpus.digests().to_vec(),
            counts: corpus.counts(),
            windows,
            steps: self.config.train.steps,
            evaluated_on: evaluated_on.to_owned(),
            measures: measures_json(measures),
        }
    }
}

/// Removes folders that were made for data that cannot be used, innermost first.
fn leave_no_trace(created: &[PathBuf]) {
    for folder in created {
        // Fails if something is in it by now, which is then not ours to remove.
        let _ = std::fs::remove_dir(folder);
    }
}

/// Vectors that k-means sees: the windows that it takes to gather them come from the first steps of training.
pub(crate) const START_ROWS: usize = 65_536;
