//! A low-rank part of a weight, `w + scale · b · a` (LoRA; Hu et al. 2021).
//!
//! Products are taken with the sum, which [`LowRank::added_to`] forms. The gradients of the factors, `scale · bᵀ · dw` and
//! `scale · dw · aᵀ`, come out of thin products over the rows: `dw = dyᵀ · x` is never formed.

use crate::product::{
    Matrix, Onto, Panels, Unit, View, rows_product, rows_times, transpose, transposed, transposed_panels,
};
use crate::shape::{fits, positive, width_of};
use std::borrow::Cow;

/// The low-rank part of a weight `[d_out, d_in]`.
#[derive(Clone, Copy, Debug)]
pub struct LowRank<'a> {
    /// `[rank, d_in]`.
    pub a: &'a [f32],
    /// `[d_out, rank]`.
    pub b: &'a [f32],
    /// At least 1.
    pub rank: usize,
    /// Factor of the product of both.
    pub scale: f32,
}

impl LowRank<'_> {
    /// Panics unless the factors fit a weight `[d_out, d_in]`.
    pub(crate) fn check(&self, d_in: usize, d_out: usize) {
        positive("low_rank.rank", self.rank);
        fits("low_rank.a", self.a, &[self.rank, d_in]);
        fits("low_rank.b", self.b, &[d_out, self.rank]);
    }

    fn d_in(&self) -> usize {
        self.a.len() / self.rank
    }

    fn d_out(&self) -> usize {
        self.b.len() / self.rank
    }

    /// `w + scale · b · a` for a weight `w [d_out, d_in]`.
    ///
    /// # Panics
    /// If the factors do not fit the weight, or a size is 0.
    #[must_use]
    pub fn added_to(&self, w: &[f32]) -> Vec<f32> {
        positive("low_rank.rank", self.rank);
        self.check(width_of("low_rank.a", self.a, self.rank), width_of("low_rank.b", self.b, self.rank));
        fits("w", w, &[self.d_out(), self.d_in()]);
        let a: Vec<f32> = self.a.iter().map(|a| self.scale * a).collect();
        let mut sum = w.to_vec();
        rows_times(&mut sum, self.b, Panels::<f32>::new(Matrix::new(&a, self.rank, self.d_in())).view(), Onto::Output);
        sum
    }
}

/// Rows on one side of a weight: its inputs x, or the gradients dy of its outputs.
#[derive(Clone, Copy)]
pub(crate) enum Rows<'a, U> {
    /// Row after row.
    Dense(&'a [f32]),
    /// In panels, with what [`Factors::narrow_x`] or [`Factors::narrow_dy`] makes of them.
    Packed(View<'a, U>, &'a [f32]),
}

impl<U: Unit> Rows<'_, U> {
    /// `rows · factor`, `[rows, rank]`.
    fn narrow(&self, factor: View<U>) -> Cow<'_, [f32]> {
        match *self {
            Self::Dense(rows) => rows_product(rows, factor, Onto::Zero).into(),
            Self::Packed(_, narrow) => narrow.into(),
        }
    }

    /// `sum [rank, width] += narrowᵀ · rows`.
    fn add_to(&self, sum: &mut [f32], narrow: &[f32], rank: usize) {
        match *self {
            Self::Dense(rows) => {
                let width = sum.len() / rank;
                transposed::<U>(sum, narrow, rank, rows, width, Onto::Output);
            }
            Self::Packed(rows, _) => transposed_panels(sum, narrow, rank, rows, Onto::Output),
        }
    }
}

/// The factors of a low-rank part ready for the backward pass, and their gradients so far.
pub(crate) struct Factors<U> {
    rank: usize,
    scale: f32,
    /// `aᵀ`, `[d_in, rank]`.
    a: Panels<U>,
    /// `[d_out, rank]`.
    b: Panels<U>,
    /// `[rank, d_in]`, and `[rank, d_out]`: transposed at the end.
    gradients: [Vec<f32>; 2],
}

impl<U: Unit> Factors<U> {
    pub(crate) fn new(part: LowRank) -> Self {
        let (rank, d_in, d_out) = (part.rank, part.d_in(), part.d_out());
        Self {
            rank,
            scale: part.scale,
            a: Panels::new(Matrix::new(part.a, rank, d_in).transposed()),
            b: Panels::new(Matrix::new(part.b, d_out, rank)),
            gradients: [vec![0.0; rank * d_in], vec![0.0; rank * d_out]],
        }
    }

    /// What rows of x are multiplied with to become narrow.
    pub(crate) fn narrow_x(&self) -> View<'_, U> {
        self.a.view()
    }

    /// What rows of dy are multiplied with to become narrow.
    pub(crate) fn narrow_dy(&self) -> View<'_, U> {
        self.b.view()
    }

    /// Adds the gradients that come of some rows.
    pub(crate) fn add(&mut self, x: Rows<U>, dy: Rows<U>) {
        let (narrow_x, narrow_dy) = (x.narrow(self.a.view()), dy.narrow(self.b.view()));
        let [da, db] = &mut self.gradients;
        x.add_to(da, &narrow_dy, self.rank);
        dy.add_to(db, &narrow_x, self.rank);
    }

    /// Gradients of `a [rank, d_in]` and `b [d_out, rank]`.
    pub(crate) fn finish(self) -> [Vec<f32>; 2] {
        let [mut da, mut db] = self.gradients;
        db = transpose(&db, self.rank, db.len() / self.rank);
        da.iter_mut().chain(&mut db).for_each(|v| *v *= self.scale);
        [da, db]
    }
}

