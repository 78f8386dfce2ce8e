//! Low-rank adapters of frozen weights (LoRA; Hu et al. 2021, eq. 3): `W + α/r · B · A` takes the place of a weight `W [d_out, d_in]`, and
//! only A and B learn. A is drawn as the weight of a linear layer is, B begins as 0, so that nothing changes before the first step.
//!
//! Dropout is not that of the reference implementation, which drops inputs of A anew at every position: here a channel is dropped
//! for a whole micro-batch, as a column of A. There is one weight for all rows then, products stay as wide as without adapters, and
//! what dropout expects of A is the same.

use burn::module::Param;
use burn::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::ops::LowRank;
use crate::seed::{Stream, stream};
use crate::weights::{constant, uniform};

/// A linear layer of a [`TransformerLayer`](super::TransformerLayer), by the names that BERT-like encoders use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// To queries.
    Query,
    /// To keys.
    Key,
    /// To values.
    Value,
    /// Of what was attended to: `out`.
    Dense,
    /// To the inner width.
    Up,
    /// Back from it.
    Down,
}

/// Adapters of an encoder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraConfig {
    /// Rows of A and columns of B, r.
    pub rank: usize,
    /// α: the product of both is multiplied by α/r.
    pub alpha: f64,
    /// Share of the input channels that are dropped for a micro-batch.
    pub dropout: f64,
    /// The linear layers that get adapters, in every layer of the encoder.
    pub targets: Vec<Target>,
}

impl Default for LoraConfig {
    /// Those with which the benchmark GUE fine-tunes large encoders (Zhou et al. 2024); VQDNA (arXiv 2405.10812) names none.
    fn default() -> Self {
        use Target::{Dense, Key, Query, Value};
        Self { rank: 8, alpha: 16.0, dropout: 0.05, targets: vec![Query, Key, Value, Dense] }
    }
}

/// A setting that makes no adapters; each message names the field.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LoraConfigError {
    /// A rank of zero, or one as large as a weight.
    #[error("`lora.rank` must be 1 to {MOST_RANK}, not {0}")]
    Rank(usize),
    /// A scale that switches adapters off, or worse.
    #[error("`lora.alpha` must be above 0, not {0}")]
    Alpha(f64),
    /// No share that leaves something.
    #[error("`lora.dropout` must be 0 or more and below 1, not {0}")]
    Dropout(f64),
    /// Nothing to learn.
    #[error("`lora.targets` must name a layer: query, key, value, dense, up or down")]
    NoTarget,
    /// A layer has one adapter.
    #[error("`lora.targets` names {0:?} twice")]
    Twice(Target),
}

/// A rank beyond which a config is refused (sanity limit).
const MOST_RANK: usize = 4096;

impl LoraConfig {
    /// Finds what makes no adapters before a device opens.
    ///
    /// # Errors
    /// The first field that does not.
    pub fn check(&self) -> Result<(), LoraConfigError> {
        use LoraConfigError as E;
        if !(1..=MOST_RANK).contains(&self.rank) {
            return Err(E::Rank(self.rank));
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return Err(E::Alpha(self.alpha));
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(E::Dropout(self.dropout));
        }
        if self.targets.is_empty() {
            return Err(E::NoTarget);
        }
        match self.targets.iter().enumerate().find(|(at, target)| self.targets[..*at].contains(target)) {
            Some((_, &target)) => Err(E::Twice(target)),
            None => Ok(()),
        }
    }

    /// Numbers of the adapters of a layer from `d` to `d` channels, with `d_inner` inside.
    #[must_use]
    pub fn numbers(&self, d: usize, d_inner: usize) -> usize {
        let of = |target: &Target| match target {
            Target::Query | Target::Key | Target::Value | Target::Dense => 2 * d,
            Target::Up | Target::Down => d + d_inner,
        };
        self.rank * self.targets.iter().map(of).sum::<usize>()
    }

    fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

/// The adapter of one weight `[d_out, d_in]`.
#[derive(Module, Debug)]
pub struct Lora {
    /// `[rank, d_in]`.
    pub a: Param<Tensor<2>>,
    /// `[d_out, rank]`.
    pub b: Param<Tensor<2>>,
    scale: f64,
    dropout: f64,
    /// Factors of the input channels, `[d_in]`: 0 for those that are dropped.
    kept: Option<Tensor<1>>,
}

impl Lora {
    /// A drawn uniformly from ±1/√`d_in`, B zero.
    #[must_use]
    pub fn new(config: &LoraConfig, d_in: usize, d_out: usize, random: &mut Stream, device: &Device) -> Self {
        Self {
            a: uniform([config.rank, d_in], 1.0 / (d_in as f64).sqrt(), random, device),
            b: constant([d_out, config.rank], 0.0, device),
            scale: config.scale(),
            dropout: config.dropout,
            kept: None,
        }
    }

