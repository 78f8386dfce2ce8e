//! Many sequences as codes on the host, computed once, and batches of them.

use burn::prelude::*;
use std::ops::{ControlFlow, Range};
use vqdna_data::alphabet::{self, BaseId, Letter};
use vqdna_data::bucket::by_budget;

use super::vqdna::Vqdna;
use crate::batch::{Batch, HostWindow};
use crate::ops;
use crate::quantizer::Quantizer;

/// Padded bases that are turned into codes together.
const BASES_TOGETHER: usize = 16_384;

/// What stands between the two sequences of a pair: one position without a code, whose vector is 0.
const GAP: i32 = -1;

/// A sequence of letters as base ids; what is not one certain base is N.
#[must_use]
pub fn bases_of(letters: &[u8]) -> Vec<BaseId> {
    let base = |&letter: &u8| match alphabet::classify(letter) {
        Letter::Base(base) => base,
        Letter::Ambiguous | Letter::Invalid => alphabet::N,
    };
    letters.iter().map(base).collect()
}

/// Codes of many sequences, 16 bits a base and level.
#[derive(Clone, Debug, Default)]
pub struct Coded {
    /// Per level, the codes of one sequence after another.
    levels: Vec<Vec<u16>>,
    /// Where each sequence ends.
    ends: Vec<usize>,
}

impl Coded {
    /// Codes of sequences, each on its own: none sees beyond its ends. `model` is without autodiff; `device` is its device.
    #[must_use]
    pub fn new(model: &Vqdna, sequences: &[Vec<BaseId>], device: &Device) -> Self {
        let never = || ControlFlow::Continue(());
        Self::polled(model, sequences, device, &never).expect("nobody stops it")
    }

    /// The same, where `poll` is asked before each batch whether to go on; none if not.
    #[must_use]
    pub fn polled(
        model: &Vqdna,
        sequences: &[Vec<BaseId>],
        device: &Device,
        poll: &dyn Fn() -> ControlFlow<()>,
    ) -> Option<Self> {
        let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
        let ends = lengths.iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        });
        let ends: Vec<usize> = ends.collect();
        let mut levels: Vec<Vec<u16>> = Vec::new();
        ops::with_frozen_weights(|| {
            for batch in by_budget(&lengths, BASES_TOGETHER) {
                if poll().is_break() {
                    return None;
                }
                let windows: Vec<HostWindow> = batch
                    .iter()
                    .map(|&row| HostWindow { bases: sequences[row as usize].clone(), soft_masked: Vec::new() })
                    .collect();
                let window = Batch::new(&windows, 1.0, device);
                let [_, width] = window.bases.dims();
                for (level, codes) in model.encode(&window).into_iter().enumerate() {
                    if levels.len() == level {
                        levels.push(vec![0; ends.last().copied().unwrap_or_default()]);
                    }
                    let codes = codes.into_data().try_into_vec_as::<i32>().expect("codes fit i32");
                    for (codes, &row) in codes.chunks(width.max(1)).zip(&batch) {
                        let (length, end) = (lengths[row as usize], ends[row as usize]);
                        let out = &mut levels[level][end - length..end];
                        out.iter_mut().zip(codes).for_each(|(out, &code)| *out = code as u16);
                    }
                }
            }
            Some(())
        })?;
        Some(Self { levels, ends })
    }

    /// Number of sequences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn range(&self, row: usize) -> Range<usize> {
        let start = row.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[row]
    }
}

/// Rows of one sequence each, or of two.
#[derive(Clone, Debug)]
pub struct CodedRows {
    first: Coded,
    /// The second sequences of pairs.
    second: Option<Coded>,
}

impl CodedRows {
    /// Rows of one sequence, or with `second` of as many pairs.
    ///
    /// # Panics
    /// If there are not as many second sequences as first ones.
    #[must_use]
    pub fn new(first: Coded, second: Option<Coded>) -> Self {
        assert!(second.as_ref().is_none_or(|second| second.len() == first.len()), "a second sequence for each first");
        Self { first, second }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.first.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    /// Positions of each row: bases, and between those of a pair one more.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        let second = |row| self.second.as_ref().map_or(0, |second| 1 + second.range(row).len());
        (0..self.len()).map(|row| self.first.range(row).len() + second(row)).collect()
    }

