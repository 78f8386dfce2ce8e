//! The folder of a model: `config.json`, `model.safetensors`, `run.json`, `README.md`. It can be moved and holds everything
//! that the model needs.

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use vqdna_data::aside::write_aside;
use vqdna_data::fasta::InputDigest;
use vqdna_data::segment::{Counts, Policy};

use crate::objective::Measures;
use crate::tokenizer::vqdna::{Vqdna, VqdnaConfig, VqdnaConfigError, load_published, publish};
use crate::weights::{self, WeightError};

/// The newest `format_version` of `config.json` that this program writes and reads.
pub const FORMAT_VERSION: u64 = 1;

/// What `config.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Names of the networks inside, in the manner of Hugging Face.
    pub architectures: Vec<String>,
    /// Always `vqdna`.
    pub model_type: String,
    /// Counts up when older programs could no longer read the folder.
    pub format_version: u64,
    /// The network.
    pub tokenizer: VqdnaConfig,
    /// What became of letters when it learned, and becomes of them when it tokenizes.
    pub letters: Policy,
}

impl ModelConfig {
    /// The config of a tokenizer.
    #[must_use]
    pub fn new(tokenizer: &VqdnaConfig, letters: Policy) -> Self {
        Self {
            architectures: vec!["Vqdna".to_owned()],
            model_type: "vqdna".to_owned(),
            format_version: FORMAT_VERSION,
            tokenizer: tokenizer.clone(),
            letters,
        }
    }
}

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
    /// The vocabulary that the run began with, named by its digest; none for a run that learned one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<String>,
    /// Inputs with digests.
    pub inputs: Vec<InputDigest>,
    /// What the letter policies did to them.
    pub counts: Counts,
    /// Windows trained on, and held out for validation.
    pub windows: (usize, usize),
    /// Steps done.
    pub steps: u64,
    /// Which windows `measures` were taken on.
    pub evaluated_on: String,
    /// What came of it.
    pub measures: Value,
}

/// A folder that does not hold a model this program can use; each message names the file or the field.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// No such folder, or no model in it.
    #[error("{} holds no model: it has no `{missing}`{hint}", folder.display())]
    NoModel {
        /// The folder.
        folder: PathBuf,
        /// The file that is missing.
        missing: &'static str,
        /// What to do, where that is known.
        hint: &'static str,
    },
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Not a config of ours.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// From a program newer than this one.
    #[error("{}: `format_version` is {found}, but this program reads up to {FORMAT_VERSION}; use a newer vqdna", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u64,
    },
    /// A network that contradicts itself.
    #[error("{}: {source}", path.display())]
    Network {
        /// The file.
        path: PathBuf,
        /// The contradiction.
        source: VqdnaConfigError,
    },
    /// Weights that do not fit the config.
    #[error("{} does not fit its config.json: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: WeightError,
    },
}

/// A learned vocabulary, ready for use.
#[derive(Clone, Debug)]
pub struct Vocabulary {
    /// What it is.
    pub config: ModelConfig,
    /// Its weights on a device, without autodiff.
    pub model: Vqdna,
    /// Names the weights: BLAKE3 of `model.safetensors`.
    pub digest: String,
}

impl Vocabulary {
    /// Loads a folder onto a device.
    ///
    /// # Errors
    /// See [`FolderError`].
    pub fn load(folder: &Path, device: &Device) -> Result<Self, FolderError> {
        let config = read_config(folder)?;
        let path = folder.join("model.safetensors");
        if !path.is_file() {
            return Err(FolderError::NoModel {
                folder: folder.to_owned(),
                missing: "model.safetensors",
                hint: UNFINISHED,
            });
        }
        let bytes = std::fs::read(&path).map_err(|source| FolderError::Io { path: path.clone(), source })?;
        let digest = blake3::hash(&bytes).to_string();
        drop(bytes);
        let misfit = |source| FolderError::Weights { path: path.clone(), source };
        let (arrays, _) = weights::read(&path).map_err(misfit)?;
        let fresh = config.tokenizer.init(0, &device.clone().without_autodiff());
        let model = load_published(fresh, arrays).map_err(misfit)?;
        Ok(Self { config, model, digest })
    }
}

