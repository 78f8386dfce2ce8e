//! Laws of the backbone and the masked heads: what a hidden state and the loss depend on, for every kind of positions.

use burn::prelude::*;

use crate::host::{assert_near, floats, noise, tensor};
use vqdna::backbone::Backbone;
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::batch::TokenBatch;
use vqdna::model::language::{load_published, publish};
use vqdna::model::{LanguageModel, Masked};
use vqdna::ops::{Positions, with_composed_ops};
use vqdna::tokenizer::Source;
use vqdna::train::optimizer::Gradients;
use vqdna::weights::{WeightError, collect};

/// Sums over rows of other lengths.
const ROUNDING: f32 = 1e-5;
const D_INPUT: usize = 6;
const CODEBOOK_SIZES: [usize; 2] = [5, 9];

/// What layers have in common.
#[derive(Clone, Copy, Debug)]
struct Form {
    positions: Positions,
    causal: bool,
}

fn config(Form { positions, causal }: Form) -> TransformerConfig {
    let sizes = TransformerConfig { d_model: 24, layers: 3, heads: 3, d_ff: 40, ..TransformerConfig::tiny() };
    let config = TransformerConfig { positions, causal, ..sizes };
    config.check().expect("a sound config");
    config
}

fn model(form: Form, device: &Device) -> LanguageModel {
    LanguageModel::new(&config(form).into(), Source::Vectors(D_INPUT), &CODEBOOK_SIZES, 7, device)
}

/// Every kind of positions, on both sides and causal, by fused kernels and by Burn's own operations.
fn for_all(law: impl Fn(Form)) {
    for form in forms() {
        law(form);
        with_composed_ops(|| law(form));
    }
}

fn forms() -> impl Iterator<Item = Form> {
    let all = [Positions::Rotary { theta: 10_000.0 }, Positions::Alibi];
    all.into_iter().flat_map(|positions| [false, true].map(|causal| Form { positions, causal }))
}

/// One sequence on the host.
#[derive(Clone)]
struct Sequence {
    vectors: Vec<f32>,
    masked: Vec<bool>,
    codes: Vec<Vec<i32>>,
}

impl Sequence {
    /// `bases` random positions, a third of them masked.
    fn new(seed: u64, bases: usize) -> Self {
        let whole = |seed: u64, size: usize| -> Vec<i32> {
            noise(seed, bases).iter().map(|v| ((v * 0.499 + 0.5) * size as f32) as i32).collect()
        };
        Self {
            vectors: noise(seed, bases * D_INPUT),
            masked: noise(seed + 1000, bases).iter().map(|&v| v < -1.0 / 3.0).collect(),
            codes: (0..).zip(CODEBOOK_SIZES).map(|(level, size)| whole(seed + 2000 + level, size)).collect(),
        }
    }

    fn bases(&self) -> usize {
        self.masked.len()
    }
}

/// Sequences side by side, padded with `filling`.
struct Padded {
    batch: TokenBatch,
    masked: Masked,
    codes: Vec<Tensor<2, Int>>,
}

fn padded(sequences: &[Sequence], width: usize, filling: f32, device: &Device) -> Padded {
    let shape = [sequences.len(), width];
    let rest = |sequence: &Sequence| width - sequence.bases();
    let vectors: Vec<f32> = sequences
        .iter()
        .flat_map(|s| s.vectors.iter().copied().chain(std::iter::repeat_n(filling, rest(s) * D_INPUT)))
        .collect();
    let masked: Vec<bool> =
        sequences.iter().flat_map(|s| s.masked.iter().copied().chain(std::iter::repeat_n(false, rest(s)))).collect();
    let real: Vec<f32> = sequences
        .iter()
        .flat_map(|s| std::iter::repeat_n(1.0, s.bases()).chain(std::iter::repeat_n(0.0, rest(s))))
        .collect();
    let codes = |level: usize| -> Vec<i32> {
        sequences.iter().flat_map(|s| s.codes[level].iter().copied().chain(std::iter::repeat_n(-1, rest(s)))).collect()
    };
    Padded {
        batch: TokenBatch::of_vectors(
            tensor(&vectors, [shape[0], width, D_INPUT], device),
            tensor(&real, shape, device),
        ),
        masked: Masked::new(&masked, shape, device),
        codes: (0..CODEBOOK_SIZES.len())
            .map(|level| Tensor::from_data(TensorData::new(codes(level), shape), device))
            .collect(),
    }
}

