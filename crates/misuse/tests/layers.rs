//! Norm, linear layer with a low-rank part, one-hot convolution and optimizer.

use crate::{all, numbers};
use vqdna_kernels::adamw::{self, Step};
use vqdna_kernels::linear::{self, Wanted};
use vqdna_kernels::low_rank::LowRank;
use vqdna_kernels::norm::{self, Gradients, Norm};
use vqdna_kernels::product::Precision;
use vqdna_kernels::stem;
use vqdna_misuse::{Kernel, Tried, kernel};

pub fn tried() -> Vec<Tried> {
    let mut tried = vec![
        norm_forward("norm::forward", norm::forward),
        norm_forward("norm::gelu_forward", norm::gelu_forward),
        norm_backward("norm::backward", norm::backward),
        norm_backward("norm::gelu_backward", norm::gelu_backward),
    ];
    for precision in [Precision::F32, Precision::Bf16] {
        tried.extend([linear_forward(precision), linear_backward(precision)]);
    }
    tried
        .extend([wanted("linear::Wanted::any", Wanted::any), wanted("linear::Wanted::needs_rows", Wanted::needs_rows)]);
    tried.extend([added_to(), stem_forward(), stem_backward(), update(), sum_of_squares()]);
    tried
}

#[derive(Clone)]
struct Normed {
    gain: Vec<f32>,
    bias: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
    forward: fn(Norm, &[f32]) -> Vec<f32>,
    backward: fn(Norm, &[f32], &[f32]) -> Gradients,
}

fn normed() -> Normed {
    let (forward, backward) = (norm::forward, norm::backward);
    Normed { gain: numbers(3), bias: numbers(3), x: numbers(12), dy: numbers(12), forward, backward }
}

fn misshapen(kernel: Kernel<Normed>) -> Kernel<Normed> {
    kernel
        .wrong("`norm.bias` holds 2 elements, but its shape is [3]", |a| a.bias.truncate(2))
        .wrong("`norm.bias` holds 4 elements, but its shape is [3]", |a| a.bias.push(0.0))
        .wrong("`norm.bias` holds 3 elements, but its shape is [2]", |a| a.gain.truncate(2))
        .wrong("`norm.gain` is 0", |a| (a.gain, a.bias) = (vec![], vec![]))
        .wrong("`x` holds 11 elements, but its shape is [rows, 3]", |a| a.x.truncate(11))
        .wrong("`x` holds 13 elements, but its shape is [rows, 3]", |a| a.x.push(0.0))
}

fn norm_forward(name: &'static str, forward: fn(Norm, &[f32]) -> Vec<f32>) -> Tried {
    let tried = kernel(name, Normed { forward, ..normed() }, 12, |a| {
        (a.forward)(Norm { gain: &a.gain, bias: &a.bias, eps: 1e-3 }, &a.x)
    });
    misshapen(tried.right(0, |a| a.x.clear())).tried()
}

fn norm_backward(name: &'static str, backward: fn(Norm, &[f32], &[f32]) -> Gradients) -> Tried {
    let tried = kernel(name, Normed { backward, ..normed() }, 18, |a| {
        let g = (a.backward)(Norm { gain: &a.gain, bias: &a.bias, eps: 1e-3 }, &a.x, &a.dy);
        all([g.x, g.gain, g.bias])
    });
    misshapen(tried.right(6, |a| (a.x, a.dy) = (vec![], vec![])))
        .wrong("`dy` holds 9 elements, but its shape is [12]", |a| a.dy.truncate(9))
        .wrong("`dy` holds 15 elements, but its shape is [12]", |a| a.dy = numbers(15))
        .wrong("`dy` holds 12 elements, but its shape is [9]", |a| a.x.truncate(9))
        .tried()
}

/// Five rows, from four numbers to six, with a part of rank two.
#[derive(Clone)]
struct Layer {
    x: Vec<f32>,
    w: Vec<f32>,
    b: Vec<f32>,
    d_out: usize,
    dy: Vec<f32>,
    of_x: bool,
    wanted: [bool; 3],
    a: Vec<f32>,
    low_b: Vec<f32>,
    rank: usize,
    precision: Precision,
}

impl Layer {
    fn new(precision: Precision) -> Self {
        Self {
            x: numbers(20),
            w: numbers(24),
            b: numbers(6),
            d_out: 6,
            dy: numbers(30),
            of_x: true,
            wanted: [true; 3],
            a: numbers(8),
            low_b: numbers(12),
            rank: 2,
            precision,
        }
    }

