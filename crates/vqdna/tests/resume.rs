//! Ten steps are five steps, a stop, and five more, in every bit: weights, optimiser, codebooks, log.

use burn::prelude::*;
use serde_json::Value;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use vqdna::objective::Measures;
use vqdna::run::config::StageConfig;
use vqdna::run::learn::{Learn, LearnConfig};
use vqdna::run::stage::{Finished, Job, StageError, StageObserver};
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::train::{Ending, Observer, TrainError};
use vqdna_data::segment::Counts;
use vqdna_data::synthetic;

pub const STEPS: u64 = 10;

/// What happens at a step.
#[derive(Clone, Copy, PartialEq)]
pub enum Event {
    Nothing,
    /// The stop flag is set.
    Stop(u64),
    /// The program dies.
    Death(u64),
    /// The stop flag is set while inputs are read.
    StopReading,
    /// The stop flag is set before the last evaluation.
    StopEvaluating,
}

struct Watch<'a>(Event, &'a AtomicBool);

impl Observer for Watch<'_> {
    fn started(&mut self, _: Option<u64>) {
        if self.0 == Event::Stop(0) {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn step(&mut self, done: u64, _: usize, _: Option<&Measures>) {
        if self.0 == Event::Stop(done) {
            self.1.store(true, Ordering::Relaxed);
        }
        assert!(self.0 != Event::Death(done), "planned death at step {done}");
    }
    fn evaluated(&mut self, _: u64, _: &Measures) {}
    fn alarm(&mut self, _: &str) {}
}

impl StageObserver for Watch<'_> {
    fn reading(&mut self, _: u64) {
        if self.0 == Event::StopReading {
            self.1.store(true, Ordering::Relaxed);
        }
    }
    fn read(&mut self, _: &Counts, _: (usize, usize)) {}
    fn evaluating(&mut self, _: usize) {
        if self.0 == Event::StopEvaluating {
            self.1.store(true, Ordering::Relaxed);
        }
    }
}

/// A folder with a small genome; runs beside it.
pub struct Place(tempfile::TempDir);

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a folder"));
        let letters = |seed| String::from_utf8(synthetic::genome(seed, 1500, 0.4)).expect("letters");
        std::fs::write(place.genome(), format!(">a\n{}\n>b\n{}\n", letters(1), letters(2))).expect("written");
        place
    }

    pub fn genome(&self) -> PathBuf {
        self.0.path().join("genome.fa")
    }

    pub fn folder(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn learn(&self, name: &str, config: &LearnConfig, resume: bool, event: Event) -> Result<Finished, StageError> {
        self.run(name, resume, event, |job, observer| Learn { job, config }.run(observer))
    }

    /// Runs a stage into a folder.
    pub fn run(
        &self,
        name: &str,
        resume: bool,
        event: Event,
        stage: impl FnOnce(Job, &mut dyn StageObserver) -> Result<Finished, StageError>,
    ) -> Result<Finished, StageError> {
        let stop = AtomicBool::new(false);
        let job = Job {
            inputs: &[self.genome()],
            folder: &self.folder(name),
            device_name: "cpu",
            device: &Device::flex(),
            resume,
            command_line: &[],
            stop: &stop,
        };
        stage(job, &mut Watch(event, &stop))
    }
}

/// Small and short; codes are revived and windows held out on either side of the stop.
fn config(kind: Kind, changes: &[&str]) -> LearnConfig {
    let mut all = vec![
        "train.steps=10",
        "train.batch=2",
        "train.log_every=1",
        "train.evaluate_every=3",
        "train.checkpoint_every=4",
        "data.length=64",
        "data.split.valid=0.2",
    ];
    if kind != Kind::Fsq {
        all.extend(["tokenizer.quantizer.codebook.revive_every=3", "tokenizer.quantizer.codebook.revive_below=0.2"]);
    }
    let all: Vec<String> = all.iter().chain(changes).map(|&change| change.to_owned()).collect();
    LearnConfig::preset(Preset::Tiny, kind).with_changes(None, &all).expect("known fields")
}

