//! The checkpoint of MxDNA as its authors published it: 303 arrays for masked modelling, with a config beside them.

use burn::prelude::*;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use vqdna_data::bounded;
use vqdna_data::segment::Policy;

use super::model::file_name;
use super::{FolderError, MOST_CONFIG, ModelConfig, card, digest_of, publish, size, write_folder};
use crate::backbone::mxdna::{Grid, MxdnaConfig, MxdnaConfigError, UnitConfig, UnitPlaces};
use crate::model::LanguageModel;
use crate::objective::ObjectiveConfig;
use crate::objective::masking::MaskingConfig;
use crate::tokenizer::TokenizerConfig;
use crate::weights::{self, Array, Arrays, WeightError};

/// Ids of the published model.
const IDS: usize = 9;

/// An array of the published file that nothing reads.
const UNUSED: &str = "model.conversion_layer.motif_masked_token_embedding";

/// A checkpoint that cannot be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The weights cannot be read, or are not those of MxDNA.
    #[error("{}: {source}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        source: WeightError,
    },
    /// The config beside them cannot be read.
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Shapes that make no network.
    #[error("{}: {source}", path.display())]
    Network {
        /// The file of weights.
        path: PathBuf,
        /// The contradiction.
        source: MxdnaConfigError,
    },
    /// Shapes of more numbers than there are, for which no memory is taken.
    #[error("{}: a network of these shapes has {numbers} numbers, but the file holds {held}", path.display())]
    Larger {
        /// The file of weights.
        path: PathBuf,
        /// Numbers of the network.
        numbers: u64,
        /// Numbers in the file.
        held: u64,
    },
    /// See [`FolderError`].
    #[error(transparent)]
    Folder(#[from] FolderError),
}

/// What the published config says that shapes do not. Absent fields are those of the published model.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
struct PublishedConfig {
    num_attention_heads: usize,
    /// None for as many as there are heads.
    num_key_value_heads: Option<usize>,
    hidden_act: String,
    rope_theta: f64,
    layer_norm_eps: f64,
    router_jitter_noise: f64,
}

impl Default for PublishedConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            num_key_value_heads: None,
            hidden_act: "silu".to_owned(),
            rope_theta: 10_000.0,
            layer_norm_eps: 1e-5,
            router_jitter_noise: 0.01,
        }
    }
}

/// A model that was imported.
#[derive(Clone, Debug)]
pub struct Imported {
    /// What its folder will hold.
    pub config: ModelConfig,
    /// Its weights.
    pub model: LanguageModel,
    /// Arrays of the file that nothing reads.
    pub unused: Vec<String>,
}

/// Reads a published checkpoint onto a device; `config_path` defaults to a `config.json` beside the weights, if there is one.
///
/// # Errors
/// See [`ImportError`]; names are those of the file.
pub fn read_mxdna(path: &Path, config_path: Option<&Path>, device: &Device) -> Result<Imported, ImportError> {
    let wrong = |source| ImportError::Weights { path: path.to_owned(), source };
    let beside = path.with_file_name("config.json");
    let published = match config_path {
        Some(config) => read_config(config)?,
        None if beside.is_file() => read_config(&beside)?,
        None => PublishedConfig::default(),
    };
    let mut arrays = weights::read(path).map_err(wrong)?.0;
    let network = network(&arrays, &published).map_err(wrong)?;
    if !network.d_model.is_multiple_of(network.heads.max(1)) {
        let path = config_path.map_or(beside, Path::to_owned);
        let (heads, d) = (network.heads, network.d_model);
        let reason = format!(
            "`num_attention_heads` is {heads} (16 if absent), which does not divide the width of the weights, {d}"
        );
        return Err(ImportError::Config { path, reason });
    }
    network.check().map_err(|source| ImportError::Network { path: path.to_owned(), source })?;
    let held = arrays.values().map(|array| array.values.len() as u64).sum();
    let config = config(network);
    let numbers = size::numbers(&config);
    if numbers > held {
        return Err(ImportError::Larger { path: path.to_owned(), numbers, held });
    }
    let unused = arrays.remove(UNUSED).map(|_| UNUSED.to_owned()).into_iter().collect();
    let backbone = config.backbone.as_ref().expect("that of the file");
    let fresh = LanguageModel::new(backbone, config.tokenizer.source(), &config.tokenizer.sizes(), 0, device);
    let mut known = Arrays::new();
    let published = |name: &str| published_name(&file_name(&config, name));
    for name in weights::collect(&fresh).into_keys() {
        let array = arrays.remove(&published(&name));
        known.extend(array.map(|array| (name.clone(), with_our_shape(&name, array))));
    }
    if let Some(name) = arrays.into_keys().next() {
        return Err(wrong(WeightError::Unused { name }));
    }
    let model = weights::assign(fresh, &known).map_err(|e| wrong(e.rename(|name| published(&name))))?;
    Ok(Imported { config, model, unused })
}

