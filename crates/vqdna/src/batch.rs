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

/// One window of codes on the host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeWindow {
    /// Per level, one code a base.
    pub codes: Vec<Vec<u16>>,
    /// Whether the codes of a base may be asked for, one flag a base: not at N.
    pub is_target: Vec<bool>,
    /// Names the window: what is drawn for it depends on this and the seed alone.
    pub number: u64,
}

impl CodeWindow {
    /// Number of bases.
    #[must_use]
    pub fn bases(&self) -> usize {
        self.is_target.len()
    }
}

/// Windows of codes side by side, the shorter ones padded at the end. They stay on the host until it is drawn what of them is
/// shown.
#[derive(Clone, Debug)]
pub struct CodeBatch {
    /// The windows.
    pub windows: Vec<CodeWindow>,
    /// Where they go.
    pub device: Device,
}

impl CodeBatch {
    /// Bases of the longest window.
    #[must_use]
    pub fn width(&self) -> usize {
        self.windows.iter().map(CodeWindow::bases).max().unwrap_or_default()
    }

    /// Per level, codes on the device, `[batch, bases]`; 0 at padding.
    #[must_use]
    pub fn codes(&self) -> Vec<Tensor<2, Int>> {
        let levels = self.windows.first().map_or(0, |window| window.codes.len());
        let level = |level: usize| {
            self.padded(0, |window| window.codes[level].iter().map(|&code| i32::from(code)).collect::<Vec<_>>())
        };
        (0..levels).map(|n| Tensor::from_data(level(n), &self.device)).collect()
    }

    /// 1 for a real base (N included), 0 for padding, `[batch, bases]`.
    #[must_use]
    pub fn real(&self) -> Tensor<2> {
        Tensor::from_data(self.padded(0.0, |window| vec![1.0f32; window.bases()]), &self.device)
    }

    /// A number for each base of each window, and `padding` behind them.
    fn padded<E: burn::tensor::Element>(&self, padding: E, numbers: impl Fn(&CodeWindow) -> Vec<E>) -> TensorData {
        let width = self.width();
        let mut all = Vec::with_capacity(self.windows.len() * width);
        for window in &self.windows {
            all.extend(numbers(window));
            all.resize(all.len() + width - window.bases(), padding);
        }
        TensorData::new(all, [self.windows.len(), width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_codes_are_padded_at_the_end() {
        let window = |codes: [&[u16]; 2]| CodeWindow {
            codes: codes.map(<[u16]>::to_vec).to_vec(),
            is_target: vec![true; codes[0].len()],
            number: 0,
        };
        let windows = vec![window([&[3, 4], &[5, 6]]), window([&[1, 2, 65_535], &[7, 8, 9]])];
        let batch = CodeBatch { windows, device: Device::flex() };
        let codes: Vec<Vec<i32>> =
            batch.codes().into_iter().map(|codes| codes.into_data().try_into_vec_as().expect("codes fit")).collect();
        assert_eq!(codes, [[3, 4, 0, 1, 2, 65_535], [5, 6, 0, 7, 8, 9]]);
        assert_eq!(crate::weights::to_array(batch.real()).values, [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    }
}
