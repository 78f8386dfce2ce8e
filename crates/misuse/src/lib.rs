//! How kernels are misused: each is called rightly once, then with one argument changed so that it does not fit, and must panic with
//! the message that says so. `tests/` does this to every public function of `crates/kernels`, from safe code alone. Run under a
//! sanitizer, it shows that no call from safe code reaches memory that is not its own or was not written.

#![forbid(unsafe_code)]

use std::any::Any;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};

/// What came of the calls of one function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Its path in the crate, as `quantize::residual`.
    pub name: &'static str,
    /// Calls with arguments that fit.
    pub right: usize,
    /// Calls with arguments that do not.
    pub wrong: usize,
    /// What went otherwise than expected.
    pub failures: Vec<String>,
}

/// A function under test: `A` holds its arguments.
pub struct Kernel<A> {
    tried: Tried,
    arguments: A,
    call: fn(A) -> Vec<f32>,
}

/// Calls a function with arguments that fit. `call` returns all numbers that come out, and these must be finite and `gives` in number.
pub fn kernel<A: Clone>(name: &'static str, arguments: A, gives: usize, call: fn(A) -> Vec<f32>) -> Kernel<A> {
    Kernel { tried: Tried { name, ..Tried::default() }, arguments, call }.right(gives, |_| ())
}

impl<A: Clone> Kernel<A> {
    /// Another call with arguments that fit, changed in some way.
    #[must_use]
    pub fn right(mut self, gives: usize, change: impl FnOnce(&mut A)) -> Self {
        self.tried.right += 1;
        match self.outcome(change) {
            Ok(numbers) if numbers.len() != gives => self.fail(&format!("gave {} numbers, not {gives}", numbers.len())),
            Ok(numbers) if !numbers.iter().all(|v| v.is_finite()) => self.fail(&format!("gave {numbers:?}")),
            Ok(_) => {}
            Err(said) => self.fail(&format!("a right call panicked: {said}")),
        }
        self
    }

    /// A call with arguments that are changed so that they do not fit: it must panic, and its message begin with `message`.
    #[must_use]
    pub fn wrong(mut self, message: &str, change: impl FnOnce(&mut A)) -> Self {
        self.tried.wrong += 1;
        match self.outcome(change) {
            Err(said) if said.starts_with(message) => {}
            Err(said) => self.fail(&format!("said \"{said}\", not \"{message}…\"")),
            Ok(numbers) => self.fail(&format!("did not say \"{message}…\" but gave {} numbers", numbers.len())),
        }
        self
    }

    /// What came of all calls.
    #[must_use]
    pub fn tried(self) -> Tried {
        self.tried
    }

    fn outcome(&self, change: impl FnOnce(&mut A)) -> Result<Vec<f32>, String> {
        let mut arguments = self.arguments.clone();
        change(&mut arguments);
        let call = self.call;
        quietly(|| catch_unwind(AssertUnwindSafe(|| call(arguments)))).map_err(|said| text(&*said))
    }

    fn fail(&mut self, what: &str) {
        let (name, number) = (self.tried.name, self.tried.right + self.tried.wrong);
        self.tried.failures.push(format!("{name}, call {number}: {what}"));
    }
}

/// Panics if a call went otherwise than expected.
///
/// # Panics
/// Then.
pub fn judge(all: &[Tried]) {
    let mut failures = String::new();
    for failure in all.iter().flat_map(|tried| &tried.failures) {
        writeln!(failures, "  {failure}").expect("a string");
    }
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "\n{failures}");
}

/// What a panic said.
fn text(said: &(dyn Any + Send)) -> String {
    let text = said.downcast_ref::<String>().cloned();
    text.or_else(|| said.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

/// Held while panics are expected.
static QUIET: Mutex<()> = Mutex::new(());

/// Runs what is expected to panic, on any thread, without a word on standard error.
fn quietly<R>(work: impl FnOnce() -> R) -> R {
    static EXPECTED: AtomicBool = AtomicBool::new(false);
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !EXPECTED.load(Ordering::Relaxed) {
                loud(panic);
            }
        }));
    });
    let _quiet = QUIET.lock().unwrap_or_else(PoisonError::into_inner);
    EXPECTED.store(true, Ordering::Relaxed);
    let result = work();
    EXPECTED.store(false, Ordering::Relaxed);
    result
}