/// What a folder of the published model says.
fn config(network: MxdnaConfig) -> ModelConfig {
    let objective = ObjectiveConfig::Masked(MaskingConfig::default());
    ModelConfig::of_pretrained(TokenizerConfig::mxdna(), None, Policy::default(), network.into(), objective, None)
}

/// Writes an imported model as a folder.
///
/// # Errors
/// If a file cannot be written, or the weights cannot be read again to name them.
pub fn save_mxdna(folder: &Path, from: &Path, imported: &Imported, command_line: &[String]) -> Result<(), FolderError> {
    let digest = digest_of(from)?;
    let run = json!({
        "program": concat!("vqdna ", env!("CARGO_PKG_VERSION")),
        "command_line": command_line,
        "imported_from": { "file": from.display().to_string(), "blake3": digest, "unused": imported.unused },
    });
    let Imported { config, model, .. } = imported;
    let tokenizer = config.tokenizer.fixed().expect("bases as they are");
    let weights = publish(config, &tokenizer, model);
    write_folder(folder, config, &weights, &run, &card::of_import(config, from, &digest))
}

fn read_config(path: &Path) -> Result<PublishedConfig, ImportError> {
    let wrong = |reason: String| ImportError::Config { path: path.to_owned(), reason };
    let text = bounded::read_text(path, MOST_CONFIG).map_err(|e| wrong(e.to_string()))?;
    let mut parser = serde_json::Deserializer::from_str(&text);
    let found: PublishedConfig = serde_path_to_error::deserialize(&mut parser)
        .map_err(|e| wrong(format!("field `{}`: {}", e.path(), e.inner())))?;
    if found.num_key_value_heads.is_some_and(|heads| heads != found.num_attention_heads) {
        return Err(wrong(
            "`num_key_value_heads` is not `num_attention_heads`; shared heads are not supported".to_owned(),
        ));
    }
    if found.hidden_act != "silu" {
        return Err(wrong(format!("`hidden_act` is `{}`; only `silu` is supported", found.hidden_act)));
    }
    Ok(found)
}

/// The network whose weights these are.
fn network(arrays: &Arrays, published: &PublishedConfig) -> Result<MxdnaConfig, WeightError> {
    let shape = |name: &str, axes: usize| {
        let missing = || WeightError::Missing { name: name.to_owned() };
        let found = arrays.get(name).ok_or_else(missing)?.shape.clone();
        let wrong = || WeightError::Shape { name: name.to_owned(), found: found.clone(), expected: vec![0; axes] };
        if found.len() == axes { Ok(found) } else { Err(wrong()) }
    };
    let embedding = shape("model.embed_tokens.weight", 2)?;
    if embedding[0] != IDS {
        let name = "model.embed_tokens.weight".to_owned();
        return Err(WeightError::Shape { name, expected: vec![IDS, embedding[1]], found: embedding });
    }
    let count = |of: &dyn Fn(usize) -> String| (0..arrays.len()).take_while(|&n| arrays.contains_key(&of(n))).count();
    let layers = |kind: &str| count(&|n| format!("model.{kind}_layers.{n}.ffn.ffn.w1.weight"));
    let expert = |n: usize| format!("model.conversion_layer.conv_moe.experts.{n}.depthwise_conv.weight");
    let sizes = (0..count(&expert)).map(|n| shape(&expert(n), 3).map(|shape| shape[2])).collect::<Result<_, _>>()?;
    Ok(MxdnaConfig {
        d_model: embedding[1],
        heads: published.num_attention_heads,
        d_ff: shape("decoder.ffn.ffn.w1.weight", 2)?[0],
        base_layers: layers("nucleotide"),
        unit_layers: layers("motif"),
        units: UnitConfig {
            sizes,
            norm_eps: published.layer_norm_eps,
            // As the wrapper of the published norms has it where no other is given.
            expert_norm_eps: 1e-6,
            jitter: published.router_jitter_noise,
            grid: Grid::Sparse,
            ..UnitConfig::default()
        },
        unit_places: UnitPlaces::Anchor,
        theta: published.rope_theta,
    })
}