fn hidden(model: &LanguageModel, batch: &Padded) -> Tensor<3> {
    model.hidden(&batch.batch, Some(&batch.masked)).states
}

fn loss(model: &LanguageModel, batch: &Padded) -> Tensor<1> {
    model.loss(&batch.batch, &batch.masked, &batch.codes)
}

fn sequences() -> Vec<Sequence> {
    [37, 20, 1, 64].into_iter().zip(10..).map(|(bases, seed)| Sequence::new(seed, bases)).collect()
}

#[test]
fn padding_and_neighbours_in_the_batch_never_change_a_hidden_state() {
    let device = Device::flex();
    for_all(|form| {
        let (model, sequences) = (model(form, &device), sequences());
        for (width, filling) in [(64, 0.0), (64, 1e3), (90, -7.0)] {
            let together = hidden(&model, &padded(&sequences, width, filling, &device));
            for (row, sequence) in sequences.iter().enumerate() {
                let own = together.clone().slice([row..row + 1, 0..sequence.bases()]);
                let alone = hidden(&model, &padded(std::slice::from_ref(sequence), sequence.bases(), 0.0, &device));
                assert_near(&format!("{form:?}: row {row}"), &floats(own), &floats(alone), ROUNDING);
            }
        }
    });
}

#[test]
fn padding_never_changes_the_loss_or_its_gradient() {
    let device = Device::flex().autodiff();
    for_all(|form| {
        let (model, sequences) = (model(form, &device), sequences());
        let made = |width, filling| {
            let loss = loss(&model, &padded(&sequences, width, filling, &device));
            (floats(loss.clone()), Gradients::of(&model, &loss.backward()).to_arrays())
        };
        let ((narrow, gradients), (wide, padded_gradients)) = (made(64, 0.0), made(80, 50.0));
        assert_near("loss", &wide, &narrow, ROUNDING);
        assert_eq!(gradients.len(), collect(&model).len(), "every parameter learns");
        for (name, gradient) in &gradients {
            let largest = gradient.values.iter().fold(0f32, |most, v| most.max(v.abs()));
            assert!(largest > 0.0, "{form:?}: {name} learns nothing");
            assert_near(name, &padded_gradients[name].values, &gradient.values, ROUNDING);
        }
    });
}

/// Computing a layer again for the backward pass changes nothing but rounding (without autodiff, Burn takes another softmax), and
/// leaves frozen weights alone.
#[test]
fn checkpointing_changes_neither_loss_nor_gradient() {
    let device = Device::flex().autodiff();
    for_all(|form| {
        let made = |checkpoint, freeze: bool| {
            let config = TransformerConfig { checkpoint, ..config(form) };
            let mut model = LanguageModel::new(&config.into(), Source::Vectors(D_INPUT), &CODEBOOK_SIZES, 7, &device);
            if let (true, Backbone::Stack(stack)) = (freeze, &mut model.backbone) {
                let layer = &mut stack.layers[1];
                *layer = layer.clone().no_grad();
            }
            let loss = loss(&model, &padded(&sequences(), 64, 0.0, &device));
            (floats(loss.clone()), Gradients::of(&model, &loss.backward()).to_arrays())
        };
        for freeze in [false, true] {
            let ((loss, gradients), (expected, plain)) = (made(true, freeze), made(false, freeze));
            assert_near("loss", &loss, &expected, ROUNDING);
            assert_eq!(gradients.keys().collect::<Vec<_>>(), plain.keys().collect::<Vec<_>>(), "frozen: {freeze}");
            for (name, gradient) in &gradients {
                assert_near(&format!("{form:?}: {name}"), &gradient.values, &plain[name].values, ROUNDING);
            }
        }
    });
}

