//! From continuous vectors to codes: `[batch, bases, d_code]` of each tap → codes, their mean vectors, a loss.
//!
//! | kind | file | idea |
//! | --- | --- | --- |
//! | `vq`, `hrq`, `rq` | [`hierarchy`] | codebooks moved by averages; one, coarse to fine, or of residuals |
//! | `fsq` | [`fsq`] | no codebook: a few channels, rounded |
//!
//! A new quantizer is a file here and one variant in each of the two enums below; the laws in `tests/laws.rs` then run over it.

pub mod codebook;
pub mod fsq;
pub mod gradient;
pub mod hierarchy;
pub mod kmeans;

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::seed::Stream;
use codebook::{CodebookConfig, Statistics};
use fsq::{Fsq, FsqConfig};
use hierarchy::{Hierarchy, Rule};

/// What a quantizer makes of one batch. Everything but `output` and `commitment` is outside the graph.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// Per level, `[batch, bases]`; −1 at padding.
    pub codes: Vec<Tensor<2, Int>>,
    /// Per level, what the codes up to it stand for, `[batch, bases, d_code]`; 0 at padding.
    pub means: Vec<Tensor<3>>,
    /// Per level, the vector that was searched in its codebook, `[batch, bases, d_code]`; none for `fsq`.
    pub searched: Vec<Tensor<3>>,
    /// The last mean, with gradients passed to the last tap; what the decoder sees. 0 at padding.
    pub output: Tensor<3>,
    /// Sum over levels of `mean ‖z − mean‖²` over real positions and channels, `[1]`. Not yet multiplied by β.
    pub commitment: Tensor<1>,
}

impl Quantized {
    /// Codes −1 at padding, so that nobody takes them for something.
    fn without_codes_of_padding(self, mask: &Tensor<2>) -> Self {
        let padding = mask.clone().inner().equal_elem(0.0);
        Self { codes: self.codes.into_iter().map(|codes| codes.mask_fill(padding.clone(), -1)).collect(), ..self }
    }

    /// Vectors 0 and codes −1 at padding.
    fn without_padding(self, mask: &Tensor<2>) -> Self {
        let real = mask.clone().inner().unsqueeze_dim::<3>(2);
        let made = self.without_codes_of_padding(mask);
        Self {
            means: made.means.into_iter().map(|mean| mean * real.clone()).collect(),
            output: made.output * real,
            ..made
        }
    }
}

/// The quantizer of a tokenizer, as written in a config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum QuantizerConfig {
    /// One codebook (VQDNA, section 3.1).
    Vq(VqConfig),
    /// Hierarchical residual quantization (VQDNA, section 3.3): one codebook a tap, coarse to fine.
    Hrq(HrqConfig),
    /// Classical residual quantization (Lee et al. 2022): several codebooks at the last tap.
    Rq(RqConfig),
    /// Finite scalar quantization (Mentzer et al. 2024), which cannot collapse.
    Fsq(FsqConfig),
}

/// One codebook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VqConfig {
    /// Number of codes. The paper's default is 512.
    pub codebook_size: usize,
    /// How the codebook learns.
    pub codebook: CodebookConfig,
}

impl Default for VqConfig {
    fn default() -> Self {
        Self { codebook_size: 512, codebook: CodebookConfig::default() }
    }
}

/// Codebooks of growing size, one for each tap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HrqConfig {
    /// Number of codes per level; as many levels as taps. The paper's text gives `[1024, 2048]`.
    pub codebook_sizes: Vec<usize>,
    /// The vector that a level searches; the same for one and two levels.
    pub rule: HrqRule,
    /// How the codebooks learn.
    pub codebook: CodebookConfig,
}

impl Default for HrqConfig {
    fn default() -> Self {
        Self { codebook_sizes: vec![1024, 2048], rule: HrqRule::default(), codebook: CodebookConfig::default() }
    }
}

/// The two readings of VQDNA's eq. 6, which differ from the third level on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HrqRule {
    /// `n Z − Σ e`, so that the running mean of the codes tends to `Z` at every level.
    #[default]
    Mean,
    /// `2 Z − e` of the level before, as printed.
    Paper,
}

/// Codebooks of residuals.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RqConfig {
    /// Number of codes per level.
    pub codebook_sizes: Vec<usize>,
    /// How the codebooks learn.
    pub codebook: CodebookConfig,
}

impl Default for RqConfig {
    fn default() -> Self {
        Self { codebook_sizes: vec![256, 512], codebook: CodebookConfig::default() }
    }
}

/// A quantizer with its codebooks.
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "one quantizer a model; Burn derives modules for plain fields")]
pub enum Quantizer {
    /// `vq`, `hrq` and `rq`.
    Hierarchy(Hierarchy),
    /// `fsq`.
    Fsq(Fsq),
}

impl QuantizerConfig {
    /// Numbers of codes, level by level.
    #[must_use]
    pub fn codebook_sizes(&self) -> Vec<usize> {
        match self {
            Self::Vq(vq) => vec![vq.codebook_size],
            Self::Hrq(hrq) => hrq.codebook_sizes.clone(),
            Self::Rq(rq) => rq.codebook_sizes.clone(),
            Self::Fsq(fsq) => vec![fsq.levels.iter().product()],
        }
    }

    /// How many taps of the encoder this quantizer reads: one a level for `hrq`, the last only for the others.
    #[must_use]
    pub fn taps(&self) -> usize {
        match self {
            Self::Hrq(hrq) => hrq.codebook_sizes.len(),
            Self::Vq(_) | Self::Rq(_) | Self::Fsq(_) => 1,
        }
    }

