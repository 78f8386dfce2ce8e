//! Windows on a device.

use burn::prelude::*;
use vqdna_data::alphabet::{self, BaseId};
use vqdna_data::tokens::{Spans, Tokens};

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

/// One window of tokens on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenWindow {
    /// Its tokens, without special ones.
    pub tokens: Tokens,
    /// Whether a token may be predicted, one flag a token: not at N.
    pub is_target: Vec<bool>,
    /// Names the window: what is drawn for it depends on this and the seed alone.
    pub number: u64,
}

impl TokenWindow {
    /// A window of codes, one for each base and level.
    #[must_use]
    pub fn of_codes(codes: Vec<Vec<u32>>, is_target: Vec<bool>, number: u64) -> Self {
        Self { tokens: Tokens { levels: codes, spans: Spans::Bases(is_target.len()) }, is_target, number }
    }
}

/// Windows of tokens. They stay on the host until it is drawn what of them is shown.
#[derive(Clone, Debug)]
pub struct TokenWindows {
    /// The windows.
    pub windows: Vec<TokenWindow>,
    /// Where they go.
    pub device: Device,
}

impl TokenWindows {
    /// Tokens of the longest window.
    #[must_use]
    pub fn width(&self) -> usize {
        self.windows.iter().map(|window| window.tokens.len()).max().unwrap_or_default()
    }

    /// Bases up to the end of the last token of each window, all together.
    #[must_use]
    pub fn bases(&self) -> usize {
        self.windows.iter().map(|window| window.tokens.spans.bases()).sum()
    }

    /// Per level, ids on the device, `[batch, tokens]`; 0 at padding.
    #[must_use]
    pub fn ids(&self) -> Vec<Tensor<2, Int>> {
        let levels = self.windows.first().map_or(0, |window| window.tokens.levels.len());
        let width = self.width();
        let level = |level: usize| {
            let mut ids = Vec::with_capacity(self.windows.len() * width);
            for window in &self.windows {
                ids.extend(window.tokens.levels[level].iter().map(|&id| id as i32));
                ids.resize(ids.len() + width - window.tokens.len(), 0);
            }
            Tensor::from_data(TensorData::new(ids, [self.windows.len(), width]), &self.device)
        };
        (0..levels).map(level).collect()
    }
}

/// Which positions of a batch are real, and which of these are special.
#[derive(Clone, Debug)]
pub struct Layout {
    /// `[batch, positions]`: 1 for a position of a sequence, special ones included; 0 for padding.
    pub real: Tensor<2>,
    /// Positions of each sequence.
    pub lengths: Vec<usize>,
    /// `[batch, positions]`: positions that stand for no base, and padding.
    pub special: Vec<bool>,
}

impl Layout {
    /// Of sequences without special positions, padded at their ends.
    ///
    /// # Shapes
    /// - `real`: `[batch, positions]`, 1 for a position of a sequence, 0 for padding
    #[must_use]
    pub fn of(real: Tensor<2>) -> Self {
        let [batch, positions] = real.dims();
        let values = real.clone().into_data().convert::<f32>().try_into_vec_as::<f32>().expect("converted to f32");
        let length = |row: &[f32]| row.iter().rposition(|&real| real != 0.0).map_or(0, |last| last + 1);
        let lengths = values.chunks(positions.max(1)).map(length).take(batch).collect();
        Self { real, lengths, special: values.iter().map(|&real| real == 0.0).collect() }
    }

    /// Positions of a sequence, padding included.
    #[must_use]
    pub fn positions(&self) -> usize {
        self.real.dims()[1]
    }
}

/// Tokens of sequences side by side on a device, the shorter ones padded at the end.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// Per level, ids, `[batch, positions]`.
    pub ids: Vec<Tensor<2, Int>>,
    /// The vectors that ids stand for, `[batch, positions, d]`, where the tokenizer has learned them; 0 where there is no token.
    pub vectors: Option<Tensor<3>>,
    /// Which positions are real.
    pub layout: Layout,
}

impl TokenBatch {
    /// Vectors of learned tokens alone.
    ///
    /// # Shapes
    /// - `vectors`: `[batch, positions, d]`
    /// - `real`: `[batch, positions]`, 1 for a position of a sequence, 0 for padding
    #[must_use]
    pub fn of_vectors(vectors: Tensor<3>, real: Tensor<2>) -> Self {
        Self { ids: Vec::new(), vectors: Some(vectors), layout: Layout::of(real) }
    }

    /// The same for a model with autodiff.
    #[must_use]
    pub fn autodiff(self) -> Self {
        Self {
            ids: self.ids.into_iter().map(Tensor::from_inner).collect(),
            vectors: self.vectors.map(Tensor::from_inner),
            layout: Layout { real: Tensor::from_inner(self.layout.real), ..self.layout },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_tokens_are_padded_at_the_end() {
        let window = |codes: [&[u32]; 2]| {
            TokenWindow::of_codes(codes.map(<[u32]>::to_vec).to_vec(), vec![true; codes[0].len()], 0)
        };
        let windows = vec![window([&[3, 4], &[5, 6]]), window([&[1, 2, 65_535], &[7, 8, 9]])];
        let batch = TokenWindows { windows, device: Device::flex() };
        let ids: Vec<Vec<i32>> =
            batch.ids().into_iter().map(|ids| ids.into_data().try_into_vec_as().expect("ids fit")).collect();
        assert_eq!(ids, [[3, 4, 0, 1, 2, 65_535], [5, 6, 0, 7, 8, 9]]);
        assert_eq!((batch.width(), batch.bases()), (3, 5));
    }

    #[test]
    fn a_layout_knows_its_padding() {
        let device = Device::flex();
        let layout = Layout::of(Tensor::from_data([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], &device));
        assert_eq!((layout.lengths.as_slice(), layout.positions()), ([2, 3, 0].as_slice(), 3));
        assert_eq!(layout.special, [false, false, true, false, false, false, true, true, true]);
    }
}
