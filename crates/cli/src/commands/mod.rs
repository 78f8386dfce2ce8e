//! One subcommand a file: its arguments and what it does.

mod bench;
mod decode;
mod doctor;
mod embed;
mod evaluate;
mod finetune;
mod generate;
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
#[command(after_help = "Examples:\n\
    \x20 vqdna quickstart\n\
    \x20 vqdna learn examples/data/lambda.fa -o runs/lambda --preset tiny --steps 200\n\
    \x20 vqdna tokenize --help\n\n\
    Exit codes: 0 done; 1 finished, but failed its own check; 2 could not run; 130, 143 or 129 stopped by a signal.")]
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
    Generate(generate::Args),
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
    crate::progress::between_lines()?;
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
        Command::Generate(args) => generate::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Quickstart(args) => quickstart::run(&args),
        Command::Bench(args) => bench::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// The words of a line as a shell hands them to the program, which stands last in a pipe.
    fn words(line: &str) -> Vec<String> {
        let last = line.rsplit("| ").next().unwrap_or(line);
        let command = last.split(" > ").next().unwrap_or(last);
        command.split_whitespace().map(|word| word.trim_matches('\'').to_owned()).collect()
    }

    #[test]
    fn every_help_has_examples_that_are_command_lines() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{}", command.get_name()));
            let mut own = 0;
            for line in examples.lines() {
                let words = words(line);
                own += usize::from(words[1] == command.get_name());
                if let Err(error) = Cli::try_parse_from(&words) {
                    panic!("{line}: {error}");
                }
            }
            assert!(own > 0, "{}", command.get_name());
        }
    }

    #[test]
    fn threads_have_the_letter_of_samtools_too() {
        for option in ["--threads", "-t", "-@"] {
            let cli = Cli::try_parse_from(["vqdna", "doctor", option, "3"]).expect("parsed");
            let Command::Doctor(args) = cli.command else { panic!("doctor") };
            assert_eq!(args.compute.threads, Some(3));
        }
    }
}
