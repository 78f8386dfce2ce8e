//! Stage 2 of a model that forms units.

use super::{MATRICES, Memory, Step, floats, group, linear, size};
use crate::backbone::mxdna::{Grid, MxdnaConfig, groups};

/// A step of a [`LanguageModel`](crate::model::LanguageModel) that forms units, and the optimiser. How many units there will be is guessed
/// from the sizes of the experts.
#[must_use]
pub fn mxdna_step(config: &MxdnaConfig, ids: usize, masked: f64, step: &Step) -> Memory {
    let (d, inner, heads) = (size(config.d_model), size(config.d_ff), size(config.heads));
    let (base_layers, unit_layers) = (size(config.base_layers), size(config.unit_layers));
    let sizes: Vec<u64> = config.units.sizes.iter().map(|&bases| size(bases)).collect();
    let layer = 4 * d * d + 3 * d * inner + 4 * d;
    let groups_of = |bases: u64| size(groups(config.d_model, bases as usize)).max(1);
    let expert = |&bases: &u64| 3 * d * d + d * (d / groups_of(bases)) * bases + 2 * d;
    let tokenizer =
        4 * d + size(sizes.len()) * d + sizes.iter().map(expert).sum::<u64>() + 3 * d * d + 2 * 3 * (3 * d + 1);
    let letters = size(ids);
    let head = layer + linear(d, d) + 4 * d + linear(d, letters);
    let numbers = letters * d + (base_layers + unit_layers) * layer + tokenizer + 2 * d + head;

    let rows = size(step.batch).saturating_mul(size(step.length).saturating_add(2));
    let mean = sizes.iter().sum::<u64>() as f64 / sizes.len().max(1) as f64;
    let units = match config.units.grid {
        Grid::Compact => (rows as f64 / (SHORTER * mean).max(1.0)).ceil() as u64,
        Grid::Sparse => rows,
    };
    let asked = (rows as f64 * masked).ceil() as u64;
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
    // Back to bases: queries beside empty keys and values, then the head.
    let back = asked.saturating_add(units).saturating_mul(6 * d + step.units(4 * d));
    let back = back.saturating_add(asked.saturating_mul(8 * d + pre));
    let mut memory = Memory::of_module(numbers, numbers, step.threads);
    // Weights that read the same rows, joined.
    let joined = (base_layers + unit_layers + 1) * (3 * d * d + 2 * d * inner) + sizes.iter().map(expert).sum::<u64>();
    let kept = rows.saturating_mul(per_base).saturating_add(units.saturating_mul(per_unit)).saturating_add(back);
    memory.kept = floats(kept.saturating_add(joined));
    // Gradients of rows, the group of a feed-forward part, and weights in other orders.
    let grouped = group(rows) * (d + step.units(3 * inner));
    memory.work = floats(rows.saturating_mul(3 * d).saturating_add(grouped).saturating_add(MATRICES * 2 * d * inner));
    memory.data = floats(rows.saturating_mul(d + 4));
    // Most weights are those of units, which keep little: no place is left for their gradients.
    memory.gradients = floats(numbers);
    memory
}

/// Bases of a unit as a share of the mean size of the experts. Trained models cut longer ones, and take less.
const SHORTER: f64 = 0.6;
