//! `vqdna quickstart`: all three stages on bundled data, in a few minutes.

mod folder;

use anyhow::{Context, Result};
use burn::prelude::Device;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use std::time::Instant;
use vqdna::model_dir::Vocabulary;
use vqdna::run::config::StageConfig;
use vqdna::run::finetune::{Base, Finetune, FinetuneConfig, Mode, Task};
use vqdna::run::kmers::{self, Baseline};
use vqdna::run::learn::{Learn, LearnConfig};
use vqdna::run::pretrain::{Pretrain, PretrainConfig};
use vqdna::run::stage::{Finished, Job, StageObserver};
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::train::Ending;
use vqdna_data::aside::write_aside;
use vqdna_data::labelled::Splits;

use super::Verdict;
use crate::arguments::{Compute, RunArgs};
use crate::interrupt;
use crate::measures::measure;
use folder::{Done, Folder, State};

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
    "objective.span=8",
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
/// After a stop the same command goes on where it was.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna quickstart\n\
    \x20 vqdna quickstart -o /tmp/quickstart --steps 20")]
pub struct Args {
    /// Folder for everything that is made: a new or empty one, or that of an earlier quickstart.
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
    let mut stages = Stages::prepare(args, &device)?;

    message!("1/3 learning a vocabulary from a million bases of human chromosome 22");
    let learned = stages.learn()?;
    message!("2/3 pre-training an encoder over its codes");
    let pretrained = stages.pretrain()?;
    message!("3/3 fine-tuning it to recognise promoters");
    let (finetuned, kmers) = stages.finetune()?;

    let of = |done: &Done, name| measure(&done.measures, name).unwrap_or(f64::NAN);
    let restored = of(&learned, "reconstruction");
    data!("held-out bases restored from codes\t{:.2} %", 100.0 * restored);
    for level in ["usage_1", "usage_2"] {
        data!("codes in use, level {}\t{:.0} %", &level[6..], 100.0 * of(&learned, level));
    }
    data!("bits of the codes of a masked base\t{:.2}", of(&pretrained, "masked_code_bits_span"));
    data!("\npromoters, {}\tvqdna\t{}-mers", finetuned.evaluated_on, kmers.k);
    let scores = |name: &str| Some((measure(&finetuned.measures, name)?, kmers.scores.get(name)?));
    for name in ["mcc", "accuracy", "f1_macro", "auroc"] {
        if let Some((ours, theirs)) = scores(name) {
            data!("{name}\t{ours:.3}\t{theirs:.3}");
        }
    }
    data!("\nstage\tseconds\tfolder");
    for (stage, done) in [("learn", &learned), ("pretrain", &pretrained), ("finetune", &finetuned)] {
        data!("{stage}\t{:.0}\t{}", done.wall_s, stages.folder.stage(stage).display());
    }
    data!("all\t{:.0}\t{}", begun.elapsed().as_secs_f64(), args.output.display());
    message!("next: vqdna predict {} SEQUENCES.fa", stages.folder.stage("finetune").display());
    let failures = failures(restored, scores("mcc"), kmers.k);
    for failure in &failures {
        message!("failed: {failure}");
    }
    Ok(if failures.is_empty() { Verdict::Passed } else { Verdict::Failed })
}

/// What fell short, and by how much; a number that is missing or none falls short, too.
fn failures(restored: f64, mcc: Option<(f64, f64)>, k: u32) -> Vec<String> {
    let mut failures = Vec::new();
    if restored < ENOUGH || restored.is_nan() {
        failures.push(format!(
            "{:.2} % of the held-out bases came back right, {:.2} points below {:.0} %",
            100.0 * restored,
            100.0 * (ENOUGH - restored),
            100.0 * ENOUGH
        ));
    }
    match mcc {
        Some((ours, theirs)) if ours > theirs => {}
        Some((ours, theirs)) => failures.push(format!(
            "the MCC of the classifier is {ours:.3}, which is {:.3} below the {theirs:.3} of {k}-mers",
            theirs - ours
        )),
        None => failures.push("the classifier has no MCC to compare with that of k-mers".to_owned()),
    }
    failures
}

/// The stages, each in a folder below that of the command.
struct Stages<'a> {
    args: &'a Args,
    device: &'a Device,
    folder: Folder,
}

impl<'a> Stages<'a> {
    /// Makes the folder with the data in it, or goes on in one that is there.
    fn prepare(args: &'a Args, device: &'a Device) -> Result<Self> {
        let folder = Folder::open(&args.output, &settings(args))?;
        let place = || format!("cannot write to {}", args.output.display());
        std::fs::create_dir_all(args.output.join("prom_core_tata")).with_context(place)?;
        for (name, bytes) in PROMOTERS.into_iter().chain([GENOME]) {
            write_aside(&args.output.join(name), bytes).with_context(place)?;
        }
        Ok(Self { args, device, folder })
    }

