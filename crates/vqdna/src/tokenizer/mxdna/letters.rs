//! Sequences as ids of the model's own alphabet, each between a first and a last position that are special.

use burn::prelude::*;
use vqdna_data::alphabet::BaseId;

use super::{FIRST, LAST, Letters, PADDING, letter};

/// Sequences side by side, the shorter ones padded at the end.
#[derive(Clone, Debug)]
pub struct LetterBatch {
    /// `[batch, positions]`.
    pub ids: Tensor<2, Int>,
    /// Positions of each sequence, the special ones included.
    pub lengths: Vec<usize>,
    /// `[batch, positions]`: the first and last position of each sequence, the one between those of a pair, and padding.
    pub special: Vec<bool>,
}

impl LetterBatch {
    /// Puts sequences on a device: the ids of each without those of its first and last position.
    #[must_use]
    pub fn new(rows: &[Vec<i32>], device: &Device) -> Self {
        let positions = Self::positions(rows.iter().map(Vec::len).max().unwrap_or(0));
        let (mut ids, mut special) = (vec![PADDING; rows.len() * positions], vec![true; rows.len() * positions]);
        for ((row, ids), special) in rows.iter().zip(ids.chunks_mut(positions)).zip(special.chunks_mut(positions)) {
            let inner = 1..row.len() + 1;
            ids[0] = FIRST;
            ids[inner.clone()].copy_from_slice(row);
            ids[inner.end] = LAST;
            special[inner].iter_mut().zip(row).for_each(|(special, &id)| *special = id == LAST);
        }
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [rows.len(), positions]), device),
            lengths: rows.iter().map(|row| Self::positions(row.len())).collect(),
            special,
        }
    }

    /// Positions of a sequence of so many bases.
    #[must_use]
    pub fn positions(bases: usize) -> usize {
        bases + 2
    }

    /// The batch as the model takes it.
    #[must_use]
    pub fn view(&self) -> Letters<'_> {
        Letters { ids: self.ids.clone(), lengths: &self.lengths, special: &self.special }
    }

    /// The same for a model with autodiff.
    #[must_use]
    pub fn autodiff(self) -> Self {
        Self { ids: Tensor::from_inner(self.ids), ..self }
    }
}

/// Many sequences on the host, or pairs of them.
#[derive(Clone, Debug, Default)]
pub struct LetterRows {
    first: Vec<Vec<BaseId>>,
    /// The second sequences of pairs.
    second: Option<Vec<Vec<BaseId>>>,
}

impl LetterRows {
    /// Rows of one sequence, or with `second` of as many pairs.
    ///
    /// # Panics
    /// If there are not as many second sequences as first ones.
    #[must_use]
    pub fn new(first: Vec<Vec<BaseId>>, second: Option<Vec<Vec<BaseId>>>) -> Self {
        assert!(second.as_ref().is_none_or(|second| second.len() == first.len()), "a second sequence for each first");
        Self { first, second }
    }

    /// Positions of each row, the special ones included: two, and between those of a pair one more.
    #[must_use]
    pub fn lengths(&self) -> Vec<usize> {
        let second = |row: usize| self.second.as_ref().map_or(0, |second| 1 + second[row].len());
        self.first.iter().enumerate().map(|(row, first)| LetterBatch::positions(first.len() + second(row))).collect()
    }

    /// Some rows side by side. What stands between the sequences of a pair is what stands after the last one.
    ///
    /// # Panics
    /// If a row does not exist.
    #[must_use]
    pub fn batch(&self, rows: &[u32], device: &Device) -> LetterBatch {
        let of = |&row: &u32| -> Vec<i32> {
            let mut ids: Vec<i32> = self.first[row as usize].iter().map(|&base| letter(base)).collect();
            if let Some(second) = &self.second {
                ids.push(LAST);
                ids.extend(second[row as usize].iter().map(|&base| letter(base)));
            }
            ids
        };
        LetterBatch::new(&rows.iter().map(of).collect::<Vec<_>>(), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_between_special_positions_and_padding() {
        let device = Device::flex();
        let ids = |batch: &LetterBatch| batch.ids.clone().into_data().try_into_vec_as::<i32>().expect("ids fit");
        let (long, short) = (vec![0, 1, 2, 3, 4], vec![3]);
        let rows = LetterRows::new(vec![long.clone(), short.clone()], None);
        let batch = rows.batch(&[1, 0], &device);
        assert_eq!(ids(&batch), [2, 6, 3, 0, 0, 0, 0, 2, 5, 7, 8, 6, 1, 3]);
        assert_eq!((&batch.lengths, rows.lengths()), (&vec![3, 7], vec![7, 3]));
        let inner: Vec<usize> = (0..14).filter(|&at| !batch.special[at]).collect();
        assert_eq!(inner, [1, 8, 9, 10, 11, 12]);

        let pairs = LetterRows::new(vec![short.clone()], Some(vec![short]));
        assert_eq!(ids(&pairs.batch(&[0], &device)), [2, 6, 3, 6, 3]);
        assert_eq!(pairs.lengths(), [5]);
        assert_eq!(pairs.batch(&[0], &device).special, [true, false, true, false, true]);
        let empty = LetterRows::new(vec![Vec::new()], None).batch(&[0], &device);
        assert_eq!((ids(&empty), &empty.special), (vec![2, 3], &vec![true, true]));
    }
}
