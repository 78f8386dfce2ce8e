//! The files of a folder: read within bounds, written whole or not at all.

use serde::Serialize;
use serde_json::Value;
use std::path::Path;
use vqdna_data::aside::write_aside;
use vqdna_data::bounded;

use super::card::{Manifest, card};
use super::{FolderError, ModelConfig, size};
use crate::tokenizer::bpe::FILE;
use crate::weights::{self, Arrays, WeightError, WeightFile};

pub(super) const UNFINISHED: &str = ". If a run was interrupted there, finish it with its command and `--resume`";

pub(super) const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const RUN: &str = "run.json";

/// Bytes of `config.json` and `run.json` beyond which they are none of ours.
pub(super) const MOST_CONFIG: u64 = 64 << 20;

/// The weights of a folder, or those whose names begin with `prefix`; refused before memory is taken for them, or for a module, if the
/// config describes a far larger model.
pub(super) fn read_weights(folder: &Path, config: &ModelConfig, prefix: &str) -> Result<Arrays, FolderError> {
    /// Numbers by which a config may be wrong: what does not fit is then named by its array.
    const SLACK: u64 = 1 << 20;
    let path = folder.join(WEIGHTS);
    if !path.exists() {
        return Err(FolderError::NoModel { folder: folder.to_owned(), missing: WEIGHTS, hint: UNFINISHED });
    }
    let wrong = |source| FolderError::Weights { path: path.clone(), source };
    let mut file = WeightFile::open(&path).map_err(wrong)?;
    let (numbers, found) = (size::numbers(config), file.numbers());
    if numbers > found.saturating_mul(2).saturating_add(SLACK) {
        return Err(FolderError::Larger { config: folder.join(CONFIG), numbers, weights: path, found });
    }
    file.read(|name| name.starts_with(prefix)).map_err(wrong)
}

/// The first string of a JSON value, with its path, that holds a control character: it would break tables, and steer terminals.
pub(super) fn controlled(value: &Value) -> Option<String> {
    let is_controlled = |text: &str| text.chars().any(char::is_control);
    let join = |key: &str, path: String| if path.is_empty() { key.to_owned() } else { format!("{key}.{path}") };
    match value {
        Value::String(text) => is_controlled(text).then(String::new),
        Value::Array(all) => all.iter().zip(0..).find_map(|(one, n)| Some(join(&n.to_string(), controlled(one)?))),
        Value::Object(fields) => fields.iter().find_map(|(key, value)| {
            let within = if is_controlled(key) { Some(String::new()) } else { controlled(value) };
            Some(join(key, within?))
        }),
        _ => None,
    }
}

/// What `run.json` of a folder says; none if there is none, as in an imported model.
///
/// # Errors
/// If it cannot be read, or is not JSON.
pub fn manifest(folder: &Path) -> Result<Option<Value>, FolderError> {
    let path = folder.join(RUN);
    if !path.is_symlink() && !path.exists() {
        return Ok(None);
    }
    let text = bounded::read(&path, MOST_CONFIG).map_err(|source| FolderError::Io { path: path.clone(), source })?;
    let parsed = serde_json::from_slice(&text);
    parsed.map(Some).map_err(|error| FolderError::Config { path, reason: format!("not JSON: {error}") })
}

/// BLAKE3 of the weights of a folder, which names its model.
///
/// # Errors
/// If they cannot be read.
pub fn digest(folder: &Path) -> Result<String, FolderError> {
    digest_of(&folder.join(WEIGHTS))
}

/// BLAKE3 of a file.
pub(super) fn digest_of(path: &Path) -> Result<String, FolderError> {
    weights::digest(path).map_err(|source| FolderError::Io { path: path.to_owned(), source })
}

/// An error of weights names the file of its folder.
pub(super) fn misfit(folder: &Path) -> impl FnOnce(WeightError) -> FolderError {
    let path = folder.join(WEIGHTS);
    move |source| FolderError::Weights { path, source }
}

/// Writes a model with its manifest and card; the weights last, so that a folder with weights is whole.
///
/// # Errors
/// If a file cannot be written.
pub fn save<C: Serialize>(
    folder: &Path,
    config: &ModelConfig,
    weights: &Arrays,
    manifest: &Manifest<C>,
) -> Result<(), FolderError> {
    write_folder(folder, config, weights, manifest, &card(config, manifest))
}

