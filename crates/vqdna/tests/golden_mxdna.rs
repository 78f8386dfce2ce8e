//! The layers of MxDNA agree with the published implementation, on fused kernels and on Burn's own operations.
//!
//! Numbers come from `$VQDNA_GOLDEN/mxdna/*.safetensors` (default: `../shared/golden` beside the repository, else the copies in
//! `fixtures/golden`); what a file holds is in its name, sizes are in its metadata.

use burn::module::Param;
use burn::prelude::*;
use burn::tensor::activation::log_softmax;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use vqdna::backbone::Backbone;
use vqdna::backbone::mxdna::{
    Decoder, Edge, MxdnaConfig, Positions, Selection, UnitConfig, UnitLayer, UnitPlaces, UnitTokens, groups,
};
use vqdna::batch::{Layout, TokenBatch};
use vqdna::head::first::FirstHead;
use vqdna::head::token::TokenHead;
use vqdna::layers::DeformableConv;
use vqdna::model::Embed;
use vqdna::model::embed::encoder;
use vqdna::ops::with_composed_ops;
use vqdna::seed::stream;
use vqdna::tokenizer::Source;
use vqdna::train::optimizer::Gradients;
use vqdna::weights::{Array, Arrays, assign, read};

/// Largest difference, relative to the largest value of a tensor or to 1: f32 sums in another order.
const TOLERANCE: f32 = 1e-5;
/// The same of gradients.
const GRADIENT_TOLERANCE: f32 = 2e-5;
/// The same of whole models.
const MODEL_TOLERANCE: f32 = 2e-5;
/// The same of the gradients of whole models.
const MODEL_GRADIENT_TOLERANCE: f32 = 5e-5;

struct Golden {
    path: PathBuf,
    arrays: Arrays,
    metadata: HashMap<String, String>,
}

impl Golden {
    fn array(&self, name: &str) -> &Array {
        self.arrays.get(name).unwrap_or_else(|| panic!("{} has no `{name}`", self.path.display()))
    }

    fn has(&self, name: &str) -> bool {
        self.arrays.contains_key(name)
    }

    fn tensor<const D: usize>(&self, name: &str, device: &Device) -> Tensor<D> {
        let array = self.array(name);
        Tensor::from_data(TensorData::new(array.values.clone(), array.shape.clone()), device)
    }

    fn whole(&self, name: &str) -> Vec<i32> {
        self.array(name).values.iter().map(|&v| v as i32).collect()
    }

    fn part(&self, prefix: &str) -> Arrays {
        let strip = |(name, array): (&String, &Array)| Some((name.strip_prefix(prefix)?.to_owned(), array.clone()));
        self.arrays.iter().filter_map(strip).collect()
    }

    fn list(&self, key: &str) -> Vec<usize> {
        self.metadata[key].split(',').map(|number| number.parse().expect("a number")).collect()
    }

    #[track_caller]
    fn check(&self, name: &str, got: &[f32], tolerance: f32) {
        self.check_rows(name, got, tolerance, |_| true);
    }

    /// Compares elements of those rows of the last axis that are asked for.
    #[track_caller]
    fn check_rows(&self, name: &str, got: &[f32], tolerance: f32, asked: impl Fn(usize) -> bool) {
        let want = self.array(name);
        assert_eq!(got.len(), want.values.len(), "{}: {name}", self.path.display());
        let width = want.shape.last().copied().unwrap_or(1).max(1);
        let largest = want.values.iter().fold(1f32, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(&want.values).enumerate().filter(|(i, _)| asked(i / width)) {
            let close = (g - w).abs() <= tolerance * largest;
            assert!(close, "{}: {name}[{i}] is {g}, not {w} (largest {largest})", self.path.display());
        }
    }
}

/// Files whose names begin so; empty with a printed line if there is none.
fn files(kind: &str) -> Vec<Golden> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folders = match std::env::var_os("VQDNA_GOLDEN") {
        Some(folder) => vec![PathBuf::from(folder)],
        None => vec![root.join("../shared/golden"), root.join("fixtures/golden")],
    };
    let folder = folders.iter().map(|f| f.join("mxdna")).find(|f| f.is_dir()).expect("a folder of golden numbers");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).expect("readable").map(|e| e.expect("entry").path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(kind)));
    paths.sort();
    assert!(!paths.is_empty(), "no {kind} in {}", folder.display());
    let of = |path: PathBuf| {
        let (arrays, metadata) = read(&path).unwrap_or_else(|e| panic!("{e}"));
        Golden { path, arrays, metadata }
    };
    paths.into_iter().map(of).collect()
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec_as::<f32>().expect("f32")
}

