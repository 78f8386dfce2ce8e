//! Predictions as a table, or as places on a genome: BED and bedGraph.

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use vqdna::infer::Sequence;
use vqdna::infer::predict::Predicted;
use vqdna::objective::supervised::prediction::Prediction;
use vqdna_data::labelled::Labelling;
use vqdna_data::number::Shortest;
use vqdna_data::output;
use vqdna_data::tabular::{self, Column, Header, Kind, Value, Writer};

use crate::output::Output;
use crate::words::counted;

/// How predictions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Tab-separated text.
    Tsv,
    /// Comma-separated text.
    Csv,
    /// A JSON object a line.
    Jsonl,
    /// Parquet.
    Parquet,
    /// BED6 with further columns: the score is a probability in thousandths.
    Bed,
    /// Contig, start, end and a probability or value.
    Bedgraph,
}

/// Endings of names that tables do not have.
const PLACES: [(&str, Format); 4] =
    [(".bed", Format::Bed), (".bedgraph", Format::Bedgraph), (".bdg", Format::Bedgraph), (".bg", Format::Bedgraph)];

impl Format {
    /// The format that the name of a file implies; where it implies none, the requested one.
    pub fn of(path: &Path, asked: Option<Self>) -> Result<Self> {
        let tables = tabular::Format::ENDINGS.map(|(ending, _)| ending);
        let known: Vec<&str> = tables.into_iter().chain(PLACES.map(|(ending, _)| ending)).collect();
        let ending = output::ending(path, &known)?;
        let named = match PLACES.iter().find(|(known, _)| Some(*known) == ending) {
            Some((_, format)) => *format,
            None => tabular::Format::of(path)?.into(),
        };
        let format = asked.unwrap_or(named);
        match ending {
            Some(ending) if format != named => {
                bail!("{} ends in {ending}, but another format is requested; give it another name", path.display())
            }
            _ => Ok(format),
        }
    }

    /// Whether rows are places on a genome.
    pub fn has_places(self) -> bool {
        matches!(self, Self::Bed | Self::Bedgraph)
    }
}

impl From<tabular::Format> for Format {
    fn from(format: tabular::Format) -> Self {
        match format {
            tabular::Format::Tsv => Self::Tsv,
            tabular::Format::Csv => Self::Csv,
            tabular::Format::Jsonl => Self::Jsonl,
            tabular::Format::Parquet => Self::Parquet,
        }
    }
}

/// Predictions in the making; dropped before [`Predictions::finish`], a file leaves no trace.
pub struct Predictions<'a> {
    labelling: &'a Labelling,
    inner: Inner,
}

enum Inner {
    Table {
        writer: Writer,
        /// Whether rows begin with the fields of BED.
        of_bed: bool,
    },
    Places(Places),
}

impl<'a> Predictions<'a> {
    /// Begins a file, or text on standard output for `-`. `class` names the output that a score or value is of; `of_bed` says that
    /// sequences are places of a BED file; `carried` are columns of the input that are written too. Nothing is on standard output before the first row, or the end.
    pub fn create(
        path: &Path,
        format: Format,
        labelling: &'a Labelling,
        class: Option<&str>,
        of_bed: bool,
        carried: &[String],
    ) -> Result<Self> {
        let table = match format {
            Format::Tsv => tabular::Format::Tsv,
            Format::Csv => tabular::Format::Csv,
            Format::Jsonl => tabular::Format::Jsonl,
            Format::Parquet => tabular::Format::Parquet,
            Format::Bed | Format::Bedgraph => {
                ensure!(carried.is_empty(), "--keep-columns is for tables; BED and bedGraph have columns of their own");
                let inner = Inner::Places(Places::create(path, format, labelling, class)?);
                return Ok(Self { labelling, inner });
            }
        };
        crate::output::note_stream(path);
        ensure!(class.is_none(), "--class is for BED and bedGraph; a table has a column for each");
        let header = Header { columns: with_carried(columns(labelling, of_bed), carried), notes: Vec::new() };
        Ok(Self { labelling, inner: Inner::Table { writer: Writer::create(path, table, header)?, of_bed } })
    }

