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

/// `y = gelu(x)`, element by element.
///
/// # Panics
/// If the lengths differ.
pub fn forward(x: &[f32], y: &mut [f32]) {
    strided(x, x.len().max(1), y, x.len().max(1));
}

/// `y = gelu(x)` for rows of `width` numbers that begin `stride` apart in `x` and densely in `y`.
///
/// # Panics
/// If there are fewer rows in `x` than in `y`.
pub fn strided(x: &[f32], stride: usize, y: &mut [f32], width: usize) {
    assert!(y.is_empty() || (stride >= width && x.len() + stride >= y.len() / width * stride + width), "rows");
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: the processor has AVX-512; the assertion bounds the rows.
        return unsafe { table::strided(x, stride, y, width) };
    }
    strided_by_formula(x, stride, y, width);
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

/// `y = gelu(x)` and `dy ← dy · gelu'(x)`, in one pass over rows of `width` numbers that begin `stride` apart in all three.
///
/// # Panics
/// If the lengths differ or the last row is shorter than `width`.
pub fn backward_strided(x: &[f32], y: &mut [f32], dy: &mut [f32], stride: usize, width: usize) {
    assert!(x.len() == dy.len() && x.len() == y.len() && stride >= width, "rows");
    assert!(x.len().is_multiple_of(stride) || x.len() % stride >= width, "a row that ends early");
    #[cfg(target_arch = "x86_64")]
    if level() == Level::Avx512 {
        // SAFETY: the processor has AVX-512; the assertions bound the rows.
        return unsafe { table::backward_strided(x, y, dy, stride, width) };
    }
    backward_by_formula(x, y, dy, stride, width);
}

/// `dy ← dy · gelu'(x)`.
///
/// # Panics
/// If the lengths differ.
pub fn backward(x: &[f32], dy: &mut [f32]) {
    with_scratch([x.len().min(ROW)], |[y]| {
        for (x, dy) in x.chunks(ROW).zip(dy.chunks_mut(ROW)) {
            let width = x.len();
            backward_strided(x, &mut y[..width], dy, width, width);
        }
    });
}

/// Elements whose values are computed beside their slopes and dropped.
const ROW: usize = 1 << 10;

simd! {
    fn in_place_by_formula[FMA](x: &mut [f32]) {
        for x in x {
            *x = value::<FMA>(*x);
        }
    }
}

simd! {
    fn strided_by_formula[FMA](x: &[f32], stride: usize, y: &mut [f32], width: usize) {
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks(stride)) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = value::<FMA>(x);
            }
        }
    }
}

simd! {
    fn backward_by_formula[FMA](x: &[f32], y: &mut [f32], dy: &mut [f32], stride: usize, width: usize) {
        for ((x, y), dy) in x.chunks(stride).zip(y.chunks_mut(stride)).zip(dy.chunks_mut(stride)) {
            for ((x, y), dy) in x[..width].iter().zip(&mut y[..width]).zip(&mut dy[..width]) {
                let (value, slope) = value_and_slope::<FMA>(*x);
                *y = value;
                *dy *= slope;
            }
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
    /// `y` has whole rows of `width`, and `x` as many at its stride.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    pub(super) unsafe fn strided(x: &[f32], stride: usize, y: &mut [f32], width: usize) {
        let e = Table::load(&coefficients().e);
        for (row, y) in y.chunks_exact_mut(width).enumerate() {
            for i in (0..width).step_by(16) {
                let mask = lanes(width - i);
                // SAFETY: the mask ends with the row.
                unsafe {
                    let x = _mm512_maskz_loadu_ps(mask, x.as_ptr().add(row * stride + i));
                    _mm512_mask_storeu_ps(y.as_mut_ptr().add(i), mask, value(&e, x));
                }
            }
        }
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
    /// Rows of both begin at the stride and have `width` numbers.
    #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
    pub(super) unsafe fn backward_strided(x: &[f32], y: &mut [f32], dy: &mut [f32], stride: usize, width: usize) {
        let (e, d) = (Table::load(&coefficients().e), Table::load(&coefficients().d));
        for ((x, y), dy) in x.chunks(stride).zip(y.chunks_mut(stride)).zip(dy.chunks_mut(stride)) {
            for i in (0..width).step_by(16) {
                let mask = lanes(width - i);
                // SAFETY: the mask ends with the row.
                unsafe {
                    let dy = dy.as_mut_ptr().add(i);
                    let (value, slope) = value_and_slope(&e, &d, _mm512_maskz_loadu_ps(mask, x.as_ptr().add(i)));
                    _mm512_mask_storeu_ps(y.as_mut_ptr().add(i), mask, value);
                    _mm512_mask_storeu_ps(dy, mask, _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, dy), slope));
                }
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
        backward_strided(&x, &mut value, &mut slope, x.len(), x.len());
        let mut again = vec![1.0; x.len()];
        backward(&x, &mut again);
        assert_eq!(again, slope);
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

    #[test]
    fn strided_rows_leave_what_lies_between() {
        let (x, dy) = ([0.5, -1.0, 7.0, 2.0, 0.0], [1.0, 2.0, 7.0, 3.0, 4.0]);
        let mut y = [0.0; 4];
        strided(&x, 3, &mut y, 2);
        let (mut value, mut slope) = (x, dy);
        backward_strided(&x, &mut value, &mut slope, 3, 2);
        assert_eq!([value[0], value[1], value[3], value[4]], y);
        assert_eq!((value[2], slope[2]), (7.0, 7.0));
        assert!((y[0] - 0.345_731).abs() < 1e-5 && (slope[4] - 2.0).abs() < 1e-6, "slope ½ at 0");
    }
}
