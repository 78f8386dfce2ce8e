//! `vqdna quickstart`: the whole of it on a bundled genome, in about a minute.

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vqdna::folder::Vocabulary;
use vqdna::train::Ending;
use vqdna::transcode::TranscodeError;
use vqdna_data::codes::Reader;

use super::{Verdict, decode, learn, tokenize};
use crate::arguments::{Compute, Configure, PrecisionName, PresetName, QuantizerName, RunArgs, Strands};
use crate::measures::measure;

/// Phage lambda, `NC_001416.1`, 48,502 bases.
const LAMBDA: &[u8] = include_bytes!("../../../../examples/data/lambda.fa");

/// Share of bases that must come back right for the command to succeed.
const ENOUGH: f64 = 0.99;

/// Learn a vocabulary from phage lambda, tokenize it, decode it back, and show what was achieved.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Folder for everything that is made.
    #[arg(long, short, default_value = "vqdna-quickstart")]
    pub output: PathBuf,
    /// Size of the network.
    #[arg(long, value_enum, default_value_t = PresetName::Tiny)]
    pub preset: PresetName,
    /// How vectors become codes.
    #[arg(long, value_enum, default_value_t = QuantizerName::Hrq)]
    pub quantizer: QuantizerName,
    /// Optimiser steps.
    #[arg(long, default_value_t = 200)]
    pub steps: u64,
    #[command(flatten)]
    pub compute: Compute,
}

/// Learns, tokenizes, decodes, prints; fails if too little comes back right.
pub fn run(args: &Args) -> Result<Verdict> {
    let begun = Instant::now();
    let (genome, model) = (args.output.join("lambda.fa"), args.output.join("vocabulary"));
    let (codes, decoded) = (args.output.join("codes.parquet"), args.output.join("decoded.fa"));
    prepare(&args.output, &genome, &model)?;

    message!("1/3 learning a vocabulary from phage lambda");
    let learned = learn::learn(&learn_args(args, &genome, &model))?;
    if let Ending::Interrupted(_) = learned.ending {
        return Err(TranscodeError::Interrupted.into());
    }
    let seconds_learn = begun.elapsed().as_secs_f64();
    let device = vqdna::device::open(&args.compute.device)?;
    let vocabulary = Vocabulary::load(&model, &device)?;

    message!("2/3 tokenizing the genome");
    tokenize::tokenize(&tokenize_args(args, &genome, &model, &codes), &vocabulary, &device)?;
    message!("3/3 decoding it back");
    let back = decode::decode(&decode_args(args, &genome, &model, &codes, &decoded), &vocabulary, &device)?;

    let accuracy = back.accuracy().unwrap_or_default();
    let held_out = measure(&learned.measures, "reconstruction").unwrap_or_default();
    data!("genome\tphage lambda, {} bases", back.bases);
    data!("held-out bases decoded right\t{:.2} %", 100.0 * held_out);
    data!("all bases decoded right\t{:.2} %", 100.0 * accuracy);
    for (level, (used, size)) in (1..).zip(usage(&codes)?) {
        data!("codes in use, level {level}\t{used} of {size}");
    }
    data!("learning\t{seconds_learn:.1} s");
    data!("everything\t{:.1} s", begun.elapsed().as_secs_f64());
    data!("vocabulary\t{}\ncodes\t{}\ndecoded\t{}", model.display(), codes.display(), decoded.display());
    Ok(if accuracy >= ENOUGH { Verdict::Passed } else { Verdict::Failed })
}

/// Makes the folder with the genome in it; a vocabulary from an earlier quickstart makes way.
fn prepare(folder: &Path, genome: &Path, model: &Path) -> Result<()> {
    let place = || format!("cannot write to {}", folder.display());
    std::fs::create_dir_all(folder).with_context(place)?;
    if model.join("config.toml").is_file() {
        std::fs::remove_dir_all(model).with_context(place)?;
    }
    vqdna_data::aside::write_aside(genome, LAMBDA).with_context(place)
}

fn learn_args(args: &Args, genome: &Path, model: &Path) -> learn::Args {
    // Every tenth window is held out; evaluations on the way would take longer than the steps.
    let set =
        ["data.split.valid=0.1", "train.evaluate_every=0", "train.checkpoint_every=0"].map(str::to_owned).to_vec();
    let configure = Configure {
        preset: args.preset,
        config: None,
        set,
        steps: Some(args.steps),
        precision: None,
        recompute: false,
        seed: None,
    };
    learn::Args {
        inputs: vec![genome.to_owned()],
        quantizer: args.quantizer,
        configure,
        run: RunArgs { output: model.to_owned(), resume: false, dry_run: false, compute: args.compute.clone() },
    }
}

fn tokenize_args(args: &Args, genome: &Path, model: &Path, codes: &Path) -> tokenize::Args {
    tokenize::Args {
        model: model.to_owned(),
        inputs: vec![genome.to_owned()],
        output: codes.to_owned(),
        region: None,
        shard: None,
        strand: Strands::Forward,
        ambiguous: None,
        soft_mask: None,
        chunk: 4096,
        batch: None,
        precision: PrecisionName::F32,
        compute: args.compute.clone(),
    }
}

fn decode_args(args: &Args, genome: &Path, model: &Path, codes: &Path, decoded: &Path) -> decode::Args {
    decode::Args {
        model: model.to_owned(),
        codes: codes.to_owned(),
        output: decoded.to_owned(),
        original: vec![genome.to_owned()],
        chunk: 4096,
        compute: args.compute.clone(),
    }
}

/// Per level, how many codes a file holds, and how many there are.
fn usage(codes: &Path) -> Result<Vec<(usize, usize)>> {
    let reader = Reader::open(codes)?;
    let sizes = reader.header().codebook_sizes.clone();
    let mut seen: Vec<Vec<bool>> = sizes.iter().map(|&size| vec![false; size]).collect();
    for row in reader {
        for (seen, codes) in seen.iter_mut().zip(&row?.codes) {
            for &code in codes {
                seen[usize::from(code)] = true;
            }
        }
    }
    let used = |seen: &Vec<bool>| seen.iter().filter(|&&used| used).count();
    Ok(seen.iter().map(used).zip(sizes).collect())
}