    /// Writes what is predicted of a sequence, or of a window of it.
    pub fn write(&mut self, sequence: &Sequence, found: &Predicted) -> Result<()> {
        let has_values = !found.values.is_empty() && !found.values.iter().any(|value| value.is_nan());
        let values = has_values.then_some(&found.values[..]);
        let said = values.map(|values| Prediction::merged(self.labelling, Vec::new()).said(values));
        match &mut self.inner {
            Inner::Places(places) => places.write(self.labelling, sequence, found, said.as_deref(), values),
            Inner::Table { writer, of_bed } => {
                let place = Place::of(sequence, &found.bases);
                let score = sequence.place.as_ref().and_then(|interval| interval.score.as_deref());
                let mut row = if *of_bed {
                    let [start, end] = [place.bases.start, place.bases.end].map(Value::Integer);
                    let [name, score] = [place.name, score].map(|text| text.map_or(Value::Missing, Value::Text));
                    vec![Value::Text(place.contig), start, end, name, score, Value::Text(place.strand)]
                } else {
                    let [start, end] = [found.bases.start, found.bases.end].map(|base| Value::Integer(base as u64));
                    vec![Value::Text(&sequence.id), start, end]
                };
                row.push(Value::Integer(found.windows as u64));
                if !matches!(self.labelling, Labelling::Values { .. }) {
                    row.push(said.as_deref().map_or(Value::Missing, Value::Text));
                }
                match values {
                    Some(values) => row.extend(values.iter().map(|&value| Value::Number(value))),
                    None => row.extend(self.labelling.outputs().iter().map(|_| Value::Missing)),
                }
                for text in &sequence.carried {
                    row.push(if text.is_empty() { Value::Missing } else { Value::Text(text) });
                }
                Ok(writer.write(&row)?)
            }
        }
    }

    /// Hands the rows so far on to standard output or a pipe.
    pub fn flush(&mut self) -> Result<()> {
        match &mut self.inner {
            Inner::Table { writer, .. } => Ok(writer.flush()?),
            Inner::Places(places) => Ok(places.output.flush()?),
        }
    }

    /// Puts a file in its place.
    pub fn finish(self) -> Result<()> {
        match self.inner {
            Inner::Table { writer, .. } => Ok(writer.finish()?),
            Inner::Places(places) => places.finish(),
        }
    }
}

/// The columns of a table; probabilities carry the name of their class or label.
fn columns(labelling: &Labelling, of_bed: bool) -> Vec<Column> {
    let (said, prefix) = match labelling {
        Labelling::Classes { .. } => (Some("class"), "p_"),
        Labelling::Labels { .. } => (Some("labels"), "p_"),
        Labelling::Values { .. } => (None, ""),
    };
    let place: &[(&str, Kind)] = if of_bed { &BED } else { &BED_LESS };
    let place = place.iter().map(|&(name, kind)| Column::new(name, kind));
    let windows = Column::new("windows", Kind::Integer);
    let said = said.map(|name| Column::new(name, Kind::Text));
    let mut columns: Vec<Column> = place.chain([windows]).chain(said).collect();
    for output in labelling.outputs() {
        let mut name = format!("{prefix}{output}");
        // A target may be called `score`, as a field of BED is.
        while columns.iter().any(|column| column.name == name) {
            name.insert_str(0, "predicted_");
        }
        columns.push(Column::new(name, Kind::Number));
    }
    columns
}

/// The columns of a table, and after them those of the input, under names that are not taken.
fn with_carried(mut columns: Vec<Column>, carried: &[String]) -> Vec<Column> {
    for name in carried {
        let mut name = name.clone();
        while columns.iter().any(|column| column.name == name) {
            name.insert_str(0, "input_");
        }
        columns.push(Column::new(name, Kind::Text));
    }
    columns
}

