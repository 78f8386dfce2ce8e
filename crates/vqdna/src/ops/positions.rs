//! How attention knows where a position stands. The numbers behind it are those of the kernels, on every device.

use serde::{Deserialize, Serialize};

/// The way in which positions enter attention.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Positions {
    /// Queries and keys are rotated by their position (Su et al. 2021): channels *i* and *i* + `d_head`/2 of a head form a
    /// pair that turns by `position · theta^(−2i/d_head)` radians, so that a score depends on the distance alone.
    Rotary {
        /// Base of the wavelengths.
        #[serde(default = "default_theta")]
        theta: f64,
    },
    /// A score falls by `slope · |i − j|`, with one slope a head (Press et al. 2022), on both sides alike, as in DNABERT-2.
    Alibi,
}

fn default_theta() -> f64 {
    10_000.0
}

impl Default for Positions {
    /// Rotary, with the wavelengths of its paper.
    fn default() -> Self {
        Self::Rotary { theta: default_theta() }
    }
}
