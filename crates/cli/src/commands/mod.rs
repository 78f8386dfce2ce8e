//! One subcommand a file: its arguments and what it does.

mod learn;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Learned vocabularies for genomes: learn one from FASTA, tokenize genomes with it, decode them back.
#[derive(Parser)]
#[command(name = "vqdna", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Learn(learn::Args),
}

/// Whether a finished run passed its own check.
pub enum Verdict {
    /// Yes, or there was nothing to check.
    Passed,
    /// No.
    Failed,
}

/// Runs the subcommand.
pub fn run(cli: Cli) -> Result<Verdict> {
    match cli.command {
        Command::Learn(args) => learn::run(&args),
    }
}
