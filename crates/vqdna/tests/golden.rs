//! Tokenizer and masked model agree with the PyTorch definition of the networks, on fused kernels and on Burn's own operations.
//!
//! Numbers come from `$VQDNA_GOLDEN/vqdna/*/{tokenizer,masked,training}.safetensors` (default: `../shared/golden` beside the
//! repository, else the copies in `fixtures/golden`); sizes come from the files' metadata. Those of a causal model come from
//! `fixtures/golden/causal`, which `benches/causal_golden.py` makes.

use burn::prelude::*;
use serde::Deserialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::batch::Batch;
use vqdna::batch::TokenBatch;
use vqdna::model::language::{self, LanguageModel, Masked};
use vqdna::objective::{Objective, reconstruct::Reconstruct};
use vqdna::ops::{Positions, with_composed_ops};
use vqdna::quantizer::codebook::CodebookConfig;
use vqdna::quantizer::{HrqConfig, Quantizer, QuantizerConfig};
use vqdna::tokenizer::Source;
use vqdna::tokenizer::vqdna::{Vqdna, VqdnaConfig, load_published, publish};
use vqdna::train::optimizer::{Adamw, AdamwConfig, Gradients};
use vqdna::weights::{Array, Arrays, read};

/// Largest difference, relative to the largest value of a tensor: f32 sums in another order.
const TOLERANCE: f32 = 1e-5;
/// The same for losses after up to twelve steps, over which differences grow.
const TRACE_TOLERANCE: f32 = 1e-4;

/// The config of the PyTorch network, as written in the metadata.
#[derive(Deserialize)]
struct PeerConfig {
    d_stem: usize,
    d_code: usize,
    blocks: usize,
    kernel: usize,
    taps: Vec<usize>,
    codebook_sizes: Vec<usize>,
    beta: f64,
    ema_decay: f64,
    eps: f64,
}

impl PeerConfig {
    fn ours(&self) -> VqdnaConfig {
        let codebook = CodebookConfig {
            decay: self.ema_decay,
            commitment: self.beta,
            revive_below: 0.0,
            ..CodebookConfig::default()
        };
        let quantizer = HrqConfig { codebook_sizes: self.codebook_sizes.clone(), codebook, ..HrqConfig::default() };
        VqdnaConfig {
            d_stem: self.d_stem,
            d_code: self.d_code,
            blocks: self.blocks,
            kernel: self.kernel,
            taps: self.taps.clone(),
            norm_eps: self.eps,
            quantizer: QuantizerConfig::Hrq(quantizer),
        }
    }
}

struct Golden {
    path: PathBuf,
    arrays: Arrays,
    metadata: HashMap<String, String>,
}

impl Golden {
    fn read(path: PathBuf) -> Self {
        let (arrays, metadata) = read(&path).unwrap_or_else(|e| panic!("{e}"));
        Self { path, arrays, metadata }
    }

    fn config(&self) -> VqdnaConfig {
        serde_json::from_str::<PeerConfig>(&self.metadata["config"]).expect("a peer config").ours()
    }

    fn part(&self, prefix: &str) -> Arrays {
        let strip = |(name, array): (&String, &Array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()));
        self.arrays.iter().filter_map(strip).collect()
    }

    fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let array = &self.arrays[name];
        Tensor::from_data(TensorData::new(array.values.clone(), array.shape.clone()), device)
    }

    fn model(&self, device: &Device) -> Vqdna {
        let model = self.config().init(0, device);
        load_published(model, self.part("w.")).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()))
    }

    fn batch(&self, suffix: &str, device: &Device) -> Batch {
        let bases = &self.arrays[&format!("in.bases{suffix}")];
        let real = &self.arrays[&format!("in.real{suffix}")];
        let shape: [usize; 2] = bases.shape.as_slice().try_into().expect("two axes");
        let ids: Vec<i32> = bases.values.iter().map(|&v| v as i32).collect();
        let padding: Vec<bool> = real.values.iter().map(|&v| v == 0.0).collect();
        let weight: Vec<f32> =
            ids.iter().zip(&real.values).map(|(&base, &real)| if base < 4 { real } else { 0.0 }).collect();
        Batch {
            bases: Tensor::from_data(TensorData::new(ids, shape), device),
            padding: Tensor::from_data(TensorData::new(padding, shape), device),
            weight: Tensor::from_data(TensorData::new(weight, shape), device),
        }
    }

    /// Compares with a tensor of the file, at real positions only if the tensor has positions.
    #[track_caller]
    fn check(&self, name: &str, got: &[f32], tolerance: f32) {
        let want = self.arrays.get(name).unwrap_or_else(|| panic!("{} has no `{name}`", self.path.display()));
        assert_eq!(got.len(), want.values.len(), "{name}");
        let real = &self.arrays.get("in.real");
        let skip = |i: usize| match real {
            Some(real) if want.shape.len() >= 2 && want.shape[..2] == real.shape[..] => {
                real.values[i * real.values.len() / got.len()] == 0.0
            }
            _ => false,
        };
        let largest = want.values.iter().fold(1e-30f32, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(&want.values).enumerate() {
            let close = (g - w).abs() <= tolerance * largest;
            assert!(skip(i) || close, "{}: {name}[{i}] is {g}, not {w} (largest {largest})", self.path.display());
        }
    }
}

