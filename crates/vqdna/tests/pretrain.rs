//! Runs of stage 2: resumed ones equal uninterrupted ones in every bit, and codes are the same from wherever they come.

use burn::prelude::*;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::resume::{Event, Place, assert_equal_runs, bytes, log};
use vqdna::model_dir::{FolderError, Kind as Holds, Model, ModelConfig, Network, Vocabulary, publish};
use vqdna::run::config::StageConfig;
use vqdna::run::pretrain::{Pretrain, PretrainConfig};
use vqdna::run::stage::{Finished, StageError};
use vqdna::tokenizer::vqdna::{Kind, Preset, publish as publish_vocabulary};
use vqdna::train::{Ending, TrainError};
use vqdna::weights;
use vqdna_data::segment::Policy;

/// A vocabulary that has learned nothing, which changes no law.
fn vocabulary(seed: u64, kind: Kind) -> Vocabulary {
    let tokenizer = Preset::Tiny.config(kind);
    let model = tokenizer.init(seed, &Device::flex());
    Vocabulary { tokenizer, letters: Policy::default(), model, digest: format!("vocabulary{seed}") }
}

/// Small and short, with windows held out on either side of a stop.
fn config(changes: &[&str]) -> PretrainConfig {
    let all = [
        "train.steps=10",
        "train.batch=2",
        "train.log_every=1",
        "train.evaluate_every=3",
        "train.checkpoint_every=4",
        "data.length=64",
        "data.split.valid=0.2",
    ];
    let all: Vec<String> = all.iter().chain(changes).map(|&change| change.to_owned()).collect();
    let config =
        PretrainConfig::preset(Preset::Tiny, Policy::default()).with_changes(None, &all).expect("known fields");
    config.check().expect("a sound config");
    config
}

fn pretrain(place: &Place, name: &str, changes: &[&str], resume: bool, event: Event) -> Result<Finished, StageError> {
    let (config, vocabulary) = (config(changes), vocabulary(1, Kind::Hrq));
    place.run(name, resume, event, |job, observer| {
        Pretrain { job, config: &config, vocabulary: Some(&vocabulary), markov: None }.run(observer)
    })
}

#[track_caller]
fn whole(place: &Place, name: &str, changes: &[&str]) -> Finished {
    pretrain(place, name, changes, false, Event::Nothing).expect("pre-trained")
}

fn weights_of(place: &Place, name: &str) -> Vec<u8> {
    bytes(&place.folder(name), "model.safetensors")
}

#[test]
fn a_stop_leaves_no_trace() {
    for changes in [
        &[][..],
        &["train.accumulate=2", "masking.span=8"],
        &["backbone.pool=2", "data.codes=on-the-fly", "data.strand=both"],
        &["train.precision=bf16", "backbone.checkpoint=true", "train.recompute=true"],
    ] {
        let place = Place::new();
        let all = whole(&place, "whole", changes);
        let first = pretrain(&place, "parts", changes, false, Event::Stop(5)).expect("interrupted");
        assert_eq!(first.ending, Ending::Interrupted(5));
        let second = pretrain(&place, "parts", changes, true, Event::Nothing).expect("resumed");
        assert_eq!((second.ending, second.measures), (Ending::Finished, all.measures));
        assert_equal_runs(&format!("{changes:?}"), &place.folder("whole"), &place.folder("parts"));
    }
}

/// Neither moments nor counts of steps are in that checkpoint.
#[test]
fn a_stop_before_the_first_step_leaves_no_trace() {
    let place = Place::new();
    whole(&place, "whole", &[]);
    let first = pretrain(&place, "parts", &[], false, Event::Stop(0)).expect("interrupted");
    assert_eq!(first.ending, Ending::Interrupted(0));
    assert!(place.folder("parts").join("checkpoint").exists());
    pretrain(&place, "parts", &[], true, Event::Nothing).expect("resumed");
    assert_equal_runs("from the start", &place.folder("whole"), &place.folder("parts"));
}

