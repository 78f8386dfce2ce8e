//! The search of codes, the classifier of codes, units of a sequence, and rows at fractional places.

use crate::{all, numbers};
use std::ops::Range;
use vqdna_kernels::codebook::{self, Prepared};
use vqdna_kernels::cross_entropy;
use vqdna_kernels::product::Precision;
use vqdna_kernels::sample::{self, Taps};
use vqdna_kernels::units;
use vqdna_misuse::{Kernel, Tried, kernel};

pub fn tried() -> Vec<Tried> {
    let mut tried = vec![nearest(), prepared_new(), prepared_nearest(), statistics()];
    for precision in [Precision::F32, Precision::Bf16] {
        tried.extend([cross_entropy_forward(precision), cross_entropy_backward(precision)]);
    }
    tried.extend([unit(), select(), sample_forward(), sample_backward()]);
    tried
}

/// Five codes of three numbers, four rows.
#[derive(Clone)]
struct Search {
    h: Vec<f32>,
    codes: Vec<f32>,
    index: Vec<i32>,
    weight: Vec<f32>,
    k: usize,
    d: usize,
}

fn search() -> Search {
    let weight = vec![1.0, 0.0, 2.0, 1.0];
    Search { h: numbers(12), codes: numbers(15), index: vec![0, 4, 2, 2], weight, k: 5, d: 3 }
}

fn places(index: Vec<i32>) -> Vec<f32> {
    index.into_iter().map(|code| code as f32).collect()
}

/// The same for all three ways to the same codes.
fn misshapen_codes(kernel: Kernel<Search>) -> Kernel<Search> {
    kernel
        .wrong("`codes` holds 14 elements, but its shape is [rows, 3]", |a| a.codes.truncate(14))
        .wrong("`codes` holds 15 elements, but its shape is [rows, 0]", |a| a.d = 0)
        .wrong("`codes` holds 15 elements, but its shape is [rows, 4]", |a| a.d = 4)
        .wrong("`codes` holds 15 elements, but its shape is [rows, 18446744073709551615]", |a| a.d = usize::MAX)
        .wrong("`codes` is 0", |a| a.codes.clear())
}

fn nearest() -> Tried {
    let tried = kernel("codebook::nearest", search(), 4, |a| places(codebook::nearest(&a.h, &a.codes, a.d)));
    misshapen_codes(tried)
        .right(0, |a| a.h.clear())
        .right(4, |a| a.h.fill(f32::NAN))
        .right(4, |a| a.codes.fill(f32::INFINITY))
        .wrong("`h` holds 11 elements, but its shape is [rows, 3]", |a| a.h.truncate(11))
        .tried()
}

fn prepared_new() -> Tried {
    misshapen_codes(kernel("codebook::Prepared::new", search(), 0, |a| {
        _ = Prepared::new(&a.codes, a.d);
        vec![]
    }))
    .tried()
}

fn prepared_nearest() -> Tried {
    let tried = kernel("codebook::Prepared::nearest", search(), 4, |mut a| {
        Prepared::new(&a.codes, a.d).nearest(&a.h, &mut a.index);
        assert!(a.index.iter().all(|code| (0..5).contains(code)), "codes of the codebook");
        places(a.index)
    });
    misshapen_codes(tried)
        .right(0, |a| (a.h, a.index) = (vec![], vec![]))
        // What stood there is never left standing.
        .right(4, |a| (a.h, a.index) = (vec![f32::NAN; 12], vec![-7; 4]))
        .wrong("`h` holds 11 elements, but its shape is [4, 3]", |a| a.h.truncate(11))
        .wrong("`h` holds 15 elements, but its shape is [4, 3]", |a| a.h = numbers(15))
        .wrong("`h` holds 12 elements, but its shape is [3, 3]", |a| a.index.truncate(3))
        .wrong("`h` holds 12 elements, but its shape is [5, 3]", |a| a.index.push(0))
        .tried()
}

fn statistics() -> Tried {
    kernel("codebook::statistics", search(), 20, |a| {
        let (counts, sums) = codebook::statistics(&a.h, &a.index, &a.weight, a.k, a.d);
        all([counts, sums])
    })
    .right(20, |a| a.index[1] = -1)
    .right(20, |a| (a.h, a.index, a.weight) = (vec![], vec![], vec![]))
    .right(0, |a| (a.h, a.index, a.weight, a.k, a.d) = (vec![], vec![], vec![], 0, 1 << 57))
    .wrong("`h` holds 11 elements, but its shape is [4, 3]", |a| a.h.truncate(11))
    .wrong("`h` holds 15 elements, but its shape is [4, 3]", |a| a.h = numbers(15))
    .wrong("`weight` holds 3 elements, but its shape is [4]", |a| a.weight.truncate(3))
    .wrong("`weight` holds 4 elements, but its shape is [5]", |a| a.index.push(0))
    .wrong("`index` holds 5, but its values are at least 0 and below 5", |a| a.index[0] = 5)
    .wrong("`index` holds -1, but", |a| a.index[0] = -1)
    .wrong("`index` holds 4, but its values are at least 0 and below 4", |a| (a.k, a.weight[1]) = (4, f32::NAN))
    .wrong("`d` is 0", |a| a.d = 0)
    .wrong("`k`: 2147483648 codes, more than an index can number", |a| a.k = 1 << 31)
    .wrong("`sums` of shape [1073741824, 9223372036854775808] holds more", |a| {
        *a = Search { h: vec![], index: vec![], weight: vec![], k: 1 << 30, d: 1 << 63, ..a.clone() };
    })
    .tried()
}

