//! Laws of masked modelling: what may be predicted, by whom it is seen, and that padding, batches and pools change nothing else.

use burn::prelude::*;

use crate::host::{assert_near, floats, noise, tensor};
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::batch::{TokenBatch, TokenWindow, TokenWindows};
use vqdna::model::{LanguageModel, Masked};
use vqdna::objective::masked::MaskedTokens;
use vqdna::objective::masking::MaskingConfig;
use vqdna::objective::{Measures, Objective};
use vqdna::ops::with_composed_ops;
use vqdna::quantizer::{HrqConfig, QuantizerConfig};
use vqdna::tokenizer::vqdna::VqdnaConfig;
use vqdna::tokenizer::{Source, Tokenizer};
use vqdna::train::optimizer::Gradients;

/// Sums over rows of other lengths.
const ROUNDING: f32 = 1e-5;
const D_CODE: usize = 6;
const CODEBOOK_SIZES: [usize; 2] = [5, 9];
const POOLS: [usize; 3] = [1, 2, 4];

/// A vocabulary whose codes nothing is encoded to: windows are of random ones.
fn tokenizer() -> Tokenizer {
    let quantizer = QuantizerConfig::Hrq(HrqConfig { codebook_sizes: CODEBOOK_SIZES.to_vec(), ..HrqConfig::default() });
    let config =
        VqdnaConfig { d_stem: 4, d_code: D_CODE, blocks: 2, taps: vec![1, 2], quantizer, ..VqdnaConfig::default() };
    config.check().expect("sound");
    config.init(0, &Device::flex()).into()
}

fn model(pool: usize, device: &Device) -> LanguageModel {
    let config = TransformerConfig { d_model: 24, layers: 2, heads: 2, d_ff: 40, pool, ..TransformerConfig::tiny() };
    LanguageModel::new(&config.into(), Source::Vectors(D_CODE), &CODEBOOK_SIZES, 7, device)
}

fn objective(tokenizer: &Tokenizer, pool: usize, masking: MaskingConfig) -> MaskedTokens<'_> {
    let sizes = CODEBOOK_SIZES.to_vec();
    MaskedTokens { tokenizer, sizes, masking, measured_span: Some(5), pool, balance: 0.0, seed: 3 }
}

/// A window of random codes; every ninth base is N.
fn window(number: u64, bases: usize) -> TokenWindow {
    let codes = |level: usize| {
        let size = CODEBOOK_SIZES[level] as f32;
        noise(10 * number + level as u64, bases).iter().map(|v| ((v * 0.499 + 0.5) * size) as u32).collect()
    };
    let is_target = (0..bases).map(|i| i % 9 != 4).collect();
    TokenWindow::of_codes((0..CODEBOOK_SIZES.len()).map(codes).collect(), is_target, number)
}

fn windows() -> Vec<TokenWindow> {
    [40, 17, 1, 64, 2].into_iter().zip(0..).map(|(bases, number)| window(number, bases)).collect()
}

fn batch(windows: &[TokenWindow], device: &Device) -> TokenWindows {
    TokenWindows { windows: windows.to_vec(), device: device.clone() }
}

fn measure(measures: &Measures, name: &str) -> f64 {
    measures.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name} in {measures:?}")).1
}

/// Windows that are measured together, padded to the longest, one by one, or in another order, are predicted alike.
#[test]
fn batches_and_padding_change_no_measure() {
    let (device, tokenizer, windows) = (Device::flex(), tokenizer(), windows());
    for pool in POOLS {
        let (model, objective) = (model(pool, &device), objective(&tokenizer, pool, MaskingConfig::default()));
        let evaluate = |batches: Vec<TokenWindows>| objective.evaluate(&model, &mut batches.into_iter());
        let together = evaluate(vec![batch(&windows, &device)]);
        let alone = evaluate(windows.iter().map(|window| batch(std::slice::from_ref(window), &device)).collect());
        let reversed: Vec<TokenWindow> = windows.iter().rev().cloned().collect();
        let halves = evaluate(reversed.chunks(3).map(|some| batch(some, &device)).collect());
        assert!(measure(&together, "masked_bases") > 10.0, "{together:?}");
        for other in [alone, halves] {
            for ((name, one), (_, two)) in together.iter().zip(&other) {
                assert!((one - two).abs() <= 1e-5 * one.abs(), "pool {pool}: {name}: {one}, not {two}");
            }
        }
    }
}