/// Both strands, N and lower case, segments that end within a window: computed with the window or before, codes are the same.
#[test]
fn codes_are_the_same_from_the_file_and_on_the_fly() {
    for changes in [
        &["data.strand=both"][..],
        &["data.strand=random", "data.letters.ambiguous=split"],
        &["data.strand=forward", "data.soft_masked_weight=0"],
    ] {
        let place = Place::new();
        let text = fs::read_to_string(place.genome()).expect("readable");
        let (start, end) = (text.replacen("ACG", "NacgtNN", 9), ">c\nACGTN\n>d\n");
        fs::write(place.genome(), format!("{}\n{end}", start.trim_end())).expect("written");
        let on_the_fly = [changes, &["data.codes=on-the-fly"]].concat();
        let (cached, computed) = (whole(&place, "cached", changes), whole(&place, "computed", &on_the_fly));
        assert_eq!(cached.measures, computed.measures, "{changes:?}");
        assert!(weights_of(&place, "cached") == weights_of(&place, "computed"), "{changes:?}");
        assert_eq!(log(&place.folder("cached")), log(&place.folder("computed")), "{changes:?}");
        assert!(place.folder("cached").join("codes/corpus.npy").exists());
        assert!(!place.folder("computed").join("codes").exists());

        // A run may go on either way.
        pretrain(&place, "parts", changes, false, Event::Stop(5)).expect("interrupted");
        pretrain(&place, "parts", &on_the_fly, true, Event::Nothing).expect("resumed");
        assert!(weights_of(&place, "parts") == weights_of(&place, "cached"), "{changes:?}");
    }
}

/// Two files of reads with the same names, as sequencing of pairs gives them: both are learned from, and their codes are kept.
#[test]
fn reads_of_one_name_have_codes_of_their_own() {
    let place = Place::new();
    let text = fs::read_to_string(place.genome()).expect("readable");
    let bases: String = text.lines().filter(|line| !line.starts_with('>')).collect();
    let bases = bases.as_bytes();
    let mut reads = String::new();
    for (number, read) in bases.chunks(150).enumerate() {
        let read = str::from_utf8(read).expect("letters");
        // Every name twice.
        let _ = write!(reads, "@read{}\n{read}\n+\n{}\n", number / 2, "I".repeat(read.len()));
    }
    fs::write(place.genome(), reads).expect("written");
    let cached = whole(&place, "cached", &[]);
    let computed = whole(&place, "computed", &["data.codes=on-the-fly"]);
    assert_eq!(cached.measures, computed.measures);
    assert!(weights_of(&place, "cached") == weights_of(&place, "computed"));
    let table = fs::read_to_string(place.folder("cached").join("codes/corpus.npy.records.tsv")).expect("there");
    assert_eq!(
        table.lines().count(),
        2 + 2 * bases.len().div_ceil(150),
        "a note, names of columns, and each read on both strands"
    );
}

/// The number of the file that holds codes: another one if they were computed again.
#[cfg(unix)]
fn inode(place: &Place) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(place.folder("run/codes/corpus.npy")).expect("there").ino()
}

/// A bit of the codes, or of the table beside them, that changed on the disk changes no result.
#[test]
fn damaged_codes_are_computed_again() {
    let place = Place::new();
    whole(&place, "whole", &[]);
    for (name, file) in [("array", "codes/corpus.npy"), ("records", "codes/corpus.npy.records.tsv")] {
        pretrain(&place, name, &[], false, Event::Stop(5)).expect("interrupted");
        let mut damaged = bytes(&place.folder(name), file);
        *damaged.last_mut().expect("codes") ^= 1;
        fs::write(place.folder(name).join(file), damaged).expect("written");
        pretrain(&place, name, &[], true, Event::Nothing).expect("resumed");
        assert!(bytes(&place.folder(name), file) == bytes(&place.folder("whole"), file), "{file}");
        assert!(weights_of(&place, name) == weights_of(&place, "whole"), "{file}");
    }
}

