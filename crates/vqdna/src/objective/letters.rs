//! Masked modelling of bases by a model that cuts sequences itself (MxDNA; Qiao et al. 2024): some bases are masked in the input, and
//! told from the units that the others form.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use rand::RngExt;

use super::masked::masking::{MaskingConfig, Treatment};
use super::{Measures, Objective, Outcome};
use crate::batch::{CodeBatch, CodeWindow};
use crate::head::nucleotide::NucleotideHead;
use crate::ops;
use crate::seed::stream;
use crate::tokenizer::mxdna::{FIRST, LAST, LETTERS, Letters, MASKED, Mxdna, MxdnaConfig, PADDING, letter};
use crate::weights::to_array;

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
    /// Share by which states are jittered before they are scored, in training.
    pub jitter: f64,
    /// The run's seed, from which masks and jitter are drawn.
    pub seed: u64,
}

/// A batch with its masks drawn, on its device.
struct Puzzle {
    ids: Tensor<2, Int>,
    lengths: Vec<usize>,
    special: Vec<bool>,
    /// Masked positions, as rows of the flattened positions.
    rows: Tensor<1, Int>,
    /// What stands there.
    letters: Tensor<1, Int>,
    count: usize,
}

impl MaskedLetters {
    /// Masks a batch. What is drawn for a window depends on the seed, the purpose and the window's number alone.
    fn puzzle(&self, batch: &CodeBatch, masking: &MaskingConfig, purpose: &str) -> Puzzle {
        let positions = batch.width() + 2;
        let (mut ids, mut rows, mut letters) = (Vec::new(), Vec::<i32>::new(), Vec::<i32>::new());
        for window in &batch.windows {
            let random = &mut stream(self.seed, purpose, &[window.number, masking.span as u64]);
            ids.push(FIRST);
            for (treatment, (own, is_target)) in
                masking.draw(window.bases(), random).into_iter().zip(letters_of(window))
            {
                let shown = match treatment {
                    Treatment::Seen => own,
                    _ if !is_target => own,
                    Treatment::Replaced => MASKED,
                    Treatment::Random => letter(random.random_range(0..4)),
                    Treatment::Kept => own,
                };
                if is_target && treatment != Treatment::Seen {
                    rows.push(ids.len() as i32);
                    letters.push(own);
                }
                ids.push(shown);
            }
            ids.push(LAST);
            ids.resize(ids.len() + batch.width() - window.bases(), PADDING);
        }
        let special = ids.iter().map(|id| [PADDING, FIRST, LAST].contains(id)).collect();
        let count = rows.len();
        let whole = |values: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(values, [count]), &batch.device);
        Puzzle {
            ids: Tensor::from_data(TensorData::new(ids, [batch.windows.len(), positions]), &batch.device),
            lengths: batch.windows.iter().map(|window| window.bases() + 2).collect(),
            special,
            rows: whole(rows),
            letters: whole(letters),
            count,
        }
    }

    /// What the classifier sees of masked positions, and the balance and number of units.
    fn features(model: &LetterModel, puzzle: &Puzzle, jitter: Option<Tensor<3>>) -> (Tensor<2>, Tensor<1>, usize) {
        let letters = Letters { ids: puzzle.ids.clone(), lengths: &puzzle.lengths, special: &puzzle.special };
        let hidden = model.encoder.forward(&letters, jitter);
        let units = hidden.tokens.selection.anchors.iter().filter(|&&anchor| anchor >= 0).count();
        let features = model.head.features(hidden.bases, hidden.units);
        let [batch, positions, d] = features.dims();
        let rows = features.reshape([batch * positions, d]).select(0, puzzle.rows.clone());
        (rows, hidden.tokens.balance, units)
    }

    /// Factors around 1, of which those of a batch depend on its first window.
    fn jitter(&self, batch: &CodeBatch, d: usize) -> Option<Tensor<3>> {
        if self.jitter == 0.0 {
            return None;
        }
        let first = batch.windows.first().map_or(0, |window| window.number);
        let random = &mut stream(self.seed, "jitter of scored states", &[first]);
        let shape = [batch.windows.len(), batch.width() + 2, d];
        let factor = |_| (1.0 + self.jitter * (2.0 * random.random::<f64>() - 1.0)) as f32;
        let values: Vec<f32> = (0..shape.iter().product()).map(factor).collect();
        Some(Tensor::from_data(TensorData::new(values, shape), &batch.device))
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

    fn start(&self, model: LetterModel, _: &mut dyn Iterator<Item = CodeBatch>, _: usize) -> LetterModel {
        model
    }

    fn forward(&self, model: &LetterModel, batch: &CodeBatch) -> Outcome<()> {
        let puzzle = self.puzzle(batch, &self.masking, "masks");
        let d = model.encoder.embed.weight.dims()[1];
        let (features, balance, units) = Self::features(model, &puzzle, self.jitter(batch, d));
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
        for batch in batches {
            let puzzle = self.puzzle(&batch, &self.masking.without_noise(), "masks of held-out windows");
            let (features, _, found) = ops::with_frozen_weights(|| Self::features(model, &puzzle, None));
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

/// A sum on the host, where it does not lose digits.
fn sum(values: Tensor<1>) -> f64 {
    to_array(values).values.iter().map(|&value| f64::from(value)).sum()
}
