//! Run-time choice of the SIMD level, and the few vector primitives that kernels share.
//!
//! A kernel's inner loop is written once as plain Rust; `simd!` compiles it for each level and picks one when called.

use std::sync::OnceLock;

/// What the processor offers, as far as the kernels use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// What the target guarantees: SSE2 on x86-64, NEON on aarch64.
    Baseline,
    /// AVX2 with fused multiply-add.
    Avx2,
    /// AVX-512 F, VL, DQ and BW.
    Avx512,
}

impl Level {
    /// From the lowest.
    const ALL: [Self; 3] = [Self::Baseline, Self::Avx2, Self::Avx512];

    /// As `VQDNA_SIMD` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Baseline => "baseline",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }
}

/// Why kernels cannot run at the level that `VQDNA_SIMD` asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SimdError {
    /// No level has this name.
    #[error("VQDNA_SIMD is `{}`, but must be one of baseline, avx2, avx512; without it the best level of the processor is used", .0.escape_debug())]
    Unknown(String),
    /// The processor does not have it.
    #[error("VQDNA_SIMD is `{}`, but the best level of this processor is {}", .asked.name(), .best.name())]
    Missing {
        /// The requested value.
        asked: Level,
        /// The highest there is.
        best: Level,
    },
}

/// The level that `VQDNA_SIMD=baseline|avx2|avx512` asks for, or where it is not set or empty the best one of this processor.
///
/// A program that runs kernels calls this first, and ends with the error: without it the first kernel panics.
///
/// # Errors
/// If no level has that name, or the processor does not have it: the requested level is never replaced by another.
pub fn check_environment() -> Result<Level, SimdError> {
    let asked = std::env::var_os("VQDNA_SIMD").map(|value| value.to_string_lossy().into_owned());
    choose(asked.as_deref().unwrap_or_default(), best())
}

fn choose(asked: &str, best: Level) -> Result<Level, SimdError> {
    if asked.is_empty() {
        return Ok(best);
    }
    let known = Level::ALL.into_iter().find(|level| level.name() == asked);
    let asked = known.ok_or_else(|| SimdError::Unknown(asked.to_owned()))?;
    if asked > best { Err(SimdError::Missing { asked, best }) } else { Ok(asked) }
}

/// The level in use, as [`check_environment`] found it when it was first needed; it does not change.
///
/// # Panics
/// If `VQDNA_SIMD` asks for a level that there is not.
pub fn level() -> Level {
    static LEVEL: OnceLock<Level> = OnceLock::new();
    *LEVEL.get_or_init(|| check_environment().unwrap_or_else(|error| panic!("{error}")))
}

/// The best level of this processor. An interpreter of Rust does not have the instructions.
#[cfg(all(target_arch = "x86_64", not(miri)))]
fn best() -> Level {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512bw");
    match (avx2, avx512) {
        (true, true) => Level::Avx512,
        (true, false) => Level::Avx2,
        _ => Level::Baseline,
    }
}

/// Whether the processor multiplies bf16 itself; elsewhere products of bf16 are computed in `f32`.
pub fn native_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        static FOUND: OnceLock<bool> = OnceLock::new();
        level() == Level::Avx512 && *FOUND.get_or_init(|| is_x86_feature_detected!("avx512bf16"))
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(any(not(target_arch = "x86_64"), miri))]
fn best() -> Level {
    Level::Baseline
}

/// Whether the baseline of this target multiplies and adds in one instruction; elsewhere `mul_add` would be a library call.
pub(crate) const BASELINE_FMA: bool = cfg!(target_arch = "aarch64");

/// Defines a function whose body is compiled for every [`Level`]. The identifier in brackets is a constant in the body:
/// whether fused multiply-add is an instruction. A lifetime may stand before it, for a function that returns what it wrote.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident$(<$life:lifetime>)?[$fma:ident]($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name$(<$life>)?($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn body<$($life,)? const $fma: bool>($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
            fn avx512$(<$life>)?($($arg: $type),*) $(-> $out)? { body::<true>($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2$(<$life>)?($($arg: $type),*) $(-> $out)? { body::<true>($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            match $crate::simd::level() {
                // SAFETY: `level` has found these features on this processor.
                $crate::simd::Level::Avx512 => return unsafe { avx512($($arg),*) },
                // SAFETY: as above.
                $crate::simd::Level::Avx2 => return unsafe { avx2($($arg),*) },
                $crate::simd::Level::Baseline => {}
            }
            body::<{ $crate::simd::BASELINE_FMA }>($($arg),*)
        }
    };
}
pub(crate) use simd;

/// `a * b + c`, in one rounding where the processor can.
#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Independent partial results of a reduction; their number fixes its order, whatever the vector width.
pub(crate) const LANES: usize = 32;

/// Sum of `f(i)` over a row, in an order that depends on its length only.
#[inline(always)]
pub(crate) fn sum_by(length: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let whole = length / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
        i += LANES;
    }
    (whole..length).fold(sum_lanes(&lanes), |sum, i| sum + f(i))
}