#[cfg(unix)]
#[test]
fn codes_are_kept_while_they_fit() {
    let place = Place::new();
    let stop = |changes: &[&str]| {
        // A run that is tried again, as after one that diverged: the checkpoint goes, the codes stay.
        drop(fs::remove_dir_all(place.folder("run/checkpoint")));
        pretrain(&place, "run", changes, false, Event::Stop(1)).expect("interrupted");
        inode(&place)
    };
    let first = stop(&[]);
    assert_eq!(stop(&["train.steps=20", "masking.span=3"]), first, "settings that codes do not depend on");
    assert_eq!(stop(&["data.strand=forward"]), first, "both strands hold one");
    let split = stop(&["data.letters.ambiguous=split"]);
    assert_ne!(split, first, "other letters");
    fs::remove_file(place.folder("run/codes/provenance.json")).expect("there");
    let again = stop(&["data.letters.ambiguous=split"]);
    assert_ne!(again, split, "codes that nothing vouches for");
    fs::write(place.genome(), ">a\n".to_owned() + &"ACGT".repeat(400) + "\n").expect("written");
    let other = stop(&["data.letters.ambiguous=split"]);
    assert_ne!(other, again, "other inputs");
    let text = fs::read_to_string(place.folder("run/codes/provenance.json")).expect("readable");
    fs::write(place.folder("run/codes/provenance.json"), text.replace("vocabulary1", "vocabulary2")).expect("written");
    assert_ne!(stop(&["data.letters.ambiguous=split"]), other, "another vocabulary");
}

#[test]
fn another_run_is_not_resumed() {
    let place = Place::new();
    pretrain(&place, "run", &[], false, Event::Stop(5)).expect("interrupted");
    for other in ["seed=2", "masking.share=0.2", "backbone.positions.kind=alibi", "data.strand=both"] {
        let refused = pretrain(&place, "run", &[other], true, Event::Nothing).expect_err(other);
        assert!(matches!(refused, StageError::Train(TrainError::OtherRun { .. })), "{other}: {refused}");
    }
    let (config, other) = (config(&[]), vocabulary(2, Kind::Hrq));
    let run = place.run("run", true, Event::Nothing, |job, observer| {
        Pretrain { job, config: &config, vocabulary: Some(&other), markov: None }.run(observer)
    });
    let refused = run.expect_err("another vocabulary");
    assert!(matches!(refused, StageError::Train(TrainError::OtherRun { .. })), "{refused}");
    let taken = pretrain(&place, "run", &[], false, Event::Nothing).expect_err("a folder with a checkpoint");
    assert!(matches!(taken, StageError::Taken { .. }), "{taken}");
}

#[test]
fn measures_are_those_that_are_promised() {
    let place = Place::new();
    let names = |finished: &Finished| finished.measures.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let value = |finished: &Finished, name: &str| {
        finished.measures.iter().find(|(known, _)| known == name).map(|(_, value)| *value).expect("measured")
    };
    let single = whole(&place, "single", &[]);
    assert_eq!(single.evaluated_on, "valid");
    let expected = [
        "loss",
        "cross_entropy_nats_1",
        "accuracy_1",
        "cross_entropy_nats_2",
        "accuracy_2",
        "masked_bases",
        "masked_code_bits_single",
        "masked_code_bits_span",
    ];
    assert_eq!(names(&single), expected);
    let nats = value(&single, "cross_entropy_nats_1") + value(&single, "cross_entropy_nats_2");
    assert!((value(&single, "loss") - nats / 2.0).abs() < 1e-9);
    assert!((value(&single, "masked_code_bits_single") - nats / std::f64::consts::LN_2).abs() < 1e-9);
    // What is trained changes nothing in how it is measured.
    let span = whole(&place, "span", &["masking.span=41", "train.schedule.rate=1e-30"]);
    let still = whole(&place, "still", &["train.schedule.rate=1e-30"]);
    for name in ["masked_code_bits_single", "masked_code_bits_span"] {
        assert_eq!(value(&span, name), value(&still, name), "{name}");
    }
    assert_eq!(value(&span, "loss") * 2.0 / std::f64::consts::LN_2, value(&span, "masked_code_bits_span"));
    let logged: BTreeSet<String> =
        log(&place.folder("single"))[0].as_object().expect("an object").keys().cloned().collect();
    for name in
        ["loss", "cross_entropy_nats_1", "cross_entropy_nats_2", "masked_code_bits", "gradient_norm", "learning_rate"]
    {
        assert!(logged.contains(name), "{name}: {logged:?}");
    }
}

