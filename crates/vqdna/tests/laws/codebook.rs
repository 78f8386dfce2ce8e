//! Laws of codebooks: how they start, move, and come back to life.

use burn::prelude::*;

use super::{D_CODE, ROUNDING, SAMPLE, SEED, all_real, quantizers, reviving, sample, started, taps};
use crate::host::{assert_near, floats, noise, tensor};
use vqdna::quantizer::codebook::{Revival, Statistics};
use vqdna::quantizer::{Quantizer, QuantizerConfig};
use vqdna::seed::stream;
use vqdna::weights::{assign, collect};

/// Averages divide by counts with ε = 1e-5 added, against counts of one and more that decay.
const SMOOTHING: f32 = 1e-4;
/// Share of the mean count below which the dead are few.
const FEW: f64 = 0.03;

fn statistics(quantizer: &Quantizer, taps: &[Tensor<3>], shape: [usize; 2]) -> Vec<Statistics> {
    quantizer.statistics(&quantizer.forward(taps, &all_real(shape)), &all_real(shape))
}

#[test]
fn the_average_of_a_constant_is_that_constant() {
    for (name, config) in quantizers() {
        let constant = noise(11, D_CODE);
        let tap = || tensor::<1>(&constant, [D_CODE], &Device::flex()).reshape([1, 1, D_CODE]).repeat(&[4, 8, 1]);
        let all: Vec<Tensor<3>> = (0..config.taps()).map(|_| tap()).collect();
        let rows: Vec<Tensor<2>> = all.iter().map(|tap| tap.clone().reshape([32, D_CODE])).collect();
        let mut quantizer = config.init(D_CODE, &mut stream(SEED, "weights", &[]), &Device::flex()).initialise(
            &rows,
            32,
            SEED,
            &|| true,
        );
        let first = floats(quantizer.forward(&all, &all_real([4, 8])).output);
        if config.codebook().is_some() {
            assert_near(name, &first, &floats(tap()), ROUNDING);
        }
        for step in 1..=25 {
            let statistics = statistics(&quantizer, &all, [4, 8]);
            quantizer = quantizer.update(statistics, SEED, step);
        }
        assert_near(name, &floats(quantizer.forward(&all, &all_real([4, 8])).output), &first, SMOOTHING);
    }
}

#[test]
fn k_means_leaves_no_empty_code() {
    for (name, config) in quantizers() {
        let quantizer = started(&config, &Device::flex());
        assert_eq!(
            quantizer.recent_counts().len(),
            if config.codebook().is_some() { config.codebook_sizes().len() } else { 0 }
        );
        for statistics in statistics(&quantizer, &taps(&config, SEED, [1, SAMPLE], &Device::flex()), [1, SAMPLE]) {
            let counts = floats(statistics.counts);
            assert!(counts.iter().all(|&n| n > 0.0), "{name}: {counts:?}");
        }
        for counts in quantizer.recent_counts() {
            let total: f32 = floats(counts).iter().sum();
            assert!((total - 100.0).abs() < 0.1, "{name}: counts are those of a step of 100 rows, not {total}");
        }
    }
}

/// How far away dead codes lie, and within what all that is searched does.
const FAR: f32 = 1e3;
const NEAR: f32 = 20.0;
/// Their long-term count: they were the most used codes until lately.
const ONCE_USED: f32 = 500.0;

#[test]
fn revival_leaves_no_dead_code() {
    for ((name, config), revive) in
        quantizers().into_iter().flat_map(|case| [(case.clone(), Revival::Split), (case, Revival::Sample)])
    {
        let config = reviving(&config, revive, FEW);
        let Some(codebook) = config.codebook() else { continue };
        let mut arrays = collect(&started(&config, &Device::flex()));
        for (part, array) in &mut arrays {
            let half = array.values.len() / 2;
            array.values[..half].fill(match part.rsplit('.').next() {
                Some("codes") => FAR,
                Some("sums") => FAR * ONCE_USED,
                Some("counts") => ONCE_USED,
                _ => 0.0,
            });
        }
        let quantizer = assign(started(&config, &Device::flex()), &arrays).expect("the same names");
        let seen = || statistics(&quantizer, &taps(&config, 6, [2, 50], &Device::flex()), [2, 50]);
        let threshold =
            |counts: &[f32]| codebook.revive_below as f32 * counts.iter().sum::<f32>() / counts.len() as f32;

        let before = quantizer.clone().update(seen(), SEED, codebook.revive_every + 1);
        let after = quantizer.clone().update(seen(), SEED, codebook.revive_every);
        for (level, (before, after)) in before.recent_counts().into_iter().zip(after.recent_counts()).enumerate() {
            let (before, after) = (floats(before), floats(after));
            let least = threshold(&before);
            assert!(before.iter().any(|&n| n < least), "{name}: no revival between the steps for it");
            assert!(after.iter().all(|&n| n >= least), "{name}, level {level}, {revive:?}: {after:?}");
        }
        for (part, array) in collect(&after).iter().filter(|(part, _)| part.ends_with("codes")) {
            assert!(array.values.iter().all(|v| v.abs() < NEAR), "{name}, {revive:?}: {part} {:?}", array.values);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_codebooks() {
    let learned = |config: &QuantizerConfig, seed| {
        let mut quantizer = config.init(D_CODE, &mut stream(seed, "weights", &[]), &Device::flex());
        quantizer = quantizer.initialise(&sample(config), 100, seed, &|| true);
        for step in 1..=10 {
            let statistics = statistics(&quantizer, &taps(config, step, [2, 20], &Device::flex()), [2, 20]);
            quantizer = quantizer.update(statistics, seed, step);
        }
        collect(&quantizer)
    };
    for (name, config) in quantizers() {
        assert_eq!(learned(&config, 1), learned(&config, 1), "{name}");
        assert_ne!(learned(&config, 1), learned(&config, 2), "{name}");
    }
}
