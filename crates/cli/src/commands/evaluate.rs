//! `vqdna evaluate`: how good a fine-tuned model is on labelled sequences.

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use serde_json::{Value as JsonValue, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use vqdna::infer::predict::{FineTuned, Merge, predict};
use vqdna::infer::{Execution, Sequence};
use vqdna::objective::supervised::prediction::Prediction;
use vqdna_data::labelled::{ColumnRequest, Labelling, Missing, Parts, Rows, Set, Targets, read};
use vqdna_data::metric::{Bootstrap, Confusion, Interval, Part, Score, Scores};
use vqdna_data::output::{self, TextOutput};
use vqdna_data::segment::{Counts, Policy};
use vqdna_data::tabular::{self, Column, Header, Kind, Value, Writer};

use super::Verdict;
use super::predict::{BudgetArgs, MergeName, WindowArgs};
use crate::arguments::{Compute, check_output};
use crate::inputs::LetterArgs;
use crate::progress::{Progress, describe};
use crate::words::are;

/// Measure a fine-tuned model on labelled sequences: all measures of its task with bootstrap intervals, and the confusion matrix.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna evaluate runs/promoters examples/data/prom_core_tata")]
pub struct Args {
    /// Folder of a fine-tuned model.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Labelled sequences: a file, or a folder, of which `test` is read; `-` is standard input.
    #[arg(value_name = "DATA")]
    pub data: PathBuf,
    /// Column of sequences; twice for pairs.
    #[arg(long, value_name = "COLUMN")]
    pub sequence: Vec<String>,
    /// What becomes of rows whose label is missing (NA, N/A, None, null, nan, a dot, or nothing): `error`, or `drop` to leave them out, or
    /// `keep` to take it for a class.
    #[arg(long, value_name = "WHAT", default_value_t)]
    pub missing_labels: Missing,
    #[command(flatten)]
    pub letters: LetterArgs,
    #[command(flatten)]
    pub windows: WindowArgs,
    /// What becomes of the windows of a long sequence; `none` would leave no single prediction to measure, and is refused.
    #[arg(long, value_enum, default_value_t = MergeName::Mean)]
    pub merge: MergeName,
    /// Resamples of the intervals.
    #[arg(long, default_value_t = 1000)]
    pub resamples: u32,
    /// Print one JSON object: task, model, data, measures with their intervals, those of each class, and the confusion matrix.
    #[arg(long)]
    pub json: bool,
    /// Where the table (or with --json the object) goes; `-` is standard output. The ending names the format of a table: .tsv, .csv,
    /// .jsonl or .parquet; texts also with .gz, .bgz or .zst.
    #[arg(long, short, default_value = "-")]
    pub output: PathBuf,
    #[command(flatten)]
    pub budget: BudgetArgs,
    #[command(flatten)]
    pub compute: Compute,
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<Verdict> {
    anyhow::ensure!(
        args.merge != MergeName::None,
        "--merge none leaves no single prediction to measure; use mean or max"
    );
    let format = if args.json { json_ending(&args.output)? } else { tabular::Format::of(&args.output)? };
    let file = file(&args.data)?;
    check_output(&args.output, [&file])?;
    let device = args.compute.open()?;
    let model = FineTuned::load(&args.model, &device)?;
    let windows = args.windows.windows(model.task().window, |length| length.div_ceil(2))?;
    let columns = ColumnRequest::of_model(&args.sequence, model.task().columns.clone());
    let columns = ColumnRequest { missing: args.missing_labels, ..columns };
    let labelling = &model.task().labelling;
    let (set, digest) = read(&file, None, &columns, labelling)?;
    message!("{}", set.rows.columns);
    if set.rows.left_out.rows() > 0 {
        message!("left out {}", set.rows.left_out);
    }
    let mut counts = Counts::default();
    let sequences = sequences(&set.rows, args.letters.over(model.model().config.letters), &mut counts)?;
    message!("{}", describe(&counts));
    let (set, sequences) = seen(set, sequences)?;
    let merge: Merge = args.merge.into();
    crate::interrupt::listen()?;
    let progress = Progress::new("evaluating", "bases", Some(counts.bases - counts.dropped));
    let poll = |bases| {
        progress.add(bases);
        crate::interrupt::go_on()
    };
    let execution = Execution::on(&device).within(args.budget.budget()).polling(&poll);
    let found: Vec<_> = predict(&model, &sequences, windows, merge, execution).collect::<Result<_, _>>()?;
    drop(progress);
    let values = found.into_iter().flat_map(|found| found.values).collect();
    let prediction = Prediction::merged(labelling, values);
    let bootstrap = Bootstrap { resamples: args.resamples, ..Bootstrap::default() };
    let scores = prediction.scores(&set.targets, Some(bootstrap));
    let confusion = confusion(labelling, &prediction, &set);
    if args.json {
        let windows = json!({ "length": windows.length, "stride": windows.stride, "merge": args.merge.word() });
        let evaluated = json!({
            "task": labelling.task().to_string(),
            "model": { "folder": args.model.to_string_lossy(), "digest": model.model().digest },
            "data": digest,
            "columns": *set.rows.columns,
            "windows": windows,
            "rows": scores.rows,
            "measures": measures_json(&scores.scores),
            "outputs": scores.parts.iter().map(part_json).collect::<Vec<_>>(),
            "confusion": confusion.as_ref().map(|confusion| confusion_json(labelling.outputs(), confusion)),
        });
        write_text(&args.output, &format!("{evaluated:#}\n"))?;
    } else {
        write_table(&args.output, format, labelling.outputs(), &scores, confusion.as_ref())?;
    }
    remark(&scores);
    Ok(Verdict::Passed)
}

/// Refuses a name that JSON does not have.
fn json_ending(path: &Path) -> Result<tabular::Format> {
    output::ending(path, &[".json"])?;
    Ok(tabular::Format::Jsonl)
}

/// The file to read: of a folder its `test`.
fn file(data: &Path) -> Result<PathBuf> {
    if !data.is_dir() {
        return Ok(data.to_owned());
    }
    match Parts::test(data)? {
        Some(test) => Ok(test),
        None => anyhow::bail!("{} holds no `test`; name the file to measure on", data.display()),
    }
}

/// The sequences of rows, with what the letter policies keep of each.
fn sequences(rows: &Rows, letters: Policy, counts: &mut Counts) -> Result<Vec<Sequence>> {
    let sequence = |(number, row): (usize, vqdna_data::labelled::Row)| -> Result<Sequence> {
        let parts = rows.kept(number, letters, counts)?;
        let sequence = match row.second {
            None => Sequence::new(row.id, row.sequence),
            Some(second) => Sequence::pair(row.id, row.sequence, second),
        };
        Ok(Sequence { parts, ..sequence })
    };
    rows.iter().enumerate().map(sequence).collect()
}

/// Leaves out sequences of which the letter policies keep nothing: there is no prediction to measure.
fn seen(set: Set, sequences: Vec<Sequence>) -> Result<(Set, Vec<Sequence>)> {
    let kept: Vec<usize> = (0..sequences.len()).filter(|&row| !sequences[row].is_empty()).collect();
    let left_out = (sequences.len() - kept.len()) as u64;
    if left_out == 0 {
        return Ok((set, sequences));
    }
    anyhow::ensure!(!kept.is_empty(), "{}: the letter policies keep nothing of any sequence", set.rows.file);
    message!("note: {} left out, of which the letter policies keep nothing", are(left_out, "row"));
    let sequences = sequences.into_iter().filter(|sequence| !sequence.is_empty()).collect();
    Ok((set.select(&kept), sequences))
}

/// A row for each measure, then for each of each class, label or target, then for each pair of a true and a predicted class.
fn write_table(
    path: &Path,
    format: tabular::Format,
    outputs: &[String],
    scores: &Scores,
    confusion: Option<&Confusion>,
) -> Result<()> {
    let text = |name: &str| Column::new(name, Kind::Text);
    let numbers = ["value", "low", "high"].map(|name| Column::new(name, Kind::Number));
    let columns = [text("measure")].into_iter().chain(numbers).chain(["class", "predicted"].map(text)).collect();
    let mut writer = Writer::create(path, format, Header { columns, notes: Vec::new() })?;
    let mut write = |name: &str, numbers: [Option<f64>; 3], class: Option<&str>, predicted: Option<&str>| {
        let [value, low, high] = numbers.map(|number| number.map_or(Value::Missing, Value::Number));
        let [class, predicted] = [class, predicted].map(|text| text.map_or(Value::Missing, Value::Text));
        writer.write(&[Value::Text(name), value, low, high, class, predicted])
    };
    write("rows", [Some(scores.rows as f64), None, None], None, None)?;
    for score in &scores.scores {
        let interval = score.interval.as_ref();
        let numbers = [score.value, interval.map(|interval| interval.low), interval.map(|interval| interval.high)];
        write(&score.name, numbers, None, None)?;
    }
    for part in &scores.parts {
        write("rows", [Some(part.rows as f64), None, None], Some(&part.name), None)?;
        for score in &part.scores {
            write(&score.name, [score.value, None, None], Some(&part.name), None)?;
        }
    }
    if let Some(confusion) = confusion {
        for (number, class) in (0..).zip(outputs) {
            for (said, predicted) in (0..).zip(outputs) {
                let count = confusion.count(said, number) as f64;
                write("confusion", [Some(count), None, None], Some(class), Some(predicted))?;
            }
        }
    }
    Ok(writer.finish()?)
}

fn measures_json(scores: &[Score]) -> JsonValue {
    let interval = |interval: &Interval| json!([interval.low, interval.high]);
    let of = |score: &Score| {
        (score.name.clone(), json!({ "value": score.value, "interval": score.interval.as_ref().map(interval) }))
    };
    JsonValue::Object(scores.iter().map(of).collect())
}

fn part_json(part: &Part) -> JsonValue {
    let measures = part.scores.iter().map(|score| (score.name.clone(), json!(score.value)));
    let measures = JsonValue::Object(measures.collect());
    json!({ "name": part.name, "rows": part.rows, "measures": measures })
}

/// Rows are what is true, columns what is predicted.
fn confusion_json(outputs: &[String], confusion: &Confusion) -> JsonValue {
    let classes = 0..outputs.len() as u32;
    let row = |class| classes.clone().map(|said| confusion.count(said, class)).collect::<Vec<_>>();
    json!({ "classes": outputs, "counts": classes.clone().map(row).collect::<Vec<_>>() })
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    let place = || format!("cannot write to {}", path.display());
    let mut output = TextOutput::create(path).with_context(place)?;
    output.write_all(text.as_bytes()).with_context(place)?;
    output.finish().with_context(place)
}

/// Says which numbers are missing or mean little.
fn remark(scores: &Scores) {
    let undefined = scores.scores.iter().filter(|score| score.value.is_none()).map(|score| score.name.as_str());
    let undefined: Vec<&str> = undefined.collect();
    if !undefined.is_empty() {
        message!("note: not defined for these rows: {}", undefined.join(", "));
    }
    if scores.without_area > 0 {
        let are = if scores.without_area == 1 { "class or label is" } else { "classes or labels are" };
        message!("note: {} {are} always or never true, without an area under a curve", scores.without_area);
    }
    if scores.constant > 0 {
        message!(
            "warning: {} predicted as one number for all rows; the correlation is given as 0",
            are(scores.constant as u64, "target")
        );
    }
}

/// Counts of true and predicted classes, if the task has classes.
fn confusion(labelling: &Labelling, prediction: &Prediction, set: &Set) -> Option<Confusion> {
    let (Labelling::Classes { classes, .. }, Targets::Classes(truth)) = (labelling, &set.targets) else {
        return None;
    };
    let place = |row: &[f64]| classes.iter().position(|class| *class == prediction.said(row)).unwrap_or_default();
    let said: Vec<u32> = prediction.rows().map(|row| place(row) as u32).collect();
    Some(Confusion::new(&said, truth, classes.len()))
}
