//! One subcommand a file: its arguments and what it does.

mod bench;
mod decode;
mod doctor;
mod embed;
mod evaluate;
mod finetune;
mod import;
mod inspect;
mod learn;
mod merge;
mod predict;
mod pretrain;
mod quickstart;
mod tokenize;
mod units;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Learned vocabularies for genomes: learn one from FASTA, pre-train an encoder over its codes, fine-tune it on labelled sequences and
/// predict; tokenize genomes and decode them back.
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
    Finetune(finetune::Args),
    Predict(predict::Args),
    Evaluate(evaluate::Args),
    Embed(embed::Args),
    Tokenize(tokenize::Args),
    Units(units::Args),
    Decode(decode::Args),
    Merge(merge::Args),
    Inspect(inspect::Args),
    Import(import::Args),
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
        Command::Finetune(args) => finetune::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Evaluate(args) => evaluate::run(&args),
        Command::Embed(args) => embed::run(&args),
        Command::Tokenize(args) => tokenize::run(&args),
        Command::Units(args) => units::run(&args),
        Command::Decode(args) => decode::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}
