//! Runs of stage 3: resumed ones equal uninterrupted ones in every bit, and a folder holds what was learned.

use burn::prelude::*;
use std::fmt::Write as _;
use std::sync::atomic::AtomicBool;

use crate::resume::{Event, Place, STEPS, assert_equal_ends, assert_equal_runs};
use vqdna::backbone::BackboneConfig;
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::infer::predict::{FineTuned, Merge, Predicted, predict};
use vqdna::infer::{Execution, Sequence, Windows};
use vqdna::model::embed::encoder;
use vqdna::model_dir::ModelConfig;
use vqdna::objective::ObjectiveConfig;
use vqdna::objective::masking::MaskingConfig;
use vqdna::run::config::StageConfig;
use vqdna::run::finetune::{Base, Finetune, FinetuneConfig, Mode, Task};
use vqdna::run::kmers;
use vqdna::run::stage::{Finished, Job, StageError};
use vqdna::tokenizer::Source;
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::train::Ending;
use vqdna_data::labelled::Splits;
use vqdna_data::segment::Policy;
use vqdna_data::synthetic;

/// A model that has learned nothing, which changes no law.
fn base() -> Base {
    let tokenizer = Preset::Tiny.config(Kind::Hrq);
    let (backbone, objective) =
        (BackboneConfig::from(TransformerConfig::tiny()), ObjectiveConfig::Masked(MaskingConfig::default()));
    let encoder = encoder(&backbone, Source::Vectors(tokenizer.d_code), 1, &Device::flex());
    let vocabulary = Some("vocabulary".to_owned());
    let letters = Policy::default();
    let config = ModelConfig::of_pretrained(tokenizer.clone(), vocabulary, letters, backbone, objective, Some(64));
    let tokenizer = tokenizer.init(1, &Device::flex()).into();
    Base { config, tokenizer, encoder: Some(encoder), digest: "base".to_owned() }
}

/// Sequences of 20 to 39 bases whose class is their first base.
fn rows(first: u64, count: u64) -> String {
    (first..first + count).fold("sequence,label\n".to_owned(), |mut text, n| {
        let letters = String::from_utf8(synthetic::genome(n, 20 + n as usize % 20, 0.5)).expect("letters");
        let _ = writeln!(text, "{letters},{}", u8::from(letters.as_bytes()[0] > b'C'));
        text
    })
}

/// Small and short, with evaluations on either side of a stop.
fn config(mode: Mode, changes: &[&str]) -> FinetuneConfig {
    let all = [
        "train.steps=10",
        "train.batch=4",
        "train.log_every=1",
        "train.evaluate_every=3",
        "train.checkpoint_every=4",
        "selection.measure=mcc",
    ];
    let all: Vec<String> = all.iter().chain(changes).map(|&change| change.to_owned()).collect();
    let config = FinetuneConfig::of_mode(mode).with_changes(None, &all).expect("known fields");
    config.check().expect("a sound config");
    config
}

/// Three parts of a data set.
fn splits(place: &Place, config: &FinetuneConfig) -> Splits {
    let data = place.folder("data");
    std::fs::create_dir_all(&data).expect("made");
    for (name, first, count) in [("train.csv", 0, 30), ("dev.csv", 100, 12), ("test.csv", 200, 12)] {
        std::fs::write(data.join(name), rows(first, count)).expect("written");
    }
    Splits::read(&data, &config.data).expect("readable")
}

fn finetune(
    place: &Place,
    name: &str,
    config: &FinetuneConfig,
    resume: bool,
    event: Event,
) -> Result<Finished, StageError> {
    finetune_on(splits(place, config), place, name, config, resume, event)
}

fn finetune_on(
    splits: Splits,
    place: &Place,
    name: &str,
    config: &FinetuneConfig,
    resume: bool,
    event: Event,
) -> Result<Finished, StageError> {
    let (base, device) = (base(), Device::flex());
    let task = Task::new(splits, &base, config, &device, &AtomicBool::new(false))?;
    place.run(name, resume, event, |job, observer| {
        Finetune { job, config, base: &base, task: &task }.run(observer).map(|done| done.finished)
    })
}

