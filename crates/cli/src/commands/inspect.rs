//! `vqdna inspect`: what a model folder holds.

use anyhow::Result;
use clap::Args as ClapArgs;
use serde_json::Value;
use std::path::PathBuf;
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::folder::{ModelConfig, PretrainedConfig, Vocabulary, digest};
use vqdna::tokenizer::mxdna::MxdnaConfig;
use vqdna::tokenizer::vqdna::publish;
use vqdna::weights;

use super::Verdict;
use crate::arguments::Compute;

/// Show a model: of a vocabulary, alone or in a pre-trained model, size, parameters, receptive field and codebook usage of each level;
/// of an MxDNA model its parts.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {
    /// Folder of the model.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    #[command(flatten)]
    pub compute: Compute,
}

/// Prints one table of the model and one of its levels, tab-separated.
pub fn run(args: &Args) -> Result<Verdict> {
    let device = args.compute.open()?;
    let made = ModelConfig::load(&args.model)?;
    if let Some(mxdna) = &made.mxdna {
        return show_mxdna(args, &made, mxdna);
    }
    let vocabulary = Vocabulary::load(&args.model, &device)?;
    let config = &vocabulary.tokenizer;
    let weights = publish(&vocabulary.model);
    let count = |wanted: &dyn Fn(&str) -> bool| -> usize {
        weights.iter().filter(|(name, _)| wanted(name)).map(|(_, array)| array.values.len()).sum()
    };
    let is_average = |name: &str| ["counts", "sums"].contains(&name.rsplit('.').next().unwrap_or_default());
    let bytes = std::fs::metadata(args.model.join("model.safetensors")).map_or(0, |file| file.len());
    let kind = serde_json::to_value(&config.quantizer)?["kind"].as_str().unwrap_or_default().to_owned();

    data!("holds\t{}", made.kind());
    data!("model\t{}", vocabulary.digest);
    data!("quantizer\t{kind}");
    data!("file_bytes\t{bytes}");
    data!("parameters_encoder\t{}", count(&|name| name.starts_with("encoder.")));
    data!("parameters_decoder\t{}", count(&|name| name.starts_with("decoder.")));
    data!("parameters_quantizer\t{}", count(&|name| name.starts_with("quantizer.")));
    data!("code_vectors\t{}", count(&|name| name.starts_with("codebooks.") && !is_average(name)));
    data!("d_stem\t{}\nd_code\t{}\nblocks\t{}\nkernel\t{}", config.d_stem, config.d_code, config.blocks, config.kernel);
    if let Some(PretrainedConfig { backbone, .. }) = &made.pretrained {
        let TransformerConfig { layers, d_model, heads, d_ff, pool, .. } = backbone;
        data!("layers\t{layers}\nd_model\t{d_model}\nheads\t{heads}\nd_ff\t{d_ff}\npool\t{pool}");
    }

    let measures = measures(args);
    let shown = |name: String| match measures.get(&name).and_then(Value::as_f64) {
        Some(value) => format!("{value:.4}"),
        None => "unknown".to_owned(),
    };
    data!("\nlevel\tcodes\treceptive_field_bases\tusage\tperplexity");
    let levels = config.quantizer.codebook_sizes().into_iter().zip(config.code_halos());
    for (level, (codes, halo)) in (1..).zip(levels) {
        let (usage, perplexity) = (shown(format!("usage_{level}")), shown(format!("perplexity_{level}")));
        data!("{level}\t{codes}\t{}\t{usage}\t{perplexity}", 2 * halo + 1);
    }
    Ok(Verdict::Passed)
}

/// Prints a table of a model that cuts sequences itself.
fn show_mxdna(args: &Args, made: &ModelConfig, network: &MxdnaConfig) -> Result<Verdict> {
    let (arrays, _) = weights::read(&args.model.join("model.safetensors"))?;
    let count = |prefixes: &[&str]| -> usize {
        let of = arrays.iter().filter(|(name, _)| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        of.map(|(_, array)| array.values.len()).sum()
    };
    let sizes: Vec<String> = network.units.sizes.iter().map(usize::to_string).collect();
    data!("holds\t{}", made.kind());
    data!("model\t{}", digest(&args.model)?);
    data!("file_bytes\t{}", std::fs::metadata(args.model.join("model.safetensors")).map_or(0, |file| file.len()));
    data!("parameters_base_layers\t{}", count(&["encoder.embed.", "encoder.bases."]));
    data!("parameters_tokenizer\t{}", count(&["encoder.tokenizer."]));
    data!("parameters_unit_layers\t{}", count(&["encoder.units.", "encoder.norm."]));
    data!("parameters_head\t{}", count(&["masked.", "head."]));
    data!("unit_sizes\t{}", sizes.join(","));
    let MxdnaConfig { base_layers, unit_layers, d_model, heads, d_ff, .. } = network;
    data!("base_layers\t{base_layers}\nunit_layers\t{unit_layers}\nd_model\t{d_model}\nheads\t{heads}\nd_ff\t{d_ff}");
    let measures = measures(args);
    for (name, value) in measures.as_object().into_iter().flatten() {
        data!("{name}\t{value}");
    }
    Ok(Verdict::Passed)
}

/// What the run measured on held-out windows; empty if its manifest is not there.
fn measures(args: &Args) -> Value {
    let manifest = std::fs::read_to_string(args.model.join("run.json")).unwrap_or_default();
    let manifest: Value = serde_json::from_str(&manifest).unwrap_or_default();
    manifest.get("measures").cloned().unwrap_or_default()
}
