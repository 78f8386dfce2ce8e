//! `vqdna import`: published weights of others to a model folder.

use anyhow::{Result, ensure};
use clap::{Args as ClapArgs, Subcommand};
use std::path::PathBuf;
use vqdna::model_dir::import::{read_mxdna, save_mxdna};

use super::Verdict;
use crate::arguments::Compute;

/// Turn a published checkpoint into a model folder.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna import mxdna published/model.safetensors -o runs/published")]
pub struct Args {
    #[command(subcommand)]
    layout: Layout,
}

#[derive(Subcommand, Clone, Debug)]
enum Layout {
    /// MxDNA for masked modelling, as its authors published it (303 arrays). It cuts sequences on the sparse grid that it was trained on.
    Mxdna(MxdnaArgs),
}

#[derive(ClapArgs, Clone, Debug)]
struct MxdnaArgs {
    /// The published model.safetensors.
    #[arg(value_name = "WEIGHTS")]
    weights: PathBuf,
    /// The published config. Default: config.json beside the weights, if there is one, else that of the published model.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for the model.
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    compute: Compute,
}

/// Imports and says what of the file is not used.
pub fn run(args: &Args) -> Result<Verdict> {
    let Layout::Mxdna(args) = &args.layout;
    let is_taken = std::fs::read_dir(&args.output).is_ok_and(|mut files| files.next().is_some());
    ensure!(!is_taken, "{} already holds files; choose another folder", args.output.display());
    let device = args.compute.open()?;
    let imported = read_mxdna(&args.weights, args.config.as_deref(), &device)?;
    // The folder is whole or not there: a signal waits for the second that this takes.
    crate::interrupt::listen_and_wait();
    let command_line: Vec<String> = std::env::args().collect();
    save_mxdna(&args.output, &args.weights, &imported, &command_line)?;
    for name in &imported.unused {
        message!("note: `{name}` is left out, nothing reads it");
    }
    Ok(Verdict::Passed)
}
