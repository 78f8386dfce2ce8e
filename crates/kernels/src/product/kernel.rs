//! The micro-kernel: a block of the output in registers, one multiply-add after another.
//!
//! A block is [`ROWS`] rows by some vectors of columns. A step loads one row of a panel, and for each row of the block spreads one
//! unit of the left operand over a vector: 24 multiply-adds for 10 loads with AVX-512, 12 for 8 with AVX2.

use super::unit::Unit;
use crate::simd::{Level, level, native_bf16};

/// Rows of a block: with four vectors of columns they fill 24 of the 32 registers of AVX-512, with two 12 of AVX2's 16.
pub(super) const ROWS: usize = 6;

/// How the left operand lies in memory.
#[derive(Clone, Copy)]
pub(super) enum Layout {
    /// Steps of a row are adjacent; rows begin this many units apart.
    Rows(usize),
    /// Rows of a step are adjacent; steps begin this many units apart.
    Steps(usize),
}

/// What a block begins with.
#[derive(Clone, Copy)]
pub(super) enum Start {
    Zero,
    Output,
    Row(*const f32),
}

/// `rows` rows of a left operand times some panels.
pub(super) struct Sweep<U> {
    pub left: *const U,
    pub layout: Layout,
    pub rows: usize,
    pub steps: usize,
    pub right: *const U,
    /// Units from one panel to the next.
    pub panel_stride: usize,
    pub cols: usize,
    pub out: *mut f32,
    /// Floats from one row of the output to the next.
    pub stride: usize,
    pub start: Start,
}

/// Columns of a panel, as the SIMD level wants it.
pub fn panel_width() -> usize {
    match level() {
        Level::Avx512 => 64,
        Level::Avx2 => 16,
        Level::Baseline => 8,
    }
}

/// Writes all rows and columns of the output; reads them only if it starts from them.
///
/// # Safety
/// `left` and `right` must be valid to read for all rows, steps and columns of the sweep, a row to start from for all columns, `out` to
/// write and, if the sweep starts from the output, to read; and nobody else may use `out` meanwhile. Of the last panel all columns must
/// be there, also those beyond `cols`.
pub(super) unsafe fn sweep<U: Unit>(s: &Sweep<U>) {
    #[cfg(target_arch = "x86_64")]
    {
        use x86::{Native, Wide, Ymm};
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma,avx512bf16")]
        unsafe fn avx512_bf16<U: Unit>(s: &Sweep<U>) {
            // SAFETY: as the caller promises.
            unsafe { all_blocks::<Native, U, 4, 2>(s) }
        }
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        unsafe fn avx512<U: Unit>(s: &Sweep<U>) {
            // SAFETY: as the caller promises.
            unsafe { all_blocks::<Wide, U, 4, 2>(s) }
        }
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2<U: Unit>(s: &Sweep<U>) {
            // SAFETY: as the caller promises.
            unsafe { all_blocks::<Ymm, U, 2, 1>(s) }
        }
        match level() {
            // SAFETY: `level` and `native_bf16` have found the features; the rest is the caller's promise.
            Level::Avx512 if U::DEPTH > 1 && native_bf16() => return unsafe { avx512_bf16(s) },
            // SAFETY: as above.
            Level::Avx512 => return unsafe { avx512(s) },
            // SAFETY: as above.
            Level::Avx2 => return unsafe { avx2(s) },
            Level::Baseline => {}
        }
    }
    // SAFETY: as the caller promises.
    unsafe { all_blocks::<Portable, U, 2, 1>(s) }
}

/// Panel by panel: of one that is at most half full, only the first half of the vectors.
///
/// # Safety
/// As [`sweep`]; the processor has what `V` needs, and `VECTORS * V::LANES` is the width of a panel, `HALF` half of `VECTORS`.
#[inline(always)]
unsafe fn all_blocks<V: Vector, U: Unit, const VECTORS: usize, const HALF: usize>(s: &Sweep<U>) {
    let width = VECTORS * V::LANES;
    for (panel, column) in (0..s.cols).step_by(width).enumerate() {
        let cols = width.min(s.cols - column);
        // SAFETY: as the caller promises.
        unsafe {
            if cols <= HALF * V::LANES {
                panel_blocks::<V, U, VECTORS, HALF>(s, panel, column, cols);
            } else {
                panel_blocks::<V, U, VECTORS, VECTORS>(s, panel, column, cols);
            }
        }
    }
}