#[cfg(test)]
pub(crate) mod test {
    use super::LowRank;
    use crate::rows::test::noise;

    /// Factors in numbers of a few tenths.
    pub(crate) struct Owned {
        pub a: Vec<f32>,
        pub b: Vec<f32>,
        pub rank: usize,
    }

    impl Owned {
        pub(crate) fn new(d_in: usize, d_out: usize, rank: usize, seed: u64) -> Self {
            Self { a: noise(rank * d_in, seed), b: noise(d_out * rank, seed + 1), rank }
        }

        pub(crate) fn view(&self) -> LowRank<'_> {
            LowRank { a: &self.a, b: &self.b, rank: self.rank, scale: 0.75 }
        }

        /// Compares gradients of the factors with those that follow from that of the weight, `dw [d_out, d_in]`, up to sums of some
        /// thousand rows in another order.
        #[track_caller]
        pub(crate) fn assert_gradients(&self, found: Option<&[Vec<f32>; 2]>, dw: Option<&Vec<f32>>) {
            for (got, want) in found.expect("wanted").iter().zip(self.project(dw.expect("wanted"))) {
                assert_eq!(got.len(), want.len());
                let largest = want.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                let far = got.iter().zip(&want).position(|(g, w)| (g - w).abs() > 1e-5 * largest);
                assert!(far.is_none(), "number {far:?}");
            }
        }

        fn project(&self, dw: &[f32]) -> [Vec<f32>; 2] {
            let (rank, d_in, d_out) = (self.rank, self.a.len() / self.rank, self.b.len() / self.rank);
            let scale = f64::from(self.view().scale);
            let sum = |count: usize, term: &dyn Fn(usize) -> (f32, f32)| {
                let products = (0..count).map(term).map(|(x, y)| f64::from(x) * f64::from(y));
                (scale * products.sum::<f64>()) as f32
            };
            let da = |i: usize| sum(d_out, &|o| (self.b[o * rank + i / d_in], dw[o * d_in + i % d_in]));
            let db = |i: usize| sum(d_in, &|n| (dw[i / rank * d_in + n], self.a[i % rank * d_in + n]));
            [(0..rank * d_in).map(da).collect(), (0..d_out * rank).map(db).collect()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::test::Owned;
    use super::*;
    use crate::product::{Pair, TILE};
    use crate::rows::test::{assert_close, noise};

    #[test]
    fn the_sum_is_its_definition() {
        for (d_in, d_out, rank) in [(3, 5, 1), (70, 20, 8)] {
            let (w, part) = (noise(d_in * d_out, 1), Owned::new(d_in, d_out, rank, 2));
            let product =
                |o: usize, i: usize| (0..rank).map(|r| part.b[o * rank + r] * part.a[r * d_in + i]).sum::<f32>();
            let want: Vec<f32> = (0..w.len()).map(|at| w[at] + 0.75 * product(at / d_in, at % d_in)).collect();
            assert_close(&part.view().added_to(&w), &want);
        }
    }

    /// Rows at once, in groups, and in panels.
    fn gradients<U: Unit>(part: LowRank, x: &[f32], dy: &[f32]) -> [[Vec<f32>; 2]; 3] {
        let (d_in, d_out) = (part.d_in(), part.d_out());
        let rows = x.len() / d_in;
        let half = rows / 2 / U::DEPTH * U::DEPTH;
        let [mut whole, mut halves, mut packed] = std::array::from_fn(|_| Factors::<U>::new(part));
        whole.add(Rows::Dense(x), Rows::Dense(dy));
        halves.add(Rows::Dense(&x[..half * d_in]), Rows::Dense(&dy[..half * d_out]));
        halves.add(Rows::Dense(&x[half * d_in..]), Rows::Dense(&dy[half * d_out..]));
        let (narrow_x, narrow_dy) =
            (Rows::Dense(x).narrow(packed.narrow_x()).to_vec(), Rows::Dense(dy).narrow(packed.narrow_dy()).to_vec());
        let [x_panels, dy_panels] =
            [(x, d_in), (dy, d_out)].map(|(data, width)| Panels::<U>::new(Matrix::new(data, rows, width)));
        packed.add(Rows::Packed(x_panels.view(), &narrow_x), Rows::Packed(dy_panels.view(), &narrow_dy));
        [whole, halves, packed].map(Factors::finish)
    }

    #[test]
    fn gradients_are_those_of_the_weight_seen_through_the_other_factor() {
        for (rows, d_in, d_out, rank) in [(1, 3, 4, 2), (7, 5, 3, 1), (2 * TILE + 3, 70, 20, 8)] {
            let (x, dy, part) = (noise(rows * d_in, 1), noise(rows * d_out, 2), Owned::new(d_in, d_out, rank, 3));
            let mut dw = vec![0.0; d_out * d_in];
            transposed::<f32>(&mut dw, &dy, d_out, &x, d_in, Onto::Zero);
            for found in gradients::<f32>(part.view(), &x, &dy) {
                part.assert_gradients(Some(&found), Some(&dw));
            }
            let [whole, _, packed] = gradients::<Pair>(part.view(), &x, &dy);
            assert!(whole == packed, "the same bits, dense or in panels");
        }
    }
}
