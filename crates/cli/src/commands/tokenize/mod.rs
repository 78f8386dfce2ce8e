//! `vqdna tokenize`: FASTA to codes, to tokens of a fixed tokenizer ([`fixed`]), or to units.

mod fixed;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vqdna::infer::input::Input;
use vqdna::infer::units::{Cutter, Unit};
use vqdna::infer::{Execution, Sequence, Windows};
use vqdna::model_dir::{ModelConfig, Vocabulary};
use vqdna::ops;
use vqdna::transcode::encode::{Tokenize, Tokenized};
use vqdna_data::alphabet::{AmbiguousPolicy, SoftMaskPolicy};
use vqdna_data::codes::{ShardNumber, Writer};
use vqdna_data::number::Shortest;
use vqdna_data::output::Compression;
use vqdna_data::segment::{Counts, Policy, PolicyChange};

use super::Verdict;
use crate::arguments::{Compute, PrecisionName, Strands, at_least_one, check_output};
use crate::inputs;
use crate::interrupt;
use crate::output::{Output, note_stream};
use crate::progress::{Progress, describe};
use crate::sample;
use crate::words::counted;

/// Turn FASTA into codes: one code for each base and level; or with a model over another tokenizer into its tokens, with their places. Or,
/// with an MxDNA model, into the units that it forms, as BED.
///
/// Codes and tokens are those of the whole sequence in one piece, whatever --region, --chunk, --batch, --shard and --threads. Units are cut in windows of
/// --window bases, each with as much around its middle half as --window allows.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna tokenize runs/lambda examples/data/lambda.fa -o lambda.parquet\n\
    \x20 vqdna tokenize runs/lambda examples/data/lambda.fa -o - --region 'gi|9626243|ref|NC_001416.1|:1-100'\n\
    \x20 vqdna tokenize runs/mxdna examples/data/lambda.fa -o units.bed")]
pub struct Args {
    /// Folder of the vocabulary, of a model with one inside, or of an MxDNA model.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// FASTA or FASTQ files, plain or compressed; `-` is standard input.
    #[arg(required = true, value_name = "FASTA")]
    pub inputs: Vec<PathBuf>,
    /// Where the codes go: .parquet, .npy (with a sidecar of records), .tsv, or `-` for TSV on standard output. Where tokens go: .tsv, .csv,
    /// .jsonl or .parquet, texts also with .gz, .bgz or .zst, or `-`. Where units go: .bed
    /// (also .bed.gz, .bed.bgz or .bed.zst), or `-` for BED on standard output.
    #[arg(long, short, value_name = "OUT")]
    pub output: PathBuf,
    /// Only this region of one FASTA file, as in samtools: chr1:1,000-2,000 (1-based, inclusive).
    #[arg(long)]
    pub region: Option<String>,
    /// Only the I-th of N equal shares of the bases; join the files with `vqdna merge`.
    #[arg(long, value_name = "I/N")]
    pub shard: Option<ShardNumber>,
    /// Strands to tokenize.
    #[arg(long, value_enum, default_value_t = Strands::Forward)]
    pub strand: Strands,
    /// Ambiguous letters: n (become N), split or error. Default: as the vocabulary was learned.
    #[arg(long, value_name = "n|split|error")]
    pub ambiguous: Option<AmbiguousPolicy>,
    /// Soft-masked bases: keep or drop. Default: as the vocabulary was learned.
    #[arg(long, value_name = "keep|drop")]
    pub soft_mask: Option<SoftMaskPolicy>,
    /// Bases computed in one piece. Default: 4096.
    #[arg(long, value_parser = at_least_one)]
    pub chunk: Option<usize>,
    /// Pieces computed together. Default: as many as make about 16,384 bases.
    #[arg(long, value_parser = at_least_one)]
    pub batch: Option<usize>,
    /// Bases in which units are chosen together. Default: the longest sequence that the model was fine-tuned on, or a
    /// window of its pre-training.
    #[arg(long, value_parser = at_least_one)]
    pub window: Option<usize>,
    /// How products are computed. In bf16 some codes are others; the output names it.
    #[arg(long, value_enum, default_value_t = PrecisionName::F32)]
    pub precision: PrecisionName,
    #[command(flatten)]
    pub compute: Compute,
}

/// Bases computed in one piece, unless told otherwise.
const CHUNK: usize = 4096;

/// Whether a file is BED by its name, compressed or not.
fn is_bed(path: &Path) -> bool {
    Path::new(&Compression::of(path).1).extension().is_some_and(|end| end == "bed")
}

