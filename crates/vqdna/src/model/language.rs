//! A model that predicts tokens: those of masked positions, from the context.
//!
//! Where adjacent tokens are pooled, whole pools are masked, and the head predicts the ids of every token of a pool: one classifier for
//! each place in a pool and each level, in that order.

use burn::prelude::*;
use burn::tensor::activation::log_softmax;

use super::embed::{Embed, encoder};
use crate::backbone::{Backbone, BackboneConfig, Chosen, Hidden};
use crate::batch::TokenBatch;
use crate::head::token::TokenHead;
use crate::ops::KeyValues;
use crate::seed::{Stream, stream};
use crate::tokenizer::Source;
use crate::weights::{self, Arrays, WeightError, to_array};

/// What of a batch is masked, and what is to be predicted: drawn on the host, where the rows are known without asking the device.
#[derive(Clone, Debug)]
pub struct Masked {
    /// Where the mask vector stands, `[batch, pools]`.
    positions: Tensor<2, Bool>,
    /// Pools with a token to predict.
    chosen: Chosen,
    /// What is to be predicted of each place in a pool.
    targets: Vec<Targets>,
}

/// The tokens at one place of their pools whose ids are to be predicted.
#[derive(Clone, Debug)]
struct Targets {
    /// Which of the chosen pools they belong to; none if to all, in order.
    among: Option<Tensor<1, Int>>,
    /// The tokens, as places of the flattened batch.
    tokens: Tensor<1, Int>,
    /// Their number.
    count: usize,
}

impl Masked {
    /// Positions that are masked, and all to be predicted; no pools.
    ///
    /// # Shapes
    /// - `masked`: `[batch, positions]`, in row-major order; padding must be false
    ///
    /// # Panics
    /// If `masked` has another length than its shape.
    #[must_use]
    pub fn new(masked: &[bool], shape: [usize; 2], device: &Device) -> Self {
        Self::with_targets(masked, masked, shape, 1, device)
    }

    /// Pools where the mask vector stands, and tokens whose ids are to be predicted.
    ///
    /// # Shapes
    /// - `masked`: `[batch, pools]`, with pools of `pool` positions, the last one of a row maybe of fewer
    /// - `targets`: `[batch, positions]`, of this `shape`; padding must be false
    ///
    /// # Panics
    /// If `masked` or `targets` has another length than its shape.
    #[must_use]
    pub fn with_targets(
        masked: &[bool],
        targets: &[bool],
        [batch, positions]: [usize; 2],
        pool: usize,
        device: &Device,
    ) -> Self {
        assert_eq!(targets.len(), batch * positions, "a flag for each position");
        let pools = positions.div_ceil(pool);
        let places: Vec<usize> = (0..targets.len()).filter(|&i| targets[i]).collect();
        let pool_of = |place: usize| place / positions * pools + place % positions / pool;
        let mut rows: Vec<usize> = places.iter().map(|&place| pool_of(place)).collect();
        rows.dedup();
        let of_place = |within: usize| {
            let tokens: Vec<usize> =
                places.iter().copied().filter(|place| place % positions % pool == within).collect();
            let among = tokens.iter().filter_map(|&place| rows.binary_search(&pool_of(place)).ok()).collect();
            let is_all = tokens.len() == rows.len();
            let among = (!is_all).then(|| index(among, device));
            Targets { among, count: tokens.len(), tokens: index(tokens, device) }
        };
        let targets = (0..pool).map(of_place).collect();
        Self {
            positions: Tensor::from_data(TensorData::new(masked.to_vec(), [batch, pools]), device),
            chosen: Chosen { rows, shape: [batch, pools] },
            targets,
        }
    }

    /// Number of tokens whose ids are to be predicted.
    #[must_use]
    pub fn count(&self) -> usize {
        self.targets.iter().map(|targets| targets.count).sum()
    }
}

fn index(places: Vec<usize>, device: &Device) -> Tensor<1, Int> {
    let count = places.len();
    let places: Vec<i32> = places.into_iter().map(|place| place as i32).collect();
    Tensor::from_data(TensorData::new(places, [count]), device)
}

