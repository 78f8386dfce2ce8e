//! Sequence-level classification or regression: hidden states pooled over the real positions, a linear layer and GELU unless left out, then
//! one linear layer to the outputs, which are logits of classes or predicted numbers.

use burn::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::layers::Linear;
use crate::seed::{Stream, stream};

/// How the hidden states of a sequence are pooled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The mean of its hidden states.
    #[default]
    Mean,
    /// Its first hidden state, as BERT has it.
    First,
    /// The largest value of each channel.
    Max,
}

/// What stands between pooled hidden states and the outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// A linear layer and GELU.
    #[default]
    Mlp,
    /// Nothing: logistic or linear regression.
    Linear,
}

/// The network of a head.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceHeadConfig {
    /// What stands before the outputs.
    pub kind: HeadKind,
    /// How hidden states are pooled.
    pub pooling: Pooling,
    /// Channels between the two linear layers; absent: as many as a hidden state has.
    pub d_hidden: Option<usize>,
    /// Share of those channels that [`SequenceHead::dropout_mask`] drops.
    pub dropout: f64,
}

/// An invalid setting of a head; each message names the field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SequenceHeadConfigError {
    /// A size of zero, or one that no computer could hold.
    #[error("`head.d_hidden` must be 1 to {MOST_CHANNELS}, not {0}")]
    Hidden(usize),
    /// No share that leaves something.
    #[error("`head.dropout` must be 0 or more and below 1, not {0}")]
    Dropout(f64),
}

/// Channels beyond which a config is refused (sanity limit).
const MOST_CHANNELS: usize = 65_536;

impl SequenceHeadConfig {
    /// Finds what makes no head before a device opens.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn check(&self) -> Result<(), SequenceHeadConfigError> {
        if let Some(d_hidden) = self.d_hidden.filter(|d_hidden| !(1..=MOST_CHANNELS).contains(d_hidden)) {
            return Err(SequenceHeadConfigError::Hidden(d_hidden));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(SequenceHeadConfigError::Dropout(self.dropout));
        }
        Ok(())
    }
}

/// Pooling, then one linear layer, or two with GELU between them.
#[derive(Module, Debug)]
pub struct SequenceHead {
    /// `d_model` to `d_hidden`, before GELU; none of a linear head.
    pub dense: Option<Linear>,
    /// `d_hidden`, or `d_model` of a linear head, to the outputs.
    pub classifier: Linear,
    #[module(skip)]
    pooling: Pooling,
    dropout: f64,
}

impl SequenceHead {
    /// Fresh weights for hidden states `d_model` wide, a pure function of the seed.
    #[must_use]
    pub fn new(config: &SequenceHeadConfig, d_model: usize, outputs: usize, seed: u64, device: &Device) -> Self {
        let random = &mut stream(seed, "weights of the sequence head", &[]);
        let d_hidden = config.d_hidden.filter(|_| config.kind == HeadKind::Mlp).unwrap_or(d_model);
        Self {
            dense: (config.kind == HeadKind::Mlp).then(|| Linear::new(d_model, d_hidden, random, device)),
            classifier: Linear::new(d_hidden, outputs, random, device),
            pooling: config.pooling,
            dropout: config.dropout,
        }
    }

    /// The same head with another last layer.
    #[must_use]
    pub fn with_classifier(self, classifier: Linear) -> Self {
        Self { classifier, ..self }
    }

    /// Outputs of each sequence, without dropout.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, bases, d_model]`; what stands at padding is never seen, as long as it is finite
    /// - `real`: `[batch, bases]`, 1 for a real base, 0 for padding
    /// - output: `[batch, outputs]`
    pub fn forward(&self, hidden: Tensor<3>, real: Tensor<2>) -> Tensor<2> {
        self.outputs(self.pool(hidden, real), None)
    }

    /// The pooled hidden states of each sequence; 0 where nothing is real.
    ///
    /// # Shapes
    /// - `hidden`: `[batch, bases, d_model]`, finite; `real`: `[batch, bases]`, 1 or 0
    /// - output: `[batch, d_model]`
    pub fn pool(&self, hidden: Tensor<3>, real: Tensor<2>) -> Tensor<2> {
        pool(self.pooling, hidden, real)
    }

