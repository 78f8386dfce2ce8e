//! The layers of MxDNA agree with the published implementation, on fused kernels and on Burn's own operations.
//!
//! Numbers come from `$VQDNA_GOLDEN/mxdna/*.safetensors` (default: `../shared/golden` beside the repository, else the copies in
//! `fixtures/golden`); what a file holds is in its name, sizes are in its metadata.

use burn::module::Param;
use burn::prelude::*;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use vqdna::layers::DeformableConv;
use vqdna::ops::with_composed_ops;
use vqdna::tokenizer::mxdna::{Positions, Selection, UnitConfig, UnitLayer, UnitTokens, groups};
use vqdna::train::optimizer::Gradients;
use vqdna::weights::{Array, Arrays, assign, read};

/// Largest difference, relative to the largest value of a tensor or to 1: f32 sums in another order.
const TOLERANCE: f32 = 1e-5;
/// The same of gradients.
const GRADIENT_TOLERANCE: f32 = 2e-5;

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
        let found = Selection::new(&golden.array("logits").values, &sizes, &lengths);
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

/// The name of a parameter in the module.
fn named(arrays: Arrays) -> Arrays {
    arrays.into_iter().map(|(name, array)| (name.replace("expert.", "experts."), array)).collect()
}

fn layer_agrees(golden: &Golden) {
    let device = Device::flex().autodiff();
    let number = |key: &str| golden.metadata[key].parse::<f64>().expect("a number");
    let config = UnitConfig {
        sizes: golden.list("sizes"),
        norm_eps: number("norm_eps"),
        expert_norm_eps: number("expert_norm_eps"),
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
    for (name, want) in named(golden.part("grad.param.")) {
        let file_name = format!("grad.param.{}", name.replace("experts.", "expert."));
        match found.get(&name) {
            Some(found) => golden.check(&file_name, &found.values, GRADIENT_TOLERANCE),
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
