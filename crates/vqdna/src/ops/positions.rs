//! How attention knows where a position stands.

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

/// Slopes of ALiBi, one a head: 2^(−8(h+1)/n) for n heads if n is a power of two, else those of the power of two below,
/// followed by every other slope of the power of two above (Press et al. 2022, and DNABERT-2).
#[must_use]
pub fn alibi_slopes(heads: usize) -> Vec<f32> {
    let geometric = |n: usize| (1..=n).map(move |h| (-8.0 * h as f64 / n as f64).exp2() as f32);
    if heads == 0 {
        return Vec::new();
    }
    let below = 1 << heads.ilog2();
    geometric(below).chain(geometric(2 * below).step_by(2)).take(heads).collect()
}

/// Cosines and sines of the angles of [`Positions::Rotary`], each `[bases, d_head / 2]` in row-major order.
///
/// Angles are computed in f64: in f32 they lose three digits at position 1000, where they reach 1000 radians.
#[must_use]
pub fn rotary_table(bases: usize, d_head: usize, theta: f64) -> (Vec<f32>, Vec<f32>) {
    let half = d_head / 2;
    let turns: Vec<f64> = (0..half).map(|i| theta.powf(-(i as f64) / half as f64)).collect();
    let angles = (0..bases).flat_map(|position| turns.iter().map(move |turn| position as f64 * turn));
    angles.map(|angle| (angle.cos() as f32, angle.sin() as f32)).unzip()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B4 of `docs/vectors.md`.
    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(alibi_slopes(1), [0.003_906_25]);
        assert_eq!(alibi_slopes(2), [0.0625, 0.003_906_25]);
        assert_eq!(alibi_slopes(6), [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125]);
        let of_twelve: Vec<f32> = (1..=8)
            .map(|h| (-f64::from(h)).exp2() as f32)
            .chain([0.5, 1.5, 2.5, 3.5].map(|e: f32| (-e).exp2()))
            .collect();
        assert_eq!(alibi_slopes(12), of_twelve);
    }

    #[test]
    fn the_first_pair_turns_by_one_radian_a_position() {
        let (cos, sin) = rotary_table(3, 4, 100.0);
        let close = |got: &[f32], want: [f64; 6]| got.iter().zip(want).all(|(&g, w)| (f64::from(g) - w).abs() < 1e-7);
        assert!(close(&cos, [0.0, 0.0, 1.0, 0.1, 2.0, 0.2].map(f64::cos)), "{cos:?}");
        assert!(close(&sin, [0.0, 0.0, 1.0, 0.1, 2.0, 0.2].map(f64::sin)), "{sin:?}");
    }
}
