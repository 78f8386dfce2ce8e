//! What a folder says of its run: `run.json` for programs, `README.md` for people.

use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use vqdna_data::fasta::InputDigest;
use vqdna_data::segment::Counts;

use super::{ModelConfig, TaskConfig};
use crate::backbone::BackboneConfig;
use crate::objective::Measures;

/// What `run.json` holds: all that is needed to do the run again, and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Manifest<C> {
    /// `vqdna` and its version.
    pub program: String,
    /// As typed.
    pub command_line: Vec<String>,
    /// Start of the (last part of the) run, seconds since 1970.
    pub started_unix_s: u64,
    /// Duration of the (last part of the) run, seconds.
    pub wall_s: f64,
    /// Name of the device.
    pub device: String,
    /// Threads of the CPU kernels.
    pub threads: usize,
    /// Operating system and processor.
    pub machine: String,
    /// The resolved config.
    pub config: C,
    /// The vocabulary or the model that the run began with, named by its digest; none for a run that began with neither.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<String>,
    /// Inputs with digests.
    pub inputs: Vec<InputDigest>,
    /// What the letter policies did to them; none of labelled sequences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Windows (or labelled sequences) trained on, and held out for validation.
    pub windows: (usize, usize),
    /// Steps done.
    pub steps: u64,
    /// Which windows `measures` were taken on.
    pub evaluated_on: String,
    /// What came of it.
    pub measures: Value,
}

/// The model card.
pub(super) fn card<C>(config: &ModelConfig, manifest: &Manifest<C>) -> String {
    let mut card = text(config);
    let _ = writeln!(card, "## Learned from\n\n| file | bases | BLAKE3 |\n| --- | --- | --- |");
    for input in &manifest.inputs {
        let name =
            Path::new(&input.path).file_name().map_or(input.path.as_str().into(), std::ffi::OsStr::to_string_lossy);
        let _ = writeln!(card, "| {name} | {} | {} |", input.bases, input.blake3);
    }
    let _ = writeln!(card, "\n{} steps on `{}`.", manifest.steps, manifest.device);
    let measures: Vec<_> = manifest.measures.as_object().into_iter().flatten().collect();
    if !measures.is_empty() {
        let _ = writeln!(card, "\n## Measured on {}\n\n| measure | value |\n| --- | --- |", manifest.evaluated_on);
    }
    for (name, value) in measures {
        let _ = writeln!(card, "| {name} | {value} |");
    }
    let _ = writeln!(card, "\nEverything needed to repeat it is in `run.json`.");
    card
}

/// The card of a model that was not trained here.
pub(super) fn of_import(config: &ModelConfig, from: &Path, digest: &str) -> String {
    let name = from.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
    text(config) + &format!("Imported from `{name}`, whose BLAKE3 is {digest}.\n")
}

/// What a model is.
fn text(config: &ModelConfig) -> String {
    match (&config.task, &config.backbone) {
        (Some(task), _) => of_finetuned(config, task),
        (None, Some(_)) => of_pretrained(config),
        (None, None) => of_vocabulary(config),
    }
}

fn of_vocabulary(config: &ModelConfig) -> String {
    format!(
        "---\nlibrary_name: vqdna\ntags: [dna, genomics, tokenizer, vector-quantization]\n---\n\n\
         # A VQDNA vocabulary\n\nOne code for each base and level ({} codes), learned by reconstruction \
         (VQDNA, arXiv 2405.10812). Tokenize with\n\n    vqdna tokenize THIS_FOLDER genome.fa.gz -o codes.parquet\n\n",
        codes(config)
    )
}

fn of_pretrained(config: &ModelConfig) -> String {
    let encoder = config.backbone.as_ref().map(BackboneConfig::described).unwrap_or_default();
    let over = match &config.vocabulary {
        Some(vocabulary) => format!(
            "the codes of a frozen vocabulary ({} codes; VQDNA, arXiv 2405.10812), which is inside and named {vocabulary}",
            codes(config)
        ),
        None => config.tokenizer.described(),
    };
    let (predicted, tag) = config.objective.as_ref().map(|objective| (objective.described(), objective.tag())).unzip();
    let (predicted, tag) = (predicted.unwrap_or_default(), tag.unwrap_or_default());
    format!(
        "---\nlibrary_name: vqdna\ntags: [dna, genomics, {tag}]\n---\n\n\
         # A pre-trained encoder\n\n{encoder}, pre-trained to predict {predicted}, over {over}.\n\n"
    )
}

fn of_finetuned(config: &ModelConfig, TaskConfig { labelling, .. }: &TaskConfig) -> String {
    let over = match &config.vocabulary {
        Some(vocabulary) => format!("over a vocabulary that is inside and named {vocabulary}"),
        None => format!("over {}", config.tokenizer.described()),
    };
    format!(
        "---\nlibrary_name: vqdna\ntags: [dna, genomics, sequence-classification]\n---\n\n\
         # A fine-tuned model\n\nPredicts {} of DNA sequences ({} task), {over}. Predict with\n\n    \
         vqdna predict THIS_FOLDER sequences.fa > predictions.tsv\n\n",
        labelling.outputs().join(", "),
        labelling.task()
    )
}

/// Numbers of codes, for people.
fn codes(config: &ModelConfig) -> String {
    let sizes = config.tokenizer.sizes();
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" and ")
}

/// Measures as a JSON object, in their order; counts as whole numbers.
#[must_use]
pub fn measures_json(measures: &Measures) -> Value {
    let number = |value: f64| {
        let whole = value.fract() == 0.0 && value.abs() < 1e15;
        if whole { Value::from(value as i64) } else { Value::from(value) }
    };
    Value::Object(measures.iter().map(|(name, value)| (name.clone(), number(*value))).collect())
}
