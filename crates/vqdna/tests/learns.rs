//! Each objective overfits one small batch.

use burn::prelude::*;

use crate::host::{floats, integers, window};
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::batch::{Batch, CodeBatch, CodeWindow, HostWindow};
use vqdna::objective::letters::{LetterModel, MaskedLetters};
use vqdna::objective::masked::MaskedModel;
use vqdna::objective::masked::masking::MaskingConfig;
use vqdna::objective::masked::pretrain::Pretrain;
use vqdna::objective::{Objective, Outcome, reconstruct::Reconstruct};
use vqdna::quantizer::Quantizer;
use vqdna::tokenizer::mxdna::MxdnaConfig;
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::train::optimizer::{Adamw, AdamwConfig, Gradients};

/// Chance is 0.25; a network that does not use its codes cannot tell one window from another.
const LEARNED: f32 = 0.9;
/// Chance is ln 4, 1.39 nats.
const LEARNED_NATS: f32 = 0.4;
const STEPS: u64 = 150;

fn part<C>(outcome: &Outcome<C>, name: &str) -> f32 {
    let found = outcome.parts.iter().find(|(known, _)| known == name);
    floats(found.unwrap_or_else(|| panic!("no part `{name}`")).1.clone())[0]
}

fn overfits(kind: Kind) {
    let device = Device::flex().autodiff();
    let windows: Vec<HostWindow> = (0..8).map(|seed| window(seed, 64)).collect();
    let batch = Batch::new(&windows, 1.0, &device);
    let config = Preset::Tiny.config(kind);
    let objective = Reconstruct { config: config.clone(), seed: 1, start_rows: 512 };
    let mut model = objective.start(config.init(1, &device), &mut std::iter::once(batch.clone()), 1, &|| true);
    let mut optimizer = Adamw::new(&AdamwConfig::default());

    let first = objective.forward(&model, &batch);
    assert!(
        part(&first, "reconstruction") < 0.5 && part(&first, "cross_entropy_nats") > 1.0,
        "{kind:?} knows before it learns"
    );
    for step in 1..=STEPS {
        let outcome = objective.forward(&model, &batch);
        let gradients = Gradients::of(&model, &outcome.loss.backward());
        let (stepped, _) = optimizer.step(model, gradients, 3e-3, 1.0);
        model = objective.after_step(stepped, vec![outcome.carry], step);
    }
    let last = objective.forward(&model, &batch);
    let (share, nats) = (part(&last, "reconstruction"), part(&last, "cross_entropy_nats"));
    assert!(share > LEARNED && nats < LEARNED_NATS, "{kind:?}: {share} of the bases, {nats} nats");

    // What is learned goes through the codes: decoding them alone gives the same bases.
    let plain = model.valid();
    let batch = Batch::new(&windows, 1.0, &Device::flex());
    let logits = plain.decode(&plain.tokenize(&batch).codes, &batch.padding);
    let right = logits.argmax(2).squeeze_dim::<2>(2).equal(batch.bases).float().mean();
    assert!(floats(right)[0] > LEARNED, "{kind:?}: from codes alone");
}

#[test]
fn vq_overfits_a_batch() {
    overfits(Kind::Vq);
}

#[test]
fn hrq_overfits_a_batch() {
    overfits(Kind::Hrq);
}

#[test]
fn rq_overfits_a_batch() {
    overfits(Kind::Rq);
}

#[test]
fn fsq_overfits_a_batch() {
    overfits(Kind::Fsq);
}

/// Codes per level of windows of random bases, by a network that has not learned, and its quantizer.
fn codes_of_windows(kind: Kind) -> (Vec<CodeWindow>, Quantizer, Vec<usize>) {
    let (windows, config) = ((0..8).map(|seed| window(seed, 64)).collect::<Vec<_>>(), Preset::Tiny.config(kind));
    let batch = Batch::new(&windows, 1.0, &Device::flex());
    let objective = Reconstruct { config: config.clone(), seed: 1, start_rows: 512 };
    let tokenizer = objective.start(config.init(1, &Device::flex()), &mut std::iter::once(batch.clone()), 1, &|| true);
    let codes: Vec<Vec<i32>> = tokenizer.encode(&batch).into_iter().map(integers).collect();
    let of_window = |row: usize| CodeWindow {
        codes: codes.iter().map(|codes| codes[row * 64..][..64].iter().map(|&code| code as u16).collect()).collect(),
        is_target: vec![true; 64],
        number: row as u64,
    };
    ((0..8).map(of_window).collect(), tokenizer.quantizer, config.quantizer.codebook_sizes())
}

