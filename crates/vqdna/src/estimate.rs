//! The memory that a training step will take at its peak, from sizes alone: before a device opens or a file is read.
//!
//! The count follows what is in memory when the backward pass begins, which is when a step needs most: everything that the
//! forward pass kept, and what the first backward kernel works in. It is for the fused kernels of the CPU, and within 20 % of the
//! measured peak for the presets `small` and `base` (`docs/guide.md`, "Memory"). Sizes are bytes; `rows` are bases of a micro-batch.

use crate::backbone::transformer::TransformerConfig;
use crate::head::sequence::HeadKind;
use crate::objective::supervised::POSITIONS_TOGETHER;
use crate::ops::{Positions, Precision};
use crate::quantizer::QuantizerConfig;
use crate::run::config::{CodesFrom, DataConfig};
use crate::run::finetune::{FinetuneConfig, Mode, ReverseComplement};
use crate::run::learn::{LearnConfig, START_ROWS};
use crate::run::mxdna::PretrainMxdnaConfig;
use crate::run::pretrain::PretrainConfig;
use crate::tokenizer::mxdna::{Grid, LETTERS, MxdnaConfig, groups};
use crate::tokenizer::vqdna::{STEM_KERNEL, VqdnaConfig};
use crate::train::TrainConfig;
use crate::transcode::encode::BASES_TOGETHER;

/// What a backward pass finds of its forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Wide layers are computed again: see [`crate::ops::with_recomputation`].
    pub recompute: bool,
    /// Only the input of each transformer layer is kept: see [`TransformerConfig::checkpoint`].
    pub checkpoint: bool,
}

/// The size of a micro-batch, and how it is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Sequences.
    pub batch: usize,
    /// Bases of a sequence.
    pub length: usize,
    /// Whether wide layers are computed again: see [`crate::ops::with_recomputation`].
    pub recompute: bool,
    /// How products are computed: in bf16, what they need is kept in it too.
    pub precision: Precision,
    /// Threads of the pool.
    pub threads: usize,
}

impl Step {
    /// A step of a run.
    fn of(train: &TrainConfig, data: &DataConfig, threads: usize) -> Self {
        let TrainConfig { batch, recompute, precision, .. } = *train;
        Self { batch, length: data.length, recompute, precision, threads }
    }

    /// Floats that so many numbers take where they are kept in the precision of products.
    fn units(&self, numbers: u64) -> u64 {
        match self.precision {
            Precision::F32 => numbers,
            Precision::Bf16 => numbers.div_ceil(2),
        }
    }

    fn rows(&self) -> u64 {
        size(self.batch).saturating_mul(size(self.length))
    }
}

/// Bytes in memory at the peak of training, by what they are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Numbers of the module, codebooks and their averages included: what `num_params` of the module counts.
    pub numbers: u64,
    /// Those that the optimiser moves.
    pub learned: u64,
    /// The program before it does anything, its libraries and threads.
    pub program: u64,
    /// 4 bytes a number (`weights::uniform` and its relatives).
    pub parameters: u64,
    /// 4 bytes a learned number (the backward passes of `ops::flex`), less the place of what was kept: a backward pass finds the former
    /// as it drops the latter.
    pub gradients: u64,
    /// 8 bytes a learned number (`train::optimizer::Adamw`).
    pub moments: u64,
    /// What the forward pass keeps for the backward pass (the states of `ops::flex`): rows times the widths that each operation
    /// keeps.
    pub kept: u64,
    /// What comes and goes: gradients of rows, the groups of rows in `kernels::mlp`, weights in the order of a kernel, scratch of
    /// threads; or what is needed before the first step or between two, where that is more.
    pub work: u64,
    /// The micro-batch (`batch::Batch`) and the bases that it is drawn from (`vqdna_data::corpus`).
    pub data: u64,
}

impl Memory {
    /// All parts.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.parts().iter().fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }

