//! Exact GELU, `x · Φ(x)` (Hendrycks and Gimpel 2016), and its derivative.

use crate::rows::with_scratch;
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

/// `x ← gelu(x)` and `dy ← dy · gelu'(x)`, in one pass.
///
/// # Panics
/// If the lengths differ.
pub fn with_gradient(x: &mut [f32], dy: &mut [f32]) {
    assert_eq!(x.len(), dy.len());
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
    assert_eq!(x.len(), dy.len());
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

/// GELU by table on AVX-512, a third of the time of the formula: one permutation looks up 16 of 32 coefficients at once.
///
/// With `u = |x|`, `gelu(x) = x/2 + u · E(u)` and `gelu'(x) = 1/2 ± D(u)`, where `E(u) = Φ(u) − 1/2` and `D(u) = E(u) + u · φ(u)`
/// are smooth, begin at 0 and are 1/2 beyond [`END`](table::END). Each is a polynomial of fourth degree in each of 32 intervals,
/// absolute error below 1e-7.
#[cfg(target_arch = "x86_64")]
mod table {
    use std::arch::x86_64::{
        __m512, __m512i, __mmask16, _mm512_abs_ps, _mm512_add_ps, _mm512_and_ps, _mm512_castps_si512, _mm512_fmadd_ps,
        _mm512_fnmadd_ps, _mm512_loadu_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps, _mm512_min_ps, _mm512_mul_ps,
        _mm512_permutex2var_ps, _mm512_set1_ps, _mm512_sub_ps, _mm512_xor_ps,
    };
    use std::sync::OnceLock;

    /// Where both functions are 1/2 to the precision of `f32`.
    pub(super) const END: f64 = 5.6;
    const INTERVALS: usize = 32;
    const TERMS: usize = 5;

    /// Coefficients of `E` and `D` in the distance from the middle of an interval, term by term.
    struct Coefficients {
        e: [[f32; INTERVALS]; TERMS],
        d: [[f32; INTERVALS]; TERMS],
    }

    /// Intervals are centred at multiples of this.
    const STEP: f64 = END / (INTERVALS - 1) as f64;

    fn coefficients() -> &'static Coefficients {
        static BUILT: OnceLock<Coefficients> = OnceLock::new();
        BUILT.get_or_init(|| {
            let bell = |u: f64| (-u * u / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let e = |u: f64| super::erf(u / std::f64::consts::SQRT_2) / 2.0;
            Coefficients { e: fit(e), d: fit(|u| e(u) + u * bell(u)) }
        })
    }

    /// Interpolates at the Chebyshev nodes of each interval.
    fn fit(f: impl Fn(f64) -> f64) -> [[f32; INTERVALS]; TERMS] {
        let mut out = [[0.0; INTERVALS]; TERMS];
        for k in 0..INTERVALS {
            let middle = k as f64 * STEP;
            let node = |i: usize| STEP / 2.0 * ((2 * i + 1) as f64 / (2 * TERMS) as f64 * std::f64::consts::PI).cos();
            let nodes: [f64; TERMS] = std::array::from_fn(node);
            // Newton's divided differences, then expanded to powers.
            let mut differences = nodes.map(|r| f(middle + r));
            for level in 1..TERMS {
                for i in (level..TERMS).rev() {
                    differences[i] = (differences[i] - differences[i - 1]) / (nodes[i] - nodes[i - level]);
                }
            }
            let mut powers = [0.0; TERMS];
            for i in (0..TERMS).rev() {
                // powers ← powers · (r − node) + difference
                for j in (1..TERMS).rev() {
                    powers[j] = powers[j - 1] - powers[j] * nodes[i];
                }
                powers[0] = differences[i] - powers[0] * nodes[i];
            }
            for (term, power) in out.iter_mut().zip(powers) {
                term[k] = power as f32;
            }
        }
        out
    }

    /// One of the two functions in registers.
    #[derive(Clone, Copy)]
    struct Table([[__m512; 2]; TERMS]);

    impl Table {
        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        fn load(terms: &[[f32; INTERVALS]; TERMS]) -> Self {
            // SAFETY: 32 floats a term.
            Self(
                terms
                    .each_ref()
                    .map(|term| unsafe { [_mm512_loadu_ps(term.as_ptr()), _mm512_loadu_ps(term.as_ptr().add(16))] }),
            )
        }

        #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
        fn at(&self, place: Place) -> __m512 {
            let term = |t: usize| _mm512_permutex2var_ps(self.0[t][0], place.interval, self.0[t][1]);
            let mut sum = term(TERMS - 1);
            for t in (0..TERMS - 1).rev() {
                sum = _mm512_fmadd_ps(sum, place.distance, term(t));
            }
            sum
        }
    }

    /// An interval and the distance from its middle.
    #[derive(Clone, Copy)]
    struct Place {
        interval: __m512i,
        distance: __m512,
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    fn place(u: __m512) -> Place {
        // Adding 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits of the mantissa.
        let round = _mm512_set1_ps(12_582_912.0);
        let clamped = _mm512_min_ps(u, _mm512_set1_ps(END as f32));
        let shifted = _mm512_fmadd_ps(clamped, _mm512_set1_ps((1.0 / STEP) as f32), round);
        let middle = _mm512_sub_ps(shifted, round);
        let distance = _mm512_fnmadd_ps(middle, _mm512_set1_ps(STEP as f32), clamped);
        Place { interval: _mm512_castps_si512(shifted), distance }
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    fn value(e: &Table, x: __m512) -> __m512 {
        let u = _mm512_abs_ps(x);
        _mm512_fmadd_ps(u, e.at(place(u)), _mm512_mul_ps(x, _mm512_set1_ps(0.5)))
    }

    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    fn value_and_slope(e: &Table, d: &Table, x: __m512) -> (__m512, __m512) {
        let u = _mm512_abs_ps(x);
        let place = place(u);
        let half = _mm512_set1_ps(0.5);
        let value = _mm512_fmadd_ps(u, e.at(place), _mm512_mul_ps(x, half));
        let sign = _mm512_and_ps(x, _mm512_set1_ps(-0.0));
        (value, _mm512_add_ps(half, _mm512_xor_ps(d.at(place), sign)))
    }

    /// Lanes of the last vector of a row.
    fn lanes(left: usize) -> __mmask16 {
        if left >= 16 { !0 } else { (1 << left) - 1 }
    }

    /// # Safety
    /// The processor has AVX-512.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    pub(super) unsafe fn in_place(x: &mut [f32]) {
        let e = Table::load(&coefficients().e);
        for x in x.chunks_mut(16) {
            let mask = lanes(x.len());
            // SAFETY: the mask ends with the slice.
            unsafe {
                let y = value(&e, _mm512_maskz_loadu_ps(mask, x.as_ptr()));
                _mm512_mask_storeu_ps(x.as_mut_ptr(), mask, y);
            }
        }
    }

    /// # Safety
    /// The processor has AVX-512; the slices are equally long.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    pub(super) unsafe fn with_gradient(x: &mut [f32], dy: &mut [f32]) {
        let (e, d) = (Table::load(&coefficients().e), Table::load(&coefficients().d));
        for (x, dy) in x.chunks_mut(16).zip(dy.chunks_mut(16)) {
            let mask = lanes(x.len());
            // SAFETY: the mask ends with the slices.
            unsafe {
                let (value, slope) = value_and_slope(&e, &d, _mm512_maskz_loadu_ps(mask, x.as_ptr()));
                _mm512_mask_storeu_ps(x.as_mut_ptr(), mask, value);
                let product = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, dy.as_ptr()), slope);
                _mm512_mask_storeu_ps(dy.as_mut_ptr(), mask, product);
            }
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
