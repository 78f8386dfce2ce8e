//! Exact GELU, `x · Φ(x)` (Hendrycks and Gimpel 2016), and its derivative.

use crate::simd::{exp, fma, simd};

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

simd! {
    /// `x ← gelu(x)`.
    pub fn in_place[FMA](x: &mut [f32]) {
        for x in x {
            *x = value::<FMA>(*x);
        }
    }
}

simd! {
    /// `y = gelu(x)` for rows of `width` numbers that begin `stride` apart in `x` and densely in `y`.
    pub fn strided[FMA](x: &[f32], stride: usize, y: &mut [f32], width: usize) {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks(stride)) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = value::<FMA>(x);
            }
        }
    }
}

simd! {
    /// `x ← gelu(x)` and `dy ← dy · gelu'(x)`, in one pass over rows of `width` numbers that begin `stride` apart in both.
    pub fn backward_strided[FMA](x: &mut [f32], dy: &mut [f32], stride: usize, width: usize) {
        for (x, dy) in x.chunks_mut(stride).zip(dy.chunks_mut(stride)) {
            for (x, dy) in x[..width].iter_mut().zip(&mut dy[..width]) {
                let (value, slope) = value_and_slope::<FMA>(*x);
                *x = value;
                *dy *= slope;
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod test {
    /// GELU in double precision, by its definition through the error function's series and continued fraction.
    pub(crate) fn reference(x: f64) -> f64 {
        0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
    }

    fn erf(x: f64) -> f64 {
        if x.abs() > 5.0 {
            return x.signum();
        }
        // Series in x^(2n+1) · 2^n / (2n+1)!!, all terms of one sign.
        let (mut term, mut sum, mut n) = (x, x, 0.0);
        while term.abs() > 1e-18 {
            n += 1.0;
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
        }
        2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_and_slope_match_the_definition() {
        for i in -6000..6000i16 {
            let x = f32::from(i) * 1e-3;
            let (value, slope) = value_and_slope::<true>(x);
            let at = f64::from(x);
            let want = (test::reference(at + 1e-5) - test::reference(at - 1e-5)) / 2e-5;
            assert!((f64::from(value) - test::reference(at)).abs() < 1e-6, "gelu({x}) = {value}");
            assert!((f64::from(slope) - want).abs() < 1e-6, "gelu'({x}) = {slope}, not {want}");
        }
    }

    #[test]
    fn strided_rows_leave_what_lies_between() {
        let (x, dy) = ([0.5, -1.0, 7.0, 2.0, 0.0], [1.0, 2.0, 7.0, 3.0, 4.0]);
        let mut y = [0.0; 4];
        strided(&x, 3, &mut y, 2);
        let (mut value, mut slope) = (x, dy);
        backward_strided(&mut value, &mut slope, 3, 2);
        assert_eq!([value[0], value[1], value[3], value[4]], y);
        assert_eq!((value[2], slope[2]), (7.0, 7.0));
        assert!((y[0] - 0.345_731).abs() < 1e-5 && (slope[4] - 2.0).abs() < 1e-6, "slope ½ at 0");
    }
}
