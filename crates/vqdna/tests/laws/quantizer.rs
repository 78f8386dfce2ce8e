//! Laws of a quantizer's forward and backward pass.

use burn::prelude::*;

use super::{D_CODE, ROUNDING, SEED, all_real, quantizers, reviving, started, tap_values, taps};
use crate::host::{assert_near, floats, integers, noise, tensor};
use vqdna::quantizer::codebook::Revival;
use vqdna::quantizer::gradient::GradientRule;
use vqdna::quantizer::{Quantized, Quantizer, QuantizerConfig};
use vqdna::weights::collect;

#[test]
fn codes_are_below_the_codebook_size_and_one_a_position() {
    for (name, config) in quantizers() {
        let made =
            started(&config, &Device::flex()).forward(&taps(&config, 1, [3, 40], &Device::flex()), &all_real([3, 40]));
        let sizes = config.codebook_sizes();
        assert_eq!(made.codes.len(), sizes.len(), "{name}");
        assert_eq!(made.means.len(), sizes.len(), "{name}");
        for (codes, size) in made.codes.into_iter().zip(sizes) {
            assert_eq!(codes.dims(), [3, 40], "{name}");
            let codes = integers(codes);
            assert!(codes.iter().all(|&code| (0..size as i32).contains(&code)), "{name}: {codes:?} of {size}");
            let distinct = codes.iter().collect::<std::collections::HashSet<_>>().len();
            assert!(distinct > 2, "{name}: {distinct} of {size} codes for noise");
        }
    }
}

#[test]
fn encoding_gives_the_codes_of_learning() {
    for (name, config) in quantizers() {
        let (quantizer, taps) = (started(&config, &Device::flex()), taps(&config, 1, [3, 40], &Device::flex()));
        let codes = |codes: Vec<Tensor<2, Int>>| codes.into_iter().map(integers).collect::<Vec<_>>();
        assert_eq!(
            codes(quantizer.encode(taps.clone())),
            codes(quantizer.forward(&taps, &all_real([3, 40])).codes),
            "{name}"
        );
    }
}

#[test]
fn codes_decode_to_the_output() {
    for (name, config) in quantizers() {
        let quantizer = started(&config, &Device::flex());
        let made = quantizer.forward(&taps(&config, 1, [3, 40], &Device::flex()), &all_real([3, 40]));
        let decoded = floats(quantizer.decode(&made.codes));
        assert_near(name, &floats(made.output), &decoded, ROUNDING);
        assert_near(name, &floats(made.means.last().expect("a level").clone()), &decoded, ROUNDING);
    }
}

#[test]
fn a_batch_of_one_is_a_row_of_a_batch() {
    for (name, config) in quantizers() {
        let (quantizer, all) = (started(&config, &Device::flex()), taps(&config, 1, [5, 9], &Device::flex()));
        let together = quantizer.forward(&all, &all_real([5, 9]));
        for row in 0..5 {
            let own: Vec<_> = all.iter().map(|tap| tap.clone().narrow(0, row, 1)).collect();
            let alone = quantizer.forward(&own, &all_real([1, 9]));
            for (codes, expected) in alone.codes.iter().zip(&together.codes) {
                assert_eq!(integers(codes.clone()), integers(expected.clone().narrow(0, row, 1)), "{name}");
            }
            assert_eq!(floats(alone.output), floats(together.output.clone().narrow(0, row, 1)), "{name}");
        }
    }
}

/// Share of the mean count below which about half of the codes are dead.
const MANY: f64 = 0.9;

/// A batch of `[2, 7]` inside one of `[3, 10]`, whose other positions hold large numbers.
struct Padded {
    taps: Vec<Tensor<3>>,
    mask: Tensor<2>,
    /// Places of the real positions, in order.
    places: Vec<usize>,
}

const REAL: [usize; 2] = [2, 7];
const PADDED: [usize; 2] = [3, 10];

