//! What stands between the two linear layers, strip by strip.

use super::STRIP;
use super::strips::Columns;
#[cfg(target_arch = "x86_64")]
use crate::fresh::Part;
use crate::gelu;
use crate::glu::Gate;
use crate::linear::add_rows;
use crate::product::{Unit, panel_width};
use std::borrow::Cow;
use std::ops::Range;

/// What stands between the two layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// Exact GELU, number by number.
    #[default]
    Gelu,
    /// `silu(a) · b` of the first half of a row and the second (`SwiGLU`; Shazeer 2020).
    SwiGlu,
    /// `gelu(a) · b` of the first half of a row and the second, with exact GELU (`GEGLU`; Shazeer 2020).
    GeGlu,
}

/// What the backward pass on a strip of a tile reads, and where its results go.
pub(super) struct Strip<'a, U> {
    /// Its first row, which begins a unit, and its first column before the activation.
    pub first_row: usize,
    pub first: usize,
    /// Columns before the activation.
    pub width: usize,
    /// The input of the activation, steps of `width` units.
    pub x: &'a [U],
    /// What the next strip reads there, or nothing.
    pub next: &'a [U],
    /// Gradient of its output, dense rows, overwritten.
    pub dy: &'a mut [f32],
    /// Where columns of its output go, and those of the gradient of its input.
    pub y_columns: Option<&'a Columns<'a, U>>,
    pub dx_columns: Option<&'a Columns<'a, U>>,
    /// Whether rows of its output are wanted.
    pub y_rows: bool,
    /// To which rows of the gradient of its input are added.
    pub sums: Option<&'a mut [f32]>,
}

impl Activation {
    /// Numbers that it makes one of.
    #[must_use]
    pub const fn inputs(self) -> usize {
        match self {
            Self::Gelu => 1,
            Self::SwiGlu | Self::GeGlu => 2,
        }
    }

    /// What the first of two halves passes through.
    fn gate(self) -> Gate {
        if self == Self::GeGlu { Gate::Gelu } else { Gate::Silu }
    }

    /// Floats of scratch that [`Activation::forward`] needs for a strip.
    pub(super) fn scratch_of_forward<U: Unit>(self, rows: usize, width: usize) -> usize {
        let width = width / self.inputs();
        U::scratch(rows, width) + if self == Self::Gelu { 0 } else { rows * width }
    }

