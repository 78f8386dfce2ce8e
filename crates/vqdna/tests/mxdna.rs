//! Runs of a model that forms units: resumed ones equal uninterrupted ones in every bit, folders give back what was saved, and
//! what it predicts of a sequence depends on that sequence alone.

use burn::prelude::*;
use std::sync::atomic::AtomicBool;

use crate::host::assert_near;
use crate::resume::{Event, Place, assert_equal_runs};
use vqdna::head::sequence::Pooling;
use vqdna::infer::embed::{Embedded, Embedder};
use vqdna::infer::predict::{FineTuned, Merge, Predicted, predict};
use vqdna::infer::units::{Cutter, Unit};
use vqdna::infer::{Budget, Execution, Sequence, Windows};
use vqdna::model::embed::encoder;
use vqdna::model_dir::{FolderError, Kind, Model, Network, Vocabulary, publish};
use vqdna::run::config::StageConfig;
use vqdna::run::finetune::{Base, Finetune, FinetuneConfig, Mode, Task};
use vqdna::run::pretrain::{Pretrain, PretrainConfig};
use vqdna::run::stage::{Finished, StageError};
use vqdna::tokenizer::TokenizerConfig;
use vqdna::tokenizer::vqdna::Preset;
use vqdna::train::{Ending, TrainError};
use vqdna::weights;
use vqdna_data::labelled::Splits;
use vqdna_data::synthetic;

fn changed<C: StageConfig>(config: &C, changes: &[&str]) -> C {
    let all = ["train.steps=10", "train.log_every=1", "train.evaluate_every=3", "train.checkpoint_every=4"];
    let all: Vec<String> = all.iter().chain(changes).map(|&change| change.to_owned()).collect();
    let config = config.with_changes(None, &all).expect("known fields");
    config.check().expect("a sound config");
    config
}

fn pretrain(place: &Place, name: &str, changes: &[&str], resume: bool, event: Event) -> Result<Finished, StageError> {
    let small = ["train.batch=2", "data.length=64", "data.split.valid=0.2", "mxdna.units.sizes=[1, 2, 3, 5]"];
    let config = changed(&PretrainConfig::mxdna(Preset::Tiny), &[&small, changes].concat());
    place.run(name, resume, event, |job, observer| {
        Pretrain { job, config: &config, vocabulary: None, markov: None }.run(observer)
    })
}

/// The name of a folder with a model that has seen a little.
fn pretrained(place: &Place, changes: &[&str]) -> &'static str {
    pretrain(place, "pretrained", changes, false, Event::Nothing).expect("pre-trained");
    "pretrained"
}

/// Sequences of 20 to 39 bases whose class is their first base.
fn rows(first: u64, count: u64) -> String {
    let row = |n: u64| {
        let letters = String::from_utf8(synthetic::genome(n, 20 + n as usize % 20, 0.5)).expect("letters");
        format!("{letters},{}\n", u8::from(letters.as_bytes()[0] > b'C'))
    };
    "sequence,label\n".to_owned() + &(first..first + count).map(row).collect::<String>()
}

fn finetune(
    place: &Place,
    name: &str,
    config: &FinetuneConfig,
    resume: bool,
    event: Event,
) -> Result<Finished, StageError> {
    let (device, data) = (Device::flex(), place.folder("data"));
    std::fs::create_dir_all(&data).expect("made");
    for (name, first, count) in [("train.csv", 0, 24), ("dev.csv", 100, 12), ("test.csv", 200, 12)] {
        std::fs::write(data.join(name), rows(first, count)).expect("written");
    }
    let base = Base::load(&place.folder("pretrained"), &device)?;
    let splits = Splits::read(&data, &config.data).expect("readable");
    let task = Task::new(splits, &base, config, &device, &AtomicBool::new(false)).expect("letters");
    place.run(name, resume, event, |job, observer| {
        Finetune { job, config, base: &base, task: &task }.run(observer).map(|done| done.finished)
    })
}

fn tuning(mode: Mode, changes: &[&str]) -> FinetuneConfig {
    changed(&FinetuneConfig::of_mode(mode), &[&["train.batch=4", "selection.measure=mcc"], changes].concat())
}

