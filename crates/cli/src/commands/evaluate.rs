//! `vqdna evaluate`: how good a fine-tuned model is on labelled sequences.

use anyhow::Result;
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use vqdna::folder::Finetuned;
use vqdna::infer::predict::{Merge, predict};
use vqdna::infer::{Execution, Sequence};
use vqdna::objective::supervised::prediction::Prediction;
use vqdna_data::labelled::{ColumnRequest, Labelling, Parts, Rows, Set, Targets, read};
use vqdna_data::metric::{Bootstrap, Confusion, Scores};

use super::Verdict;
use super::predict::{BudgetArgs, MergeName, WindowArgs};
use crate::arguments::Compute;

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
    #[command(flatten)]
    pub windows: WindowArgs,
    /// What becomes of the windows of a long sequence.
    #[arg(long, value_enum, default_value_t = MergeName::Mean)]
    pub merge: MergeName,
    /// Resamples of the intervals.
    #[arg(long, default_value_t = 1000)]
    pub resamples: u32,
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
    let device = args.compute.open()?;
    let model = Finetuned::load(&args.model, &device)?;
    let windows = args.windows.windows(model.finetuned.window, |length| length.div_ceil(2))?;
    let columns = ColumnRequest::of_model(&args.sequence, None);
    let labelling = &model.finetuned.labelling;
    let (set, _) = read(&file(&args.data)?, None, &columns, labelling)?;
    let sequences = sequences(&set.rows);
    let merge: Merge = args.merge.into();
    crate::interrupt::listen()?;
    let poll = |_| crate::interrupt::go_on();
    let execution = Execution::on(&device).within(args.budget.budget()).polling(&poll);
    let found: Vec<_> = predict(&model, &sequences, windows, merge, execution).collect::<Result<_, _>>()?;
    let values = found.into_iter().flat_map(|found| found.values).collect();
    let prediction = Prediction::merged(labelling, values);
    let bootstrap = Bootstrap { resamples: args.resamples, ..Bootstrap::default() };
    print_scores(&prediction.scores(&set.targets, Some(bootstrap)))?;
    print_confusion(labelling, &prediction, &set)?;
    Ok(Verdict::Passed)
}

/// The file to read: of a folder its `test`.
fn file(data: &Path) -> Result<PathBuf> {
    if !data.is_dir() {
        return Ok(data.to_owned());
    }
    match Parts::find(data)? {
        Parts::Files { test: Some(test), .. } => Ok(test),
        Parts::Files { .. } => anyhow::bail!("{} holds no `test`; name the file to measure on", data.display()),
        Parts::One(path) => Ok(path),
    }
}

fn sequences(rows: &Rows) -> Vec<Sequence> {
    let sequence = |row: vqdna_data::labelled::Row| match row.second {
        None => Sequence::new(row.id, row.sequence),
        Some(second) => Sequence::pair(row.id, row.sequence, second),
    };
    rows.iter().map(sequence).collect()
}

fn print_scores(scores: &Scores) -> Result<()> {
    data!("measure\tvalue\tlow\thigh");
    data!("rows\t{}\t\t", scores.rows);
    let number = |value: Option<f64>| value.map_or_else(|| "NA".to_owned(), |value| format!("{value:.4}"));
    for score in &scores.scores {
        let interval = |bound: fn(&vqdna_data::metric::Interval) -> f64| number(score.interval.as_ref().map(bound));
        data!("{}\t{}\t{}\t{}", score.name, number(score.value), interval(|i| i.low), interval(|i| i.high));
    }
    for part in &scores.parts {
        for score in &part.scores {
            data!("{}[{}] of {}\t{}\t\t", score.name, part.name, part.rows, number(score.value));
        }
    }
    if scores.without_area > 0 {
        message!(
            "note: {} classes or labels are always or never true and have no area under a curve",
            scores.without_area
        );
    }
    if scores.constant > 0 {
        message!(
            "warning: {} targets are constant, in truth or prediction; their correlation is given as 0",
            scores.constant
        );
    }
    Ok(())
}

/// Rows are what is true, columns what is predicted.
fn print_confusion(labelling: &Labelling, prediction: &Prediction, set: &Set) -> Result<()> {
    let (Labelling::Classes { classes, .. }, Targets::Classes(truth)) = (labelling, &set.targets) else {
        return Ok(());
    };
    let said: Vec<u32> = prediction
        .rows()
        .map(|row| classes.iter().position(|class| *class == prediction.said(row)).unwrap_or_default() as u32)
        .collect();
    let confusion = Confusion::new(&said, truth, classes.len());
    data!("\ntrue \\ predicted\t{}", classes.join("\t"));
    for (number, class) in (0..).zip(classes) {
        let counts: Vec<String> =
            (0..classes.len() as u32).map(|said| confusion.count(said, number).to_string()).collect();
        data!("{class}\t{}", counts.join("\t"));
    }
    Ok(())
}
