//! Which units the sequences of a batch are cut into, and which rows become tokens. Constants for every gradient.

use burn::prelude::*;
use rayon::prelude::*;
use std::ops::Range;
use vqdna_kernels::units::{self, NONE, unit};

/// The units of a batch of sequences of `positions` rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// `[batch, positions]`: the number of a unit's size at its anchor, else -1.
    pub anchors: Vec<i32>,
    /// `[batch, positions]`: the number of the size of the unit that covers a position, else -1.
    pub owners: Vec<i32>,
    positions: usize,
}

/// Units of one size, as rows of the whole batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitRows {
    /// Their anchors.
    pub anchors: Vec<i32>,
    /// The rows that they cover, one unit after another.
    pub covered: Vec<u32>,
}

/// Rows that are left when sequences are cut, packed to the left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Rows of the sequence that has most.
    pub width: usize,
    /// `[batch, width]`: the position of each row, -1 where there is none.
    pub positions: Vec<i32>,
}

impl Selection {
    /// Chooses units by score, between the first and the last position of each sequence, none of which covers a special position.
    ///
    /// - `scores`: `[batch, positions, sizes]`; `lengths`: of each sequence, with both special positions
    /// - `special`: `[batch, positions]`
    #[must_use]
    pub fn new(scores: &[f32], sizes: &[usize], lengths: &[usize], special: &[bool]) -> Self {
        let positions = scores.len() / (lengths.len() * sizes.len()).max(1);
        let (mut anchors, mut owners) = (vec![NONE; lengths.len() * positions], vec![NONE; lengths.len() * positions]);
        let each = anchors.par_chunks_mut(positions.max(1)).zip(owners.par_chunks_mut(positions.max(1)));
        let each = each.zip(scores.par_chunks((positions * sizes.len()).max(1))).zip(lengths);
        each.zip(special.par_chunks(positions.max(1))).for_each(|((((anchors, owners), scores), &length), special)| {
            // Stretches between special positions; there is more than one in a pair of sequences only.
            let mut start = inner(length).start;
            while start < inner(length).end {
                let bases = special[start..inner(length).end].iter().take_while(|&&special| !special).count();
                let stretch = start..start + bases;
                let scores = &scores[stretch.start * sizes.len()..stretch.end * sizes.len()];
                units::select(scores, sizes, 0..bases, &mut anchors[stretch.clone()], &mut owners[stretch]);
                start += bases + 1;
            }
        });
        Self { anchors, owners, positions }
    }

    /// The units of each size.
    #[must_use]
    pub fn by_size(&self, sizes: &[usize]) -> Vec<UnitRows> {
        let mut found = vec![UnitRows::default(); sizes.len()];
        for (row, &size) in self.anchors.iter().enumerate().filter(|(_, size)| **size != NONE) {
            let units = &mut found[size as usize];
            let covered =
                unit(row, sizes[size as usize], &(0..self.anchors.len())).expect("a unit lies in its sequence");
            units.anchors.push(row as i32);
            units.covered.extend(covered.map(|row| row as u32));
        }
        found
    }

    /// Anchors and special positions.
    ///
    /// - `special`: `[batch, positions]`; `lengths`: of each sequence
    #[must_use]
    pub fn kept(&self, special: &[bool], lengths: &[usize]) -> Kept {
        let of = |(sequence, &length): (usize, &usize)| -> Vec<i32> {
            let row = |at: usize| sequence * self.positions + at;
            (0..length).filter(|&at| special[row(at)] || self.anchors[row(at)] != NONE).map(|at| at as i32).collect()
        };
        Kept::new(lengths.iter().enumerate().map(of).collect(), 0)
    }

    /// All positions.
    ///
    /// - `lengths`: of each sequence
    #[must_use]
    pub fn all(&self, lengths: &[usize]) -> Kept {
        Kept::new(lengths.iter().map(|&length| (0..length as i32).collect()).collect(), self.positions)
    }
}

impl Kept {
    /// The rows of each sequence side by side, at least `width` of them.
    fn new(rows: Vec<Vec<i32>>, width: usize) -> Self {
        let width = rows.iter().map(Vec::len).max().unwrap_or(0).max(width);
        let padded = rows.into_iter().flat_map(|row| row.into_iter().chain(std::iter::repeat(NONE)).take(width));
        Self { width, positions: padded.collect() }
    }
}

/// Positions that may be part of a unit.
fn inner(length: usize) -> Range<usize> {
    1.min(length)..length.saturating_sub(1).max(1.min(length))
}

/// Whole numbers on a device.
pub(super) fn numbers(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_of_no_two_or_more_positions_are_cut() {
        let lengths = [0, 1, 2, 3, 5];
        let special: Vec<bool> = lengths.iter().flat_map(|&n| (0..5).map(move |at| at == 0 || at + 1 >= n)).collect();
        let selection = Selection::new(&[0.5; 5 * 5 * 2], &[1, 2], &lengths, &special);
        let covered = |n: usize| selection.owners[n * 5..(n + 1) * 5].iter().filter(|&&owner| owner != NONE).count();
        assert_eq!([0, 1, 2, 3, 4].map(covered), [0, 0, 0, 1, 3]);
        let kept = selection.kept(&special, &lengths);
        assert_eq!(kept.width, 5);
        assert_eq!(kept.positions[..10], [-1, -1, -1, -1, -1, 0, -1, -1, -1, -1]);
        assert_eq!(kept.positions[10..20], [0, 1, -1, -1, -1, 0, 1, 2, -1, -1]);
        let units = selection.by_size(&[1, 2]);
        assert!(units[0].covered.iter().map(|&row| row as i32).eq(units[0].anchors.iter().copied()));
    }

    #[test]
    fn no_unit_covers_what_stands_between_the_sequences_of_a_pair() {
        // The best unit of three bases would lie across the middle.
        let special = [true, false, false, true, false, false, true];
        let mut scores = vec![0.1; 7 * 2];
        scores[3 * 2 + 1] = 9.0;
        let selection = Selection::new(&scores, &[1, 3], &[7], &special);
        assert_eq!(selection.owners, [NONE, 0, 0, NONE, 0, 0, NONE]);
        assert_eq!(selection.kept(&special, &[7]).positions, [0, 1, 2, 3, 4, 5, 6]);
    }
}