/// Files of one kind, from every folder of golden numbers; empty with a printed line if there is none.
fn files(kind: &str) -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = match std::env::var_os("VQDNA_GOLDEN") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => vec![root.join("../shared/golden"), root.join("fixtures/golden")],
    };
    let folder = folders.iter().map(|f| f.join("vqdna")).find(|f| f.is_dir()).expect("a folder of golden numbers");
    let mut shapes: Vec<_> = std::fs::read_dir(&folder).expect("readable").map(|e| e.expect("entry").path()).collect();
    shapes.sort();
    let paths = shapes.iter().map(|shape| shape.join(kind)).filter(|path| path.is_file());
    let found: Vec<Golden> = paths.map(Golden::read).collect();
    assert!(!found.is_empty(), "no {kind} in {}", folder.display());
    found
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec_as::<f32>().expect("f32")
}

fn tokenizer_agrees(golden: &Golden) {
    let device = Device::flex().autodiff();
    let (model, batch) = (golden.model(&device), golden.batch("", &device));
    let objective = Reconstruct { config: golden.config(), seed: 0, start_rows: 0 };

    let made = model.forward(&batch);
    golden.check("out.logits", &values(made.logits), TOLERANCE);
    for (level, ((codes, mean), h)) in
        made.quantized.codes.iter().zip(&made.quantized.means).zip(&made.quantized.searched).enumerate()
    {
        golden.check(&format!("out.codes.{}", level + 1), &values(codes.clone().float()), 0.0);
        golden.check(&format!("out.mean.{}", level + 1), &values(mean.clone()), TOLERANCE);
        golden.check(&format!("out.h.{}", level + 1), &values(h.clone()), TOLERANCE);
    }

    let outcome = objective.forward(&model, &batch);
    for (name, part) in ["out.rec", "out.commit"].iter().zip(&outcome.parts) {
        golden.check(name, &values(part.1.clone()), TOLERANCE);
    }
    golden.check("out.loss", &values(outcome.loss.clone()), TOLERANCE);

    let gradients = Gradients::of(&model, &outcome.loss.backward()).to_arrays();
    let want = golden.part("grad.");
    assert_eq!(gradients.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "names of gradients");
    for (name, gradient) in &gradients {
        golden.check(&format!("grad.{name}"), &gradient.values, TOLERANCE);
    }

    let moved = publish(&objective.after_step(model, vec![outcome.carry], 1));
    for (name, array) in moved.iter().filter(|(name, _)| name.starts_with("codebooks.")) {
        golden.check(&format!("out.after.{name}"), &array.values, TOLERANCE);
    }
}

/// The config of the PyTorch encoder, as written in the metadata.
#[derive(Deserialize)]
struct PeerEncoderConfig {
    d_input: usize,
    d_model: usize,
    layers: usize,
    heads: usize,
    d_ff: usize,
    codebook_sizes: Vec<usize>,
    eps: f64,
    rope_theta: f64,
}

