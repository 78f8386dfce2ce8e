//! Tokens of a model over a fixed tokenizer: a row for each, with its place.

use anyhow::{Result, ensure};
use std::time::Instant;
use vqdna::model_dir::{ModelConfig, digest};
use vqdna::tokenizer::Tokenizer;
use vqdna::transcode::TranscodeError;
use vqdna::transcode::fixed::{TokenAt, TokenizeFixed};
use vqdna_data::segment::PolicyChange;
use vqdna_data::span::Strand;
use vqdna_data::tabular::{Column, Format, Header, Kind, Value, Writer};

use super::{Args, total};
use crate::arguments::{PrecisionName, Strands, check_output};
use crate::commands::Verdict;
use crate::interrupt;
use crate::output::note_stream;
use crate::progress::{Progress, describe};
use crate::words::counted;

/// Tokenizes and says on stderr what was done.
pub fn run(args: &Args, config: &ModelConfig, tokenizer: &Tokenizer) -> Result<Verdict> {
    let of_others = [
        ("--window", args.window.is_some()),
        ("--batch", args.batch.is_some()),
        ("--chunk", args.chunk.is_some()),
        ("--precision bf16", args.precision == PrecisionName::Bf16),
    ];
    for (option, given) in of_others {
        ensure!(!given, "{option} changes no token of a fixed tokenizer; leave it out");
    }
    if args.region.is_some() {
        ensure!(args.shard.is_none(), TranscodeError::ShardOfRegion);
        ensure!(args.inputs.len() == 1, TranscodeError::RegionOfMany(args.inputs.len()));
    }
    check_output(&args.output, &args.inputs)?;
    let format = Format::of(&args.output)?;
    interrupt::listen()?;
    let begun = Instant::now();
    let columns = vec![
        Column::new("record", Kind::Text),
        Column::new("start", Kind::Integer),
        Column::new("end", Kind::Integer),
        Column::new("strand", Kind::Text),
        Column::new("id", Kind::Integer),
        Column::new("token", Kind::Text),
    ];
    let notes = vec![("model".to_owned(), digest(&args.model)?)];
    let mut writer = Writer::create(&args.output, format, Header { columns, notes })?;
    note_stream(&args.output);
    let letters = PolicyChange { ambiguous: args.ambiguous, soft_mask: args.soft_mask }.over(config.letters);
    let job = TokenizeFixed { tokenizer, letters, both_strands: args.strand == Strands::Both };
    let shown = Progress::new("tokenizing", "bases", total(args));
    // Every token has a text, which is made once.
    let texts: Vec<String> = (0..tokenizer.size() as u32).map(|id| tokenizer.token(id).unwrap_or_default()).collect();
    let mut count = 0_u64;
    let mut write = |TokenAt { record, bases, strand, id }: TokenAt| -> Result<()> {
        count += 1;
        let strand = if strand == Strand::Forward { "+" } else { "-" };
        let text = texts.get(id as usize).map_or("", String::as_str);
        writer.write(&[
            Value::Text(record),
            Value::Integer(bases.start),
            Value::Integer(bases.end),
            Value::Text(strand),
            Value::Integer(id.into()),
            Value::Text(text),
        ])?;
        Ok(())
    };
    let progress = &mut |bases| {
        shown.set(bases);
        interrupt::go_on()
    };
    let done = match &args.region {
        Some(region) => job.region(&args.inputs[0], region, &mut write, progress),
        None => job.files(&args.inputs, args.shard, &mut write, progress),
    };
    drop(shown);
    let done = done?;
    writer.finish()?;
    let seconds = begun.elapsed().as_secs_f64();
    message!("{}", describe(&done.counts));
    let mean = done.bases as f64 / count.max(1) as f64;
    message!(
        "{}, {} at {mean:.2} bases each, in {seconds:.1} s, {:.0} bases/s",
        counted(done.bases, "base"),
        counted(count, "token"),
        done.bases as f64 / seconds
    );
    Ok(Verdict::Passed)
}