    /// How its codebooks learn, if it has any.
    #[must_use]
    pub fn codebook(&self) -> Option<&CodebookConfig> {
        match self {
            Self::Vq(vq) => Some(&vq.codebook),
            Self::Hrq(hrq) => Some(&hrq.codebook),
            Self::Rq(rq) => Some(&rq.codebook),
            Self::Fsq(_) => None,
        }
    }

    /// A fresh quantizer of vectors `d_code` wide. Codebooks start as small noise until
    /// [`Quantizer::initialise`] sets them from data.
    #[must_use]
    pub fn init(&self, d_code: usize, random: &mut Stream, device: &Device) -> Quantizer {
        let hierarchy = |rule, codebook: &CodebookConfig, random: &mut Stream| {
            Quantizer::Hierarchy(Hierarchy::new(&self.codebook_sizes(), d_code, rule, codebook, random, device))
        };
        match self {
            Self::Vq(vq) => hierarchy(Rule::Sum, &vq.codebook, random),
            Self::Rq(rq) => hierarchy(Rule::Sum, &rq.codebook, random),
            Self::Hrq(hrq) => match hrq.rule {
                HrqRule::Mean => hierarchy(Rule::Mean, &hrq.codebook, random),
                HrqRule::Paper => hierarchy(Rule::Paper, &hrq.codebook, random),
            },
            Self::Fsq(fsq) => Quantizer::Fsq(Fsq::new(fsq, d_code, random, device)),
        }
    }
}

impl Quantizer {
    /// Quantizes the taps of an encoder.
    ///
    /// # Shapes
    /// - `taps`: each `[batch, bases, d_code]`
    /// - `mask`: `[batch, bases]`, 1 for a real base; padding counts nowhere
    ///
    /// # Panics
    /// If there are not as many taps as the quantizer reads.
    pub fn forward(&self, taps: &[Tensor<3>], mask: &Tensor<2>) -> Quantized {
        match self {
            Self::Hierarchy(hierarchy) => hierarchy.forward(taps, mask),
            Self::Fsq(fsq) => fsq.forward(taps, mask).without_padding(mask),
        }
    }

    /// Number of levels.
    #[must_use]
    pub fn levels(&self) -> usize {
        match self {
            Self::Hierarchy(hierarchy) => hierarchy.codebooks.len(),
            Self::Fsq(_) => 1,
        }
    }

    /// The codes alone, without what learning needs.
    ///
    /// # Shapes
    /// - `taps`: each `[batch, bases, d_code]`
    /// - output: per level `[batch, bases]`
    pub fn encode(&self, taps: Vec<Tensor<3>>) -> Vec<Tensor<2, Int>> {
        match self {
            Self::Hierarchy(hierarchy) => hierarchy.encode(taps),
            Self::Fsq(fsq) => fsq.encode(&taps),
        }
    }

    /// The vectors that codes stand for, as the decoder sees them.
    ///
    /// # Shapes
    /// - `codes`: per level `[batch, bases]`
    /// - output: `[batch, bases, d_code]`
    pub fn decode(&self, codes: &[Tensor<2, Int>]) -> Tensor<3> {
        // Padding has the code −1; what it decodes to means nothing.
        let codes: Vec<_> = codes.iter().map(|codes| codes.clone().clamp_min(0)).collect();
        match self {
            Self::Hierarchy(hierarchy) => hierarchy.decode(&codes),
            Self::Fsq(fsq) => fsq.decode(&codes),
        }
    }

    /// What one forward pass tells each codebook; empty if there is none.
    pub fn statistics(&self, quantized: &Quantized, mask: &Tensor<2>) -> Vec<Statistics> {
        match self {
            Self::Hierarchy(hierarchy) => hierarchy.statistics(quantized, mask),
            Self::Fsq(_) => Vec::new(),
        }
    }

    /// Moves the codebooks once, by the statistics of one optimiser step. Dead codes are revived in steps that
    /// [`CodebookConfig::revive_every`] names, by draws that depend on `(seed, step, level)` only.
    #[must_use]
    pub fn update(self, statistics: Vec<Statistics>, seed: u64, step: u64) -> Self {
        match self {
            Self::Hierarchy(hierarchy) => Self::Hierarchy(hierarchy.update(statistics, seed, step)),
            Self::Fsq(fsq) => Self::Fsq(fsq),
        }
    }

    /// Sets codebooks by k-means on a sample of vectors, level after level, each level searched as in
    /// [`Quantizer::forward`] with the levels before it already set. Once `go_on` says no, what comes out is unfinished.
    ///
    /// # Shapes
    /// - `taps`: each `[rows, d_code]`, real positions only
    #[must_use]
    pub fn initialise(self, taps: &[Tensor<2>], rows_per_step: usize, seed: u64, go_on: &dyn Fn() -> bool) -> Self {
        match self {
            Self::Hierarchy(hierarchy) => Self::Hierarchy(hierarchy.initialise(taps, rows_per_step, seed, go_on)),
            Self::Fsq(fsq) => Self::Fsq(fsq),
        }
    }

    /// How often each code was chosen lately, `[codebook_size]` per level; empty for `fsq`.
    pub fn recent_counts(&self) -> Vec<Tensor<1>> {
        match self {
            Self::Hierarchy(hierarchy) => hierarchy.codebooks.iter().map(|book| book.recent.val()).collect(),
            Self::Fsq(_) => Vec::new(),
        }
    }
}
