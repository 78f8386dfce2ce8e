//! The forward pass.

use super::{Activation, Kept, STRIP, Weights};
use crate::fresh::{Unwritten, cast, cast_mut, cast_places};
use crate::product::{Left, Matrix, Onto, Panels, Unit, multiply, product_written, steps_written};
use crate::shape::fits;
use crate::simd::simd;
use std::mem::MaybeUninit;

/// The two layers ready for the forward pass.
#[derive(Clone, Debug)]
pub(crate) struct Forward<U> {
    up: Panels<U>,
    up_bias: Vec<f32>,
    down: Panels<U>,
    down_bias: Vec<f32>,
    activation: Activation,
}

impl<U: Unit> Forward<U> {
    pub(crate) fn new(w: Weights) -> Self {
        let (d, d_inner) = (w.d(), w.d_inner());
        assert!(d_inner.is_multiple_of(w.activation.inputs()), "halves of {d_inner} numbers");
        let activation = w.activation;
        let (up, down) = rayon::join(
            || Panels::new(Matrix::new(&activation.arranged(w.up, d), d_inner, d).transposed()),
            || Panels::new(Matrix::new(w.down, d, w.d_active()).transposed()),
        );
        let up_bias = activation.arranged(w.up_bias, 1).into_owned();
        Self { up, up_bias, down, down_bias: w.down_bias.to_vec(), activation }
    }

    pub(crate) fn d_inner(&self) -> usize {
        self.up_bias.len()
    }

    /// Floats of scratch that a tile of `rows` needs.
    pub(crate) fn scratch(&self, rows: usize) -> usize {
        let strip = STRIP.min(self.d_inner());
        rows * strip + self.activation.scratch_of_forward::<U>(rows, strip) + U::scratch(rows, self.down_bias.len())
    }

    /// `out = x + down(activation(up(y)))` for the rows of a tile. The input of the activation is kept at the place that begins with the
    /// given row.
    ///
    /// # Safety
    /// No row may be kept twice.
    pub(crate) unsafe fn tile<'a>(
        &self,
        y: &[f32],
        x: &[f32],
        keep: Option<(&Kept<U>, usize)>,
        out: &'a mut [MaybeUninit<f32>],
        scratch: &mut [f32],
    ) -> &'a mut [f32] {
        let (d, d_inner) = (self.down_bias.len(), self.d_inner());
        let rows = y.len() / d;
        let (y_units, scratch) = scratch.split_at_mut(U::scratch(rows, d));
        let (strip, scratch) = scratch.split_at_mut(rows * STRIP.min(d_inner));
        let (units, stride) = U::of_rows(y, d, d, y_units);
        let y = Left::Rows { units, stride };
        let (up, down) = (self.up.view(), self.down.view());
        let out = add_row(x, &self.down_bias, out);
        for first in (0..d_inner).step_by(STRIP) {
            let width = STRIP.min(d_inner - first);
            let columns = first..first + width;
            let bias = Onto::Row(&self.up_bias[columns.clone()]);
            let steps = 0..up.steps();
            let strip = &mut strip[..rows * width];
            let kept = if let Some((kept, row)) = keep {
                // SAFETY: each strip once, and its rows are kept once, as the caller promises.
                let part = unsafe { kept.part(row, rows, first, width) };
                let units = part.write(|out| {
                    if U::DEPTH == 1 {
                        return cast_mut(product_written(cast_places(out), y, up, steps, columns, bias));
                    }
                    multiply(strip, width, y, up, steps, columns, bias);
                    steps_written(strip, width, out)
                });
                (U::DEPTH == 1).then(|| cast::<U, f32>(units))
            } else {
                multiply(strip, width, y, up, steps, columns, bias);
                None
            };
            let units = self.activation.forward::<U>(kept, strip, width, scratch);
            // Columns of the activation's output.
            let (first, width) = (first / self.activation.inputs(), width / self.activation.inputs());
            let steps = U::width(first)..U::width(first + width);
            let left = Left::Rows { units, stride: U::width(width) };
            multiply(out, d, left, down, steps, 0..d, Onto::Output);
        }
        out
    }
}

simd! {
    /// `out = x + bias`, row by row.
    ///
    /// # Panics
    /// If x is not as long, or these are no whole rows.
    pub(crate) fn add_row<'a>[FMA](x: &[f32], bias: &[f32], out: &'a mut [MaybeUninit<f32>]) -> &'a mut [f32] {
        let d = bias.len();
        fits("x", x, &[out.len()]);
        out.rows_written(d, |row, out| out.written(x[row * d..(row + 1) * d].iter().zip(bias).map(|(x, b)| x + b)))
    }
}