    /// Outputs of pooled sequences.
    ///
    /// # Shapes
    /// - `pooled`: `[batch, d_model]`
    /// - `kept`: `[batch, d_hidden]`, factors of the channels before the last layer; none for no dropout
    /// - output: `[batch, outputs]`
    pub fn outputs(&self, pooled: Tensor<2>, kept: Option<Tensor<2>>) -> Tensor<2> {
        let inner = pooled.unsqueeze_dim(0);
        let inner = match &self.dense {
            Some(dense) => dense.forward_gelu(inner),
            None => inner,
        };
        let inner = match kept {
            Some(kept) => inner * kept.unsqueeze_dim(0),
            None => inner,
        };
        self.classifier.forward(inner).squeeze_dim(0)
    }

    /// What [`SequenceHead::outputs`] takes to drop channels: 0 for the share that [`SequenceHeadConfig::dropout`] says, else what
    /// keeps the mean.
    ///
    /// # Shapes
    /// - output: `[batch, d_hidden]`
    pub fn dropout_mask(&self, batch: usize, random: &mut Stream) -> Tensor<2> {
        let [_, d_hidden] = self.classifier.weight.dims();
        let kept = (1.0 / (1.0 - self.dropout)) as f32;
        let factors: Vec<f32> =
            (0..batch * d_hidden).map(|_| if random.random_bool(self.dropout) { 0.0 } else { kept }).collect();
        Tensor::from_data(TensorData::new(factors, [batch, d_hidden]), &self.classifier.weight.device())
    }
}

/// The pooled hidden states of each sequence; 0 where nothing is real.
///
/// # Shapes
/// - `hidden`: `[batch, bases, d_model]`, finite; `real`: `[batch, bases]`, 1 or 0
/// - output: `[batch, d_model]`
pub fn pool(pooling: Pooling, hidden: Tensor<3>, real: Tensor<2>) -> Tensor<2> {
    match pooling {
        Pooling::Mean => {
            let count = real.clone().sum_dim(1).clamp_min(1.0);
            weighted_sum(hidden, real / count)
        }
        Pooling::First => {
            let is_first = real.clone().cumsum(1).equal_elem(1.0).float();
            weighted_sum(hidden, real * is_first)
        }
        Pooling::Max => {
            let [_, _, d_model] = hidden.dims();
            let padding = real.clone().equal_elem(0.0).unsqueeze_dim::<3>(2).expand(hidden.dims());
            let largest = hidden.mask_fill(padding, f32::MIN).max_dim(1).squeeze_dim::<2>(1);
            let is_empty = real.max_dim(1).equal_elem(0.0).expand([largest.dims()[0], d_model]);
            largest.mask_fill(is_empty, 0.0)
        }
    }
}

