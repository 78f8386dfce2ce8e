//! One codebook: nearest-code search, exponential moving average in the counts form (van den Oord et al. 2017, appendix A.1)
//! with Laplace smoothing, and revival of dead codes.

use burn::module::Param;
use burn::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::gradient::GradientRule;
use super::kmeans::kmeans;
use crate::ops;
use crate::seed::{Stream, stream};
use crate::weights::{buffer, plain, replace, to_array};

/// How codebooks learn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CodebookConfig {
    /// γ, the weight of the past in the moving averages.
    pub decay: f64,
    /// ε of the Laplace smoothing of counts.
    pub smoothing: f64,
    /// Which average is kept.
    pub average: Average,
    /// β, the weight of the commitment term.
    pub commitment: f64,
    /// How gradients pass the choice of a code.
    pub gradient: GradientRule,
    /// Iterations of k-means on the first vectors seen; 0 keeps the random start.
    pub kmeans_iterations: usize,
    /// A code is dead when its running count falls below this share of the mean count; 0 never revives.
    pub revive_below: f64,
    /// Steps between revivals.
    pub revive_every: u64,
}

impl Default for CodebookConfig {
    fn default() -> Self {
        Self {
            decay: 0.99,
            smoothing: 1e-5,
            average: Average::Counts,
            commitment: 0.5, // VQDNA: "β = 0.5 by default"
            gradient: GradientRule::StraightThrough,
            kmeans_iterations: 10,
            revive_below: 0.03,
            revive_every: 10,
        }
    }
}

/// The two readings of the paper's average.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Average {
    /// Averages counts and sums, and divides: codes weigh all vectors of the recent past equally.
    #[default]
    Counts,
    /// Moves each used code towards the mean of its vectors in the batch.
    Direct,
}

/// A codebook and the averages that move it. None of the three is learned by gradient.
#[derive(Module, Debug)]
pub struct Codebook {
    /// Code vectors, `[codebook_size, d_code]`.
    pub codes: Param<Tensor<2>>,
    /// Running counts, `[codebook_size]`.
    pub counts: Param<Tensor<1>>,
    /// Running sums of vectors, `[codebook_size, d_code]`.
    pub sums: Param<Tensor<2>>,
}

/// What the vectors of one step say to a codebook.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// How many vectors chose each code, `[codebook_size]`.
    pub counts: Tensor<1>,
    /// Their sums, `[codebook_size, d_code]`.
    pub sums: Tensor<2>,
    /// The vectors, `[rows, d_code]`, from which dead codes are revived.
    pub rows: Tensor<2>,
    /// 1 for real rows, 0 for padding, `[rows]`.
    pub weight: Tensor<1>,
}

impl Statistics {
    /// Joins the statistics of two micro-batches; rows to revive from are those of the last.
    #[must_use]
    pub fn merge(self, later: Self) -> Self {
        Self { counts: self.counts + later.counts, sums: self.sums + later.sums, ..later }
    }
}

impl Codebook {
    /// Small noise; counts of one.
    #[must_use]
    pub fn new(size: usize, d_code: usize, random: &mut Stream, device: &Device) -> Self {
        let values: Vec<f32> = (0..size * d_code).map(|_| random.random::<f32>() - 0.5).collect();
        let codes = plain(Tensor::<2>::from_data(TensorData::new(values, [size, d_code]), device));
        Self {
            counts: buffer(Tensor::ones([size], &codes.device())),
            sums: buffer(codes.clone()),
            codes: buffer(codes),
        }
    }

    /// Index of the nearest code of each vector, by squared distance in f32, ties to the lowest.
    ///
    /// # Shapes
    /// - `h`: `[batch, bases, d_code]`
    /// - output: `[batch, bases]`
    pub fn search(&self, h: Tensor<3>) -> Tensor<2, Int> {
        let [batch, bases, d_code] = h.dims();
        ops::nearest(plain(h).reshape([batch * bases, d_code]), self.plain_codes()).reshape([batch, bases])
    }

    /// The vectors of codes.
    ///
    /// # Shapes
    /// - `index`: `[batch, bases]`
    /// - output: `[batch, bases, d_code]`
    pub fn look_up(&self, index: Tensor<2, Int>) -> Tensor<3> {
        let [batch, bases] = index.dims();
        let codes = self.plain_codes();
        let d_code = codes.dims()[1];
        codes.select(0, index.reshape([batch * bases])).reshape([batch, bases, d_code])
    }

    fn plain_codes(&self) -> Tensor<2> {
        plain(self.codes.val())
    }

    /// Counts and sums of the vectors that chose each code.
    pub fn statistics(&self, h: &Tensor<3>, index: &Tensor<2, Int>, mask: &Tensor<2>) -> Statistics {
        let [batch, bases, d_code] = h.dims();
        let rows = plain(h.clone()).reshape([batch * bases, d_code]);
        let weight = plain(mask.clone()).reshape([batch * bases]);
        let size = self.codes.dims()[0];
        let (counts, sums) =
            ops::code_statistics(rows.clone(), index.clone().reshape([batch * bases]), weight.clone(), size);
        Statistics { counts, sums, rows, weight }
    }