/// Block by block: a panel stays in cache while all rows pass.
///
/// # Safety
/// As [`all_blocks`], with `PANEL * V::LANES` the width of a panel, of which `VECTORS * V::LANES` hold all columns.
#[inline(always)]
unsafe fn panel_blocks<V: Vector, U: Unit, const PANEL: usize, const VECTORS: usize>(
    s: &Sweep<U>,
    panel: usize,
    column: usize,
    cols: usize,
) {
    let mut row = 0;
    while row < s.rows {
        // SAFETY: `row`, `column` and `panel` are inside the sweep.
        unsafe {
            let at = Block {
                left: s.left.add(match s.layout {
                    Layout::Rows(stride) => row * stride,
                    Layout::Steps(_) => row,
                }),
                right: s.right.add(panel * s.panel_stride),
                out: s.out.add(row * s.stride + column),
                start: match s.start {
                    Start::Row(first) => Start::Row(first.add(column)),
                    other => other,
                },
                cols,
            };
            match s.rows - row {
                1 => edge::<V, U, 1, PANEL, VECTORS>(s, &at),
                2 => edge::<V, U, 2, PANEL, VECTORS>(s, &at),
                3 => edge::<V, U, 3, PANEL, VECTORS>(s, &at),
                4 => edge::<V, U, 4, PANEL, VECTORS>(s, &at),
                5 => edge::<V, U, 5, PANEL, VECTORS>(s, &at),
                _ => edge::<V, U, ROWS, PANEL, VECTORS>(s, &at),
            }
        }
        row += ROWS;
    }
}

/// Where a block is.
struct Block<U> {
    left: *const U,
    right: *const U,
    out: *mut f32,
    start: Start,
    /// Columns that exist.
    cols: usize,
}

/// A block, through a copy where the panel has fewer columns than vectors hold.
///
/// # Safety
/// As [`panel_blocks`], and `R` rows of the block are there.
#[inline(always)]
unsafe fn edge<V: Vector, U: Unit, const R: usize, const PANEL: usize, const VECTORS: usize>(
    s: &Sweep<U>,
    at: &Block<U>,
) {
    /// Columns of the widest panel.
    const WIDEST: usize = 64;
    let width = VECTORS * V::LANES;
    // SAFETY: the copies stay within `cols` columns of `R` rows, which the sweep has, and have room for `width` columns of as many.
    unsafe {
        if at.cols == width {
            return block::<V, U, R, PANEL, VECTORS>(s, at.left, at.right, at.out, s.stride, at.start);
        }
        let (mut copy, mut first) = ([0.0f32; ROWS * WIDEST], [0.0f32; WIDEST]);
        if matches!(at.start, Start::Output) {
            for r in 0..R {
                at.out.add(r * s.stride).copy_to_nonoverlapping(copy.as_mut_ptr().add(r * width), at.cols);
            }
        }
        let start = match at.start {
            Start::Row(row) => {
                row.copy_to_nonoverlapping(first.as_mut_ptr(), at.cols);
                Start::Row(first.as_ptr())
            }
            other => other,
        };
        block::<V, U, R, PANEL, VECTORS>(s, at.left, at.right, copy.as_mut_ptr(), width, start);
        for r in 0..R {
            at.out.add(r * s.stride).copy_from_nonoverlapping(copy.as_ptr().add(r * width), at.cols);
        }
    }
}

