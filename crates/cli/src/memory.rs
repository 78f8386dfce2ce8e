//! The table of `--dry-run`.

use anyhow::Result;
use std::path::PathBuf;
use vqdna::estimate::Memory;

use crate::arguments::Compute;

/// Prints an estimate part by part, in MiB as `bench` measures the peak.
pub fn print_memory(memory: &Memory, compute: &Compute) -> Result<()> {
    if compute.device != "cpu" {
        message!("note: the estimate is for --device cpu");
    }
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    data!("part\tmb\tnumbers");
    for (name, bytes) in memory.parts() {
        let numbers = match name {
            "parameters" => memory.numbers.to_string(),
            "gradients" => memory.learned.to_string(),
            "moments" => (2 * memory.learned).to_string(),
            _ => "-".to_owned(),
        };
        data!("{name}\t{:.1}\t{numbers}", mib(bytes));
    }
    data!("total\t{:.1}\t-", mib(memory.total()));
    Ok(())
}

/// Bases of a byte of a compressed file: what gzip makes of genomes.
const BASES_OF_COMPRESSED_BYTE: u64 = 4;

/// About how many bases the inputs hold, by the sizes of the files; those of a stream are unknown.
///
/// # Errors
/// If a file is missing.
pub fn guess_bases(inputs: &[PathBuf]) -> Result<u64> {
    let mut bases = 0u64;
    for input in inputs {
        if input.as_os_str() == "-" {
            message!("note: the bases of standard input are not counted");
            continue;
        }
        let file = std::fs::File::open(input).and_then(|file| file.metadata());
        let file = file.map_err(|error| anyhow::anyhow!("{}: {error}", input.display()))?;
        anyhow::ensure!(!file.is_dir(), "{}: is a directory", input.display());
        let is_compressed = input.extension().is_some_and(|end| COMPRESSED.iter().any(|known| end == *known));
        bases =
            bases.saturating_add(file.len().saturating_mul(if is_compressed { BASES_OF_COMPRESSED_BYTE } else { 1 }));
    }
    Ok(bases)
}

/// Endings of compressed files.
const COMPRESSED: [&str; 5] = ["gz", "bgz", "bz2", "xz", "zst"];
