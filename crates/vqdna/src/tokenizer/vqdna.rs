//! VQDNA (Li, Wang et al., ICML 2024, arXiv 2405.10812), section 3.3: a convolutional encoder of constant length, a quantizer,
//! and a mirrored decoder. One code (or one per level) for each base.
//!
//! Where the paper is silent we follow `docs/vqdna.md`: a linear layer from stem to block width, layer norm after the
//! depth-wise convolution, no layer scale, N as an all-zero one-hot, and padding hidden from every convolution.

use burn::prelude::*;
use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::layers::{Conv, ConvBlock, LayerNorm, Linear};
use crate::quantizer::{HrqConfig, Quantized, Quantizer, QuantizerConfig, RqConfig, VqConfig, fsq::FsqConfig};
use crate::seed::stream;
use crate::weights::{self, Arrays, WeightError};

/// Kernel of the stem and of the decoder's last convolution (VQDNA, section 3.3).
pub(crate) const STEM_KERNEL: usize = 5;

/// The network of the tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VqdnaConfig {
    /// Channels of the stem. Paper: 256.
    pub d_stem: usize,
    /// Channels of the blocks and of a code vector, D. Paper: 384.
    pub d_code: usize,
    /// Blocks of the encoder, and of the decoder. Paper: 6.
    pub blocks: usize,
    /// Kernel of a block's depth-wise convolution, odd. Paper: 7.
    pub kernel: usize,
    /// Blocks after which the encoder is quantized, counted from 1, the last one included. Paper: 3 and 6.
    pub taps: Vec<usize>,
    /// ε of the layer norms.
    pub norm_eps: f64,
    /// How the taps become codes.
    pub quantizer: QuantizerConfig,
}

impl Default for VqdnaConfig {
    fn default() -> Self {
        Preset::Small.config(Kind::Hrq)
    }
}

/// Sizes with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// For tests: stem 32, width 64, codebooks of 64 and 128.
    Tiny,
    /// For a laptop: stem 64, width 128, codebooks of 256 and 512.
    Small,
    /// The paper's: stem 256, width 384, codebooks of 1024 and 2048.
    Base,
}

/// Quantizers with names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One codebook at the last block.
    Vq,
    /// One codebook at each of two blocks.
    Hrq,
    /// Two codebooks at the last block.
    Rq,
    /// No codebook.
    Fsq,
}

impl Preset {
    /// The network of this size with that quantizer; each quantizer ends in as many codes as `hrq` has in its finest level.
    #[must_use]
    pub fn config(self, kind: Kind) -> VqdnaConfig {
        let (d_stem, d_code, sizes, scalars) = match self {
            Self::Tiny => (32, 64, [64, 128], vec![8, 4, 4]),
            Self::Small => (64, 128, [256, 512], vec![8, 8, 8]),
            Self::Base => (256, 384, [1024, 2048], vec![8, 8, 8, 4]),
        };
        let codebook_sizes = sizes.to_vec();
        let (quantizer, taps) = match kind {
            Kind::Vq => (QuantizerConfig::Vq(VqConfig { codebook_size: sizes[1], ..VqConfig::default() }), vec![6]),
            Kind::Hrq => (QuantizerConfig::Hrq(HrqConfig { codebook_sizes, ..HrqConfig::default() }), vec![3, 6]),
            Kind::Rq => (QuantizerConfig::Rq(RqConfig { codebook_sizes, ..RqConfig::default() }), vec![6]),
            Kind::Fsq => (QuantizerConfig::Fsq(FsqConfig { levels: scalars }), vec![6]),
        };
        VqdnaConfig { d_stem, d_code, blocks: 6, kernel: 7, taps, norm_eps: 1e-6, quantizer }
    }
}

