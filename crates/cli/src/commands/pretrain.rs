//! `vqdna pretrain`: FASTA, and a vocabulary or none, to a pre-trained model.

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use vqdna::estimate;
use vqdna::model_dir::{Kind, ModelConfig, Vocabulary};
use vqdna::run::pretrain::{Pretrain, PretrainConfig};
use vqdna::tokenizer::TokenizerConfig;
use vqdna::tokenizer::bpe::FILE;
use vqdna::tokenizer::vqdna::{Preset, VqdnaConfig};
use vqdna_data::markov::MOST_ORDER;

use super::Verdict;
use crate::arguments::{Configure, RunArgs};
use crate::measures::print_finished;
use crate::memory::{guess_bases, print_memory};

/// Pre-train an encoder over the tokens of genomes, some of which are masked and predicted from the context: over the codes of a vocabulary,
/// over a fixed tokenizer, or with --tokenizer mxdna over bases, of which the model forms units itself.
///
/// A vocabulary stays as it is. The codes of the inputs are computed once, and kept in the folder until it is done with.
#[derive(ClapArgs, Clone, Debug)]
#[command(override_usage = "vqdna pretrain [OPTIONS] --output <DIR> <VOCAB> <FASTA>...\n       \
                            vqdna pretrain [OPTIONS] --output <DIR> --tokenizer <TOKENIZER> <FASTA>...")]
#[command(after_help = "Examples:\n\
    \x20 vqdna pretrain runs/lambda examples/data/lambda.fa -o runs/encoder --preset tiny --steps 200\n\
    \x20 vqdna pretrain --tokenizer character examples/data/lambda.fa -o runs/characters --preset tiny --steps 50\n\
    \x20 vqdna pretrain --tokenizer mxdna examples/data/lambda.fa -o runs/mxdna --preset tiny --steps 50\n\
    \x20 vqdna pretrain runs/lambda examples/data/lambda.fa -o runs/encoder --preset tiny --steps 200 --resume")]
pub struct Args {
    /// FASTA or FASTQ files, plain or compressed; `-` is standard input. Without --tokenizer, the folder of a vocabulary comes first.
    #[arg(required = true, value_name = "VOCAB FASTA")]
    pub inputs: Vec<PathBuf>,
    /// What makes tokens of bases: the folder of a vocabulary, as `vqdna learn` made it, or one of these names. `mxdna` is single bases, of
    /// which the model forms units of 1 to 10.
    #[arg(long, help = tokenizer_help())]
    pub tokenizer: Option<PathBuf>,
    /// Measure beside the model what Markov models of order 0 to ORDER take per base, which counted the same windows on both strands.
    #[arg(long, value_name = "ORDER", value_parser = clap::value_parser!(u8).range(..=MOST_ORDER as i64))]
    pub markov: Option<u8>,
    #[command(flatten)]
    pub configure: Configure,
    #[command(flatten)]
    pub run: RunArgs,
}

/// The name of single bases with an encoder that forms units of them.
const MXDNA: &str = "mxdna";

fn tokenizer_help() -> String {
    let fixed = TokenizerConfig::FIXED.map(|(name, what)| format!("`{name}`: {what}; ")).concat();
    format!(
        "What makes tokens of bases: the folder of a vocabulary, or one of these names. {fixed}`{MXDNA}`: single bases, of which the model \
         forms units of 1 to 10. Settings are fields of `tokenizer`, as in `--set tokenizer.k=6`"
    )
}

/// Pre-trains and prints the final measures as a table.
pub fn run(args: &Args) -> Result<Verdict> {
    match (&args.tokenizer, args.inputs.as_slice()) {
        (Some(named), inputs) if named == Path::new("vqdna") => over_first(args, inputs),
        (Some(named), inputs) if named == Path::new(MXDNA) => over_bases(args, MXDNA, inputs, PretrainConfig::mxdna),
        (Some(named), inputs) => {
            let name = named.to_string_lossy();
            let vocabulary = format!("bpe:{}", named.join(FILE).display());
            let is_bpe = named.join(FILE).is_file() && !named.join("config.json").exists();
            match TokenizerConfig::named(if is_bpe { &vocabulary } else { &name })? {
                Some(fixed) => over_bases(args, &name, inputs, |preset| PretrainConfig::fixed(preset, fixed)),
                None if named.is_dir() => over_codes(args, named, inputs),
                None => {
                    let known = TokenizerConfig::FIXED.map(|(name, _)| name).join(", ");
                    bail!("--tokenizer {name}: is neither the folder of a vocabulary nor one of {known}, {MXDNA}")
                }
            }
        }
        (None, inputs) => over_first(args, inputs),
    }
}

/// Over the vocabulary that comes first.
fn over_first(args: &Args, inputs: &[PathBuf]) -> Result<Verdict> {
    match inputs {
        [vocabulary, inputs @ ..] if !inputs.is_empty() => over_codes(args, vocabulary, inputs),
        _ => bail!(
            "FASTA is missing: give the folder of a vocabulary, then FASTA files; with --tokenizer, FASTA files alone"
        ),
    }
}

fn over_codes(args: &Args, vocabulary: &Path, inputs: &[PathBuf]) -> Result<Verdict> {
    let made = ModelConfig::load(vocabulary)?;
    made.require(Kind::Vocabulary, vocabulary)?;
    let config = args.configure.resolve(|preset| PretrainConfig::preset(preset, made.letters))?;
    pretrain(args, &config, Some((vocabulary, made.learned(vocabulary)?)), inputs)
}

fn over_bases(
    args: &Args,
    name: &str,
    inputs: &[PathBuf],
    preset: impl FnOnce(Preset) -> PretrainConfig,
) -> Result<Verdict> {
    if let Some(folder) = inputs.iter().find(|input| input.is_dir()) {
        bail!("{} is a folder; --tokenizer {name} needs FASTA files alone, without a vocabulary", folder.display());
    }
    let config = args.configure.resolve(preset)?;
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
    let (device, markov) = (args.run.open(config.train.precision)?, args.markov.map(usize::from));
    let vocabulary = vocabulary.map(|(folder, _)| Vocabulary::load(folder, &device)).transpose()?;
    let finished = args.run.start("pre-training", inputs, &device, config.train.steps, |job, progress| {
        Ok(Pretrain { job, config, vocabulary: vocabulary.as_ref(), markov }.run(progress)?)
    })?;
    print_finished(&finished, "data.split")?;
    Ok(Verdict::Passed)
}
