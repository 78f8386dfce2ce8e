//! One subcommand a file: its arguments and what it does.

mod bench;
mod decode;
mod doctor;
mod inspect;
mod learn;
mod merge;
mod pretrain;
mod quickstart;
mod tokenize;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Learned vocabularies for genomes: learn one from FASTA, pre-train an encoder over its codes, tokenize genomes and decode them
/// back.
#[derive(Parser)]
#[command(name = "vqdna", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Learn(learn::Args),
    Pretrain(pretrain::Args),
    Tokenize(tokenize::Args),
    Decode(decode::Args),
    Merge(merge::Args),
    Inspect(inspect::Args),
    Doctor(doctor::Args),
    Quickstart(quickstart::Args),
    Bench(bench::Args),
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
        Command::Pretrain(args) => pretrain::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}
