//! `vqdna quickstart`: all three stages on bundled data, in a few minutes.

use anyhow::{Context, Result};
use burn::prelude::Device;
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vqdna::folder::Vocabulary;
use vqdna::run::config::StageConfig;
use vqdna::run::finetune::{Base, Finetune, FinetuneConfig, Finetuning, Mode, Task};
use vqdna::run::kmers::{self, Baseline};
use vqdna::run::learn::{Learn, LearnConfig};
use vqdna::run::pretrain::{Pretrain, PretrainConfig};
use vqdna::run::stage::Finished;
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::train::Ending;
use vqdna::transcode::TranscodeError;
use vqdna_data::aside::write_aside;
use vqdna_data::labelled::Splits;

use super::Verdict;
use crate::arguments::{Compute, RunArgs};
use crate::measures::measure;

/// A file that the program carries, from `examples/data`.
macro_rules! bundled {
    ($name:literal) => {
        ($name, include_bytes!(concat!("../../../../examples/data/", $name)))
    };
}

/// A million bases of human chromosome 22, for the stages that need no labels.
const GENOME: (&str, &[u8]) = bundled!("human.chr22.20-21M.fa.gz");

/// Core promoters with TATA box, and what is none: a task of the benchmark GUE.
const PROMOTERS: [(&str, &[u8]); 3] = [
    bundled!("prom_core_tata/train.csv.gz"),
    bundled!("prom_core_tata/dev.csv.gz"),
    bundled!("prom_core_tata/test.csv.gz"),
];

/// What differs from the preset `tiny`: evaluations come at the end alone, and the encoder is larger.
const LEARN: [&str; 4] =
    ["data.split.valid=0.05", "train.evaluate_every=0", "train.checkpoint_every=0", "train.steps=300"];
const PRETRAIN: [&str; 11] = [
    "data.split.valid=0.05",
    "masking.span=8",
    "backbone.d_model=128",
    "backbone.layers=4",
    "backbone.heads=4",
    "backbone.d_ff=512",
    "backbone.pool=2",
    "train.evaluate_every=0",
    "train.checkpoint_every=0",
    "train.schedule.rate=1e-3",
    "train.steps=500",
];
const FINETUNE: [&str; 2] = ["epochs=8", "train.schedule.rate=5e-4"];

/// Share of held-out bases that must come back right for the command to succeed.
const ENOUGH: f64 = 0.99;

/// Learn a vocabulary, pre-train an encoder over its codes and fine-tune it to recognise promoters, on data that the program carries.
///
/// A million bases of human chromosome 22, and the task `prom_core_tata` of GUE. Ends with the scores on sequences that were held
/// out, beside those of logistic regression on counts of k-mers. Exit code 1 if too few bases come back right, or k-mers are as good.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Folder for everything that is made.
    #[arg(long, short, default_value = "vqdna-quickstart")]
    pub output: PathBuf,
    /// Go through each stage in so many steps, to see whether it runs.
    #[arg(long, value_name = "STEPS", value_parser = clap::value_parser!(u64).range(1..))]
    pub steps: Option<u64>,
    #[command(flatten)]
    pub compute: Compute,
}

/// Runs the stages and prints what came of them.
pub fn run(args: &Args) -> Result<Verdict> {
    let begun = Instant::now();
    let device = args.compute.open()?;
    let stages = Stages::prepare(args, &device)?;

    message!("1/3 learning a vocabulary from a million bases of human chromosome 22");
    let learned = stages.learn()?;
    message!("2/3 pre-training an encoder over its codes");
    let pretrained = stages.pretrain()?;
    message!("3/3 fine-tuning it to recognise promoters");
    let (finetuned, kmers) = stages.finetune()?;

    let of = |finished: &Finished, name| measure(&finished.measures, name).unwrap_or(f64::NAN);
    let restored = of(&learned, "reconstruction");
    data!("held-out bases restored from codes\t{:.2} %", 100.0 * restored);
    for level in ["usage_1", "usage_2"] {
        data!("codes in use, level {}\t{:.0} %", &level[6..], 100.0 * of(&learned, level));
    }
    data!("bits per masked base\t{:.2}", of(&pretrained, "bits_per_base_span"));
    data!("\npromoters, {}\tvqdna\t{}-mers", finetuned.finished.evaluated_on, kmers.k);
    let scores = |name: &str| Some((finetuned.scores.as_ref()?.get(name)?, kmers.scores.get(name)?));
    for name in ["mcc", "accuracy", "f1_macro", "auroc"] {
        if let Some((ours, theirs)) = scores(name) {
            data!("{name}\t{ours:.3}\t{theirs:.3}");
        }
    }
    let better = scores("mcc").is_some_and(|(ours, theirs)| ours > theirs);
    let seconds = [("learn", learned.wall_s), ("pretrain", pretrained.wall_s), ("finetune", finetuned.finished.wall_s)];
    data!("\nstage\tseconds\tfolder");
    for (stage, seconds) in seconds {
        data!("{stage}\t{seconds:.0}\t{}", stages.folder(stage).display());
    }
    data!("all\t{:.0}\t{}", begun.elapsed().as_secs_f64(), args.output.display());
    message!("next: vqdna predict {} SEQUENCES.fa", stages.folder("finetune").display());
    Ok(if restored >= ENOUGH && better { Verdict::Passed } else { Verdict::Failed })
}

