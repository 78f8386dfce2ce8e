//! AdamW over all parameters of a module, with one norm for clipping, and moments that are saved by name.
//!
//! Burn's optimisers clip each tensor by its own norm and keep moments by an id that published weights do not carry; here a
//! run resumes from plain safetensors, bit for bit.

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use burn::tensor::Gradients as Graph;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::ops::{self, AdamwStep};
use crate::weights::{Array, Arrays, NamePath, WeightError, replace, to_array, to_tensor};

/// Settings of AdamW.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdamwConfig {
    /// Decay of the first moment, β₁.
    pub beta1: f64,
    /// Decay of the second moment, β₂.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay of tensors with two or more axes; biases and norms have none.
    pub weight_decay: f64,
    /// Largest global norm of the gradient; larger ones are scaled to it. 0 never clips.
    pub clip: f64,
}

impl Default for AdamwConfig {
    fn default() -> Self {
        // `docs/vqdna.md`, decision A14.
        Self { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.05, clip: 1.0 }
    }
}

/// Gradients by parameter name, each flattened.
#[derive(Clone, Debug, Default)]
pub struct Gradients(BTreeMap<String, Tensor<1>>);

impl Gradients {
    /// The gradients of a module's parameters in a consumed graph. Parameters that the loss did not reach have none.
    pub fn of<M: Module>(module: &M, graph: &Graph) -> Self {
        struct Collect<'a>(NamePath, &'a Graph, BTreeMap<String, Tensor<1>>);
        impl ModuleVisitor for Collect<'_> {
            fn enter_module(&mut self, name: &str, container: &str) {
                self.0.enter(name, container);
            }
            fn exit_module(&mut self, _: &str, _: &str) {
                self.0.exit();
            }
            fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
                if let Some(gradient) = param.is_require_grad().then(|| param.val().grad(self.1)).flatten() {
                    self.2.insert(self.0.name(), gradient.flatten::<1>(0, D - 1));
                }
            }
        }
        let mut collect = Collect(NamePath::default(), graph, BTreeMap::new());
        module.visit(&mut collect);
        Self(collect.2)
    }

    /// Adds the gradients of another micro-batch.
    pub fn accumulate(&mut self, other: Self) {
        for (name, gradient) in other.0 {
            let sum = match self.0.remove(&name) {
                Some(sum) => sum + gradient,
                None => gradient,
            };
            self.0.insert(name, sum);
        }
    }

    /// Euclidean norm over all parameters.
    #[must_use]
    pub fn norm(&self) -> f64 {
        let squares = self.0.values().map(|gradient| ops::sum_of_squares(gradient.clone())).collect::<Vec<_>>();
        if squares.is_empty() {
            return 0.0;
        }
        to_array(Tensor::cat(squares, 0)).values.iter().map(|&square| f64::from(square)).sum::<f64>().sqrt()
    }

    /// Copies of all gradients on the host, flattened.
    #[must_use]
    pub fn to_arrays(&self) -> Arrays {
        self.0.iter().map(|(name, gradient)| (name.clone(), to_array(gradient.clone()))).collect()
    }
}

/// The optimiser: its settings, its moments and how many steps it took.
#[derive(Clone, Debug)]
pub struct Adamw {
    config: AdamwConfig,
    moments: BTreeMap<String, Moments>,
    steps: u64,
}

/// Bits of the lower part of a count, which a float holds exactly.
const LOW: u64 = (1 << 20) - 1;

/// What is remembered of a parameter.
#[derive(Clone, Debug)]
struct Moments {
    first: Tensor<1>,
    second: Tensor<1>,
    /// Steps in which it had a gradient: fewer than all for an expert that nothing was given to.
    steps: u64,
}

impl Adamw {
    /// No steps taken.
    #[must_use]
    pub fn new(config: &AdamwConfig) -> Self {
        Self { config: config.clone(), moments: BTreeMap::new(), steps: 0 }
    }

