//! `vqdna inspect`: what a model folder holds.

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use vqdna::model_dir::{Kind, ModelConfig, TaskConfig, Vocabulary, digest};
use vqdna::tokenizer::vqdna::VqdnaConfig;
use vqdna::weights::{self, Arrays};
use vqdna_data::labelled::Labelling;

use super::Verdict;
use crate::arguments::Compute;

/// Show a model: its parts and their sizes, receptive field and codebook usage of each level, the task of a fine-tuned model, how it was
/// trained and what was measured.
#[derive(ClapArgs, Clone, Debug)]
#[command(after_help = "Examples:\n\
    \x20 vqdna inspect runs/lambda\n\
    \x20 vqdna inspect runs/promoters --json")]
pub struct Args {
    /// Folder of the model.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: Compute,
}

/// Prints tables, tab-separated: of the model, of the levels of its vocabulary, and of what was measured.
pub fn run(args: &Args) -> Result<Verdict> {
    let device = args.compute.open()?;
    let made = ModelConfig::load(&args.model)?;
    if made.tokenizer.learned().is_some() {
        // Weights that do not fit are an error here as anywhere.
        Vocabulary::load(&args.model, &device)?;
    }
    let shown = show(&args.model, &made)?;
    if args.json {
        data!("{}", serde_json::to_string_pretty(&shown.json())?);
    } else {
        let text = shown.text();
        data!("{}", text.trim_end());
    }
    Ok(Verdict::Passed)
}

/// What is shown.
struct Shown {
    fields: Map<String, Value>,
    /// An object for each level of the vocabulary.
    levels: Vec<Value>,
    evaluated_on: String,
    measures: Map<String, Value>,
}

impl Shown {
    fn json(&self) -> Value {
        let mut all = self.fields.clone();
        all.insert("levels".to_owned(), self.levels.clone().into());
        all.insert("evaluated_on".to_owned(), self.evaluated_on.clone().into());
        all.insert("measures".to_owned(), self.measures.clone().into());
        all.into()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (name, value) in &self.fields {
            let _ = writeln!(text, "{name}\t{}", word(value));
        }
        if !self.levels.is_empty() {
            text.push_str("\nlevel\tcodes\treceptive_field_bases\tusage\tperplexity\n");
        }
        for level in &self.levels {
            let fields: Vec<String> = level.as_object().into_iter().flatten().map(|(_, value)| word(value)).collect();
            let _ = writeln!(text, "{}", fields.join("\t"));
        }
        if !self.measures.is_empty() {
            let _ = writeln!(text, "\nmeasure\t{}", word(&self.evaluated_on.clone().into()));
        }
        for (name, value) in &self.measures {
            let _ = writeln!(text, "{name}\t{}", word(value));
        }
        text
    }
}

/// A value in a table, without tabs, ends of lines and what steers a terminal.
fn word(value: &Value) -> String {
    match value {
        Value::Null => "unknown".to_owned(),
        Value::Array(values) => values.iter().map(word).collect::<Vec<_>>().join(", "),
        Value::String(text) => {
            text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
        }
        other => other.to_string(),
    }
}

fn show(folder: &Path, made: &ModelConfig) -> Result<Shown> {
    let run = manifest(folder)?;
    let path = folder.join("model.safetensors");
    let (arrays, _) = weights::read(&path).with_context(|| format!("{}", path.display()))?;
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    add("holds", made.kind().to_string().into());
    add("model", digest(folder)?.into());
    if let Some(vocabulary) = &made.vocabulary {
        add("vocabulary", vocabulary.clone().into());
    }
    if made.kind() == Kind::Finetuned {
        add("base", run["vocabulary"].clone());
    }
    add("file_bytes", std::fs::metadata(&path).map_or(0, |file| file.len()).into());
    if made.tokenizer.learned().is_none() {
        for (name, value) in serde_json::to_value(&made.tokenizer)?.as_object().into_iter().flatten() {
            let name = if name == "kind" { "tokenizer".to_owned() } else { format!("tokenizer_{name}") };
            add(&name, value.clone());
        }
        add("ids", json!(made.tokenizer.sizes().into_iter().sum::<usize>()));
    }
    if let Some(tokenizer) = made.tokenizer.learned() {
        show_vocabulary(tokenizer, &arrays, made.kind(), &mut add)?;
    }
    if let Some(backbone) = &made.backbone {
        for (name, beginnings) in backbone.parts() {
            add(&format!("parameters_{name}"), count(&arrays, beginnings).into());
        }
        for (name, sizes) in backbone.sizes() {
            add(name, if let [size] = sizes[..] { json!(size) } else { json!(sizes) });
        }
    }
    if let Some(objective) = &made.objective {
        add("objective", serde_json::to_value(objective)?["kind"].clone());
    }
    if made.kind() != Kind::Vocabulary {
        add("parameters_head", count(&arrays, &["masked.", "head."]).into());
    }
    add("ambiguous", json!(made.letters.ambiguous));
    add("soft_mask", json!(made.letters.soft_mask));
    if let Some(task) = &made.task {
        show_task(task, &mut add)?;
    } else {
        // Folders of older programs say it of their run alone.
        add("window", made.window.map_or_else(|| run["config"]["data"]["length"].clone(), Value::from));
    }
    show_training(&run, &mut add);
    Ok(Shown {
        fields,
        levels: made.tokenizer.learned().map(|tokenizer| levels(tokenizer, &run["measures"])).unwrap_or_default(),
        evaluated_on: run["evaluated_on"].as_str().unwrap_or("nothing").to_owned(),
        measures: run["measures"].as_object().cloned().unwrap_or_default(),
    })
}