/// # Safety
/// As [`panel_blocks`]; `R` rows of `VECTORS * V::LANES` columns are there, of `out` and of a row to start from too.
#[inline(always)]
unsafe fn block<V: Vector, U: Unit, const R: usize, const PANEL: usize, const VECTORS: usize>(
    s: &Sweep<U>,
    left: *const U,
    right: *const U,
    out: *mut f32,
    stride: usize,
    start: Start,
) {
    // SAFETY: every row, step and column of the block is inside the sweep; only what it starts from is read before it is written.
    unsafe {
        let mut sums = [[V::zero(); VECTORS]; R];
        match start {
            Start::Zero => {}
            Start::Output => {
                for (r, row) in sums.iter_mut().enumerate() {
                    for (v, sum) in row.iter_mut().enumerate() {
                        *sum = V::load(out.add(r * stride + v * V::LANES));
                    }
                }
            }
            Start::Row(first) => {
                for row in &mut sums {
                    for (v, sum) in row.iter_mut().enumerate() {
                        *sum = V::load(first.add(v * V::LANES));
                    }
                }
            }
        }
        match s.layout {
            Layout::Rows(gap) => {
                let rows: [*const U; R] = std::array::from_fn(|r| left.add(r * gap));
                for step in 0..s.steps {
                    let right = right.add(step * PANEL * V::LANES);
                    one_step::<V, U, R, VECTORS>(&mut sums, |r| rows[r].add(step), right);
                }
            }
            Layout::Steps(gap) => {
                for step in 0..s.steps {
                    let right = right.add(step * PANEL * V::LANES);
                    let left = left.add(step * gap);
                    one_step::<V, U, R, VECTORS>(&mut sums, |r| left.add(r), right);
                }
            }
        }
        for (r, row) in sums.iter().enumerate() {
            for (v, &sum) in row.iter().enumerate() {
                V::store(sum, out.add(r * stride + v * V::LANES));
            }
        }
    }
}

/// # Safety
/// As [`block`]: `right` is the row of a panel, and `left` gives a unit for each of `R` rows.
#[inline(always)]
unsafe fn one_step<V: Vector, U: Unit, const R: usize, const VECTORS: usize>(
    sums: &mut [[V; VECTORS]; R],
    left: impl Fn(usize) -> *const U,
    right: *const U,
) {
    // SAFETY: as the caller promises.
    unsafe {
        let right: [V; VECTORS] = std::array::from_fn(|v| V::load(right.add(v * V::LANES).cast()));
        for (r, sums) in sums.iter_mut().enumerate() {
            let left = V::splat(left(r).cast());
            for (sum, &right) in sums.iter_mut().zip(&right) {
                *sum = if U::DEPTH == 1 { V::mul_add(left, right, *sum) } else { V::pair_add(left, right, *sum) };
            }
        }
    }
}

/// A vector of 32-bit lanes.
///
/// # Safety
/// Of each function: the processor has the instructions that the implementation uses. Where it reads or writes, as many lanes are there,
/// aligned as an `f32` is; `splat` reads one.
trait Vector: Copy {
    const LANES: usize;
    unsafe fn zero() -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// The 32 bits at `from` in all lanes.
    unsafe fn splat(from: *const f32) -> Self;
    unsafe fn mul_add(a: Self, b: Self, sum: Self) -> Self;
    /// `sum` plus the two products of the bf16 in each lane.
    unsafe fn pair_add(a: Self, b: Self, sum: Self) -> Self;
}

/// Four floats, left to the compiler: SSE2 or NEON.
#[derive(Clone, Copy)]
struct Portable([f32; 4]);

impl Portable {
    #[inline(always)]
    fn halves(self) -> [Self; 2] {
        let low = self.0.map(|v| f32::from_bits(v.to_bits() << 16));
        let high = self.0.map(|v| f32::from_bits(v.to_bits() & 0xFFFF_0000));
        [Self(low), Self(high)]
    }
}

impl Vector for Portable {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: four floats are there; a slice of f32 need not be aligned for more.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn splat(from: *const f32) -> Self {
        // SAFETY: one float is there.
        Self([unsafe { *from }; 4])
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self, b: Self, sum: Self) -> Self {
        use crate::simd::{BASELINE_FMA, fma};
        Self(std::array::from_fn(|i| fma::<BASELINE_FMA>(a.0[i], b.0[i], sum.0[i])))
    }