/// The published name of a parameter, by its name in our files.
fn published_name(name: &str) -> String {
    /// Parts of a name, ours and theirs; each is tried in turn, at the start of what is left.
    const PARTS: [(&str, &str); 29] = [
        ("encoder.embed.", "model.embed_tokens."),
        ("encoder.bases.", "model.nucleotide_layers."),
        ("encoder.units.", "model.motif_layers."),
        ("encoder.norm.", "model.norm.norm."),
        ("encoder.tokenizer.norm.", "model.conversion_layer.input_layernorm.norm."),
        ("encoder.tokenizer.gate.", "model.conversion_layer.gate."),
        ("encoder.tokenizer.experts.", "model.conversion_layer.conv_moe.experts."),
        ("encoder.tokenizer.assembly.norm.", "model.conversion_layer.deform_conv.input_layernorm.norm."),
        ("encoder.tokenizer.assembly.offset.", "model.conversion_layer.deform_conv.offset_conv."),
        ("encoder.tokenizer.assembly.modulation.", "model.conversion_layer.deform_conv.modulator_conv."),
        ("encoder.tokenizer.assembly.conv.", "model.conversion_layer.deform_conv.regular_conv."),
        ("masked.decoder.attn.", "decoder.cross_attn."),
        ("masked.decoder.", "decoder."),
        ("masked.head_norm.", "norm.norm."),
        ("masked.head.dense.", "lm_head.dense."),
        ("masked.head.norm.", "lm_head.layer_norm."),
        ("masked.head.out.weight", "lm_head.decoder.weight"),
        ("masked.head.out.bias", "lm_head.bias"),
        ("attn.", "self_attn."),
        ("attn_norm.", "input_layernorm.norm."),
        ("ffn_norm.", "post_attention_layernorm.norm."),
        ("ffn.gate.", "ffn.ffn.w1."),
        ("ffn.up.", "ffn.ffn.w3."),
        ("ffn.down.", "ffn.ffn.w2."),
        ("pre.", "pointwise_conv_pre."),
        ("post.", "pointwise_conv_post."),
        ("conv.", "depthwise_conv."),
        ("norm.", "norm.norm."),
        ("", ""),
    ];
    const PROJECTIONS: [&str; 4] = ["q.", "k.", "v.", "o."];
    let mut rest = name;
    let mut made = String::new();
    while !rest.is_empty() {
        let (ours, theirs) = PARTS.iter().find(|(ours, _)| rest.starts_with(ours)).unwrap_or(&PARTS[PARTS.len() - 1]);
        made += theirs;
        rest = &rest[ours.len()..];
        if theirs.ends_with("_attn.") && PROJECTIONS.iter().any(|projection| rest.starts_with(projection)) {
            made += "projection_";
        }
        // A number of a list, or the last part.
        let end = rest.find('.').map_or(rest.len(), |dot| dot + 1);
        let is_named = PARTS[..PARTS.len() - 1].iter().any(|(ours, _)| rest.starts_with(ours));
        if !is_named {
            made += &rest[..end];
            rest = &rest[end..];
        }
    }
    made
}

