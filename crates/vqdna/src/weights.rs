//! Weights by name: out of a module, into a module, and on disk as safetensors.
//!
//! A name is the path of fields, `encoder.blocks.0.up.weight`; names of enum variants are left out, so that they can change
//! without breaking files. Layouts are PyTorch's, so files open in PyTorch as they are.

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use rand::RngExt;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use crate::seed::{self, Stream};

/// A dense f32 array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Elements in row-major order.
    pub values: Vec<f32>,
}

/// Arrays by name, in alphabetical order.
pub type Arrays = BTreeMap<String, Array>;

/// Weights that do not fit a module, or a file that holds none.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// The module has a parameter that the file lacks.
    #[error("`{name}` is missing")]
    Missing {
        /// Name of the parameter.
        name: String,
    },
    /// The file holds something the module does not have.
    #[error("`{name}` belongs to no part of this model")]
    Unused {
        /// Name in the file.
        name: String,
    },
    /// Same name, other shape.
    #[error("`{name}` has shape {found:?} in the file, but this model needs {expected:?}")]
    Shape {
        /// Name of the parameter.
        name: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape in the module.
        expected: Vec<usize>,
    },
    /// Not a readable file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// Not a safetensors file, or one cut short.
    #[error("{} is not a whole safetensors file: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
}

impl WeightError {
    /// The same error about another name, where files name parameters otherwise than modules.
    #[must_use]
    pub fn rename(self, rename: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Missing { name } => Self::Missing { name: rename(name) },
            Self::Unused { name } => Self::Unused { name: rename(name) },
            Self::Shape { name, found, expected } => Self::Shape { name: rename(name), found, expected },
            other => other,
        }
    }
}

/// A parameter drawn uniformly from ±`bound`, as PyTorch initialises its layers with `bound = 1/√fan_in`.
///
/// Drawn on the host, so that initial weights depend on the seed alone and not on the device.
pub(crate) fn uniform<const D: usize>(
    shape: [usize; D],
    bound: f64,
    random: &mut Stream,
    device: &Device,
) -> Param<Tensor<D>> {
    let values: Vec<f32> =
        (0..shape.iter().product()).map(|_| ((random.random::<f64>() * 2.0 - 1.0) * bound) as f32).collect();
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A parameter drawn from a normal distribution around 0.
pub(crate) fn normal<const D: usize>(
    shape: [usize; D],
    deviation: f64,
    random: &mut Stream,
    device: &Device,
) -> Param<Tensor<D>> {
    let values: Vec<f32> = (0..shape.iter().product()).map(|_| (seed::normal(random) * deviation) as f32).collect();
    Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), device))
}

/// A parameter of equal values.
pub(crate) fn constant<const D: usize>(shape: [usize; D], value: f32, device: &Device) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::full(shape, value, device))
}

/// A buffer: saved with the weights, moved by its owner, never by the optimiser.
pub(crate) fn buffer<const D: usize>(value: Tensor<D>) -> Param<Tensor<D>> {
    Param::from_tensor(value).set_require_grad(false)
}

/// The path of the parameter being visited.
#[derive(Default)]
pub(crate) struct NamePath(Vec<Option<String>>);

impl NamePath {
    pub(crate) fn enter(&mut self, name: &str, container: &str) {
        self.0.push((!container.starts_with("Enum:")).then(|| name.to_owned()));
    }

    pub(crate) fn exit(&mut self) {
        self.0.pop();
    }

    pub(crate) fn name(&self) -> String {
        self.0.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(".")
    }
}

/// All weights and buffers of a module.
pub fn collect<M: Module>(module: &M) -> Arrays {
    struct Collect(NamePath, Arrays);
    impl ModuleVisitor for Collect {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.insert(self.0.name(), to_array(param.val()));
        }
    }
    let mut collect = Collect(NamePath::default(), Arrays::new());
    module.visit(&mut collect);
    collect.1
}

/// Copies a tensor to the host.
pub(crate) fn to_array<const D: usize>(tensor: Tensor<D>) -> Array {
    let shape = tensor.dims().to_vec();
    let values = tensor.into_data().convert::<f32>().try_into_vec_as::<f32>().expect("converted to f32");
    Array { shape, values }
}