/// The same masks in each step, so that what is asked for can be remembered.
fn masked_overfits(kind: Kind, span: usize, pool: usize) {
    let device = Device::flex().autodiff();
    let (windows, quantizer, codebook_sizes) = codes_of_windows(kind);
    let batch = CodeBatch { windows, device: device.clone() };
    let backbone = TransformerConfig { pool, ..TransformerConfig::tiny() };
    let mut model = MaskedModel::new(&backbone, 64, &codebook_sizes, 1, &device);
    let masking = MaskingConfig { span, ..MaskingConfig::default() };
    let objective = Pretrain { quantizer: &quantizer, codebook_sizes, masking, measured_span: 8, pool, seed: 1 };
    let mut optimizer = Adamw::new(&AdamwConfig::default());
    let loss = |outcome: &Outcome<()>| floats(outcome.loss.clone())[0];
    let first = loss(&objective.forward(&model, &batch));
    for step in 1..=STEPS {
        let outcome = objective.forward(&model, &batch);
        let gradients = Gradients::of(&model, &outcome.loss.backward());
        model = objective.after_step(optimizer.step(model, gradients, 3e-3, 1.0).0, vec![()], step);
    }
    let last = loss(&objective.forward(&model, &batch));
    assert!(first > 3.0 && last < 0.1 * first, "{kind:?}, span {span}, pool {pool}: {first} to {last} nats");
}

#[test]
fn masked_modelling_overfits_a_batch() {
    masked_overfits(Kind::Hrq, 1, 1);
    masked_overfits(Kind::Fsq, 8, 1);
    masked_overfits(Kind::Vq, 1, 2);
}

#[test]
fn a_model_that_cuts_sequences_itself_overfits_a_batch() {
    let device = Device::flex().autodiff();
    let of_window = |number: u64| {
        let bases = window(number, 48).bases;
        CodeWindow {
            codes: vec![bases.iter().map(|&base| u16::from(base)).collect()],
            is_target: vec![true; 48],
            number,
        }
    };
    let windows: Vec<CodeWindow> = (0..4).map(of_window).collect();
    let batch = CodeBatch { windows: windows.clone(), device: device.clone() };
    let objective = MaskedLetters {
        masking: MaskingConfig { share: 0.15, replaced: 1.0, random: 0.0, ..MaskingConfig::default() },
        balance: 0.01,
        seed: 1,
    };
    let mut model = LetterModel::new(&MxdnaConfig::tiny(), 1, &device);
    let mut optimizer = Adamw::new(&AdamwConfig::default());
    let first = objective.forward(&model, &batch);
    assert!(part(&first, "cross_entropy_nats") > 1.0, "knows before it learns");
    assert!((1.0..=10.0).contains(&part(&first, "bases_per_unit")));
    for _ in 0..STEPS {
        let outcome = objective.forward(&model, &batch);
        let gradients = Gradients::of(&model, &outcome.loss.backward());
        model = optimizer.step(model, gradients, 3e-3, 1.0).0;
    }
    let nats = part(&objective.forward(&model, &batch), "cross_entropy_nats");
    assert!(nats < LEARNED_NATS, "{nats} nats");

    let batches = || std::iter::once(CodeBatch { windows: windows.clone(), device: Device::flex() });
    let plain = model.valid();
    let measures = objective.evaluate(&plain, &mut batches());
    assert_eq!(measures, objective.evaluate(&plain, &mut batches()), "twice the same");
    let masked = measures.iter().find(|(name, _)| name == "masked_bases").expect("how many were asked for").1;
    assert!((10.0..50.0).contains(&masked), "{masked} of 192 bases are masked");
}
