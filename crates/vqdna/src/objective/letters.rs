//! Masked modelling of bases by a model that cuts sequences itself (MxDNA; Qiao et al. 2024): some bases are masked in the input, and
//! told from the units that the others form.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use rand::RngExt;

use super::masked::masking::{MaskingConfig, Treatment};
use super::{Measures, Objective, Outcome, sum};
use crate::batch::{CodeBatch, CodeWindow};
use crate::head::nucleotide::NucleotideHead;
use crate::layers::Rows;
use crate::ops;
use crate::seed::stream;
use crate::tokenizer::mxdna::{LETTERS, LetterBatch, MASKED, Mxdna, MxdnaConfig, letter};

/// An encoder that cuts sequences itself, and what tells bases from its units.
#[derive(Module, Debug)]
pub struct LetterModel {
    /// Bases to units.
    pub encoder: Mxdna,
    /// Units back to bases.
    pub head: NucleotideHead,
}

impl LetterModel {
    /// Fresh weights, a pure function of the seed.
    #[must_use]
    pub fn new(config: &MxdnaConfig, seed: u64, device: &Device) -> Self {
        let head = NucleotideHead::new(&config.layer(), LETTERS, seed, device);
        Self { encoder: config.init(seed, device), head }
    }
}

/// Learns a [`LetterModel`] from windows whose one level of codes are base ids.
#[derive(Clone, Debug)]
pub struct MaskedLetters {
    /// Which bases are masked, and what is shown of them.
    pub masking: MaskingConfig,
    /// Weight of the balance of the experts in the loss.
    pub balance: f64,
    /// The run's seed, from which masks and jitter are drawn.
    pub seed: u64,
}

/// A batch with its masks drawn, on its device.
struct Puzzle {
    shown: LetterBatch,
    asked: Asked,
    /// What stands at masked positions, one sequence after another.
    letters: Tensor<1, Int>,
    count: usize,
}

/// Masked positions, side by side for each sequence: nothing is computed of others once units are known.
struct Asked {
    /// `[batch * most]`: each as a row of the flattened positions, padded.
    rows: Tensor<1, Int>,
    /// `[batch, most]`: each as a position of its sequence, padded.
    places: Tensor<2, Int>,
    /// `[batch, most]`: 1 for a masked position, 0 for padding.
    real: Tensor<2>,
    /// Those that are no padding, as rows of `[batch * most]`.
    within: Tensor<1, Int>,
}

impl Asked {
    /// `masked`: for each sequence of `positions`, those that are masked.
    fn new(masked: &[Vec<i32>], positions: usize, device: &Device) -> Self {
        // One at least, so that the rows of every sequence are some.
        let most = masked.iter().map(Vec::len).max().unwrap_or(0).max(1);
        let shape = [masked.len(), most];
        let (mut rows, mut places, mut real, mut within) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (sequence, masked) in masked.iter().enumerate() {
            let first = (sequence * positions) as i32;
            within.extend((0..masked.len()).map(|at| (sequence * most + at) as i32));
            real.extend((0..most).map(|at| f32::from(u8::from(at < masked.len()))));
            let padded = masked.iter().copied().chain(std::iter::repeat_n(0, most - masked.len()));
            for place in padded {
                rows.push(first + place);
                places.push(place);
            }
        }
        let (all, count) = (rows.len(), within.len());
        Self {
            rows: Tensor::from_data(TensorData::new(rows, [all]), device),
            places: Tensor::from_data(TensorData::new(places, shape), device),
            real: Tensor::from_data(TensorData::new(real, shape), device),
            within: Tensor::from_data(TensorData::new(within, [count]), device),
        }
    }

    /// The masked ones among rows that stand at 0, 1, 2 and so on.
    fn of(&self, rows: Rows) -> Rows {
        let ([batch, positions, d], [_, most]) = (rows.states.dims(), self.places.dims());
        let states = rows.states.reshape([batch * positions, d]).select(0, self.rows.clone());
        Rows { states: states.reshape([batch, most, d]), real: self.real.clone(), places: Some(self.places.clone()) }
    }
}

impl MaskedLetters {
    /// Masks a batch. What is drawn for a window depends on the seed, the purpose and the window's number alone.
    fn puzzle(&self, batch: &CodeBatch, masking: &MaskingConfig, purpose: &str) -> Puzzle {
        let (mut shown, mut masked, mut letters) = (Vec::new(), Vec::new(), Vec::<i32>::new());
        for window in &batch.windows {
            let random = &mut stream(self.seed, purpose, &[window.number, masking.span as u64]);
            let treatments = masking.draw(window.bases(), random).into_iter().zip(letters_of(window)).zip(1..);
            let mut here = Vec::new();
            // Positions count from 1: the first one is special.
            let show = |((treatment, (own, is_target)), position): ((Treatment, (i32, bool)), i32)| {
                if !is_target || treatment == Treatment::Seen {
                    return own;
                }
                here.push(position);
                letters.push(own);
                match treatment {
                    Treatment::Replaced => MASKED,
                    Treatment::Random => letter(random.random_range(0..4)),
                    Treatment::Kept | Treatment::Seen => own,
                }
            };
            shown.push(treatments.map(show).collect());
            masked.push(here);
        }
        let count = letters.len();
        Puzzle {
            shown: LetterBatch::new(&shown, &batch.device),
            asked: Asked::new(&masked, LetterBatch::positions(batch.width()), &batch.device),
            letters: Tensor::from_data(TensorData::new(letters, [count]), &batch.device),
            count,
        }
    }