#[test]
fn padding_never_changes_a_pooled_loss_or_its_gradient() {
    let device = Device::flex().autodiff();
    let law = || {
        for pool in POOLS {
            let model = model(pool, &device);
            let lengths = [22, 13, 1];
            // Pools and bases at random; the rest of a row is padding with `filling`.
            let made = |width: usize, filling: f32| {
                let (mut vectors, mut real, mut targets, mut masked) = (vec![], vec![], vec![], vec![]);
                let mut codes = vec![vec![]; CODEBOOK_SIZES.len()];
                for (row, bases) in (0..).zip(lengths) {
                    let rest = width - bases;
                    vectors.extend(noise(row, bases * D_CODE));
                    vectors.extend(std::iter::repeat_n(filling, rest * D_CODE));
                    real.extend((0..width).map(|i| f32::from(i < bases)));
                    targets.extend((0..width).map(|i| i < bases && i % 3 != 1 && i / pool % 2 == 0));
                    masked.extend((0..width.div_ceil(pool)).map(|i| i * pool < bases && i % 4 == 0));
                    for (codes, size) in codes.iter_mut().zip(CODEBOOK_SIZES) {
                        codes.extend((0..width).map(|i| if i < bases { (i * 7 % size) as i32 } else { 0 }));
                    }
                }
                let shape = [lengths.len(), width];
                let masked = Masked::with_targets(&masked, &targets, shape, pool, &device);
                assert_eq!(masked.count(), targets.iter().filter(|&&target| target).count());
                let codes: Vec<Tensor<2, Int>> =
                    codes.into_iter().map(|codes| Tensor::from_data(TensorData::new(codes, shape), &device)).collect();
                let vectors = tensor(&vectors, [shape[0], width, D_CODE], &device);
                let batch = TokenBatch::of_vectors(vectors, tensor(&real, shape, &device));
                let loss = model.loss(&batch, &masked, &codes);
                (floats(loss.clone()), Gradients::of(&model, &loss.backward()).to_arrays())
            };
            let ((narrow, gradients), (wide, padded)) = (made(22, 0.0), made(31, 50.0));
            assert_near(&format!("pool {pool}"), &wide, &narrow, ROUNDING);
            for (name, gradient) in &gradients {
                assert_near(&format!("pool {pool}: {name}"), &padded[name].values, &gradient.values, ROUNDING);
            }
        }
    };
    law();
    with_composed_ops(law);
}

