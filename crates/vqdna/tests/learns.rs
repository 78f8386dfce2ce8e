//! Each objective overfits one small batch.

use burn::prelude::*;

use crate::host::{floats, integers, window};
use vqdna::backbone::BackboneConfig;
use vqdna::backbone::mxdna::MxdnaConfig;
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::batch::{Batch, HostWindow, TokenWindow, TokenWindows};
use vqdna::model::LanguageModel;
use vqdna::objective::masked::MaskedTokens;
use vqdna::objective::masking::MaskingConfig;
use vqdna::objective::{Objective, Outcome, reconstruct::Reconstruct};
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::tokenizer::{Tokenizer, TokenizerConfig};
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
    let logits = plain.decode(&plain.encode(&batch), &batch.padding);
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

/// Codes per level of windows of random bases, by a network that has not learned, and the network.
fn codes_of_windows(kind: Kind) -> (Vec<TokenWindow>, Tokenizer, Vec<usize>) {
    let (windows, config) = ((0..8).map(|seed| window(seed, 64)).collect::<Vec<_>>(), Preset::Tiny.config(kind));
    let batch = Batch::new(&windows, 1.0, &Device::flex());
    let objective = Reconstruct { config: config.clone(), seed: 1, start_rows: 512 };
    let tokenizer = objective.start(config.init(1, &Device::flex()), &mut std::iter::once(batch.clone()), 1, &|| true);
    let codes: Vec<Vec<i32>> = tokenizer.encode(&batch).into_iter().map(integers).collect();
    let of_window = |row: usize| {
        let level = |codes: &Vec<i32>| codes[row * 64..][..64].iter().map(|&code| code as u32).collect();
        TokenWindow::of_codes(codes.iter().map(level).collect(), vec![true; 64], row as u64)
    };
    ((0..8).map(of_window).collect(), tokenizer.into(), config.quantizer.codebook_sizes())
}

/// The same masks in each step, so that what is asked for can be remembered.
fn masked_overfits(kind: Kind, span: usize, pool: usize) {
    let device = Device::flex().autodiff();
    let (windows, tokenizer, sizes) = codes_of_windows(kind);
    let batch = TokenWindows { windows, device: device.clone() };
    let backbone = TransformerConfig { pool, ..TransformerConfig::tiny() };
    let source = TokenizerConfig::from(Preset::Tiny.config(kind)).source();
    let mut model = LanguageModel::new(&backbone.into(), source, &sizes, 1, &device);
    let masking = MaskingConfig { span, ..MaskingConfig::default() };
    let measured_span = Some(8);
    let objective = MaskedTokens { tokenizer: &tokenizer, sizes, masking, measured_span, pool, balance: 0.0, seed: 1 };
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
fn a_model_that_forms_units_overfits_a_batch() {
    let device = Device::flex().autodiff();
    let named = TokenizerConfig::mxdna();
    let tokenizer = named.fixed().expect("sound");
    let of_window = |number: u64| {
        let tokens = tokenizer.encode(&window(number, 48).bases).expect("tokens of bases alone");
        TokenWindow { tokens, is_target: vec![true; 48], number }
    };
    let windows: Vec<TokenWindow> = (0..4).map(of_window).collect();
    let batch = TokenWindows { windows: windows.clone(), device: device.clone() };
    let objective = MaskedTokens {
        tokenizer: &tokenizer,
        sizes: named.sizes(),
        measured_span: None,
        pool: 1,
        masking: MaskingConfig { share: 0.15, replaced: 1.0, random: 0.0, ..MaskingConfig::default() },
        balance: 0.01,
        seed: 1,
    };
    let backbone = BackboneConfig::from(MxdnaConfig::tiny());
    let mut model = LanguageModel::new(&backbone, named.source(), &named.sizes(), 1, &device);
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

    let batches = || std::iter::once(TokenWindows { windows: windows.clone(), device: Device::flex() });
    let plain = model.valid();
    let measures = objective.evaluate(&plain, &mut batches());
    assert_eq!(measures, objective.evaluate(&plain, &mut batches()), "twice the same");
    let masked = measures.iter().find(|(name, _)| name == "masked_bases").expect("how many were masked").1;
    assert!((10.0..50.0).contains(&masked), "{masked} of 192 bases are masked");
}
