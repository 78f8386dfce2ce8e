//! The program's allocator: mimalloc for what is small, and one pool of its own for what is large.
//!
//! A training step asks for the same hundreds of megabytes again and again, as activations on its way forward and as gradients on
//! its way back, in other sizes. General allocators either return such memory to the system, which clears it again for the next
//! step, or keep what was freed by size, where the other size does not fit. The pool keeps everything and joins neighbours: a step
//! takes what it needs at its peak, and steps after the first take no page from the system. Pages are huge where the system
//! grants it.

#![allow(unsafe_code, reason = "an allocator deals in raw memory")]

use mimalloc::MiMalloc;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sizes from here on come out of the pool.
const LARGE: usize = 1 << 18;
/// What blocks of the pool are multiples of, in place and size: a line of the cache.
const GRAIN: usize = 1 << 6;
/// What a block has beyond its size: buffers of the same power of two would otherwise share the sets of the caches.
const APART: usize = 9 * GRAIN;
/// What the pool asks the system for at a time: much, so that few blocks lie at an end; pages that nobody touches cost nothing.
const REGION: usize = 1 << 30;
/// Alignment of regions: a huge page.
const HUGE: usize = 1 << 21;

/// To be named as `#[global_allocator]`.
pub struct Allocator;

/// Free memory of all regions.
static POOL: Mutex<Pool> = Mutex::new(Pool { free: Vec::new() });

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that a block of `size` takes.
fn taken(size: usize) -> usize {
    (size + APART).next_multiple_of(GRAIN)
}

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= GRAIN
}