/// Numbers in the arrays whose names begin with one of these.
fn count(arrays: &Arrays, prefixes: &[&str]) -> usize {
    let of = arrays.iter().filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    of.map(|(_, array)| array.values.len()).sum()
}

fn show_vocabulary(
    tokenizer: &VqdnaConfig,
    arrays: &Arrays,
    kind: Kind,
    add: &mut impl FnMut(&str, Value),
) -> Result<()> {
    let inside = if kind == Kind::Vocabulary { "" } else { "tokenizer." };
    let of = |part: &str| count(arrays, &[&format!("{inside}{part}.")]);
    let is_average = |name: &str| ["counts", "sums"].contains(&name.rsplit('.').next().unwrap_or_default());
    let averages: usize = arrays.iter().filter(|(name, _)| is_average(name)).map(|(_, array)| array.values.len()).sum();
    add("quantizer", serde_json::to_value(&tokenizer.quantizer)?["kind"].clone());
    add("parameters_encoder", of("encoder").into());
    add("parameters_decoder", of("decoder").into());
    add("parameters_quantizer", of("quantizer").into());
    add("code_vectors", (of("codebooks") - averages).into());
    let VqdnaConfig { d_stem, d_code, blocks, kernel, .. } = tokenizer;
    let sizes = [("d_stem", d_stem), ("d_code", d_code), ("blocks", blocks), ("kernel", kernel)];
    for (name, size) in sizes {
        add(name, json!(size));
    }
    Ok(())
}

/// Usage is that of the run that made the folder, where it measured any.
fn levels(tokenizer: &VqdnaConfig, measures: &Value) -> Vec<Value> {
    let of_level = |name: String| measures[name].as_f64().map(|value| (value * 1e4).round() / 1e4);
    let levels = tokenizer.quantizer.codebook_sizes().into_iter().zip(tokenizer.code_halos());
    let level = |(level, (codes, halo)): (usize, (usize, usize))| {
        json!({
            "level": level,
            "codes": codes,
            "receptive_field_bases": 2 * halo + 1,
            "usage": of_level(format!("usage_{level}")),
            "perplexity": of_level(format!("perplexity_{level}")),
        })
    };
    (1..).zip(levels).map(level).collect()
}

fn show_task(task: &TaskConfig, add: &mut impl FnMut(&str, Value)) -> Result<()> {
    let labelling = &task.labelling;
    add("task", labelling.task().to_string().into());
    match labelling {
        Labelling::Classes { column, classes } => {
            add("label_columns", json!([column]));
            add("classes", json!(classes));
        }
        Labelling::Labels { columns } | Labelling::Values { columns, .. } => add("label_columns", json!(columns)),
    }
    if let Some(columns) = &task.columns {
        add("sequence_columns", json!(columns.sequence));
        if let Some(id) = &columns.id {
            add("id_column", json!(id));
        }
    }
    add("window", task.window.into());
    add("both_strands", task.both_strands.into());
    add("pooling", serde_json::to_value(&task.head)?["pooling"].clone());
    add("adapters", json!(if task.lora.is_some() { "beside the weights" } else { "none, or folded in" }));
    Ok(())
}

/// From `run.json`; nothing if it is not there, as in an imported model.
fn show_training(run: &Value, add: &mut impl FnMut(&str, Value)) {
    if run.is_null() {
        return;
    }
    let config = &run["config"];
    let files = run["inputs"].as_array().into_iter().flatten().map(|input| input["path"].clone());
    add("learned_from", files.collect());
    add("trained_on", run["windows"][0].clone());
    add("held_out", run["windows"][1].clone());
    if !config["mode"].is_null() {
        add("mode", config["mode"].clone());
    }
    add("steps", run["steps"].clone());
    add("batch", config["train"]["batch"].clone());
    add("learning_rate", config["train"]["schedule"]["rate"].clone());
    add("precision", config["train"]["precision"].clone());
    add("seed", config["seed"].clone());
    for name in ["program", "device", "threads", "started_unix_s", "wall_s"] {
        add(name, run[name].clone());
    }
}

/// What the run says of itself; null if it is not there.
fn manifest(folder: &Path) -> Result<Value> {
    Ok(vqdna::model_dir::manifest(folder)?.unwrap_or_default())
}