#[test]
fn golden_units_are_selected() {
    for golden in files("nms_") {
        let sizes: Vec<usize> = golden.whole("sizes").iter().map(|&size| size as usize).collect();
        let lengths: Vec<usize> = golden.whole("lengths").iter().map(|&length| length as usize).collect();
        let positions = golden.array("logits").shape[1];
        let special = |&length: &usize| (0..positions).map(move |at| at == 0 || at + 1 >= length);
        let special: Vec<bool> = lengths.iter().flat_map(special).collect();
        let found = Selection::new(&golden.array("logits").values, &sizes, &lengths, &special);
        assert_eq!(found.anchors, golden.whole("center"), "{}", golden.path.display());
        assert_eq!(found.owners, golden.whole("owner"), "{}", golden.path.display());
    }
}

fn deformable_agrees(golden: &Golden) {
    let device = Device::flex().autodiff();
    // Channels come first in the file.
    let rows = |name: &str| golden.tensor::<3>(name, &device).swap_dims(1, 2).require_grad();
    let (x, offsets, factors) = (rows("input"), rows("offset"), rows("modulation"));
    let layer = DeformableConv { weight: Param::from_tensor(golden.tensor("weight", &device)) };
    let y = layer.forward(x.clone(), offsets.clone(), factors.clone());
    golden.check("output", &values(y.clone().swap_dims(1, 2)), TOLERANCE);
    let graph = (y * golden.tensor::<3>("grad_output", &device).swap_dims(1, 2)).sum().backward();
    for (name, tensor) in [("input", &x), ("offset", &offsets), ("modulation", &factors)] {
        let found = tensor.grad(&graph).expect("a gradient").swap_dims(1, 2);
        golden.check(&format!("grad.{name}"), &values(found), GRADIENT_TOLERANCE);
    }
    let found = Gradients::of(&layer, &graph).to_arrays();
    golden.check("grad.weight", &found["weight"].values, GRADIENT_TOLERANCE);
}

#[test]
fn golden_deformable_convolutions_agree() {
    for golden in files("deform_") {
        deformable_agrees(&golden);
        with_composed_ops(|| deformable_agrees(&golden));
    }
}

/// Names of parts in the files, and in the modules.
const NAMES: [[&str; 2]; 4] =
    [["expert.", "experts."], ["nucleotide.", "bases."], ["unit.", "units."], ["final_norm.", "norm."]];

/// Arrays by the names of the modules.
fn named(arrays: Arrays) -> Arrays {
    let rename = |name: String| NAMES.iter().fold(name, |name, [file, module]| name.replace(file, module));
    arrays.into_iter().map(|(name, array)| (rename(name), array)).collect()
}

fn layer_agrees(golden: &Golden) {
    let device = Device::flex().autodiff();
    let number = |key: &str| golden.metadata[key].parse::<f64>().expect("a number");
    let config = UnitConfig {
        sizes: golden.list("sizes"),
        norm_eps: number("norm_eps"),
        expert_norm_eps: number("expert_norm_eps"),
        edge: Edge::Batch,
        ..UnitConfig::default()
    };
    let d = number("hidden") as usize;
    assert_eq!(config.sizes.iter().map(|&size| groups(d, size)).collect::<Vec<_>>(), golden.list("groups"));
    let layer = UnitLayer::new(&config, d, 0, &device);
    let layer = assign(layer, &named(golden.part("param."))).unwrap_or_else(|e| panic!("{e}"));
    let states = golden.tensor::<3>("input.hidden", &device).require_grad();
    let special: Vec<bool> = golden.whole("input.special_mask").iter().map(|&v| v == 1).collect();
    let lengths = golden.list("lengths");
    let jitter = golden.has("input.jitter").then(|| golden.tensor("input.jitter", &device));
    let input = Positions { states: states.clone(), lengths: &lengths, special: &special };
    let made = layer.forward(input, jitter);
    check_tokens(golden, &made, &lengths);

    let terms = made.assembled.hidden * golden.tensor::<3>("loss.weight", &device);
    let loss = terms.clone().sum() + made.balance.mul_scalar(number("balance_weight"));
    // Terms of either sign nearly cancel, so their sizes say how exact a sum can be.
    let (found, magnitude) = (values(loss.clone())[0], values(terms.abs().sum())[0]);
    let difference = (found - golden.array("out.loss").values[0]).abs();
    assert!(difference <= TOLERANCE * magnitude, "{}: loss {found}", golden.path.display());
    let graph = loss.backward();
    golden.check("grad.input.hidden", &values(states.grad(&graph).expect("a gradient")), GRADIENT_TOLERANCE);
    let found = Gradients::of(&layer, &graph).to_arrays();
    check_gradients(golden, &found, |name| name, GRADIENT_TOLERANCE);
}