/// Four rows of three numbers, seven classes.
#[derive(Clone)]
struct Classifier {
    h: Vec<f32>,
    weight: Vec<f32>,
    bias: Vec<f32>,
    target: Vec<i32>,
    stats: Vec<f32>,
    precision: Precision,
}

impl Classifier {
    fn new(precision: Precision) -> Self {
        let (bias, target) = (numbers(7), vec![0, 6, 3, 3]);
        Self { h: numbers(12), weight: numbers(21), bias, target, stats: numbers(4), precision }
    }

    fn input(&self) -> cross_entropy::Input<'_> {
        cross_entropy::Input { h: &self.h, weight: &self.weight, bias: &self.bias, target: &self.target }
    }
}

fn misshapen_classifier(kernel: Kernel<Classifier>) -> Kernel<Classifier> {
    kernel
        .wrong("`h` holds 11 elements, but its shape is [4, 3]", |a| a.h.truncate(11))
        .wrong("`h` holds 15 elements, but its shape is [4, 3]", |a| a.h = numbers(15))
        .wrong("`weight` holds 20 elements, but its shape is [7, width]", |a| a.weight.truncate(20))
        .wrong("`weight` holds 0 elements, but its shape is [7, width]", |a| a.weight.clear())
        .wrong("`h` holds 12 elements, but its shape is [4, 2]", |a| a.weight.truncate(14))
        .wrong("`weight` holds 21 elements, but its shape is [6, width]", |a| a.bias.truncate(6))
        .wrong("`bias` is 0", |a| (a.weight, a.bias) = (vec![], vec![]))
        .wrong("`h` holds 12 elements, but its shape is [3, 3]", |a| a.target.truncate(3))
        .wrong("`target` holds 7, but its values are at least 0 and below 7", |a| a.target[3] = 7)
        .wrong("`target` holds -1, but", |a| a.target[0] = -1)
}

fn cross_entropy_forward(precision: Precision) -> Tried {
    let tried = kernel("cross_entropy::forward", Classifier::new(precision), 5, |a| {
        let (loss, stats) = cross_entropy::forward(a.input(), a.precision);
        all([vec![loss], stats])
    });
    misshapen_classifier(tried).right(1, |a| (a.h, a.target) = (vec![], vec![])).tried()
}

fn cross_entropy_backward(precision: Precision) -> Tried {
    let tried = kernel("cross_entropy::backward", Classifier::new(precision), 12 + 21 + 7, |a| {
        let g = cross_entropy::backward(a.input(), &a.stats, 1.0, a.precision);
        all([g.h, g.weight, g.bias])
    });
    misshapen_classifier(tried)
        .right(28, |a| (a.h, a.target, a.stats) = (vec![], vec![], vec![]))
        .wrong("`stats` holds 3 elements, but its shape is [4]", |a| a.stats.truncate(3))
        .wrong("`stats` holds 5 elements, but its shape is [4]", |a| a.stats.push(0.0))
        .tried()
}

fn unit() -> Tried {
    /// Anchor, size, range; and what is found.
    type Case = (usize, usize, Range<usize>);
    const NOWHERE: [Case; 7] = [
        (2, 0, 0..9),
        (0, 3, 0..9),
        (8, 3, 0..9),
        (usize::MAX, usize::MAX, 0..9),
        (usize::MAX, 3, 0..usize::MAX),
        (1 << 63, usize::MAX, 0..usize::MAX),
        (4, 3, Range { start: 9, end: 0 }),
    ];
    kernel("units::unit", vec![(4, 3, 0..9)], 2, |cases: Vec<Case>| {
        let found = cases.iter().filter_map(|(anchor, size, range)| units::unit(*anchor, *size, range));
        found.flat_map(|unit| [unit.start as f32, unit.end as f32]).collect()
    })
    .right(0, |cases| *cases = NOWHERE.to_vec())
    .tried()
}

