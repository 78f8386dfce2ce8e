//! Laws of the tokenizer: what a position sees, and that it sees nothing else.

use burn::prelude::*;
use std::ops::Range;

use crate::host::{assert_near, floats, integers, window};
use vqdna::batch::{Batch, HostWindow};
use vqdna::objective::Objective;
use vqdna::objective::reconstruct::{Reconstruct, cross_entropy};
use vqdna::tokenizer::vqdna::{Kind, Preset, Vqdna, VqdnaConfig};
use vqdna::train::optimizer::Gradients;
use vqdna::weights::collect;
use vqdna_data::alphabet;
use vqdna_data::window::Windowing;

const KINDS: [Kind; 4] = [Kind::Vq, Kind::Hrq, Kind::Rq, Kind::Fsq];

fn config(kind: Kind) -> VqdnaConfig {
    Preset::Tiny.config(kind)
}

fn batch(windows: &[HostWindow]) -> Batch {
    Batch::new(windows, 1.0, &Device::flex())
}

/// A tokenizer with codebooks set from data, so that codes vary.
fn started(kind: Kind) -> Vqdna {
    let model = config(kind).init(3, &Device::flex());
    let windows: Vec<HostWindow> = (0..4).map(|seed| window(50 + seed, 256)).collect();
    let objective = Reconstruct { config: config(kind), seed: 3, start_rows: 512 };
    objective.start(model, &mut std::iter::once(batch(&windows)), 1, &|| true)
}

fn taps(model: &Vqdna, batch: &Batch) -> Vec<Tensor<3>> {
    model.encoder.forward(batch.bases.clone(), batch.mask())
}

/// First and last position at which two `[1, bases, d]` tensors differ in any bit.
fn changed(a: Tensor<3>, b: Tensor<3>) -> (usize, usize) {
    let d = a.dims()[2];
    let (a, b) = (floats(a), floats(b));
    let differs = |i: &usize| a[i * d..(i + 1) * d] != b[i * d..(i + 1) * d];
    let positions: Vec<usize> = (0..a.len() / d).filter(differs).collect();
    (positions[0], positions[positions.len() - 1])
}

/// V7 of `docs/vectors.md`: 11 and 20 bases on either side, no more and no less.
#[test]
fn a_base_is_seen_within_the_receptive_field() {
    let model = started(Kind::Hrq);
    assert_eq!(config(Kind::Hrq).code_halos(), [11, 20]);
    assert_eq!(config(Kind::Hrq).encoder_halo(), 20);
    let sequence = window(1, 200);
    for at in [0, 1, 15, 77, 100, 190, 199] {
        let mut flipped = sequence.clone();
        flipped.bases[at] = (flipped.bases[at] + 1) % 4;
        let (before, after) = (taps(&model, &batch(std::slice::from_ref(&sequence))), taps(&model, &batch(&[flipped])));
        for ((before, after), reach) in before.into_iter().zip(after).zip([11, 20]) {
            assert_eq!(changed(before, after), (at.saturating_sub(reach), (at + reach).min(199)), "base {at}");
        }
    }
}

#[test]
fn the_decoder_reaches_as_far_as_it_says() {
    let (model, halo) = (started(Kind::Vq), config(Kind::Vq).decoder_halo());
    let sequence = batch(&[window(1, 200)]);
    let codes = integers(model.encode(&sequence).remove(0));
    let logits = |codes: &[i32]| {
        let codes = Tensor::from_data(TensorData::new(codes.to_vec(), [1, 200]), &Device::flex());
        model.decode(&[codes], &sequence.padding)
    };
    for at in [0, 77, 199] {
        let mut other = codes.clone();
        other[at] = (other[at] + 1) % 128;
        assert_eq!(
            changed(logits(&codes), logits(&other)),
            (at.saturating_sub(halo), (at + halo).min(199)),
            "code {at}"
        );
    }
}

/// V8 of `docs/vectors.md`.
#[test]
fn every_length_gives_one_code_a_base_and_four_logits() {
    for kind in KINDS {
        let model = started(kind);
        for bases in [1, 5, 512, 1000] {
            let batch = batch(&[window(2, bases)]);
            let codes = model.encode(&batch);
            assert_eq!(model.quantizer.decode(&codes).dims(), [1, bases, 64], "{kind:?}");
            assert_eq!(codes.len(), config(kind).quantizer.codebook_sizes().len(), "{kind:?}");
            assert!(codes.iter().all(|codes| codes.dims() == [1, bases]), "{kind:?}");
            assert_eq!(model.decode(&codes, &batch.padding).dims(), [1, bases, 4], "{kind:?}");
            assert_eq!(model.forward(&batch).logits.dims(), [1, bases, 4], "{kind:?}");
        }
    }
}