    fn learn(&mut self) -> Result<Done> {
        let config = self.config(&LearnConfig::preset(Preset::Tiny, Kind::Hrq), &LEARN)?;
        self.stage("learn", GENOME.0, "learning", config.train.steps, |job, progress| {
            Ok(Learn { job, config: &config }.run(progress)?)
        })
    }

    fn pretrain(&mut self) -> Result<Done> {
        let vocabulary = Vocabulary::load(&self.folder.stage("learn"), self.device)?;
        let config = self.config(&PretrainConfig::preset(Preset::Tiny, vocabulary.letters), &PRETRAIN)?;
        self.stage("pretrain", GENOME.0, "pre-training", config.train.steps, |job, progress| {
            Ok(Pretrain { job, config: &config, vocabulary: Some(&vocabulary), markov: None }.run(progress)?)
        })
    }

    fn finetune(&mut self) -> Result<(Done, Baseline)> {
        let config = self.config(&FinetuneConfig::of_mode(Mode::Full), &FINETUNE)?;
        let base = Base::load(&self.folder.stage("pretrain"), self.device)?;
        let splits = Splits::read(&self.args.output.join("prom_core_tata"), &config.data)?;
        self.say_what_stays();
        let kmers = kmers::baseline(&splits, self.device, interrupt::flag())?;
        let kmers = kmers.context("the bundled task has dev and test")?;
        let task = Task::new(splits, &base, &config, self.device, interrupt::flag())?;
        let steps = config.training(task.splits.train.len()).steps;
        let done = self.stage("finetune", "prom_core_tata", "fine-tuning", steps, |job, progress| {
            Ok(Finetune { job, config: &config, base: &base, task: &task }.run(progress)?.finished)
        })?;
        Ok((done, kmers))
    }

    /// Runs a stage, from where it was, or takes what it made before.
    fn stage(
        &mut self,
        name: &'static str,
        input: &str,
        label: &'static str,
        steps: u64,
        run: impl FnOnce(Job, &mut dyn StageObserver) -> Result<Finished>,
    ) -> Result<Done> {
        let resume = match self.folder.begin(name)? {
            State::Done(done) => {
                message!("this stage is done already");
                return Ok(done);
            }
            State::Begun { has_checkpoint } => has_checkpoint,
        };
        self.say_what_stays();
        let compute = self.args.compute.clone();
        let args = RunArgs { output: self.folder.stage(name), resume, dry_run: false, compute };
        let inputs = [self.args.output.join(input)];
        let finished = args.start(label, &inputs, self.device, steps, run)?;
        if let Ending::Interrupted(_) = finished.ending {
            let stopped = format!("stopped while {label}; the same command goes on from there");
            return Err(interrupt::Stopped(stopped).into());
        }
        self.folder.finish(name)
    }

    /// For a signal.
    fn say_what_stays(&self) {
        interrupt::leaves(format!("the same command goes on with what is done in {}", self.args.output.display()));
    }

    fn config<C: StageConfig>(&self, preset: &C, changes: &[&str]) -> Result<C> {
        let mut changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
        changes.extend(self.args.steps.map(|steps| format!("train.steps={steps}")));
        let config = preset.with_changes(None, &changes)?;
        config.check()?;
        Ok(config)
    }
}

/// All that makes one quickstart differ from another.
fn settings(args: &Args) -> Vec<String> {
    let version = concat!("vqdna ", env!("CARGO_PKG_VERSION")).to_owned();
    let changes = LEARN.iter().chain(&PRETRAIN).chain(&FINETUNE).map(|&change| change.to_owned());
    let steps = args.steps.map(|steps| format!("train.steps={steps}"));
    [version, args.compute.device.clone()].into_iter().chain(changes).chain(steps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_fell_short_and_by_how_much() {
        assert!(failures(0.995, Some((0.7, 0.6)), 5).is_empty());
        let failed = failures(0.3, Some((0.1, 0.6)), 5);
        assert!(
            failed[0].starts_with("30.00 % of the held-out bases") && failed[0].contains("69.00 points"),
            "{failed:?}"
        );
        assert!(failed[1].contains("0.500 below the 0.600 of 5-mers"), "{failed:?}");
        assert_eq!(failures(f64::NAN, None, 5).len(), 2);
        assert_eq!(failures(0.99, Some((0.6, 0.6)), 5).len(), 1, "as good is not better");
    }
}
