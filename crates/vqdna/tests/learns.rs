//! Each objective overfits one small batch.

use burn::prelude::*;

use crate::host::{floats, window};
use vqdna::batch::{Batch, HostWindow};
use vqdna::objective::{Objective, Outcome, reconstruct::Reconstruct};
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
    let mut model = objective.start(config.init(1, &device), &mut std::iter::once(batch.clone()), 1);
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
