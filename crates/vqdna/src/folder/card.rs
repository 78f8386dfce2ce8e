//! What a folder says of its run: `run.json` for programs, `README.md` for people.

use serde::Serialize;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::Path;
use vqdna_data::fasta::InputDigest;
use vqdna_data::segment::Counts;

use super::{FinetunedConfig, ModelConfig, PretrainedConfig};
use crate::objective::Measures;
use crate::tokenizer::mxdna::MxdnaConfig;

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
    let mut card = match (&config.finetuned, &config.pretrained, &config.mxdna) {
        (Some(finetuned), _, _) => of_finetuned(finetuned),
        (None, Some(pretrained), _) => of_pretrained(config, pretrained),
        (None, None, Some(mxdna)) => of_mxdna(mxdna),
        (None, None, None) => of_vocabulary(config),
    };
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

fn of_vocabulary(config: &ModelConfig) -> String {
    format!(
        "---\nlibrary_name: vqdna\ntags: [dna, genomics, tokenizer, vector-quantization]\n---\n\n\
         # A VQDNA vocabulary\n\nOne code for each base and level ({} codes), learned by reconstruction \
         (VQDNA, arXiv 2405.10812). Tokenize with\n\n    vqdna tokenize THIS_FOLDER genome.fa.gz -o codes.parquet\n\n",
        codes(config)
    )
}

fn of_pretrained(config: &ModelConfig, PretrainedConfig { vocabulary, backbone, .. }: &PretrainedConfig) -> String {
    let positions = match backbone.pool {
        1 => "base".to_owned(),
        bases => format!("{bases} adjacent bases"),
    };
    format!(
        "---\nlibrary_name: vqdna\ntags: [dna, genomics, masked-lm, vector-quantization]\n---\n\n\
         # A pre-trained VQDNA encoder\n\nA transformer of {} layers, {} wide, with one position for each {positions}, over the \
         codes of a frozen vocabulary ({} codes), pre-trained to tell masked codes (VQDNA, arXiv 2405.10812). The vocabulary is \
         inside, and named {vocabulary}.\n\n",
        backbone.layers,
        backbone.d_model,
        codes(config)
    )
}

/// The card of a model that was not trained here.
pub(super) fn of_import(network: &MxdnaConfig, from: &Path, digest: &str) -> String {
    let name = from.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
    of_mxdna(network) + &format!("Imported from `{name}`, whose BLAKE3 is {digest}.\n")
}

fn of_mxdna(MxdnaConfig { d_model, base_layers, unit_layers, units, .. }: &MxdnaConfig) -> String {
    let sizes: Vec<String> = units.sizes.iter().map(usize::to_string).collect();
    format!(
        "---\nlibrary_name: vqdna\ntags: [dna, genomics, masked-lm, mixture-of-experts]\n---\n\n\
         # A pre-trained MxDNA encoder\n\n{base_layers} layers over bases, a layer that cuts them into units of {} bases, and \
         {unit_layers} layers over units, {d_model} wide, pre-trained to tell masked bases (MxDNA, NeurIPS 2024). It reads letters: there \
         is no vocabulary.\n\n",
        sizes.join(", ")
    )
}

fn of_finetuned(FinetunedConfig { labelling, vocabulary, .. }: &FinetunedConfig) -> String {
    let (title, tag, over) = match vocabulary {
        Some(vocabulary) => {
            let over = format!("VQDNA, arXiv 2405.10812), over a vocabulary that is inside and named {vocabulary}");
            ("VQDNA", "vector-quantization", over)
        }
        None => ("MxDNA", "mixture-of-experts", "MxDNA, NeurIPS 2024), by an encoder that cuts them itself".to_owned()),
    };
    format!(
        "---\nlibrary_name: vqdna\ntags: [dna, genomics, sequence-classification, {tag}]\n---\n\n\
         # A fine-tuned {title} model\n\nTells {} of DNA sequences ({} task; {over}. Predict with\n\n    \
         vqdna predict THIS_FOLDER sequences.fa > predictions.tsv\n\n",
        labelling.outputs().join(", "),
        labelling.task()
    )
}

/// Numbers of codes, for people.
fn codes(config: &ModelConfig) -> String {
    let sizes = config.tokenizer.as_ref().map(|tokenizer| tokenizer.quantizer.codebook_sizes()).unwrap_or_default();
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
