//! Threads of the pool that stay awake between parts of a step.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a thread waits for work before it sleeps after all: longer than the parts of a step that one thread does alone, too short
/// to take much from others.
const PATIENCE: Duration = Duration::from_millis(1);

/// Runs `work`, a step of many short parts, while the other threads of the pool look out for parts of it. Threads without work would
/// sleep else, and waking one takes about as long as a short part.
pub fn awake<R>(work: impl FnOnce() -> R) -> R {
    let here = rayon::current_thread_index();
    let done = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&done);
    rayon::spawn_broadcast(move |thread| {
        let mut idle_since = Instant::now();
        while Some(thread.index()) != here && !seen.load(Ordering::Relaxed) && idle_since.elapsed() < PATIENCE {
            if rayon::yield_now() == Some(rayon::Yield::Executed) {
                idle_since = Instant::now();
            }
            std::hint::spin_loop();
        }
    });
    let _done = Done(done);
    work()
}

/// Tells the others that the step is over, also where it ends in a panic.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rayon::prelude::*;

    fn sum() -> usize {
        awake(|| (0..1000).map(|i| (0..i).into_par_iter().sum::<usize>()).sum())
    }

    #[test]
    fn work_is_done_inside_and_outside_of_a_pool() {
        let want = (0..1000).map(|i| i * (i - usize::from(i > 0)) / 2).sum();
        assert_eq!(sum(), want);
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| (0..8).into_par_iter().map(|_| sum()).collect::<Vec<_>>()), [want; 8]);
        }
    }

    #[test]
    fn a_panic_passes() {
        assert!(std::panic::catch_unwind(|| awake(|| panic!("as it should"))).is_err());
        assert_eq!((0..100).into_par_iter().sum::<usize>(), 4950, "threads work on");
    }
}
