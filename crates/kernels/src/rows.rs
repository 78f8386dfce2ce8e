//! Work on rows in parallel, in parts whose number does not depend on the threads.

use rayon::prelude::*;
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Most rows of a task: few enough that a tile of the widest layer stays in the L2 cache.
pub const TILE: usize = 144;

/// Rows that a product computes together.
pub(crate) const BLOCK: usize = 6;

/// Parts of a sum over rows. Fixed, so that the order of additions is.
const PARTS: usize = 16;

/// Rows of a task when `rows` rows are divided: at most [`TILE`], and such that the number of tasks is a
/// multiple of eight, so that few threads finish together. A function of the rows alone, not of the threads.
pub(crate) fn tile_height(rows: usize) -> usize {
    const TOGETHER: usize = 8;
    rows.div_ceil(TOGETHER * rows.div_ceil(TOGETHER * TILE).max(1)).max(1)
}

/// Heights of the tiles that `rows` rows are divided into: as high as products like, then lower and lower, so that threads which take
/// them [in order](in_order) finish together. Each but the last is a multiple of the rows of a product's block. A function of the rows alone, not
/// of the threads.
pub(crate) fn tile_heights(rows: usize) -> Vec<usize> {
    /// Of what is left, at most so large a part.
    const SHARE: usize = 6;
    /// Lower tiles would take longer to read their weights than to multiply.
    const LOWEST: usize = 24;
    let mut heights = Vec::new();
    let mut rest = rows;
    while rest > 0 {
        let height = rest.div_ceil(SHARE).next_multiple_of(BLOCK).clamp(LOWEST, TILE);
        // What would be a rest goes with the last one.
        let height = if rest < height + LOWEST / 2 { rest } else { height };
        heights.push(height);
        rest -= height;
    }
    heights
}

/// The rows of each tile, `width` numbers a row; none where `width` is 0.
pub(crate) fn tiles<'a, T>(mut rows: &'a [T], heights: &'a [usize], width: usize) -> impl Iterator<Item = &'a [T]> {
    heights.iter().map(move |height| rows.split_off(..height * width).expect("rows of all tiles"))
}

/// [`tiles`] to write to.
pub(crate) fn tiles_mut<'a, T>(
    mut rows: &'a mut [T],
    heights: &'a [usize],
    width: usize,
) -> impl Iterator<Item = &'a mut [T]> {
    heights.iter().map(move |height| rows.split_off_mut(..height * width).expect("rows of all tiles"))
}

/// Works on tasks in parallel: a thread that is free takes the next one. Results are in the order of tasks.
pub(crate) fn in_order<T: Send, R: Send>(
    tasks: impl Iterator<Item = T> + Send,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let next = Mutex::new(tasks.enumerate());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next();
    let workers = (0..rayon::current_num_threads()).into_par_iter().with_max_len(1);
    let mut found: Vec<(usize, R)> = workers
        .flat_map_iter(|_| std::iter::from_fn(take).map(|(number, task)| (number, work(task))).collect::<Vec<_>>())
        .collect();
    found.sort_unstable_by_key(|(number, _)| *number);
    found.into_iter().map(|(_, result)| result).collect()
}

/// Sums `length` numbers over all rows: each part adds its rows into its own buffer, the buffers are added in order.
pub(crate) fn sum_over_rows(rows: usize, length: usize, add: impl Fn(Range<usize>, &mut [f32]) + Sync) -> Vec<f32> {
    let size = rows.div_ceil(PARTS).max(1);
    let parts: Vec<Vec<f32>> = (0..rows.div_ceil(size))
        .into_par_iter()
        .map(|part| {
            let mut sum = vec![0.0; length];
            add(part * size..((part + 1) * size).min(rows), &mut sum);
            sum
        })
        .collect();
    parts
        .into_iter()
        .reduce(|mut total, part| {
            total.iter_mut().zip(&part).for_each(|(t, p)| *t += p);
            total
        })
        .unwrap_or_else(|| vec![0.0; length])
}

/// Buffers of a thread, kept between calls: fresh pages cost more than the work done in them. Nested calls have buffers of their own.
/// Each begins at a line of the cache, or every vector read from it could lie in two.
pub(crate) fn with_scratch<const N: usize, R>(lengths: [usize; N], work: impl FnOnce([&mut [f32]; N]) -> R) -> R {
    /// Floats of a line.
    const LINE: usize = 16;
    thread_local! {
        static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) };
    }
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let total = LINE + lengths.iter().map(|length| length.next_multiple_of(LINE)).sum::<usize>();
    if buffer.len() < total {
        buffer.resize(total, 0.0);
    }
    let ahead = buffer.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
    let mut rest = &mut buffer[ahead..];
    let result = work(lengths.map(|length| {
        let part = rest.split_off_mut(..length.next_multiple_of(LINE)).unwrap_or_default();
        &mut part[..length]
    }));
    SCRATCH.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}