const UNFINISHED: &str = ". If `vqdna learn` was interrupted there, finish it with `--resume`";

fn read_config(folder: &Path) -> Result<ModelConfig, FolderError> {
    let path = folder.join("config.json");
    if !folder.is_dir() {
        return Err(FolderError::Io {
            path: folder.to_owned(),
            source: std::io::Error::other("there is no such folder"),
        });
    }
    if !path.is_file() {
        let hint = if folder.join("checkpoint").is_dir() { UNFINISHED } else { "" };
        return Err(FolderError::NoModel { folder: folder.to_owned(), missing: "config.json", hint });
    }
    let text = std::fs::read_to_string(&path).map_err(|source| FolderError::Io { path: path.clone(), source })?;
    let wrong = |reason: String| FolderError::Config { path: path.clone(), reason };
    let value: Value = serde_json::from_str(&text).map_err(|e| wrong(format!("not JSON: {e}")))?;
    if value.get("model_type").and_then(Value::as_str) != Some("vqdna") {
        return Err(wrong("`model_type` is not `vqdna`".to_owned()));
    }
    // Before anything else, because the fields of a newer format are unknown here.
    match value.get("format_version").and_then(Value::as_u64) {
        None => return Err(wrong("`format_version` is missing or no number".to_owned())),
        Some(found) if found > FORMAT_VERSION => return Err(FolderError::Newer { path, found }),
        Some(_) => {}
    }
    let config: ModelConfig =
        serde_path_to_error::deserialize(value).map_err(|e| wrong(format!("field `{}`: {}", e.path(), e.inner())))?;
    config.tokenizer.check().map_err(|source| FolderError::Network { path, source })?;
    Ok(config)
}

/// Writes a model with its manifest and card; the weights last, so that a folder with weights is whole.
///
/// # Errors
/// If a file cannot be written.
pub fn save<C: Serialize>(
    folder: &Path,
    config: &ModelConfig,
    model: &Vqdna,
    manifest: &Manifest<C>,
) -> Result<(), FolderError> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        write_aside(&path, bytes).map_err(|source| FolderError::Io { path, source })
    };
    write("config.json", &json(config))?;
    write("run.json", &json(manifest))?;
    write("README.md", card(config, manifest).as_bytes())?;
    let path = folder.join("model.safetensors");
    // "pt" is what PyTorch-side readers expect to find for files with PyTorch's layouts.
    let metadata = [("format", "pt")];
    weights::write(&path, &publish(model), &metadata).map_err(|source| FolderError::Weights { path, source })
}

/// Pretty JSON with a final line end.
fn json(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string_pretty(value).expect("plain fields");
    (text + "\n").into_bytes()
}

/// The model card.
fn card<C>(config: &ModelConfig, manifest: &Manifest<C>) -> String {
    let mut card =
        String::from("---\nlibrary_name: vqdna\ntags: [dna, genomics, tokenizer, vector-quantization]\n---\n\n");
    let sizes: Vec<String> = config.tokenizer.quantizer.codebook_sizes().iter().map(usize::to_string).collect();
    let _ = writeln!(
        card,
        "# A VQDNA vocabulary\n\nOne code for each base and level ({} codes), learned by reconstruction \
         (VQDNA, arXiv 2405.10812). Tokenize with\n\n    vqdna tokenize THIS_FOLDER genome.fa.gz -o codes.parquet\n",
        sizes.join(" and ")
    );
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

/// Measures as a JSON object, in their order; counts as whole numbers.
#[must_use]
pub fn measures_json(measures: &Measures) -> Value {
    let number = |value: f64| {
        let whole = value.fract() == 0.0 && value.abs() < 1e15;
        if whole { Value::from(value as i64) } else { Value::from(value) }
    };
    Value::Object(measures.iter().map(|(name, value)| (name.clone(), number(*value))).collect())
}