fn sequences(lengths: &[usize]) -> Vec<Sequence> {
    let sequence =
        |(n, &length): (usize, &usize)| Sequence::new(n.to_string(), synthetic::genome(n as u64 + 50, length, 0.5));
    lengths.iter().enumerate().map(sequence).collect()
}

#[test]
fn a_stop_leaves_no_trace() {
    for changes in [
        &[][..],
        &["train.accumulate=2", "masking.span=4", "mxdna.units.grid=sparse"],
        &["train.precision=bf16", "mxdna.unit_places=rank", "data.strand=both", "data.soft_masked_weight=0"],
        // An expert that nothing is given to.
        &["mxdna.units.sizes=[1, 100]", "mxdna.base_layers=0"],
        // No unit at all, and now and then nothing masked.
        &["mxdna.units.sizes=[100]", "mxdna.unit_layers=0", "masking.share=0.005"],
    ] {
        let place = Place::new();
        let all = pretrain(&place, "whole", changes, false, Event::Nothing).expect("pre-trained");
        let first = pretrain(&place, "parts", changes, false, Event::Stop(5)).expect("interrupted");
        assert_eq!(first.ending, Ending::Interrupted(5));
        let second = pretrain(&place, "parts", changes, true, Event::Nothing).expect("resumed");
        assert_eq!((second.ending, second.measures), (Ending::Finished, all.measures));
        assert_equal_runs(&format!("{changes:?}"), &place.folder("whole"), &place.folder("parts"));
    }
    let place = Place::new();
    pretrained(&place, &[]);
    for (mode, changes) in [
        (Mode::Full, &["head.dropout=0.3", "class_weights=balanced", "head.pooling=first"][..]),
        (Mode::Probe, &["reverse_complement=augment"]),
    ] {
        let config = tuning(mode, changes);
        let [whole, parts] = ["whole", "parts"].map(|name| format!("{name} {mode:?}"));
        let all = finetune(&place, &whole, &config, false, Event::Nothing).expect("fine-tuned");
        finetune(&place, &parts, &config, false, Event::Stop(5)).expect("interrupted");
        let second = finetune(&place, &parts, &config, true, Event::Nothing).expect("resumed");
        assert_eq!((second.measures, second.best), (all.measures, all.best), "{mode:?}");
        assert_equal_runs(&format!("{mode:?}"), &place.folder(&whole), &place.folder(&parts));
    }
}

#[test]
fn another_run_is_not_resumed() {
    let place = Place::new();
    pretrain(&place, "run", &[], false, Event::Stop(5)).expect("interrupted");
    for other in ["seed=2", "balance=0.1", "mxdna.units.jitter=0", "mxdna.units.grid=sparse"] {
        let refused = pretrain(&place, "run", &[other], true, Event::Nothing).expect_err(other);
        assert!(matches!(refused, StageError::Train(TrainError::OtherRun { .. })), "{other}: {refused}");
    }
}

