//! Runs of stage 3: resumed ones equal uninterrupted ones in every bit, and a folder holds what was learned.

use burn::prelude::*;
use std::fmt::Write as _;

use crate::resume::{Event, Place, assert_equal_runs};
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::folder::{Finetuned, ModelConfig, PretrainedConfig, Vocabulary};
use vqdna::infer::predict::{Merge, Predicted, predict};
use vqdna::infer::{Execution, Sequence, Windows};
use vqdna::run::config::StageConfig;
use vqdna::run::finetune::{Base, Finetune, FinetuneConfig, Mode, Task};
use vqdna::run::stage::{Finished, StageError};
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::train::Ending;
use vqdna_data::labelled::Splits;
use vqdna_data::segment::Policy;
use vqdna_data::synthetic;

/// A model that has learned nothing, which changes no law.
fn base() -> Base {
    let tokenizer = Preset::Tiny.config(Kind::Hrq);
    let backbone = TransformerConfig::tiny();
    let pretrained = PretrainedConfig {
        vocabulary: "vocabulary".to_owned(),
        codebook_sizes: tokenizer.quantizer.codebook_sizes(),
        backbone: backbone.clone(),
    };
    let config = ModelConfig::of_pretrained(&tokenizer, Policy::default(), 64, pretrained);
    let model = tokenizer.init(1, &Device::flex());
    let backbone = Some(backbone.init(tokenizer.d_code, 1, &Device::flex()));
    let vocabulary = Vocabulary { tokenizer, letters: Policy::default(), model, digest: "vocabulary".to_owned() };
    Base { config, vocabulary: Some(vocabulary), backbone, encoder: None, digest: "base".to_owned() }
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

fn finetune(
    place: &Place,
    name: &str,
    config: &FinetuneConfig,
    resume: bool,
    event: Event,
) -> Result<Finished, StageError> {
    let (base, device, data) = (base(), Device::flex(), place.folder("data"));
    std::fs::create_dir_all(&data).expect("made");
    for (name, first, count) in [("train.csv", 0, 30), ("dev.csv", 100, 12), ("test.csv", 200, 12)] {
        std::fs::write(data.join(name), rows(first, count)).expect("written");
    }
    let splits = Splits::read(&data, &config.data).expect("readable");
    let task = Task::new(splits, &base, config, &device).expect("letters");
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
        let model = Finetuned::load(&place.folder(keeps), &device).expect("a model");
        assert_eq!(model.finetuned.lora.is_some(), keeps == "true");
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
