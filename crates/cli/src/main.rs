//! The program `vqdna`: learned vocabularies for genomes, from FASTA to codes and back.
//!
//! Data go to stdout, messages to stderr. Exit code 0: done; 1: it ran but failed its own check; 2: it could not run; 129, 130 or 143:
//! a signal stopped it.

#![allow(clippy::exit, reason = "the program exits; libraries return")]

/// Prints a line of a command's product. What cannot be written is an error of the command, not a panic.
macro_rules! data {
    ($($format:tt)*) => {
        anyhow::Context::context(
            std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("{}\n", format_args!($($format)*))),
            "cannot write to standard output",
        )?
    };
}

/// Prints a line for a person; see [`screen::say`].
macro_rules! message {
    ($($format:tt)*) => {
        $crate::screen::say(&format!($($format)*))
    };
}

mod allocator;
mod arguments;
mod commands;
mod inputs;
mod interrupt;
mod measures;
mod memory;
mod output;
mod plot;
mod predictions;
mod progress;
mod sample;
mod screen;
mod words;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// Exit code of a run that finished but failed its own check.
const FAILED_CHECK: u8 = 1;
/// Exit code of a run that could not start or go on; clap uses the same for wrong arguments.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    quiet_caught_panics();
    let cli = commands::Cli::parse();
    let outcome = interrupt::install().and_then(|()| commands::run(cli));
    interrupt::give_way();
    match outcome {
        Ok(commands::Verdict::Passed) => ExitCode::SUCCESS,
        Ok(commands::Verdict::Failed) => ExitCode::from(FAILED_CHECK),
        // The reader of our output has seen enough: `vqdna tokenize … | head`.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) if is_interrupted(&error) => {
            let stopped = error.downcast_ref::<interrupt::Stopped>();
            message!("{}", stopped.map_or_else(interrupt::stopped, interrupt::Stopped::to_string));
            ExitCode::from(interrupt::exit_code())
        }
        Err(error) => {
            message!("error: {}", chain(&error));
            ExitCode::from(COULD_NOT_RUN)
        }
    }
}

/// What a damaged file makes a library panic about is one line of error and no trace.
fn quiet_caught_panics() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !vqdna_data::panics_are_caught() {
            loud(panic);
        }
    }));
}

/// The chain of causes on one line, leaving out what a cause repeats of its effect.
fn chain(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn is_interrupted(error: &anyhow::Error) -> bool {
    use vqdna::run::stage::StageError;
    use vqdna::transcode::TranscodeError;
    matches!(error.downcast_ref::<TranscodeError>(), Some(TranscodeError::Interrupted))
        || matches!(error.downcast_ref::<StageError>(), Some(StageError::Interrupted))
        || error.is::<vqdna::infer::Interrupted>()
        || error.is::<interrupt::Stopped>()
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
