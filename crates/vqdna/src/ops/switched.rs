//! Switches of a thread that go back when what they were set for is over, also where it ends in a panic.

use std::cell::Cell;
use std::thread::LocalKey;

/// A switch that was set; dropped, it is as it was before.
pub(super) struct Switched<T: 'static> {
    switch: &'static LocalKey<Cell<T>>,
    before: Option<T>,
}

impl<T: 'static> Switched<T> {
    /// Sets a switch of this thread.
    #[must_use]
    pub(super) fn to(switch: &'static LocalKey<Cell<T>>, value: T) -> Self {
        Self { switch, before: Some(switch.replace(value)) }
    }
}

impl<T: 'static> Drop for Switched<T> {
    fn drop(&mut self) {
        if let Some(before) = self.before.take() {
            self.switch.set(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    fn inside() {
        panic!("as it should");
    }

    #[test]
    fn switches_go_back_after_a_panic() {
        let fails = |with: &dyn Fn()| assert!(catch_unwind(AssertUnwindSafe(with)).is_err());
        with_precision(Precision::Bf16, || {
            fails(&|| with_precision(Precision::F32, inside));
            assert_eq!(PRECISION.get(), Precision::Bf16);
        });
        fails(&|| with_composed_ops(inside));
        fails(&|| with_recomputation(inside));
        assert!(!COMPOSED_ONLY.get() && KEEPS.get() && PRECISION.get() == Precision::F32);
    }
}
