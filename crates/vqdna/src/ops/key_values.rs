//! Keys and values of earlier positions, kept while a sequence grows.

use burn::prelude::*;
use vqdna_kernels::attention::Positions as KernelPositions;
use vqdna_kernels::attention::cached::{Cache, Shape};

use super::Positions;

/// Keys and values of a layer of causal attention, of the positions of one sequence so far.
#[derive(Clone, Debug)]
pub struct KeyValues(Cache);

impl KeyValues {
    /// None yet, of up to `capacity` positions `d` wide.
    ///
    /// # Panics
    /// If a size is 0, the capacity is above 2²⁴, or heads do not divide `d`, or have an odd width and are rotated.
    #[must_use]
    pub fn new(capacity: usize, heads: usize, d: usize, positions: Positions) -> Self {
        assert!(heads > 0 && d.is_multiple_of(heads), "`heads` is {heads}, but must divide {d}");
        let positions = match positions {
            Positions::Rotary { theta } => KernelPositions::Rotary { theta: theta as f32 },
            Positions::Alibi => KernelPositions::Alibi,
        };
        Self(Cache::new(Shape { batch: 1, capacity, heads, d_head: d / heads, positions }))
    }

    /// Positions so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lengths()[0]
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all positions.
    pub fn clear(&mut self) {
        self.0.truncate(0, 0);
    }

    /// Appends positions, and what each of them attends to among itself and all before it: attention without its norm and projections, in
    /// f32 on the CPU, whatever the device.
    ///
    /// # Shapes
    /// - `qkv`: `[1, positions, 3 d]`, queries, keys and values side by side, each with its heads side by side
    /// - output: `[1, positions, d]`
    ///
    /// # Panics
    /// If there would be more positions than the capacity.
    pub fn attend(&mut self, qkv: Tensor<3>) -> Tensor<3> {
        let ([batch, positions, width], device) = (qkv.dims(), qkv.device());
        let qkv = qkv.into_data().convert::<f32>().try_into_vec_as::<f32>().expect("f32");
        let attended = self.0.append(&qkv, &vec![1.0; batch * positions]);
        Tensor::from_data(TensorData::new(attended, [batch, positions, width / 3]), &device)
    }
}
