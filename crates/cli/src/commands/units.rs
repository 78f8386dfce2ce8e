//! `vqdna units`: how long the units are that an MxDNA model cuts sequences into.

use anyhow::{Context, Result, ensure};
use clap::Args as ClapArgs;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use vqdna::infer::Execution;
use vqdna::infer::units::Cutter;
use vqdna_data::tabular::{Column, Format, Header, Kind, Value, Writer};

use super::Verdict;
use super::predict::{BudgetArgs, ReadArgs, WindowArgs};
use crate::arguments::{Compute, check_output};
use crate::interrupt;
use crate::plot::{self, Line};

/// Count the units of each length that an MxDNA model cuts sequences into: a table with the lengths of each class of sequences.
///
/// INPUT are tables (CSV, TSV, JSON Lines, Parquet), FASTA or FASTQ, of which each file is a class; or with --fasta BED files, in which
/// each name is a class, such as a feature of an annotation.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna units runs/mxdna examples/data/lambda.fa examples/data/human.chr22.20-21M.fa.gz --plot lengths.svg\n\
    \x20 vqdna units runs/mxdna genes.bed --fasta genome.fa.gz -o lengths.tsv")]
pub struct Args {
    /// Folder of an MxDNA model, pre-trained or fine-tuned.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Sequences.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Where the table goes: .tsv, .csv, .jsonl or .parquet, texts also with .gz, .bgz or .zst; `-` is tab-separated text on standard
    /// output.
    #[arg(long, short, default_value = "-")]
    pub output: PathBuf,
    /// Draw the shares of the lengths, too, a line for each class, into this SVG file.
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// Name of each INPUT as a class, in their order. Default: the shortest ends of their paths that differ.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub names: Vec<String>,
    #[command(flatten)]
    pub read: ReadArgs,
    #[command(flatten)]
    pub windows: WindowArgs,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub compute: Compute,
}

/// Bases cut together where the model names no window: folders of older programs.
pub const WINDOW: usize = 512;

/// Lines that a plot can tell apart.
const MOST_LINES: usize = 12;

/// What was counted in a class of sequences.
#[derive(Clone, Debug)]
struct Class {
    name: String,
    sequences: u64,
    bases: u64,
    /// Units of each expert.
    units: Vec<u64>,
}

/// Classes in the order in which they were met.
struct Classes {
    all: Vec<Class>,
    known: HashMap<String, usize>,
    experts: usize,
}

impl Classes {
    fn of(&mut self, name: &str) -> &mut Class {
        let number = self.known.get(name).copied().unwrap_or_else(|| {
            let class = Class { name: name.to_owned(), sequences: 0, bases: 0, units: vec![0; self.experts] };
            self.all.push(class);
            self.known.insert(name.to_owned(), self.all.len() - 1);
            self.all.len() - 1
        });
        &mut self.all[number]
    }
}

/// Counts into a table, and a plot.
pub fn run(args: &Args) -> Result<Verdict> {
    let format = Format::of(&args.output)?;
    let device = args.compute.open()?;
    let cutter = Cutter::load(&args.model, &device)?;
    for output in [Some(&args.output), args.plot.as_ref()].into_iter().flatten() {
        check_output(output, args.read.fasta.iter().chain(&args.inputs))?;
    }
    ensure!(
        args.names.is_empty() || args.names.len() == args.inputs.len(),
        "--names has {} names for {} inputs",
        args.names.len(),
        args.inputs.len()
    );
    if let Some(path) = &args.plot {
        let is_svg = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("svg"));
        ensure!(is_svg, "--plot {}: plots are SVG; let the name end in .svg", path.display());
    }
    let windows = args.windows.windows(cutter.window().unwrap_or(WINDOW), |length| length.div_ceil(2))?;
    let names = if args.names.is_empty() { short_names(&args.inputs) } else { args.names.clone() };
    interrupt::listen()?;
    let mut writer = Writer::create(&args.output, format, Header { columns: columns(), notes: Vec::new() })?;
    let mut classes = Classes { all: Vec::new(), known: HashMap::new(), experts: cutter.sizes().len() };
    let poll = |_| interrupt::go_on();
    let execution = Execution::on(&device).within(args.budget.budget()).polling(&poll);
    for (path, name) in args.inputs.iter().zip(&names) {
        let by_id = args.read.fasta.is_some();
        args.read.input(path, None).read(|sequences| -> Result<()> {
            let class = |n: usize| if by_id { sequences[n].id.clone() } else { name.clone() };
            for (n, sequence) in sequences.iter().enumerate() {
                let class = classes.of(&class(n));
                class.sequences += 1;
                class.bases += sequence.first.len() as u64;
            }
            for unit in cutter.cut(&sequences, windows, execution) {
                let unit = unit?;
                classes.of(&class(unit.sequence)).units[unit.span.expert] += 1;
            }
            interrupt::check()
        })?;
    }
    write(&mut writer, &classes.all, cutter.sizes())?;
    writer.finish()?;
    if let Some(path) = &args.plot {
        draw(path, &classes.all, cutter.sizes())?;
    }
    Ok(Verdict::Passed)
}

