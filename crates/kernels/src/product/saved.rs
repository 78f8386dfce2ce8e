//! What a forward pass keeps for its backward pass.

use super::Unit;
use super::unit::row_written;
use crate::fresh::{self, Unwritten, cast, cast_vec};
use crate::shape::rows_of;

/// Rows in the units of a precision: what a forward pass keeps for its backward pass. In bf16 they are rounded and take half the memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved(Vec<u32>);

impl Saved {
    /// Of units that were written.
    pub(crate) fn from_units<U: Unit>(units: Vec<U>) -> Self {
        Self(cast_vec(units))
    }

    /// Whether nothing was kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Of dense rows of `width` numbers.
    ///
    /// # Panics
    /// If the width is 0 or the last row is not whole.
    #[must_use]
    pub fn of<U: Unit>(x: &[f32], width: usize) -> Self {
        let (rows, units) = (rows_of("x", x, width), U::width(width));
        let row = |row: usize| &x[row * width..(row + 1) * width];
        Self::from_units::<U>(fresh::whole(rows * units, |out| {
            out.rows_written(units, |n, out| row_written(row(n), out))
        }))
    }

    /// The numbers again, rows of `width`.
    ///
    /// # Panics
    /// If the width is 0 or the last row is not whole.
    #[must_use]
    pub fn numbers<U: Unit>(&self, width: usize) -> Vec<f32> {
        U::numbers(self.units(), width, &mut Vec::new()).to_vec()
    }

    /// The units, in the precision that they were written in.
    #[must_use]
    pub fn units<U: Unit>(&self) -> &[U] {
        cast(&self.0)
    }
}