    /// The same parameters with input channels dropped anew.
    #[must_use]
    pub fn dropped(&self, random: &mut Stream) -> Self {
        let [_, d_in] = self.a.dims();
        let kept = (1.0 / (1.0 - self.dropout)) as f32;
        let factors: Vec<f32> = (0..d_in).map(|_| if random.random_bool(self.dropout) { 0.0 } else { kept }).collect();
        let factors = Tensor::from_data(TensorData::new(factors, [d_in]), &self.a.device());
        Self { kept: (self.dropout > 0.0).then_some(factors), ..self.clone() }
    }

    /// What is added to the weight.
    pub fn low_rank(&self) -> LowRank {
        let a = match &self.kept {
            Some(kept) => self.a.val() * kept.clone().unsqueeze(),
            None => self.a.val(),
        };
        LowRank { a, b: self.b.val(), scale: self.scale }
    }
}

/// The adapters of a transformer layer; absent where a weight is no target.
#[derive(Module, Debug)]
pub struct Adapters {
    /// To queries, `[d, d]`.
    pub query: Option<Lora>,
    /// To keys, `[d, d]`.
    pub key: Option<Lora>,
    /// To values, `[d, d]`.
    pub value: Option<Lora>,
    /// Of what was attended to, `[d, d]`.
    pub dense: Option<Lora>,
    /// `[d_inner, d]`.
    pub up: Option<Lora>,
    /// `[d, d_inner]`.
    pub down: Option<Lora>,
}

impl Adapters {
    /// Fresh ones for a layer `d` wide, a pure function of the seed and the number of the layer; those of one target are the same
    /// whatever the others are.
    #[must_use]
    pub fn new(config: &LoraConfig, [d, d_inner]: [usize; 2], seed: u64, layer: u64, device: &Device) -> Self {
        let new = |target: Target, d_in, d_out| {
            let random = &mut stream(seed, "adapters", &[layer, target as u64]);
            config.targets.contains(&target).then(|| Lora::new(config, d_in, d_out, random, device))
        };
        Self {
            query: new(Target::Query, d, d),
            key: new(Target::Key, d, d),
            value: new(Target::Value, d, d),
            dense: new(Target::Dense, d, d),
            up: new(Target::Up, d, d_inner),
            down: new(Target::Down, d_inner, d),
        }
    }

    /// The same parameters with input channels dropped anew, of each adapter its own.
    #[must_use]
    pub fn dropped(&self, random: &mut Stream) -> Self {
        let mut dropped = |lora: &Option<Lora>| lora.as_ref().map(|lora| lora.dropped(random));
        Self {
            query: dropped(&self.query),
            key: dropped(&self.key),
            value: dropped(&self.value),
            dense: dropped(&self.dense),
            up: dropped(&self.up),
            down: dropped(&self.down),
        }
    }

    /// What is added to the weights of a layer: that of queries, keys and values, of what was attended to, to the inner width and back.
    pub fn low_rank(&self) -> [Option<LowRank>; 4] {
        let [dense, up, down] = [&self.dense, &self.up, &self.down].map(|lora| lora.as_ref().map(Lora::low_rank));
        [self.qkv(), dense, up, down]
    }

    /// Queries, keys and values stand one below the other in a weight `[3 d, d]`: each A has rows of its own, and each B its columns,
    /// which are 0 beside its own block of rows.
    fn qkv(&self) -> Option<LowRank> {
        let blocks = [&self.query, &self.key, &self.value];
        let parts: Vec<(usize, LowRank)> =
            (0..).zip(blocks).filter_map(|(block, lora)| Some((block, lora.as_ref()?.low_rank()))).collect();
        let (_, LowRank { b, scale, .. }) = parts.first()?;
        let ([d, rank], scale) = (b.dims(), *scale);
        let mut stacked = Tensor::zeros([blocks.len() * d, parts.len() * rank], &b.device());
        for (place, (block, part)) in parts.iter().enumerate() {
            let own = [block * d..(block + 1) * d, place * rank..(place + 1) * rank];
            stacked = stacked.slice_assign(own, part.b.clone());
        }
        let a = Tensor::cat(parts.into_iter().map(|(_, part)| part.a).collect(), 0);
        Some(LowRank { a, b: stacked, scale })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_into_vec_as::<f32>().expect("f32")
    }

