//! Many sequences as tokens on the host, computed once, and batches of them.

use burn::prelude::*;
use std::ops::ControlFlow;
use vqdna_data::alphabet::BaseId;
use vqdna_data::bucket::by_budget;
use vqdna_data::tokens::{Spans, Tokens};

use super::vqdna::Vqdna;
use super::{Special, Tokenizer};
use crate::batch::{Batch, HostWindow, Layout, TokenBatch};
use crate::ops;

/// Padded bases that are turned into codes together.
const BASES_TOGETHER: usize = 16_384;

/// Codes of sequences, each on its own; none if `poll` ends it. `model` is without autodiff; `device` is its device.
pub(super) fn codes(
    model: &Vqdna,
    sequences: &[Vec<BaseId>],
    device: &Device,
    poll: &dyn Fn() -> ControlFlow<()>,
) -> Option<Vec<Tokens>> {
    let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
    let levels = model.quantizer.levels();
    let empty = |&length: &usize| Tokens { levels: vec![Vec::new(); levels], spans: Spans::Bases(length) };
    let mut found: Vec<Tokens> = lengths.iter().map(empty).collect();
    ops::with_frozen_weights(|| {
        for batch in by_budget(&lengths, BASES_TOGETHER) {
            if poll().is_break() {
                return None;
            }
            let window = |&row: &u32| HostWindow { bases: sequences[row as usize].clone(), soft_masked: Vec::new() };
            let windows: Vec<HostWindow> = batch.iter().map(window).collect();
            let window = Batch::new(&windows, 1.0, device);
            let [_, width] = window.bases.dims();
            for (level, codes) in model.encode(&window).into_iter().enumerate() {
                let codes = codes.into_data().try_into_vec_as::<i32>().expect("codes fit i32");
                for (codes, &row) in codes.chunks(width.max(1)).zip(&batch) {
                    let own = codes.iter().take(lengths[row as usize]);
                    found[row as usize].levels[level] = own.map(|&code| code as u32).collect();
                }
            }
        }
        Some(())
    })?;
    Some(found)
}

/// The ids of one row of a batch, special ones included.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Per level, one id a position.
    levels: Vec<Vec<i32>>,
    /// Whether a position is special.
    special: Vec<bool>,
}

impl Special {
    /// Special positions before the first token.
    #[must_use]
    pub fn before(&self) -> usize {
        usize::from(self.first.is_some())
    }

    /// Positions of a row with so many tokens, or of a pair.
    #[must_use]
    pub fn positions(&self, first: usize, second: Option<usize>) -> usize {
        self.before() + first + second.map_or(0, |second| 1 + second) + usize::from(self.last.is_some())
    }

    /// The row of a sequence, or of a pair, by the ids of each level.
    #[must_use]
    pub fn row(&self, first: &[Vec<u32>], second: Option<&[Vec<u32>]>) -> Row {
        let level = |level: usize| -> Vec<i32> {
            let second = second.map(|second| &second[level]);
            let mut ids = Vec::with_capacity(self.positions(first[level].len(), second.map(Vec::len)));
            ids.extend(self.first);
            ids.extend(first[level].iter().map(|&id| id as i32));
            if let Some(second) = second {
                ids.push(self.between);
                ids.extend(second.iter().map(|&id| id as i32));
            }
            ids.extend(self.last);
            ids
        };
        let tokens = first.first().map_or(0, Vec::len);
        let others = second.map(|second| second.first().map_or(0, Vec::len));
        let mut special = vec![false; self.positions(tokens, others)];
        special[..self.before()].fill(true);
        if others.is_some() {
            special[self.before() + tokens] = true;
        }
        if let Some(last) = special.last_mut().filter(|_| self.last.is_some()) {
            *last = true;
        }
        Row { levels: (0..first.len()).map(level).collect(), special }
    }

    /// The row of tokens that follow others, or are the first ones, of a sequence that has no end yet.
    pub(crate) fn continued(&self, tokens: &[Vec<u32>], are_first: bool) -> Row {
        let first = self.first.filter(|_| are_first);
        let level = |ids: &Vec<u32>| first.into_iter().chain(ids.iter().map(|&id| id as i32)).collect();
        let mut special = vec![false; tokens.first().map_or(0, Vec::len)];
        special.splice(0..0, first.map(|_| true));
        Row { levels: tokens.iter().map(level).collect(), special }
    }
}