/// Rows of any length, together and far wider than needed, against each alone: equal in every bit.
#[test]
fn padding_never_changes_a_real_position() {
    let windows: Vec<HostWindow> =
        [37, 64, 1, 20, 129].into_iter().zip(10..).map(|(n, seed)| window(seed, n)).collect();
    for kind in KINDS {
        let model = started(kind);
        let together = Batch::with_width(&windows, 150, 1.0, &Device::flex());
        let (all_taps, made) = (taps(&model, &together), model.forward(&together));
        let decoded = model.decode(&made.quantized.codes, &together.padding);
        for (row, alone) in windows.iter().enumerate() {
            let (bases, alone) = (alone.bases.len(), batch(std::slice::from_ref(alone)));
            let own = |tensor: &Tensor<3>| floats(tensor.clone().slice([row..row + 1, 0..bases]));
            for (tap, expected) in all_taps.iter().zip(taps(&model, &alone)) {
                assert_eq!(own(tap), floats(expected), "{kind:?}: tap of row {row}");
            }
            let expected = model.forward(&alone);
            for (codes, expected) in made.quantized.codes.iter().zip(&expected.quantized.codes) {
                assert_eq!(
                    integers(codes.clone().slice([row..row + 1, 0..bases])),
                    integers(expected.clone()),
                    "{kind:?}"
                );
            }
            assert_eq!(own(&made.logits), floats(expected.logits), "{kind:?}: logits of row {row}");
            let expected = model.decode(&expected.quantized.codes, &alone.padding);
            assert_eq!(own(&decoded), floats(expected), "{kind:?}: decoded row {row}");
        }
    }
}

/// Losses and gradients are sums over real positions in another order; AdamW and clipping come after.
const ROUNDING: f32 = 1e-5;

#[test]
fn padding_never_changes_the_loss_or_its_gradient() {
    let device = Device::flex().autodiff();
    let windows: Vec<HostWindow> = [30, 64, 11].into_iter().zip(20..).map(|(n, seed)| window(seed, n)).collect();
    for kind in KINDS {
        let objective = Reconstruct { config: config(kind), seed: 3, start_rows: 512 };
        let narrow = Batch::new(&windows, 1.0, &device);
        let model = objective.start(config(kind).init(3, &device), &mut std::iter::once(narrow.clone()), 1, &|| true);
        let made = |batch: &Batch| {
            let outcome = objective.forward(&model, batch);
            let parts: Vec<f32> = outcome.parts.into_iter().flat_map(|(_, part)| floats(part)).collect();
            (floats(outcome.loss.clone()), parts, Gradients::of(&model, &outcome.loss.backward()).to_arrays())
        };
        let (loss, parts, gradients) = made(&narrow);
        let (padded_loss, padded_parts, padded_gradients) = made(&Batch::with_width(&windows, 100, 1.0, &device));
        assert_near("loss", &padded_loss, &loss, ROUNDING);
        assert_near("parts", &padded_parts, &parts, ROUNDING);
        assert_eq!(gradients.len(), padded_gradients.len());
        for (name, gradient) in &gradients {
            let largest = gradient.values.iter().fold(0f32, |most, v| most.max(v.abs()));
            assert!(largest > 0.0 || name.starts_with("quantizer"), "{kind:?}: {name} learns nothing");
            assert_near(&format!("{kind:?}: {name}"), &padded_gradients[name].values, &gradient.values, ROUNDING);
        }
    }
}