/// The deformable convolution is one in two dimensions there, one wide.
fn with_our_shape(name: &str, mut array: Array) -> Array {
    if name == "backbone.tokenizer.assembly.conv.weight" && array.shape.len() == 4 && array.shape[3] == 1 {
        array.shape.pop();
    }
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backbone::BackboneConfig;
    use crate::backbone::mxdna::Edge;
    use crate::model_dir::{Model, Network};

    /// The published layout of a network: names and shapes as in the published code.
    fn layout(d: usize, d_ff: usize, layers: [usize; 2], sizes: &[usize]) -> Vec<(String, Vec<usize>)> {
        let mut all: Vec<(String, Vec<usize>)> = Vec::new();
        let mut add = |name: String, shape: &[usize]| all.push((name, shape.to_vec()));
        let norm = |name: &str| [format!("{name}.weight"), format!("{name}.bias")];
        let layer = |add: &mut dyn FnMut(String, &[usize]), at: &str, attention: &str| {
            for projection in ["q", "k", "v", "o"] {
                add(format!("{at}.{attention}.projection_{projection}.weight"), &[d, d]);
            }
            add(format!("{at}.ffn.ffn.w1.weight"), &[d_ff, d]);
            add(format!("{at}.ffn.ffn.w2.weight"), &[d, d_ff]);
            add(format!("{at}.ffn.ffn.w3.weight"), &[d_ff, d]);
            for part in ["input_layernorm", "post_attention_layernorm"] {
                for name in norm(&format!("{at}.{part}.norm")) {
                    add(name, &[d]);
                }
            }
        };
        add("model.embed_tokens.weight".to_owned(), &[9, d]);
        for (kind, count) in ["nucleotide", "motif"].into_iter().zip(layers) {
            (0..count).for_each(|n| layer(&mut add, &format!("model.{kind}_layers.{n}"), "self_attn"));
        }
        let at = "model.conversion_layer";
        add(format!("{at}.motif_masked_token_embedding"), &[d]);
        add(format!("{at}.gate.weight"), &[sizes.len(), d]);
        for name in norm(&format!("{at}.input_layernorm.norm")) {
            add(name, &[d]);
        }
        for (n, &size) in sizes.iter().enumerate() {
            let at = format!("{at}.conv_moe.experts.{n}");
            let groups = crate::backbone::mxdna::groups(d, size);
            add(format!("{at}.pointwise_conv_pre.weight"), &[2 * d, d]);
            add(format!("{at}.depthwise_conv.weight"), &[d, d / groups, size]);
            for name in norm(&format!("{at}.norm.norm")) {
                add(name, &[d]);
            }
            add(format!("{at}.pointwise_conv_post.weight"), &[d, d]);
        }
        let at = format!("{at}.deform_conv");
        for name in norm(&format!("{at}.input_layernorm.norm")) {
            add(name, &[d]);
        }
        for part in ["offset_conv", "modulator_conv"] {
            add(format!("{at}.{part}.weight"), &[3, d, 3]);
            add(format!("{at}.{part}.bias"), &[3]);
        }
        add(format!("{at}.regular_conv.weight"), &[d, d, 3, 1]);
        for name in norm("model.norm.norm") {
            add(name, &[d]);
        }
        layer(&mut add, "decoder", "cross_attn");
        add("lm_head.dense.weight".to_owned(), &[d, d]);
        add("lm_head.dense.bias".to_owned(), &[d]);
        for name in norm("lm_head.layer_norm") {
            add(name, &[d]);
        }
        add("lm_head.decoder.weight".to_owned(), &[9, d]);
        add("lm_head.bias".to_owned(), &[9]);
        for name in norm("norm.norm") {
            add(name, &[d]);
        }
        all
    }

    fn file(folder: &Path, layout: &[(String, Vec<usize>)]) -> PathBuf {
        let numbered = |(n, (name, shape)): (usize, &(String, Vec<usize>))| {
            let count: usize = shape.iter().product();
            let values = (0..count).map(|i| ((n * 131 + i * 17) % 101) as f32 / 500.0 - 0.1).collect();
            (name.clone(), Array { shape: shape.clone(), values })
        };
        let path = folder.join("model.safetensors");
        weights::write(&path, &layout.iter().enumerate().map(numbered).collect(), &[]).expect("written");
        path
    }

    /// The shapes alone, so that nothing of 400 MB is written.
    #[test]
    fn the_published_model_has_303_arrays_of_100_090_895_numbers() {
        let layout = layout(512, 2048, [4, 16], &(1..=10).collect::<Vec<_>>());
        assert_eq!(layout.len(), 303);
        assert_eq!(layout.iter().map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>(), 100_090_895);
        let config = super::config(MxdnaConfig::base());
        let (backbone, tokenizer) = (config.backbone.as_ref().expect("an encoder"), &config.tokenizer);
        let model = LanguageModel::new(backbone, tokenizer.source(), &tokenizer.sizes(), 0, &Device::flex());
        let published = |name: &String| published_name(&file_name(&config, name));
        let mut names: Vec<String> = weights::collect(&model).keys().map(published).collect();
        names.push(UNUSED.to_owned());
        names.sort();
        let mut wanted: Vec<String> = layout.into_iter().map(|(name, _)| name).collect();
        wanted.sort();
        assert_eq!(names, wanted);
    }

    #[test]
    fn every_array_arrives_where_it_belongs() {
        let (folder, device) = (tempfile::tempdir().expect("a folder"), Device::flex());
        let layout = layout(16, 24, [1, 2], &[1, 2, 5]);
        let path = file(folder.path(), &layout);
        std::fs::write(folder.path().join("config.json"), r#"{"num_attention_heads": 4, "hidden_act": "silu"}"#)
            .expect("written");
        let imported = read_mxdna(&path, None, &device).expect("the layout");
        let Some(BackboneConfig::Mxdna(network)) = &imported.config.backbone else { panic!("MxDNA") };
        let &MxdnaConfig { d_model, heads, d_ff, base_layers, unit_layers, ref units, .. } = network;
        assert_eq!([d_model, heads, d_ff, base_layers, unit_layers], [16, 4, 24, 1, 2]);
        assert_eq!((units.grid, units.edge, units.expert_norm_eps), (Grid::Sparse, Edge::Zero, 1e-6));
        assert_eq!(units.sizes, [1, 2, 5]);
        assert_eq!(imported.unused, [UNUSED]);
        let (theirs, _) = weights::read(&path).expect("readable");
        let ours = weights::collect(&imported.model);
        assert_eq!(ours.len() + 1, theirs.len());
        for (name, array) in &ours {
            assert_eq!(array.values, theirs[&published_name(&file_name(&imported.config, name))].values, "{name}");
        }
        // Both sides of the gate, by name: `w1` goes through the activation.
        assert_eq!(published_name("encoder.units.1.ffn.gate.weight"), "model.motif_layers.1.ffn.ffn.w1.weight");
        assert_eq!(published_name("masked.decoder.attn.q.weight"), "decoder.cross_attn.projection_q.weight");

        let to = folder.path().join("model");
        save_mxdna(&to, &path, &imported, &[]).expect("written");
        let Network::Language(again) = Model::load(&to, &device).expect("a folder").network else { panic!("a head") };
        assert_eq!(weights::collect(&*again), ours);
    }

    #[test]
    fn errors_name_arrays_as_the_file_does() {
        let (folder, device) = (tempfile::tempdir().expect("a folder"), Device::flex());
        let whole = layout(16, 24, [1, 1], &[1, 2]);
        std::fs::write(folder.path().join("config.json"), r#"{"num_attention_heads": 4}"#).expect("written");
        let message = |layout: &[(String, Vec<usize>)]| {
            let path = file(folder.path(), layout);
            read_mxdna(&path, None, &device).expect_err("a misfit").to_string()
        };
        let without = |name: &str| whole.iter().filter(|(known, _)| known != name).cloned().collect::<Vec<_>>();
        for name in ["model.embed_tokens.weight", "model.motif_layers.0.input_layernorm.norm.bias", "lm_head.bias"] {
            let message = message(&without(name));
            assert!(message.contains(&format!("`{name}` is missing")), "{message}");
        }
        let mut more = whole.clone();
        more.push(("classifier.weight".to_owned(), vec![2, 16]));
        assert!(message(&more).contains("`classifier.weight` belongs to no part"));
        let mut other = whole.clone();
        other.iter_mut().filter(|(name, _)| name == "norm.norm.weight").for_each(|(_, shape)| shape[0] = 15);
        assert!(message(&other).contains("`norm.norm.weight` has shape [15]"));
    }
}