/// Compares with the gradients of the file; those that are 0 there may be missing.
#[track_caller]
fn check_gradients(golden: &Golden, found: &Arrays, module_name: impl Fn(String) -> String, tolerance: f32) {
    for (file_name, want) in golden.part("grad.param.") {
        let name = named(Arrays::from([(file_name.clone(), want.clone())])).into_keys().next().expect("one name");
        match found.get(&module_name(name.clone())) {
            Some(found) => golden.check(&format!("grad.param.{file_name}"), &found.values, tolerance),
            None => assert!(want.values.iter().all(|&v| v == 0.0), "{name} has no gradient"),
        }
    }
}

fn check_tokens(golden: &Golden, made: &UnitTokens, lengths: &[usize]) {
    assert_eq!(made.selection.anchors, golden.whole("out.center"));
    assert_eq!(made.selection.owners, golden.whole("out.owner"));
    assert_eq!(made.kept.positions, golden.whole("out.unit_position"));
    let real = values(made.real.clone());
    assert_eq!(real, golden.array("out.unit_mask").values);
    let [_, positions, _] = made.aggregated.dims();
    let is_position = |row: usize| row % positions < lengths[row / positions];
    golden.check_rows("out.router_logits", &values(made.scores.clone()), TOLERANCE, is_position);
    golden.check_rows("out.aggregated", &values(made.aggregated.clone()), TOLERANCE, is_position);
    golden.check("out.balance_loss", &values(made.balance.clone()), TOLERANCE);
    let (assembled, is_token) = (&made.assembled, |row: usize| real[row] == 1.0);
    golden.check_rows("out.hidden", &values(assembled.hidden.clone()), TOLERANCE, is_token);
    for (name, found) in [("out.offset", &assembled.offsets), ("out.modulation", &assembled.factors)] {
        golden.check(name, &values(found.clone().swap_dims(1, 2)), TOLERANCE);
    }
}

#[test]
fn golden_unit_layers_agree() {
    for golden in files("layer_") {
        layer_agrees(&golden);
        with_composed_ops(|| layer_agrees(&golden));
    }
}

/// Ids of the published model.
const IDS: usize = 9;

/// The head of a whole model.
#[allow(clippy::large_enum_variant, reason = "there is one at a time")]
enum Head {
    Letters(Letters),
    Classes(FirstHead),
}

/// From units back to bases, and their letters.
#[derive(Module, Debug)]
struct Letters {
    decoder: Decoder,
    head: TokenHead,
}

/// Embedding and encoder.
#[derive(Module, Debug)]
struct Model {
    embed: Embed,
    backbone: Backbone,
}

/// Names of parts of whole models in the files, and in the modules.
const MODEL_NAMES: [[&str; 2]; 3] =
    [["decoder.", "decoder.layer."], ["head_norm.", "decoder.norm."], ["head.", "head."]];

/// The name of a parameter of [`Letters`] by its name in the file.
fn of_letters(name: &str) -> String {
    let names = [["head.norm.", "head.head_norm."], ["head.out.", "head.heads.0."]];
    let names = names.iter().chain(&MODEL_NAMES);
    let found = names.into_iter().find_map(|[file, module]| Some(format!("{module}{}", name.strip_prefix(file)?)));
    found.unwrap_or_else(|| name.to_owned())
}

/// The name of a parameter of [`Model`] by its name among [`named`] ones.
fn of_model(name: &str) -> String {
    if name.starts_with("embed.") { name.to_owned() } else { format!("backbone.{name}") }
}

fn renamed(arrays: Arrays, rename: impl Fn(&str) -> String) -> Arrays {
    arrays.into_iter().map(|(name, array)| (rename(&name), array)).collect()
}