pub fn bytes(folder: &Path, file: &str) -> Vec<u8> {
    std::fs::read(folder.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// The log without times.
pub fn log(folder: &Path) -> Vec<Value> {
    let text = String::from_utf8(bytes(folder, "metrics.jsonl")).expect("text");
    let entry = |line: &str| {
        let mut entry: Value = serde_json::from_str(line).expect("JSON");
        entry.as_object_mut().expect("an object").remove("wall_s");
        entry
    };
    text.lines().map(entry).collect()
}

/// Of runs of any length.
#[track_caller]
pub fn assert_equal_ends(what: &str, whole: &Path, resumed: &Path) {
    for file in ["model.safetensors", "checkpoint/model.safetensors", "checkpoint/optimizer.safetensors", "config.toml"]
    {
        assert!(bytes(whole, file) == bytes(resumed, file), "{what}: {file} differs");
    }
    assert_eq!(log(resumed), log(whole), "{what}: logs");
}

/// Of runs of all steps.
#[track_caller]
pub fn assert_equal_runs(what: &str, whole: &Path, resumed: &Path) {
    assert_equal_ends(what, whole, resumed);
    let entries = log(resumed);
    let steps = |split: &str| -> Vec<u64> {
        entries
            .iter()
            .filter(|entry| entry["split"] == split)
            .map(|entry| entry["step"].as_u64().expect("a step"))
            .collect()
    };
    assert_eq!(steps("train"), (1..=STEPS).collect::<Vec<_>>(), "{what}");
    assert_eq!(steps("valid"), [3, 6, 9, STEPS], "{what}: the last one after training");
}

fn stopped_and_resumed_is_uninterrupted(kind: Kind, changes: &[&str]) {
    let (place, config) = (Place::new(), config(kind, changes));
    let whole = place.learn("whole", &config, false, Event::Nothing).expect("learned");
    assert_eq!(whole.ending, Ending::Finished);

    let first = place.learn("parts", &config, false, Event::Stop(5)).expect("interrupted");
    assert_eq!(first.ending, Ending::Interrupted(5));
    assert!(!place.folder("parts").join("model.safetensors").exists(), "an unfinished model");
    let second = place.learn("parts", &config, true, Event::Nothing).expect("resumed");
    assert_eq!(second.ending, Ending::Finished);
    assert_eq!(second.measures, whole.measures);
    assert_equal_runs(&format!("{kind:?} {changes:?}"), &place.folder("whole"), &place.folder("parts"));
}

#[test]
fn a_stop_leaves_no_trace() {
    for kind in [Kind::Vq, Kind::Hrq, Kind::Rq, Kind::Fsq] {
        stopped_and_resumed_is_uninterrupted(kind, &[]);
    }
}

/// Evaluations stand after steps 3, 6 and 9, and at the end.
#[test]
fn a_stop_within_an_evaluation_leaves_no_trace() {
    let (place, config) = (Place::new(), config(Kind::Hrq, &[]));
    place.learn("whole", &config, false, Event::Nothing).expect("learned");
    for (name, event, done) in
        [("three", Event::Stop(3), 3), ("nine", Event::Stop(9), 9), ("last", Event::StopEvaluating, STEPS)]
    {
        let first = place.learn(name, &config, false, event).expect("interrupted");
        assert_eq!((first.ending, first.measures.len()), (Ending::Interrupted(done), 0));
        let again = place.learn(name, &config, true, event).expect("resumed");
        let expected = if event == Event::StopEvaluating { Ending::Interrupted(done) } else { Ending::Finished };
        assert_eq!(again.ending, expected, "{name}");
        if again.ending != Ending::Finished {
            place.learn(name, &config, true, Event::Nothing).expect("resumed");
        }
        assert_equal_runs(name, &place.folder("whole"), &place.folder(name));
    }
}

/// The model is not written then, though nothing is left to do.
#[test]
fn a_stop_at_the_last_step_leaves_no_trace_without_an_evaluation() {
    let (place, config) = (Place::new(), config(Kind::Vq, &["data.split.valid=0"]));
    place.learn("whole", &config, false, Event::Nothing).expect("learned");
    let first = place.learn("parts", &config, false, Event::Stop(STEPS)).expect("interrupted");
    assert_eq!(first.ending, Ending::Interrupted(STEPS));
    place.learn("parts", &config, true, Event::Nothing).expect("resumed");
    assert_equal_ends("from the end", &place.folder("whole"), &place.folder("parts"));
}

/// Nothing was begun: the folder goes again, or is as it was.
#[test]
fn a_stop_while_reading_changes_nothing() {
    let (place, config) = (Place::new(), config(Kind::Vq, &[]));
    let first = place.learn("run", &config, false, Event::StopReading).expect("interrupted");
    assert_eq!(first.ending, Ending::Interrupted(0));
    assert!(!place.folder("run").exists());
    place.learn("run", &config, false, Event::Stop(5)).expect("interrupted");
    let before = bytes(&place.folder("run"), "checkpoint/state.json");
    let again = place.learn("run", &config, true, Event::StopReading).expect("interrupted");
    assert_eq!(again.ending, Ending::Interrupted(5));
    assert!(bytes(&place.folder("run"), "checkpoint/state.json") == before);
}

/// Nothing is begun then: there is no checkpoint yet.
#[test]
fn a_stop_before_the_first_step_leaves_no_trace() {
    let (place, config) = (Place::new(), config(Kind::Fsq, &[]));
    place.learn("whole", &config, false, Event::Nothing).expect("learned");
    let first = place.learn("parts", &config, false, Event::Stop(0)).expect("interrupted");
    assert_eq!(first.ending, Ending::Interrupted(0));
    place.learn("parts", &config, true, Event::Nothing).expect("resumed");
    assert_equal_runs("from the start", &place.folder("whole"), &place.folder("parts"));
}

#[test]
fn a_stop_leaves_no_trace_with_accumulation() {
    stopped_and_resumed_is_uninterrupted(Kind::Hrq, &["train.accumulate=2"]);
}

/// Forty-odd windows of one epoch end before ten steps of sixteen do.
#[test]
fn a_stop_leaves_no_trace_over_epochs_and_strands() {
    for strand in ["data.strand=random", "data.strand=both", "data.strand=forward"] {
        stopped_and_resumed_is_uninterrupted(Kind::Vq, &[strand, "train.batch=16"]);
    }
}

/// What is computed again is what was kept, in every bit: a run may go on with less memory.
#[test]
fn recomputation_leaves_no_trace() {
    for changes in [&["train.accumulate=2"][..], &["train.precision=bf16"]] {
        let recomputed = config(Kind::Hrq, &[changes, &["train.recompute=true"]].concat());
        let (place, kept) = (Place::new(), config(Kind::Hrq, changes));
        place.learn("whole", &kept, false, Event::Nothing).expect("learned");
        place.learn("parts", &kept, false, Event::Stop(5)).expect("interrupted");
        place.learn("parts", &recomputed, true, Event::Nothing).expect("resumed");
        assert_equal_runs(&format!("{changes:?}"), &place.folder("whole"), &place.folder("parts"));
    }
}

/// The last checkpoint is at step 4; the log went on to step 6.
#[test]
fn a_death_leaves_no_trace() {
    let (place, config) = (Place::new(), config(Kind::Hrq, &[]));
    place.learn("whole", &config, false, Event::Nothing).expect("learned");
    let death = catch_unwind(AssertUnwindSafe(|| place.learn("parts", &config, false, Event::Death(6))));
    assert!(death.is_err(), "it lived");
    place.learn("parts", &config, true, Event::Nothing).expect("resumed");
    assert_equal_runs("death", &place.folder("whole"), &place.folder("parts"));
}

#[test]
fn accumulation_is_part_of_the_run() {
    let place = Place::new();
    for (name, changes) in [("one", &["train.accumulate=1"]), ("two", &["train.accumulate=2"])] {
        place.learn(name, &config(Kind::Vq, changes), false, Event::Nothing).expect("learned");
    }
    let model = |name| bytes(&place.folder(name), "model.safetensors");
    assert!(model("one") != model("two"), "files that are compared above could never differ");
}

#[test]
fn another_run_is_not_resumed() {
    let (place, first) = (Place::new(), config(Kind::Vq, &[]));
    place.learn("run", &first, false, Event::Stop(5)).expect("interrupted");
    let folder = place.folder("run");
    let files = ["config.toml", "metrics.jsonl", "checkpoint/state.json", "checkpoint/model.safetensors"];
    let before = files.map(|file| bytes(&folder, file));
    for (other, differs) in [
        ("seed=2", "`seed` is 1 there and 2 here"),
        ("train.steps=11", "`train.steps` is 10 there and 11 here"),
        ("train.schedule.rate=0.002", "`train.schedule.rate` is 0.001 there and 0.002 here"),
        ("data.strand=both", "`data.strand` is \"random\" there and \"both\" here"),
    ] {
        let refused = place.learn("run", &config(Kind::Vq, &[other]), true, Event::Nothing).expect_err(other);
        assert!(matches!(refused, StageError::Train(TrainError::OtherRun { .. })), "{other}: {refused}");
        assert!(refused.to_string().contains(differs), "{refused}");
        for (file, before) in files.iter().zip(&before) {
            assert!(bytes(&folder, file) == *before, "{other}: {file} changed by a refused run");
        }
    }
    std::fs::write(place.genome(), ">a\n".to_owned() + &"ACGT".repeat(400) + "\n").expect("written");
    let refused = place.learn("run", &first, true, Event::Nothing).expect_err("another genome");
    assert!(matches!(refused, StageError::Train(TrainError::OtherRun { .. })), "{refused}");

    let taken = place.learn("run", &first, false, Event::Nothing).expect_err("a folder with a checkpoint");
    assert!(matches!(taken, StageError::Taken { .. }), "{taken}");
}