fn columns() -> Vec<Column> {
    let integers = ["sequences", "bases", "units"].map(|name| Column::new(name, Kind::Integer));
    let [size, count] = ["size", "units_of_size"].map(|name| Column::new(name, Kind::Integer));
    let [mean, of_units, of_bases] =
        ["bases_per_unit", "share_of_units", "share_of_bases"].map(|name| Column::new(name, Kind::Number));
    let class = Column::new("class", Kind::Text);
    [class].into_iter().chain(integers).chain([mean, size, count, of_units, of_bases]).collect()
}

/// A row for each class and length.
fn write(writer: &mut Writer, classes: &[Class], sizes: &[usize]) -> Result<()> {
    for class in classes {
        let units: u64 = class.units.iter().sum();
        // Without units there is no mean, and of nothing no share.
        let number = |value: f64, of: u64| if of > 0 { Value::Number(value) } else { Value::Missing };
        for (size, share, of_bases, count) in lengths(class, sizes) {
            writer.write(&[
                Value::Text(&class.name),
                Value::Integer(class.sequences),
                Value::Integer(class.bases),
                Value::Integer(units),
                number(class.bases as f64 / units.max(1) as f64, units),
                Value::Integer(size as u64),
                Value::Integer(count),
                number(share, units),
                number(of_bases, class.bases),
            ])?;
        }
    }
    Ok(())
}

/// Of each length, the share of the units that have it, the share of the bases that lie in them, and their number.
fn lengths(class: &Class, sizes: &[usize]) -> Vec<(usize, f64, f64, u64)> {
    let mut counts: Vec<(usize, u64)> = Vec::new();
    for (&size, &count) in sizes.iter().zip(&class.units) {
        match counts.iter_mut().find(|(known, _)| *known == size) {
            Some((_, sum)) => *sum += count,
            None => counts.push((size, count)),
        }
    }
    counts.sort_unstable();
    let units: u64 = class.units.iter().sum();
    let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
    counts.iter().map(|&(size, n)| (size, share(n, units), share(n * size as u64, class.bases), n)).collect()
}

fn draw(path: &Path, classes: &[Class], sizes: &[usize]) -> Result<()> {
    ensure!(
        classes.len() <= MOST_LINES,
        "--plot can tell {MOST_LINES} classes apart, and there are {}; the table has all",
        classes.len()
    );
    let line = |class: &Class| Line {
        name: class.name.clone(),
        points: lengths(class, sizes).iter().map(|&(size, share, ..)| (size as u32, 100.0 * share)).collect(),
    };
    let lines: Vec<Line> = classes.iter().map(line).collect();
    let svg = plot::lines("Lengths of units", "bases of a unit", "% of the units", &lines)?;
    vqdna_data::aside::write_aside(path, svg.as_bytes()).with_context(|| format!("cannot write to {}", path.display()))
}

/// The last parts of paths, as many as it takes to tell them apart.
fn short_names(paths: &[PathBuf]) -> Vec<String> {
    let parts: Vec<Vec<String>> = paths
        .iter()
        .map(|path| path.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect())
        .collect();
    let last = |count: usize| -> Vec<String> {
        parts.iter().map(|parts| parts[parts.len().saturating_sub(count)..].join("/")).collect()
    };
    let longest = parts.iter().map(Vec::len).max().unwrap_or(1);
    let differ = |names: &Vec<String>| {
        let mut sorted = names.clone();
        sorted.sort();
        sorted.windows(2).all(|pair| pair[0] != pair[1])
    };
    (1..=longest).map(last).find(differ).unwrap_or_else(|| last(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_shares_of_units_and_of_bases() {
        let class = Class { name: "a".to_owned(), sequences: 1, bases: 20, units: vec![2, 3, 1] };
        // Two experts for units of 2.
        assert_eq!(lengths(&class, &[2, 4, 2]), [(2, 0.5, 0.3, 3), (4, 0.5, 0.6, 3)]);
        let empty = Class { units: vec![0, 0, 0], ..class };
        assert!(lengths(&empty, &[2, 4, 2]).iter().all(|&(_, share, of_bases, _)| share == 0.0 && of_bases == 0.0));
    }

    #[test]
    fn names_are_as_short_as_tells_them_apart() {
        let of = |paths: &[&str]| short_names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["data/a.csv", "b.csv"]), ["a.csv", "b.csv"]);
        assert_eq!(of(&["gue/tf/0/test.csv", "gue/mouse/0/test.csv"]), ["tf/0/test.csv", "mouse/0/test.csv"]);
        assert_eq!(of(&["a.fa", "a.fa"]), ["a.fa", "a.fa"]);
    }
}
