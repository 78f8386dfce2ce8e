//! `vqdna pretrain`: a vocabulary and FASTA to a pre-trained model.

use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use vqdna::estimate;
use vqdna::folder::{Kind, ModelConfig, Vocabulary};
use vqdna::run::pretrain::{Pretrain, PretrainConfig};

use super::Verdict;
use crate::arguments::{Configure, RunArgs};
use crate::measures::print_finished;
use crate::memory::{guess_bases, print_memory};

/// Pre-train an encoder over the codes of a vocabulary: codes are masked, and told from those around them.
///
/// The vocabulary stays as it is. The codes of the inputs are computed once, and kept in the folder until it is done with.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Folder of the vocabulary, as `vqdna learn` made it.
    #[arg(value_name = "VOCAB")]
    pub vocabulary: PathBuf,
    /// FASTA or FASTQ files, plain or compressed; `-` is standard input.
    #[arg(required = true, value_name = "FASTA")]
    pub inputs: Vec<PathBuf>,
    #[command(flatten)]
    pub configure: Configure,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Pre-trains and prints the final measures as a table.
pub fn run(args: &Args) -> Result<Verdict> {
    let made = ModelConfig::load(&args.vocabulary)?;
    made.require(Kind::Vocabulary, &args.vocabulary)?;
    let config = args.configure.resolve(|preset| PretrainConfig::preset(preset, made.letters))?;
    if args.run.dry_run {
        let threads = args.run.compute.threads()?;
        let memory = estimate::pretrain(&config, &made.tokenizer, guess_bases(&args.inputs)?, threads);
        print_memory(&memory, &args.run.compute)?;
        return Ok(Verdict::Passed);
    }
    let device = args.run.open(config.train.precision)?;
    let vocabulary = Vocabulary::load(&args.vocabulary, &device)?;
    let finished = args.run.start("pre-training", &args.inputs, &device, config.train.steps, |job, progress| {
        Ok(Pretrain { job, config: &config, vocabulary: &vocabulary }.run(progress)?)
    })?;
    print_finished(&finished)?;
    Ok(Verdict::Passed)
}
