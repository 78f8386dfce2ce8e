//! The memory of a training step through a stack of layers.

use super::TransformerConfig;
use crate::backbone::StepMemory;
use crate::memory::{MATRICES, Step, group, size};
use crate::ops::Positions;

/// Sequences beyond this have gradients of queries in parts, as many at a time as `ATTENTION_PARTS` times the threads
/// (`kernels::attention`).
const ATTENTION_KEYS: u64 = 512;
const ATTENTION_PARTS: u64 = 4;

impl TransformerConfig {
    /// See [`BackboneConfig::step_memory`](crate::backbone::BackboneConfig::step_memory); positions are pools of those of `step`.
    pub(in crate::backbone) fn step_memory(&self, step: &Step, chosen: Option<f64>) -> StepMemory {
        let step = &Step { length: step.length.div_ceil(self.pool.max(1)), ..*step };
        let (rows, here) = (step.rows(), group(step.rows()));
        let chosen = chosen.map(|share| (rows as f64 * share).ceil() as u64);
        let (d, inner, heads, layers) = (size(self.d_model), size(self.d_ff), size(self.heads), size(self.layers));
        // Queries, keys and values, what was attended to, and a number a head; then the input of GELU.
        let (attention, mlp) = (step.units(4 * d) + heads, step.units(inner));
        let per_layer = match (self.checkpoint, step.recompute) {
            (true, _) => d,
            (false, true) => 2 * d,
            (false, false) => 2 * d + attention + mlp,
        };
        let apart = !self.checkpoint && !self.causal && matches!(self.positions, Positions::Rotary { .. });
        let (per_row, per_chosen) = match chosen.filter(|_| apart) {
            // Of the last layer the norm and attention of all rows; of the chosen ones the rest, and the last norm.
            Some(_) => (
                layers.saturating_sub(1) * per_layer + 2 * d + attention,
                2 * d + if step.recompute { d } else { d + mlp } + 2 * d,
            ),
            // The last norm keeps its input.
            None => (layers * per_layer + 2 * d, 0),
        };
        let backward = match (self.checkpoint, step.recompute) {
            // Gradients of a layer's output and input; of what was attended to. That of queries, keys and values takes the place of
            // the inner layer that was kept.
            (false, false) => 3 * d,
            // Queries, keys, values and what was attended to, found again, and the gradients of both.
            (false, true) => 4 * d + attention,
            // One layer as a graph of its own, and the gradient of its output as a product.
            (true, recompute) => 3 * d + if recompute { 4 * d + attention } else { d + attention + mlp },
        };
        let long = if size(step.length) > ATTENTION_KEYS { ATTENTION_PARTS * size(step.threads) } else { 0 };
        let attended = size(step.length).saturating_mul(d / heads.max(1)).saturating_mul(1 + long);
        let work =
            rows.saturating_mul(backward).saturating_add(here * (d + 2 * step.units(inner))).saturating_add(attended);
        let chosen = chosen.unwrap_or(0);
        StepMemory {
            kept: rows.saturating_mul(per_row).saturating_add(chosen.saturating_mul(per_chosen)),
            chosen,
            work: work.saturating_add(MATRICES * d * inner),
            data: 0,
            keeps_little: false,
        }
    }
}
