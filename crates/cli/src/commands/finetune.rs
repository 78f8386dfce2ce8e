//! `vqdna finetune`: a model and labelled sequences to a model that predicts.

use anyhow::{Context, Result, bail};
use burn::prelude::Device;
use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use vqdna::estimate;
use vqdna::model_dir::ModelConfig;
use vqdna::run::finetune::{Base, Finetune, FinetuneConfig, Finetuning, Mode, Task};
use vqdna::run::kmers::{self, Baseline};
use vqdna::run::pretrain::PretrainConfig;
use vqdna::run::recipe::Recipe;
use vqdna::run::stage::Finished;
use vqdna::train::Ending;
use vqdna_data::aside::write_aside;
use vqdna_data::labelled::{Labelling, Rows, Set, Shared, Splits};
use vqdna_data::lock::FolderLock;
use vqdna_data::number::Shortest;

use super::Verdict;
use crate::arguments::{Configure, RunArgs};
use crate::inputs::LetterArgs;
use crate::interrupt;
use crate::measures::print_finished;
use crate::memory::print_memory;
use crate::words::{are, counted};

/// Fine-tune a model on labelled sequences, and measure it on those held out.
///
/// DATA is a folder with train, dev and test, or one file of which a tenth is held out for each: CSV, TSV, JSON Lines or Parquet,
/// with a column `sequence` (or two, for pairs) and a column `label` (or several, by --label). The task is told from the labels.
#[derive(ClapArgs, Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[command(after_help = "Examples:\n\
    \x20 vqdna finetune runs/encoder examples/data/prom_core_tata -o runs/promoters --epochs 1\n\
    \x20 vqdna finetune runs/encoder guides.csv -o runs/guides --label efficiency --seeds 3")]
pub struct Args {
    /// Folder of the model: of `pretrain`, of an earlier `finetune` (without its head), or of `learn` with --from-scratch or --mode probe.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Folder or file of labelled sequences; `-` is standard input.
    #[arg(value_name = "DATA")]
    pub data: PathBuf,
    /// What learns: adapters beside frozen weights, all weights, or a linear layer over frozen features. Default: lora, or full for an
    /// MxDNA model.
    #[arg(long, value_parser = PossibleValuesParser::new(["lora", "full", "probe"]))]
    pub mode: Option<String>,
    /// Begin with a fresh encoder, of the size that --preset names, instead of the one that was pre-trained.
    #[arg(long)]
    pub from_scratch: bool,
    /// Published settings of a group of GUE (epochs, rate, batch, warm-up).
    #[arg(long, value_parser = PossibleValuesParser::new(Recipe::NAMED.map(|(name, _)| name)))]
    pub recipe: Option<String>,
    /// The task, if it is not to be told from the labels.
    #[arg(long, value_parser = PossibleValuesParser::new(["binary", "multi-class", "multi-label", "regression"]))]
    pub task: Option<String>,
    /// Column of sequences; twice for pairs.
    #[arg(long, value_name = "COLUMN")]
    pub sequence: Vec<String>,
    /// Columns of labels.
    #[arg(long, value_name = "COLUMN", value_delimiter = ',')]
    pub label: Vec<String>,
    /// How often the training set is seen (`epochs`).
    #[arg(long)]
    pub epochs: Option<f64>,
    /// Train so many times, with the seeds that follow --seed, and report mean and standard deviation.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub seeds: u64,
    /// Leave out training rows whose sequence stands in dev or test.
    #[arg(long)]
    pub dedup: bool,
    /// What becomes of rows whose label is missing (NA, N/A, None, null, nan, a dot, or nothing): an error, left out, or kept as a class.
    #[arg(long, value_name = "WHAT", value_parser = PossibleValuesParser::new(["error", "drop", "keep"]))]
    pub missing_labels: Option<String>,
    /// Make rare classes count as much as frequent ones.
    #[arg(long)]
    pub balanced: bool,
    /// The other strand: not seen, seen in training, or seen always and averaged.
    #[arg(long, value_name = "STRANDS", value_parser = PossibleValuesParser::new(["none", "augment", "average"]))]
    pub rc: Option<String>,
    /// Measure beside the model what counts of k-mers achieve under logistic or linear regression.
    #[arg(long)]
    pub kmers: bool,
    #[command(flatten)]
    pub letters: LetterArgs,
    #[command(flatten)]
    pub configure: Configure,
    #[command(flatten)]
    pub run: RunArgs,
}

