//! `vqdna learn`: FASTA to a vocabulary.

use anyhow::{Result, ensure};
use clap::{Args as ClapArgs, ValueEnum};
use std::path::PathBuf;
use vqdna::estimate;
use vqdna::run::bpe::TrainBpe;
use vqdna::run::learn::{Learn, LearnConfig};
use vqdna::run::stage::Finished;

use vqdna_data::segment::Policy;
use vqdna_data::vocab::BpeConfig;

use super::Verdict;
use crate::arguments::{Configure, QuantizerName, RunArgs};
use crate::interrupt;
use crate::measures::print_finished;
use crate::memory::{guess_bases, print_memory};
use crate::progress::{Progress, describe};
use crate::sample;

/// Learn a vocabulary from FASTA or FASTQ and write it to a folder: codes of bases, or with --tokenizer bpe tokens of byte-pair encoding.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna learn examples/data/lambda.fa -o runs/lambda --preset tiny --steps 200\n\
    \x20 vqdna learn genome.fa.gz -o runs/genome -@ 8\n\
    \x20 vqdna learn examples/data/lambda.fa -o runs/bpe --tokenizer bpe --ids 512\n\
    \x20 zcat reads.fq.gz | vqdna learn - -o runs/reads --set data.length=128")]
pub struct Args {
    /// FASTA or FASTQ files, plain or compressed; `-` is standard input.
    #[arg(required = true, value_name = "FASTA")]
    pub inputs: Vec<PathBuf>,
    /// What is learned.
    #[arg(long, value_enum, default_value_t = TokenizerName::Vqdna)]
    pub tokenizer: TokenizerName,
    /// Ids of a byte-pair encoding, special ones included. Default: 4096, as DNABERT-2 has.
    #[arg(long)]
    pub ids: Option<usize>,
    /// How vectors become codes.
    #[arg(long, value_enum, default_value_t = QuantizerName::Hrq)]
    pub quantizer: QuantizerName,
    #[command(flatten)]
    pub configure: Configure,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What is learned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenizerName {
    /// Codes, one for each base and level.
    Vqdna,
    /// Tokens of several bases: byte-pair encoding.
    Bpe,
}

/// Learns and prints the final measures as a table.
pub fn run(args: &Args) -> Result<Verdict> {
    if args.tokenizer == TokenizerName::Bpe {
        return learn_bpe(args);
    }
    ensure!(
        args.ids.is_none(),
        "--ids is for --tokenizer bpe; sizes of codebooks are settings of `tokenizer.quantizer`"
    );
    if args.run.dry_run {
        let (config, threads) = (config(args)?, args.run.compute.threads()?);
        print_memory(&estimate::learn(&config, guess_bases(&args.inputs)?, threads), &args.run.compute)?;
    } else {
        print_finished(&learn(args)?, "data.split")?;
    }
    Ok(Verdict::Passed)
}

fn config(args: &Args) -> Result<LearnConfig> {
    args.configure.resolve(|preset| LearnConfig::preset(preset, args.quantizer.into()))
}

/// Learns without printing the result.
pub fn learn(args: &Args) -> Result<Finished> {
    let config = config(args)?;
    let device = args.run.open(config.train.precision)?;
    args.run.start("learning", &args.inputs, &device, config.train.steps, |job, progress| {
        Ok(Learn { job, config: &config }.run(progress)?)
    })
}

/// Trains a byte-pair encoding and prints what it is.
fn learn_bpe(args: &Args) -> Result<Verdict> {
    let configure = &args.configure;
    let is_set = configure.config.is_some() || !configure.set.is_empty() || configure.steps.is_some();
    ensure!(!is_set, "--tokenizer bpe has no settings but --ids and --seed");
    ensure!(
        !args.run.resume && !args.run.dry_run,
        "--tokenizer bpe takes seconds: there is nothing to resume or estimate"
    );
    let default = BpeConfig::default();
    let (size, seed) = (args.ids.unwrap_or(default.size), configure.seed.unwrap_or(default.seed));
    interrupt::listen()?;
    let shown = Progress::new("reading", "bases", sample::bases(&args.inputs));
    let job = TrainBpe {
        inputs: &args.inputs,
        folder: &args.run.output,
        letters: Policy::default(),
        config: BpeConfig { size, seed, ..default },
        stop: interrupt::flag(),
    };
    let done = job.run(|bases| shown.set(bases));
    drop(shown);
    let done = done?;
    message!("{}", describe(&done.counts));
    data!("tokenizer\tbpe\nids\t{}", done.ids);
    Ok(Verdict::Passed)
}
