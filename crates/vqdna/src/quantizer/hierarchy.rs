//! Codebooks one after another, with three rules for what a level searches and what the codes so far stand for.
//!
//! With `e(j)` the code of level `j` and `Z(n)` the tap of level `n`:
//!
//! | rule | searched `H(n)` | mean `Ẑ(n)` | is |
//! | --- | --- | --- | --- |
//! | `Sum` | `Z − Σ_{j<n} e(j)` | `Σ_{j≤n} e(j)` | VQ with one level, classical RQ (Lee et al. 2022) with more |
//! | `Mean` | `n Z(n) − Σ_{j<n} e(j)` | `Σ_{j≤n} e(j) / n` | HRQ; VQDNA's eq. 6 and 8 for two levels, and consistent beyond |
//! | `Paper` | `2 Z(n) − e(n−1)` | `Σ_{j≤n} e(j) / n` | HRQ with eq. 6 as printed for every level |
//!
//! The printed base case of eq. 6 is circular; the first level searches `Z(1)`, as the paper's figure shows. Gradients pass
//! once, on the last mean; the encoder's stream itself is never replaced.

use burn::prelude::*;
use rand::seq::index;

use super::Quantized;
use super::codebook::{Codebook, CodebookConfig, Statistics, level_stream};
use super::kmeans::nearest;
use crate::ops;
use crate::seed::Stream;

/// What a level searches; see the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Residuals that add up.
    Sum,
    /// Running mean.
    Mean,
    /// Running mean, searched as printed in the paper.
    Paper,
}

impl Rule {
    /// What level `n` (from 1) multiplies its tap by.
    fn scale(self, n: usize) -> f64 {
        match self {
            Self::Sum => 1.0,
            Self::Mean => n as f64,
            Self::Paper => 2.0,
        }
    }

    /// The vector that level `n` (from 1) searches, from its tap, the sum of the codes before it and the last of them.
    fn searched<const D: usize>(self, n: usize, tap: Tensor<D>, before: Option<&(Tensor<D>, Tensor<D>)>) -> Tensor<D> {
        match (self, before) {
            (_, None) => tap,
            (Self::Sum, Some((sum, _))) => tap - sum.clone(),
            (Self::Mean, Some((sum, _))) => tap.mul_scalar(self.scale(n)) - sum.clone(),
            (Self::Paper, Some((_, last))) => tap.mul_scalar(self.scale(n)) - last.clone(),
        }
    }

    /// What the sum of the codes of `n` levels is divided by to get what they stand for.
    fn divisor(self, n: usize) -> f64 {
        match self {
            Self::Sum => 1.0,
            Self::Mean | Self::Paper => n as f64,
        }
    }
}

/// Codebooks and the rule that joins them.
#[derive(Module, Debug)]
pub struct Hierarchy {
    /// Coarse to fine.
    pub codebooks: Vec<Codebook>,
    #[module(skip)]
    rule: Rule,
    #[module(skip)]
    config: CodebookConfig,
}

impl Hierarchy {
    /// Fresh codebooks of the given sizes.
    #[must_use]
    pub fn new(
        sizes: &[usize],
        d_code: usize,
        rule: Rule,
        config: &CodebookConfig,
        random: &mut Stream,
        device: &Device,
    ) -> Self {
        let codebooks = sizes.iter().map(|&size| Codebook::new(size, d_code, random, device)).collect();
        Self { codebooks, rule, config: config.clone() }
    }

