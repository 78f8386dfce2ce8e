//! Weights in the order in which kernels read them, kept while a frozen model is used many times.

use burn::backend::Flex;
use burn::prelude::*;
use burn_flex::FlexTensor;
use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::ops::join;

/// What an operation is prepared from: the kind of kernel, where its weights lie, and its settings as bits.
type Key = (TypeId, Vec<usize>, Vec<u64>);

struct Entry {
    /// Held, so that nothing else comes to lie in their place, and nobody changes them there.
    _weights: Vec<FlexTensor>,
    prepared: Rc<dyn Any>,
}

thread_local! {
    static ENTRIES: RefCell<Option<HashMap<Key, Entry>>> = const { RefCell::new(None) };
}

/// Runs `work` with what [`prepared`] makes kept until the end.
pub(in crate::ops) fn with_frozen_weights<R>(work: impl FnOnce() -> R) -> R {
    let _before = Before(ENTRIES.with_borrow_mut(|entries| entries.replace(HashMap::new())));
    work()
}

/// What was kept outside of a scope, and is again when the scope ends, also in a panic.
struct Before(Option<HashMap<Key, Entry>>);

impl Drop for Before {
    fn drop(&mut self) {
        ENTRIES.set(self.0.take());
    }
}

/// What was made of the weights of a frozen model, for its later uses.
#[derive(Default)]
pub(in crate::ops) struct Preparations(RefCell<HashMap<Key, Entry>>);

impl Preparations {
    /// As [`with_frozen_weights`], with what earlier calls made.
    pub(in crate::ops) fn run<R>(&self, work: impl FnOnce() -> R) -> R {
        let _before = Before(ENTRIES.replace(Some(self.0.take())));
        let result = work();
        self.0.replace(ENTRIES.take().unwrap_or_default());
        result
    }
}

/// Weights and settings as a kernel wants them: what was made of the same ones before, inside of [`with_frozen_weights`].
pub(super) fn prepared<P: 'static>(weights: &[FlexTensor], settings: &[u64], make: impl FnOnce() -> P) -> Rc<P> {
    if ENTRIES.with_borrow(Option::is_none) {
        return Rc::new(make());
    }
    let places = weights.iter().map(|weight| weight.bytes().as_ptr().addr()).collect();
    let key = (TypeId::of::<P>(), places, settings.to_vec());
    let known = ENTRIES.with_borrow(|entries| Some(entries.as_ref()?.get(&key)?.prepared.clone()));
    // The key holds the type, so what is found is of it.
    known.and_then(|known| known.downcast().ok()).unwrap_or_else(|| {
        let prepared = Rc::new(make());
        let entry = Entry { _weights: weights.to_vec(), prepared: prepared.clone() };
        ENTRIES.with_borrow_mut(|entries| entries.as_mut().map(|entries| entries.insert(key, entry)));
        prepared
    })
}

/// [`join`] once for the same weights, where they are frozen.
pub(in crate::ops) fn joined(weights: Vec<Tensor<2>>) -> (Tensor<2>, Tensor<1>) {
    // None with autodiff.
    let frozen =
        weights.iter().map(|weight| weight.clone().try_into_primitive::<Flex>().ok()).collect::<Option<Vec<_>>>();
    match frozen {
        Some(frozen) if ENTRIES.with_borrow(Option::is_some) => {
            (*prepared::<(Tensor<2>, Tensor<1>)>(&frozen, &[], || join(weights))).clone()
        }
        _ => join(weights),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::flex::tensor;
    use std::cell::Cell;

    #[test]
    fn made_once_for_the_same_weights_and_settings() {
        let calls = Cell::new(0);
        let make = || {
            calls.set(calls.get() + 1);
            calls.get()
        };
        let weights = [tensor(vec![1.0], [1])];
        with_frozen_weights(|| {
            assert_eq!((*prepared(&weights, &[7], make), *prepared(&weights, &[7], make)), (1, 1));
            assert_eq!(*prepared(&weights, &[8], make), 2, "other settings");
            let mut changed = weights.clone();
            changed[0].storage_mut::<f32>()[0] = 2.0;
            assert_eq!(*prepared(&changed, &[7], make), 3, "weights that were changed are others");
            assert_eq!(with_frozen_weights(|| *prepared(&weights, &[7], make)), 4, "a scope of its own");
            assert_eq!(*prepared(&weights, &[7], make), 1);
        });
        assert_eq!(
            (*prepared(&weights, &[7], make), *prepared(&weights, &[7], make)),
            (5, 6),
            "nothing is kept outside"
        );
        let kept = Preparations::default();
        let within = || kept.run(|| *prepared(&weights, &[7], make));
        assert_eq!((within(), *prepared(&weights, &[7], make), within()), (7, 8, 7), "kept between uses alone");
    }

    #[test]
    fn nothing_is_kept_after_a_panic() {
        fn inside() {
            panic!("as it should");
        }
        assert!(std::panic::catch_unwind(|| with_frozen_weights(inside)).is_err());
        assert!(ENTRIES.with_borrow(Option::is_none));
    }
}
