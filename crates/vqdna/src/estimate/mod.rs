//! The memory that a training step will take at its peak, from sizes alone: before a device opens or a file is read.
//!
//! The count follows what is in memory when the backward pass begins, which is when a step needs most: everything that the
//! forward pass kept, and what the first backward kernel works in. It is for the fused kernels of the CPU, and within 20 % of the
//! measured peak for the presets `small` and `base` (`docs/guide.md`, "Memory"). Sizes are bytes; `rows` are bases of a micro-batch.

mod finetune;
mod learn;
mod pretrain;

pub use crate::memory::{Keeping, Memory, Step};
use crate::memory::{floats, size};
use crate::run::config::DataConfig;
use crate::train::TrainConfig;

pub use finetune::{Labelled, finetune};
pub use learn::{learn, learn_step};
pub use pretrain::{language_step, pretrain, pretrain_step};

/// A step of a run.
fn step(train: &TrainConfig, data: &DataConfig, threads: usize) -> Step {
    let TrainConfig { batch, recompute, precision, .. } = *train;
    Step { batch, length: data.length, recompute, precision, threads }
}

/// A step with what a run holds besides.
fn of_run(step: Memory, train: &TrainConfig, data: &DataConfig, bases: u64) -> Memory {
    let mut memory = step.with_checkpoints(0);
    memory.data = memory.data.saturating_add(corpus(data, bases));
    // The sum over micro-batches has gradients of its own while those of the next are found.
    if train.accumulate > 1 {
        memory.gradients = memory.gradients.saturating_add(floats(memory.learned));
    }
    memory
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
    use crate::ops::Precision;
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
            let counted = of_units(&config, &step(16, 512));
            let model = LanguageModel::new(&config.clone().into(), Source::Table(9), &[9], 0, &device);
            assert_eq!(counted.numbers, size(model.num_params()));
            assert!(counted.total() > of_units(&config, &step(8, 512)).total());
            let half = Step { precision: Precision::Bf16, ..step(16, 512) };
            assert!(of_units(&config, &half).kept < counted.kept);
        }
    }

    fn pretrained(config: &TransformerConfig, step: &Step) -> Memory {
        pretrain_step(&config.clone().into(), Source::Vectors(128), &[256, 512], 0.25, step)
    }

    fn of_units(config: &MxdnaConfig, step: &Step) -> Memory {
        pretrain_step(&config.clone().into(), Source::Table(9), &[9], 0.15, step)
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