    /// The tap of each level: its own where there are several, else the one.
    fn tap_of<'a, T>(&self, taps: &'a [T], level: usize) -> &'a T {
        match self.rule {
            Rule::Sum => {
                assert_eq!(taps.len(), 1, "this quantizer reads one tap");
                &taps[0]
            }
            Rule::Mean | Rule::Paper => {
                assert_eq!(taps.len(), self.codebooks.len(), "one tap a level");
                &taps[level]
            }
        }
    }

    /// See [`super::Quantizer::forward`].
    pub(super) fn forward(&self, taps: &[Tensor<3>], mask: &Tensor<2>) -> Quantized {
        let shape = taps.last().expect("at least one tap").dims();
        let [batch, bases, _] = shape;
        let (mut codes, mut means, mut searched) = (Vec::new(), Vec::new(), Vec::new());
        self.walk(taps, mask, |h, index, mean| {
            searched.push(h.reshape(shape));
            codes.push(index.reshape([batch, bases]));
            means.push(mean.reshape(shape));
        });
        let commitment = means.iter().enumerate().map(|(level, mean)| {
            ops::commitment(self.tap_of(taps, level).clone(), Tensor::from_inner(mean.clone()), mask.clone())
        });
        let commitment = commitment.reduce(|sum, term| sum + term).expect("at least one codebook");
        let last = means.last().expect("at least one codebook").clone();
        let z = taps.last().expect("at least one tap").clone();
        let output = self.config.gradient.apply(z, Tensor::from_inner(last), mask);
        Quantized { codes, means, searched, output, commitment }.without_codes_of_padding(mask)
    }

    /// See [`super::Quantizer::encode`]. The codes are those of [`Hierarchy::walk`], which keeps more: here each level is one
    /// pass over its tap, in place, and no sum is made that no level searches with.
    pub(super) fn encode(&self, mut taps: Vec<Tensor<3>>) -> Vec<Tensor<2, Int>> {
        let levels = self.codebooks.len();
        let [batch, bases, d_code] = self.tap_of(&taps, 0).dims();
        let mut found: Vec<Tensor<1, Int>> = Vec::new();
        // Of all codes but the last.
        let mut sum: Option<Tensor<2>> = None;
        for (level, book) in self.codebooks.iter().enumerate() {
            let is_last_use = taps.len() > 1 || level + 1 == levels;
            let tap = if is_last_use { taps.remove(0) } else { taps[0].clone() };
            let tap = tap.inner().reshape([batch * bases, d_code]);
            let h = match found.last().zip(level.checked_sub(1)) {
                None => tap,
                Some((index, before)) => {
                    let codes = self.codebooks[before].plain_codes();
                    let h = ops::residual(tap, self.rule.scale(level + 1), sum.clone(), codes.clone(), index.clone());
                    if self.rule != Rule::Paper && level + 1 < levels {
                        let last = codes.select(0, index.clone());
                        sum = Some(sum.map_or_else(|| last.clone(), |sum| sum + last.clone()));
                    }
                    h
                }
            };
            found.push(ops::nearest(h, book.plain_codes()));
        }
        found.into_iter().map(|index| index.reshape([batch, bases])).collect()
    }

    /// Searches level after level, outside the graph, and shows of each level the searched vectors, their codes and what the codes so far
    /// stand for, 0 at padding.
    fn walk(&self, taps: &[Tensor<3>], mask: &Tensor<2>, mut show: impl FnMut(Tensor<2>, Tensor<1, Int>, Tensor<2>)) {
        let rows = mask.dims().iter().product();
        let mask = mask.clone().inner().reshape([rows]);
        // Sums of the codes so far, with and without the last.
        let (mut sum, mut before): (Option<Tensor<2>>, Option<Tensor<2>>) = (None, None);
        let mut last: Option<(Tensor<2>, Tensor<1, Int>)> = None;
        for (level, book) in self.codebooks.iter().enumerate() {
            let (codes, tap) = (book.plain_codes(), self.tap_of(taps, level).clone().inner());
            let tap = tap.reshape([rows, codes.dims()[1]]);
            let h = match last {
                None => tap,
                Some((codes, index)) => {
                    let before = before.filter(|_| self.rule != Rule::Paper);
                    ops::residual(tap, self.rule.scale(level + 1), before, codes, index)
                }
            };
            let index = ops::nearest(h.clone(), codes.clone());
            let levels = self.rule.divisor(level + 1);
            let (next, mean) = ops::add_codes(sum.clone(), codes.clone(), index.clone(), mask.clone(), levels);
            (before, sum) = (sum, Some(next));
            show(h, index.clone(), mean);
            last = Some((codes, index));
        }
    }

    /// See [`super::Quantizer::decode`].
    pub(super) fn decode(&self, codes: &[Tensor<2, Int>]) -> Tensor<3> {
        assert_eq!(codes.len(), self.codebooks.len(), "one code a level");
        let vectors = self.codebooks.iter().zip(codes).map(|(book, index)| book.look_up(index.clone()));
        let sum = vectors.reduce(|sum, vector| sum + vector).expect("at least one codebook");
        sum.div_scalar(self.rule.divisor(codes.len()))
    }

    /// See [`super::Quantizer::statistics`].
    pub(super) fn statistics(&self, quantized: &Quantized, mask: &Tensor<2>) -> Vec<Statistics> {
        let levels = self.codebooks.iter().zip(&quantized.searched).zip(&quantized.codes);
        levels.map(|((book, h), index)| book.statistics(h, index, mask)).collect()
    }

    /// See [`super::Quantizer::update`].
    pub(super) fn update(mut self, statistics: Vec<Statistics>, seed: u64, step: u64) -> Self {
        let revive = self.config.revive_below > 0.0 && step.is_multiple_of(self.config.revive_every.max(1));
        let levels = self.codebooks.into_iter().zip(&statistics).enumerate();
        self.codebooks = levels
            .map(|(level, (book, new))| {
                let book = book.update(new, &self.config);
                if !revive {
                    return book;
                }
                book.revive(new, &self.config, &mut level_stream(seed, "revive dead codes", step, level))
            })
            .collect();
        self
    }

    /// See [`super::Quantizer::initialise`].
    pub(super) fn initialise(
        mut self,
        taps: &[Tensor<2>],
        rows_per_step: usize,
        seed: u64,
        go_on: &dyn Fn() -> bool,
    ) -> Self {
        if self.config.kmeans_iterations == 0 {
            return self;
        }
        let mut before: Option<(Tensor<2>, Tensor<2>)> = None;
        for level in 0..self.codebooks.len() {
            let h = self.rule.searched(level + 1, self.tap_of(taps, level).clone().inner(), before.as_ref());
            let mut random = level_stream(seed, "k-means", 0, level);
            let book = self.codebooks[level].clone().from_kmeans(
                sample(&h, KMEANS_ROWS, &mut random),
                self.config.kmeans_iterations,
                rows_per_step,
                &mut random,
                go_on,
            );
            let [rows, d_code] = h.dims();
            let Some(index) = nearest(&h, &book.plain_codes(), go_on) else { return self };
            let last = book.look_up(index.unsqueeze_dim(0)).reshape([rows, d_code]);
            self.codebooks[level] = book;
            before = Some((before.map_or_else(|| last.clone(), |(sum, _)| sum + last.clone()), last));
        }
        self
    }
}

/// Rows that k-means sees at most.
const KMEANS_ROWS: usize = 65_536;

fn sample(rows: &Tensor<2>, most: usize, random: &mut Stream) -> Tensor<2> {
    let n = rows.dims()[0];
    if n <= most {
        return rows.clone();
    }
    let chosen: Vec<i32> = index::sample(random, n, most).into_iter().map(|row| row as i32).collect();
    rows.clone().select(0, Tensor::from_data(TensorData::new(chosen, [most]), &rows.device()))
}