const BED_LESS: [(&str, Kind); 3] = [("id", Kind::Text), ("start", Kind::Integer), ("end", Kind::Integer)];
const BED: [(&str, Kind); 6] = [
    ("contig", Kind::Text),
    ("start", Kind::Integer),
    ("end", Kind::Integer),
    ("name", Kind::Text),
    ("score", Kind::Text),
    ("strand", Kind::Text),
];

/// A place on a genome.
struct Place<'a> {
    contig: &'a str,
    bases: Range<u64>,
    name: Option<&'a str>,
    strand: &'a str,
}

impl<'a> Place<'a> {
    /// The place of some bases of a sequence; without BED, the sequence is a contig.
    fn of(sequence: &'a Sequence, bases: &Range<usize>) -> Self {
        // Of a place where there is nothing to see, all of it.
        let bases = if bases.is_empty() { 0..sequence.first.len() } else { bases.clone() };
        let read = bases.start as u64..bases.end as u64;
        match &sequence.place {
            Some(interval) => Self {
                contig: &interval.span.contig,
                bases: interval.span.part(read),
                name: interval.name.as_deref(),
                strand: interval.strand(),
            },
            None => Self { contig: &sequence.id, bases: read, name: None, strand: "." },
        }
    }
}

/// BED or bedGraph in the making.
struct Places {
    output: Output,
    /// A line of notes, until it is written.
    head: Option<String>,
    is_bed: bool,
    /// The output that scores or values are of; none for those of what is predicted.
    chosen: Option<usize>,
    /// Where the last place ends.
    last: (String, u64),
    /// Places that begin before the last one ends.
    overlaps: u64,
    /// Sequences and windows that have no base, or in bedGraph no value.
    left_out: u64,
}

impl Places {
    fn create(path: &Path, format: Format, labelling: &Labelling, class: Option<&str>) -> Result<Self> {
        let outputs = labelling.outputs();
        let asked = class.map(|class| {
            let found = outputs.iter().position(|output| output == class);
            found.with_context(|| format!("--class {class}: the model has {}", outputs.join(", ")))
        });
        // Of two classes the second: 1 of 0 and 1.
        let usual = match labelling {
            Labelling::Classes { .. } => (outputs.len() == 2).then_some(1),
            Labelling::Labels { .. } | Labelling::Values { .. } => (outputs.len() == 1).then_some(0),
        };
        let chosen = asked.transpose()?.or(usual);
        let is_bed = format == Format::Bed;
        if !is_bed && chosen.is_none() {
            bail!("bedGraph holds one value of a place: choose with --class one of {}", outputs.join(", "));
        }
        let names = columns(labelling, true).into_iter().map(|column| column.name);
        let names: Vec<String> = if is_bed {
            names.filter(|name| name != "windows").collect()
        } else {
            let value = chosen.map(|output| names.rev().nth(outputs.len() - 1 - output).unwrap_or_default());
            BED[..3].iter().map(|(name, _)| (*name).to_owned()).chain(value).collect()
        };
        let output = Output::create(path, &PLACES.map(|(ending, _)| ending))?;
        let head = Some(format!("# {}\n", names.join("\t")));
        Ok(Self { output, head, is_bed, chosen, last: (String::new(), 0), overlaps: 0, left_out: 0 })
    }

    fn write(
        &mut self,
        labelling: &Labelling,
        sequence: &Sequence,
        found: &Predicted,
        said: Option<&str>,
        values: Option<&[f64]>,
    ) -> Result<()> {
        let Place { contig, mut bases, name, strand } = Place::of(sequence, &found.bases);
        if bases.is_empty() || (!self.is_bed && values.is_none()) {
            self.left_out += 1;
            return Ok(());
        }
        let (last, end) = &mut self.last;
        if last != contig {
            contig.clone_into(last);
            *end = 0;
        }
        // The last window of a sequence ends with it, so it may begin within the one before. A base has one value in bedGraph.
        if !self.is_bed
            && found.bases.end == sequence.first.len()
            && (bases.start + 1..bases.end).contains(end)
            && self.overlaps == 0
        {
            bases.start = *end;
        }
        self.overlaps += u64::from(bases.start < *end);
        *end = bases.end;
        let mut line = format!("{contig}\t{}\t{}", bases.start, bases.end);
        if self.is_bed {
            let score = thousandths(labelling, self.chosen, values);
            let _ = write!(line, "\t{}\t{score}\t{strand}", name.unwrap_or("."));
            if !matches!(labelling, Labelling::Values { .. }) {
                // A field of BED is never empty.
                let _ = write!(line, "\t{}", said.filter(|said| !said.is_empty()).unwrap_or("."));
            }
            for output in 0..labelling.outputs().len() {
                match values {
                    Some(values) => drop(write!(line, "\t{}", Shortest(values[output]))),
                    None => line.push_str("\t."),
                }
            }
        } else {
            let (Some(values), Some(chosen)) = (values, self.chosen) else { return Ok(()) };
            let _ = write!(line, "\t{}", Shortest(values[chosen]));
        }
        line.push('\n');
        self.print(&line)
    }

