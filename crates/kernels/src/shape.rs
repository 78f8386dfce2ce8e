//! What every public function of this crate does first: it holds its arguments against the shapes that its documentation gives. What
//! does not fit ends the call with a panic that names the argument, before anything is read or written. No check looks at more than
//! lengths and sizes, unless its name says so.

/// Panics unless a slice holds as many elements as its shape has. No slice fits a shape whose elements cannot be counted.
#[inline]
#[track_caller]
pub(crate) fn fits<T>(name: &str, slice: &[T], shape: &[usize]) {
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    if count != Some(slice.len()) {
        misfit(name, slice.len(), format_args!("{shape:?}"));
    }
}

/// Rows of `width` elements that a slice holds.
///
/// # Panics
/// If the width is 0 or the last row is not whole.
#[inline]
#[track_caller]
pub(crate) fn rows_of<T>(name: &str, slice: &[T], width: usize) -> usize {
    if width == 0 || !slice.len().is_multiple_of(width) {
        misfit(name, slice.len(), format_args!("[rows, {width}], with a width of at least 1"));
    }
    slice.len() / width
}

/// Elements of each of `rows` rows of a slice.
///
/// # Panics
/// If there are no rows, they have no elements, or they are not equally wide.
#[inline]
#[track_caller]
pub(crate) fn width_of<T>(name: &str, slice: &[T], rows: usize) -> usize {
    if rows == 0 || slice.is_empty() || !slice.len().is_multiple_of(rows) {
        misfit(name, slice.len(), format_args!("[{rows}, width], with at least 1 row and a width of at least 1"));
    }
    slice.len() / rows
}

/// Panics unless a slice, `[rows]`, holds rows of whole sequences of `length`; of no rows any length is right.
#[inline]
#[track_caller]
pub(crate) fn sequences<T>(name: &str, slice: &[T], length: usize) {
    if !(slice.is_empty() || length > 0 && slice.len().is_multiple_of(length)) {
        misfit(name, slice.len(), format_args!("[batch * {length}], with a length of at least 1"));
    }
}

/// Panics unless a size is at least 1.
#[inline]
#[track_caller]
pub(crate) fn positive(name: &str, size: usize) {
    assert!(size > 0, "`{name}` is 0, but must be at least 1");
}

/// The product of some sizes, by which memory is about to be allocated.
///
/// # Panics
/// If it cannot be counted.
#[track_caller]
pub(crate) fn count(name: &str, shape: &[usize]) -> usize {
    let count = shape.iter().try_fold(1usize, |count, &size| count.checked_mul(size));
    count.unwrap_or_else(|| panic!("`{name}` of shape {shape:?} holds more elements than can be counted"))
}

/// An index as a place among `count`.
///
/// # Panics
/// If it is none of those.
#[inline(always)]
#[track_caller]
pub(crate) fn place(name: &str, index: i32, count: usize) -> usize {
    let place = index as usize;
    if index < 0 || place >= count {
        beyond(name, i64::from(index), count);
    }
    place
}

/// Panics unless each of some indices, all of which are looked at, is below `count`.
#[track_caller]
pub(crate) fn all_below(name: &str, indices: &[u32], count: usize) {
    if let Some(&largest) = indices.iter().max()
        && largest as usize >= count
    {
        beyond(name, i64::from(largest), count);
    }
}

#[cold]
#[inline(never)]
#[track_caller]
fn misfit(name: &str, length: usize, shape: std::fmt::Arguments) -> ! {
    panic!("`{name}` holds {length} elements, but its shape is {shape}")
}

#[cold]
#[inline(never)]
#[track_caller]
fn beyond(name: &str, index: i64, count: usize) -> ! {
    panic!("`{name}` holds {index}, but its values are at least 0 and below {count}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::catch_unwind;

    #[test]
    fn what_fits_passes_and_what_does_not_is_named() {
        fits("x", &[0u8; 6], &[2, 3]);
        fits("x", &[0u8; 0], &[0, usize::MAX]);
        sequences("mask", &[0u8; 0], 0);
        sequences("mask", &[0u8; 6], 3);
        assert_eq!([rows_of("x", &[0u8; 6], 3), rows_of("x", &[0u8; 0], 3), width_of("w", &[0u8; 6], 3)], [2, 0, 2]);
        assert_eq!([count("y", &[2, 3]), place("index", 2, 3)], [6, 2]);
        all_below("rows", &[], 0);
        all_below("rows", &[0, 2], 3);
        positive("d", 1);

        let fails: [(fn(), &str); 11] = [
            (|| fits("x", &[0u8; 5], &[2, 3]), "`x` holds 5 elements, but its shape is [2, 3]"),
            (|| fits("x", &[0u8; 0], &[1 << 32, 1 << 32]), "`x` holds 0 elements, but its shape is [4294967296, "),
            (|| _ = rows_of("x", &[0u8; 5], 3), "`x` holds 5 elements, but its shape is [rows, 3]"),
            (|| _ = rows_of("x", &[0u8; 0], 0), "`x` holds 0 elements, but its shape is [rows, 0]"),
            (|| _ = width_of("w", &[0u8; 5], 3), "`w` holds 5 elements, but its shape is [3, width]"),
            (|| _ = width_of("w", &[0u8; 0], 3), "`w` holds 0 elements, but its shape is [3, width]"),
            (|| sequences("mask", &[0u8; 5], 0), "`mask` holds 5 elements, but its shape is [batch * 0]"),
            (|| _ = count("y", &[1 << 32, 1 << 32]), "`y` of shape [4294967296, 4294967296] holds more"),
            (|| _ = place("index", -1, 3), "`index` holds -1, but its values are at least 0 and below 3"),
            (|| all_below("rows", &[7, 3], 7), "`rows` holds 7, but its values are at least 0 and below 7"),
            (|| positive("d", 0), "`d` is 0, but must be at least 1"),
        ];
        for (fails, want) in fails {
            let said = catch_unwind(fails).expect_err(want);
            let said = said.downcast_ref::<String>().expect("a message");
            assert!(said.starts_with(want), "{said}");
        }
    }
}
