//! Tensors from and to the host, for the other modules.

use burn::prelude::*;
use rand::RngExt;
use vqdna::batch::HostWindow;
use vqdna::seed::stream;
use vqdna_data::alphabet::BASES;
use vqdna_data::synthetic;

pub fn floats<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec_as::<f32>().expect("f32")
}

pub fn integers<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i32> {
    tensor.into_data().try_into_vec_as::<i32>().expect("codes fit i32")
}

pub fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Numbers from −1 to 1.
pub fn noise(seed: u64, count: usize) -> Vec<f32> {
    let mut random = stream(seed, "numbers for a test", &[]);
    (0..count).map(|_| random.random::<f32>() * 2.0 - 1.0).collect()
}

/// A random window of A, C, G, T.
pub fn window(seed: u64, bases: usize) -> HostWindow {
    let letters = synthetic::genome(seed, bases, 0.5);
    let id = |letter: &u8| BASES.iter().position(|base| base == letter).expect("A, C, G or T") as u8;
    HostWindow { bases: letters.iter().map(id).collect(), soft_masked: Vec::new() }
}

/// Compares with `tolerance` relative to the largest value.
#[track_caller]
pub fn assert_near(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    let largest = want.iter().fold(1e-30f32, |most, v| most.max(v.abs()));
    let far = got.iter().zip(want).position(|(g, w)| g.is_nan() || (g - w).abs() > tolerance * largest);
    assert!(far.is_none(), "{what}: number {far:?} of {got:?}, not {want:?}");
}