    /// Its output for the rows `x [rows, width]` of a strip, as rows of units: x is what was kept, or else what lies in `strip`.
    pub(super) fn forward<'a, U: Unit>(
        self,
        kept: Option<&[f32]>,
        strip: &'a mut [f32],
        width: usize,
        scratch: &'a mut [f32],
    ) -> &'a [U] {
        match self {
            Self::Gelu => {
                #[cfg(target_arch = "x86_64")]
                if U::DEPTH > 1 && gelu::strips::are_there::<U>() {
                    let units = U::from_floats_mut(scratch);
                    gelu::strips::forward(kept.unwrap_or(strip), width, units);
                    return units;
                }
                match kept {
                    Some(x) => gelu::forward(x, strip),
                    None => gelu::in_place(strip),
                }
                U::of_rows(strip, width, width, scratch).0
            }
            Self::SwiGlu | Self::GeGlu => {
                let half = width / 2;
                let (out, units) = scratch.split_at_mut(strip.len() / 2);
                self.gate().rows(kept.unwrap_or(strip), half, out);
                U::of_rows(out, half, half, units).0
            }
        }
    }

    /// Floats of scratch that [`Activation::backward`] needs for a strip.
    pub(super) fn scratch_of_backward<U: Unit>(rows: usize, width: usize) -> usize {
        rows * width + 2 * U::scratch(rows, width)
    }

    /// The backward pass on a strip. Returns its output and the gradient of its input as rows of units, the output only where it is wanted.
    ///
    /// # Safety
    /// No row of a strip may come twice where its columns go.
    pub(super) unsafe fn backward<'a, U: Unit>(self, strip: Strip<'a, U>, scratch: &'a mut [f32]) -> [&'a [U]; 2] {
        let Strip { first_row, first, width, x, next, dy, y_columns, dx_columns, y_rows, sums } = strip;
        let (active_first, active_width) = (first / self.inputs(), width / self.inputs());
        let rows = dy.len() / active_width;
        #[cfg(target_arch = "x86_64")]
        if self == Self::Gelu && !y_rows && gelu::strips::are_there::<U>() {
            let units = U::from_floats_mut(scratch);
            let (mut sums, stride) = (sums, U::width(width));
            for column in (0..width).step_by(panel_width()) {
                let cols = panel_width().min(width - column);
                // SAFETY: a panel once, and its rows come once, as the caller promises.
                let part = |c: &Columns<'a, U>| unsafe { c.part(first_row, rows, first + column) };
                let (mut y, mut dx) = (y_columns.map(part), dx_columns.map(part));
                gelu::strips::backward(gelu::strips::Panel {
                    rows,
                    cols,
                    x: &x[column..],
                    next: if column + cols < width { &x[column + cols..] } else { next },
                    dy: &mut dy[column..],
                    stride: width,
                    y: y.as_mut().map(Part::places),
                    dx: dx.as_mut().map(Part::places),
                    dx_rows: (&mut units[if U::DEPTH > 1 { U::width(column) } else { 0 }..], stride),
                    sums: sums.as_deref_mut().map(|sums| &mut sums[column..column + cols]),
                });
                for part in [y, dx].into_iter().flatten() {
                    // SAFETY: `strips::backward` writes the columns of a whole panel, as wide as it asserts, for all rows; of no rows there are
                    // no units.
                    unsafe { part.assume_written() };
                }
            }
            return [&[], if U::DEPTH > 1 { units } else { U::of_rows(dy, width, width, &mut []).0 }];
        }
        let (values, scratch) = scratch.split_at_mut(rows * width);
        let (y_units, dx_units) = scratch.split_at_mut(U::scratch(rows, width));
        U::read_steps(x, width, values);
        let (y, dx) = match self {
            Self::Gelu => {
                gelu::with_gradient(values, dy);
                (&*values, &*dy)
            }
            Self::SwiGlu | Self::GeGlu => {
                self.gate().with_gradient(values, dy, active_width);
                (&*dy, &*values)
            }
        };
        if let Some(sums) = sums {
            add_rows(dx, sums);
        }
        if let Some(columns) = y_columns {
            // SAFETY: each panel once, and its rows come once, as the caller promises.
            unsafe { columns.write(y, first_row, active_first, active_width) };
        }
        if let Some(columns) = dx_columns {
            // SAFETY: as above.
            unsafe { columns.write(dx, first_row, first, width) };
        }
        let y = if y_rows { U::of_rows(y, active_width, active_width, y_units).0 } else { &[] };
        [y, U::of_rows(dx, width, width, dx_units).0]
    }

    /// Rows of a matrix `[d_inner, d]`, or of a column, in the order of strips: where there are two halves, rows of the first and of
    /// the second in turns.
    pub(super) fn arranged(self, matrix: &[f32], d: usize) -> Cow<'_, [f32]> {
        match self {
            Self::Gelu => Cow::Borrowed(matrix),
            Self::SwiGlu | Self::GeGlu => {
                let mut arranged = Vec::with_capacity(matrix.len());
                for rows in Self::runs(matrix.len() / d) {
                    arranged.extend_from_slice(&matrix[rows.start * d..rows.end * d]);
                }
                Cow::Owned(arranged)
            }
        }
    }

    /// [`Activation::arranged`] the other way.
    pub(super) fn restored(self, matrix: Vec<f32>, d: usize) -> Vec<f32> {
        match self {
            Self::Gelu => matrix,
            Self::SwiGlu | Self::GeGlu => {
                let (mut restored, mut rest) = (vec![0.0; matrix.len()], matrix.as_slice());
                for rows in Self::runs(matrix.len() / d) {
                    let run;
                    (run, rest) = rest.split_at(rows.len() * d);
                    restored[rows.start * d..rows.end * d].copy_from_slice(run);
                }
                restored
            }
        }
    }

    /// Where the rows of two halves stand, run by run in the order of strips.
    fn runs(rows: usize) -> impl Iterator<Item = Range<usize>> {
        let (half, strip) = (rows / 2, STRIP / 2);
        (0..half).step_by(strip).flat_map(move |first| {
            let end = half.min(first + strip);
            [first..end, half + first..half + end]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fresh::Scattered;
    use crate::product::{Pair, View};
    use crate::rows::test::noise;

    /// The gradient of the input of GELU in every order: as panels, as rows of units, as sums over rows; and its output as panels.
    #[derive(Debug, PartialEq)]
    struct Found<U> {
        y: Vec<U>,
        dx: Vec<U>,
        rows: Vec<U>,
        sums: Vec<f32>,
    }

    /// With rows of the output too, which only the general way makes.
    fn backward<U: Unit>(rows: usize, width: usize, y_rows: bool) -> Found<U> {
        let (x, mut dy) = (noise(rows * width, 1), noise(rows * width, 2));
        let x: Vec<f32> = x.iter().map(|x| 4.0 * x).collect();
        let mut steps = vec![U::default(); U::width(rows) * width];
        U::pack_steps(&x, width, width, &mut steps, width);
        let (mut sums, mut scratch) = (vec![0.5; width], vec![0.0; Activation::scratch_of_backward::<U>(rows, width)]);
        let units = View::<U>::units(rows, width);
        let (y, (dx, rows)) = Scattered::collect(units, |y| {
            Scattered::collect(units, |dx| {
                let (y_columns, dx_columns) = (Columns::new(y, rows), Columns::new(dx, rows));
                let strip = Strip {
                    first_row: 0,
                    first: 0,
                    width,
                    x: &steps,
                    next: &[],
                    dy: &mut dy,
                    y_columns: Some(&y_columns),
                    dx_columns: Some(&dx_columns),
                    y_rows,
                    sums: Some(&mut sums),
                };
                // SAFETY: all rows come at once.
                let [_, found] = unsafe { Activation::Gelu.backward(strip, &mut scratch) };
                found[..rows * U::width(width)].to_vec()
            })
        });
        Found { y, dx, rows, sums }
    }

    #[test]
    fn one_pass_makes_what_single_operations_make() {
        fn check<U: Unit + PartialEq + std::fmt::Debug>() {
            // A pair without a second row, panels that are not full, columns that end within a pair.
            for (rows, width) in [(1, 1), (6, 64), (7, 130), (12, 33), (5, 512)] {
                assert_eq!(backward::<U>(rows, width, false), backward(rows, width, true), "{rows} rows of {width}");
                let x: Vec<f32> = noise(rows * width, 3).iter().map(|x| 4.0 * x).collect();
                let mut scratch = vec![0.0; Activation::Gelu.scratch_of_forward::<U>(rows, width)];
                let mut strip = x.clone();
                let here = Activation::Gelu.forward::<U>(None, &mut strip, width, &mut scratch).to_vec();
                let (mut y, mut units) = (x.clone(), vec![0.0; U::scratch(rows, width)]);
                gelu::in_place(&mut y);
                assert_eq!(here, U::of_rows(&y, width, width, &mut units).0);
                let mut strip = vec![0.0; x.len()];
                assert_eq!(here, Activation::Gelu.forward::<U>(Some(&x), &mut strip, width, &mut scratch));
            }
        }
        check::<f32>();
        check::<Pair>();
    }
}
