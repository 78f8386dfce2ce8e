//! `vqdna learn`: FASTA to a vocabulary.

use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use vqdna::estimate;
use vqdna::run::learn::{Learn, LearnConfig};
use vqdna::run::stage::Finished;

use super::Verdict;
use crate::arguments::{Configure, QuantizerName, RunArgs};
use crate::measures::print_finished;
use crate::memory::{guess_bases, print_memory};

/// Learn a vocabulary from FASTA or FASTQ and write it to a folder.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna learn examples/data/lambda.fa -o runs/lambda --preset tiny --steps 200\n\
    \x20 vqdna learn genome.fa.gz -o runs/genome -@ 8\n\
    \x20 zcat reads.fq.gz | vqdna learn - -o runs/reads --set data.length=128")]
pub struct Args {
    /// FASTA or FASTQ files, plain or compressed; `-` is standard input.
    #[arg(required = true, value_name = "FASTA")]
    pub inputs: Vec<PathBuf>,
    /// How vectors become codes.
    #[arg(long, value_enum, default_value_t = QuantizerName::Hrq)]
    pub quantizer: QuantizerName,
    #[command(flatten)]
    pub configure: Configure,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Learns and prints the final measures as a table.
pub fn run(args: &Args) -> Result<Verdict> {
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