impl Padded {
    fn new(config: &QuantizerConfig, seed: u64) -> Self {
        let places: Vec<usize> = (0..REAL[0]).flat_map(|row| (0..REAL[1]).map(move |i| row * PADDED[1] + i)).collect();
        let size = PADDED[0] * PADDED[1];
        let around = |values: Vec<f32>| {
            let mut wide: Vec<f32> = noise(seed + 7, size * D_CODE).into_iter().map(|v| 50.0 * v).collect();
            for (vector, place) in values.chunks(D_CODE).zip(&places) {
                wide[place * D_CODE..(place + 1) * D_CODE].copy_from_slice(vector);
            }
            tensor(&wide, [PADDED[0], PADDED[1], D_CODE], &Device::flex())
        };
        let mut mask = vec![0.0; size];
        for &place in &places {
            mask[place] = 1.0;
        }
        let taps = tap_values(config, seed, REAL).into_iter().map(around).collect();
        Self { taps, mask: tensor(&mask, PADDED, &Device::flex()), places }
    }

    fn real_codes(&self, codes: &Tensor<2, Int>) -> Vec<i32> {
        let all = integers(codes.clone());
        self.places.iter().map(|&place| all[place]).collect()
    }
}

/// T14 of `docs/vectors.md`.
#[test]
fn padding_changes_nothing() {
    for (name, config) in quantizers() {
        let config = reviving(&config, Revival::Split, MANY);
        let (quantizer, padded) = (started(&config, &Device::flex()), Padded::new(&config, 3));
        let mask = all_real(REAL);
        let want = quantizer.forward(&taps(&config, 3, REAL, &Device::flex()), &mask);
        let got = quantizer.forward(&padded.taps, &padded.mask);
        for (codes, expected) in got.codes.iter().zip(&want.codes) {
            assert_eq!(padded.real_codes(codes), integers(expected.clone()), "{name}");
        }
        assert_near(name, &floats(got.commitment.clone()), &floats(want.commitment.clone()), ROUNDING);
        let (output, real) = (floats(got.output.clone()), floats(padded.mask.clone()));
        for (place, _) in real.iter().enumerate().filter(|(_, real)| **real == 0.0) {
            assert!(output[place * D_CODE..(place + 1) * D_CODE].iter().all(|&value| value == 0.0), "{name}");
            assert!(got.codes.iter().all(|codes| integers(codes.clone())[place] == -1), "{name}");
        }

        let (seen, expected) = (quantizer.statistics(&got, &padded.mask), quantizer.statistics(&want, &mask));
        for (seen, expected) in seen.iter().zip(&expected) {
            assert_eq!(floats(seen.counts.clone()), floats(expected.counts.clone()), "{name}: usage");
            assert_near(name, &floats(seen.sums.clone()), &floats(expected.sums.clone()), ROUNDING);
        }
        // In a step that revives.
        let moved = |statistics| collect(&quantizer.clone().update(statistics, SEED, 10));
        let (got, want) = (moved(seen), moved(expected));
        for (part, array) in &want {
            assert_near(&format!("{name}: {part}"), &got[part].values, &array.values, ROUNDING);
        }
    }
}

#[test]
fn statistics_count_every_real_position_once() {
    for (name, config) in quantizers() {
        let (quantizer, padded) = (started(&config, &Device::flex()), Padded::new(&config, 4));
        let made = quantizer.forward(&padded.taps, &padded.mask);
        for (level, statistics) in quantizer.statistics(&made, &padded.mask).into_iter().enumerate() {
            let size = config.codebook_sizes()[level];
            let searched = floats(made.searched[level].clone());
            let (mut counts, mut sums) = (vec![0.0; size], vec![0.0; size * D_CODE]);
            for (code, place) in padded.real_codes(&made.codes[level]).into_iter().zip(&padded.places) {
                counts[code as usize] += 1.0;
                for channel in 0..D_CODE {
                    sums[code as usize * D_CODE + channel] += searched[place * D_CODE + channel];
                }
            }
            assert_eq!(floats(statistics.counts), counts, "{name}");
            assert_near(name, &floats(statistics.sums), &sums, ROUNDING);
        }
    }
}