/// The field of the config that says what is held out of a lone file.
const HELD_OUT: &str = "data.held_out";

/// Fine-tunes with each seed and prints the measures.
pub fn run(args: &Args) -> Result<Verdict> {
    let made = ModelConfig::load(&args.model)?;
    let config = config(args, &made)?;
    if args.run.dry_run {
        return estimate(args, &config, &made).map(|()| Verdict::Passed);
    }
    let device = args.run.open(config.train.precision)?;
    let (base, task) = load(args, &config, &device)?;
    let kmers = if args.kmers { Some(kmers(&task, &device)?) } else { None };
    if args.seeds == 1 {
        let done = finetune(args, &args.run.output, &config, &base, &task, &device)?;
        print_finished(&done.finished, HELD_OUT)?;
        if let (Some(kmers), Ending::Finished) = (&kmers, done.finished.ending) {
            print_kmers(&args.run.output, kmers, &done.finished)?;
        }
        warn_of_nothing(&done, config.seed);
        return Ok(Verdict::Passed);
    }
    // The folder around those of the seeds, which is written at the end.
    let _lock = FolderLock::take(&args.run.output)?;
    let mut all = Vec::new();
    for seed in config.seed..config.seed + args.seeds {
        let (config, folder) = (FinetuneConfig { seed, ..config.clone() }, folder_of(&args.run.output, seed));
        message!("seed {seed}, into {}", folder.display());
        let done = finetune(args, &folder, &config, &base, &task, &device)?;
        if let Ending::Interrupted(_) = done.finished.ending {
            return print_finished(&done.finished, HELD_OUT).map(|()| Verdict::Passed);
        }
        warn_of_nothing(&done, seed);
        all.push((seed, done));
    }
    summarize(&args.run.output, &config, &all)?;
    if let Some(kmers) = &kmers {
        print_kmers(&args.run.output, kmers, &all[0].1.finished)?;
    }
    Ok(Verdict::Passed)
}

fn folder_of(output: &Path, seed: u64) -> PathBuf {
    output.join(format!("seed-{seed}"))
}

/// The config for a model: defaults of the mode, then a recipe, then the flags, then file and single fields.
fn config(args: &Args, base: &ModelConfig) -> Result<FinetuneConfig> {
    let mode = match args.mode.as_deref() {
        Some("full") => Mode::Full,
        Some("probe") => Mode::Probe,
        None if base.forms_units() => Mode::Full,
        _ => Mode::Lora,
    };
    if args.from_scratch && mode == Mode::Lora {
        bail!("--from-scratch needs --mode full: adapters are for an encoder that has learned");
    }
    let mut assignments = args.configure.set.clone();
    assignments.extend(args.epochs.map(|epochs| format!("epochs={epochs:?}")));
    assignments.extend(args.task.as_ref().map(|task| format!("data.task=\"{task}\"")));
    assignments.extend(args.rc.as_ref().map(|rc| format!("reverse_complement=\"{rc}\"")));
    assignments.extend(args.dedup.then(|| "data.dedup=true".to_owned()));
    assignments.extend(args.missing_labels.as_ref().map(|missing| format!("data.missing_labels=\"{missing}\"")));
    assignments.extend(args.balanced.then(|| "class_weights=\"balanced\"".to_owned()));
    let LetterArgs { ambiguous, soft_mask } = &args.letters;
    assignments.extend(ambiguous.map(|policy| format!("data.letters.ambiguous=\"{policy}\"")));
    assignments.extend(soft_mask.map(|policy| format!("data.letters.soft_mask=\"{policy}\"")));
    let names = |names: &[String]| Value::from(names.to_vec()).to_string();
    assignments.extend((!args.sequence.is_empty()).then(|| format!("data.columns.sequence={}", names(&args.sequence))));
    assignments.extend((!args.label.is_empty()).then(|| format!("data.columns.label={}", names(&args.label))));
    let configure = Configure { set: assignments, ..args.configure.clone() };
    configure.resolve(|preset| {
        let config = FinetuneConfig::of_mode(mode);
        let config = match args.recipe.as_deref().and_then(Recipe::named) {
            Some(recipe) => recipe.apply(config),
            None => config,
        };
        if !args.from_scratch {
            return config;
        }
        let fresh = if base.forms_units() {
            PretrainConfig::mxdna(preset)
        } else {
            PretrainConfig::preset(preset, base.letters)
        };
        FinetuneConfig { backbone: Some(fresh.backbone), ..config }
    })
}

