//! `vqdna learn`: FASTA to a vocabulary.

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use vqdna::objective::Measures;
use vqdna::run::learn::{Learn, Learned};
use vqdna::train::Ending;

use super::Verdict;
use crate::arguments::{Compute, Configure};
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
    #[command(flatten)]
    pub configure: Configure,
    /// Go on from the folder's last checkpoint.
    #[arg(long)]
    pub resume: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// Learns and prints the final measures as a table.
pub fn run(args: &Args) -> Result<Verdict> {
    let learned = learn(args)?;
    match learned.ending {
        Ending::Finished => print_measures(&learned)?,
        Ending::Interrupted(steps) => {
            message!("stopped after {steps} steps; go on with the same command and --resume");
        }
    }
    Ok(Verdict::Passed)
}

/// Learns without printing the result.
pub fn learn(args: &Args) -> Result<Learned> {
    let config = args.configure.resolve()?;
    let device = args.compute.open()?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        message!("stopping after this step; press Ctrl-C again to stop at once");
    })
    .context("listening for Ctrl-C")?;
    let command_line: Vec<String> = std::env::args().collect();
    let mut progress = LearnProgress::new(config.train.steps);
    let learned = Learn {
        inputs: &args.inputs,
        folder: &args.output,
        config: &config,
        device_name: &args.compute.device,
        device: &device,
        resume: args.resume,
        command_line: &command_line,
        stop: &stop,
    }
    .run(&mut progress);
    progress.finish();
    Ok(learned?)
}

fn print_measures(learned: &Learned) -> Result<()> {
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
