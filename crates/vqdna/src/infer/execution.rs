//! How finished models compute: where, in how much memory, and whether they are to stop.

use burn::prelude::*;
use std::ops::ControlFlow;

use super::Budget;

/// Where a finished model computes, in how much memory, and who is asked between batches whether to go on.
#[derive(Clone, Copy)]
pub struct Execution<'a> {
    pub(super) device: &'a Device,
    pub(super) budget: Budget,
    poll: &'a dyn Fn(u64) -> ControlFlow<()>,
    is_silent: bool,
}

/// The work was asked to end before it was done: what has been given so far is right, and the rest is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped before the end")]
pub struct Interrupted;

impl<'a> Execution<'a> {
    /// On a device, which the model was loaded onto, in the default memory, to the end.
    #[must_use]
    pub fn on(device: &'a Device) -> Self {
        Self { device, budget: Budget::default(), poll: &|_| ControlFlow::Continue(()), is_silent: false }
    }

    /// The same in this memory.
    #[must_use]
    pub fn within(self, budget: Budget) -> Self {
        Self { budget, ..self }
    }

    /// The same, where `poll` is asked before each batch, with the number of bases that were finished since it was last asked. A
    /// break ends the work there: iterators give [`Interrupted`], and nothing after it.
    #[must_use]
    pub fn polling(self, poll: &'a dyn Fn(u64) -> ControlFlow<()>) -> Self {
        Self { poll, ..self }
    }

    /// The same, where nothing counts as finished.
    pub(super) fn silent(self) -> Self {
        Self { is_silent: true, ..self }
    }

    /// Says what was finished; fails if the work is to end.
    pub(super) fn go_on(&self, finished: u64) -> Result<(), Interrupted> {
        match (self.poll)(if self.is_silent { 0 } else { finished }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Interrupted),
        }
    }

    /// The question alone.
    pub(super) fn poll(&self) -> ControlFlow<()> {
        (self.poll)(0)
    }
}

/// What is computed of each group, one group at a time and lazily; nothing follows an interruption.
pub(super) fn computed<G, T>(
    groups: impl Iterator<Item = G>,
    mut compute: impl FnMut(G) -> Result<Vec<T>, Interrupted>,
) -> impl Iterator<Item = Result<T, Interrupted>> {
    let mut groups = groups.fuse();
    let mut ready = Vec::new().into_iter();
    let mut is_over = false;
    std::iter::from_fn(move || {
        loop {
            if let Some(item) = ready.next() {
                return Some(Ok(item));
            }
            if is_over {
                return None;
            }
            match compute(groups.next()?) {
                Ok(items) => ready = items.into_iter(),
                Err(interrupted) => {
                    is_over = true;
                    return Some(Err(interrupted));
                }
            }
        }
    })
}

/// Items of ascending sequences, and where `is_empty` says that a sequence has none, what `empty` makes of it in its place.
pub(super) fn with_empty<T>(
    items: impl Iterator<Item = Result<T, Interrupted>>,
    sequences: usize,
    of: impl Fn(&T) -> usize,
    is_empty: impl Fn(usize) -> bool,
    empty: impl Fn(usize) -> T,
) -> impl Iterator<Item = Result<T, Interrupted>> {
    let mut items = items.peekable();
    let (mut next, mut is_over) = (0, false);
    std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let until = match items.peek() {
            Some(Ok(item)) => of(item),
            Some(Err(_)) => {
                is_over = true;
                return items.next();
            }
            None => sequences,
        };
        while next < until {
            next += 1;
            if is_empty(next - 1) {
                return Some(Ok(empty(next - 1)));
            }
        }
        items.next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_follows_an_interruption() {
        let compute = |n: usize| if n == 2 { Err(Interrupted) } else { Ok(vec![n; n]) };
        let found: Vec<_> = computed([1, 0, 3, 2, 4].into_iter(), compute).collect();
        assert_eq!(found, [Ok(1), Ok(3), Ok(3), Ok(3), Err(Interrupted)]);
        let with: Vec<_> = with_empty(found.into_iter(), 5, |&n| n, |n| matches!(n, 0 | 2 | 4), |n| 100 + n).collect();
        assert_eq!(with, [Ok(100), Ok(1), Ok(102), Ok(3), Ok(3), Ok(3), Err(Interrupted)]);
    }

    #[test]
    fn what_is_missing_stands_in_its_place() {
        let of = |items: &[usize]| -> Vec<usize> {
            let items = items.iter().map(|&n| Ok(n));
            with_empty(items, 4, |&n| n, |n| n != 1, |n| 10 * n).map(|item| item.expect("no end")).collect()
        };
        assert_eq!(of(&[1, 1]), [0, 1, 1, 20, 30]);
        assert_eq!(of(&[]), [0, 20, 30]);
    }
}