#[test]
fn a_stop_leaves_no_trace() {
    for (mode, changes) in [
        (Mode::Lora, &["lora.dropout=0.2", "keep_adapters=true"][..]),
        (Mode::Lora, &["reverse_complement=average", "train.accumulate=2"]),
        (Mode::Full, &["head.dropout=0.3", "class_weights=balanced", "head.pooling=max"]),
        (Mode::Probe, &["reverse_complement=augment"]),
    ] {
        let (place, config) = (Place::new(), config(mode, changes));
        let all = finetune(&place, "whole", &config, false, Event::Nothing).expect("fine-tuned");
        let first = finetune(&place, "parts", &config, false, Event::Stop(5)).expect("interrupted");
        assert_eq!(first.ending, Ending::Interrupted(5));
        let second = finetune(&place, "parts", &config, true, Event::Nothing).expect("resumed");
        assert_eq!((second.ending, second.best), (Ending::Finished, all.best), "{mode:?} {changes:?}");
        assert_eq!(second.measures, all.measures, "{mode:?} {changes:?}");
        assert_equal_runs(&format!("{mode:?} {changes:?}"), &place.folder("whole"), &place.folder("parts"));
    }
}

/// Adapters beside the weights or folded into them are the same model.
#[test]
fn adapters_may_stay_apart() {
    let place = Place::new();
    let predicted = ["true", "false"].map(|keeps| {
        let config = config(Mode::Lora, &[&format!("keep_adapters={keeps}"), "train.schedule.rate=0.01"]);
        finetune(&place, keeps, &config, false, Event::Nothing).expect("fine-tuned");
        let device = Device::flex();
        let model = FineTuned::load(&place.folder(keeps), &device).expect("a model");
        assert_eq!(model.task().lora.is_some(), keeps == "true");
        let sequence = |n: u64| Sequence::new(n.to_string(), synthetic::genome(n, 30, 0.5));
        let windows = Windows { length: 64, stride: 64 };
        let sequences: Vec<_> = (0..5).map(sequence).collect();
        let found = predict(&model, &sequences, windows, Merge::Mean, Execution::on(&device));
        found.collect::<Result<Vec<Predicted>, _>>().expect("nobody stops it")
    });
    for (apart, folded) in predicted[0].iter().zip(&predicted[1]) {
        let near = apart.values.iter().zip(&folded.values).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near, "{apart:?} {folded:?}");
    }
}

#[test]
fn a_run_ends_when_nothing_gets_better() {
    let place = Place::new();
    // With no step to speak of, the first evaluation stays the best.
    let changes = ["train.steps=1000", "train.schedule.rate=1e-30", "selection.patience=2", "selection.measure=loss"];
    let done = finetune(&place, "run", &config(Mode::Probe, &changes), false, Event::Nothing).expect("fine-tuned");
    let best = done.best.expect("a best evaluation");
    assert_eq!((done.ending, best.step, best.waited), (Ending::Finished, 3, 2));
}

/// The model is trained then, and its checkpoint holds all steps.
#[test]
fn a_stop_within_the_last_evaluation_leaves_no_trace() {
    for (mode, changes) in [
        (Mode::Full, &["reverse_complement=average"][..]),
        // Ended by patience, before all steps.
        (Mode::Probe, &["train.schedule.rate=1e-30", "selection.patience=1", "selection.measure=loss"]),
    ] {
        let (place, config) = (Place::new(), config(mode, changes));
        let all = finetune(&place, "whole", &config, false, Event::Nothing).expect("fine-tuned");
        let first = finetune(&place, "parts", &config, false, Event::StopEvaluating).expect("interrupted");
        let done = if mode == Mode::Full { STEPS } else { 6 };
        assert_eq!((first.ending, first.measures.len()), (Ending::Interrupted(done), 0), "{mode:?}");
        assert!(!place.folder("parts").join("model.safetensors").exists(), "{mode:?}");
        let second = finetune(&place, "parts", &config, true, Event::Nothing).expect("resumed");
        assert_eq!(
            (second.ending, second.best, second.measures),
            (Ending::Finished, all.best, all.measures),
            "{mode:?}"
        );
        assert_equal_ends(&format!("{mode:?}"), &place.folder("whole"), &place.folder("parts"));
    }
}

