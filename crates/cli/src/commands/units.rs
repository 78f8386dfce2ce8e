//! `vqdna units`: how long the units are that an MxDNA model cuts sequences into.

use anyhow::{Context, Result, bail, ensure};
use clap::Args as ClapArgs;
use std::collections::HashMap;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};
use vqdna::infer::Execution;
use vqdna::infer::units::Cutter;
use vqdna_data::aside::AsideFile;
use vqdna_data::labelled::TakenColumns;
use vqdna_data::segment::Counts;
use vqdna_data::tabular::{Column, Format, Header, Kind, Value, Writer};

use super::Verdict;
use super::predict::{BudgetArgs, ReadArgs, WindowArgs};
use crate::arguments::{Compute, check_output};
use crate::inputs;
use crate::interrupt;
use crate::plot::{self, Line};
use crate::progress::Progress;
use crate::sample;
use crate::words::counted;

/// Count the units of each length that an MxDNA model cuts sequences into: a table with the lengths of each class of sequences.
///
/// INPUT are tables (CSV, TSV, JSON Lines, Parquet), FASTA or FASTQ, which their content tells, of which each file is a class; or with
/// --fasta BED files, in which each name is a class, such as a feature of an annotation. Bases are those that letter policies keep.
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
    /// Draw the shares of the lengths, too, a line for each class, into this SVG file; of more than 12 classes those with the most bases,
    /// and all together.
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
    for output in [Some(&args.output), args.plot.as_ref()].into_iter().flatten() {
        check_output(output, args.read.fasta.iter().chain(&args.inputs))?;
    }
    let names = names(args)?;
    // What cannot be written is found out before hours of work.
    let plot = args.plot.as_deref().map(|path| Plot::create(path, &args.output)).transpose()?;
    let device = args.compute.open()?;
    let cutter = Cutter::load(&args.model, &device)?;
    let windows = args.windows.windows(cutter.window().unwrap_or(inputs::WINDOW), |length| length.div_ceil(2))?;
    let letters = args.read.letters.over(cutter.letters());
    interrupt::listen()?;
    let mut writer = Writer::create(&args.output, format, Header { columns: columns(), notes: Vec::new() })?;
    let mut classes = Classes { all: Vec::new(), known: HashMap::new(), experts: cutter.sizes().len() };
    let progress = Progress::new("cutting", "bases", sample::bases(&args.inputs));
    let poll = |bases| {
        progress.add(bases);
        interrupt::go_on()
    };
    let execution = Execution::on(&device).within(args.budget.budget()).polling(&poll);
    let (mut counts, mut comments) = (Counts::default(), 0);
    for (path, name) in args.inputs.iter().zip(&names) {
        let by_id = args.read.fasta.is_some();
        let mut opened = inputs::open(&args.read.input(path, None))?;
        if opened.columns().is_some_and(TakenColumns::are_pairs) {
            message!("note: of each pair, the first sequence alone is counted");
        }
        counts += opened.read(letters, |sequences| -> Result<()> {
            let class = |n: usize| if by_id { &sequences[n].id } else { name };
            for (n, sequence) in sequences.iter().enumerate() {
                let class = classes.of(class(n));
                class.sequences += 1;
                class.bases += sequence.parts.iter().map(|part| part.len() as u64).sum::<u64>();
            }
            for unit in cutter.cut(&sequences, windows, execution) {
                let unit = unit?;
                classes.of(class(unit.sequence)).units[unit.expert] += 1;
            }
            interrupt::check()
        })?;
        comments += opened.comments();
    }
    drop(progress);
    write(&mut writer, &classes.all, cutter.sizes())?;
    writer.finish()?;
    if let Some(plot) = plot {
        plot.draw(&classes.all, cutter.sizes())?;
    }
    inputs::report(&counts, comments);
    Ok(Verdict::Passed)
}