impl PeerEncoderConfig {
    /// ALiBi where no wavelength is given.
    fn model(&self, causal: bool, checkpoint: bool, device: &Device) -> LanguageModel {
        let positions =
            if self.rope_theta > 0.0 { Positions::Rotary { theta: self.rope_theta } } else { Positions::Alibi };
        let config = TransformerConfig {
            d_model: self.d_model,
            layers: self.layers,
            heads: self.heads,
            d_ff: self.d_ff,
            norm_eps: self.eps,
            positions,
            causal,
            pool: 1,
            checkpoint,
        };
        config.check().expect("a sound config");
        LanguageModel::new(&config.into(), Source::Vectors(self.d_input), &self.codebook_sizes, 0, device)
    }
}

fn language_model(golden: &Golden, causal: bool, checkpoint: bool, device: &Device) -> LanguageModel {
    let config: PeerEncoderConfig = serde_json::from_str(&golden.metadata["config"]).expect("a peer config");
    language::load_published(config.model(causal, checkpoint, device), golden.part("w."))
        .unwrap_or_else(|e| panic!("{}: {e}", golden.path.display()))
}

fn masked_model_agrees(golden: &Golden, checkpoint: bool) {
    let device = Device::flex().autodiff();
    let model = language_model(golden, false, checkpoint, &device);
    let vectors = golden.tensor::<3>("in.vectors", &device);
    let shape: [usize; 2] = golden.arrays["in.masked"].shape.as_slice().try_into().expect("two axes");
    let is_masked: Vec<bool> = golden.arrays["in.masked"].values.iter().map(|&v| v != 0.0).collect();
    let (masked, real) = (Masked::new(&is_masked, shape, &device), golden.tensor::<2>("in.real", &device));
    let levels = golden.part("in.codes.").len();
    let codes: Vec<Tensor<2, Int>> =
        (1..=levels).map(|level| golden.tensor::<2>(&format!("in.codes.{level}"), &device).int()).collect();

    let batch = TokenBatch::of_vectors(vectors, real);
    let hidden = model.hidden(&batch, Some(&masked)).states;
    golden.check("out.hidden", &values(hidden), TOLERANCE);
    let loss = model.loss(&batch, &masked, &codes);
    golden.check("out.loss", &values(loss.clone()), TOLERANCE);

    gradients_agree(golden, &published_gradients(&model, loss));
}

fn published_gradients(model: &LanguageModel, loss: Tensor<1>) -> Arrays {
    let gradients = Gradients::of(model, &loss.backward()).to_arrays();
    gradients.into_iter().map(|(name, array)| (language::published_name(&name).to_owned(), array)).collect()
}

fn gradients_agree(golden: &Golden, gradients: &Arrays) {
    let want = golden.part("grad.");
    assert_eq!(gradients.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "names of gradients");
    for (name, gradient) in gradients {
        golden.check(&format!("grad.{name}"), &gradient.values, TOLERANCE);
    }
}

/// Rotary positions and `ALiBi`; every position with a real one after it predicts that.
fn causal_models_agree(checkpoint: bool) {
    let device = Device::flex().autodiff();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden/causal");
    for golden in ["rotary", "alibi"].map(|kind| Golden::read(folder.join(format!("{kind}.safetensors")))) {
        let model = language_model(&golden, true, checkpoint, &device);
        let is_real = &golden.arrays["in.real"];
        let shape: [usize; 2] = is_real.shape.as_slice().try_into().expect("two axes");
        let [batch, length] = shape;
        let has_next = |at: usize| at % length + 1 < length && is_real.values[at + 1] > 0.0;
        let predicting: Vec<bool> = (0..batch * length).map(has_next).collect();
        let nowhere = vec![false; batch * length];
        let targets = Masked::with_targets(&nowhere, &predicting, shape, 1, &device);
        let next = |level: usize| {
            let ids = golden.tensor::<2>(&format!("in.codes.{level}"), &device).int();
            Tensor::cat(vec![ids.clone().narrow(1, 1, length - 1), ids.narrow(1, 0, 1)], 1)
        };
        let next: Vec<_> = (1..=golden.part("in.codes.").len()).map(next).collect();
        let inputs =
            TokenBatch::of_vectors(golden.tensor::<3>("in.vectors", &device), golden.tensor::<2>("in.real", &device));
        golden.check("out.hidden", &values(model.hidden(&inputs, None).states), TOLERANCE);
        let loss = model.loss(&inputs, &targets, &next);
        golden.check("out.loss", &values(loss.clone()), TOLERANCE);
        let mut gradients = published_gradients(&model, loss);
        // No position is masked.
        assert!(gradients.remove("mask_vector").is_none_or(|gradient| gradient.values.iter().all(|&v| v == 0.0)));
        gradients_agree(&golden, &gradients);
    }
}

