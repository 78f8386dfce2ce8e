//! One codebook: nearest-code search, exponential moving average in the counts form (van den Oord et al. 2017, appendix A.1)
//! with Laplace smoothing, and revival of dead codes.

use burn::module::Param;
use burn::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::gradient::GradientRule;
use super::kmeans::kmeans;
use crate::ops::{self, Averages};
use crate::seed::{Stream, stream};
use crate::weights::{buffer, replace, to_array};

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
    /// A code is dead when its recent count falls below this share of the mean; 0 never revives.
    pub revive_below: f64,
    /// Where a dead code comes back.
    pub revive: Revival,
    /// Steps between revivals.
    pub revive_every: u64,
}

/// Where a dead code comes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revival {
    /// Beside the most used code, sharing its cell.
    #[default]
    Split,
    /// On a random vector of the step.
    Sample,
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
            revive: Revival::default(),
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

/// A codebook and the averages that move it. None of them is learned by gradient.
#[derive(Module, Debug)]
pub struct Codebook {
    /// Code vectors, `[codebook_size, d_code]`.
    pub codes: Param<Tensor<2>>,
    /// Running counts, `[codebook_size]`.
    pub counts: Param<Tensor<1>>,
    /// Running sums of vectors, `[codebook_size, d_code]`.
    pub sums: Param<Tensor<2>>,
    /// Running counts with a shorter memory, `[codebook_size]`, by which dead codes are found. With the memory of `counts` a
    /// code would be dead for some hundred steps before it showed.
    pub recent: Param<Tensor<1>>,
}

/// The weight of the past in [`Codebook::recent`].
const RECENT_DECAY: f64 = 0.9;

/// What the vectors of one step say to a codebook.
#[derive(Clone, Debug)]
pub struct Statistics {
    /// How many vectors chose each code, `[codebook_size]`.
    pub counts: Tensor<1>,
    /// Their sums, `[codebook_size, d_code]`.
    pub sums: Tensor<2>,
    /// The vectors, `[rows, d_code]`, from which dead codes are revived.
    pub rows: Tensor<2>,
    /// The code of each, `[rows]`.
    pub index: Tensor<1, Int>,
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
        let codes = Tensor::<2>::from_data(TensorData::new(values, [size, d_code]), device).inner();
        Self {
            counts: buffer(Tensor::ones([size], &codes.device())),
            recent: buffer(Tensor::ones([size], &codes.device())),
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
        ops::nearest(h.inner().reshape([batch * bases, d_code]), self.plain_codes()).reshape([batch, bases])
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

    /// Code vectors without autodiff.
    pub(super) fn plain_codes(&self) -> Tensor<2> {
        self.codes.val().inner()
    }

    /// Counts and sums of the vectors that chose each code.
    pub fn statistics(&self, h: &Tensor<3>, index: &Tensor<2, Int>, mask: &Tensor<2>) -> Statistics {
        let [batch, bases, d_code] = h.dims();
        let rows = h.clone().inner().reshape([batch * bases, d_code]);
        let weight = mask.clone().inner().reshape([batch * bases]);
        let size = self.codes.dims()[0];
        // Padding has the code −1; its weight is 0.
        let index = index.clone().reshape([batch * bases]).clamp_min(0);
        let (counts, sums) = ops::code_statistics(rows.clone(), index.clone(), weight.clone(), size);
        Statistics { counts, sums, rows, index, weight }
    }

    /// One step of the moving averages.
    #[must_use]
    pub fn update(self, new: &Statistics, config: &CodebookConfig) -> Self {
        let old = Averages { counts: self.counts.val().inner(), sums: self.sums.val().inner() };
        let of_step = Averages { counts: new.counts.clone(), sums: new.sums.clone() };
        let (codes, Averages { counts, sums }) = ops::average(old, of_step, config.decay, config.smoothing);
        let codes = match config.average {
            Average::Counts => codes,
            Average::Direct => {
                let used = new.counts.clone().greater_scalar(0.0).float().unsqueeze_dim::<2>(1);
                let mean = new.sums.clone() / new.counts.clone().clamp_min(1.0).unsqueeze_dim(1);
                let old = self.plain_codes();
                old.clone() + (mean - old) * used.mul_scalar(1.0 - config.decay)
            }
        };
        let recent =
            self.recent.val().inner().mul_scalar(RECENT_DECAY) + new.counts.clone().mul_scalar(1.0 - RECENT_DECAY);
        self.set(codes, counts, sums, recent)
    }

    /// Gives every dead code a new place and the averages to match, so that the next update does not pull it back to
    /// where it died. On the host: it is rare, and a codebook is small.
    #[must_use]
    pub fn revive(self, new: &Statistics, config: &CodebookConfig, random: &mut Stream) -> Self {
        let mut host = HostCodebook::read(&self);
        let threshold = config.revive_below as f32 * host.recent.iter().sum::<f32>() / host.recent.len() as f32;
        let dead: Vec<usize> = (0..host.recent.len()).filter(|&code| host.recent[code] < threshold).collect();
        if dead.is_empty() {
            return self;
        }
        let rows = HostRows::read(new);
        if rows.real.is_empty() {
            return self;
        }
        for code in dead {
            match config.revive {
                Revival::Sample => {
                    let row = rows.real[random.random_range(0..rows.real.len())];
                    host.place(code, rows.row(row), threshold);
                }
                Revival::Split => host.split(code, &rows, threshold, random),
            }
        }
        let [k, d] = self.codes.dims();
        let device = self.codes.device().inner();
        let matrix = |values| Tensor::<2>::from_data(TensorData::new(values, [k, d]), &device);
        let vector = |values| Tensor::<1>::from_data(TensorData::new(values, [k]), &device);
        self.set(matrix(host.codes), vector(host.counts), matrix(host.sums), vector(host.recent))
    }

    /// Codes by k-means on `rows [n, d_code]`. Counts are scaled to the rows of one training step, where the running
    /// averages will settle.
    #[must_use]
    pub fn from_kmeans(
        self,
        rows: Tensor<2>,
        iterations: usize,
        rows_per_step: usize,
        random: &mut Stream,
        go_on: &dyn Fn() -> bool,
    ) -> Self {
        let size = self.codes.dims()[0];
        let scale = rows_per_step as f64 / rows.dims()[0] as f64;
        let (codes, counts) = kmeans(rows, size, iterations, random, go_on);
        let counts = counts.mul_scalar(scale);
        let sums = codes.clone() * counts.clone().unsqueeze_dim(1);
        self.set(codes, counts.clone(), sums, counts)
    }

    fn set(self, codes: Tensor<2>, counts: Tensor<1>, sums: Tensor<2>, recent: Tensor<1>) -> Self {
        Self {
            codes: replace(self.codes, |_| codes),
            counts: replace(self.counts, |_| counts),
            sums: replace(self.sums, |_| sums),
            recent: replace(self.recent, |_| recent),
        }
    }
}

/// A codebook while codes are revived.
struct HostCodebook {
    d: usize,
    codes: Vec<f32>,
    counts: Vec<f32>,
    sums: Vec<f32>,
    recent: Vec<f32>,
}

/// How far a split code moves towards a vector of its cell. In many dimensions a random vector is further from the others of
/// its cell than their mean is, so a code put on the vector itself would win nothing; a small step takes a share of the cell.
const SPLIT_STEP: f32 = 0.1;

/// Count of a split code, in units of the count below which it is dead. Small, so that its average follows the vectors that
/// choose it at once, and so that a code that none chooses is soon found dead again.
const NEWBORN: f32 = 1.25;

impl HostCodebook {
    fn read(book: &Codebook) -> Self {
        let [codes, sums] = [&book.codes, &book.sums].map(|param| to_array(param.val()).values);
        let [counts, recent] = [&book.counts, &book.recent].map(|param| to_array(param.val()).values);
        Self { d: book.codes.dims()[1], codes, counts, sums, recent }
    }