/// The loss of a pooled batch is the mean over all tokens to predict, wherever they stand in their pools.
#[test]
fn every_base_of_a_pool_counts_alike() {
    let device = Device::flex();
    for pool in [2, 4] {
        let model = model(pool, &device);
        let (bases, shape) = (12, [1, 12]);
        let vectors = tensor(&noise(1, bases * D_CODE), [1, bases, D_CODE], &device);
        let real = Tensor::ones(shape, &device);
        let codes: Vec<Tensor<2, Int>> = CODEBOOK_SIZES
            .iter()
            .map(|&size| {
                let codes: Vec<i32> = (0..bases).map(|i| (i * 5 % size) as i32).collect();
                Tensor::from_data(TensorData::new(codes, shape), &device)
            })
            .collect();
        let pools: Vec<bool> = (0..bases.div_ceil(pool)).map(|i| i != 1).collect();
        let losses = |wanted: &dyn Fn(usize) -> bool| {
            let targets: Vec<bool> = (0..bases).map(wanted).collect();
            let masked = Masked::with_targets(&pools, &targets, shape, pool, &device);
            let batch = TokenBatch::of_vectors(vectors.clone(), real.clone());
            let losses = model.losses(&batch, &masked, &codes, None).levels;
            let (predicted, _) = model.predicted(&batch, &masked, &codes);
            for (loss, found) in losses.iter().zip(predicted) {
                assert_near("nats", &floats(loss.clone()), &[(found.nats / masked.count() as f64) as f32], ROUNDING);
            }
            losses.into_iter().flat_map(floats).collect::<Vec<f32>>()
        };
        let targets = [0, 1, 2, 7, 9, 10, 11];
        let all = losses(&|base| targets.contains(&base));
        let each = targets.map(|target| losses(&|base| base == target));
        for (level, all) in all.iter().enumerate() {
            let mean = each.iter().map(|losses| losses[level]).sum::<f32>() / targets.len() as f32;
            assert_near(&format!("pool {pool}"), &[*all], &[mean], ROUNDING);
        }
    }
}

#[test]
fn only_targets_are_predicted() {
    let (device, tokenizer) = (Device::flex(), tokenizer());
    for (pool, span) in [(1, 1), (1, 6), (4, 1), (2, 6)] {
        let masking = MaskingConfig { share: 0.999_999, span, ..MaskingConfig::default() };
        let (model, objective) = (model(pool, &device), objective(&tokenizer, pool, masking));
        let evaluate =
            |windows: &[TokenWindow]| objective.evaluate(&model, &mut std::iter::once(batch(windows, &device)));
        let all = windows();
        let targets = all.iter().flat_map(|window| &window.is_target).filter(|&&target| target).count();
        assert_eq!(measure(&evaluate(&all), "masked_bases"), targets as f64, "pool {pool}, span {span}");
        let nothing: Vec<TokenWindow> = all
            .into_iter()
            .map(|window| TokenWindow { is_target: vec![false; window.is_target.len()], ..window })
            .collect();
        assert_eq!(evaluate(&nothing), [("masked_bases".to_owned(), 0.0)]);
        let outcome = objective.forward(&model, &batch(&nothing, &device));
        assert_eq!(floats(outcome.loss), [0.0]);
    }
}

/// Codes of N are seen: they change what is predicted of others.
#[test]
fn what_is_no_target_is_seen() {
    let (device, tokenizer) = (Device::flex(), tokenizer());
    let (model, objective) = (model(1, &device), objective(&tokenizer, 1, MaskingConfig::default()));
    let mut windows = windows();
    let loss = |windows: &[TokenWindow]| floats(objective.forward(&model, &batch(windows, &device)).loss);
    let before = loss(&windows);
    for window in &mut windows {
        for (code, _) in window.tokens.levels[0].iter_mut().zip(&window.is_target).filter(|(_, target)| !**target) {
            *code = (*code + 1) % CODEBOOK_SIZES[0] as u32;
        }
    }
    assert_ne!(loss(&windows), before);
}

#[test]
fn masks_depend_on_the_seed_and_the_number_of_the_window_alone() {
    let (device, tokenizer) = (Device::flex(), tokenizer());
    let model = model(1, &device);
    let loss = |seed: u64, windows: &[TokenWindow]| {
        let objective = MaskedTokens { seed, ..objective(&tokenizer, 1, MaskingConfig::default()) };
        floats(objective.forward(&model, &batch(windows, &device)).loss)
    };
    let one = window(5, 60);
    assert_eq!(loss(3, std::slice::from_ref(&one)), loss(3, std::slice::from_ref(&one)));
    assert_ne!(loss(3, std::slice::from_ref(&one)), loss(4, std::slice::from_ref(&one)), "another seed");
    assert_ne!(
        loss(3, std::slice::from_ref(&one)),
        loss(3, &[TokenWindow { number: 6, ..one.clone() }]),
        "another number"
    );
}