/// Codes, features and counts of k-mers are computed before the first step.
#[test]
fn a_stop_before_the_first_step_is_heard() {
    let (place, config) = (Place::new(), config(Mode::Probe, &[]));
    let (base, device, stop) = (base(), Device::flex(), AtomicBool::new(true));
    let splits = splits(&place, &config);
    let stopped = kmers::baseline(&splits, &device, &stop);
    assert!(matches!(stopped, Err(StageError::Interrupted)), "{stopped:?}");
    let stopped = Task::new(splits.clone(), &base, &config, &device, &stop);
    assert!(matches!(stopped, Err(StageError::Interrupted)), "{stopped:?}");
    let task = Task::new(splits, &base, &config, &device, &AtomicBool::new(false)).expect("letters");
    let stopped = place.run("run", false, Event::Nothing, |job, observer| {
        let job = Job { stop: &stop, ..job };
        Finetune { job, config: &config, base: &base, task: &task }.run(observer).map(|done| done.finished)
    });
    assert_eq!(stopped.expect("interrupted").ending, Ending::Interrupted(0));
    finetune(&place, "run", &config, true, Event::Nothing).expect("resumed");
}

#[test]
fn pairs_have_no_counts_of_k_mers() {
    let place = Place::new();
    for part in ["train", "dev", "test"] {
        let rows = "sequence_1,sequence_2,label\nACGTACGT,TTGA,0\nGGGTACGT,TTGA,1\n";
        std::fs::create_dir_all(place.folder("pairs")).expect("made");
        std::fs::write(place.folder("pairs").join(format!("{part}.csv")), rows).expect("written");
    }
    let splits = Splits::read(&place.folder("pairs"), &config(Mode::Probe, &[]).data).expect("readable");
    let found = kmers::baseline(&splits, &Device::flex(), &AtomicBool::new(false));
    assert!(found.expect("nobody stops it").is_none());
}

#[test]
fn a_measure_to_select_by_has_a_value() {
    let place = Place::new();
    let with = |dev: &str, config: &FinetuneConfig| {
        drop(splits(&place, config));
        std::fs::write(place.folder("data").join("dev.csv"), format!("sequence,label\n{dev}")).expect("written");
        let splits = Splits::read(&place.folder("data"), &config.data).expect("readable");
        finetune_on(splits, &place, "run", config, false, Event::Nothing)
    };
    for (dev, measure, parts) in [
        ("ACGTACGT,0\nACCTACGT,0\n", "mcc", ["`mcc`", "too much alike", "loss, f1_macro, "]),
        ("ACGTACGT,1\nACCTACGT,1\n", "auroc", ["`auroc`", "too much alike", "recall_positive, or "]),
        ("ACGTACGT,0\nACCTACGT,1\n", "spearman", ["`spearman`", "measures loss, mcc, ", "auroc"]),
    ] {
        let config = config(Mode::Probe, &[&format!("selection.measure={measure}")]);
        let message = with(dev, &config).expect_err(measure).to_string();
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        assert!(!place.folder("run").exists(), "known before anything is written");
    }
    // What has a value is selected by, whatever the classes of dev.
    let config = config(Mode::Probe, &["selection.measure=accuracy"]);
    with("ACGTACGT,0\nACCTACGT,0\n", &config).expect("fine-tuned").best.expect("a best evaluation");
}