/// The gradient of `Σ output · g` with respect to each tap; zeros where there is none.
fn gradients(quantizer: &Quantizer, taps: &[Tensor<3>], loss: impl Fn(Quantized) -> Tensor<1>) -> Vec<Vec<f32>> {
    let taps: Vec<Tensor<3>> = taps.iter().map(|tap| tap.clone().require_grad()).collect();
    let [batch, bases, _] = taps[0].dims();
    let graph = loss(quantizer.forward(&taps, &Tensor::ones([batch, bases], &taps[0].device()))).backward();
    let zeros = || vec![0.0; batch * bases * D_CODE];
    taps.iter().map(|tap| tap.grad(&graph).map_or_else(zeros, floats)).collect()
}

/// V6 of `docs/vectors.md`, T6 of `docs/vectors.md`: the identity for the last tap, nothing for the others.
#[test]
fn a_straight_through_gradient_is_the_identity() {
    let device = Device::flex().autodiff();
    for (name, config) in quantizers() {
        if config.codebook().is_none_or(|codebook| codebook.gradient != GradientRule::StraightThrough) {
            continue;
        }
        let g = noise(9, 2 * 6 * D_CODE);
        let loss = |made: Quantized| (made.output * tensor(&g, [2, 6, D_CODE], &device)).sum();
        let mut found = gradients(&started(&config, &device), &taps(&config, 2, [2, 6], &device), loss);
        assert_eq!(found.pop().expect("a tap"), g, "{name}: the last tap");
        assert!(found.iter().flatten().all(|&v| v == 0.0), "{name}: other taps {found:?}");
    }
}

/// T15 of `docs/vectors.md` for `fsq`: as if nothing were rounded on the way back.
#[test]
fn rounding_is_invisible_to_gradients() {
    let device = Device::flex().autodiff();
    for (name, config) in quantizers() {
        let Quantizer::Fsq(fsq) = started(&config, &device) else { continue };
        let QuantizerConfig::Fsq(settings) = &config else { unreachable!("its own config") };
        let g = tensor(&noise(9, 2 * 6 * D_CODE), [2, 6, D_CODE], &device);
        let per_channel = |f: &dyn Fn(f64) -> f64| {
            let values: Vec<f32> = settings.levels.iter().map(|&levels| f(levels as f64) as f32).collect();
            tensor(&values, [1, 1, values.len()], &device)
        };
        let half = |levels: f64| (levels - 1.0) * 1.001 / 2.0;
        let offset = |levels: f64| if levels % 2.0 == 0.0 { 0.5 } else { 0.0 };
        let z = taps(&config, 2, [2, 6], &device).remove(0).require_grad();
        let shifted = fsq.narrow.forward(z.clone()) + per_channel(&|levels| (offset(levels) / half(levels)).atanh());
        let bounded = shifted.tanh() * per_channel(&half) - per_channel(&offset);
        let smooth = fsq.widen.forward(bounded / per_channel(&|levels| (levels / 2.0).floor()));
        let want = z.grad(&(smooth * g.clone()).sum().backward()).expect("reached");
        let got = gradients(&Quantizer::Fsq(fsq), &[z.detach()], |made| (made.output * g.clone()).sum());
        assert_near(name, &got[0], &floats(want), 1e-5);
    }
}

/// `d/dZ mean ‖Z − sg Ẑ‖²`, summed over the levels that read a tap.
#[test]
fn commitment_pulls_every_tap_to_its_means() {
    let device = Device::flex().autodiff();
    for (name, config) in quantizers() {
        if config.codebook().is_none() {
            continue;
        }
        let (quantizer, all) = (started(&config, &device), taps(&config, 2, [2, 6], &device));
        let made = quantizer.forward(&all, &Tensor::ones([2, 6], &device));
        let mut want = vec![vec![0.0; 2 * 6 * D_CODE]; all.len()];
        for (level, mean) in made.means.into_iter().enumerate() {
            let tap = level.min(all.len() - 1);
            let values = floats(all[tap].clone()).into_iter().zip(floats(mean));
            want[tap]
                .iter_mut()
                .zip(values)
                .for_each(|(sum, (z, mean))| *sum += 2.0 * (z - mean) / (2 * 6 * D_CODE) as f32);
        }
        let found = gradients(&quantizer, &all, |made| made.commitment);
        found.iter().zip(&want).for_each(|(got, want)| assert_near(name, got, want, ROUNDING));
    }
}