/// A contradiction in a [`VqdnaConfig`]; each message names the field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VqdnaConfigError {
    /// A size of zero, or one that no computer could hold.
    #[error("`tokenizer.{field}` must be 1 to {most}")]
    Size {
        /// Name of the field.
        field: &'static str,
        /// The largest size.
        most: usize,
    },
    /// An ε that a root cannot take.
    #[error("`tokenizer.norm_eps` must be above 0")]
    NormEps,
    /// Scalar levels that cannot be told apart.
    #[error(
        "`tokenizer.quantizer.levels` must be 2 to {MOST_SCALARS} values for each channel, and at most 65536 codes in all"
    )]
    Scalars,
    /// Convolutions keep the length only with an odd kernel.
    #[error("`tokenizer.kernel` must be odd, not {0}")]
    EvenKernel(usize),
    /// Taps that are not blocks in order, ending with the last.
    #[error("`tokenizer.taps` must rise and end with the last block, {blocks}, not be {taps:?}")]
    Taps {
        /// As written.
        taps: Vec<usize>,
        /// Number of blocks.
        blocks: usize,
    },
    /// Another number of taps than the quantizer reads.
    #[error(
        "`tokenizer.taps` has length {found}, but this quantizer reads {expected}: one for each of its `codebook_sizes` if `hrq`, else one; `--quantizer` sets both"
    )]
    TapCount {
        /// Number of taps.
        found: usize,
        /// Number the quantizer reads.
        expected: usize,
    },
    /// Codes are stored in 16 bits.
    #[error("a level of `tokenizer.quantizer` has {0} codes; it must have 2 to 65536")]
    CodebookSize(usize),
    /// A number outside its range.
    #[error("`tokenizer.quantizer.codebook.{field}` must be {range}")]
    Range {
        /// Name of the field.
        field: &'static str,
        /// What it may be.
        range: &'static str,
    },
}

/// Sizes beyond which a config is refused (sanity limit).
const MOST_CHANNELS: usize = 65_536;
const MOST_BLOCKS: usize = 1000;
const MOST_TAPS: usize = 1023;
/// Values of a scalar channel: beyond about a thousand, the slack of its bound would reach the next value.
const MOST_SCALARS: usize = 512;

impl VqdnaConfig {
    /// Finds contradictions before a device opens.
    ///
    /// # Errors
    /// The first contradiction, naming its field.
    pub fn check(&self) -> Result<(), VqdnaConfigError> {
        use VqdnaConfigError as E;
        let sizes = [
            ("d_stem", self.d_stem, MOST_CHANNELS),
            ("d_code", self.d_code, MOST_CHANNELS),
            ("blocks", self.blocks, MOST_BLOCKS),
            ("kernel", self.kernel, MOST_TAPS),
        ];
        if let Some(&(field, _, most)) = sizes.iter().find(|(_, size, most)| !(1..=*most).contains(size)) {
            return Err(E::Size { field, most });
        }
        if !(self.norm_eps > 0.0 && self.norm_eps.is_finite()) {
            return Err(E::NormEps);
        }
        if self.kernel.is_multiple_of(2) {
            return Err(E::EvenKernel(self.kernel));
        }
        if !self.taps.is_sorted_by(|a, b| a < b) || self.taps.last() != Some(&self.blocks) || self.taps[0] == 0 {
            return Err(E::Taps { taps: self.taps.clone(), blocks: self.blocks });
        }
        let (found, expected) = (self.taps.len(), self.quantizer.taps());
        if found != expected {
            return Err(E::TapCount { found, expected });
        }
        if let QuantizerConfig::Fsq(fsq) = &self.quantizer {
            let product = fsq.levels.iter().try_fold(1usize, |all, &values| all.checked_mul(values));
            let each = !fsq.levels.is_empty() && fsq.levels.iter().all(|values| (2..=MOST_SCALARS).contains(values));
            if !each || product.is_none_or(|codes| codes > 65_536) {
                return Err(E::Scalars);
            }
        }
        if let Some(&size) = self.quantizer.codebook_sizes().iter().find(|&&size| !(2..=65_536).contains(&size)) {
            return Err(E::CodebookSize(size));
        }
        let Some(codebook) = self.quantizer.codebook() else { return Ok(()) };
        let range = |field, range, holds: bool| if holds { Ok(()) } else { Err(E::Range { field, range }) };
        range("decay", "at least 0 and below 1", (0.0..1.0).contains(&codebook.decay))?;
        range("smoothing", "above 0", codebook.smoothing > 0.0 && codebook.smoothing.is_finite())?;
        range("commitment", "0 or more", codebook.commitment >= 0.0 && codebook.commitment.is_finite())?;
        range("revive_below", "at least 0 and below 1", (0.0..1.0).contains(&codebook.revive_below))?;
        range("revive_every", "at least 1", codebook.revive_every > 0)
    }