    /// One step of the moving averages.
    #[must_use]
    pub fn update(self, new: &Statistics, config: &CodebookConfig) -> Self {
        let (keep, take) = (config.decay, 1.0 - config.decay);
        let counts = plain(self.counts.val()).mul_scalar(keep) + new.counts.clone().mul_scalar(take);
        let sums = plain(self.sums.val()).mul_scalar(keep) + new.sums.clone().mul_scalar(take);
        let codes = match config.average {
            Average::Counts => means(counts.clone(), sums.clone(), config.smoothing),
            Average::Direct => {
                let used = new.counts.clone().greater_scalar(0.0).float().unsqueeze_dim::<2>(1);
                let mean = new.sums.clone() / new.counts.clone().clamp_min(1.0).unsqueeze_dim(1);
                let old = self.plain_codes();
                old.clone() + (mean - old) * used.mul_scalar(take)
            }
        };
        self.set(codes, counts, sums)
    }

    /// Gives every dead code a random vector of this step, with averages to match, so that the next update does not
    /// pull it back to where it died.
    #[must_use]
    pub fn revive(self, new: &Statistics, config: &CodebookConfig, random: &mut Stream) -> Self {
        let counts = to_array(self.counts.val()).values;
        let threshold = (config.revive_below * f64::from(counts.iter().sum::<f32>()) / counts.len() as f64) as f32;
        let dead: Vec<usize> = (0..counts.len()).filter(|&code| counts[code] < threshold).collect();
        let real: Vec<i32> = real_rows(&new.weight);
        if dead.is_empty() || real.is_empty() {
            return self;
        }
        let chosen: Vec<i32> = dead.iter().map(|_| real[random.random_range(0..real.len())]).collect();
        let device = new.rows.device();
        let fresh = new.rows.clone().select(0, Tensor::from_data(TensorData::new(chosen, [dead.len()]), &device));
        self.reset(&dead, fresh, threshold)
    }

    /// Sets some codes to new vectors, their counts to `count` and their sums to match.
    fn reset(self, which: &[usize], fresh: Tensor<2>, count: f32) -> Self {
        let codes = self.plain_codes();
        let device = codes.device();
        let size = codes.dims()[0];
        let index: Vec<i32> = which.iter().map(|&code| code as i32).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(index, [which.len()]), &device);
        let mut stays = vec![1.0f32; size];
        which.iter().for_each(|&code| stays[code] = 0.0);
        let stays = Tensor::<1>::from_data(TensorData::new(stays, [size]), &device);
        let rows_stay = stays.clone().unsqueeze_dim::<2>(1);

        let zero = Tensor::zeros(codes.dims(), &device);
        let placed = zero.select_assign(0, index, fresh, burn::tensor::IndexingUpdateOp::Add);
        let counts = plain(self.counts.val()) * stays.clone() + (stays.neg().add_scalar(1.0)).mul_scalar(count);
        let sums = plain(self.sums.val()) * rows_stay.clone() + placed.clone().mul_scalar(count);
        let codes = codes * rows_stay + placed;
        self.set(codes, counts, sums)
    }

    /// Codes by k-means on `rows [n, d_code]`. Counts are scaled to the rows of one training step, where the running
    /// averages will settle.
    #[must_use]
    pub fn from_kmeans(self, rows: Tensor<2>, iterations: usize, rows_per_step: usize, random: &mut Stream) -> Self {
        let size = self.codes.dims()[0];
        let scale = rows_per_step as f64 / rows.dims()[0] as f64;
        let (codes, counts) = kmeans(rows, size, iterations, random);
        let counts = counts.mul_scalar(scale);
        let sums = codes.clone() * counts.clone().unsqueeze_dim(1);
        self.set(codes, counts, sums)
    }

    fn set(self, codes: Tensor<2>, counts: Tensor<1>, sums: Tensor<2>) -> Self {
        Self {
            codes: replace(self.codes, |_| codes),
            counts: replace(self.counts, |_| counts),
            sums: replace(self.sums, |_| sums),
        }
    }
}

/// `Ñ = (N + ε) / (ΣN + K ε) · ΣN`, `e = m / Ñ`.
fn means(counts: Tensor<1>, sums: Tensor<2>, smoothing: f64) -> Tensor<2> {
    let size = counts.dims()[0] as f64;
    let total = counts.clone().sum();
    let smoothed = counts.add_scalar(smoothing) / total.clone().add_scalar(size * smoothing) * total;
    sums / smoothed.unsqueeze_dim(1)
}

fn real_rows(weight: &Tensor<1>) -> Vec<i32> {
    let weight = to_array(weight.clone()).values;
    (0..weight.len()).filter(|&row| weight[row] != 0.0).map(|row| row as i32).collect()
}

/// The stream for choices about one level at one step.
pub(super) fn level_stream(seed: u64, purpose: &str, step: u64, level: usize) -> Stream {
    stream(seed, purpose, &[step, level as u64])
}