#[derive(Deserialize)]
struct Trace {
    lr: f64,
    warmup: u64,
    clip: f64,
    weight_decay: f64,
    steps: u64,
}

fn training_agrees(golden: &Golden) {
    let device = Device::flex().autodiff();
    let trace: Trace = serde_json::from_str(&golden.metadata["extra"]).expect("settings of the trace");
    let objective = Reconstruct { config: golden.config(), seed: 0, start_rows: 0 };
    let settings = AdamwConfig { weight_decay: trace.weight_decay, clip: trace.clip, ..AdamwConfig::default() };
    let schedule = vqdna::train::schedule::ScheduleConfig {
        rate: trace.lr,
        warmup_steps: Some(trace.warmup),
        ..vqdna::train::schedule::ScheduleConfig::default()
    };
    let (mut model, mut optimizer) = (golden.model(&device), Adamw::new(&settings));
    let (mut losses, mut norms, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..trace.steps {
        let outcome = objective.forward(&model, &golden.batch(&format!(".{step}"), &device));
        losses.extend(values(outcome.loss.clone()));
        let gradients = Gradients::of(&model, &outcome.loss.backward());
        let rate = schedule.rate_at(step, trace.steps);
        let (stepped, norm) = optimizer.step(model, gradients, rate, 1.0);
        model = objective.after_step(stepped, vec![outcome.carry], step + 1);
        norms.push(norm as f32);
        rates.push(rate as f32);
    }
    golden.check("out.rates", &rates, TOLERANCE);
    golden.check("out.losses", &losses, TRACE_TOLERANCE);
    golden.check("out.grad_norms", &norms, TRACE_TOLERANCE);
    for (name, array) in publish(&model) {
        golden.check(&format!("out.final.{name}"), &array.values, FINAL_TOLERANCE);
    }
}

/// Weights after the trace: AdamW divides small gradients by their own size, which magnifies rounding.
const FINAL_TOLERANCE: f32 = 2e-3;

#[test]
fn tokenizer_on_fused_kernels() {
    for golden in files("tokenizer.safetensors") {
        tokenizer_agrees(&golden);
    }
}

#[test]
fn tokenizer_on_composed_operations() {
    for golden in files("tokenizer.safetensors") {
        with_composed_ops(|| tokenizer_agrees(&golden));
    }
}

#[test]
fn masked_model_on_fused_kernels() {
    for golden in files("masked.safetensors") {
        masked_model_agrees(&golden, false);
        masked_model_agrees(&golden, true);
    }
}

#[test]
fn masked_model_on_composed_operations() {
    for golden in files("masked.safetensors") {
        with_composed_ops(|| masked_model_agrees(&golden, false));
        with_composed_ops(|| masked_model_agrees(&golden, true));
    }
}

#[test]
fn causal_model_on_fused_kernels() {
    causal_models_agree(false);
    causal_models_agree(true);
}

#[test]
fn causal_model_on_composed_operations() {
    with_composed_ops(|| causal_models_agree(false));
    with_composed_ops(|| causal_models_agree(true));
}

#[test]
fn twelve_steps_on_fused_kernels() {
    for golden in files("training.safetensors") {
        training_agrees(&golden);
    }
}

#[test]
fn twelve_steps_on_composed_operations() {
    for golden in files("training.safetensors") {
        with_composed_ops(|| training_agrees(&golden));
    }
}

#[test]
fn published_names_are_those_of_the_definition() {
    for golden in files("tokenizer.safetensors") {
        let model = golden.model(&Device::flex());
        assert!(matches!(model.quantizer, Quantizer::Hierarchy(_)));
        assert_eq!(publish(&model), golden.part("w."), "weights survive the way in and out");
    }
    for golden in files("masked.safetensors") {
        let published = language::publish(&language_model(&golden, false, false, &Device::flex()));
        assert_eq!(published, golden.part("w."), "weights survive the way in and out");
    }
}