fn model_agrees(golden: &Golden) {
    let device = Device::flex().autodiff();
    let number = |key: &str| golden.metadata[key].parse::<f64>().expect("a number");
    let size = |key: &str| number(key) as usize;
    let (sizes, norm_eps) = (golden.list("sizes"), number("norm_eps"));
    let units = UnitConfig { sizes, norm_eps, edge: Edge::Batch, ..UnitConfig::default() };
    let config = MxdnaConfig {
        d_model: size("hidden"),
        heads: size("heads"),
        d_ff: size("ffn"),
        base_layers: size("nucleotide_layers"),
        unit_layers: size("unit_layers"),
        units,
        unit_places: UnitPlaces::Rank,
        theta: number("rope_theta"),
    };
    let (of_head, of_encoder): (Arrays, Arrays) = golden
        .part("param.")
        .into_iter()
        .partition(|(name, _)| name.starts_with("decoder.") || name.starts_with("head"));
    let (embed, backbone) = encoder(&config.clone().into(), Source::Table(IDS), 0, &device);
    let weights = renamed(named(of_encoder), of_model);
    let model = assign(Model { embed, backbone }, &weights).unwrap_or_else(|e| panic!("{e}"));
    let Backbone::Mxdna(mxdna) = &model.backbone else { panic!("MxDNA") };
    let asks_letters = golden.metadata["head"] == "mlm";
    let classes = golden.array("param.head.out.bias").values.len();

    let shape: [usize; 2] = golden.array("input.ids").shape.as_slice().try_into().expect("two axes");
    let ids = Tensor::<2, Int>::from_data(TensorData::new(golden.whole("input.ids"), shape), &device);
    let special: Vec<bool> = golden.whole("input.special_mask").iter().map(|&v| v == 1).collect();
    let lengths = golden.list("lengths");
    let real = (0..shape[0] * shape[1]).map(|row| f32::from(u8::from(row % shape[1] < lengths[row / shape[1]])));
    let real = Tensor::from_data(TensorData::new(real.collect::<Vec<_>>(), shape), &device);
    let batch =
        TokenBatch { ids: vec![ids], vectors: None, layout: Layout { real, lengths: lengths.clone(), special } };
    let (x, layout) = model.embed.forward(&batch, None);
    let hidden = mxdna.forward(x, &layout, None);
    assert_eq!(hidden.tokens.selection.anchors, golden.whole("out.center"));
    let is_position = |row: usize| row % shape[1] < lengths[row / shape[1]];
    let real = values(hidden.units.real.clone());
    golden.check_rows("out.nucleotide_states", &values(hidden.bases.states.clone()), MODEL_TOLERANCE, is_position);
    golden.check_rows("out.unit_states", &values(hidden.units.states.clone()), MODEL_TOLERANCE, |row| real[row] == 1.0);

    let (logits, head) = if asks_letters {
        let random = &mut stream(0, "weights", &[]);
        let fresh = Letters {
            decoder: config.decoder(random, &device),
            head: TokenHead::new(config.d_model, &[IDS], norm_eps, None, random, &device),
        };
        let head = assign(fresh, &renamed(of_head, of_letters)).expect("fits");
        let [batch, positions] = shape;
        let decoded = head.decoder.forward(hidden.bases, hidden.units);
        let features = head.head.features(decoded.reshape([batch * positions, config.d_model]));
        let logits = head.head.logits(0, features);
        golden.check_rows("out.logits", &values(logits.clone()), MODEL_TOLERANCE, is_position);
        (logits, Head::Letters(head))
    } else {
        let fresh = FirstHead::new(config.d_model, classes, config.units.norm_eps, 0, &device);
        let head = assign(fresh, &of_head).expect("fits");
        let logits = head.forward(hidden.units.states);
        golden.check("out.logits", &values(logits.clone()), MODEL_TOLERANCE);
        (logits, Head::Classes(head))
    };
    let labels = golden.whole("input.labels");
    let asked: Vec<i32> = (0..labels.len() as i32).filter(|&row| labels[row as usize] >= 0).collect();
    let labels: Vec<i32> = labels.into_iter().filter(|&label| label >= 0).collect();
    let whole =
        |values: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(values.clone(), [values.len()]), &device);
    let chances = log_softmax(logits.select(0, whole(asked)), 1);
    let task = chances.gather(1, whole(labels).unsqueeze_dim(1)).mean().neg();
    golden.check("out.task_loss", &values(task.clone()), MODEL_TOLERANCE);
    golden.check("out.balance_loss", &values(hidden.tokens.balance.clone()), MODEL_TOLERANCE);

    let graph = (task + hidden.tokens.balance.mul_scalar(number("balance_weight"))).backward();
    let mut found = Gradients::of(&model, &graph).to_arrays();
    found.extend(match &head {
        Head::Letters(head) => Gradients::of(head, &graph).to_arrays(),
        Head::Classes(head) => Gradients::of(head, &graph).to_arrays(),
    });
    let is_letters = matches!(head, Head::Letters(_));
    let module_name = |name: String| {
        let is_head = name.starts_with("decoder.") || name.starts_with("head");
        match (is_head, is_letters) {
            (true, true) => of_letters(&name),
            (true, false) => name,
            (false, _) => of_model(&name),
        }
    };
    check_gradients(golden, &found, module_name, MODEL_GRADIENT_TOLERANCE);
}

#[test]
fn golden_mxdna_models_agree() {
    for golden in files("full_") {
        model_agrees(&golden);
        with_composed_ops(|| model_agrees(&golden));
    }
}
