//! `vqdna pretrain`: FASTA, and a vocabulary or none, to a pre-trained model.

use anyhow::{Result, bail};
use clap::{Args as ClapArgs, ValueEnum};
use std::path::{Path, PathBuf};
use vqdna::estimate;
use vqdna::model_dir::{Kind, ModelConfig, Vocabulary};
use vqdna::run::pretrain::{Pretrain, PretrainConfig};
use vqdna::tokenizer::vqdna::VqdnaConfig;

use super::Verdict;
use crate::arguments::{Configure, RunArgs};
use crate::measures::print_finished;
use crate::memory::{guess_bases, print_memory};

/// Pre-train an encoder: over the codes of a vocabulary, some of which are masked and told from those around them; or with --tokenizer
/// mxdna over letters, which the model cuts into units itself.
///
/// A vocabulary stays as it is. The codes of the inputs are computed once, and kept in the folder until it is done with.
#[derive(ClapArgs, Clone, Debug)]
#[command(override_usage = "vqdna pretrain [OPTIONS] --output <DIR> <VOCAB> <FASTA>...\n       \
                            vqdna pretrain [OPTIONS] --output <DIR> --tokenizer mxdna <FASTA>...")]
#[command(after_help = "Examples:\n\
    \x20 vqdna pretrain runs/lambda examples/data/lambda.fa -o runs/encoder --preset tiny --steps 200\n\
    \x20 vqdna pretrain --tokenizer mxdna examples/data/lambda.fa -o runs/mxdna --preset tiny --steps 50\n\
    \x20 vqdna pretrain runs/lambda examples/data/lambda.fa -o runs/encoder --preset tiny --steps 200 --resume")]
pub struct Args {
    /// Folder of the vocabulary, as `vqdna learn` made it; then FASTA or FASTQ files, plain or compressed; `-` is standard input. With
    /// --tokenizer mxdna there is no vocabulary.
    #[arg(required = true, value_name = "VOCAB FASTA")]
    pub inputs: Vec<PathBuf>,
    /// What cuts sequences: the vocabulary, or the model itself.
    #[arg(long, value_enum, default_value_t = TokenizerName::Vqdna)]
    pub tokenizer: TokenizerName,
    #[command(flatten)]
    pub configure: Configure,
    #[command(flatten)]
    pub run: RunArgs,
}

/// What cuts sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TokenizerName {
    /// A vocabulary that was learned before.
    Vqdna,
    /// The model: units of 1 to 10 bases, chosen by score (MxDNA).
    Mxdna,
}

/// Pre-trains and prints the final measures as a table.
pub fn run(args: &Args) -> Result<Verdict> {
    match (args.tokenizer, args.inputs.as_slice()) {
        (TokenizerName::Mxdna, inputs) => over_bases(args, inputs),
        (TokenizerName::Vqdna, [vocabulary, inputs @ ..]) if !inputs.is_empty() => over_codes(args, vocabulary, inputs),
        (TokenizerName::Vqdna, _) => bail!(
            "FASTA is missing: give the folder of a vocabulary, then FASTA files; --tokenizer mxdna needs FASTA files alone"
        ),
    }
}

fn over_codes(args: &Args, vocabulary: &Path, inputs: &[PathBuf]) -> Result<Verdict> {
    let made = ModelConfig::load(vocabulary)?;
    made.require(Kind::Vocabulary, vocabulary)?;
    let config = args.configure.resolve(|preset| PretrainConfig::preset(preset, made.letters))?;
    pretrain(args, &config, Some((vocabulary, made.learned(vocabulary)?)), inputs)
}

fn over_bases(args: &Args, inputs: &[PathBuf]) -> Result<Verdict> {
    if let Some(folder) = inputs.iter().find(|input| input.is_dir()) {
        bail!("{} is a folder; --tokenizer mxdna needs FASTA files alone, without a vocabulary", folder.display());
    }
    let config = args.configure.resolve(PretrainConfig::mxdna)?;
    pretrain(args, &config, None, inputs)
}

/// Pre-trains over a vocabulary, or over the tokenizer that the config names.
fn pretrain(
    args: &Args,
    config: &PretrainConfig,
    vocabulary: Option<(&Path, &VqdnaConfig)>,
    inputs: &[PathBuf],
) -> Result<Verdict> {
    if args.run.dry_run {
        let (network, threads) = (vocabulary.map(|(_, network)| network), args.run.compute.threads()?);
        let memory = estimate::pretrain(config, network, guess_bases(inputs)?, threads);
        print_memory(&memory, &args.run.compute)?;
        return Ok(Verdict::Passed);
    }
    let device = args.run.open(config.train.precision)?;
    let vocabulary = vocabulary.map(|(folder, _)| Vocabulary::load(folder, &device)).transpose()?;
    let finished = args.run.start("pre-training", inputs, &device, config.train.steps, |job, progress| {
        Ok(Pretrain { job, config, vocabulary: vocabulary.as_ref() }.run(progress)?)
    })?;
    print_finished(&finished, "data.split")?;
    Ok(Verdict::Passed)
}
