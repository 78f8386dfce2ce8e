//! `vqdna merge`: shards of codes to one file.

use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::PathBuf;
use vqdna_data::codes;

use super::Verdict;
use crate::arguments::check_output;

/// Join shards of codes, in order, into the file that one run without shards would have written.
#[derive(ClapArgs, Clone, Debug)]
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
    let written = codes::merge(&args.shards, &args.output)?;
    message!("{} bases in {} rows", written.bases, written.rows);
    Ok(Verdict::Passed)
}
