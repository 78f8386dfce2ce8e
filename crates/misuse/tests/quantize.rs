//! What stands around the search of codes: five codes of three numbers, four rows.

use crate::{all, numbers};
use vqdna_kernels::quantize::{self, Average};
use vqdna_misuse::{Tried, kernel};

#[derive(Clone)]
struct Level {
    tap: Vec<f32>,
    sum: Option<Vec<f32>>,
    codes: Vec<f32>,
    index: Vec<i32>,
    mask: Vec<f32>,
    d: usize,
}

#[derive(Clone)]
struct Rows {
    z: Vec<f32>,
    mean: Vec<f32>,
    mask: Vec<f32>,
    d: usize,
}

pub fn tried() -> Vec<Tried> {
    let codes = Level {
        tap: numbers(12),
        sum: Some(numbers(12)),
        codes: numbers(15),
        index: vec![0, 4, 2, 1],
        mask: vec![1.0, 1.0, 1.0, 0.0],
        d: 3,
    };
    let rows = Rows { z: numbers(12), mean: numbers(12), mask: vec![1.0, 1.0, 1.0, 0.0], d: 3 };
    vec![
        residual(codes.clone()),
        add_codes(codes),
        straight_through(rows.clone()),
        straight_through_backward(rows.clone()),
    ]
    .into_iter()
    .chain([commitment(rows.clone()), commitment_backward(rows), average()])
    .collect()
}

fn residual(codes: Level) -> Tried {
    kernel("quantize::residual", codes, 12, |mut a| {
        quantize::residual(&mut a.tap, 0.5, a.sum.as_deref(), &a.codes, &a.index, a.d);
        a.tap
    })
    .right(12, |a| a.sum = None)
    .right(0, |a| (a.tap, a.sum, a.index) = (vec![], Some(vec![]), vec![]))
    .wrong("`tap` holds 11 elements, but its shape is [4, 3]", |a| a.tap.truncate(11))
    .wrong("`tap` holds 13 elements, but its shape is [4, 3]", |a| a.tap.push(0.0))
    .wrong("`sum` holds 9 elements, but its shape is [4, 3]", |a| a.sum = Some(numbers(9)))
    .wrong("`sum` holds 15 elements, but its shape is [4, 3]", |a| a.sum = Some(numbers(15)))
    .wrong("`codes` holds 14 elements, but its shape is [rows, 3]", |a| a.codes.truncate(14))
    .wrong("`tap` holds 12 elements, but its shape is [3, 3]", |a| a.index.truncate(3))
    .wrong("`tap` holds 12 elements, but its shape is [5, 3]", |a| a.index.push(0))
    .wrong("`codes` holds 15 elements, but its shape is [rows, 0]", |a| a.d = 0)
    .wrong("`codes` holds 15 elements, but its shape is [rows, 9223372036854775808]", |a| a.d = 1 << 63)
    .wrong("`tap` holds 12 elements, but its shape is [4, 9223372036854775808]", |a| (a.codes, a.d) = (vec![], 1 << 63))
    .wrong("`index` holds 5, but", |a| a.index[3] = 5)
    .wrong("`index` holds -1, but", |a| a.index[0] = -1)
    .wrong("`index` holds -2147483648, but", |a| a.index[0] = i32::MIN)
    .wrong("`index` holds 0, but", |a| a.codes = vec![])
    .tried()
}

fn add_codes(codes: Level) -> Tried {
    kernel("quantize::add_codes", codes, 24, |a| {
        let (sum, mean) = quantize::add_codes(a.sum.as_deref(), &a.codes, &a.index, &a.mask, 2.0, a.d);
        all([sum, mean])
    })
    .right(24, |a| a.sum = None)
    .right(0, |a| (a.mask, a.sum, a.index) = (vec![], None, vec![]))
    .wrong("`sum` holds 11 elements, but its shape is [4, 3]", |a| a.sum = Some(numbers(11)))
    .wrong("`sum` holds 13 elements, but its shape is [4, 3]", |a| a.sum = Some(numbers(13)))
    .wrong("`codes` holds 16 elements, but its shape is [rows, 3]", |a| a.codes = numbers(16))
    .wrong("`mask` holds 3 elements, but its shape is [4]", |a| a.mask.truncate(3))
    .wrong("`mask` holds 5 elements, but its shape is [4]", |a| a.mask.push(1.0))
    .wrong("`sum` holds 12 elements, but its shape is [3, 3]", |a| a.index.truncate(3))
    .wrong("`mask` holds 4 elements, but its shape is [3]", |a| (a.sum, a.index) = (None, vec![0; 3]))
    .wrong("`codes` holds 15 elements, but its shape is [rows, 0]", |a| a.d = 0)
    .wrong("`sum` of shape [4, 9223372036854775808] holds more", |a| (a.sum, a.codes, a.d) = (None, vec![], 1 << 63))
    .wrong("`index` holds 5, but", |a| a.index[3] = 5)
    .wrong("`index` holds -2, but", |a| a.index[0] = -2)
    .tried()
}

