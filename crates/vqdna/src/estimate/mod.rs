//! The memory that a training step will take at its peak, from sizes alone: before a device opens or a file is read.
//!
//! The count follows what is in memory when the backward pass begins, which is when a step needs most: everything that the
//! forward pass kept, and what the first backward kernel works in. It is for the fused kernels of the CPU, and within 20 % of the
//! measured peak for the presets `small` and `base` (`docs/guide.md`, "Memory"). Sizes are bytes; `rows` are bases of a micro-batch.

mod finetune;
mod learn;
mod mxdna;
mod pretrain;

use crate::ops::Precision;
use crate::run::config::DataConfig;
use crate::train::TrainConfig;

pub use finetune::{Labelled, finetune};
pub use learn::{learn, learn_step};
pub use mxdna::mxdna_step;
pub use pretrain::{language_step, pretrain, pretrain_step};

/// What a backward pass finds of its forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keeping {
    /// Wide layers are computed again: see [`crate::ops::with_recomputation`].
    pub recompute: bool,
    /// Only the input of each transformer layer is kept: see [`TransformerConfig`](crate::backbone::transformer::TransformerConfig).
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
    /// Temporary buffers: gradients of rows, the groups of rows in `kernels::mlp`, weights in the order of a kernel, scratch of
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
/// Weight gradients of a block beside the weights in two orders, in matrices of its inner layer: `up`, `down` and a transpose.
const MATRICES: u64 = 5;
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

/// Bases one byte each, up to the limit of memory, and windows. The longest record is held besides while it is read, before there is
/// anything else.
fn corpus(data: &DataConfig, bases: u64) -> u64 {
    let kept = bases.min(data.memory_megabases.saturating_mul(1_000_000));
    let windows = bases / size(data.windowing().stride).max(1);
    // A window has a place in a table and one in the order of an epoch, of which two are held.
    kept.saturating_add(windows.saturating_mul(24))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::mxdna::MxdnaConfig;
    use crate::backbone::transformer::TransformerConfig;
    use crate::model::LanguageModel;
    use crate::quantizer::QuantizerConfig;
    use crate::run::config::CodesFrom;
    use crate::run::learn::LearnConfig;
    use crate::run::pretrain::PretrainConfig;
    use crate::tokenizer::Source;
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
            let counted = mxdna_step(&config, 9, 0.15, &step(16, 512));
            let model = LanguageModel::new(&config.clone().into(), Source::Table(9), &[9], 0, &device);
            assert_eq!(counted.numbers, size(model.num_params()));
            assert!(counted.total() > mxdna_step(&config, 9, 0.15, &step(8, 512)).total());
            let half = Step { precision: Precision::Bf16, ..step(16, 512) };
            assert!(mxdna_step(&config, 9, 0.15, &half).kept < counted.kept);
        }
    }

    fn pretrained(config: &TransformerConfig, step: &Step) -> Memory {
        pretrain_step(config, Source::Vectors(128), &[256, 512], step)
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
            let model = LanguageModel::new(&config.clone().into(), Source::Vectors(128), &[256, 512], 0, &device);
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
        let memory = |run: &PretrainConfig, bases| pretrain(run, Some(&tokenizer), bases, 2);
        let alone = pretrained(&TransformerConfig::small(), &step(16, 512));
        let all = memory(&run, 3_000_000);
        let frozen = tokenizer.init(0, &Device::flex()).num_params() as u64;
        assert_eq!((all.numbers, all.learned), (alone.numbers + frozen, alone.learned));
        assert!(all.data > alone.data + 3_000_000 && all.data < alone.data + 4_000_000, "codes are on the disk");
        let mut pooled = run.clone();
        pooled.backbone = TransformerConfig { pool: 4, ..TransformerConfig::small() }.into();
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