impl Tokenizer {
    /// Per level, the ids of rows side by side, `[batch, positions]`, the shorter ones padded at the end.
    #[must_use]
    pub fn ids(&self, rows: &[Row], device: &Device) -> Vec<Tensor<2, Int>> {
        let padding = self.special().padding;
        let width = rows.iter().map(|row| row.special.len()).max().unwrap_or_default();
        let level = |level: usize| {
            let mut ids = vec![padding; rows.len() * width];
            for (row, ids) in rows.iter().zip(ids.chunks_mut(width.max(1))) {
                ids[..row.special.len()].copy_from_slice(&row.levels[level]);
            }
            Tensor::from_data(TensorData::new(ids, [rows.len(), width]), device)
        };
        (0..rows.first().map_or(0, |row| row.levels.len())).map(level).collect()
    }

    /// Rows side by side on a device without autodiff, the shorter ones padded at the end.
    #[must_use]
    pub fn batch(&self, rows: &[Row], device: &Device) -> TokenBatch {
        let width = rows.iter().map(|row| row.special.len()).max().unwrap_or_default();
        let (mut real, mut special) = (vec![0.0f32; rows.len() * width], vec![true; rows.len() * width]);
        for (row, (real, special)) in
            rows.iter().zip(real.chunks_mut(width.max(1)).zip(special.chunks_mut(width.max(1))))
        {
            real[..row.special.len()].fill(1.0);
            special[..row.special.len()].copy_from_slice(&row.special);
        }
        let ids = self.ids(rows, device);
        let is_nothing = |row: &Row| row.special.len() < width || row.levels.iter().flatten().any(|&id| id < 0);
        let has_nothing = rows.iter().any(is_nothing);
        let vectors = self.vectors().map(|quantizer| {
            let vectors = quantizer.decode(&ids);
            if !has_nothing {
                return vectors;
            }
            let is_code = ids[0].clone().greater_equal_elem(0).float();
            vectors * is_code.unsqueeze_dim(2)
        });
        let real = Tensor::from_data(TensorData::new(real, [rows.len(), width]), device);
        let lengths = rows.iter().map(|row| row.special.len()).collect();
        TokenBatch { ids, vectors, layout: Layout { real, lengths, special } }
    }
}

/// Tokens of many sequences, or of pairs of them.
#[derive(Clone, Debug)]
pub struct TokenRows {
    tokenizer: Tokenizer,
    first: Vec<Tokens>,
    /// The second sequences of pairs.
    second: Option<Vec<Tokens>>,
}

impl TokenRows {
    /// Sequences, each on its own; with `second`, as many pairs. `poll` is asked now and then whether to go on; none if not.
    ///
    /// # Panics
    /// If there are not as many second sequences as first ones.
    #[must_use]
    pub fn new(
        tokenizer: &Tokenizer,
        first: &[Vec<BaseId>],
        second: Option<&[Vec<BaseId>]>,
        device: &Device,
        poll: &dyn Fn() -> ControlFlow<()>,
    ) -> Option<Self> {
        assert!(second.is_none_or(|second| second.len() == first.len()), "a second sequence for each first");
        let tokens = |sequences: &[Vec<BaseId>]| tokenizer.tokenize(sequences, device, poll);
        let (first, second) = (tokens(first)?, second.map(tokens));
        let second = match second {
            Some(second) => Some(second?),
            None => None,
        };
        Some(Self { tokenizer: tokenizer.clone(), first, second })
    }

    /// The tokens of the first, or only, sequence of a row.
    ///
    /// # Panics
    /// If the row does not exist.
    #[must_use]
    pub fn tokens(&self, row: u32) -> &Tokens {
        &self.first[row as usize]
    }

