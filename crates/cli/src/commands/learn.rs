//! `vqdna learn`: FASTA to a vocabulary.

use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use vqdna::estimate;
use vqdna::objective::Measures;
use vqdna::run::learn::{Learn, LearnConfig};
use vqdna::run::stage::{Finished, Job};
use vqdna::train::Ending;

use super::Verdict;
use crate::arguments::{Compute, Configure, PrecisionName, QuantizerName};
use crate::interrupt;
use crate::memory::{guess_bases, print_memory};
use crate::progress::LearnProgress;

/// Learn a vocabulary from FASTA or FASTQ and write it to a folder.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// FASTA or FASTQ files, plain or compressed; `-` is standard input.
    #[arg(required = true, value_name = "FASTA")]
    pub inputs: Vec<PathBuf>,
    /// Folder for the vocabulary, its logs and checkpoints.
    #[arg(long, short, value_name = "DIR")]
    pub output: PathBuf,
    /// How vectors become codes.
    #[arg(long, value_enum, default_value_t = QuantizerName::Hrq)]
    pub quantizer: QuantizerName,
    #[command(flatten)]
    pub configure: Configure,
    /// Go on from the folder's last checkpoint.
    #[arg(long)]
    pub resume: bool,
    /// Print the memory that learning will take, part by part, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// Learns and prints the final measures as a table.
pub fn run(args: &Args) -> Result<Verdict> {
    if args.dry_run {
        let (config, threads) = (config(args)?, args.compute.threads()?);
        let memory = estimate::learn(&config, guess_bases(&args.inputs)?, threads);
        print_memory(&memory, &args.compute)?;
        return Ok(Verdict::Passed);
    }
    let learned = learn(args)?;
    match learned.ending {
        Ending::Finished => print_measures(&learned)?,
        Ending::Interrupted(steps) => {
            message!("stopped after {steps} steps; go on with the same command and --resume");
        }
    }
    Ok(Verdict::Passed)
}

fn config(args: &Args) -> Result<LearnConfig> {
    args.configure.resolve(|preset| LearnConfig::preset(preset, args.quantizer.into()))
}

/// Learns without printing the result.
pub fn learn(args: &Args) -> Result<Finished> {
    let config = config(args)?;
    let device = args.compute.open()?;
    PrecisionName::from(config.train.precision).on(&device)?;
    let stop = interrupt::listen()?;
    let command_line: Vec<String> = std::env::args().collect();
    let mut progress = LearnProgress::new(config.train.steps, args.resume);
    let job = Job {
        inputs: &args.inputs,
        folder: &args.output,
        device_name: &args.compute.device,
        device: &device,
        resume: args.resume,
        command_line: &command_line,
        stop,
    };
    let learned = Learn { job, config: &config }.run(&mut progress);
    progress.finish();
    Ok(learned?)
}

fn print_measures(learned: &Finished) -> Result<()> {
    if learned.measures.is_empty() {
        message!("note: no window is held out, so nothing was measured; see `data.split` of the config");
    }
    data!("measure\t{}", learned.evaluated_on);
    for (name, value) in &learned.measures {
        data!("{name}\t{}", number(*value));
    }
    data!("wall_s\t{:.1}", learned.wall_s);
    Ok(())
}

fn number(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value}") } else { format!("{value:.6}") }
}

/// A measure by name.
pub fn measure(measures: &Measures, name: &str) -> Option<f64> {
    measures.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
}