/// The stages, each in a folder below that of the command.
struct Stages<'a> {
    args: &'a Args,
    device: &'a Device,
}

impl<'a> Stages<'a> {
    /// Makes the folder with the data in it; stages of an earlier quickstart make way.
    fn prepare(args: &'a Args, device: &'a Device) -> Result<Self> {
        let stages = Self { args, device };
        let place = || format!("cannot write to {}", args.output.display());
        for stage in ["learn", "pretrain", "finetune"] {
            let folder = stages.folder(stage);
            if folder.join("config.toml").is_file() {
                std::fs::remove_dir_all(folder).with_context(place)?;
            }
        }
        std::fs::create_dir_all(args.output.join("prom_core_tata")).with_context(place)?;
        for (name, bytes) in PROMOTERS.into_iter().chain([GENOME]) {
            write_aside(&args.output.join(name), bytes).with_context(place)?;
        }
        Ok(stages)
    }

    fn folder(&self, stage: &str) -> PathBuf {
        self.args.output.join(stage)
    }

    fn learn(&self) -> Result<Finished> {
        let config = self.config(&LearnConfig::preset(Preset::Tiny, Kind::Hrq), &LEARN)?;
        let (run, inputs) = self.run("learn", GENOME.0);
        let finished = run.start("learning", &inputs, self.device, config.train.steps, |job, progress| {
            Ok(Learn { job, config: &config }.run(progress)?)
        })?;
        whole(&finished)?;
        Ok(finished)
    }

    fn pretrain(&self) -> Result<Finished> {
        let vocabulary = Vocabulary::load(&self.folder("learn"), self.device)?;
        let config = self.config(&PretrainConfig::preset(Preset::Tiny, vocabulary.letters), &PRETRAIN)?;
        let (run, inputs) = self.run("pretrain", GENOME.0);
        let finished = run.start("pre-training", &inputs, self.device, config.train.steps, |job, progress| {
            Ok(Pretrain { job, config: &config, vocabulary: &vocabulary }.run(progress)?)
        })?;
        whole(&finished)?;
        Ok(finished)
    }

    fn finetune(&self) -> Result<(Finetuning, Baseline)> {
        let config = self.config(&FinetuneConfig::of_mode(Mode::Full), &FINETUNE)?;
        let (run, inputs) = self.run("finetune", "prom_core_tata");
        let base = Base::load(&self.folder("pretrain"), self.device)?;
        let splits = Splits::read(&inputs[0], &config.data)?;
        let kmers = kmers::baseline(&splits, self.device);
        let kmers = kmers.context("the bundled task has dev and test")?;
        let task = Task::new(splits, &base, config.reverse_complement, self.device);
        let steps = config.training(task.splits.train.len()).steps;
        let finetuned = run.start("fine-tuning", &inputs, self.device, steps, |job, progress| {
            Ok(Finetune { job, config: &config, base: &base, task: &task }.run(progress)?)
        })?;
        whole(&finetuned.finished)?;
        Ok((finetuned, kmers))
    }

    /// Where a stage writes, and what it reads.
    fn run(&self, stage: &str, input: &str) -> (RunArgs, Vec<PathBuf>) {
        let compute = self.args.compute.clone();
        let run = RunArgs { output: self.folder(stage), resume: false, dry_run: false, compute };
        (run, vec![self.args.output.join(Path::new(input))])
    }

    fn config<C: StageConfig>(&self, preset: &C, changes: &[&str]) -> Result<C> {
        let mut changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        changes.extend(self.args.steps.map(|steps| format!("train.steps={steps}")));
        let config = preset.with_changes(None, &changes)?;
        config.check()?;
        Ok(config)
    }
}

/// Ends the command where a stage was interrupted.
fn whole(finished: &Finished) -> Result<()> {
    match finished.ending {
        Ending::Finished => Ok(()),
        Ending::Interrupted(_) => Err(TranscodeError::Interrupted.into()),
    }
}