/// Writes the files of a folder; the weights last.
pub(super) fn write_folder(
    folder: &Path,
    config: &ModelConfig,
    weights: &Arrays,
    run: &impl Serialize,
    card: &str,
) -> Result<(), FolderError> {
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        write_aside(&path, bytes).map_err(|source| FolderError::Io { path, source })
    };
    std::fs::create_dir_all(folder).map_err(|source| FolderError::Io { path: folder.to_owned(), source })?;
    weights::check(weights).map_err(misfit(folder))?;
    // A number that JSON has no word for would make a folder that nothing can read.
    if let Some(field) = not_finite(config) {
        let reason = format!("`{field}` is no finite number");
        return Err(FolderError::Config { path: folder.join(CONFIG), reason });
    }
    let stored = ModelConfig { tokenizer: config.tokenizer.within(None), ..config.clone() };
    write(CONFIG, &json(&stored))?;
    write(RUN, &json(run))?;
    if let Some(file) = config.tokenizer.fixed().and_then(|tokenizer| tokenizer.hugging_face()) {
        write(FILE, &json(&file))?;
    }
    write("README.md", card.as_bytes())?;
    // "pt" is what PyTorch-side readers expect to find for files with PyTorch's layouts.
    weights::write(&folder.join(WEIGHTS), weights, &[("format", "pt")]).map_err(misfit(folder))
}

/// The path of the first number of a config that is not finite.
fn not_finite(config: &ModelConfig) -> Option<String> {
    fn within(value: &toml::Value) -> Option<String> {
        let join = |key: &str, path: String| if path.is_empty() { key.to_owned() } else { format!("{key}.{path}") };
        match value {
            toml::Value::Float(number) => (!number.is_finite()).then(String::new),
            toml::Value::Array(all) => {
                all.iter().zip(0..).find_map(|(one, n)| Some(join(&n.to_string(), within(one)?)))
            }
            toml::Value::Table(fields) => fields.iter().find_map(|(key, value)| Some(join(key, within(value)?))),
            _ => None,
        }
    }
    // TOML knows numbers that are not finite, which JSON writes as `null`.
    within(&toml::Value::try_from(config).expect("plain fields"))
}

/// Pretty JSON with a final line end.
fn json(value: &impl Serialize) -> Vec<u8> {
    let text = serde_json::to_string_pretty(value).expect("plain fields");
    (text + "\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::transformer::TransformerConfig;
    use crate::tokenizer::vqdna::{Kind, Preset};
    use serde_json::json;
    use vqdna_data::segment::Policy;

    #[test]
    fn a_number_that_json_has_no_word_for_leaves_no_folder() {
        let place = tempfile::tempdir().expect("a folder");
        let folder = place.path().join("model");
        let mut config = ModelConfig::new(Preset::Tiny.config(Kind::Vq), Policy::default());
        config.backbone = Some(TransformerConfig { norm_eps: f64::INFINITY, ..TransformerConfig::tiny() }.into());
        let arrays = Arrays::new();
        let error = write_folder(&folder, &config, &arrays, &json!({}), "").expect_err("not finite").to_string();
        assert!(error.contains("`backbone.norm_eps` is no finite number"), "{error}");
        let config = ModelConfig::new(Preset::Tiny.config(Kind::Vq), Policy::default());
        let arrays = Arrays::from([("a".to_owned(), weights::Array { shape: vec![1], values: vec![f32::NAN] })]);
        let error = write_folder(&folder, &config, &arrays, &json!({}), "").expect_err("not finite").to_string();
        assert!(error.contains("`a` holds NaN"), "{error}");
        assert_eq!(folder.read_dir().map_or(0, Iterator::count), 0);
    }

    #[test]
    fn control_characters_are_found_with_their_field() {
        for (value, path) in [
            (json!({ "a": ["fine", { "b": "x\ty" }] }), Some("a.1.b")),
            (json!({ "a": { "b\n": 1 } }), Some("a.b\n")),
            (json!({ "a": "\u{1b}[31m" }), Some("a")),
            (json!({ "a": "\u{9b}31m" }), Some("a")),
            (json!({ "a": "größer 名前" }), None),
        ] {
            assert_eq!(controlled(&value).as_deref(), path, "{value}");
        }
    }
}