#[test]
fn the_loss_depends_on_codes_at_masked_positions_only() {
    let device = Device::flex();
    for_all(|form| {
        let (model, sequences) = (model(form, &device), sequences());
        let with_codes_moved = |moves: &dyn Fn(bool) -> bool| {
            let mut sequences = sequences.clone();
            for sequence in &mut sequences {
                for (codes, size) in sequence.codes.iter_mut().zip(CODEBOOK_SIZES) {
                    for (code, &masked) in codes.iter_mut().zip(&sequence.masked) {
                        *code = (*code + i32::from(moves(masked))) % size as i32;
                    }
                }
            }
            floats(loss(&model, &padded(&sequences, 64, 0.0, &device)))
        };
        let unmoved = with_codes_moved(&|_| false);
        assert_eq!(with_codes_moved(&|masked| !masked), unmoved, "{form:?}");
        assert_ne!(with_codes_moved(&|masked| masked), unmoved, "{form:?}");
    });
}

#[test]
fn the_vector_at_a_masked_position_is_not_seen() {
    let device = Device::flex();
    for_all(|form| {
        let model = model(form, &device);
        let sequence = Sequence::new(3, 30);
        let mut other = sequence.clone();
        for (vector, &masked) in other.vectors.chunks_exact_mut(D_INPUT).zip(&sequence.masked) {
            if masked {
                vector.fill(9.0);
            }
        }
        let made = |sequence: Sequence| floats(hidden(&model, &padded(&[sequence], 30, 0.0, &device)));
        let unmasked = |mut sequence: Sequence| {
            sequence.masked.fill(false);
            made(sequence)
        };
        assert_eq!(made(sequence.clone()), made(other.clone()), "{form:?}");
        assert_ne!(unmasked(sequence.clone()), unmasked(other), "{form:?}");
        let batch = padded(std::slice::from_ref(&sequence), 30, 0.0, &device);
        assert_eq!(unmasked(sequence), floats(model.hidden(&batch.batch, None).states), "{form:?}");
    });
}

#[test]
fn the_order_of_positions_is_seen() {
    let device = Device::flex();
    for_all(|form| {
        let model = model(form, &device);
        let sequence = Sequence::new(4, 12);
        let mut swapped = sequence.clone();
        swapped.masked.fill(false);
        let straight = Sequence { masked: swapped.masked.clone(), ..sequence };
        // Positions 3 and 8 change places; without positions, the state of every other place would be the same.
        for channel in 0..D_INPUT {
            swapped.vectors.swap(3 * D_INPUT + channel, 8 * D_INPUT + channel);
        }
        let last = |sequence| floats(hidden(&model, &padded(&[sequence], 12, 0.0, &device)).slice([0..1, 11..12]));
        let (before, after) = (last(straight), last(swapped));
        let largest = before.iter().zip(&after).map(|(b, a)| (b - a).abs()).fold(0f32, f32::max);
        assert!(largest > 1e-4, "{form:?}: {largest}");
    });
}

/// Hidden states depend on distances, not on places: a sequence stands anywhere between padding.
#[test]
fn only_distances_matter() {
    let device = Device::flex();
    for_all(|form| {
        let model = model(form, &device);
        let sequence = Sequence::new(5, 20);
        let batch = padded(&[sequence], 50, 0.0, &device);
        let shift = |bases: usize| {
            let turned =
                |x: Tensor<3>| Tensor::cat(vec![x.clone().narrow(1, 50 - bases, bases), x.narrow(1, 0, 50 - bases)], 1);
            let TokenBatch { vectors, layout, .. } = batch.batch.clone();
            let real = turned(layout.real.unsqueeze_dim(2)).squeeze_dim::<2>(2);
            let moved = TokenBatch::of_vectors(turned(vectors.expect("vectors")), real);
            floats(model.hidden(&moved, None).states.narrow(1, bases, 20))
        };
        assert_near(&format!("{form:?}"), &shift(30), &shift(1), ROUNDING);
    });
}