#[test]
fn an_unknown_base_is_seen_as_no_base_and_weighs_nothing() {
    let model = started(Kind::Hrq);
    let sequence = window(4, 60);
    let mut gapped = sequence.clone();
    gapped.bases[20..25].fill(alphabet::N);
    let made = |window: &HostWindow| model.forward(&batch(std::slice::from_ref(window)));
    let (first, last) = changed(made(&sequence).logits, made(&gapped).logits);
    assert!(first <= 20 && last >= 24, "N is not one of the four bases: {first}..{last}");

    let logits = floats(made(&gapped).logits);
    let loss = floats(cross_entropy(made(&gapped).logits, &batch(std::slice::from_ref(&gapped))))[0];
    let nats = |i: usize| {
        let four = &logits[4 * i..4 * i + 4];
        four.iter().map(|v| v.exp()).sum::<f32>().ln() - four[gapped.bases[i] as usize]
    };
    let known: Vec<f32> = (0..60).filter(|&i| gapped.bases[i] != alphabet::N).map(nats).collect();
    assert!((loss - known.iter().sum::<f32>() / 55.0).abs() < 1e-5, "{loss} nats");

    let nothing = HostWindow { bases: vec![alphabet::N; 30], soft_masked: Vec::new() };
    let unknown = made(&nothing);
    assert!(floats(unknown.logits.clone()).iter().all(|v| v.is_finite()));
    assert_eq!(floats(cross_entropy(unknown.logits, &batch(&[nothing]))), [0.0]);
}

/// Parameters that Burn would draw when first used would depend on the order of use.
#[test]
fn initial_weights_depend_on_the_seed_alone() {
    for kind in KINDS {
        let sequence = batch(&[window(5, 40)]);
        let one = config(kind).init(8, &Device::flex());
        let from_decoder = one.decoder.forward(Tensor::ones([1, 40, 64], &Device::flex()), sequence.mask());
        let other = config(kind).init(8, &Device::flex());
        let first_tap = taps(&other, &sequence).remove(0);
        assert_eq!(floats(taps(&one, &sequence).remove(0)), floats(first_tap), "{kind:?}");
        let expected = other.decoder.forward(Tensor::ones([1, 40, 64], &Device::flex()), sequence.mask());
        assert_eq!(floats(from_decoder), floats(expected), "{kind:?}");
        let trained = config(kind).init(8, &Device::flex().autodiff());
        assert_eq!(collect(&one), collect(&trained), "{kind:?}: on another device");
        assert_ne!(collect(&one), collect(&config(kind).init(9, &Device::flex())), "{kind:?}");
    }
}

/// The piece `context` of a sequence.
fn piece(sequence: &HostWindow, context: Range<usize>) -> HostWindow {
    HostWindow { bases: sequence.bases[context].to_vec(), soft_masked: Vec::new() }
}

/// Chunks of a genome have the codes of the whole, whatever the chunk and the batch.
#[test]
fn a_piece_with_its_halo_has_the_codes_of_the_whole() {
    let mut sequence = window(6, 1000);
    sequence.bases[300..340].fill(alphabet::N);
    for kind in KINDS {
        let model = started(kind);
        let halo = config(kind).encoder_halo();
        let whole = batch(std::slice::from_ref(&sequence));
        let (codes, last_tap) = (model.encode(&whole), taps(&model, &whole).pop().expect("a tap"));
        for (length, batch_size) in [(1000, 1), (333, 1), (100, 1), (100, 3), (64, 7), (7, 32), (1, 1000)] {
            let windowing = Windowing { length, stride: length, halo };
            let pieces: Vec<_> = windowing.windows(1000).collect();
            for pieces in pieces.chunks(batch_size) {
                let windows: Vec<_> = pieces.iter().map(|w| piece(&sequence, w.context.clone())).collect();
                let own = batch(&windows);
                let (own_codes, own_tap) = (model.encode(&own), taps(&model, &own).pop().expect("a tap"));
                for (row, window) in pieces.iter().enumerate() {
                    let core = window.core.start - window.context.start..window.core.end - window.context.start;
                    let place = format!("{kind:?}, {:?} in batches of {batch_size}", window.core);
                    let (from, want) = ([row..row + 1, core.clone()], [0..1, window.core.clone()]);
                    let tap = floats(own_tap.clone().slice(from.clone()));
                    assert_eq!(tap, floats(last_tap.clone().slice(want.clone())), "{place}");
                    for (own, all) in own_codes.iter().zip(&codes) {
                        let got = integers(own.clone().slice(from.clone()));
                        assert_eq!(got, integers(all.clone().slice(want.clone())), "{place}");
                    }
                }
            }
        }
        let context = 400 - halo / 2..600;
        let short = taps(&model, &batch(&[piece(&sequence, context.clone())])).pop().expect("a tap");
        let (got, want) =
            (short.slice([0..1, 400 - context.start..450 - context.start]), last_tap.slice([0..1, 400..450]));
        assert_ne!(floats(got), floats(want), "{kind:?}: half a halo is not enough");
    }
}
