//! Stage 1 of VQDNA: bases → codes → the same bases. Loss: cross-entropy of the four bases plus β times the commitment
//! (VQDNA, section 3.1 and eq. 8); codebooks move by averages after each step.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use vqdna_data::metric;

use super::{Measures, Objective, Outcome};
use crate::batch::Batch;
use crate::quantizer::codebook::Statistics;
use crate::tokenizer::vqdna::{Vqdna, VqdnaConfig};
use crate::weights::to_array;

/// A code counts as in use at a step if its recent count is at least this share of the mean count.
const IN_USE: f64 = 0.01;

/// Learns a [`Vqdna`].
#[derive(Clone, Debug)]
pub struct Reconstruct {
    /// The network.
    pub config: VqdnaConfig,
    /// The run's seed, for k-means and revival.
    pub seed: u64,
    /// Vectors that k-means sees.
    pub start_rows: usize,
}

/// A part of the loss and the statistics of its batch.
pub struct Carry(Vec<Statistics>);

impl Reconstruct {
    fn beta(&self) -> f64 {
        self.config.quantizer.codebook().map_or(0.0, |codebook| codebook.commitment)
    }
}

/// Mean cross-entropy in nats over bases, each counted with its weight.
///
/// # Shapes
/// - `logits`: `[batch, bases, 4]`
/// - output: `[1]`
pub fn cross_entropy(logits: Tensor<3>, batch: &Batch) -> Tensor<1> {
    let target = batch.bases.clone().clamp_max(3).unsqueeze_dim::<3>(2);
    let log_p = log_softmax(logits, 2).gather(2, target).squeeze_dim::<2>(2);
    let total = batch.weight.clone().sum().clamp_min(1e-6);
    (log_p * batch.weight.clone()).sum().neg() / total
}

/// Share of bases (those with weight) whose largest logit is their own, `[1]`.
fn accuracy(logits: Tensor<3>, batch: &Batch) -> Tensor<1> {
    let counted = batch.weight.clone().inner().greater_scalar(0.0).float();
    let right = logits.argmax(2).squeeze_dim::<2>(2).equal(batch.bases.clone().inner()).float() * counted.clone();
    right.sum() / counted.sum().clamp_min(1.0)
}

impl Objective for Reconstruct {
    type Model = Vqdna;
    type Batch = Batch;
    type Carry = Carry;

    fn start(
        &self,
        model: Vqdna,
        batches: &mut dyn Iterator<Item = Batch>,
        micro_batches: usize,
        go_on: &dyn Fn() -> bool,
    ) -> Vqdna {
        let valid = model.valid();
        let (mut rows, mut count) = (Vec::<Vec<Tensor<2>>>::new(), 0);
        for batch in batches {
            let real: Vec<i32> = real_positions(&batch);
            count += real.len();
            rows.push(real_rows(&valid, &batch, real));
            if count >= self.start_rows {
                break;
            }
        }
        let per_step = count / rows.len().max(1) * micro_batches;
        let taps = (0..rows.first().map_or(0, Vec::len))
            .map(|tap| Tensor::cat(rows.iter().map(|batch| batch[tap].clone()).collect(), 0))
            .collect::<Vec<_>>();
        if count == 0 || !go_on() {
            return model;
        }
        Vqdna { quantizer: model.quantizer.initialise(&taps, per_step, self.seed, go_on), ..model }
    }

    fn forward(&self, model: &Vqdna, batch: &Batch) -> Outcome<Carry> {
        let made = model.forward(batch);
        let accuracy = accuracy(made.logits.clone().inner(), batch);
        let reconstruction = cross_entropy(made.logits, batch);
        let commitment = made.quantized.commitment.clone();
        Outcome {
            parts: vec![
                ("cross_entropy_nats".to_owned(), reconstruction.clone().inner()),
                ("commitment".to_owned(), commitment.clone().inner()),
                ("reconstruction".to_owned(), accuracy),
            ],
            loss: reconstruction + commitment.mul_scalar(self.beta()),
            carry: Carry(model.quantizer.statistics(&made.quantized, &batch.mask())),
        }
    }

    fn after_step(&self, model: Vqdna, carries: Vec<Carry>, step: u64) -> Vqdna {
        let joined = carries
            .into_iter()
            .map(|carry| carry.0)
            .reduce(|all, new| all.into_iter().zip(new).map(|(earlier, later)| earlier.merge(later)).collect());
        Vqdna { quantizer: model.quantizer.update(joined.unwrap_or_default(), self.seed, step), ..model }
    }

