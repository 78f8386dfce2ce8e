//! Exact GELU, `x · Φ(x)` (Hendrycks and Gimpel 2016), and its derivative.

#[cfg(target_arch = "x86_64")]
pub(crate) mod strips;
#[cfg(target_arch = "x86_64")]
mod table;

use crate::rows::with_scratch;
use crate::shape::fits;
use crate::simd::{Level, exp, fma, level, simd};

/// `Φ(x)` and `exp(−x²/2)`. The error function is formula 7.1.26 of Abramowitz and Stegun, absolute error 1.5e-7.
#[inline(always)]
fn cdf_and_bell<const FMA: bool>(x: f32) -> (f32, f32) {
    let u = x.abs() * std::f32::consts::FRAC_1_SQRT_2;
    let bell = exp::<FMA>(-u * u);
    let t = 1.0 / fma::<FMA>(0.327_591_1, u, 1.0);
    let mut p = 1.061_405_4;
    for c in [-1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6] {
        p = fma::<FMA>(p, t, c);
    }
    let tail = 0.5 * p * t * bell;
    (if x >= 0.0 { 1.0 - tail } else { tail }, bell)
}

/// `1 / √(2π)`.
const INV_SQRT_TAU: f32 = 0.398_942_3;

#[inline(always)]
pub(crate) fn value<const FMA: bool>(x: f32) -> f32 {
    x * cdf_and_bell::<FMA>(x).0
}

/// GELU and its derivative at `x`.
#[inline(always)]
pub(crate) fn value_and_slope<const FMA: bool>(x: f32) -> (f32, f32) {
    let (cdf, bell) = cdf_and_bell::<FMA>(x);
    (x * cdf, fma::<FMA>(x * INV_SQRT_TAU, bell, cdf))
}

/// `x ← gelu(x)`.
pub fn in_place(x: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: the processor has AVX-512.
        return unsafe { table::in_place(x) };
    }
    in_place_by_formula(x);
}

/// `gelu(x)` into `out`, which is as long.
pub(crate) fn forward(x: &[f32], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if strips::are_there::<f32>() {
        return strips::forward(x, x.len(), out);
    }
    out.copy_from_slice(x);
    in_place_by_formula(out);
}

/// `x ← gelu(x)` and `dy ← dy · gelu'(x)`, in one pass.
///
/// # Panics
/// If the lengths differ.
pub fn with_gradient(x: &mut [f32], dy: &mut [f32]) {
    fits("dy", dy, &[x.len()]);
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: the processor has AVX-512; both are as long.
        return unsafe { table::with_gradient(x, dy) };
    }
    with_gradient_by_formula(x, dy);
}

/// `dy ← dy · gelu'(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn backward(x: &[f32], dy: &mut [f32]) {
    /// Elements whose values are computed beside their slopes and dropped.
    const TOGETHER: usize = 1 << 10;
    fits("dy", dy, &[x.len()]);
    with_scratch([x.len().min(TOGETHER)], |[copy]| {
        for (x, dy) in x.chunks(TOGETHER).zip(dy.chunks_mut(TOGETHER)) {
            let copy = &mut copy[..x.len()];
            copy.copy_from_slice(x);
            with_gradient(copy, dy);
        }
    });
}

simd! {
    fn in_place_by_formula[FMA](x: &mut [f32]) {
        for x in x {
            *x = value::<FMA>(*x);
        }
    }
}

simd! {
    fn with_gradient_by_formula[FMA](x: &mut [f32], dy: &mut [f32]) {
        for (x, dy) in x.iter_mut().zip(dy) {
            let (value, slope) = value_and_slope::<FMA>(*x);
            *x = value;
            *dy *= slope;
        }
    }
}

/// The error function in double precision.
#[cfg(any(test, target_arch = "x86_64"))]
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    // Series in x^(2n+1) · 2^n / (2n+1)!!, all terms of one sign.
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-18 * sum.abs() {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

#[cfg(test)]
pub(crate) mod test {
    /// GELU in double precision, by its definition.
    pub(crate) fn reference(x: f64) -> f64 {
        0.5 * x * (1.0 + super::erf(x / std::f64::consts::SQRT_2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of computing, whichever the processor has.
    #[test]
    fn value_and_slope_match_the_definition() {
        let x: Vec<f32> = (-9000..9000i16).map(|i| f32::from(i) * 1e-3).collect();
        let (mut value, mut slope) = (x.clone(), vec![1.0; x.len()]);
        with_gradient(&mut value, &mut slope);
        let mut again = vec![1.0; x.len()];
        backward(&x, &mut again);
        assert_eq!(again, slope);
        let mut alone = x.clone();
        in_place(&mut alone);
        assert_eq!(alone, value);
        for (i, &x) in x.iter().enumerate() {
            let at = f64::from(x);
            let want = (test::reference(at + 1e-5) - test::reference(at - 1e-5)) / 2e-5;
            for (value, slope) in [(value[i], slope[i]), value_and_slope::<true>(x)] {
                assert!(
                    (f64::from(value) - test::reference(at)).abs() < 6e-7 * at.abs().max(1.0),
                    "gelu({x}) = {value}"
                );
                assert!((f64::from(slope) - want).abs() < 1e-6, "gelu'({x}) = {slope}, not {want}");
            }
        }
    }

    #[test]
    fn extremes() {
        let mut x = [f32::NAN, 1e30, -1e30, f32::INFINITY, 0.0];
        in_place(&mut x);
        assert!(x[0].is_nan());
        assert_eq!(x[1..], [1e30, 0.0, f32::INFINITY, 0.0]);
    }
}