    /// Bases on either side that a code of each level can see.
    #[must_use]
    pub fn code_halos(&self) -> Vec<usize> {
        let reach = |block: usize| STEM_KERNEL / 2 + block * (self.kernel / 2);
        match self.quantizer {
            QuantizerConfig::Hrq(_) => self.taps.iter().map(|&tap| reach(tap)).collect(),
            _ => vec![reach(self.blocks); self.quantizer.codebook_sizes().len()],
        }
    }

    /// Bases on either side that any code can see: the halo a piece needs for the codes of the whole.
    #[must_use]
    pub fn encoder_halo(&self) -> usize {
        STEM_KERNEL / 2 + self.blocks * (self.kernel / 2)
    }

    /// Positions on either side that a decoded base can see.
    #[must_use]
    pub fn decoder_halo(&self) -> usize {
        self.encoder_halo()
    }

    /// Fresh weights, a pure function of the seed.
    #[must_use]
    pub fn init(&self, seed: u64, device: &Device) -> Vqdna {
        let random = &mut stream(seed, "weights", &[]);
        let (stem, d, eps) = (self.d_stem, self.d_code, self.norm_eps);
        let blocks = |random: &mut _| -> Vec<ConvBlock> {
            (0..self.blocks).map(|_| ConvBlock::new(d, self.kernel, eps, random, device)).collect()
        };
        let encoder = Encoder {
            stem: Conv::new([stem, 4, STEM_KERNEL], random, device),
            norm: LayerNorm::new(stem, eps, device),
            proj: Linear::new(stem, d, random, device),
            blocks: blocks(random),
            taps: self.taps.clone(),
        };
        let decoder = Decoder {
            blocks: blocks(random),
            proj: Linear::new(d, stem, random, device),
            norm: LayerNorm::new(stem, eps, device),
            head: Conv::new([4, stem, STEM_KERNEL], random, device),
        };
        Vqdna { encoder, decoder, quantizer: self.quantizer.init(d, random, device) }
    }
}

/// Encoder, quantizer and decoder.
#[derive(Module, Debug)]
pub struct Vqdna {
    /// Bases to vectors.
    pub encoder: Encoder,
    /// Vectors to logits of bases.
    pub decoder: Decoder,
    /// Vectors to codes.
    pub quantizer: Quantizer,
}

/// What the network makes of a batch while it learns.
#[derive(Clone, Debug)]
pub struct Reconstruction {
    /// Logits of A, C, G, T, `[batch, bases, 4]`.
    pub logits: Tensor<3>,
    /// Codes and all that belongs to them.
    pub quantized: Quantized,
}

impl Vqdna {
    /// # Shapes
    /// - `batch`: `[batch, bases]`
    /// - output: see [`Reconstruction`]
    pub fn forward(&self, batch: &Batch) -> Reconstruction {
        let mask = batch.mask();
        let taps = self.encoder.forward(batch.bases.clone(), mask.clone());
        let quantized = self.quantizer.forward(&taps, &mask);
        let logits = self.decoder.forward(quantized.output.clone(), mask);
        Reconstruction { logits, quantized }
    }

    /// Codes of a batch, per level `[batch, bases]`; those at padding mean nothing.
    pub fn encode(&self, batch: &Batch) -> Vec<Tensor<2, Int>> {
        self.quantizer.encode(self.encoder.forward(batch.bases.clone(), batch.mask()))
    }

    /// Logits of the bases that codes stand for.
    ///
    /// # Shapes
    /// - `codes`: per level `[batch, bases]`; `padding`: `[batch, bases]`
    /// - output: `[batch, bases, 4]`
    pub fn decode(&self, codes: &[Tensor<2, Int>], padding: &Tensor<2, Bool>) -> Tensor<3> {
        self.decoder.forward(self.quantizer.decode(codes), padding.clone().bool_not().float())
    }
}