    fn part(&self) -> LowRank<'_> {
        LowRank { a: &self.a, b: &self.low_b, rank: self.rank, scale: 0.5 }
    }
}

fn linear_forward(precision: Precision) -> Tried {
    kernel("linear::forward", Layer::new(precision), 30, |a| linear::forward(&a.x, &a.w, &a.b, a.precision))
        .right(0, |a| a.x.clear())
        .wrong("`x` holds 19 elements, but its shape is [rows, 4]", |a| a.x.truncate(19))
        .wrong("`x` holds 21 elements, but its shape is [rows, 4]", |a| a.x.push(0.0))
        .wrong("`w` holds 23 elements, but its shape is [6, width]", |a| a.w.truncate(23))
        .wrong("`w` holds 25 elements, but its shape is [6, width]", |a| a.w.push(0.0))
        .wrong("`w` holds 0 elements, but its shape is [6, width]", |a| a.w.clear())
        .wrong("`w` holds 24 elements, but its shape is [5, width]", |a| a.b.truncate(5))
        .wrong("`d_out` is 0", |a| a.b.clear())
        .tried()
}

fn linear_backward(precision: Precision) -> Tried {
    kernel("linear::backward", Layer::new(precision), 20 + 24 + 6 + 8 + 12, |a| {
        let wanted = Wanted { weight: a.wanted[0], bias: a.wanted[1], low_rank: a.wanted[2].then(|| a.part()) };
        let (dx, g) = linear::backward(&a.x, &a.w, a.d_out, &a.dy, a.of_x, wanted, a.precision);
        let [da, db] = g.low_rank.unwrap_or_default();
        all([dx.unwrap_or_default(), g.weight.unwrap_or_default(), g.bias.unwrap_or_default(), da, db])
    })
    .right(24 + 6 + 8 + 12, |a| (a.x, a.dy) = (vec![], vec![]))
    .right(26, |a| (a.x, a.wanted) = (vec![], [false, true, false]))
    .wrong("`x` holds 16 elements, but its shape is [5, 4]", |a| a.x.truncate(16))
    .wrong("`x` holds 24 elements, but its shape is [5, 4]", |a| a.x = numbers(24))
    .wrong("`x` holds 16 elements, but its shape is [5, 4]", |a| (a.x, a.wanted) = (numbers(16), [false, false, true]))
    .wrong("`w` holds 23 elements, but its shape is [6, width]", |a| a.w.truncate(23))
    .wrong("`dy` holds 29 elements, but its shape is [rows, 6]", |a| a.dy.truncate(29))
    .wrong("`x` holds 20 elements, but its shape is [6, 4]", |a| a.dy = numbers(36))
    .wrong("`d_out` is 0", |a| a.d_out = 0)
    .wrong("`w` holds 24 elements, but its shape is [9223372036854775808, width]", |a| a.d_out = 1 << 63)
    .wrong("`low_rank.rank` is 0", |a| a.rank = 0)
    .wrong("`low_rank.a` holds 8 elements, but its shape is [9223372036854775808, 4]", |a| a.rank = 1 << 63)
    .wrong("`low_rank.a` holds 6 elements, but its shape is [2, 4]", |a| a.a.truncate(6))
    .wrong("`low_rank.b` holds 14 elements, but its shape is [6, 2]", |a| a.low_b = numbers(14))
    .tried()
}

fn wanted(name: &'static str, says: fn(&Wanted<'static>) -> bool) -> Tried {
    kernel(name, says, 1, |says| vec![f32::from(says(&Wanted::ALL))]).tried()
}

fn added_to() -> Tried {
    kernel("low_rank::LowRank::added_to", Layer::new(Precision::F32), 24, |a| a.part().added_to(&a.w))
        .wrong("`low_rank.rank` is 0", |a| a.rank = 0)
        .wrong("`low_rank.a` holds 8 elements, but its shape is [3, width]", |a| a.rank = 3)
        .wrong("`low_rank.a` holds 8 elements, but its shape is [9223372036854775808, width]", |a| a.rank = 1 << 63)
        .wrong("`low_rank.a` holds 0 elements, but its shape is [2, width]", |a| a.a.clear())
        .wrong("`low_rank.b` holds 0 elements, but its shape is [2, width]", |a| a.low_b.clear())
        .wrong("`low_rank.b` holds 11 elements, but its shape is [2, width]", |a| a.low_b.truncate(11))
        .wrong("`w` holds 23 elements, but its shape is [6, 4]", |a| a.w.truncate(23))
        .wrong("`w` holds 25 elements, but its shape is [6, 4]", |a| a.w.push(0.0))
        .tried()
}