    #[inline(always)]
    unsafe fn pair_add(a: Self, b: Self, sum: Self) -> Self {
        let ([a0, a1], [b0, b1]) = (a.halves(), b.halves());
        // SAFETY: nothing is read.
        unsafe { Self::mul_add(a1, b1, Self::mul_add(a0, b0, sum)) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Vector;
    use std::arch::x86_64::{
        __m256, __m512, __m512bh, _mm256_and_ps, _mm256_castps_si256, _mm256_castsi256_ps, _mm256_fmadd_ps,
        _mm256_loadu_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_storeu_ps,
        _mm512_and_ps, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_ps, _mm512_slli_epi32, _mm512_storeu_ps,
    };

    /// AVX2 with FMA.
    #[derive(Clone, Copy)]
    pub(super) struct Ymm(__m256);

    impl Vector for Ymm {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { _mm256_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { _mm256_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as the trait asks of the caller.
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { _mm256_set1_ps(*from) })
        }

        #[inline(always)]
        unsafe fn mul_add(a: Self, b: Self, sum: Self) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { _mm256_fmadd_ps(a.0, b.0, sum.0) })
        }

        #[inline(always)]
        unsafe fn pair_add(a: Self, b: Self, sum: Self) -> Self {
            // SAFETY: as the trait asks of the caller.
            unsafe {
                let low = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_castps_si256(v)));
                let high = |v| _mm256_and_ps(v, _mm256_castsi256_ps(_mm256_set1_epi32(0xFFFF_0000u32 as i32)));
                let sum = _mm256_fmadd_ps(low(a.0), low(b.0), sum.0);
                Self(_mm256_fmadd_ps(high(a.0), high(b.0), sum))
            }
        }
    }

    /// AVX-512, bf16 by shifts.
    #[derive(Clone, Copy)]
    pub(super) struct Wide(__m512);

    impl Vector for Wide {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { _mm512_setzero_ps() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { _mm512_loadu_ps(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as the trait asks of the caller.
            unsafe { _mm512_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { _mm512_set1_ps(*from) })
        }

        #[inline(always)]
        unsafe fn mul_add(a: Self, b: Self, sum: Self) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { _mm512_fmadd_ps(a.0, b.0, sum.0) })
        }

        #[inline(always)]
        unsafe fn pair_add(a: Self, b: Self, sum: Self) -> Self {
            // SAFETY: as the trait asks of the caller.
            unsafe {
                let low = |v| _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_castps_si512(v)));
                let high = |v| _mm512_and_ps(v, _mm512_castsi512_ps(_mm512_set1_epi32(0xFFFF_0000u32 as i32)));
                let sum = _mm512_fmadd_ps(low(a.0), low(b.0), sum.0);
                Self(_mm512_fmadd_ps(high(a.0), high(b.0), sum))
            }
        }
    }

    /// AVX-512 with its bf16 products.
    #[derive(Clone, Copy)]
    pub(super) struct Native(Wide);

    impl Vector for Native {
        const LANES: usize = 16;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { Wide::zero() })
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { Wide::load(from) })
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            // SAFETY: as the trait asks of the caller.
            unsafe { self.0.store(to) }
        }

        #[inline(always)]
        unsafe fn splat(from: *const f32) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { Wide::splat(from) })
        }

        #[inline(always)]
        unsafe fn mul_add(a: Self, b: Self, sum: Self) -> Self {
            // SAFETY: as the trait asks of the caller.
            Self(unsafe { Wide::mul_add(a.0, b.0, sum.0) })
        }

        #[inline(always)]
        unsafe fn pair_add(a: Self, b: Self, sum: Self) -> Self {
            // SAFETY: as the trait asks of the caller; bits of 32 bf16 either way.
            unsafe {
                let bits = |v: Self| std::mem::transmute::<__m512, __m512bh>(v.0.0);
                Self(Wide(_mm512_dpbf16_ps(sum.0.0, bits(a), bits(b))))
            }
        }
    }
}
