//! Windows on a device.

use burn::prelude::*;
use vqdna_data::alphabet::{self, BaseId};

/// One window on the host: its bases and which of them were soft-masked.
#[derive(Clone, Debug, Default)]
pub struct HostWindow {
    /// Base ids, 0 to 4.
    pub bases: Vec<BaseId>,
    /// One flag a base, or empty if none is soft-masked.
    pub soft_masked: Vec<bool>,
}

impl HostWindow {
    /// The window on the other strand.
    #[must_use]
    pub fn reverse_complement(mut self) -> Self {
        alphabet::reverse_complement(&mut self.bases);
        self.soft_masked.reverse();
        self
    }
}

/// Windows side by side, the shorter ones padded at the end.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Base ids, N at padding, `[batch, bases]`.
    pub bases: Tensor<2, Int>,
    /// True = padding, `[batch, bases]`.
    pub padding: Tensor<2, Bool>,
    /// Weight of each base in the reconstruction loss, `[batch, bases]`: 0 at padding and N.
    pub weight: Tensor<2>,
}

impl Batch {
    /// Puts windows on a device. Soft-masked bases weigh `soft_masked_weight` in the loss, others 1.
    #[must_use]
    pub fn new(windows: &[HostWindow], soft_masked_weight: f32, device: &Device) -> Self {
        let width = windows.iter().map(|window| window.bases.len()).max().unwrap_or_default();
        Self::with_width(windows, width, soft_masked_weight, device)
    }

    /// As [`Batch::new`], padded to at least `width` bases.
    #[must_use]
    pub fn with_width(windows: &[HostWindow], width: usize, soft_masked_weight: f32, device: &Device) -> Self {
        let size = windows.len() * width;
        let (mut bases, mut padding, mut weight) =
            (vec![i32::from(alphabet::N); size], vec![true; size], vec![0.0f32; size]);
        for (row, window) in windows.iter().enumerate() {
            for (i, &base) in window.bases.iter().enumerate() {
                let at = row * width + i;
                bases[at] = i32::from(base);
                padding[at] = false;
                let soft = window.soft_masked.get(i).copied().unwrap_or(false);
                weight[at] = if base == alphabet::N {
                    0.0
                } else if soft {
                    soft_masked_weight
                } else {
                    1.0
                };
            }
        }
        let shape = [windows.len(), width];
        Self {
            bases: Tensor::from_data(TensorData::new(bases, shape), device),
            padding: Tensor::from_data(TensorData::new(padding, shape), device),
            weight: Tensor::from_data(TensorData::new(weight, shape), device),
        }
    }

    /// 1 for a real base (N included), 0 for padding, `[batch, bases]`.
    #[must_use]
    pub fn mask(&self) -> Tensor<2> {
        self.padding.clone().bool_not().float()
    }
}