/// Sum over the positions of each sequence.
///
/// # Shapes
/// - `hidden`: `[batch, bases, d]`; `weight`: `[batch, bases]`
/// - output: `[batch, d]`
fn weighted_sum(hidden: Tensor<3>, weight: Tensor<2>) -> Tensor<2> {
    weight.unsqueeze_dim::<3>(1).matmul(hidden).squeeze_dim(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(config: &SequenceHeadConfig, device: &Device) -> SequenceHead {
        SequenceHead::new(config, 2, 3, 5, device)
    }

    fn pooled(pooling: Pooling, hidden: Tensor<3>, real: Tensor<2>) -> Vec<f32> {
        let config = SequenceHeadConfig { pooling, ..SequenceHeadConfig::default() };
        let pooled = head(&config, &real.device()).pool(hidden, real);
        pooled.into_data().try_into_vec_as::<f32>().expect("f32")
    }

    #[test]
    fn padding_is_never_counted() {
        let device = Device::flex();
        // Padding before, between, after, and everywhere.
        let hidden = Tensor::<3>::from_data(
            [
                [[9.0, 9.0], [1.0, -4.0], [3.0, -2.0]],
                [[-1.0, 2.0], [50.0, -50.0], [-3.0, 6.0]],
                [[7.0, 8.0], [9.0, 9.0], [9.0, 9.0]],
                [[9.0, 9.0], [-9.0, -9.0], [9.0, 9.0]],
            ],
            &device,
        );
        let real =
            Tensor::<2>::from_data([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]], &device);
        for (pooling, want) in [
            (Pooling::Mean, [2.0, -3.0, -2.0, 4.0, 7.0, 8.0, 0.0, 0.0]),
            (Pooling::First, [1.0, -4.0, -1.0, 2.0, 7.0, 8.0, 0.0, 0.0]),
            (Pooling::Max, [3.0, -2.0, -1.0, 6.0, 7.0, 8.0, 0.0, 0.0]),
        ] {
            assert_eq!(pooled(pooling, hidden.clone(), real.clone()), want, "{pooling:?}");
        }
    }

    /// Each position gets the share of the gradient that it had in what stands for the sequence.
    #[test]
    fn gradients_reach_real_positions_only() {
        let device = Device::flex().autodiff();
        let real = Tensor::<2>::from_data([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]], &device);
        for (pooling, want) in [
            (Pooling::Mean, [0.5, 0.5, 0.0, 0.0, 0.0, 0.0]),
            (Pooling::First, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]),
            (Pooling::Max, [0.0, 1.0, 0.0, 0.0, 0.0, 0.0]),
        ] {
            let hidden = Tensor::<3>::from_data([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]], &device).require_grad();
            let config = SequenceHeadConfig { pooling, ..SequenceHeadConfig::default() };
            let head = SequenceHead::new(&config, 1, 1, 0, &device);
            let graph = head.pool(hidden.clone(), real.clone()).sum().backward();
            let found = hidden.grad(&graph).expect("a gradient").into_data();
            assert_eq!(found.try_into_vec_as::<f32>().expect("f32"), want, "{pooling:?}");
        }
    }

    #[test]
    fn dropout_keeps_the_mean_and_comes_from_its_stream() {
        let device = Device::flex();
        let config = SequenceHeadConfig { d_hidden: Some(50), dropout: 0.2, ..SequenceHeadConfig::default() };
        let head = head(&config, &device);
        let mask = |place| {
            let mask = head.dropout_mask(200, &mut stream(1, "dropout for a test", &[place]));
            mask.into_data().try_into_vec_as::<f32>().expect("f32")
        };
        let drawn = mask(0);
        assert!(drawn.iter().all(|&factor| factor == 0.0 || factor == 1.25));
        // Within five standard errors.
        assert!((drawn.iter().sum::<f32>() / 10_000.0 - 1.0).abs() < 0.025);
        assert!(drawn == mask(0) && drawn != mask(1));

        let pooled = Tensor::<2>::ones([4, 2], &device);
        let outputs = |kept| head.outputs(pooled.clone(), kept).into_data();
        assert_eq!(outputs(Some(Tensor::ones([4, 50], &device))), outputs(None));
        let nothing = head.outputs(pooled.clone(), Some(Tensor::zeros([4, 50], &device)));
        let bias = head.classifier.bias.val().unsqueeze::<2>().expand([4, 3]);
        assert_eq!(nothing.into_data(), bias.into_data());
    }

    #[test]
    fn outputs_are_those_of_the_pooled_sequence() {
        let device = Device::flex();
        let head = head(&SequenceHeadConfig::default(), &device);
        let hidden = Tensor::<3>::ones([4, 7, 2], &device);
        let outputs = head.forward(hidden, Tensor::ones([4, 7], &device));
        assert_eq!(outputs.dims(), [4, 3]);
        let one = head.outputs(Tensor::ones([1, 2], &device), None);
        assert_eq!(outputs.narrow(0, 2, 1).into_data(), one.into_data());
    }

    #[test]
    fn settings_are_checked() {
        let of = |text: &str| toml::from_str::<SequenceHeadConfig>(text);
        let config = of("pooling = \"max\"\nd_hidden = 8\ndropout = 0.1").expect("sound");
        assert_eq!(
            config,
            SequenceHeadConfig { kind: HeadKind::Mlp, pooling: Pooling::Max, d_hidden: Some(8), dropout: 0.1 }
        );
        assert!(config.check().is_ok() && SequenceHeadConfig::default().check().is_ok());
        assert!(of("poling = \"max\"").is_err() && of("pooling = \"sum\"").is_err());
        for (text, field) in [("d_hidden = 0", "head.d_hidden"), ("dropout = 1.0", "head.dropout")] {
            let message = of(text).expect("known fields").check().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }
}
