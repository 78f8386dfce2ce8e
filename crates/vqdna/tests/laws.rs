//! What holds for every quantizer, tokenizer and backbone. A new kind is tested by being listed in `quantizers` here.

mod backbone;
mod codebook;
mod generate;
mod joint;
mod lora;
mod masked;
mod mxdna;
mod next;
mod quantizer;
mod tokenizer;

use burn::prelude::*;

use crate::host::{noise, tensor};
use vqdna::quantizer::codebook::{CodebookConfig, Revival};
use vqdna::quantizer::fsq::FsqConfig;
use vqdna::quantizer::gradient::GradientRule;
use vqdna::quantizer::{HrqConfig, HrqRule, Quantizer, QuantizerConfig, RqConfig, VqConfig};
use vqdna::seed::stream;

/// f32 sums in another order, and `z + (q − z)` in place of `q`.
const ROUNDING: f32 = 1e-6;

/// Every kind of quantizer, with names for messages.
fn quantizers() -> Vec<(&'static str, QuantizerConfig)> {
    let codebook = CodebookConfig::default;
    let hrq = |codebook_sizes: &[usize], rule| {
        QuantizerConfig::Hrq(HrqConfig { codebook_sizes: codebook_sizes.to_vec(), rule, codebook: codebook() })
    };
    let rotation = CodebookConfig { gradient: GradientRule::Rotation, ..codebook() };
    vec![
        ("vq", QuantizerConfig::Vq(VqConfig { codebook_size: 16, codebook: codebook() })),
        ("vq with rotation", QuantizerConfig::Vq(VqConfig { codebook_size: 16, codebook: rotation })),
        ("hrq mean", hrq(&[8, 16], HrqRule::Mean)),
        ("hrq paper", hrq(&[8, 16], HrqRule::Paper)),
        ("hrq mean of 3", hrq(&[4, 8, 16], HrqRule::Mean)),
        ("hrq paper of 3", hrq(&[4, 8, 16], HrqRule::Paper)),
        ("rq", QuantizerConfig::Rq(RqConfig { codebook_sizes: vec![8, 16], codebook: codebook() })),
        ("fsq", QuantizerConfig::Fsq(FsqConfig { levels: vec![5, 4, 3] })),
    ]
}

/// `config` with another way of revival.
fn reviving(config: &QuantizerConfig, revive: Revival, revive_below: f64) -> QuantizerConfig {
    let mut config = config.clone();
    let set = |codebook: &mut CodebookConfig| *codebook = CodebookConfig { revive, revive_below, ..codebook.clone() };
    match &mut config {
        QuantizerConfig::Vq(vq) => set(&mut vq.codebook),
        QuantizerConfig::Hrq(hrq) => set(&mut hrq.codebook),
        QuantizerConfig::Rq(rq) => set(&mut rq.codebook),
        QuantizerConfig::Fsq(_) => {}
    }
    config
}

const D_CODE: usize = 6;
const SEED: u64 = 5;
/// Rows that k-means sees.
const SAMPLE: usize = 600;

/// The values of the taps at `[batch, bases]`, later ones larger, as in a residual network.
fn tap_values(config: &QuantizerConfig, seed: u64, [batch, bases]: [usize; 2]) -> Vec<Vec<f32>> {
    let scaled = |tap: usize, values: Vec<f32>| values.into_iter().map(|v| v * (1.0 + tap as f32)).collect();
    (0..config.taps()).map(|tap| scaled(tap, noise(seed + 100 * tap as u64, batch * bases * D_CODE))).collect()
}

fn taps(config: &QuantizerConfig, seed: u64, shape: [usize; 2], device: &Device) -> Vec<Tensor<3>> {
    let [batch, bases] = shape;
    tap_values(config, seed, shape).iter().map(|values| tensor(values, [batch, bases, D_CODE], device)).collect()
}

/// Rows for k-means.
fn sample(config: &QuantizerConfig) -> Vec<Tensor<2>> {
    let taps = taps(config, SEED, [1, SAMPLE], &Device::flex());
    taps.into_iter().map(|tap| tap.reshape([SAMPLE, D_CODE])).collect()
}

/// A quantizer with codebooks set from data.
fn started(config: &QuantizerConfig, device: &Device) -> Quantizer {
    config.init(D_CODE, &mut stream(SEED, "weights", &[]), device).initialise(&sample(config), 100, SEED, &|| true)
}

fn all_real(shape: [usize; 2]) -> Tensor<2> {
    Tensor::ones(shape, &Device::flex())
}