#[test]
fn a_folder_gives_back_what_was_saved() {
    for (kind, changes) in [(Kind::Hrq, &[][..]), (Kind::Fsq, &["backbone.pool=4"])] {
        let (place, config, vocabulary) = (Place::new(), config(changes), vocabulary(3, kind));
        let run = place.run("run", false, Event::Nothing, |job, observer| {
            Pretrain { job, config: &config, vocabulary: Some(&vocabulary), markov: None }.run(observer)
        });
        run.expect("pre-trained");
        let folder = place.folder("run");
        let loaded = Model::load(&folder, &Device::flex()).expect("whole");
        let inside = loaded.vocabulary().expect("a vocabulary inside");
        assert_eq!(loaded.config.architectures, ["VqdnaForMaskedLM"]);
        assert_eq!((loaded.config.kind(), &inside.digest), (Holds::Pretrained, &vocabulary.digest));
        assert_eq!(publish_vocabulary(&inside.model), publish_vocabulary(&vocabulary.model), "frozen");
        let (held, _) = weights::read(&folder.join("model.safetensors")).expect("readable");
        let Network::Language(network) = &loaded.network else { panic!("a language model") };
        assert_eq!(publish(&loaded.config, &loaded.tokenizer, network), held);
        let starts = |prefix: &str| held.keys().any(|name| name.starts_with(prefix));
        assert!(["tokenizer.encoder.", "backbone.layers.1.", "masked.heads.0."].into_iter().all(starts));

        // The vocabulary alone, and what does not fit.
        let alone = Vocabulary::load(&folder, &Device::flex()).expect("a vocabulary inside");
        assert_eq!(publish_vocabulary(&alone.model), publish_vocabulary(&vocabulary.model));
        refused(&folder, "\"d_model\": 64", "\"d_model\": 32", &["model.safetensors", "backbone."]);
        refused(&folder, "\"heads\": 2", "\"heads\": 5", &["config.json", "backbone.heads"]);
        refused(&folder, "\"backbone\"", "\"backbones\"", &["config.json", "backbones"]);
    }
}

/// A folder whose config was changed is refused with a message that has these parts.
#[track_caller]
fn refused(folder: &Path, from: &str, to: &str, parts: &[&str]) {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).expect("readable");
    assert!(text.contains(from), "{from} in {text}");
    fs::write(&path, text.replace(from, to)).expect("written");
    let message = Model::load(folder, &Device::flex()).expect_err(to).to_string();
    assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    fs::write(&path, text).expect("written");
}

#[test]
fn a_vocabulary_is_no_pretrained_model() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = serde_json::to_string(&ModelConfig::new(Preset::Tiny.config(Kind::Vq), Policy::default()))
        .expect("plain fields");
    fs::write(folder.path().join("config.json"), config).expect("written");
    let error = Model::load_kind(folder.path(), Holds::Pretrained, &Device::flex()).expect_err("a vocabulary");
    assert!(matches!(error, FolderError::OtherKind { found: Holds::Vocabulary, needed: Holds::Pretrained, .. }));
    let message = error.to_string();
    assert!(message.contains("holds a vocabulary, but a pre-trained model is needed"), "{message}");
    assert!(message.contains("vqdna pretrain"), "{message}");
}