#[test]
fn nothing_masked_and_nothing_real_give_finite_numbers() {
    let device = Device::flex().autodiff();
    for_all(|form| {
        let model = model(form, &device);
        let sequences = [Sequence::new(6, 10), Sequence::new(6, 0)];
        let batch = padded(&sequences, 10, 3.0, &device);
        assert!(floats(hidden(&model, &batch)).iter().all(|v| v.is_finite()), "{form:?}");
        let loss_of_one = loss(&model, &batch);
        assert!(floats(loss_of_one.clone())[0].is_finite());
        for (name, gradient) in Gradients::of(&model, &loss_of_one.backward()).to_arrays() {
            assert!(gradient.values.iter().all(|v| v.is_finite()), "{form:?}: {name}");
        }

        let mut seen = sequences.clone();
        seen[0].masked.fill(false);
        let batch = padded(&seen, 10, 0.0, &device);
        assert_eq!(batch.masked.count(), 0);
        let nothing = loss(&model, &batch);
        assert_eq!(floats(nothing.clone()), [0.0]);
        let gradients = Gradients::of(&model, &nothing.backward()).to_arrays();
        assert!(gradients.values().all(|gradient| gradient.values.iter().all(|&v| v == 0.0)), "{form:?}");
    });
}

#[test]
fn initial_weights_depend_on_the_seed_alone() {
    let config = TransformerConfig::tiny();
    let weights = |seed, device: &Device| {
        publish(&LanguageModel::new(&config.clone().into(), Source::Vectors(D_INPUT), &CODEBOOK_SIZES, seed, device))
    };
    let device = Device::flex();
    assert_eq!(weights(1, &device), weights(1, &device.clone().autodiff()));
    assert_ne!(weights(1, &device), weights(2, &device));
    let drawn = weights(1, &device);
    let largest = |name: &str| drawn[name].values.iter().fold(0f32, |most, v| most.max(v.abs()));
    assert!(largest("layers.1.down.weight") <= 1.0 / 16.0 && largest("layers.1.down.weight") > 0.062);
    assert!((0.02..0.12).contains(&largest("mask_vector")), "{}", largest("mask_vector"));
}

#[test]
fn weights_that_do_not_fit_are_named_as_in_the_file() {
    let device = Device::flex();
    let fresh = || model(Form { positions: Positions::Alibi, causal: false }, &device);
    let mut arrays = publish(&fresh());
    assert_eq!(publish(&load_published(fresh(), arrays.clone()).expect("its own weights")), arrays);
    let taken = arrays.remove("heads.1.bias").expect("a head");
    let missing = load_published(fresh(), arrays.clone()).unwrap_err();
    assert!(matches!(&missing, WeightError::Missing { name } if name == "heads.1.bias"), "{missing}");
    arrays.insert("heads.1.bias".to_owned(), taken.clone());
    arrays.insert("layers.3.out.bias".to_owned(), taken);
    let unused = load_published(fresh(), arrays).unwrap_err();
    assert!(matches!(&unused, WeightError::Unused { name } if name == "layers.3.out.bias"), "{unused}");
}

#[test]
fn causal_states_know_of_their_own_and_earlier_positions_alone() {
    let device = Device::flex();
    for_all(|form| {
        let model = model(form, &device);
        let mut sequence = Sequence::new(6, 90);
        sequence.masked.fill(false);
        let mut other = sequence.clone();
        other.vectors[41 * D_INPUT] += 1.0;
        let states = |sequence| hidden(&model, &padded(&[sequence], 90, 0.0, &device));
        let change = floats(states(sequence) - states(other));
        let changed: Vec<bool> = change.chunks_exact(24).map(|state| state.iter().any(|&v| v != 0.0)).collect();
        let reached: Vec<bool> = (0..90).map(|position| !form.causal || position >= 41).collect();
        assert_eq!(changed, reached, "{form:?}");
    });
}

/// Forward and backward passes, at all positions and at some.
#[test]
fn both_forms_of_the_operations_agree() {
    let device = Device::flex().autodiff();
    for form in forms() {
        let made = || {
            let (model, batch) = (model(form, &device), padded(&sequences(), 64, 0.0, &device));
            let all = hidden(&model, &batch).slice([0..1, 0..37]);
            let loss = loss(&model, &batch) + all.clone().square().mean();
            (floats(all), floats(loss.clone()), Gradients::of(&model, &loss.backward()).to_arrays())
        };
        let ((states, loss, gradients), (other_states, other_loss, other)) = (made(), with_composed_ops(made));
        assert_near(&format!("{form:?}: states"), &states, &other_states, ROUNDING);
        assert_near(&format!("{form:?}: loss"), &loss, &other_loss, ROUNDING);
        for (name, gradient) in &gradients {
            assert_near(&format!("{form:?}: {name}"), &gradient.values, &other[name].values, ROUNDING);
        }
    }
}