/// The names of the inputs as classes.
fn names(args: &Args) -> Result<Vec<String>> {
    if args.names.is_empty() {
        return Ok(short_names(&args.inputs));
    }
    let (names, inputs) = (args.names.len(), args.inputs.len());
    ensure!(names == inputs, "--names has {} for {}", counted(names as u64, "name"), counted(inputs as u64, "input"));
    ensure!(
        args.read.fasta.is_none(),
        "--names is for files that are classes; with --fasta the names in BED files are"
    );
    if let Some(name) = args.names.iter().find(|name| name.contains(char::is_control)) {
        bail!("--names: `{}` holds a tab or another control character, which tables cannot hold", name.escape_debug());
    }
    Ok(args.names.clone())
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

/// A plot in the making.
struct Plot {
    file: AsideFile,
    path: PathBuf,
}

impl Plot {
    /// Begins a file beside the table.
    fn create(path: &Path, table: &Path) -> Result<Self> {
        let is_svg = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("svg"));
        ensure!(is_svg, "--plot {}: plots are SVG; let the name end in .svg", path.display());
        ensure!(path != table, "--plot {}: the table goes there; choose another name", path.display());
        let file = AsideFile::create(path).with_context(|| format!("cannot write to {}", path.display()))?;
        Ok(Self { file, path: path.to_owned() })
    }

    fn draw(mut self, classes: &[Class], sizes: &[usize]) -> Result<()> {
        let line = |class: &Class| Line {
            name: class.name.clone(),
            points: lengths(class, sizes).iter().map(|&(size, share, ..)| (size as u32, 100.0 * share)).collect(),
        };
        let lines: Vec<Line> = shown(classes).iter().map(line).collect();
        if classes.len() > MOST_LINES {
            message!(
                "the plot shows the {} classes with the most bases of {}, and all together; the table has each",
                MOST_LINES - 1,
                classes.len()
            );
        }
        let svg = plot::lines("Lengths of units", "bases of a unit", "% of the units", &lines)?;
        let written = self.file.write_all(svg.as_bytes()).and_then(|()| self.file.keep());
        written.map(drop).with_context(|| format!("cannot write to {}", self.path.display()))
    }
}

/// The classes of a plot: all, or of too many those with the most bases, and their sum.
fn shown(classes: &[Class]) -> Vec<Class> {
    if classes.len() <= MOST_LINES {
        return classes.to_vec();
    }
    let mut order: Vec<&Class> = classes.iter().collect();
    order.sort_by_key(|class| std::cmp::Reverse(class.bases));
    let mut all = Class { name: format!("all {} classes", classes.len()), sequences: 0, bases: 0, units: Vec::new() };
    all.units = vec![0; classes[0].units.len()];
    for class in classes {
        all.sequences += class.sequences;
        all.bases += class.bases;
        all.units.iter_mut().zip(&class.units).for_each(|(sum, units)| *sum += units);
    }
    order.into_iter().take(MOST_LINES - 1).cloned().chain([all]).collect()
}

/// The last parts of paths, as many as it takes to tell them apart.
fn short_names(paths: &[PathBuf]) -> Vec<String> {
    let parts: Vec<Vec<String>> = paths
        .iter()
        .map(|path| {
            // A name of a file may hold what would tear a table.
            let part = |part: Component| part.as_os_str().to_string_lossy().escape_debug().to_string();
            path.components().map(part).collect()
        })
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
    fn of_many_classes_the_largest_are_drawn_and_their_sum() {
        let class = |n: u64| Class { name: n.to_string(), sequences: 1, bases: n, units: vec![n, 1] };
        let names = |count: u64| -> Vec<String> {
            shown(&(1..=count).map(class).collect::<Vec<_>>()).into_iter().map(|class| class.name).collect()
        };
        assert_eq!(names(12), (1..=12).map(|n| n.to_string()).collect::<Vec<_>>());
        let many = names(20);
        assert_eq!((many.len(), &many[0][..], &many[10][..], &many[11][..]), (12, "20", "10", "all 20 classes"));
        let all = &shown(&(1..=20).map(class).collect::<Vec<_>>())[11];
        assert_eq!((all.sequences, all.bases, &all.units[..]), (20, 210, &[210, 20][..]));
    }

    #[test]
    fn names_are_as_short_as_tells_them_apart() {
        let of = |paths: &[&str]| short_names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(of(&["data/a.csv", "b.csv"]), ["a.csv", "b.csv"]);
        assert_eq!(of(&["gue/tf/0/test.csv", "gue/mouse/0/test.csv"]), ["tf/0/test.csv", "mouse/0/test.csv"]);
        assert_eq!(of(&["a.fa", "a.fa"]), ["a.fa", "a.fa"]);
        assert_eq!(of(&["a\tb.fa"]), ["a\\tb.fa"]);
    }
}