fn straight_through(rows: Rows) -> Tried {
    kernel("quantize::straight_through", rows, 12, |a| quantize::straight_through(&a.z, &a.mean, &a.mask, a.d))
        .right(0, |a| (a.z, a.mean, a.mask, a.d) = (vec![], vec![], vec![], 1 << 57))
        .wrong("`z` holds 11 elements, but its shape is [4, 3]", |a| a.z.truncate(11))
        .wrong("`z` holds 15 elements, but its shape is [4, 3]", |a| a.z = numbers(15))
        .wrong("`mean` holds 9 elements, but its shape is [4, 3]", |a| a.mean.truncate(9))
        .wrong("`mean` holds 13 elements, but its shape is [4, 3]", |a| a.mean.push(0.0))
        .wrong("`z` holds 12 elements, but its shape is [3, 3]", |a| a.mask.truncate(3))
        .wrong("`z` holds 12 elements, but its shape is [0, 3]", |a| a.mask.clear())
        .wrong("`d` is 0", |a| a.d = 0)
        .wrong("`z` holds 12 elements, but its shape is [4, 4]", |a| a.d = 4)
        .wrong("`z` holds 0 elements, but its shape is [4, 4611686018427387904]", |a| (a.z, a.d) = (vec![], 1 << 62))
        .tried()
}

fn straight_through_backward(rows: Rows) -> Tried {
    kernel("quantize::straight_through_backward", rows, 12, |mut a| {
        quantize::straight_through_backward(&mut a.z, &a.mask, a.d);
        a.z
    })
    .right(0, |a| (a.z, a.mask) = (vec![], vec![]))
    .wrong("`dy` holds 11 elements, but its shape is [4, 3]", |a| a.z.truncate(11))
    .wrong("`dy` holds 15 elements, but its shape is [4, 3]", |a| a.z = numbers(15))
    .wrong("`dy` holds 12 elements, but its shape is [5, 3]", |a| a.mask.push(1.0))
    .wrong("`d` is 0", |a| a.d = 0)
    .wrong("`dy` holds 0 elements, but its shape is [4, 4611686018427387904]", |a| (a.z, a.d) = (vec![], 1 << 62))
    .tried()
}

fn commitment(rows: Rows) -> Tried {
    kernel("quantize::commitment", rows, 1, |a| vec![quantize::commitment(&a.z, &a.mean, &a.mask, a.d)])
        .right(1, |a| (a.z, a.mean, a.mask) = (vec![], vec![], vec![]))
        .wrong("`z` holds 11 elements, but its shape is [4, 3]", |a| a.z.truncate(11))
        .wrong("`z` holds 15 elements, but its shape is [4, 3]", |a| a.z = numbers(15))
        .wrong("`mean` holds 9 elements, but its shape is [4, 3]", |a| a.mean.truncate(9))
        .wrong("`mean` holds 15 elements, but its shape is [4, 3]", |a| a.mean = numbers(15))
        .wrong("`z` holds 12 elements, but its shape is [3, 3]", |a| a.mask.truncate(3))
        .wrong("`d` is 0", |a| a.d = 0)
        .tried()
}

fn commitment_backward(rows: Rows) -> Tried {
    kernel("quantize::commitment_backward", rows, 12, |a| {
        quantize::commitment_backward(&a.z, &a.mean, &a.mask, a.d, 0.5)
    })
    .right(0, |a| (a.z, a.mean, a.mask) = (vec![], vec![], vec![]))
    .wrong("`z` holds 11 elements, but its shape is [4, 3]", |a| a.z.truncate(11))
    .wrong("`z` holds 15 elements, but its shape is [4, 3]", |a| a.z = numbers(15))
    .wrong("`mean` holds 9 elements, but its shape is [4, 3]", |a| a.mean.truncate(9))
    .wrong("`mean` holds 15 elements, but its shape is [4, 3]", |a| a.mean = numbers(15))
    .wrong("`z` holds 12 elements, but its shape is [3, 3]", |a| a.mask.truncate(3))
    .wrong("`d` is 0", |a| a.d = 0)
    .tried()
}

fn average() -> Tried {
    #[derive(Clone)]
    struct Arguments {
        counts: [Vec<f32>; 2],
        sums: [Vec<f32>; 2],
    }
    let right = Arguments { counts: [vec![3.0; 5], vec![1.0; 5]], sums: [numbers(15), numbers(15)] };
    kernel("quantize::average", right, 35, |Arguments { counts: [n, new_n], sums: [m, new_m] }| {
        let found = quantize::average(Average { decay: 0.9, smoothing: 1e-3 }, [&n, &new_n], [&m, &new_m]);
        all([found.codes, found.counts, found.sums])
    })
    .right(0, |a| (a.counts, a.sums) = ([vec![], vec![]], [vec![], vec![]]))
    .wrong("`new_counts` holds 4 elements, but its shape is [5]", |a| a.counts[1].truncate(4))
    .wrong("`new_counts` holds 6 elements, but its shape is [5]", |a| a.counts[1].push(1.0))
    .wrong("`new_counts` holds 5 elements, but its shape is [4]", |a| a.counts[0].truncate(4))
    .wrong("`sums` holds 14 elements, but its shape is [5, width]", |a| a.sums[0].truncate(14))
    .wrong("`sums` holds 0 elements, but its shape is [5, width]", |a| a.sums = [vec![], vec![]])
    .wrong("`sums` holds 15 elements, but its shape is [0, 0]", |a| a.counts = [vec![], vec![]])
    .wrong("`new_sums` holds 10 elements, but its shape is [5, 3]", |a| a.sums[1].truncate(10))
    .wrong("`new_sums` holds 15 elements, but its shape is [5, 2]", |a| a.sums[0].truncate(10))
    .tried()
}
