//! Features brought to mean 0 and deviation 1, and what was learned of them brought back.

use burn::prelude::*;

use crate::layers::Linear;
use crate::run::labelled::Features;
use crate::weights::replace;

/// What brings features to mean 0 and deviation 1.
pub(in crate::run) struct Scaling {
    means: Vec<f32>,
    deviations: Vec<f32>,
}

impl Scaling {
    pub(in crate::run) fn of(features: &Features) -> Self {
        let rows = (features.values.len() / features.width).max(1) as f64;
        let column = |c: usize| features.values.iter().skip(c).step_by(features.width).map(|&v| f64::from(v));
        let means: Vec<f64> = (0..features.width).map(|c| column(c).sum::<f64>() / rows).collect();
        let deviation = |c: usize| (column(c).map(|v| (v - means[c]).powi(2)).sum::<f64>() / rows).sqrt();
        let deviations =
            (0..features.width).map(|c| Some(deviation(c)).filter(|&d| d > 0.0).unwrap_or(1.0) as f32).collect();
        Self { means: means.into_iter().map(|mean| mean as f32).collect(), deviations }
    }

    pub(in crate::run) fn apply(&self, features: &mut Features) {
        for row in features.values.chunks_mut(features.width) {
            for ((value, mean), deviation) in row.iter_mut().zip(&self.means).zip(&self.deviations) {
                *value = (*value - mean) / deviation;
            }
        }
    }

    /// The layer that does for features what `layer` does for scaled ones.
    pub(super) fn fold(&self, layer: Linear, device: &Device) -> Linear {
        let row = |values: &[f32]| Tensor::<1>::from_data(TensorData::new(values.to_vec(), [values.len()]), device);
        let (means, deviations) = (row(&self.means), row(&self.deviations));
        let weight = layer.weight.val() / deviations.unsqueeze();
        let shift = (weight.clone() * means.unsqueeze()).sum_dim(1).squeeze_dim::<1>(1);
        let bias = layer.bias.val() - shift;
        Linear { weight: replace(layer.weight, |_| weight), bias: replace(layer.bias, |_| bias) }
    }
}