    /// Puts a code somewhere, with a count and the sum to match.
    fn place(&mut self, code: usize, vector: &[f32], count: f32) {
        let at = code * self.d..(code + 1) * self.d;
        self.counts[code] = count;
        self.recent[code] = count;
        self.codes[at.clone()].copy_from_slice(vector);
        self.sums[at].iter_mut().zip(vector).for_each(|(sum, v)| *sum = count * v);
    }

    /// Splits the cell with the highest count (Linde, Buzo and Gray 1980): the dead code takes a little of it and moves a
    /// little towards one of its vectors. A code that died lately may still have the highest count, but has no cell to share.
    fn split(&mut self, code: usize, rows: &HostRows, threshold: f32, random: &mut Stream) {
        let living = (0..self.counts.len()).filter(|&code| self.recent[code] >= threshold);
        let donor = living.max_by(|&a, &b| self.counts[a].total_cmp(&self.counts[b])).unwrap_or_default();
        let cell: Vec<usize> = rows.real.iter().copied().filter(|&row| rows.index[row] == donor as i32).collect();
        // No vector of the heaviest cell in this step: any other will do.
        let towards = if cell.is_empty() { &rows.real } else { &cell };
        let towards = rows.row(towards[random.random_range(0..towards.len())]);
        let from = &self.codes[donor * self.d..(donor + 1) * self.d];
        let moved: Vec<f32> = from.iter().zip(towards).map(|(from, to)| from + SPLIT_STEP * (to - from)).collect();
        let (vector, count) = (from.to_vec(), (NEWBORN * threshold).min(self.counts[donor] / 2.0));
        let recent = self.recent[donor];
        self.place(donor, &vector, self.counts[donor] - count);
        self.recent[donor] = recent;
        self.place(code, &moved, count);
    }
}

/// The vectors of a step on the host.
struct HostRows {
    d: usize,
    values: Vec<f32>,
    index: Vec<i32>,
    /// Rows that are not padding.
    real: Vec<usize>,
}

impl HostRows {
    fn read(new: &Statistics) -> Self {
        let weight = to_array(new.weight.clone()).values;
        Self {
            d: new.rows.dims()[1],
            values: to_array(new.rows.clone()).values,
            index: new.index.clone().into_data().try_into_vec_as().expect("indices fit i32"),
            real: (0..weight.len()).filter(|&row| weight[row] != 0.0).collect(),
        }
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.d..(row + 1) * self.d]
    }
}

