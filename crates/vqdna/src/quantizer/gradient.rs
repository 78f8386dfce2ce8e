//! How gradients pass the choice of a code, which has none of its own.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::ops;

/// The rule for the backward pass; the forward value is the quantized vector with either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GradientRule {
    /// The gradient is handed on unchanged (van den Oord et al. 2017).
    #[default]
    StraightThrough,
    /// The gradient turns and scales as the vector did (Fifty et al. 2024).
    Rotation,
}

impl GradientRule {
    /// A tensor with the values of `quantized` and a gradient to `z` by this rule, 0 at padding.
    ///
    /// # Shapes
    /// - `z`, `quantized`, output: `[batch, bases, d_code]`
    /// - `mask`: `[batch, bases]`, 1 for a real base
    pub fn apply(self, z: Tensor<3>, quantized: Tensor<3>, mask: &Tensor<2>) -> Tensor<3> {
        match self {
            Self::StraightThrough => ops::straight_through(z, quantized, mask.clone()),
            Self::Rotation => rotate(z, quantized) * mask.clone().unsqueeze_dim(2),
        }
    }
}

/// Below this norm, and this close to opposite directions, a rotation is not defined: straight through instead.
const DEGENERATE: f64 = 1e-6;

/// `λ R z` with `R = I − 2 w wᵀ + 2 q̂ ẑᵀ`, `w = unit(ẑ + q̂)`, `λ = ‖q‖ / ‖z‖`, all but the last `z` held constant.
fn rotate(z: Tensor<3>, quantized: Tensor<3>) -> Tensor<3> {
    let constant = z.clone().detach();
    let norm = |x: Tensor<3>| x.square().sum_dim(2).sqrt();
    let dot = |a: &Tensor<3>, b: &Tensor<3>| (a.clone() * b.clone()).sum_dim(2);
    let (z_norm, q_norm) = (norm(constant.clone()), norm(quantized.clone()));
    let z_unit = constant.clone() / z_norm.clone().clamp_min(DEGENERATE);
    let q_unit = quantized.clone() / q_norm.clone().clamp_min(DEGENERATE);
    let between = z_unit.clone() + q_unit.clone();
    let w = between.clone() / norm(between).clamp_min(DEGENERATE);
    let turned =
        z.clone() - (w.clone() * dot(&w, &z)).mul_scalar(2.0) + (q_unit.clone() * dot(&z_unit, &z)).mul_scalar(2.0);
    let turned = turned * (q_norm.clone() / z_norm.clone().clamp_min(DEGENERATE));
    // Rounding of the rotation must not move the decoder's input: the value is exactly the quantized vector.
    let turned = turned.clone() + (quantized.clone() - turned.detach());

    let defined = z_norm.greater_elem(DEGENERATE).float()
        * q_norm.greater_elem(DEGENERATE).float()
        * dot(&z_unit, &q_unit).greater_elem(DEGENERATE - 1.0).float();
    let straight = z.clone() + (quantized - z.detach());
    turned * defined.clone() + straight * defined.neg().add_scalar(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::to_array;

    fn vector(values: &[f32], device: &Device) -> Tensor<3> {
        Tensor::from_data(TensorData::new(values.to_vec(), [1, 1, values.len()]), device)
    }

    fn run(rule: GradientRule, z: &[f32], q: &[f32], g: &[f32]) -> (Vec<f32>, Vec<f32>) {
        let device = Device::flex().autodiff();
        let z = vector(z, &device).require_grad();
        let mask = Tensor::ones([1, 1], &device);
        let output = rule.apply(z.clone(), vector(q, &device), &mask);
        let gradients = (output.clone() * vector(g, &device)).sum().backward();
        (to_array(output).values, to_array(z.grad(&gradients).expect("tracked")).values)
    }

    #[track_caller]
    fn assert_near(got: &[f32], want: &[f32]) {
        assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-5), "{got:?}, not {want:?}");
    }

    /// T5 of `docs/vectors.md`.
    #[test]
    fn rotation_turns_the_gradient() {
        let rule = GradientRule::Rotation;
        let (output, gradient) = run(rule, &[1., 0.], &[0., 2.], &[1., 0.]);
        assert_near(&output, &[0., 2.]);
        assert_near(&gradient, &[0., -2.]);
        let (output, gradient) = run(rule, &[3., 4.], &[0., 1.], &[1., 2.]);
        assert_near(&output, &[0., 1.]);
        assert_near(&gradient, &[0.4, 0.2]);
        let (_, parallel) = run(rule, &[3., 4.], &[6., 8.], &[1., 2.]);
        assert_near(&parallel, &[2., 4.]);
    }

    #[test]
    fn straight_through_where_a_rotation_is_not_defined() {
        for (z, q) in [([0., 0.], [1., 0.]), ([1., 0.], [0., 0.]), ([1., 0.], [-2., 0.])] {
            let (output, gradient) = run(GradientRule::Rotation, &z, &q, &[1., 2.]);
            assert_near(&output, &q);
            assert_near(&gradient, &[1., 2.]);
        }
    }

    #[test]
    fn straight_through_hands_the_gradient_on() {
        let (output, gradient) = run(GradientRule::StraightThrough, &[3., 4.], &[0., 1.], &[1., 2.]);
        assert_near(&output, &[0., 1.]);
        assert_near(&gradient, &[1., 2.]);
    }
}