#[test]
fn folders_give_back_what_was_saved_and_say_what_they_are() {
    let (place, device) = (Place::new(), Device::flex());
    let changes = ["mxdna.units.grid=sparse", "mxdna.units.edge=batch", "mxdna.unit_places=rank"];
    let folder = place.folder(pretrained(&place, &changes));
    let loaded = Model::load(&folder, &device).expect("whole");
    assert_eq!(loaded.config.architectures, ["MxdnaForMaskedLM"]);
    assert_eq!(loaded.config.kind(), Kind::Pretrained);
    let (held, _) = weights::read(&folder.join("model.safetensors")).expect("readable");
    let Network::Language(network) = &loaded.network else { panic!("a language model") };
    assert_eq!(publish(&loaded.config, &loaded.tokenizer, network), held);
    assert!(held.keys().all(|name| name.starts_with("encoder.") || name.starts_with("masked.")));
    let error = Vocabulary::load(&folder, &device).expect_err("none");
    assert!(matches!(error, FolderError::NoVocabulary { .. }), "{error}");

    finetune(&place, "tuned", &tuning(Mode::Full, &[]), false, Event::Nothing).expect("fine-tuned");
    let tuned = Model::load(&place.folder("tuned"), &device).expect("whole");
    assert_eq!(tuned.config.backbone, loaded.config.backbone);
    assert_eq!(tuned.config.architectures, ["MxdnaForSequenceClassification"]);
    assert!(tuned.vocabulary().is_none() && tuned.task().expect("a task").0.backbone.is_some());

    let path = folder.join("config.json");
    let text = std::fs::read_to_string(&path).expect("readable");
    for (from, to, part) in [
        ("\"heads\": 2", "\"heads\": 3", "backbone.heads"),
        ("\"theta\": 10000.0", "\"theta\": 0.0", "backbone.theta"),
        ("\"jitter\": 0.01", "\"jitter\": -1.0", "backbone.units.jitter"),
        ("\"d_ff\": 170", "\"d_ff\": 171", "model.safetensors"),
        ("\"mxdna\"", "\"mxdnas\"", "mxdnas"),
        ("\"backbone\"", "\"backbones\"", "backbones"),
    ] {
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(&path, text.replace(from, to)).expect("written");
        let message = Model::load(&folder, &device).expect_err(to).to_string();
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn what_does_not_go_together_is_said() {
    let place = Place::new();
    pretrained(&place, &[]);
    let refused =
        |config: &FinetuneConfig| finetune(&place, "run", config, false, Event::Nothing).expect_err("refused");
    assert!(matches!(refused(&tuning(Mode::Lora, &[])), StageError::NoAdapters));
}

/// A fresh encoder of another size in place of the one that was pre-trained.
#[test]
fn a_fresh_encoder_has_its_own_network() {
    let place = Place::new();
    pretrained(&place, &[]);
    let config = tuning(Mode::Full, &["mxdna.d_model=32", "mxdna.heads=2", "mxdna.d_ff=48", "mxdna.unit_layers=1"]);
    finetune(&place, "fresh", &config, false, Event::Nothing).expect("fine-tuned");
    let tuned = Model::load(&place.folder("fresh"), &Device::flex()).expect("whole");
    assert_eq!(tuned.config.backbone, config.backbone);
    assert_eq!(tuned.task().expect("a task").0.head.classifier.weight.dims()[1], 32);
}

#[test]
fn predictions_depend_on_their_sequence_alone_and_move_with_the_folder() {
    let (place, device) = (Place::new(), Device::flex());
    pretrained(&place, &[]);
    let config = tuning(Mode::Full, &["reverse_complement=average"]);
    finetune(&place, "tuned", &config, false, Event::Nothing).expect("fine-tuned");
    let sequences = sequences(&[30, 1, 2, 3, 39, 200]);
    let of = |folder: &str, sequences: &[Sequence], budget: usize| -> Vec<Predicted> {
        let model = FineTuned::load(&place.folder(folder), &device).expect("whole");
        let windows = Windows { length: 64, stride: 32 };
        let execution = Execution::on(&device).within(Budget::mebibytes(budget));
        predict(&model, sequences, windows, Merge::Mean, execution).collect::<Result<_, _>>().expect("nobody stops it")
    };
    let together = of("tuned", &sequences, 512);
    assert_eq!(together.iter().map(|found| found.windows).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 6]);
    for (number, sequence) in sequences.iter().enumerate() {
        let alone = of("tuned", std::slice::from_ref(sequence), 0);
        let values = |found: &Predicted| found.values.iter().map(|&v| v as f32).collect::<Vec<_>>();
        assert_near("alone", &values(&alone[0]), &values(&together[number]), 1e-5);
    }
    std::fs::rename(place.folder("tuned"), place.folder("moved")).expect("moved");
    assert_eq!(of("moved", &sequences, 512), together);
}

#[test]
fn every_layer_embeds_every_base() {
    let (place, device) = (Place::new(), Device::flex());
    let folder = place.folder(pretrained(&place, &["mxdna.base_layers=2"]));
    let sequences = sequences(&[130, 5, 1]);
    let windows = Windows { length: 64, stride: 64 };
    let last = Embedder::load(&folder, None, &device).expect("whole").layer();
    assert_eq!(last, 2 + 1 + 1);
    assert!(Embedder::load(&folder, Some(last + 1), &device).is_err());
    for layer in 0..=last {
        let embedder = Embedder::load(&folder, Some(layer), &device).expect("a layer");
        let embed = |sequences: &[Sequence], pooling, budget| -> Vec<Embedded> {
            let execution = Execution::on(&device).within(Budget::mebibytes(budget));
            embedder.embed(sequences, windows, pooling, execution).collect::<Result<_, _>>().expect("nobody stops it")
        };
        let each = embed(&sequences, None, 512);
        for (number, sequence) in sequences.iter().enumerate() {
            let (mut end, is_one_window) = (0, sequence.first.len() <= windows.length);
            for found in each.iter().filter(|found| found.sequence == number) {
                // Units of neighbouring windows need not meet.
                assert!(found.bases.start == end || (layer > 2 && !is_one_window), "layer {layer}");
                assert!(found.bases.end > end && found.vector.len() == embedder.width(), "layer {layer}");
                assert!(layer > 2 || found.bases.len() == 1, "layer {layer}");
                end = found.bases.end;
            }
            assert_eq!(end, sequence.first.len(), "layer {layer}");
        }
        let pooled = embed(&sequences, Some(Pooling::Mean), 512);
        for (number, sequence) in sequences.iter().enumerate() {
            let alone = embed(std::slice::from_ref(sequence), Some(Pooling::Mean), 0);
            assert_near("alone", &alone[0].vector, &pooled[number].vector, 1e-5);
        }
    }
}

#[test]
fn units_do_not_overlap_and_cover_what_is_seen_whole() {
    let (place, device) = (Place::new(), Device::flex());
    let cutter = Cutter::load(&place.folder(pretrained(&place, &[])), &device).expect("whole");
    let mut sequences = sequences(&[300, 64, 2, 1]);
    sequences.push(Sequence::new("unknown", vec![b'N'; 40]));
    let cut = |sequences: &[Sequence], length: usize, budget| -> Vec<Unit> {
        let windows = Windows { length, stride: length.div_ceil(2) };
        let execution = Execution::on(&device).within(Budget::mebibytes(budget));
        cutter.cut(sequences, windows, execution).collect::<Result<_, _>>().expect("nobody stops it")
    };
    for length in [64, 1000] {
        let units = cut(&sequences, length, 512);
        assert_eq!(units, cut(&sequences, length, 0), "whatever is worked on at a time");
        for (number, sequence) in sequences.iter().enumerate() {
            let own: Vec<&Unit> = units.iter().filter(|unit| unit.sequence == number).collect();
            assert!(own.windows(2).all(|pair| pair[0].bases.end <= pair[1].bases.start));
            let covered: usize = own.iter().map(|unit| unit.bases.len()).sum();
            let bases = sequence.first.len();
            assert!(if bases <= length { covered == bases } else { covered > bases * 9 / 10 }, "{covered} of {bases}");
            for span in own {
                assert_eq!(span.bases.len(), cutter.sizes()[span.expert]);
                assert_eq!(span.anchor, span.bases.start + span.bases.len() / 2);
                assert!((0.0..=1.0).contains(&span.gate));
            }
        }
    }
}

/// Vector T12: the router learns through the probability that scales a unit and through the balance alone.
#[test]
fn the_router_learns_from_its_probability_and_the_balance_alone() {
    let place = Place::new();
    pretrained(&place, &["balance=0", "train.optimizer.weight_decay=0", "mxdna.units.sizes=[1]"]);
    let (held, _) = weights::read(&place.folder("pretrained").join("model.safetensors")).expect("readable");
    // Of one expert the probability is the constant 1.
    let fresh = PretrainConfig::mxdna(Preset::Tiny);
    let begun = |changes: &[&str]| {
        let network = changed(&fresh, changes).backbone;
        weights::collect(&encoder(&network, TokenizerConfig::mxdna().source(), 1, &Device::flex()).1)
    };
    let one = begun(&["mxdna.units.sizes=[1]"]);
    assert_eq!(held["encoder.tokenizer.gate.weight"], one["tokenizer.gate.weight"]);
    assert_ne!(held["encoder.tokenizer.experts.0.pre.weight"], one["tokenizer.experts.0.pre.weight"]);
    let other = Place::new();
    pretrained(&other, &["balance=0", "train.optimizer.weight_decay=0"]);
    let learned = weights::read(&other.folder("pretrained").join("model.safetensors")).expect("readable").0;
    let four = begun(&["mxdna.units.sizes=[1, 2, 3, 5]"]);
    assert_ne!(learned["encoder.tokenizer.gate.weight"], four["tokenizer.gate.weight"]);
}