/// Two sequences of four bases, three numbers a base, a kernel of five.
#[derive(Clone)]
struct Stem {
    bases: Vec<i32>,
    length: usize,
    w: Vec<f32>,
    b: Vec<f32>,
    d: usize,
    kernel: usize,
    dy: Vec<f32>,
}

fn stem_arguments() -> Stem {
    let bases = vec![0, 1, 2, 3, 4, 3, i32::MIN, i32::MAX];
    Stem { bases, length: 4, w: numbers(60), b: numbers(3), d: 3, kernel: 5, dy: numbers(24) }
}

fn stem_forward() -> Tried {
    kernel("stem::forward", stem_arguments(), 24, |a| stem::forward(&a.bases, a.length, &a.w, &a.b))
        .right(0, |a| (a.bases, a.length) = (vec![], 0))
        .right(24, |a| a.w = numbers(3 * 4 * 100))
        .wrong("`bases` holds 8 elements, but its shape is [batch * 3]", |a| a.length = 3)
        .wrong("`bases` holds 8 elements, but its shape is [batch * 0]", |a| a.length = 0)
        .wrong("`bases` holds 8 elements, but its shape is [batch * 18446744073709551615]", |a| a.length = usize::MAX)
        .wrong("`bases` holds 7 elements, but its shape is [batch * 4]", |a| a.bases.truncate(7))
        .wrong("`w` holds 59 elements, but its shape is [3, width]", |a| a.w.truncate(59))
        .wrong("`w` holds 63 elements, but its shape is [3, 4, 5]", |a| a.w = numbers(63))
        .wrong("`kernel` is 0", |a| a.w.truncate(3))
        .wrong("`w` holds 60 elements, but its shape is [0, width]", |a| a.b.clear())
        .tried()
}

fn stem_backward() -> Tried {
    kernel("stem::backward", stem_arguments(), 63, |a| {
        let (w, b) = stem::backward(&a.bases, a.length, a.d, a.kernel, &a.dy);
        all([w, b])
    })
    .right(63, |a| (a.bases, a.dy) = (vec![], vec![]))
    .wrong("`dy` holds 23 elements, but its shape is [8, 3]", |a| a.dy.truncate(23))
    .wrong("`dy` holds 27 elements, but its shape is [8, 3]", |a| a.dy = numbers(27))
    .wrong("`dy` holds 24 elements, but its shape is [8, 2]", |a| a.d = 2)
    .wrong("`bases` holds 7 elements, but its shape is [batch * 4]", |a| a.bases.truncate(7))
    .wrong("`bases` holds 8 elements, but its shape is [batch * 0]", |a| a.length = 0)
    .wrong("`d` is 0", |a| a.d = 0)
    .wrong("`kernel` is 0", |a| a.kernel = 0)
    .wrong("`w` of shape [3, 4, 4611686018427387904] holds more", |a| a.kernel = 1 << 62)
    .tried()
}

fn update() -> Tried {
    let step = Step {
        rate: 1e-3,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        correction1: 0.1,
        correction2: 0.05,
        scale: 1.0,
    };
    kernel("adamw::update", (step, [numbers(7), numbers(7), numbers(7), vec![0.5; 7]]), 21, |(step, [p, g, m, v])| {
        let [mut p, mut m, mut v] = [p, m, v];
        adamw::update(step, &mut p, &g, &mut m, &mut v);
        all([p, m, v])
    })
    .right(0, |(_, slices)| slices.iter_mut().for_each(Vec::clear))
    .wrong("`gradient` holds 7 elements, but its shape is [6]", |(_, [p, ..])| p.truncate(6))
    .wrong("`gradient` holds 8 elements, but its shape is [7]", |(_, [_, g, ..])| g.push(0.0))
    .wrong("`first` holds 6 elements, but its shape is [7]", |(_, [_, _, m, _])| m.truncate(6))
    .wrong("`second` holds 0 elements, but its shape is [7]", |(_, [.., v])| v.clear())
    .tried()
}

fn sum_of_squares() -> Tried {
    kernel("adamw::sum_of_squares", numbers(7), 1, |x| vec![adamw::sum_of_squares(&x) as f32])
        .right(1, Vec::clear)
        .tried()
}