/// Prints the memory that a run will take, from the model's config and the table.
fn estimate(args: &Args, config: &FinetuneConfig, made: &ModelConfig) -> Result<()> {
    config.fits(made)?;
    let splits = Splits::read(&args.data, &config.data)?;
    describe(&splits, config.data.task);
    let rows = [Some(&splits.train), splits.dev.as_ref(), splits.test.as_ref()].map(|set| set.map(|set| &set.rows));
    let rows = rows.into_iter().flatten();
    let data = estimate::Labelled {
        bases: rows.clone().map(|rows| rows.bases() as u64).sum(),
        rows: rows.clone().map(|rows| rows.len() as u64).sum(),
        longest: rows.flat_map(Rows::lengths).max().unwrap_or_default(),
        outputs: splits.labelling.outputs().len(),
    };
    let network = config.backbone.as_ref().or(made.backbone.as_ref());
    let threads = args.run.compute.threads()?;
    let memory = estimate::finetune(config, network, made.backbone.is_some(), &made.tokenizer, &data, threads);
    print_memory(&memory, &args.run.compute)
}

fn load(args: &Args, config: &FinetuneConfig, device: &Device) -> Result<(Base, Task)> {
    let base = Base::load(&args.model, device)?;
    config.fits(&base.config)?;
    let splits = Splits::read(&args.data, &config.data)?;
    describe(&splits, config.data.task);
    let task = Task::new(splits, &base, config, device, interrupt::flag())?;
    message!("{}", crate::progress::describe(&task.counts));
    if task.left_out > 0 {
        message!("note: {} left out, of which the letter policies keep nothing", are(task.left_out, "row"));
    }
    Ok((base, task))
}

fn finetune(
    args: &Args,
    folder: &Path,
    config: &FinetuneConfig,
    base: &Base,
    task: &Task,
    device: &Device,
) -> Result<Finetuning> {
    let run = RunArgs { output: folder.to_owned(), ..args.run.clone() };
    let steps = config.training(task.splits.train.len()).steps;
    run.start("fine-tuning", std::slice::from_ref(&args.data), device, steps, |job, progress| {
        Ok(Finetune { job, config, base, task }.run(progress)?)
    })
}

/// What was read, what was inferred from it and how to say otherwise, and what the parts share.
fn describe(splits: &Splits, task: Option<vqdna_data::labelled::Task>) {
    describe_choices(splits);
    let size = |set: &Option<Set>| set.as_ref().map_or(0, Set::len);
    let labelling = &splits.labelling;
    let outputs = match labelling {
        Labelling::Classes { classes, .. } => format!("classes {}", classes.join(", ")),
        Labelling::Labels { columns } => format!("labels {}", columns.join(", ")),
        Labelling::Values { columns, .. } => format!("values of {}", columns.join(", ")),
    };
    let inferred = if task.is_some() { "as asked" } else { "inferred from the labels; --task says otherwise" };
    message!("{} task: {outputs} ({inferred})", labelling.task());
    message!("{} (--sequence and --label choose others)", splits.train.rows.columns);
    let train = counted(splits.train.len() as u64, "row");
    message!("{train} to train on, {} in dev, {} in test", size(&splits.dev), size(&splits.test));
    let overlap = &splits.overlap;
    if overlap.train.rows > 0 {
        message!(
            "note: in train, {} the same as an earlier one, {} of them with another label",
            are(overlap.train.rows as u64, "row"),
            overlap.train.conflicting
        );
    }
    for (from, into, shared) in
        [("train", "dev", overlap.train_dev), ("train", "test", overlap.train_test), ("dev", "test", overlap.dev_test)]
    {
        if shared.rows + shared.reverse_complements > 0 {
            let Shared { rows, reverse_complements, .. } = shared;
            let rows = are(rows as u64, "row");
            message!("note: of {from}, {rows} in {into}, too, and {reverse_complements} as the reverse complement");
        }
    }
    if splits.removed > 0 {
        message!("left out {} of train, since dev or test have the same", counted(splits.removed as u64, "row"));
    }
}

/// What was inferred from numbers, and rows that are in no part.
fn describe_choices(splits: &Splits) {
    if let Some(inferred) = splits.inferred {
        message!("note: {inferred}");
    }
    if splits.left_out.rows() > 0 {
        message!("left out {}", splits.left_out);
    }
}

/// What k-mers achieve on the task.
fn kmers(task: &Task, device: &Device) -> Result<Baseline> {
    message!("fitting k-mers");
    let baseline = kmers::baseline(&task.splits, device, interrupt::flag())?;
    baseline.context("--kmers needs dev and test, and single sequences rather than pairs")
}