    fn print(&mut self, line: &str) -> Result<()> {
        let head = self.head.take().unwrap_or_default();
        Ok(self.output.write_all(head.as_bytes()).and_then(|()| self.output.write_all(line.as_bytes()))?)
    }

    fn finish(mut self) -> Result<()> {
        self.print("")?;
        if self.overlaps > 0 && !self.is_bed {
            let begin = if self.overlaps == 1 { "begins" } else { "begin" };
            message!(
                "note: {} {begin} before the last one ends; tools that read bedGraph want places sorted and apart: sort the input, and give \
                 windows a --stride as long as --window",
                counted(self.overlaps, "place")
            );
        }
        if self.left_out > 0 {
            let (have, are) = if self.left_out == 1 { ("has", "is") } else { ("have", "are") };
            let without = if self.is_bed { "no base" } else { "no base or no value" };
            message!("note: {} {have} {without} and {are} not in the output", counted(self.left_out, "sequence"));
        }
        self.output.finish()
    }
}

/// A probability as a score of BED, 0 to 1000: of the chosen class, or else of what is predicted, the largest; 0 without one.
fn thousandths(labelling: &Labelling, chosen: Option<usize>, values: Option<&[f64]>) -> u32 {
    let Some(values) = values.filter(|_| !matches!(labelling, Labelling::Values { .. })) else { return 0 };
    let probability = chosen.map_or_else(|| values.iter().copied().fold(0.0, f64::max), |chosen| values[chosen]);
    (1000.0 * probability.clamp(0.0, 1.0)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use vqdna_data::labelled::Standardization;

    #[test]
    fn a_target_that_is_called_like_a_field_keeps_a_column_of_its_own() {
        let targets = ["score", "y"].map(str::to_owned).to_vec();
        let standardization = vec![Standardization { mean: 0.0, sd: 1.0 }; 2];
        let labelling = Labelling::Values { columns: targets, standardization };
        let names = |of_bed| columns(&labelling, of_bed).into_iter().map(|column| column.name).collect::<Vec<_>>();
        assert_eq!(names(true)[4..], ["score", "strand", "windows", "predicted_score", "y"]);
        assert_eq!(names(false)[3..], ["windows", "score", "y"]);
    }

    #[test]
    fn columns_of_the_input_come_last_under_names_of_their_own() {
        let columns = ["id", "start"].map(|name| Column::new(name, Kind::Integer)).to_vec();
        let carried = ["gene", "start", "input_start"].map(str::to_owned);
        let names: Vec<String> = with_carried(columns, &carried).into_iter().map(|column| column.name).collect();
        assert_eq!(names, ["id", "start", "gene", "input_start", "input_input_start"]);
    }

    #[test]
    fn scores_are_probabilities_in_thousandths() {
        let classes = Labelling::Classes { column: String::new(), classes: vec![String::new(); 2] };
        let values = [0.2504, 0.7496];
        assert_eq!(thousandths(&classes, Some(0), Some(&values)), 250);
        assert_eq!(thousandths(&classes, None, Some(&values)), 750);
        assert_eq!(thousandths(&classes, Some(0), None), 0);
    }
}