    /// Positions of each row, special ones included.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        let special = self.tokenizer.special();
        let second = |row: usize| self.second.as_ref().map(|second| second[row].len());
        self.first.iter().enumerate().map(|(row, first)| special.positions(first.len(), second(row))).collect()
    }

    /// Some rows side by side; `device` is without autodiff.
    ///
    /// # Panics
    /// If a row does not exist.
    #[must_use]
    pub fn batch(&self, rows: &[u32], device: &Device) -> TokenBatch {
        let special = self.tokenizer.special();
        let of = |&row: &u32| {
            let second = self.second.as_ref().map(|second| second[row as usize].levels.as_slice());
            special.row(&self.first[row as usize].levels, second)
        };
        self.tokenizer.batch(&rows.iter().map(of).collect::<Vec<_>>(), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::vqdna::{Kind, Preset};
    use crate::tokenizer::{TokenizerConfig, bases_of};

    fn integers(tensor: &Tensor<2, Int>) -> Vec<i32> {
        tensor.clone().into_data().try_into_vec_as::<i32>().expect("ids fit i32")
    }

    fn rows(tokenizer: &Tokenizer, first: &[Vec<BaseId>], second: Option<&[Vec<BaseId>]>) -> TokenRows {
        TokenRows::new(tokenizer, first, second, &Device::flex(), &|| ControlFlow::Continue(())).expect("to the end")
    }

    #[test]
    fn codes_are_those_of_each_sequence_alone_and_pairs_have_a_gap() {
        let device = Device::flex();
        let model = Preset::Tiny.config(Kind::Hrq).init(3, &device);
        let tokenizer = Tokenizer::Vqdna(Box::new(model.clone()));
        let letters: [&[u8]; 3] = [b"ACGTTGCAAC", b"g", b"NNRYACGU"];
        let sequences: Vec<Vec<BaseId>> = letters.map(bases_of).to_vec();
        let single = rows(&tokenizer, &sequences, None);
        assert_eq!(single.lengths(), [10, 1, 8]);
        let batch = single.batch(&[2, 0], &device);
        for (row, sequence) in [(0, 2), (1, 0)] {
            let window = HostWindow { bases: sequences[sequence].clone(), soft_masked: Vec::new() };
            let alone = model.encode(&Batch::new(&[window], 1.0, &device));
            for (together, alone) in batch.ids.iter().zip(alone) {
                let length = sequences[sequence].len();
                let mut want = integers(&alone);
                want.resize(10, -1);
                assert_eq!(integers(together)[row * 10..][..10], want, "{length} bases");
            }
        }
        let second = [sequences[1].clone(), sequences[2].clone(), sequences[1].clone()];
        let pairs = rows(&tokenizer, &sequences, Some(&second));
        assert_eq!(pairs.lengths(), [12, 10, 10]);
        let batch = pairs.batch(&[1], &device);
        assert_eq!(integers(&batch.ids[0])[1], -1);
        let vectors = batch.vectors.expect("learned").slice([0..1, 1..2]);
        let gap = vectors.into_data().try_into_vec_as::<f32>().expect("f32");
        assert!(gap.iter().all(|&v| v == 0.0));
        assert_eq!(batch.layout.real.sum().into_scalar::<f32>(), 10.0);
    }

    #[test]
    fn characters_stand_between_special_positions_and_padding() {
        let (device, tokenizer) = (Device::flex(), TokenizerConfig::mxdna().fixed().expect("sound"));
        let (long, short) = (vec![0, 1, 2, 3, 4], vec![3]);
        let single = rows(&tokenizer, &[long, short.clone()], None);
        let batch = single.batch(&[1, 0], &device);
        assert_eq!(integers(&batch.ids[0]), [2, 6, 3, 0, 0, 0, 0, 2, 5, 7, 8, 6, 1, 3]);
        assert_eq!((&batch.layout.lengths, single.lengths()), (&vec![3, 7], vec![7, 3]));
        let inner: Vec<usize> = (0..14).filter(|&at| !batch.layout.special[at]).collect();
        assert_eq!(inner, [1, 8, 9, 10, 11, 12]);

        let short = [short];
        let pairs = rows(&tokenizer, &short, Some(&short));
        assert_eq!(integers(&pairs.batch(&[0], &device).ids[0]), [2, 6, 3, 6, 3]);
        assert_eq!(pairs.lengths(), [5]);
        assert_eq!(pairs.batch(&[0], &device).layout.special, [true, false, true, false, true]);
        let empty = rows(&tokenizer, &[Vec::new()], None).batch(&[0], &device);
        assert_eq!((integers(&empty.ids[0]), empty.layout.special), (vec![2, 3], vec![true, true]));
    }
}
