//! Matrices of the wide layer whose rows come tile by tile.

use crate::fresh::{Part, Scattered};
use crate::product::{Saved, Unit, panel_width, panel_written};
use crate::shape::count;
use std::ops::Range;

/// `work` on `rows` rows, and the input of the activation, `[rows, d_inner]`, which the forward pass [keeps](Kept) for the backward pass,
/// or nothing.
pub(crate) fn keeping<U: Unit, R>(
    keep: bool,
    rows: usize,
    d_inner: usize,
    work: impl FnOnce(Option<&Kept<U>>) -> R,
) -> (R, Saved) {
    if !keep {
        return (work(None), Saved::default());
    }
    let (units, result) =
        Scattered::collect(count("kept", &[d_inner, U::width(rows)]), |units| work(Some(&Kept { units, rows })));
    (result, Saved::from_units(units))
}

/// The input of the activation as it is kept: strip after strip, of each all rows as steps (see [`Unit::put_steps`]). In `f32` a product
/// writes there what the activation reads, in both passes.
pub(crate) struct Kept<'a, U> {
    units: &'a Scattered<'a, U>,
    rows: usize,
}

impl<U: Unit> Kept<'_, U> {
    /// Rows of the strip that begins at column `first`.
    ///
    /// # Panics
    /// If the rows share a unit with others, or there are fewer.
    ///
    /// # Safety
    /// A strip begins at the same column and is as wide for all rows, strips have no column in common, and no row of one is in two parts.
    pub(super) unsafe fn part(&self, first_row: usize, rows: usize, first: usize, width: usize) -> Part<'_, U> {
        let at = place::<U>(self.rows, first_row, rows, first, width);
        // SAFETY: neither strips nor rows of one overlap, as the caller promises, and no unit holds rows of two parts.
        unsafe { self.units.part(at.start, at.len()) }
    }
}

/// Where rows of a strip lie among `all` rows of the input of the activation.
///
/// # Panics
/// If the rows share a unit with others, or there are fewer.
pub(super) fn place<U: Unit>(all: usize, first_row: usize, rows: usize, first: usize, width: usize) -> Range<usize> {
    whole_units::<U>(all, first_row, rows);
    let start = first * U::width(all) + first_row / U::DEPTH * width;
    start..start + U::width(rows) * width
}

/// Panics if some of all rows share a unit with others: two tasks would then write it. The last rows may fill half of one.
fn whole_units<U: Unit>(all: usize, first_row: usize, rows: usize) {
    let fits = all.checked_sub(first_row).is_some_and(|left| {
        first_row.is_multiple_of(U::DEPTH) && (rows == left || rows < left && rows.is_multiple_of(U::DEPTH))
    });
    assert!(fits, "rows {first_row} to {first_row} + {rows} of {all} share a unit of {} with others", U::DEPTH);
}

/// Panels of a matrix whose rows come tile by tile.
pub(super) struct Columns<'a, U> {
    panels: &'a Scattered<'a, U>,
    rows: usize,
}

impl<'a, U: Unit> Columns<'a, U> {
    /// To be written, as large as [`View::units`](crate::product::View::units) says for so many rows.
    pub(super) fn new(panels: &'a Scattered<'a, U>, rows: usize) -> Self {
        Self { panels, rows }
    }

    /// Rows of the panel that begins at a column: steps of as many units as a panel has columns.
    ///
    /// # Panics
    /// If the rows share a unit with others, or there are fewer, or no panel begins there.
    ///
    /// # Safety
    /// No row of a panel may be in two parts.
    pub(super) unsafe fn part(&self, first_row: usize, rows: usize, column: usize) -> Part<'a, U> {
        let panel = panel_width();
        whole_units::<U>(self.rows, first_row, rows);
        assert!(column.is_multiple_of(panel), "column {column} begins no panel");
        let start = (column / panel * U::width(self.rows) + first_row / U::DEPTH) * panel;
        // SAFETY: panels do not overlap, nor do rows, as the caller promises; and no unit holds rows of two parts.
        unsafe { self.panels.part(start, U::width(rows) * panel) }
    }

    /// Rows of `width` numbers, from a column that begins a panel.
    ///
    /// # Panics
    /// As [`Columns::part`].
    ///
    /// # Safety
    /// No row of a panel may be written twice.
    pub(super) unsafe fn write(&self, x: &[f32], first_row: usize, first: usize, width: usize) {
        let (panel, rows) = (panel_width(), x.len() / width);
        for column in (0..width).step_by(panel) {
            // SAFETY: as the caller promises.
            let part = unsafe { self.part(first_row, rows, first + column) };
            part.write(|out| panel_written(x, width, rows, column, panel.min(width - column), out));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::product::Pair;
    use std::panic::catch_unwind;

    #[test]
    fn rows_that_share_a_unit_with_others_are_refused() {
        assert_eq!(place::<Pair>(7, 4, 2, 3, 10), 32..42);
        assert_eq!(place::<Pair>(7, 4, 3, 0, 10), 20..40, "the last rows");
        assert_eq!(place::<f32>(7, 3, 1, 0, 10), 30..40);
        for (first, rows) in [(3, 2), (2, 3), (4, 4), (8, 0), (usize::MAX, 2)] {
            let said = catch_unwind(|| place::<Pair>(7, first, rows, 0, 10)).expect_err("shared");
            assert!(said.downcast_ref::<String>().is_some_and(|said| said.contains("share a unit of 2 with others")));
        }
    }
}