// SAFETY: where a block comes from depends on its layout alone, so it goes back there; `Pool` hands out each byte once.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            // SAFETY: as the caller promises.
            return unsafe { MiMalloc.alloc(layout) };
        }
        let size = taken(layout.size());
        if let Some(start) = pool().take(size) {
            return start;
        }
        let Some(region) = region(size) else { return std::ptr::null_mut() };
        let mut pool = pool();
        pool.give(region);
        pool.take(size).unwrap_or(std::ptr::null_mut())
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        if is_large(layout) {
            pool().give(Block { start, size: taken(layout.size()) });
        } else {
            // SAFETY: as the caller promises, and small blocks came from there.
            unsafe { MiMalloc.dealloc(start, layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !is_large(layout) {
            // SAFETY: as the caller promises.
            return unsafe { MiMalloc.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller promises; what was allocated is as long as that.
        unsafe {
            let start = self.alloc(layout);
            if !start.is_null() {
                start.write_bytes(0, layout.size());
            }
            start
        }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller promises; both blocks are as long as what is copied.
        unsafe {
            let new = Layout::from_size_align_unchecked(size, layout.align());
            match (is_large(layout), is_large(new)) {
                (false, false) => MiMalloc.realloc(start, layout, size),
                (true, true) if taken(layout.size()) == taken(size) => start,
                _ => {
                    let to = self.alloc(new);
                    if !to.is_null() {
                        start.copy_to_nonoverlapping(to, layout.size().min(size));
                        self.dealloc(start, layout);
                    }
                    to
                }
            }
        }
    }
}

/// Memory fresh from the system, at least `size` bytes.
fn region(size: usize) -> Option<Block> {
    for size in [size.max(REGION), size] {
        // The page behind keeps regions from being joined.
        let layout = Layout::from_size_align(size.checked_add(GRAIN)?, HUGE).ok()?;
        // SAFETY: the size is not 0.
        let start = unsafe { System.alloc(layout) };
        if !start.is_null() {
            advise(start, size);
            return Some(Block { start, size });
        }
    }
    None
}

/// Asks for huge pages: steps walk through gigabytes, and a lookup for every 4 KiB is felt.
fn advise(start: *mut u8, size: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: advice about memory of our own; that it is not taken does no harm.
    unsafe {
        libc::madvise(start.cast(), size, libc::MADV_HUGEPAGE);
    }
    let _ = (start, size);
}

/// Free or taken memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    start: *mut u8,
    size: usize,
}

impl Block {
    fn end(&self) -> *mut u8 {
        self.start.wrapping_add(self.size)
    }
}

// SAFETY: a block is memory that nobody uses; whoever takes it may be on any thread.
unsafe impl Send for Block {}

/// Free blocks by address, no two of them adjacent.
struct Pool {
    free: Vec<Block>,
}

impl Pool {
    /// The smallest block that is long enough, the rest of it left: what was touched before is used before what was not.
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        let fits = self.free.iter().enumerate().filter(|(_, block)| block.size >= size);
        let (at, _) = fits.min_by_key(|(_, block)| block.size)?;
        let block = &mut self.free[at];
        let start = block.start;
        if block.size == size {
            self.free.remove(at);
        } else {
            *block = Block { start: start.wrapping_add(size), size: block.size - size };
        }
        Some(start)
    }

    /// A block that is free from now on, joined with its neighbours.
    fn give(&mut self, block: Block) {
        let at = self.free.partition_point(|other| other.start < block.start);
        let joins_next = self.free.get(at).is_some_and(|next| next.start == block.end());
        let before = at.checked_sub(1).filter(|&before| self.free[before].end() == block.start);
        match (before, joins_next) {
            (Some(before), true) => {
                self.free[before].size += block.size + self.free[at].size;
                self.free.remove(at);
            }
            (Some(before), false) => self.free[before].size += block.size,
            (None, true) => {
                let next = &mut self.free[at];
                *next = Block { start: block.start, size: block.size + next.size };
            }
            // Sound though the list itself may grow here: it is far smaller than what comes out of the pool.
            (None, false) => self.free.insert(at, block),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that nothing is behind.
    fn at(address: usize) -> *mut u8 {
        std::ptr::without_provenance_mut(address)
    }

    #[test]
    fn neighbours_join_again() {
        let mut pool = Pool { free: Vec::new() };
        let whole = Block { start: at(1 << 20), size: 1 << 16 };
        pool.give(whole);
        // Every order of returning six blocks of different sizes, by the digits of a counter.
        let sizes = [64, 640, 1024, 64, 4096, 128];
        for order in 0..720 {
            let mut taken: Vec<Block> =
                sizes.map(|size| Block { start: pool.take(size).expect("there is room"), size }).to_vec();
            taken.sort_by_key(|block| block.start);
            assert!(taken.windows(2).all(|pair| pair[0].end() <= pair[1].start), "blocks overlap");
            let mut rest = order;
            while !taken.is_empty() {
                let digit = rest % taken.len();
                rest /= taken.len();
                pool.give(taken.remove(digit));
                assert!(pool.free.windows(2).all(|pair| pair[0].end() < pair[1].start), "neighbours apart");
            }
            assert_eq!(pool.free, [whole]);
        }
        assert_eq!(pool.take((1 << 16) + 64), None);
    }

    #[test]
    fn the_smallest_that_fits_is_taken() {
        let mut pool = Pool { free: Vec::new() };
        for (address, size) in [(1 << 20, 4096), (2 << 20, 256), (3 << 20, 512)] {
            pool.give(Block { start: at(address), size });
        }
        assert_eq!(pool.take(256), Some(at(2 << 20)));
        assert_eq!(pool.take(256), Some(at(3 << 20)));
        assert_eq!(pool.take(512), Some(at(1 << 20)));
        assert_eq!(pool.take(256), Some(at((3 << 20) + 256)));
    }

    /// Through the allocator of this test program, which is the one above.
    #[test]
    fn contents_move_between_small_and_large() {
        let mut numbers: Vec<u32> = Vec::new();
        for length in [1, LARGE / 4 - 1, LARGE / 4, LARGE, 3 * LARGE, 10, LARGE] {
            numbers.truncate(length);
            numbers.shrink_to_fit();
            numbers.reserve_exact(length - numbers.len());
            numbers.extend(numbers.len() as u32..length as u32);
            assert!(numbers.iter().zip(0u32..).all(|(&number, i)| number == i), "{length}");
        }
        drop(numbers);
        assert!(vec![0u8; 4 * LARGE].iter().all(|&byte| byte == 0), "cleared, whatever was there before");
    }
}