/// Prints those measures of k-mers that a model has too, and writes them beside it.
fn print_kmers(output: &Path, kmers: &Baseline, finished: &Finished) -> Result<()> {
    data!("\nmeasure on {}\t{}-mers", finished.evaluated_on, kmers.k);
    let mut measures = serde_json::Map::new();
    for (name, _) in &finished.measures {
        if let Some(value) = kmers.scores.get(name) {
            data!("{name}\t{}", Shortest(value));
            measures.insert(name.clone(), json!(value));
        }
    }
    let found = json!({ "evaluated_on": finished.evaluated_on, "k": kmers.k, "measures": measures });
    write_json(output, "kmers.json", &found)
}

fn write_json(folder: &Path, name: &str, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value)? + "\n";
    write_aside(&folder.join(name), text.as_bytes()).with_context(|| format!("cannot write to {}", folder.display()))
}

/// Calls out a run that learned nothing.
fn warn_of_nothing(done: &Finetuning, seed: u64) {
    /// Correlation below which a classifier might as well guess.
    const NOTHING: f64 = 0.05;
    let mcc = done.scores.as_ref().and_then(|scores| scores.get("mcc"));
    if let Some(mcc) = mcc.filter(|mcc| mcc.abs() < NOTHING) {
        message!("warning: seed {seed} has an MCC of {mcc:.3}: it learned nothing; try another seed or a lower rate");
    }
}

/// Prints mean and standard deviation of each measure over seeds, and makes the folder that of the seed with the best evaluation on
/// dev; without dev, of the first.
fn summarize(output: &Path, config: &FinetuneConfig, all: &[(u64, Finetuning)]) -> Result<()> {
    let (first_seed, first) = &all[0];
    let value = |done: &Finetuning| done.finished.best.map(|best| best.value);
    let mut best: Option<(u64, f64)> = None;
    for (seed, done) in all {
        if let Some(found) = value(done)
            && best.is_none_or(|(_, known)| config.selection.is_better(found, known))
        {
            best = Some((*seed, found));
        }
    }
    let best = best.map(|(seed, _)| seed);
    if first.finished.measures.is_empty() {
        message!("note: nothing is held out, so nothing was measured; see `{HELD_OUT}` of the config");
    }
    data!(
        "measure on {}\tmean\tsd\t{}",
        first.finished.evaluated_on,
        all.iter().map(|(seed, _)| format!("seed {seed}")).collect::<Vec<_>>().join("\t")
    );
    let mut table = Vec::new();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in all.iter().flat_map(|(_, done)| &done.finished.measures) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        // A measure may be defined for some seeds only.
        let of_seeds = all.iter().map(|(_, done)| crate::measures::measure(&done.finished.measures, name));
        let of_seeds: Vec<Option<f64>> = of_seeds.collect();
        let defined: Vec<f64> = of_seeds.iter().flatten().copied().collect();
        let (mean, sd) = mean_and_deviation(&defined);
        let text = |value: &Option<f64>| value.map_or_else(String::new, |value| Shortest(value).to_string());
        let each: Vec<String> = of_seeds.iter().map(text).collect();
        data!("{name}\t{}\t{}\t{}", Shortest(mean), Shortest(sd), each.join("\t"));
        table.push(json!({ "measure": name, "mean": mean, "sd": sd, "values": of_seeds }));
    }
    match best {
        Some(seed) => data!("best on dev\tseed {seed}"),
        None => message!("note: no dev set says which seed is best; the folder holds the model of seed {first_seed}"),
    }
    let seeds: Vec<u64> = all.iter().map(|(seed, _)| *seed).collect();
    let summary =
        json!({ "evaluated_on": first.finished.evaluated_on, "seeds": seeds, "best_on_dev": best, "measures": table });
    write_json(output, "seeds.json", &summary)?;
    let chosen = best.unwrap_or(*first_seed);
    for name in ["config.json", "run.json", "README.md", "model.safetensors"] {
        let from = folder_of(output, chosen).join(name);
        let bytes = std::fs::read(&from).with_context(|| format!("{}", from.display()))?;
        write_aside(&output.join(name), &bytes).with_context(|| format!("cannot write to {}", output.display()))?;
    }
    Ok(())
}

/// Mean and sample standard deviation; the latter is 0 for one value.
fn mean_and_deviation(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
    (mean, if values.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 })
}