    /// What the classifier sees of masked positions, and the balance and number of units.
    fn features(model: &LetterModel, puzzle: &Puzzle, jitter: Option<Tensor<3>>) -> (Tensor<2>, Tensor<1>, usize) {
        let hidden = model.encoder.forward(&puzzle.shown.view(), jitter);
        let units = hidden.tokens.selection.anchors.iter().filter(|&&anchor| anchor >= 0).count();
        let features = model.head.features(puzzle.asked.of(hidden.bases), hidden.units);
        let [batch, most, d] = features.dims();
        let rows = features.reshape([batch * most, d]).select(0, puzzle.asked.within.clone());
        (rows, hidden.tokens.balance, units)
    }
}

/// The letter of each base, and whether it may be asked for.
fn letters_of(window: &CodeWindow) -> impl Iterator<Item = (i32, bool)> {
    let bases = window.codes.first().map_or(&[][..], Vec::as_slice);
    bases.iter().map(|&base| letter(base as u8)).zip(window.is_target.iter().copied())
}

impl Objective for MaskedLetters {
    type Model = LetterModel;
    type Batch = CodeBatch;
    type Carry = ();

    fn start(
        &self,
        model: LetterModel,
        _: &mut dyn Iterator<Item = CodeBatch>,
        _: usize,
        _: &dyn Fn() -> bool,
    ) -> LetterModel {
        model
    }

    fn forward(&self, model: &LetterModel, batch: &CodeBatch) -> Outcome<()> {
        let puzzle = self.puzzle(batch, &self.masking, "masks");
        let first = batch.windows.first().map_or(0, |window| window.number);
        let random = &mut stream(self.seed, "jitter of scored states", &[first]);
        let jitter = model.encoder.jitter(&puzzle.shown.view(), random);
        let (features, balance, units) = Self::features(model, &puzzle, jitter);
        let out = &model.head.head.out;
        let nats = ops::cross_entropy(features, out.weight.val(), out.bias.val(), puzzle.letters);
        let bases: usize = batch.windows.iter().map(CodeWindow::bases).sum();
        let size = Tensor::<1>::full([1], bases as f64 / units.max(1) as f64, &batch.device.clone().without_autodiff());
        let parts = vec![
            ("cross_entropy_nats".to_owned(), nats.clone().inner()),
            ("balance".to_owned(), balance.clone().inner()),
            ("bases_per_unit".to_owned(), size),
        ];
        Outcome { loss: nats + balance.mul_scalar(self.balance), parts, carry: () }
    }

    fn after_step(&self, model: LetterModel, _: Vec<()>, _: u64) -> LetterModel {
        model
    }

    fn observe(&self, _: &LetterModel) -> Measures {
        Measures::new()
    }

    /// Measures of masks that the seed fixes. Masked positions show nothing but that they are masked.
    fn evaluate(&self, model: &LetterModel, batches: &mut dyn Iterator<Item = CodeBatch>) -> Measures {
        let (mut nats, mut right, mut asked, mut bases, mut units) = (0.0, 0.0, 0, 0, 0);
        ops::with_frozen_weights(|| {
            for batch in batches {
                let puzzle = self.puzzle(&batch, &self.masking.without_noise(), "masks of held-out windows");
                let (features, _, found) = Self::features(model, &puzzle, None);
                bases += batch.windows.iter().map(CodeWindow::bases).sum::<usize>();
                (units, asked) = (units + found, asked + puzzle.count);
                if puzzle.count == 0 {
                    continue;
                }
                let logits = model.head.head.out.forward(features.unsqueeze_dim(0)).squeeze_dim::<2>(0);
                let said = logits.clone().argmax(1).squeeze_dim::<1>(1);
                right += sum(said.equal(puzzle.letters.clone()).float());
                nats -= sum(log_softmax(logits, 1).gather(1, puzzle.letters.unsqueeze_dim(1)).squeeze_dim::<1>(1));
            }
        });
        let named = |name: &str, value: f64| (name.to_owned(), value);
        let mut measures = Measures::new();
        if asked > 0 {
            let mean = nats / asked as f64;
            measures.extend([
                named("loss", mean),
                named("cross_entropy_nats", mean),
                named("accuracy", right / asked as f64),
                named("bits_per_base", mean / std::f64::consts::LN_2),
            ]);
        }
        measures
            .extend([named("bases_per_unit", bases as f64 / units.max(1) as f64), named("masked_bases", asked as f64)]);
        measures
    }
}
