//! Weights by name: out of a module, into a module, and on disk as safetensors.
//!
//! A name is the path of fields, `encoder.blocks.0.up.weight`; names of enum variants are left out, so that they can change
//! without breaking files. Layouts are PyTorch's, so files open in PyTorch as they are.

use burn::module::{ModuleMapper, ModuleVisitor, Param};
use burn::prelude::*;
use rand::RngExt;
use safetensors::tensor::{Dtype, Metadata, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use vqdna_data::bounded;

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
    /// A number that nothing can be computed with.
    #[error("`{name}` holds {value}, which is no finite number")]
    NotFinite {
        /// Name of the array.
        name: String,
        /// The first such number.
        value: f32,
    },
    /// An array that memory has no place for.
    #[error("`{name}` of {bytes} bytes does not fit into memory")]
    Memory {
        /// Name of the array.
        name: String,
        /// Its size.
        bytes: usize,
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
            Self::NotFinite { name, value } => Self::NotFinite { name: rename(name), value },
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

/// Whether arrays are those of a module.
///
/// # Errors
/// If a name is missing, unknown, or has another shape.
pub fn check_fit<M: Module>(module: &M, arrays: &Arrays) -> Result<(), WeightError> {
    let have = collect(module);
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
    Ok(())
}

/// The module with all its weights and buffers replaced.
///
/// # Errors
/// If a name is missing, unknown, or has another shape.
pub fn assign<M: Module>(module: M, arrays: &Arrays) -> Result<M, WeightError> {
    check_fit(&module, arrays)?;
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
/// If the file cannot be written, or a number is not finite.
pub fn write(path: &Path, arrays: &Arrays, metadata: &[(&str, &str)]) -> Result<(), WeightError> {
    write_with_digest(path, arrays, metadata).map(drop)
}

/// As [`write()`]; returns the BLAKE3 of the file.
///
/// # Errors
/// As [`write()`].
pub fn write_with_digest(path: &Path, arrays: &Arrays, metadata: &[(&str, &str)]) -> Result<String, WeightError> {
    check(arrays)?;
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
    vqdna_data::aside::write_aside(path, &file).map_err(io)?;
    Ok(blake3::hash(&file).to_string())
}

/// BLAKE3 of a file, of any plain file.
///
/// # Errors
/// If it cannot be read.
pub fn digest(path: &Path) -> std::io::Result<String> {
    let (file, _) = bounded::open(path)?;
    Ok(blake3::Hasher::new().update_reader(file)?.finalize().to_string())
}

/// Reads the f32 (and integer, converted) arrays of a safetensors file and its metadata.
///
/// # Errors
/// If the file is missing, no plain file, or cut short, or holds another type of number, or one that is not finite.
pub fn read(path: &Path) -> Result<(Arrays, HashMap<String, String>), WeightError> {
    let mut file = WeightFile::open(path)?;
    let arrays = file.read(|_| true)?;
    Ok((arrays, file.header.metadata().clone().unwrap_or_default()))
}

/// A safetensors file of which the header is read, so that sizes are known before memory is taken for them.
#[derive(Debug)]
pub struct WeightFile {
    path: PathBuf,
    file: File,
    header: Metadata,
    /// Where the arrays begin.
    start: u64,
}

/// Bytes of a header beyond which it is none of ours: names and shapes of some hundred thousand arrays.
const MOST_HEADER: u64 = 32 << 20;

impl WeightFile {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// If the file is missing, no plain file, no safetensors file, or cut short.
    pub fn open(path: &Path) -> Result<Self, WeightError> {
        let io = |source| WeightError::Io { path: path.to_owned(), source };
        let format = |reason: String| WeightError::Format { path: path.to_owned(), reason };
        let (mut file, bytes) = bounded::open(path).map_err(io)?;
        let cut = || format("it is cut short".to_owned());
        let mut size = [0; 8];
        file.read_exact(&mut size).map_err(|_| cut())?;
        let size = u64::from_le_bytes(size);
        if size > MOST_HEADER {
            return Err(format("its header is too large".to_owned()));
        }
        let start = 8 + size;
        if start > bytes {
            return Err(cut());
        }
        let mut text = vec![0; size as usize];
        file.read_exact(&mut text).map_err(io)?;
        let header: Metadata = serde_json::from_slice(&text).map_err(|e| format(e.to_string()))?;
        match start.checked_add(header.data_len() as u64) {
            Some(end) if end == bytes => Ok(Self { path: path.to_owned(), file, header, start }),
            Some(end) if end < bytes => Err(format("something follows its last array".to_owned())),
            _ => Err(cut()),
        }
    }

    /// How many numbers its arrays hold.
    #[must_use]
    pub fn numbers(&self) -> u64 {
        self.header.tensors().values().map(|info| info.shape.iter().product::<usize>() as u64).sum()
    }

    /// Reads the arrays whose names are wanted.
    ///
    /// # Errors
    /// If they cannot be read, hold another type of number, or one that is not finite.
    pub fn read(&mut self, wanted: impl Fn(&str) -> bool) -> Result<Arrays, WeightError> {
        let mut arrays = Arrays::new();
        let mut bytes = Vec::new();
        for name in self.header.offset_keys().into_iter().filter(|name| wanted(name)) {
            let info = self.header.info(&name).expect("a name of the header");
            let (first, end) = info.data_offsets;
            let io = |source| WeightError::Io { path: self.path.clone(), source };
            let memory = |_| WeightError::Memory { name: name.clone(), bytes: end - first };
            bytes.clear();
            bytes.try_reserve_exact(end - first).map_err(memory)?;
            self.file.seek(SeekFrom::Start(self.start + first as u64)).map_err(io)?;
            (&self.file).take((end - first) as u64).read_to_end(&mut bytes).map_err(io)?;
            if bytes.len() != end - first {
                return Err(WeightError::Format { path: self.path.clone(), reason: "it is cut short".to_owned() });
            }
            let mut values: Vec<f32> = Vec::new();
            values.try_reserve_exact(info.shape.iter().product()).map_err(memory)?;
            match info.dtype {
                Dtype::F32 => values.extend(bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b))),
                Dtype::I32 => values.extend(bytes.as_chunks().0.iter().map(|&b| i32::from_le_bytes(b) as f32)),
                Dtype::I64 => values.extend(bytes.as_chunks().0.iter().map(|&b| i64::from_le_bytes(b) as f32)),
                other => {
                    let reason = format!("`{name}` holds {other:?}, not F32");
                    return Err(WeightError::Format { path: self.path.clone(), reason });
                }
            }
            check_finite(&name, &values)?;
            arrays.insert(name, Array { shape: info.shape.clone(), values });
        }
        Ok(arrays)
    }
}

/// Refuses arrays with numbers that nothing can be computed with.
///
/// # Errors
/// The first such array.
pub fn check(arrays: &Arrays) -> Result<(), WeightError> {
    arrays.iter().try_for_each(|(name, array)| check_finite(name, &array.values))
}

fn check_finite(name: &str, values: &[f32]) -> Result<(), WeightError> {
    match values.iter().find(|value| !value.is_finite()) {
        Some(&value) => Err(WeightError::NotFinite { name: name.to_owned(), value }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(values: Vec<f32>) -> Array {
        Array { shape: vec![values.len()], values }
    }

    /// A file as another program may have written it.
    fn file(folder: &Path, arrays: &[(&str, Vec<f32>)]) -> PathBuf {
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let arrays: Vec<_> = arrays.iter().map(|(name, values)| (*name, bytes(values))).collect();
        let views = arrays.iter().map(|(name, bytes)| {
            (*name, TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).expect("whole numbers"))
        });
        let path = folder.join("x.safetensors");
        std::fs::write(&path, safetensors::serialize(views, None).expect("serialises")).expect("written");
        path
    }

    #[test]
    fn arrays_come_back_and_some_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x.safetensors");
        let arrays = Arrays::from([("a".to_owned(), array(vec![1.0, -2.5])), ("b".to_owned(), array(vec![3.0]))]);
        write(&path, &arrays, &[("format", "pt")]).expect("written");
        let (found, metadata) = read(&path).expect("readable");
        assert_eq!((found, metadata["format"].as_str()), (arrays.clone(), "pt"));
        let mut file = WeightFile::open(&path).expect("a file");
        assert_eq!(file.numbers(), 3);
        assert_eq!(
            file.read(|name| name == "b").expect("readable"),
            Arrays::from([("b".to_owned(), array(vec![3.0]))])
        );
    }

    #[test]
    fn numbers_that_are_none_are_refused_by_name_both_ways() {
        let folder = tempfile::tempdir().expect("a folder");
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let path = file(folder.path(), &[("fine", vec![1.0]), ("odd", vec![0.0, value])]);
            let error = read(&path).expect_err("not finite").to_string();
            assert!(error.contains("`odd`") && error.contains("finite"), "{error}");
            let arrays = Arrays::from([("odd".to_owned(), array(vec![value]))]);
            let fresh = folder.path().join("fresh");
            assert!(write(&fresh, &arrays, &[]).expect_err("not finite").to_string().contains("`odd`"));
            assert!(!fresh.exists());
        }
    }

    #[test]
    fn a_header_that_promises_more_than_there_is_takes_no_memory() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("x");
        let header = |shape: &str, end: u64| {
            let text = format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}}}");
            [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &[0; 8]].concat()
        };
        for bytes in [
            header("[1000000000000]", 4_000_000_000_000),
            header("[4294967296, 4294967296, 4294967296]", 8),
            header("[1]", 4),
            header("[3]", 12),
            u64::MAX.to_le_bytes().to_vec(),
            (1_u64 << 40).to_le_bytes().to_vec(),
            vec![1, 2, 3],
            Vec::new(),
        ] {
            std::fs::write(&path, &bytes).expect("written");
            let error = WeightFile::open(&path).expect_err("no such file");
            assert!(matches!(error, WeightError::Format { .. }), "{error}");
        }
        std::fs::write(&path, header("[2]", 8)).expect("written");
        assert_eq!(WeightFile::open(&path).expect("whole").numbers(), 2);
    }
}