/// Halves added to halves.
#[inline(always)]
pub(crate) fn sum_lanes(lanes: &[f32; LANES]) -> f32 {
    let a: [f32; 16] = std::array::from_fn(|i| lanes[i] + lanes[i + 16]);
    let b: [f32; 8] = std::array::from_fn(|i| a[i] + a[i + 8]);
    let c: [f32; 4] = std::array::from_fn(|i| b[i] + b[i + 4]);
    (c[0] + c[2]) + (c[1] + c[3])
}

/// Asks for the lines of `data` ahead of their use: for what the processor does not foresee, as rows far apart.
#[inline(always)]
pub(crate) fn prefetch<T>(data: &[T]) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    for line in data.chunks(64 / size_of::<T>()) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, here about memory that exists; every x86-64 processor has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
    #[cfg(any(not(target_arch = "x86_64"), miri))]
    let _ = data;
}

/// `e^x` for finite `x`, relative error below 2e-7; 0 below −87.3 in effect, capped above 88.
///
/// Range reduction to `|r| ≤ ln 2 / 2` and the degree-5 polynomial of the Cephes library (Moshier).
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Adding 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.0;
    // Few bits, so that its products with small integers are exact; the rest of ln 2 follows.
    #[expect(clippy::excessive_precision, reason = "written out, it shows that it is 355 / 512")]
    const LN_2_HIGH: f32 = 0.693_359_375;
    let x = x.clamp(-87.3, 88.0);
    let shifted = fma::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = fma::<FMA>(n, -LN_2_HIGH, x);
    let r = fma::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.987_569_1e-4;
    for c in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = fma::<FMA>(p, r, c);
    }
    let y = fma::<FMA>(p, r * r, r) + 1.0;
    let two_to_n = (shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23;
    y * f32::from_bits(two_to_n)
}

/// `2^x` for `x` up to 127, relative error below 2e-7; exactly 0 below −126.5, so for −∞ too.
///
/// The degree-6 polynomial of the Cephes library (Moshier) on `|r| ≤ ½`. Cheaper than [`exp`]: the remainder is exact.
#[inline(always)]
pub(crate) fn exp2<const FMA: bool>(x: f32) -> f32 {
    // As in `exp`.
    const ROUND: f32 = 12_582_912.0;
    // Written so that it is one instruction; `f32::max` asks for more care with NaN.
    let x = if x > -127.0 { x } else { -127.0 };
    let shifted = x + ROUND;
    let r = x - (shifted - ROUND);
    let mut p = 1.535_336_2e-4;
    for c in [1.339_887_5e-3, 9.618_437e-3, 5.550_332_5e-2, 2.402_264_8e-1, 6.931_472e-1, 1.0] {
        p = fma::<FMA>(p, r, c);
    }
    // The exponent of 2⁻¹²⁷ is that of 0.
    p * f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127)) << 23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_chosen_by_its_name_alone() {
        assert_eq!(choose("", Level::Avx2), Ok(Level::Avx2));
        for level in Level::ALL {
            assert_eq!(choose(level.name(), Level::Avx512), Ok(level));
        }
        for typo in ["AVX2", "avx-512", "best", " avx2", "avx2 "] {
            assert_eq!(choose(typo, Level::Avx512), Err(SimdError::Unknown(typo.to_owned())));
            let said = choose(typo, Level::Avx512).unwrap_err().to_string();
            assert!(said.contains(typo) && said.contains("baseline, avx2, avx512"), "{said}");
        }
        let missing = choose("avx512", Level::Avx2).unwrap_err();
        assert_eq!(missing.to_string(), "VQDNA_SIMD is `avx512`, but the best level of this processor is avx2");
    }

    #[test]
    fn the_level_in_use_is_the_one_asked_for() {
        assert_eq!(Ok(level()), check_environment());
    }

    #[test]
    fn exp2_is_close_to_the_library() {
        for i in -12_640..12_700i16 {
            let x = f32::from(i) * 0.01;
            let (got, want) = (f64::from(exp2::<true>(x)), f64::from(x).exp2());
            assert!((got - want).abs() <= 2e-7 * want, "exp2({x}) = {got}, not {want}");
            assert!((f64::from(exp2::<false>(x)) - want).abs() <= 2e-7 * want);
        }
        assert_eq!([exp2::<true>(f32::NEG_INFINITY), exp2::<true>(-127.0), exp2::<true>(0.0)], [0.0, 0.0, 1.0]);
    }

    #[test]
    fn exp_is_close_to_the_library() {
        for i in -8700..8800i16 {
            let x = f32::from(i) * 0.01;
            let (got, want) = (f64::from(exp::<true>(x)), f64::from(x).exp());
            assert!((got - want).abs() <= 3e-7 * want, "exp({x}) = {got}, not {want}");
            assert!((f64::from(exp::<false>(x)) - want).abs() <= 3e-7 * want);
        }
    }

    #[test]
    fn sums_of_any_length() {
        for n in [0usize, 1, 31, 32, 33, 100] {
            assert_eq!(sum_by(n, |i| i as f32), (0..n).sum::<usize>() as f32);
        }
    }
}