fn select() -> Tried {
    #[derive(Clone)]
    struct Arguments {
        scores: Vec<f32>,
        sizes: Vec<usize>,
        range: Range<usize>,
        anchors: Vec<i32>,
        owners: Vec<i32>,
    }
    let right =
        Arguments { scores: numbers(18), sizes: vec![1, 2, 3], range: 1..5, anchors: vec![7; 6], owners: vec![7; 6] };
    kernel("units::select", right, 12, |mut a| {
        units::select(&a.scores, &a.sizes, a.range, &mut a.anchors, &mut a.owners);
        assert!(a.owners.iter().chain(&a.anchors).all(|owner| (-1..3).contains(owner)), "numbers of sizes");
        places([a.anchors, a.owners].concat())
    })
    .right(12, |a| a.scores.fill(f32::NAN))
    .right(12, |a| a.range = 3..3)
    .right(12, |a| a.sizes = vec![0, usize::MAX, 1 << 63])
    .right(12, |a| (a.scores, a.sizes) = (vec![], vec![]))
    .right(0, |a| (a.scores, a.range, a.anchors, a.owners) = (vec![], 0..0, vec![], vec![]))
    .wrong("`scores` holds 17 elements, but its shape is [6, 3]", |a| a.scores.truncate(17))
    .wrong("`scores` holds 18 elements, but its shape is [6, 2]", |a| a.sizes.truncate(2))
    .wrong("`scores` holds 18 elements, but its shape is [5, 3]", |a| a.anchors.truncate(5))
    .wrong("`owners` holds 5 elements, but its shape is [6]", |a| a.owners.truncate(5))
    .wrong("`owners` holds 7 elements, but its shape is [6]", |a| a.owners.push(0))
    .wrong("`range` is 1..7, of 6 positions", |a| a.range.end = 7)
    .wrong("`range` is 1..18446744073709551615, of 6 positions", |a| a.range.end = usize::MAX)
    .wrong("`range` is 6148914691236517206..5, of 6 positions", |a| a.range.start = usize::MAX / 3 + 1)
    .tried()
}

/// Two sequences of four rows of three numbers, five taps.
#[derive(Clone)]
struct Sample {
    x: Vec<f32>,
    offsets: Vec<f32>,
    factors: Vec<f32>,
    count: usize,
    length: usize,
    d: usize,
    dy: Vec<f32>,
}

impl Sample {
    fn new() -> Self {
        let (x, dy) = (numbers(24), numbers(120));
        Self { x, offsets: numbers(40), factors: numbers(40), count: 5, length: 4, d: 3, dy }
    }

    fn taps(&self) -> Taps<'_> {
        Taps { offsets: &self.offsets, factors: &self.factors, count: self.count, length: self.length }
    }

    fn empty(&mut self) {
        (self.x, self.offsets, self.factors, self.dy) = (vec![], vec![], vec![], vec![]);
    }
}

fn misshapen_sample(kernel: Kernel<Sample>) -> Kernel<Sample> {
    kernel
        .right(0, Sample::empty)
        .right(0, |a| {
            a.empty();
            (a.count, a.d, a.length) = (1 << 60, 1 << 60, 1 << 60);
        })
        .wrong("`x` holds 23 elements, but its shape is [rows, 3]", |a| a.x.truncate(23))
        .wrong("`x` holds 21 elements, but its shape is [1, 4, 3]", |a| a.x.truncate(21))
        .wrong("`taps.offsets` holds 40 elements, but its shape is [4, 5]", |a| a.x.truncate(12))
        .wrong("`taps.offsets` holds 39 elements, but its shape is [8, 5]", |a| a.offsets.truncate(39))
        .wrong("`taps.offsets` holds 41 elements, but its shape is [8, 5]", |a| a.offsets.push(0.0))
        .wrong("`taps.factors` holds 35 elements, but its shape is [8, 5]", |a| a.factors.truncate(35))
        .wrong("`taps.factors` holds 45 elements, but its shape is [8, 5]", |a| a.factors = numbers(45))
        .wrong("`taps.count` is 0", |a| a.count = 0)
        .wrong("`taps.length` is 0", |a| a.length = 0)
        .wrong("`d` is 0", |a| a.d = 0)
        .wrong("`taps.offsets` holds 40 elements, but its shape is [8, 2305843009213693957]", |a| {
            a.count = (1 << 61) + 5;
        })
        .wrong("`x` holds 24 elements, but its shape is [0, 18446744073709551615, 3]", |a| a.length = usize::MAX)
}

fn sample_forward() -> Tried {
    let tried = kernel("sample::forward", Sample::new(), 120, |a| sample::forward(&a.x, &a.taps(), a.d));
    misshapen_sample(tried)
        .right(120, |a| (a.offsets[0], a.offsets[1], a.offsets[2]) = (f32::MAX, f32::MIN, -0.0))
        .tried()
}

fn sample_backward() -> Tried {
    let tried = kernel("sample::backward", Sample::new(), 24 + 80, |a| {
        let g = sample::backward(&a.x, &a.taps(), a.d, &a.dy);
        all([g.x, g.offsets, g.factors])
    });
    misshapen_sample(tried)
        .wrong("`dy` holds 117 elements, but its shape is [8, 5, 3]", |a| a.dy.truncate(117))
        .wrong("`dy` holds 123 elements, but its shape is [8, 5, 3]", |a| a.dy = numbers(123))
        .tried()
}