    #[test]
    fn settings_are_checked() {
        let of = |text: &str| toml::from_str::<LoraConfig>(text);
        assert_eq!(of("").expect("sound"), LoraConfig::default());
        assert!(LoraConfig::default().check().is_ok());
        let config = of("rank = 4\nalpha = 8\ntargets = [\"up\", \"down\"]").expect("sound");
        assert_eq!((config.rank, config.targets), (4, vec![Target::Up, Target::Down]));
        assert!(of("ranks = 4").is_err() && of("targets = [\"out\"]").is_err());
        for (text, field) in [
            ("rank = 0", "lora.rank"),
            ("rank = 1000000", "lora.rank"),
            ("alpha = 0.0", "lora.alpha"),
            ("alpha = inf", "lora.alpha"),
            ("dropout = 1.0", "lora.dropout"),
            ("dropout = -0.1", "lora.dropout"),
            ("targets = []", "lora.targets"),
            ("targets = [\"key\", \"key\"]", "lora.targets"),
        ] {
            let message = of(text).expect("known fields").check().unwrap_err().to_string();
            assert!(message.contains(field), "{message}");
        }
    }

    #[test]
    fn adapters_of_a_target_depend_on_seed_and_layer_alone() {
        let device = Device::flex();
        let value = |targets: Vec<Target>, seed, layer| {
            let config = LoraConfig { targets, ..LoraConfig::default() };
            let lora = Adapters::new(&config, [16, 64], seed, layer, &device).value.expect("a target");
            (floats(lora.a.val()), floats(lora.b.val()))
        };
        let (a, b) = value(vec![Target::Value], 3, 1);
        assert!(b.iter().all(|&v| v == 0.0) && a.iter().all(|v| v.abs() <= 0.25) && a.iter().any(|v| v.abs() > 0.2));
        assert_eq!(value(LoraConfig::default().targets, 3, 1), (a.clone(), b));
        assert!(value(vec![Target::Value], 4, 1).0 != a && value(vec![Target::Value], 3, 2).0 != a);
    }

    #[test]
    fn each_adapter_has_its_own_block_of_the_joined_weight() {
        let device = Device::flex();
        let config = LoraConfig { rank: 1, targets: vec![Target::Query, Target::Value], ..LoraConfig::default() };
        let mut adapters = Adapters::new(&config, [2, 4], 0, 0, &device);
        for (lora, from) in [(&mut adapters.query, 1.0), (&mut adapters.value, 5.0)] {
            let lora = lora.as_mut().expect("a target");
            lora.a = Param::from_data([[from, from + 1.0]], &device);
            lora.b = Param::from_data([[from + 2.0], [from + 3.0]], &device);
        }
        let joined = adapters.qkv().expect("adapters");
        assert_eq!(floats(joined.a), [1.0, 2.0, 5.0, 6.0]);
        assert_eq!(floats(joined.b), [3.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0, 0.0, 8.0]);
        assert_eq!(joined.scale, 16.0);
        assert!(
            Adapters::new(&LoraConfig { targets: vec![Target::Up], ..config }, [2, 4], 0, 0, &device).qkv().is_none()
        );
    }

    #[test]
    fn dropout_clears_columns_of_a_and_keeps_the_mean() {
        let device = Device::flex();
        let config = LoraConfig { rank: 2, dropout: 0.25, ..LoraConfig::default() };
        let lora = Lora::new(&config, 4000, 3, &mut stream(1, "numbers for a test", &[]), &device);
        let dropped = |place| lora.dropped(&mut stream(2, "dropout for a test", &[place]));
        let (whole, left) = (floats(lora.low_rank().a), floats(dropped(0).low_rank().a));
        let (first, second) = left.split_at(4000);
        let kept = |at: usize| left[at] != 0.0;
        assert!(first.iter().zip(second).all(|(first, second)| (*first == 0.0) == (*second == 0.0)));
        assert!((0..8000).filter(|&at| kept(at)).all(|at| (left[at] - whole[at] / 0.75).abs() < 1e-6));
        // Within five standard errors.
        let share = (0..4000).filter(|&at| kept(at)).count() as f64 / 4000.0;
        assert!((share - 0.75).abs() < 0.034, "{share}");
        assert!(floats(dropped(0).low_rank().a) == left && floats(dropped(1).low_rank().a) != left);
        let still = Lora { dropout: 0.0, ..lora.clone() }.dropped(&mut stream(2, "dropout for a test", &[0]));
        assert_eq!(floats(still.low_rank().a), whole);
    }
}