    /// Some rows side by side, the shorter ones padded at the end.
    ///
    /// # Panics
    /// If a row does not exist.
    #[must_use]
    pub fn batch(&self, rows: &[u32], device: &Device) -> CodedBatch {
        let of = |coded: &Coded, level: usize, row: u32| coded.levels[level][coded.range(row as usize)].to_vec();
        let codes = |level: usize| -> Vec<Vec<i32>> {
            rows.iter()
                .map(|&row| {
                    let mut codes: Vec<i32> = of(&self.first, level, row).into_iter().map(i32::from).collect();
                    if let Some(second) = &self.second {
                        codes.push(GAP);
                        codes.extend(of(second, level, row).into_iter().map(i32::from));
                    }
                    codes
                })
                .collect()
        };
        let levels: Vec<Vec<Vec<i32>>> = (0..self.first.levels.len()).map(codes).collect();
        CodedBatch::new(&levels, device)
    }
}

/// Codes side by side on a device.
#[derive(Clone, Debug)]
pub struct CodedBatch {
    /// Per level `[batch, bases]`; −1 at padding and between pairs.
    pub codes: Vec<Tensor<2, Int>>,
    /// `[batch, bases]`: 1 for a position of a sequence, the one between a pair included; 0 for padding.
    pub real: Tensor<2>,
}

impl CodedBatch {
    /// Per level, the codes of each row.
    fn new(levels: &[Vec<Vec<i32>>], device: &Device) -> Self {
        let rows = levels.first().map_or(0, Vec::len);
        let width = levels.iter().flatten().map(Vec::len).max().unwrap_or_default();
        let padded = |level: &Vec<Vec<i32>>| {
            let mut codes = vec![GAP; rows * width];
            for (out, codes) in codes.chunks_mut(width.max(1)).zip(level) {
                out[..codes.len()].copy_from_slice(codes);
            }
            Tensor::from_data(TensorData::new(codes, [rows, width]), device)
        };
        let mut real = vec![0.0f32; rows * width];
        for (real, codes) in real.chunks_mut(width.max(1)).zip(levels.first().into_iter().flatten()) {
            real[..codes.len()].fill(1.0);
        }
        let real = Tensor::from_data(TensorData::new(real, [rows, width]), device);
        Self { codes: levels.iter().map(padded).collect(), real }
    }

    /// The vectors that the codes stand for, 0 where there is no code.
    ///
    /// # Shapes
    /// - output: `[batch, bases, d_code]`
    pub fn vectors(&self, quantizer: &Quantizer) -> Tensor<3> {
        let vectors = quantizer.decode(&self.codes);
        let is_code = self.codes[0].clone().greater_equal_elem(0).float();
        vectors * is_code.unsqueeze_dim(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::vqdna::{Kind, Preset};

    fn integers(tensor: Tensor<2, Int>) -> Vec<i32> {
        tensor.into_data().try_into_vec_as::<i32>().expect("codes fit i32")
    }

    #[test]
    fn codes_are_those_of_each_sequence_alone_and_pairs_have_a_gap() {
        let device = Device::flex();
        let model = Preset::Tiny.config(Kind::Hrq).init(3, &device);
        let letters: [&[u8]; 3] = [b"ACGTTGCAAC", b"g", b"NNRYACGU"];
        let sequences: Vec<Vec<BaseId>> = letters.map(bases_of).to_vec();
        let coded = Coded::new(&model, &sequences, &device);
        let rows = CodedRows::new(coded.clone(), None);
        assert_eq!(rows.lengths(), [10, 1, 8]);
        let batch = rows.batch(&[2, 0], &device);
        for (row, sequence) in [(0, 2), (1, 0)] {
            let window = HostWindow { bases: sequences[sequence].clone(), soft_masked: Vec::new() };
            let alone = model.encode(&Batch::new(&[window], 1.0, &device));
            for (together, alone) in batch.codes.iter().zip(alone) {
                let length = sequences[sequence].len();
                let mut want = integers(alone);
                want.resize(10, -1);
                assert_eq!(integers(together.clone())[row * 10..][..10], want, "{length} bases");
            }
        }
        let second = Coded::new(&model, &[sequences[1].clone(), sequences[2].clone(), sequences[1].clone()], &device);
        let pairs = CodedRows::new(coded, Some(second));
        assert_eq!(pairs.lengths(), [12, 10, 10]);
        let batch = pairs.batch(&[1], &device);
        assert_eq!(integers(batch.codes[0].clone())[1], -1);
        let vectors = batch.vectors(&model.quantizer);
        let gap = vectors.slice([0..1, 1..2]).into_data().try_into_vec_as::<f32>().expect("f32");
        assert!(gap.iter().all(|&v| v == 0.0));
        assert_eq!(batch.real.sum().into_scalar::<f32>(), 10.0);
    }
}