/// Prefix of codebooks inside the module; published names go without it.
const MODULE_PREFIX: &str = "quantizer.codebooks.";
const PUBLISHED_PREFIX: &str = "codebooks.";

/// What only training needs: left out when published, taken from the counts when loaded.
const RECENT: &str = ".recent";
const COUNTS: &str = ".counts";

/// Weights under their published names: those of the PyTorch definition of the network.
#[must_use]
pub fn publish(model: &Vqdna) -> Arrays {
    let mut arrays = rename(weights::collect(model), MODULE_PREFIX, PUBLISHED_PREFIX);
    arrays.retain(|name, _| !(name.starts_with(PUBLISHED_PREFIX) && name.ends_with(RECENT)));
    arrays
}

/// The model with weights that carry published names.
///
/// # Errors
/// If a name is missing, unknown, or has another shape.
pub fn load_published(model: Vqdna, arrays: Arrays) -> Result<Vqdna, WeightError> {
    let mut arrays = rename(arrays, PUBLISHED_PREFIX, MODULE_PREFIX);
    let counts = arrays.iter().filter(|(name, _)| name.starts_with(MODULE_PREFIX));
    let recent =
        counts.filter_map(|(name, array)| Some((name.strip_suffix(COUNTS)?.to_owned() + RECENT, array.clone())));
    arrays.extend(recent.collect::<Arrays>());
    weights::assign(model, &arrays)
        .map_err(|error| error.rename(|name| replace_prefix(name, MODULE_PREFIX, PUBLISHED_PREFIX)))
}

fn rename(arrays: Arrays, from: &str, to: &str) -> Arrays {
    arrays.into_iter().map(|(name, array)| (replace_prefix(name, from, to), array)).collect()
}

fn replace_prefix(name: String, from: &str, to: &str) -> String {
    name.strip_prefix(from).map(|rest| format!("{to}{rest}")).unwrap_or(name)
}

/// Stem, projection and blocks.
#[derive(Module, Debug)]
pub struct Encoder {
    /// One-hot bases to `d_stem`.
    pub stem: Conv,
    /// Norm before GELU.
    pub norm: LayerNorm,
    /// `d_stem` to `d_code`.
    pub proj: Linear,
    /// ConvNeXt blocks.
    pub blocks: Vec<ConvBlock>,
    taps: Vec<usize>,
}

impl Encoder {
    /// # Shapes
    /// - `bases`: `[batch, bases]`, N at padding
    /// - `mask`: `[batch, bases]`
    /// - output: per tap `[batch, bases, d_code]`
    pub fn forward(&self, bases: Tensor<2, Int>, mask: Tensor<2>) -> Vec<Tensor<3>> {
        let mut x = self.proj.forward(self.norm.forward_gelu(self.stem.forward_one_hot(bases)));
        let mut taps = Vec::new();
        for (n, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, mask.clone());
            if self.taps.contains(&(n + 1)) {
                taps.push(x.clone());
            }
        }
        taps
    }
}

/// Blocks, projection and a convolution to four logits.
#[derive(Module, Debug)]
pub struct Decoder {
    /// ConvNeXt blocks.
    pub blocks: Vec<ConvBlock>,
    /// `d_code` to `d_stem`.
    pub proj: Linear,
    /// Norm before GELU.
    pub norm: LayerNorm,
    /// `d_stem` to the four bases.
    pub head: Conv,
}

impl Decoder {
    /// # Shapes
    /// - `z`: `[batch, bases, d_code]`; `mask`: `[batch, bases]`
    /// - output: `[batch, bases, 4]`
    pub fn forward(&self, z: Tensor<3>, mask: Tensor<2>) -> Tensor<3> {
        let z = self.blocks.iter().fold(z, |z, block| block.forward(z, mask.clone()));
        let x = self.norm.forward_gelu(self.proj.forward(z)) * mask.unsqueeze_dim(2);
        self.head.forward_narrow(x)
    }
}