/// A slice that tasks share, each writing parts of its own.
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    length: usize,
    lent: PhantomData<&'a mut [T]>,
}

// SAFETY: it stands for the exclusive use of the slice, which is lent to it alone. Threads that share it can only ask for places, and
// whoever asks promises that the place is theirs: each element is at one thread at a time, as `T: Send` allows.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { data: data.as_mut_ptr(), length: data.len(), lent: PhantomData }
    }

    /// Where an element lies; what is read or written from there on must be inside the slice and nobody else's at that time.
    pub(crate) fn at(&self, start: usize) -> *mut T {
        assert!(start < self.length, "element {start} of {}", self.length);
        self.data.wrapping_add(start)
    }

    /// The `length` elements that begin at `start`.
    ///
    /// # Panics
    /// If they are not all inside the slice.
    ///
    /// # Safety
    /// Parts that live at the same time must not overlap.
    #[allow(clippy::mut_from_ref, reason = "what this type is for")]
    pub(crate) unsafe fn part(&self, start: usize, length: usize) -> &mut [T] {
        let fits = self.length.checked_sub(start).is_some_and(|left| length <= left);
        assert!(fits, "{length} elements at {start} of {}", self.length);
        // SAFETY: inside the slice, which is lent for longer than this; nobody else has this part, as the caller promises.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(start), length) }
    }
}

#[cfg(test)]
pub(crate) mod test {
    /// Reproducible numbers in −1..1.
    pub(crate) fn noise(length: usize, seed: u64) -> Vec<f32> {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
            })
            .collect()
    }

    /// Equal within 2e-6 of the largest value: rounding of f32 sums over some hundred terms.
    #[track_caller]
    pub(crate) fn assert_close(got: &[f32], want: &[f32]) {
        assert_eq!(got.len(), want.len());
        let largest = want.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            assert!((g - w).abs() <= 2e-6 * largest, "at {i}: {g}, not {w} (largest {largest})");
        }
    }

    /// Compares a gradient with central differences of `loss` in double precision.
    #[track_caller]
    pub(crate) fn assert_gradient(gradient: &[f32], at: &[f32], loss: impl Fn(&[f64]) -> f64) {
        let largest = gradient.iter().fold(1e-6f32, |m, v| m.max(v.abs()));
        let mut x: Vec<f64> = at.iter().map(|&v| f64::from(v)).collect();
        for i in 0..x.len() {
            let keep = x[i];
            x[i] = keep + 1e-5;
            let above = loss(&x);
            x[i] = keep - 1e-5;
            let below = loss(&x);
            x[i] = keep;
            let want = ((above - below) / 2e-5) as f32;
            assert!((gradient[i] - want).abs() <= 1e-5 * largest, "gradient {i}: {}, not {want}", gradient[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "2 elements at 18446744073709551615 of 3")]
    fn a_part_whose_end_cannot_be_counted_is_refused() {
        let mut data = [1, 2, 3];
        // SAFETY: the only part.
        unsafe { Shared::new(&mut data).part(usize::MAX, 2) };
    }

    #[test]
    fn tiles_cover_all_rows_and_become_lower() {
        for rows in (0..if cfg!(miri) { 60 } else { 700 }).chain([2048, 8192]) {
            let heights = tile_heights(rows);
            assert_eq!(heights.iter().sum::<usize>(), rows);
            let Some((last, before)) = heights.split_last() else { continue };
            assert!(before.iter().all(|height| height.is_multiple_of(BLOCK) && *height <= TILE), "{heights:?}");
            assert!(before.is_sorted_by(|a, b| a >= b) && *last <= TILE, "{heights:?}");
        }
        assert_eq!(tile_heights(8192)[..50], [TILE; 50]);
        let rows: Vec<u32> = (0..100).collect();
        let heights = tile_heights(50);
        assert_eq!(tiles(&rows, &heights, 2).collect::<Vec<_>>().concat(), rows);
        assert!(tiles(&rows, &heights, 0).all(<[u32]>::is_empty));
    }

    #[test]
    fn results_are_in_the_order_of_tasks() {
        let many = if cfg!(miri) { 9 } else { 100 };
        for threads in [1, 4] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            // Nested, as the gradients of two layers are.
            let found = pool.install(|| {
                let squares = |first: u64| in_order(first..first + many, |n| in_order(0..3, |k| n * n + k)[2]);
                rayon::join(|| squares(0), || squares(7))
            });
            let squares = |first: u64| (first..first + many).map(|n| n * n + 2).collect::<Vec<_>>();
            assert_eq!(found, (squares(0), squares(7)));
        }
        assert!(in_order(std::iter::empty::<u8>(), |n| n).is_empty());
    }
}