    /// Each part with its name.
    #[must_use]
    pub fn parts(&self) -> [(&'static str, u64); 7] {
        [
            ("program", self.program),
            ("parameters", self.parameters),
            ("gradients", self.gradients),
            ("moments", self.moments),
            ("kept", self.kept),
            ("work", self.work),
            ("data", self.data),
        ]
    }

    fn of_module(numbers: u64, learned: u64, threads: usize) -> Self {
        Self {
            numbers,
            learned,
            program: PROGRAM.saturating_add(size(threads).saturating_mul(THREAD)),
            parameters: floats(numbers),
            moments: floats(learned).saturating_mul(2),
            ..Self::default()
        }
    }

    /// With gradients in the place of what was kept.
    fn with_gradients(mut self) -> Self {
        self.gradients = floats(self.learned).saturating_sub(self.kept);
        self
    }

    /// With room for `bytes` at a moment when neither activations nor gradients are held.
    fn besides_steps(mut self, bytes: u64) -> Self {
        let shared = self.kept.saturating_add(self.gradients).saturating_add(self.work);
        self.work = self.work.saturating_add(bytes.saturating_sub(shared));
        self
    }

    /// With what a run holds besides a step.
    fn of_run(self, train: &TrainConfig, data: &DataConfig, bases: u64) -> Self {
        let mut memory = self.with_checkpoints(0);
        memory.data = memory.data.saturating_add(corpus(data, bases));
        // The sum over micro-batches has gradients of its own while those of the next are found.
        if train.accumulate > 1 {
            memory.gradients = memory.gradients.saturating_add(floats(memory.learned));
        }
        memory
    }

    /// With checkpoints: copies of all numbers, of `others` and of moments on the host (`train::Training::save`), and the moments as
    /// bytes and as the file that is written (`weights::write`).
    #[must_use]
    pub fn with_checkpoints(self, others: u64) -> Self {
        let arrays = floats(self.numbers.saturating_add(others)).saturating_add(floats(self.learned).saturating_mul(2));
        self.besides_steps(arrays.saturating_add(floats(self.learned).saturating_mul(4)))
    }
}

/// Resident before any work: code, libraries, the allocator.
const PROGRAM: u64 = 24 << 20;
/// Stack and scratch of a thread of the pool.
const THREAD: u64 = 2 << 20;
/// Rows whose gradients `kernels::mlp` computes together.
const GROUP: u64 = 2048;
/// Floats of gradients of logits that `kernels::cross_entropy` keeps.
const LOGITS: u64 = 1 << 21;
/// Sequences beyond this have gradients of queries in parts, as many at a time as `ATTENTION_PARTS` times the threads
/// (`kernels::attention`).
const ATTENTION_KEYS: u64 = 512;
const ATTENTION_PARTS: u64 = 4;
/// Weight gradients of a block beside the weights in two orders, in matrices of its inner layer: `up`, `down` and a transpose.
const MATRICES: u64 = 5;
/// Masked positions, as a share of all: 1 in so many.
const MASKED: u64 = 4;

fn size(n: usize) -> u64 {
    n as u64
}

fn floats(count: u64) -> u64 {
    count.saturating_mul(4)
}

/// Rows whose inner layer exists at a time in a backward pass: groups of equal size, as `kernels::mlp` forms them.
fn group(rows: u64) -> u64 {
    rows.div_ceil(rows.div_ceil(GROUP).max(1))
}

/// Floats of a linear layer.
fn linear(d_in: u64, d_out: u64) -> u64 {
    d_out * (d_in + 1)
}

/// A run of `vqdna learn` on inputs of about `bases` bases.
#[must_use]
pub fn learn(run: &LearnConfig, bases: u64, threads: usize) -> Memory {
    let step = Step::of(&run.train, &run.data, threads);
    let memory = learn_step(&run.tokenizer, &step).of_run(&run.train, &run.data, bases);
    match run.tokenizer.quantizer.codebook() {
        Some(codebook) if codebook.kmeans_iterations > 0 => memory.besides_steps(start(run, &step, bases)),
        _ => memory,
    }
}

/// A run of `vqdna pretrain` over a vocabulary, on inputs of about `bases` bases. Cached codes are read from their file window by
/// window, so they take no memory.
#[must_use]
pub fn pretrain(run: &PretrainConfig, vocabulary: &VqdnaConfig, bases: u64, threads: usize) -> Memory {
    let step = Step::of(&run.train, &run.data, threads);
    let sizes = vocabulary.quantizer.codebook_sizes();
    let mut memory =
        pretrain_step(&run.backbone, vocabulary.d_code, &sizes, &step).of_run(&run.train, &run.data, bases);
    let frozen = learn_step(vocabulary, &Step { batch: 0, ..step }).numbers;
    memory.numbers = memory.numbers.saturating_add(frozen);
    memory.parameters = memory.parameters.saturating_add(floats(frozen));
    let halo = 2 * size(vocabulary.encoder_halo());
    let rows = match run.data.codes.unwrap_or_default() {
        CodesFrom::Cached => size(BASES_TOGETHER).saturating_add(halo),
        CodesFrom::OnTheFly => size(step.batch).saturating_mul(size(step.length).saturating_add(halo)),
    };
    memory.besides_steps(encode(vocabulary, rows).saturating_add(floats(frozen)))
}

/// Codes of so many bases: a block's input, output and convolution, and what the quantizer keeps of each tap.
fn encode(vocabulary: &VqdnaConfig, rows: u64) -> u64 {
    let (d_stem, d) = (size(vocabulary.d_stem), size(vocabulary.d_code));
    let taps = size(vocabulary.taps.len());
    floats(rows.saturating_mul(d_stem + (3 + taps) * d).saturating_add(group(rows) * 4 * d))
}

/// Bases one byte each, up to the limit of memory, and windows. The longest record is held besides while it is read, before there is
/// anything else.
fn corpus(data: &DataConfig, bases: u64) -> u64 {
    let kept = bases.min(data.memory_megabases.saturating_mul(1_000_000));
    let windows = bases / size(data.windowing().stride).max(1);
    // A window has a place in a table and one in the order of an epoch, of which two are held.
    kept.saturating_add(windows.saturating_mul(24))
}

/// K-means before the first step: rows of every tap, twice while they are joined, then three times more while a level is searched
/// (`objective::reconstruct`, `quantizer::hierarchy`).
fn start(run: &LearnConfig, step: &Step, bases: u64) -> u64 {
    let batches = size(START_ROWS).div_ceil(step.rows().max(1)).max(1);
    // Batches come round again where there are few bases, so only the batch bounds the rows.
    let rows = batches.saturating_mul(step.rows().min(bases.max(1)));
    let taps = size(run.tokenizer.quantizer.taps());
    floats(rows.saturating_mul(size(run.tokenizer.d_code)).saturating_mul(2 * taps + 3))
}

/// A step of stage 1: [`Reconstruct`](crate::objective::reconstruct::Reconstruct) and the optimiser.
#[must_use]
pub fn learn_step(config: &VqdnaConfig, step: &Step) -> Memory {
    let (rows, here) = (step.rows(), group(step.rows()));
    let (d_stem, d, kernel, blocks) =
        (size(config.d_stem), size(config.d_code), size(config.kernel), size(config.blocks));
    let taps = size(STEM_KERNEL);
    let block = d * (kernel + 1) + 2 * d + linear(d, 4 * d) + linear(4 * d, d);
    let encoder = linear(4 * taps, d_stem) + 2 * d_stem + linear(d_stem, d) + blocks * block;
    let decoder = blocks * block + linear(d, d_stem) + 2 * d_stem + linear(taps * d_stem, 4);
    let codes: u64 = config.quantizer.codebook_sizes().iter().map(|&codes| size(codes)).sum();
    let levels = size(config.quantizer.codebook_sizes().len());
    let (learned, averaged, quantizer) = match &config.quantizer {
        QuantizerConfig::Fsq(fsq) => {
            let channels = size(fsq.levels.len());
            // Bounded, rounded and scaled channels, about a dozen times; what is widened, and again without padding.
            (linear(d, channels) + linear(channels, d), 0, 12 * channels + d)
        }
        // Codes and their sums, counts twice. A level keeps what it is compared with, the difference and its square.
        _ => (0, codes * (2 * d + 2), levels * (3 * d + 2)),
    };
    let inner = if step.recompute { 0 } else { step.units(4 * d) };
    // Stem before and after its norm, the projection, every block its output and the input of GELU.
    let encoder_kept = 2 * d_stem + d + blocks * (d + inner);
    // Vectors without padding, blocks, the projection, the same after GELU; four logits of each of five taps, twice, and the loss.
    let decoder_kept = d + blocks * (d + inner) + 2 * d_stem + 2 * 4 * taps + 16;
    let mut memory =
        Memory::of_module(encoder + decoder + learned + averaged, encoder + decoder + learned, step.threads);
    memory.kept = floats(rows.saturating_mul(encoder_kept + quantizer + decoder_kept));
    // The gradient of a block's output, of its input and of its convolution.
    let gradients = rows.saturating_mul(3 * d.max(d_stem));
    // Rows after the norm, the inner layer and its gradient.
    let grouped = here * (d + 2 * step.units(4 * d));
    memory.work = floats(gradients.saturating_add(grouped).saturating_add(MATRICES * 4 * d * d));
    memory.data = floats(rows.saturating_mul(6 + 2 * levels));
    memory.with_gradients()
}

/// An encoder: its numbers, and the floats that a step keeps of it and works in.
struct Encoder {
    numbers: u64,
    /// Numbers of the mask vector, which only pre-training learns.
    mask_vector: u64,
    kept: u64,
    work: u64,
}

/// A step through an encoder; positions are pools of the bases of `step`. The last layer may be asked for some rows alone.
fn encoder(config: &TransformerConfig, d_input: usize, step: &Step, asked: Option<u64>) -> Encoder {
    let step = &Step { length: step.length.div_ceil(config.pool.max(1)), ..*step };
    let (rows, here) = (step.rows(), group(step.rows()));
    let (d, inner, heads, layers) = (size(config.d_model), size(config.d_ff), size(config.heads), size(config.layers));
    let layer = linear(d, 3 * d) + linear(d, d) + linear(d, inner) + linear(inner, d) + 4 * d;
    // Queries, keys and values, what was attended to, and a number a head; then the input of GELU.
    let (attention, mlp) = (step.units(4 * d) + heads, step.units(inner));
    let per_layer = match (config.checkpoint, step.recompute) {
        (true, _) => d,
        (false, true) => 2 * d,
        (false, false) => 2 * d + attention + mlp,
    };
    let apart = !config.checkpoint && matches!(config.positions, Positions::Rotary { .. });
    let (per_row, per_asked) = match asked.filter(|_| apart) {
        // Of the last layer the norm and attention of all rows; of those asked for the rest, and the last norm.
        Some(_) => (
            layers.saturating_sub(1) * per_layer + 2 * d + attention,
            2 * d + if step.recompute { d } else { d + mlp } + 2 * d,
        ),
        // The last norm keeps its input.
        None => (layers * per_layer + 2 * d, 0),
    };
    let backward = match (config.checkpoint, step.recompute) {
        // Gradients of a layer's output and input; of what was attended to. That of queries, keys and values takes the place of
        // the inner layer that was kept.
        (false, false) => 3 * d,
        // Queries, keys, values and what was attended to, found again, and the gradients of both.
        (false, true) => 4 * d + attention,
        // One layer as a graph of its own, and the gradient of its output as a product.
        (true, recompute) => 3 * d + if recompute { 4 * d + attention } else { d + attention + mlp },
    };
    let long = if size(step.length) > ATTENTION_KEYS { ATTENTION_PARTS * size(step.threads) } else { 0 };
    let attended = size(step.length).saturating_mul(d / heads.max(1)).saturating_mul(1 + long);
    let work =
        rows.saturating_mul(backward).saturating_add(here * (d + 2 * step.units(inner))).saturating_add(attended);
    Encoder {
        numbers: linear(size(d_input), d) + d + layers * layer + 2 * d,
        mask_vector: d,
        kept: rows.saturating_mul(per_row).saturating_add(asked.unwrap_or(0).saturating_mul(per_asked)),
        work: work.saturating_add(MATRICES * d * inner),
    }
}

/// A step of stage 2: [`MaskedModel`](crate::objective::masked::MaskedModel) over code vectors `d_input` wide, and the optimiser.
#[must_use]
pub fn pretrain_step(config: &TransformerConfig, d_input: usize, codebook_sizes: &[usize], step: &Step) -> Memory {
    let (d, pool, levels) = (size(config.d_model), size(config.pool).max(1), size(codebook_sizes.len()));
    let masked = step.rows().div_ceil(pool).div_ceil(MASKED);
    let encoder = encoder(config, d_input, step, Some(masked));
    let classifiers: u64 = codebook_sizes.iter().map(|&codes| linear(d, size(codes))).sum();
    let head = linear(d, d) + 2 * d + pool * classifiers;
    let mut memory = Memory::of_module(encoder.numbers + head, encoder.numbers + head, step.threads);
    // The head keeps masked rows before and after its layer, its norm and GELU.
    memory.kept = floats(encoder.kept.saturating_add(masked.saturating_mul(4 * d + pool * levels)));
    let logits = LOGITS.min(masked.saturating_mul(size(codebook_sizes.iter().copied().max().unwrap_or(0))));
    memory.work = floats(encoder.work.saturating_add(logits));
    memory.data = floats(step.rows().saturating_mul(size(d_input) + levels + 2));
    memory.with_gradients()
}

/// A run of `vqdna pretrain --tokenizer mxdna` on inputs of about `bases` bases.
#[must_use]
pub fn pretrain_mxdna(run: &PretrainMxdnaConfig, bases: u64, threads: usize) -> Memory {
    let step = Step::of(&run.train, &run.data, threads);
    mxdna_step(&run.mxdna, run.masking.share, &step).of_run(&run.train, &run.data, bases)
}

/// A step of a model that cuts sequences itself, [`LetterModel`](crate::objective::letters::LetterModel), and the optimiser. How many
/// units there will be is guessed from the sizes of the experts.
#[must_use]
pub fn mxdna_step(config: &MxdnaConfig, masked: f64, step: &Step) -> Memory {
    let (d, inner, heads) = (size(config.d_model), size(config.d_ff), size(config.heads));
    let (base_layers, unit_layers) = (size(config.base_layers), size(config.unit_layers));
    let sizes: Vec<u64> = config.units.sizes.iter().map(|&bases| size(bases)).collect();
    let layer = 4 * d * d + 3 * d * inner + 4 * d;
    let groups_of = |bases: u64| size(groups(config.d_model, bases as usize)).max(1);
    let expert = |&bases: &u64| 3 * d * d + d * (d / groups_of(bases)) * bases + 2 * d;
    let tokenizer =
        4 * d + size(sizes.len()) * d + sizes.iter().map(expert).sum::<u64>() + 3 * d * d + 2 * 3 * (3 * d + 1);
    let letters = size(LETTERS);
    let head = layer + linear(d, d) + 4 * d + linear(d, letters);
    let numbers = letters * d + (base_layers + unit_layers) * layer + tokenizer + 2 * d + head;

    let rows = size(step.batch).saturating_mul(size(step.length).saturating_add(2));
    let mean = sizes.iter().sum::<u64>() as f64 / sizes.len().max(1) as f64;
    let units = match config.units.grid {
        Grid::Compact => (rows as f64 / (SHORTER * mean).max(1.0)).ceil() as u64,
        Grid::Sparse => rows,
    };
    let asked = (rows as f64 * masked).ceil() as u64;
    let pre = if step.recompute { 0 } else { step.units(2 * inner) };
    // Queries, keys and values, what was attended to, and a number a head; then both sides of the gate.
    let attention = if step.recompute { 0 } else { step.units(4 * d) + heads };
    let per_base_layer = 2 * d + attention + pre;
    // Norm, jitter, what is scored; of an expert values and gates.
    let per_base = base_layers * per_base_layer + 4 * d + step.units(2 * d);
    // The norm, its output, queries, keys and values as rows and as kept, what was attended to twice, and the sum.
    let per_unit_layer = 5 * d + step.units(4 * d) + heads + pre;
    // An expert after its convolution and at its end, that times a probability, and the assembly.
    let per_unit = 3 * d + 9 * d + unit_layers * per_unit_layer + 2 * d;
    // Back to bases: queries beside empty keys and values, then the head.
    let back = asked.saturating_add(units).saturating_mul(6 * d + step.units(4 * d));
    let back = back.saturating_add(asked.saturating_mul(8 * d + pre));
    let mut memory = Memory::of_module(numbers, numbers, step.threads);
    // Weights that read the same rows, joined.
    let joined = (base_layers + unit_layers + 1) * (3 * d * d + 2 * d * inner) + sizes.iter().map(expert).sum::<u64>();
    let kept = rows.saturating_mul(per_base).saturating_add(units.saturating_mul(per_unit)).saturating_add(back);
    memory.kept = floats(kept.saturating_add(joined));
    // Gradients of rows, the group of a feed-forward part, and weights in other orders.
    let grouped = group(rows) * (d + step.units(3 * inner));
    memory.work = floats(rows.saturating_mul(3 * d).saturating_add(grouped).saturating_add(MATRICES * 2 * d * inner));
    memory.data = floats(rows.saturating_mul(d + 4));
    // Most weights are those of units, which keep little: no place is left for their gradients.
    memory.gradients = floats(numbers);
    memory
}

/// Bases of a unit as a share of the mean size of the experts. Trained models cut longer ones, and take less.
const SHORTER: f64 = 0.6;

/// Labelled sequences, by what they take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Labelled {
    /// Bases of all sequences.
    pub bases: u64,
    /// Sequences to train on.
    pub rows: u64,
    /// Bases of the longest one, or of the longest pair.
    pub longest: usize,
    /// Classes, labels or values.
    pub outputs: usize,
}