/// Puts an array on a device.
///
/// # Panics
/// If the array has another number of axes than the tensor.
pub(crate) fn to_tensor<const D: usize>(array: &Array, device: &Device) -> Tensor<D> {
    let shape: [usize; D] = array.shape.as_slice().try_into().expect("number of axes");
    Tensor::from_data(TensorData::new(array.values.clone(), shape), device)
}

/// The module with all its weights and buffers replaced.
///
/// # Errors
/// If a name is missing, unknown, or has another shape.
pub fn assign<M: Module>(module: M, arrays: &Arrays) -> Result<M, WeightError> {
    let have = collect(&module);
    for (name, array) in &have {
        let found = arrays.get(name).ok_or_else(|| WeightError::Missing { name: name.clone() })?;
        if found.shape != array.shape {
            let (found, expected) = (found.shape.clone(), array.shape.clone());
            return Err(WeightError::Shape { name: name.clone(), found, expected });
        }
    }
    if let Some(name) = arrays.keys().find(|name| !have.contains_key(*name)) {
        return Err(WeightError::Unused { name: name.clone() });
    }

    struct Assign<'a>(NamePath, &'a Arrays);
    impl ModuleMapper for Assign<'_> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.0.enter(name, container);
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.exit();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let array = &self.1[&self.0.name()];
            replace(param, |old| to_tensor(array, &old.device()))
        }
    }
    Ok(module.map(&mut Assign(NamePath::default(), arrays)))
}

/// Replaces the value of a parameter and keeps its id and whether it learns.
pub(crate) fn replace<const D: usize>(
    param: Param<Tensor<D>>,
    new: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Param<Tensor<D>> {
    let learns = param.is_require_grad();
    param.map(|old| {
        let new = new(old).detach();
        if learns { new.require_grad() } else { new }
    })
}

/// Writes arrays and string metadata as safetensors: aside first, then renamed, so that the path never holds half a file.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, arrays: &Arrays, metadata: &[(&str, &str)]) -> Result<(), WeightError> {
    let io = |source| WeightError::Io { path: path.to_owned(), source };
    let metadata = metadata.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect::<HashMap<_, _>>();
    let bytes: BTreeMap<&str, Vec<u8>> = arrays
        .iter()
        .map(|(name, a)| (name.as_str(), a.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views = arrays.iter().map(|(name, array)| {
        let view = TensorView::new(Dtype::F32, array.shape.clone(), &bytes[name.as_str()]);
        (name, view.expect("four bytes an element"))
    });
    // Of no entries and no arrays, the library would write a header that it cannot read.
    let metadata = (!metadata.is_empty()).then_some(metadata);
    let file = safetensors::serialize(views, metadata)
        .map_err(|e| WeightError::Format { path: path.to_owned(), reason: e.to_string() })?;
    vqdna_data::aside::write_aside(path, &file).map_err(io)
}

/// Reads the f32 (and integer, converted) arrays of a safetensors file and its metadata.
///
/// # Errors
/// If the file is missing, cut short, or holds another type of number.
pub fn read(path: &Path) -> Result<(Arrays, HashMap<String, String>), WeightError> {
    read_named(path, |_| true)
}

/// As [`read`], of the arrays whose names are wanted.
///
/// # Errors
/// As [`read`].
pub fn read_named(
    path: &Path,
    wanted: impl Fn(&str) -> bool,
) -> Result<(Arrays, HashMap<String, String>), WeightError> {
    let bytes = std::fs::read(path).map_err(|source| WeightError::Io { path: path.to_owned(), source })?;
    let format = |reason: String| WeightError::Format { path: path.to_owned(), reason };
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| format(e.to_string()))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| format(e.to_string()))?;
    let mut arrays = Arrays::new();
    for (name, view) in file.iter().filter(|(name, _)| wanted(name)) {
        let values = match view.dtype() {
            Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Dtype::I32 => view.data().as_chunks::<4>().0.iter().map(|&b| i32::from_le_bytes(b) as f32).collect(),
            Dtype::I64 => view.data().as_chunks::<8>().0.iter().map(|&b| i64::from_le_bytes(b) as f32).collect(),
            other => return Err(format(format!("`{name}` holds {other:?}, not F32"))),
        };
        arrays.insert(name.to_owned(), Array { shape: view.shape().to_vec(), values });
    }
    Ok((arrays, header.metadata().clone().unwrap_or_default()))
}