/// Tokenizes and says on stderr what was done.
pub fn run(args: &Args) -> Result<Verdict> {
    let config = ModelConfig::load(&args.model)?;
    let is_mxdna = config.forms_units();
    if let (false, Some(tokenizer)) = (is_mxdna, config.tokenizer.fixed()) {
        return fixed::run(args, &config, &tokenizer);
    }
    let is_bed = is_bed(&args.output);
    let is_stdout = args.output == Path::new("-");
    match (is_mxdna, is_bed) {
        (true, false) if !is_stdout => {
            bail!("{}: an MxDNA model has no codes; let the name end in .bed for its units", args.output.display())
        }
        (false, true) => bail!("{}: BED is for the units of an MxDNA model", args.output.display()),
        _ => {}
    }
    let device = args.compute.open()?;
    if is_mxdna {
        return cut(args, &device);
    }
    anyhow::ensure!(args.window.is_none(), "--window is for MxDNA models; codes do not depend on a window");
    let vocabulary = Vocabulary::load(&args.model, &device)?;
    interrupt::listen()?;
    let begun = Instant::now();
    let done = tokenize(args, &vocabulary, &device)?;
    let seconds = begun.elapsed().as_secs_f64();
    message!("{}", describe(&done.counts));
    let (bases, rate) = (counted(done.bases, "base"), done.bases as f64 / seconds);
    message!("{bases} tokenized in {seconds:.1} s, {rate:.0} bases/s");
    Ok(Verdict::Passed)
}

/// Cuts records into units, a line of BED for each.
fn cut(args: &Args, device: &burn::prelude::Device) -> Result<Verdict> {
    let of_codes = [
        ("--region", args.region.is_some()),
        ("--shard", args.shard.is_some()),
        ("--strand both", args.strand == Strands::Both),
        ("--chunk", args.chunk.is_some()),
        ("--batch", args.batch.is_some()),
    ];
    if let Some((option, _)) = of_codes.iter().find(|(_, given)| *given) {
        bail!("{option} is for codes, and an MxDNA model has none");
    }
    check_output(&args.output, &args.inputs)?;
    let cutter = Cutter::load(&args.model, device)?;
    let length = args.window.or(cutter.window()).unwrap_or(inputs::WINDOW);
    let windows = Windows { length, stride: length.div_ceil(2) };
    let precision = args.precision.on(device)?;
    interrupt::listen()?;
    let begun = Instant::now();
    let mut output = Output::create(&args.output, &[".bed"])?;
    // With this line, IGV shows the parts of a name as fields.
    writeln!(output, "#gffTags")?;
    writeln!(output, "# vqdna {}, model {}", env!("CARGO_PKG_VERSION"), cutter.digest)?;
    let progress = Progress::new("cutting", "bases", sample::bases(&args.inputs));
    let (mut bases, mut count) = (0, 0_u64);
    let poll = |_| interrupt::go_on();
    let execution = Execution::on(device).polling(&poll);
    let given = PolicyChange { ambiguous: args.ambiguous, soft_mask: args.soft_mask };
    let (letters, mut counts) = (given.over(cutter.letters()), Counts::default());
    for input in &args.inputs {
        let mut opened = Input::Fasta(input.clone()).open()?;
        counts += opened.read(letters, |sequences| -> Result<()> {
            ops::with_precision(precision, || {
                for unit in cutter.cut(&sequences, windows, execution) {
                    let unit = unit?;
                    let Sequence { id, first, .. } = &sequences[unit.sequence];
                    writeln!(output, "{}", bed_line(id, first, &unit, cutter.sizes()))?;
                    count += 1;
                    if unit.bases.start % 4096 < 16 {
                        progress.set(bases + unit.bases.start as u64);
                        interrupt::check()?;
                    }
                }
                bases += sequences.iter().map(|sequence| sequence.first.len() as u64).sum::<u64>();
                progress.set(bases);
                interrupt::check()
            })
        })?;
    }
    drop(progress);
    output.finish()?;
    let seconds = begun.elapsed().as_secs_f64();
    let mean = bases as f64 / count.max(1) as f64;
    message!("{}", describe(&counts));
    message!(
        "{}, {} of {mean:.2} bases on average, in {seconds:.1} s, {:.0} bases/s",
        counted(bases, "base"),
        counted(count, "unit"),
        bases as f64 / seconds
    );
    Ok(Verdict::Passed)
}