    fn observe(&self, model: &Vqdna) -> Measures {
        let mut measures = Measures::new();
        for (level, counts) in model.quantizer.recent_counts().into_iter().enumerate() {
            let counts: Vec<f64> = to_array(counts).values.iter().map(|&n| f64::from(n)).collect();
            let (total, size) = (counts.iter().sum::<f64>(), counts.len() as f64);
            let used = counts.iter().filter(|&&n| n >= IN_USE * total / size).count() as f64;
            let entropy: f64 = counts.iter().map(|n| n / total).filter(|&p| p > 0.0).map(|p| -p * p.ln()).sum();
            measures.push((format!("usage_{}", level + 1), used / size));
            measures.push((format!("perplexity_{}", level + 1), entropy.exp()));
            measures.push((format!("dead_codes_{}", level + 1), size - used));
        }
        measures
    }

    fn evaluate(&self, model: &Vqdna, batches: &mut dyn Iterator<Item = Batch>) -> Measures {
        let mut tally = Tally::new(&self.config.quantizer.codebook_sizes());
        for batch in batches {
            tally.add(model, &batch);
        }
        tally.measures()
    }
}

fn real_positions(batch: &Batch) -> Vec<i32> {
    let mask = to_array(batch.mask()).values;
    (0..mask.len()).filter(|&i| mask[i] != 0.0).map(|i| i as i32).collect()
}

/// Per tap, the vectors of the real positions, `[rows, d_code]`.
fn real_rows(model: &Vqdna, batch: &Batch, real: Vec<i32>) -> Vec<Tensor<2>> {
    let bases = batch.bases.clone();
    let taps = model.encoder.forward(bases, batch.mask().inner());
    let count = real.len();
    taps.into_iter()
        .map(|tap| {
            let [batch, bases, d] = tap.dims();
            let index = Tensor::from_data(TensorData::new(real.clone(), [count]), &tap.device());
            tap.inner().reshape([batch * bases, d]).select(0, index)
        })
        .collect()
}

/// Sums over held-out windows.
struct Tally {
    right: u64,
    bases: u64,
    nats: f64,
    codes: Vec<Vec<u64>>,
}

impl Tally {
    fn new(codebook_sizes: &[usize]) -> Self {
        Self { right: 0, bases: 0, nats: 0.0, codes: codebook_sizes.iter().map(|&size| vec![0; size]).collect() }
    }

    fn add(&mut self, model: &Vqdna, batch: &Batch) {
        let made = model.forward(batch);
        let target = integers(batch.bases.clone());
        let guess = integers(made.logits.clone().argmax(2).squeeze_dim::<2>(2));
        let weighed = Batch { weight: batch.weight.clone().greater_scalar(0.0).float(), ..batch.clone() };
        let counted = to_array(weighed.weight.clone()).values;
        let mut bases = 0;
        for ((&target, &guess), &counts) in target.iter().zip(&guess).zip(&counted) {
            if counts > 0.0 {
                bases += 1;
                self.right += u64::from(target == guess);
            }
        }
        self.bases += bases;
        self.nats += f64::from(cross_entropy(made.logits, &weighed).into_scalar::<f32>()) * bases as f64;
        let mask = to_array(batch.mask()).values;
        for (counts, codes) in self.codes.iter_mut().zip(made.quantized.codes) {
            for (code, &real) in integers(codes).into_iter().zip(&mask) {
                if real != 0.0 {
                    counts[code as usize] += 1;
                }
            }
        }
    }

    fn measures(&self) -> Measures {
        let mut measures = Measures::new();
        // Without a base that counts there is no share of them.
        if self.bases > 0 {
            let bases = self.bases as f64;
            measures.push(("reconstruction".to_owned(), self.right as f64 / bases));
            measures.push(("cross_entropy_nats".to_owned(), self.nats / bases));
        }
        measures.push(("bases".to_owned(), self.bases as f64));
        for (level, counts) in self.codes.iter().enumerate() {
            measures.push((format!("usage_{}", level + 1), metric::usage(counts)));
            measures.push((format!("perplexity_{}", level + 1), metric::perplexity(counts)));
            measures.push((format!("dead_codes_{}", level + 1), counts.iter().filter(|&&n| n == 0).count() as f64));
        }
        measures
    }
}

fn integers(tensor: Tensor<2, Int>) -> Vec<i32> {
    tensor.into_data().try_into_vec_as::<i32>().expect("codes and bases fit i32")
}
