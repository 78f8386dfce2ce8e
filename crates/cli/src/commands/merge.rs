//! `vqdna merge`: shards of codes to one file.

use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use vqdna_data::codes;

use super::Verdict;
use crate::arguments::check_output;
use crate::output::note_stream;
use crate::progress::Progress;
use crate::words::counted;

/// Join shards of codes, in order, into the file that one run without shards would have written.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna tokenize runs/lambda examples/data/lambda.fa --shard 1/2 -o part1.parquet\n\
    \x20 vqdna tokenize runs/lambda examples/data/lambda.fa --shard 2/2 -o part2.parquet\n\
    \x20 vqdna merge part1.parquet part2.parquet -o lambda.parquet")]
pub struct Args {
    /// Files of codes in the order of their shards.
    #[arg(required = true, value_name = "CODES")]
    pub shards: Vec<PathBuf>,
    /// The joined file; its extension may differ from those of the shards.
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
}

/// Merges.
pub fn run(args: &Args) -> Result<Verdict> {
    check_output(&args.output, &args.shards)?;
    note_stream(&args.output);
    let progress = Progress::new("merging", "bases", None);
    let written = codes::merge_with_progress(&args.shards, &args.output, &mut |bases| progress.add(bases))?;
    drop(progress);
    message!("{} in {}", counted(written.bases, "base"), counted(written.rows, "row"));
    Ok(Verdict::Passed)
}