/// A unit as BED9: its letters, size, expert and gate as name, the gate in thousandths as score, a colour for its size.
fn bed_line(contig: &str, letters: &[u8], unit: &Unit, sizes: &[usize]) -> String {
    let Unit { bases, expert, gate, .. } = unit;
    let unit = String::from_utf8_lossy(&letters[bases.clone()]);
    let name = format!("Name={unit};size={};expert={expert};gate={}", bases.len(), Shortest(*gate));
    let score = (gate * 1000.0).round() as u32;
    let (start, end) = (bases.start, bases.end);
    let [red, green, blue] = colour(bases.len(), sizes.iter().copied().max().unwrap_or(1));
    format!("{contig}\t{start}\t{end}\t{name}\t{score}\t.\t{start}\t{end}\t{red},{green},{blue}")
}

/// From blue for a unit of one base over green and yellow to red for the longest.
fn colour(size: usize, longest: usize) -> [u8; 3] {
    const STOPS: [[f64; 3]; 4] = [[49.0, 54.0, 149.0], [26.0, 152.0, 80.0], [253.0, 174.0, 97.0], [165.0, 0.0, 38.0]];
    let at = (size.max(1) - 1) as f64 / (longest.max(2) - 1) as f64 * (STOPS.len() - 1) as f64;
    let stop = (at as usize).min(STOPS.len() - 2);
    let part = at - stop as f64;
    std::array::from_fn(|i| (STOPS[stop][i] + part * (STOPS[stop + 1][i] - STOPS[stop][i])).round() as u8)
}

/// About how many bases there are to tokenize, where that is known.
fn total(args: &Args) -> Option<u64> {
    if args.region.is_some() {
        return None;
    }
    let strands = if args.strand == Strands::Both { 2 } else { 1 };
    let shards = args.shard.map_or(1, |shard| shard.count);
    Some(strands * sample::bases(&args.inputs)? / shards)
}

/// Tokenizes into the output file.
pub fn tokenize(args: &Args, vocabulary: &Vocabulary, device: &burn::prelude::Device) -> Result<Tokenized> {
    use vqdna::transcode::TranscodeError as E;
    match (&args.region, args.shard) {
        (Some(_), Some(_)) => return Err(E::ShardOfRegion.into()),
        (Some(_), None) if args.inputs.len() != 1 => return Err(E::RegionOfMany(args.inputs.len()).into()),
        _ => {}
    }
    check_output(&args.output, &args.inputs)?;
    let learned = vocabulary.letters;
    let job = Tokenize {
        vocabulary,
        device,
        letters: Policy {
            ambiguous: args.ambiguous.unwrap_or(learned.ambiguous),
            soft_mask: args.soft_mask.unwrap_or(learned.soft_mask),
        },
        both_strands: args.strand == Strands::Both,
        chunk: args.chunk.unwrap_or(CHUNK),
        batch: args.batch,
        precision: args.precision.on(device)?,
    };
    let mut writer = Writer::create(&args.output, &job.header(args.shard))?;
    note_stream(&args.output);
    let shown = Progress::new("tokenizing", "bases", total(args));
    let progress = &mut |bases| {
        shown.set(bases);
        interrupt::go_on()
    };
    let done = match &args.region {
        Some(region) => job.region(&args.inputs[0], region, &mut writer, progress),
        None => job.files(&args.inputs, args.shard, &mut writer, progress),
    };
    drop(shown);
    let done = done?;
    writer.finish()?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_a_line_of_nine_fields() {
        let unit = Unit { sequence: 0, bases: 2..5, anchor: 3, expert: 1, gate: 0.4321 };
        let line = bed_line("chr1", b"ACgTNA", &unit, &[1, 3, 10]);
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields[..5], ["chr1", "2", "5", "Name=gTN;size=3;expert=1;gate=0.4321", "432"]);
        assert_eq!(fields[5..8], [".", "2", "5"]);
        assert_eq!(fields.len(), 9);
    }

    #[test]
    fn bed_may_be_compressed() {
        for (name, expected) in
            [("x.bed", true), ("X.BED.GZ", true), ("x.bed.zst", true), ("bed", false), ("x.tsv", false)]
        {
            assert_eq!(is_bed(Path::new(name)), expected, "{name}");
        }
    }

    #[test]
    fn sizes_have_colours_of_their_own() {
        let colours: Vec<[u8; 3]> = (1..=10).map(|size| colour(size, 10)).collect();
        assert!((1..10).all(|i| !colours[..i].contains(&colours[i])));
        assert_eq!((colour(1, 10), colour(10, 10), colour(1, 1)), ([49, 54, 149], [165, 0, 38], [49, 54, 149]));
    }
}
