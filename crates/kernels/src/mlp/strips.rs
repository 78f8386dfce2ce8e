//! Matrices of the wide layer whose rows come tile by tile.

use crate::product::{Saved, Unit, View, pack_rows, panel_width};
use crate::rows::Shared;
use std::ops::Range;

/// Room for the input of the activation, `rows` rows of `d_inner`, which the forward pass [keeps](Kept) for the backward pass.
pub(crate) fn kept<U: Unit>(rows: usize, d_inner: usize) -> Saved {
    Saved::of_units(d_inner * U::width(rows))
}

/// The input of the activation as it is kept: strip after strip, of each all rows as steps (see [`Unit::pack_steps`]). In `f32` a product
/// writes there what the activation reads, in both passes.
pub(crate) struct Kept<'a, U> {
    units: Shared<'a, U>,
    rows: usize,
}

impl<'a, U: Unit> Kept<'a, U> {
    /// To be written, by [`kept`] as large as `rows` need.
    pub(crate) fn new(units: &'a mut [U], rows: usize) -> Self {
        Self { units: Shared::new(units), rows }
    }

    /// Rows of the strip that begins at column `first`, from a row that begins a unit.
    ///
    /// # Safety
    /// Parts that live at the same time must not overlap.
    #[allow(clippy::mut_from_ref, reason = "what this type is for")]
    pub(super) unsafe fn part(&self, first_row: usize, rows: usize, first: usize, width: usize) -> &mut [U] {
        let at = place::<U>(self.rows, first_row, rows, first, width);
        // SAFETY: as the caller promises, since rows and strips do not overlap.
        unsafe { self.units.part(at.start, at.len()) }
    }
}

/// Where rows of a strip lie among all rows of the input of the activation.
pub(super) fn place<U: Unit>(all: usize, first_row: usize, rows: usize, first: usize, width: usize) -> Range<usize> {
    debug_assert!(first_row.is_multiple_of(U::DEPTH), "a unit begins");
    let start = first * U::width(all) + first_row / U::DEPTH * width;
    start..start + U::width(rows) * width
}

/// Panels of a matrix whose rows come tile by tile.
pub(super) struct Columns<'a> {
    panels: Shared<'a, f32>,
    rows: usize,
}

impl<'a> Columns<'a> {
    pub(super) fn new(panels: &'a mut [f32], rows: usize) -> Self {
        Self { panels: Shared::new(panels), rows }
    }

    /// Rows of the panel that begins at a column, from a row that begins a unit: steps of as many units as a panel has columns.
    ///
    /// # Safety
    /// Parts that live at the same time must not overlap.
    #[allow(clippy::mut_from_ref, reason = "what this type is for")]
    pub(super) unsafe fn part<U: Unit>(&self, first_row: usize, rows: usize, column: usize) -> &mut [U] {
        let panel = panel_width();
        let start = (column / panel * U::width(self.rows) + first_row / U::DEPTH) * panel;
        // SAFETY: as the caller promises, since steps and panels do not overlap.
        U::from_floats_mut(unsafe { self.panels.part(start, U::width(rows) * panel) })
    }

    /// Rows of `width` numbers, from a row that begins a unit and a column that begins a panel.
    ///
    /// # Safety
    /// As for [`Columns::part`].
    pub(super) unsafe fn write<U: Unit>(&self, x: &[f32], first_row: usize, first: usize, width: usize) {
        let (panel, rows) = (panel_width(), x.len() / width);
        for column in (0..width).step_by(panel) {
            // SAFETY: as the caller promises.
            let out = unsafe { self.part::<U>(first_row, rows, first + column) };
            pack_rows(x, width, rows, column, panel.min(width - column), U::width(rows), out);
        }
    }
}

/// Columns that were wanted, as panels.
pub(super) fn packed<U: Unit>(floats: &mut [f32], rows: usize, width: usize) -> Option<View<'_, U>> {
    (!floats.is_empty()).then(|| View::of(U::from_floats_mut(floats), rows, width))
}