/// Embedding, backbone and token head.
#[derive(Module, Debug)]
pub struct LanguageModel {
    /// Tokens to vectors.
    pub embed: Embed,
    /// Vectors to hidden states.
    pub backbone: Backbone,
    /// Hidden states to ids.
    pub head: TokenHead,
}

/// The loss of a batch.
#[derive(Clone, Debug)]
pub struct Losses {
    /// Per level, mean cross-entropy over the tokens to predict in nats, `[1]`; 0 if there are none.
    pub levels: Vec<Tensor<1>>,
    /// What the backbone adds to the loss: see [`Hidden`].
    pub penalty: Option<Tensor<1>>,
    /// Units that the batch was made into, where the backbone forms units.
    pub units: Option<usize>,
}

/// How well the ids of one level were predicted: sums over tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Predicted {
    /// Cross-entropy in nats.
    pub nats: f64,
    /// Tokens whose most likely id is theirs.
    pub right: u64,
}

impl LanguageModel {
    /// Fresh weights for tokens of levels with so many ids, a pure function of the seed.
    #[must_use]
    pub fn new(config: &BackboneConfig, source: Source, sizes: &[usize], seed: u64, device: &Device) -> Self {
        let (embed, backbone) = encoder(config, source, seed, device);
        let classes = sizes.repeat(config.pool());
        let random = &mut stream(seed, config.head_stream(), &[]);
        let (width, eps) = (config.width(), config.norm_eps());
        let head = TokenHead::new(width, &classes, eps, config.deviation(), random, device);
        Self { embed, backbone: backbone.with_decoder(config, random, device), head }
    }

    /// The hidden states of a batch; those at padding mean nothing.
    ///
    /// # Shapes
    /// - output: `[batch, rows, d_model]`
    pub fn hidden(&self, batch: &TokenBatch, masked: Option<&Masked>) -> Hidden {
        let (x, layout) = self.embed.forward(batch, masked.map(|masked| masked.positions.clone()));
        self.backbone.forward(x, &layout, None)
    }

    /// Mean cross-entropy of each level over the tokens to predict. The head runs on their positions only. With `jitter`, in training, what
    /// routes positions is jittered.
    ///
    /// # Shapes
    /// - `ids`: per level `[batch, positions]`, those to predict
    ///
    /// # Panics
    /// If there is no classifier for each place of a pool and each level.
    pub fn losses(
        &self,
        batch: &TokenBatch,
        masked: &Masked,
        ids: &[Tensor<2, Int>],
        jitter: Option<&mut Stream>,
    ) -> Losses {
        let all = masked.count().max(1) as f64;
        let mut losses: Vec<Tensor<1>> = Vec::new();
        let (penalty, units) = self.predict(batch, masked, ids, jitter, |level, classifier, features, ids| {
            let share = ids.dims()[0] as f64 / all;
            let loss = self.head.loss(classifier, features, ids);
            match losses.get_mut(level) {
                // Of one place there is only the mean itself.
                None if masked.targets.len() == 1 => losses.push(loss),
                None => losses.push(loss.mul_scalar(share)),
                Some(sum) => *sum = sum.clone() + loss.mul_scalar(share),
            }
        });
        Losses { levels: losses, penalty, units }
    }

    /// The mean of [`LanguageModel::losses`] over levels, `[1]`.
    pub fn loss(&self, batch: &TokenBatch, masked: &Masked, ids: &[Tensor<2, Int>]) -> Tensor<1> {
        Tensor::cat(self.losses(batch, masked, ids, None).levels, 0).mean()
    }

    /// How well each level is predicted, and the number of units; shapes as for [`LanguageModel::losses`].
    pub fn predicted(
        &self,
        batch: &TokenBatch,
        masked: &Masked,
        ids: &[Tensor<2, Int>],
    ) -> (Vec<Predicted>, Option<usize>) {
        let mut predicted = vec![Predicted::default(); ids.len()];
        let (_, units) = self.predict(batch, masked, ids, None, |level, classifier, features, ids| {
            if ids.dims()[0] > 0 {
                let logits = self.head.logits(classifier, features);
                let right = logits.clone().argmax(1).squeeze_dim::<1>(1).equal(ids.clone()).float();
                let log_p = log_softmax(logits, 1).gather(1, ids.unsqueeze_dim(1)).squeeze_dim::<1>(1);
                predicted[level].right += sum(right) as u64;
                predicted[level].nats -= sum(log_p);
            }
        });
        (predicted, units)
    }