/// The stream for choices about one level at one step.
pub(super) fn level_stream(seed: u64, purpose: &str, step: u64, level: usize) -> Stream {
    stream(seed, purpose, &[step, level as u64])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor<const D: usize>(values: &[f32], shape: [usize; D]) -> Tensor<D> {
        Tensor::from_data(TensorData::new(values.to_vec(), shape), &Device::flex())
    }

    fn codebook(codes: &[f32], counts: &[f32], d: usize) -> Codebook {
        let k = counts.len();
        let codes = tensor(codes, [k, d]);
        let sums = codes.clone() * tensor(counts, [k, 1]);
        let [all, recent] = [tensor(counts, [k]), tensor(counts, [k])].map(buffer);
        Codebook { codes: buffer(codes), counts: all, sums: buffer(sums), recent }
    }

    fn statistics(book: &Codebook, rows: &[f32], d: usize) -> Statistics {
        let h = tensor(rows, [1, rows.len() / d, d]);
        let index = book.search(h.clone());
        book.statistics(&h, &index, &Tensor::ones([1, rows.len() / d], &Device::flex()))
    }

    #[track_caller]
    fn assert_near(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() <= 1e-5 * w.abs().max(1.0)), "{got:?}, not {want:?}");
    }

    fn values(book: &Codebook) -> [Vec<f32>; 3] {
        [to_array(book.codes.val()).values, to_array(book.counts.val()).values, to_array(book.sums.val()).values]
    }

    /// T1 of `docs/vectors.md`, V5 of `docs/vectors.md`.
    #[test]
    fn averages_by_hand() {
        let book = codebook(&[0.0, 1.0, 10.0], &[1.0; 3], 1);
        let new = statistics(&book, &[0.2, 0.4, 1.4], 1);
        assert_eq!(new.index.clone().into_data().try_into_vec_as::<i32>().expect("i32"), [0, 0, 1]);
        let config = CodebookConfig { decay: 0.8, ..CodebookConfig::default() };
        let [codes, counts, sums] = values(&book.update(&new, &config));
        assert_near(&counts, &[1.2, 1.0, 0.8]);
        assert_near(&sums, &[0.12, 1.08, 8.0]);
        assert_near(&codes, &[0.100_000_167, 1.08, 9.999_975]);
    }

    #[test]
    fn the_direct_average_leaves_unused_codes() {
        let book = codebook(&[0.0, 1.0, 10.0], &[1.0; 3], 1);
        let new = statistics(&book, &[0.2, 0.4, 1.4], 1);
        let config = CodebookConfig { decay: 0.8, average: Average::Direct, ..CodebookConfig::default() };
        assert_near(&values(&book.update(&new, &config))[0], &[0.06, 1.08, 10.0]);
    }

    /// T4 of `docs/vectors.md`: τ = 1 is 4/7 of the mean count of 1.75.
    #[test]
    fn a_dead_code_comes_back_on_a_vector_of_the_step() {
        let book = codebook(&[1.0, 1.0, 6.0, 6.0], &[0.5, 3.0], 2);
        let new = statistics(&book, &[7.0, 7.0], 2);
        let config = CodebookConfig { revive: Revival::Sample, revive_below: 4.0 / 7.0, ..CodebookConfig::default() };
        let [codes, counts, sums] = values(&book.revive(&new, &config, &mut crate::seed::stream(1, "test", &[])));
        assert_near(&codes, &[7.0, 7.0, 6.0, 6.0]);
        assert_near(&counts, &[1.0, 3.0]);
        assert_near(&sums, &[7.0, 7.0, 18.0, 18.0]);
    }

    #[test]
    fn a_split_shares_the_heaviest_cell() {
        let book = codebook(&[50.0, 6.0, -3.0], &[0.01, 8.0, 2.0], 1);
        let new = statistics(&book, &[7.0, 7.0, -3.0], 1);
        let [codes, counts, sums] =
            values(&book.revive(&new, &CodebookConfig::default(), &mut crate::seed::stream(1, "test", &[])));
        assert_near(&codes, &[6.1, 6.0, -3.0]);
        let newborn = 1.25 * 0.03 * 10.01 / 3.0;
        assert_near(&counts, &[newborn, 8.0 - newborn, 2.0]);
        assert_near(&sums, &[6.1 * newborn, 6.0 * (8.0 - newborn), -6.0]);
    }

    /// A revived code stays where it was put: its averages do not remember where it died.
    #[test]
    fn a_revived_code_survives_the_next_update() {
        let book = codebook(&[50.0, 6.0], &[0.01, 8.0], 1);
        let new = statistics(&book, &[7.0, 7.0], 1);
        let config = CodebookConfig::default();
        let book = book.revive(&new, &config, &mut crate::seed::stream(1, "test", &[]));
        let next = statistics(&book, &[7.0, 7.0], 1);
        let [codes, ..] = values(&book.update(&next, &config));
        assert!((6.0..7.0).contains(&codes[0]), "{codes:?}");
    }
}
