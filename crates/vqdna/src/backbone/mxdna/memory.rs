//! The memory of a training step through an encoder that forms units.

use super::{Grid, MxdnaConfig, groups};
use crate::backbone::StepMemory;
use crate::memory::{MATRICES, Step, group, size};

/// Bases of a unit as a share of the mean size of the experts. Trained models form longer ones, and take less.
const SHORTER: f64 = 0.6;

impl MxdnaConfig {
    /// See [`BackboneConfig::step_memory`](crate::backbone::BackboneConfig::step_memory). How many units there will be is guessed from the
    /// sizes of the experts.
    pub(in crate::backbone) fn step_memory(&self, step: &Step, chosen: Option<f64>) -> StepMemory {
        let (d, inner, heads) = (size(self.d_model), size(self.d_ff), size(self.heads));
        let (base_layers, unit_layers) = (size(self.base_layers), size(self.unit_layers));
        let sizes: Vec<u64> = self.units.sizes.iter().map(|&bases| size(bases)).collect();
        let groups_of = |bases: u64| size(groups(self.d_model, bases as usize)).max(1);
        let expert = |&bases: &u64| 3 * d * d + d * (d / groups_of(bases)) * bases + 2 * d;
        let rows = size(step.batch).saturating_mul(size(step.length).saturating_add(2));
        let mean = sizes.iter().sum::<u64>() as f64 / sizes.len().max(1) as f64;
        let units = match self.units.grid {
            Grid::Compact => (rows as f64 / (SHORTER * mean).max(1.0)).ceil() as u64,
            Grid::Sparse => rows,
        };
        let chosen = chosen.map(|share| (rows as f64 * share).ceil() as u64);
        let pre = if step.recompute { 0 } else { step.units(2 * inner) };
        // Queries, keys and values, what was attended to, and a number a head; then both sides of the gate.
        let attention = if step.recompute { 0 } else { step.units(4 * d) + heads };
        let per_base_layer = 2 * d + attention + pre;
        // Norm, jitter, what is scored; of an expert values and gates.
        let per_base = base_layers * per_base_layer + 4 * d + step.units(2 * d);
        // The norm, its output, queries, keys and values as rows and as kept, what was attended to twice, and the sum.
        let per_unit_layer = 5 * d + step.units(4 * d) + heads + pre;
        // An expert after its convolution and at its end, that times a probability, and the assembly.
        let per_unit = 3 * d + 9 * d + unit_layers * per_unit_layer + 2 * d;
        // Back to bases: queries beside empty keys and values.
        let back = chosen.map_or(0, |chosen| {
            let attended = chosen.saturating_add(units).saturating_mul(6 * d + step.units(4 * d));
            attended.saturating_add(chosen.saturating_mul(4 * d + pre))
        });
        // Weights that read the same rows, joined.
        let joined =
            (base_layers + unit_layers + 1) * (3 * d * d + 2 * d * inner) + sizes.iter().map(expert).sum::<u64>();
        let kept = rows.saturating_mul(per_base).saturating_add(units.saturating_mul(per_unit)).saturating_add(back);
        // Gradients of rows, the group of a feed-forward part, and weights in other orders.
        let grouped = group(rows) * (d + step.units(3 * inner));
        StepMemory {
            kept: kept.saturating_add(joined),
            chosen: chosen.unwrap_or(0),
            work: rows.saturating_mul(3 * d).saturating_add(grouped).saturating_add(MATRICES * 2 * d * inner),
            data: rows.saturating_mul(d + 1),
            // Most weights are those of units, which keep little.
            keeps_little: true,
        }
    }
}