    /// One step of size `rate` on a module with autodiff. Gradients are first multiplied by `scale`, then clipped.
    /// Returns the module and the norm of the scaled gradient before clipping.
    pub fn step<M: Module>(&mut self, module: M, gradients: Gradients, rate: f64, scale: f64) -> (M, f64) {
        let norm = gradients.norm() * scale;
        // The form of PyTorch's clip_grad_norm_.
        let clipped = if self.config.clip > 0.0 { (self.config.clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
        self.steps += 1;
        let mut update = Update { path: NamePath::default(), optimizer: self, gradients, rate, scale: scale * clipped };
        (module.map(&mut update), norm)
    }

    /// Moments as `first.NAME` and `second.NAME`, and where it is not that of all as `steps.NAME` the number of a parameter's steps.
    /// Parameters that never had a gradient have none of them.
    #[must_use]
    pub fn to_arrays(&self) -> Arrays {
        let named = |(name, moments): (&String, &Moments)| {
            let Moments { first, second, steps } = moments;
            let count = Array { shape: vec![2], values: vec![(steps >> 20) as f32, (steps & LOW) as f32] };
            let count = (*steps != self.steps).then(|| (format!("steps.{name}"), count));
            let all = [
                (format!("first.{name}"), to_array(first.clone())),
                (format!("second.{name}"), to_array(second.clone())),
            ];
            all.into_iter().chain(count)
        };
        self.moments.iter().flat_map(named).collect()
    }

    /// The optimiser as [`Adamw::to_arrays`] left it after `steps` steps.
    ///
    /// # Errors
    /// If one moment of a parameter is missing or its length differs.
    pub fn from_arrays<M: Module>(
        config: &AdamwConfig,
        module: &M,
        arrays: &Arrays,
        steps: u64,
        device: &Device,
    ) -> Result<Self, WeightError> {
        let mut moments = BTreeMap::new();
        for (name, length) in learned_parameters(module) {
            let moment = |kind: &str| {
                let name = format!("{kind}.{name}");
                let array = arrays.get(&name).ok_or_else(|| WeightError::Missing { name: name.clone() })?;
                if array.shape != [length] {
                    return Err(WeightError::Shape { name, found: array.shape.clone(), expected: vec![length] });
                }
                Ok(to_tensor(array, device))
            };
            if ["first", "second"].iter().all(|kind| !arrays.contains_key(&format!("{kind}.{name}"))) {
                continue;
            }
            let own = arrays.get(&format!("steps.{name}")).and_then(|count| match count.values[..] {
                [high, low] => Some(((high as u64) << 20) + low as u64),
                _ => None,
            });
            let (first, second) = (moment("first")?, moment("second")?);
            moments.insert(name.clone(), Moments { first, second, steps: own.unwrap_or(steps) });
        }
        Ok(Self { config: config.clone(), moments, steps })
    }
}

/// Names and lengths of the parameters that the optimiser moves.
fn learned_parameters<M: Module>(module: &M) -> Vec<(String, usize)> {
    struct Names(NamePath, Vec<(String, usize)>);
    impl ModuleVisitor for Names {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.1.push((self.0.name(), param.lazy_shape().num_elements()));
            }
        }
    }
    let mut names = Names(NamePath::default(), Vec::new());
    module.visit(&mut names);
    names.1
}

struct Update<'a> {
    path: NamePath,
    optimizer: &'a mut Adamw,
    gradients: Gradients,
    rate: f64,
    scale: f64,
}

impl ModuleMapper for Update<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.exit();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some(gradient) = self.gradients.0.remove(&name) else { return param };
        let zeros = || Tensor::zeros(gradient.dims(), &gradient.device());
        let fresh = || Moments { first: zeros(), second: zeros(), steps: 0 };
        let Moments { first, second, steps } = self.optimizer.moments.remove(&name).unwrap_or_else(fresh);
        let steps = steps + 1;
        let config = &self.optimizer.config;
        let step = AdamwStep {
            rate: self.rate,
            betas: (config.beta1, config.beta2),
            eps: config.eps,
            weight_decay: if D > 1 { config.weight_decay } else { 0.0 },
            time: steps,
            scale: self.scale,
        };
        replace(param, |old| {
            let shape = old.dims();
            let old = old.inner().flatten::<1>(0, D - 1);
            let (new, [first, second]) = ops::adamw(old, gradient, [first, second], step);
            self.optimizer.moments.insert(name, Moments { first, second, steps });
            Tensor::from_inner(new.reshape(shape))
        })
    }
}
