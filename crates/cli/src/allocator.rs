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
use std::collections::{BTreeMap, BTreeSet};
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
static POOL: Mutex<Pool> = Mutex::new(Pool::new());

fn pool() -> MutexGuard<'static, Pool> {
    POOL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that a block of `size` takes. A layout has at most `isize::MAX` bytes, so this cannot wrap.
fn taken(size: usize) -> usize {
    (size + APART).next_multiple_of(GRAIN)
}

fn is_large(layout: Layout) -> bool {
    layout.size() >= LARGE && layout.align() <= GRAIN
}

// SAFETY: where a block comes from depends on its layout alone, so it goes back there; `Pool` hands out each byte once, and its blocks begin at
// multiples of `GRAIN`, since regions do and sizes are such.
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
        // Regions begin at huge pages, and what is left behind each keeps it from being joined with the next.
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

/// Free blocks, no two of them adjacent.
///
/// The trees have memory of their own, which comes through this very allocator while the pool is locked. Their nodes are small, however
/// many blocks there are, so they come from elsewhere and not out of the pool. A single list of all blocks would not do: it becomes large.
struct Pool {
    /// Sizes by where blocks begin.
    by_place: BTreeMap<*mut u8, usize>,
    /// Sizes and where blocks begin, in this order.
    by_size: BTreeSet<(usize, *mut u8)>,
}

// SAFETY: a free block is memory that nobody uses; whoever takes it may be on any thread.
unsafe impl Send for Pool {}

impl Pool {
    const fn new() -> Self {
        Self { by_place: BTreeMap::new(), by_size: BTreeSet::new() }
    }

    /// The smallest block that is long enough, the rest of it left: what was touched before is used before what was not.
    fn take(&mut self, size: usize) -> Option<*mut u8> {
        let &(whole, start) = self.by_size.range((size, std::ptr::null_mut())..).next()?;
        self.remove(Block { start, size: whole });
        if whole > size {
            self.insert(Block { start: start.wrapping_add(size), size: whole - size });
        }
        Some(start)
    }

    /// A block that is free from now on, joined with its neighbours.
    fn give(&mut self, block: Block) {
        let Block { mut start, mut size } = block;
        let next = self.by_place.get(&block.end()).map(|&size| Block { start: block.end(), size });
        let before = self.by_place.range(..start).next_back().map(|(&start, &size)| Block { start, size });
        if let Some(next) = next {
            self.remove(next);
            size += next.size;
        }
        if let Some(before) = before.filter(|before| before.end() == start) {
            self.remove(before);
            (start, size) = (before.start, before.size + size);
        }
        self.insert(Block { start, size });
    }

    fn insert(&mut self, block: Block) {
        self.by_place.insert(block.start, block.size);
        self.by_size.insert((block.size, block.start));
    }

    fn remove(&mut self, block: Block) {
        self.by_place.remove(&block.start);
        self.by_size.remove(&(block.size, block.start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses that nothing is behind.
    fn at(address: usize) -> *mut u8 {
        std::ptr::without_provenance_mut(address)
    }

    /// By place; both trees hold the same.
    fn free(pool: &Pool) -> Vec<Block> {
        let blocks: Vec<Block> = pool.by_place.iter().map(|(&start, &size)| Block { start, size }).collect();
        assert!(pool.by_size == blocks.iter().map(|block| (block.size, block.start)).collect());
        blocks
    }

    #[test]
    fn neighbours_join_again() {
        let mut pool = Pool::new();
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
                assert!(free(&pool).windows(2).all(|pair| pair[0].end() < pair[1].start), "neighbours apart");
            }
            assert_eq!(free(&pool), [whole]);
        }
        assert_eq!(pool.take((1 << 16) + 64), None);
    }

    #[test]
    fn the_smallest_that_fits_is_taken() {
        let mut pool = Pool::new();
        for (address, size) in [(1 << 20, 4096), (2 << 20, 256), (3 << 20, 512)] {
            pool.give(Block { start: at(address), size });
        }
        assert_eq!(pool.take(256), Some(at(2 << 20)));
        assert_eq!(pool.take(256), Some(at(3 << 20)));
        assert_eq!(pool.take(512), Some(at(1 << 20)));
        assert_eq!(pool.take(256), Some(at((3 << 20) + 256)));
    }

    /// Through the allocator of this test program, which is the one above. Pages that nobody touches take no memory.
    #[test]
    fn thousands_of_fragments_are_kept() {
        let mut vectors: Vec<Option<Vec<u8>>> = (0..18_000).map(|_| Some(Vec::with_capacity(LARGE))).collect();
        vectors.iter_mut().step_by(2).for_each(|vector| *vector = None);
        assert!(POOL.lock().is_ok_and(|pool| pool.by_place.len() > 1000), "fragments");
        let again: Vec<Vec<u8>> = (0..9_000).map(|_| Vec::with_capacity(LARGE)).collect();
        let mut places: Vec<_> = vectors.iter().flatten().chain(&again).map(|vector| vector.as_ptr().addr()).collect();
        places.sort_unstable();
        assert!(places.len() == 18_000 && places.windows(2).all(|pair| pair[0] + taken(LARGE) <= pair[1]), "overlap");
    }

    #[test]
    fn what_no_memory_has_room_for_is_an_error() {
        let mut bytes: Vec<u8> = Vec::new();
        assert!(bytes.try_reserve_exact(isize::MAX as usize).is_err());
        assert!(bytes.try_reserve_exact(isize::MAX as usize - APART).is_err());
        // SAFETY: the size is not 0, and a block that does not exist is not used.
        let start = unsafe { Allocator.alloc(Layout::from_size_align(isize::MAX as usize - 63, GRAIN).unwrap()) };
        assert!(start.is_null());
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
