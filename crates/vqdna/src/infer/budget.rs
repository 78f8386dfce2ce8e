//! How much is worked on at a time, from the memory that it may take.

use crate::backbone::Backbone;
use crate::model::Embed;
use crate::tokenizer::Source;

/// Memory for temporary buffers while a model is used, beside the program, the weights and the sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    bytes: usize,
}

impl Default for Budget {
    /// 512 MiB.
    fn default() -> Self {
        Self::mebibytes(512)
    }
}

/// Padded positions of a batch beyond which nothing is gained.
const MOST_POSITIONS: usize = 1 << 16;

/// Bytes of a base in a window that waits for its batch: letter, base, codes in host order and as numbers.
const WAITING: usize = 32;

/// What a result takes on the host besides its numbers.
const RESULT: usize = 128;

impl Budget {
    /// So many times 2²⁰ bytes.
    #[must_use]
    pub fn mebibytes(count: usize) -> Self {
        Self { bytes: count.saturating_mul(1 << 20) }
    }

    /// Padded bases of a batch, for which there is half of the budget; each takes so many floats.
    pub(super) fn batch(self, floats: usize) -> usize {
        (self.bytes / 2 / (size_of::<f32>() * floats.max(1))).clamp(1, MOST_POSITIONS)
    }

    /// Bases of the windows that are in memory together, for which there is the other half; `width` numbers come of each base.
    pub(super) fn bases(self, width: usize) -> usize {
        let result = if width == 0 { 0 } else { size_of::<f32>() * width + RESULT };
        (self.bytes / 2 / (WAITING + result)).max(1)
    }
}

/// Neighbours in a list as groups whose sizes add up to `most` or less; an item that is larger is alone.
pub(super) fn groups<T>(
    items: impl Iterator<Item = T>,
    most: usize,
    size: impl Fn(&T) -> usize,
) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.peekable();
    std::iter::from_fn(move || {
        let first = items.next()?;
        let mut sum = size(&first);
        let mut group = vec![first];
        while let Some(next) = items.next_if(|next| sum.saturating_add(size(next)) <= most) {
            sum += size(&next);
            group.push(next);
        }
        Some(group)
    })
}

/// Floats that a padded token takes where it is most: vectors of codes, so wide, and in the encoder what the widest moment of a layer
/// holds.
pub(super) fn floats(source: Source, encoder: Option<(&Embed, &Backbone)>) -> usize {
    let vectors = match source {
        Source::Vectors(width) => 2 * width,
        Source::Table(_) => 0,
    };
    vectors + encoder.map_or(0, |(embed, backbone)| backbone.floats().div_ceil(embed.pool()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn groups_fit_and_lose_nothing(sizes in prop::collection::vec(0_usize..9, 0..40), most in 1_usize..20) {
            let found: Vec<Vec<usize>> = groups(sizes.iter().copied(), most, |&size| size).collect();
            prop_assert_eq!(found.concat(), sizes);
            prop_assert!(found.iter().all(|group| group.len() == 1 || group.iter().sum::<usize>() <= most));
            // No group could have taken the next item.
            prop_assert!(found.windows(2).all(|pair| pair[0].iter().sum::<usize>() + pair[1][0] > most));
        }
    }

    #[test]
    fn a_budget_bounds_what_is_in_memory() {
        let budget = Budget::mebibytes(64);
        assert!(budget.batch(256) * 256 * 4 < 64 << 20);
        assert!(budget.bases(384) < budget.bases(0));
        assert_eq!((Budget::mebibytes(0).batch(256), Budget::mebibytes(0).bases(0)), (1, 1));
        assert_eq!(Budget::mebibytes(usize::MAX).batch(256), MOST_POSITIONS);
    }
}