    /// Logits of each level for the token after the last of some positions, which follow those of which keys and values are kept.
    ///
    /// # Shapes
    /// - `batch`: of one sequence, at least one position
    ///
    /// # Panics
    /// See [`Backbone::extend`].
    pub fn next(&self, batch: &TokenBatch, kept: &mut [KeyValues]) -> Vec<Vec<f32>> {
        let (x, _) = self.embed.forward(batch, None);
        let [_, positions, d] = x.dims();
        let last = self.backbone.extend(x, kept).narrow(1, positions - 1, 1).reshape([1, d]);
        let features = self.head.features(last);
        (0..self.head.heads.len()).map(|level| to_array(self.head.logits(level, features.clone())).values).collect()
    }

    /// Shows each level and classifier the features of the pools that it predicts ids of, and those ids.
    fn predict(
        &self,
        batch: &TokenBatch,
        masked: &Masked,
        ids: &[Tensor<2, Int>],
        jitter: Option<&mut Stream>,
        mut show: impl FnMut(usize, usize, Tensor<2>, Tensor<1, Int>),
    ) -> (Option<Tensor<1>>, Option<usize>) {
        assert_eq!(self.head.heads.len(), masked.targets.len() * ids.len(), "a classifier for each place and level");
        let levels = ids.len();
        let (x, layout) = self.embed.forward(batch, Some(masked.positions.clone()));
        let hidden = self.backbone.forward_at(x, &layout, &masked.chosen, jitter);
        let features = self.head.features(hidden.states);
        for (place, targets) in masked.targets.iter().enumerate() {
            let features = match &targets.among {
                Some(among) => features.clone().select(0, among.clone()),
                None => features.clone(),
            };
            for (level, ids) in ids.iter().enumerate() {
                let [batch, positions] = ids.dims();
                let ids = ids.clone().reshape([batch * positions]).select(0, targets.tokens.clone());
                show(level, place * levels + level, features.clone(), ids);
            }
        }
        (hidden.penalty, hidden.units)
    }
}

/// A sum on the host, where it does not lose digits.
fn sum(values: Tensor<1>) -> f64 {
    to_array(values).values.iter().map(|&value| f64::from(value)).sum()
}

/// Names of the head; those that begin so belong to the embedding, and all others to the backbone.
const HEAD_NAMES: [&str; 3] = ["dense.", "head_norm.", "heads."];
const EMBED_NAMES: [&str; 2] = ["proj.", "mask_vector"];

/// Weights under their published names: those of the PyTorch definition of the encoder of VQDNA and its heads.
#[must_use]
pub fn publish(model: &LanguageModel) -> Arrays {
    weights::collect(model).into_iter().map(|(name, array)| (published_name(&name).to_owned(), array)).collect()
}

/// The model with weights that carry published names.
///
/// # Errors
/// If a name is missing, unknown, or has another shape.
pub fn load_published(model: LanguageModel, arrays: Arrays) -> Result<LanguageModel, WeightError> {
    let begins = |name: &str, parts: &[&str]| parts.iter().any(|part| name.starts_with(part));
    let part = |name: &str| match name {
        name if begins(name, &HEAD_NAMES) => "head",
        name if begins(name, &EMBED_NAMES) => "embed",
        _ => "backbone",
    };
    let arrays = arrays.into_iter().map(|(name, array)| (format!("{}.{name}", part(&name)), array)).collect();
    weights::assign(model, &arrays).map_err(|error| error.rename(|name| published_name(&name).to_owned()))
}

/// The published name of a parameter of a [`LanguageModel`].
#[must_use]
pub fn published_name(name: &str) -> &str {
    ["backbone.", "head.", "embed."].iter().find_map(|part| name.strip_prefix(part)).unwrap_or(name)
}
