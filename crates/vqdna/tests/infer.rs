//! Finished models: what they predict of parts of sequences and of nothing, and how they are stopped.

use burn::prelude::*;
use std::cell::Cell;
use std::ops::ControlFlow;

use vqdna::head::sequence::{SequenceHead, SequenceHeadConfig};
use vqdna::infer::predict::{FineTuned, Merge, Predicted, predict};
use vqdna::infer::{Budget, Execution, Interrupted, Sequence, Windows};
use vqdna::model::SequenceModel;
use vqdna::model_dir::{Model, ModelConfig, Network, TaskConfig};
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna_data::labelled::Labelling;
use vqdna_data::segment::Policy;
use vqdna_data::synthetic;

const WINDOWS: Windows = Windows { length: 32, stride: 16 };

/// A probe of code vectors that has learned nothing, which changes no law.
fn model(both_strands: bool, device: &Device) -> FineTuned {
    let tokenizer = Preset::Tiny.config(Kind::Hrq);
    let head = SequenceHeadConfig::default();
    let classes = ["none", "promoter"].map(str::to_owned).to_vec();
    let labelling = Labelling::Classes { column: "label".to_owned(), classes };
    let network =
        SequenceModel { embed: None, backbone: None, head: SequenceHead::new(&head, tokenizer.d_code, 2, 3, device) };
    let config = ModelConfig::new(tokenizer.clone(), Policy::default());
    let task = TaskConfig { lora: None, head, labelling, columns: None, window: 32, both_strands };
    FineTuned::of(Model {
        config: ModelConfig::of_finetuned(&config, Some("vocabulary".to_owned()), None, task),
        tokenizer: tokenizer.init(1, device).into(),
        network: Network::Sequence(Box::new(network)),
        digest: "model".to_owned(),
    })
    .expect("a task")
}

fn sequences(lengths: &[usize]) -> Vec<Sequence> {
    let letters = |(n, &length): (usize, &usize)| {
        let letters = if length == 0 { Vec::new() } else { synthetic::genome(n as u64, length, 0.5) };
        Sequence::new(n.to_string(), letters)
    };
    lengths.iter().enumerate().map(letters).collect()
}

fn all(model: &FineTuned, sequences: &[Sequence], merge: Merge, execution: Execution) -> Vec<Predicted> {
    predict(model, sequences, WINDOWS, merge, execution).collect::<Result<_, _>>().expect("nobody stops it")
}

#[test]
fn where_there_is_nothing_to_see_there_is_a_row_without_values() {
    let device = Device::flex();
    let model = model(true, &device);
    let mut sequences = sequences(&[0, 20, 0, 0, 70, 0]);
    sequences.push(Sequence::pair("half", *b"ACGT", Vec::new()));
    for merge in [Merge::Mean, Merge::None] {
        let found = all(&model, &sequences, merge, Execution::on(&device));
        let windows: Vec<_> = found.iter().map(|found| (found.sequence, found.windows)).collect();
        let long = if merge == Merge::Mean { vec![(4, 4)] } else { vec![(4, 1); 4] };
        let expected = [&[(0, 0), (1, 1), (2, 0), (3, 0)][..], &long, &[(5, 0), (6, 0)]].concat();
        assert_eq!(windows, expected);
        for found in found {
            assert_eq!(found.values.iter().all(|value| value.is_nan()), found.windows == 0);
            assert_eq!(found.values.len(), 2);
        }
    }
    assert_eq!(all(&model, &sequences[2..4], Merge::Mean, Execution::on(&device)).len(), 2);
}

#[test]
fn parts_are_seen_as_if_each_stood_alone() {
    let device = Device::flex();
    let model = model(false, &device);
    let mut whole = sequences(&[100]).remove(0);
    whole.parts = vec![5..30, 40..41, 60..90];
    let alone: Vec<Sequence> =
        whole.parts.iter().map(|part| Sequence::new("part", &whole.first[part.clone()])).collect();
    let parts = all(&model, std::slice::from_ref(&whole), Merge::None, Execution::on(&device));
    let alone = all(&model, &alone, Merge::None, Execution::on(&device));
    assert_eq!(parts.iter().map(|found| found.bases.clone()).collect::<Vec<_>>(), whole.parts);
    for (part, alone) in parts.iter().zip(&alone) {
        assert_eq!(part.values, alone.values);
    }
    let mean = &all(&model, &[whole], Merge::Mean, Execution::on(&device))[0];
    assert_eq!((mean.windows, mean.bases.clone()), (3, 5..90));
    let expected = alone.iter().map(|found| found.values[0]).sum::<f64>() / 3.0;
    assert!((mean.values[0] - expected).abs() < 1e-12);
}

#[test]
fn a_poll_ends_the_work_before_the_next_batch_and_what_was_given_stays_right() {
    let device = Device::flex();
    let model = model(true, &device);
    let sequences = sequences(&[200, 10, 0, 300, 40, 7]);
    let whole = all(&model, &sequences, Merge::Mean, Execution::on(&device));
    // The smallest budget: a window at a time.
    let (asked, finished) = (Cell::new(0), Cell::new(0));
    let counting = |bases| {
        asked.set(asked.get() + 1);
        finished.set(finished.get() + bases);
        ControlFlow::Continue(())
    };
    let small = Execution::on(&device).within(Budget::mebibytes(0));
    // As text, in which the NaN of an empty sequence equals itself.
    let text = |predicted: &[Predicted]| format!("{predicted:?}");
    assert_eq!(text(&all(&model, &sequences, Merge::Mean, small.polling(&counting))), text(&whole));
    assert_eq!(finished.get(), 557, "each base is finished once, though windows overlap and both strands are read");
    let polls = asked.get();
    assert!(polls > 60, "{polls}");
    for most in [0, 1, polls / 3, polls / 2, polls - 1] {
        let asked = Cell::new(0);
        let stopping = |_| {
            asked.set(asked.get() + 1);
            if asked.get() > most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let found: Vec<_> = predict(&model, &sequences, WINDOWS, Merge::Mean, small.polling(&stopping)).collect();
        assert_eq!(asked.get(), most + 1, "nothing is done after the answer");
        let (last, before) = found.split_last().expect("an end");
        assert_eq!(*last, Err(Interrupted));
        let before: Vec<Predicted> = before.iter().map(|found| found.clone().expect("done")).collect();
        assert_eq!(text(&before), text(&whole[..before.len()]));
    }
}