/// A run of `vqdna finetune`: an encoder over a vocabulary (none for a probe of code vectors), and what it learns from. `pretrained`
/// says that the encoder is loaded, so that there are two of it.
#[must_use]
pub fn finetune(
    run: &FinetuneConfig,
    network: Option<&TransformerConfig>,
    pretrained: bool,
    vocabulary: &VqdnaConfig,
    data: &Labelled,
    threads: usize,
) -> Memory {
    let TrainConfig { batch, recompute, precision, .. } = run.train;
    let step = Step { batch, length: data.longest, recompute, precision, threads };
    let (d_code, levels) = (vocabulary.d_code, size(vocabulary.quantizer.codebook_sizes().len()));
    let encoder = network.map(|network| encoder(network, d_code, &step, None));
    let d = network.map_or(size(d_code), |network| size(network.d_model));
    let inner = (run.head.kind == HeadKind::Mlp).then(|| run.head.d_hidden.map_or(d, size));
    let head = inner.map_or(0, |inner| linear(d, inner)) + linear(inner.unwrap_or(d), size(data.outputs));
    let backbone = encoder.as_ref().map_or(0, |encoder| encoder.numbers);
    let adapters = network.map_or(0, |network| size(network.layers * run.lora.numbers(network.d_model, network.d_ff)));
    let (numbers, learned) = match run.mode {
        Mode::Probe => (backbone + head, head),
        Mode::Lora => (backbone + adapters + head, adapters + head),
        Mode::Full => (backbone + head, backbone + head - encoder.as_ref().map_or(0, |encoder| encoder.mask_vector)),
    };
    let mut memory = Memory::of_module(numbers, learned, threads);
    let batch = floats(step.rows().saturating_mul(size(d_code) + levels + 2));
    match (run.mode, &encoder) {
        (Mode::Lora | Mode::Full, Some(encoder)) => {
            memory.kept = floats(encoder.kept);
            memory.work = floats(encoder.work);
            memory.data = batch;
        }
        // Features of all sequences, and again where they are brought to one scale.
        _ => memory.data = floats(data.rows.saturating_mul(2 * d)),
    }
    memory = memory.with_gradients();
    // With every checkpoint goes the best evaluation's model.
    memory = memory.with_checkpoints(numbers);
    let frozen = learn_step(vocabulary, &Step { batch: 0, ..step }).numbers;
    let loaded = if pretrained { backbone } else { 0 };
    // That model is kept as well.
    let known = frozen.saturating_add(loaded).saturating_add(memory.numbers);
    memory.numbers = memory.numbers.saturating_add(frozen).saturating_add(loaded);
    memory.parameters = floats(known.saturating_add(numbers));
    // Letters, and the codes of one strand or both.
    let strands = if run.reverse_complement == ReverseComplement::None { 1 } else { 2 };
    memory.data = memory.data.saturating_add(data.bases.saturating_mul(1 + 2 * levels * strands));
    // An evaluation sees this many positions at a time, of which a layer's widest moment holds eight vectors.
    let positions = size(POSITIONS_TOGETHER).min(data.bases);
    let evaluated = floats(positions.saturating_mul(2 * size(d_code) + 8 * d / network.map_or(1, |n| size(n.pool))));
    let coded = encode(vocabulary, size(BASES_TOGETHER).min(data.bases));
    // At the end the model is copied to the host and made a file; adapters are folded into a copy first.
    let copies = if run.mode == Mode::Lora { 3 } else { 2 };
    let saved = floats(frozen.saturating_add(numbers)).saturating_mul(copies);
    memory.besides_steps(evaluated.max(coded).max(saved))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objective::masked::MaskedModel;
    use crate::tokenizer::vqdna::{Kind, Preset};
    use burn::prelude::*;

    const PRESETS: [Preset; 3] = [Preset::Tiny, Preset::Small, Preset::Base];
    const KINDS: [Kind; 4] = [Kind::Vq, Kind::Hrq, Kind::Rq, Kind::Fsq];

    fn step(batch: usize, length: usize) -> Step {
        Step { batch, length, recompute: false, precision: Precision::F32, threads: 2 }
    }

    #[test]
    fn a_model_that_cuts_sequences_has_the_numbers_of_its_module() {
        let device = Device::flex();
        for config in [MxdnaConfig::tiny(), MxdnaConfig::small(), MxdnaConfig::base()] {
            let counted = mxdna_step(&config, 0.15, &step(16, 512));
            let model = crate::objective::letters::LetterModel::new(&config, 0, &device);
            assert_eq!(counted.numbers, size(model.num_params()));
            assert!(counted.total() > mxdna_step(&config, 0.15, &step(8, 512)).total());
            let half = Step { precision: Precision::Bf16, ..step(16, 512) };
            assert!(mxdna_step(&config, 0.15, &half).kept < counted.kept);
        }
    }

    fn pretrained(config: &TransformerConfig, step: &Step) -> Memory {
        pretrain_step(config, 128, &[256, 512], step)
    }

    #[test]
    fn numbers_are_those_of_the_modules() {
        let device = Device::flex();
        for preset in [Preset::Tiny, Preset::Small] {
            for kind in KINDS {
                let config = preset.config(kind);
                let model = config.init(0, &device);
                let memory = learn_step(&config, &step(2, 64));
                assert_eq!(memory.numbers, model.num_params() as u64, "{preset:?} {kind:?}");
                let counts = model.quantizer.recent_counts();
                let averaged: usize = counts.iter().map(|counts| counts.dims()[0] * (2 * config.d_code + 2)).sum();
                assert_eq!(memory.learned, memory.numbers - averaged as u64, "{preset:?} {kind:?}");
            }
        }
        let pooled = TransformerConfig { pool: 4, ..TransformerConfig::tiny() };
        for config in [TransformerConfig::tiny(), pooled, TransformerConfig { layers: 1, ..TransformerConfig::small() }]
        {
            let model = MaskedModel::new(&config, 128, &[256, 512], 0, &device);
            assert_eq!(pretrained(&config, &step(2, 64)).numbers, model.num_params() as u64, "{config:?}");
        }
    }

    #[test]
    fn parts_follow_from_numbers() {
        for kind in KINDS {
            let memory = learn_step(&Preset::Base.config(kind), &step(4, 512));
            assert_eq!(memory.parameters, 4 * memory.numbers);
            assert_eq!(memory.gradients, (4 * memory.learned).saturating_sub(memory.kept));
            assert_eq!(memory.moments, 8 * memory.learned);
            assert_eq!(memory.total(), memory.parts().iter().map(|(_, bytes)| bytes).sum::<u64>());
            let alone = learn_step(&Preset::Base.config(kind), &step(1, 8));
            assert!(alone.gradients > 0 && alone.kept < memory.kept, "{kind:?}");
        }
    }

    #[test]
    fn more_bases_take_more_and_longer_sequences_no_less() {
        let rising = |totals: [Memory; 5]| {
            assert!(totals.is_sorted_by(|a, b| a.kept < b.kept && a.total() < b.total()), "{totals:?}");
        };
        for preset in PRESETS {
            rising([1, 2, 9, 64, 1000].map(|batch| learn_step(&preset.config(Kind::Hrq), &step(batch, 512))));
        }
        for config in [TransformerConfig::small(), TransformerConfig { checkpoint: true, ..TransformerConfig::base() }]
        {
            rising([1, 2, 9, 64, 1000].map(|batch| pretrained(&config, &step(batch, 512))));
            assert!(pretrained(&config, &step(16, 512)).total() <= pretrained(&config, &step(1, 8192)).total());
        }
        let most = learn_step(&Preset::Base.config(Kind::Hrq), &step(usize::MAX, usize::MAX));
        assert_eq!(most.total(), u64::MAX, "no overflow");
    }

    #[test]
    fn recomputation_keeps_less() {
        let (kept, computed) = (step(16, 512), Step { recompute: true, ..step(16, 512) });
        let config = Preset::Small.config(Kind::Hrq);
        assert!(3 * learn_step(&config, &computed).kept < learn_step(&config, &kept).kept);
        let whole = TransformerConfig::small();
        let layers = TransformerConfig { checkpoint: true, ..whole.clone() };
        assert!(pretrained(&whole, &computed).kept < pretrained(&whole, &kept).kept);
        assert!(pretrained(&layers, &kept).kept < pretrained(&whole, &computed).kept);
        let narrow = Step { precision: Precision::Bf16, ..kept };
        assert!(3 * pretrained(&whole, &narrow).kept < 2 * pretrained(&whole, &kept).kept);
    }

    #[test]
    fn a_run_needs_more_than_a_step() {
        let run = LearnConfig::default();
        let memory = |run: &LearnConfig| learn(run, 3_000_000, 2);
        let all = memory(&run);
        assert!(all.data > 3_000_000 && all.total() > learn_step(&run.tokenizer, &step(16, 512)).total());
        let mut small = run.clone();
        small.train.batch = 1;
        let started = memory(&small);
        assert!(started.total() < all.total(), "a smaller batch");
        if let QuantizerConfig::Hrq(hrq) = &mut small.tokenizer.quantizer {
            hrq.codebook.kmeans_iterations = 0;
        }
        assert!(memory(&small).total() < started.total(), "k-means sees more rows than a small batch has");
        let mut summed = run;
        summed.train.accumulate = 4;
        assert_eq!(memory(&summed).gradients, all.gradients + 4 * all.learned);
    }

    #[test]
    fn pretraining_holds_a_vocabulary_besides() {
        let (run, tokenizer) = (PretrainConfig::default(), Preset::Small.config(Kind::Hrq));
        let memory = |run: &PretrainConfig, bases| pretrain(run, &tokenizer, bases, 2);
        let alone = pretrain_step(&run.backbone, tokenizer.d_code, &[256, 512], &step(16, 512));
        let all = memory(&run, 3_000_000);
        let frozen = tokenizer.init(0, &Device::flex()).num_params() as u64;
        assert_eq!((all.numbers, all.learned), (alone.numbers + frozen, alone.learned));
        assert!(all.data > alone.data + 3_000_000 && all.data < alone.data + 4_000_000, "codes are on the disk");
        let mut pooled = run.clone();
        pooled.backbone.pool = 4;
        assert!(3 * memory(&pooled, 0).kept < all.kept);
        let mut long = run;
        long.train.batch = 1;
        long.data.codes = Some(CodesFrom::OnTheFly);
        assert!(memory(&long, 0).total() < all.total());
    }

    /// One sequence of 32,768 bases through the encoder `small`, every layer computed again.
    #[test]
    fn long_sequences_fit_a_laptop() {
        let config = TransformerConfig { checkpoint: true, ..TransformerConfig::small() };
        let memory = pretrained(&config, &step(1, 32_768));
        assert!(memory.total() < 16_000_000_000, "{memory:?}");
    }
}
