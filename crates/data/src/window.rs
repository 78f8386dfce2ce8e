//! Cuts a sequence into windows that cover every base.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// How a sequence is cut; all in bases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Windowing {
    /// Length of a window's core.
    pub length: usize,
    /// Distance between the starts of neighbouring cores; at most `length`, or bases would be skipped.
    pub stride: usize,
    /// Context on either side of the core.
    pub halo: usize,
}

impl Default for Windowing {
    /// Cores of 512 bases that tile the sequence, without context.
    fn default() -> Self {
        Self { length: 512, stride: 512, halo: 0 }
    }
}

/// Why a sequence cannot be cut as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Windows without a base.
    #[error("the window length is 0; it must be at least 1")]
    NoLength,
    /// Windows that never move on.
    #[error("the window stride is 0; it must be at least 1")]
    NoStride,
    /// Windows with gaps between them.
    #[error("the window stride {stride} is larger than the window length {length}: bases in between would be lost")]
    Gap {
        /// The stride asked for, in bases.
        stride: usize,
        /// The length asked for, in bases.
        length: usize,
    },
}

/// One window, as positions of the sequence it was cut from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The bases the window stands for.
    pub core: Range<usize>,
    /// The core widened by the halo, and cut at the ends of the sequence.
    pub context: Range<usize>,
}

impl Windowing {
    /// Checks that every base of a sequence would be covered.
    ///
    /// # Errors
    /// If the length or the stride is 0, or the stride is larger than the length.
    pub const fn validate(&self) -> Result<(), WindowError> {
        let Self { length, stride, halo: _ } = *self;
        match (length, stride) {
            (0, _) => Err(WindowError::NoLength),
            (_, 0) => Err(WindowError::NoStride),
            _ if stride > length => Err(WindowError::Gap { stride, length }),
            _ => Ok(()),
        }
    }

    /// The windows of a sequence of `bases` bases, left to right, up to the first that reaches its end.
    ///
    /// The last core is shorter where the sequence ends within it. An empty sequence has no window.
    ///
    /// # Panics
    /// If [`validate`](Self::validate) fails.
    #[must_use]
    pub fn windows(&self, bases: usize) -> impl ExactSizeIterator<Item = Window> + use<> {
        assert!(self.validate().is_ok(), "windowing must be valid: {self:?}");
        let Self { length, stride, halo } = *self;
        let count = match bases {
            0 => 0,
            _ => 1 + bases.saturating_sub(length).div_ceil(stride),
        };
        (0..count).map(move |index| {
            let start = index * stride;
            let end = bases.min(start.saturating_add(length));
            let context = start.saturating_sub(halo)..bases.min(end.saturating_add(halo));
            Window { core: start..end, context }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_window_is_short_and_contexts_end_with_the_sequence() {
        let windowing = Windowing { length: 4, stride: 4, halo: 3 };
        let windows: Vec<_> = windowing.windows(10).map(|window| (window.core, window.context)).collect();
        assert_eq!(windows, [(0..4, 0..7), (4..8, 1..10), (8..10, 5..10)]);
    }

    #[test]
    fn overlapping_windows_stop_at_the_first_that_reaches_the_end() {
        let windowing = Windowing { length: 4, stride: 2, halo: 0 };
        let cores = |bases| windowing.windows(bases).map(|window| window.core).collect::<Vec<_>>();
        assert_eq!(cores(8), [0..4, 2..6, 4..8]);
        assert_eq!(cores(7), [0..4, 2..6, 4..7]);
        assert_eq!(cores(3), [0..3; 1]);
        assert_eq!(cores(0), []);
    }

    #[test]
    fn gaps_are_refused() {
        let message = |length, stride| Windowing { length, stride, halo: 0 }.validate().unwrap_err().to_string();
        assert!(message(4, 5).contains("stride 5 is larger than the window length 4"));
        assert!(message(0, 0).contains("length is 0"));
        assert!(message(4, 0).contains("stride is 0"));
    }
}
