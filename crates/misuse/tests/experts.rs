//! Experts of units: two over six numbers, of units of one row and of three, and ten rows.

use crate::{all, numbers};
use vqdna_kernels::experts::{self, Expert, Kept, Prepared};
use vqdna_kernels::norm::Norm;
use vqdna_kernels::product::{Pair, Precision, Unit};
use vqdna_misuse::{Kernel, Tried, kernel};

pub fn tried() -> Vec<Tried> {
    let mut tried = vec![prepared_new(), prepared_forward::<f32>(), prepared_forward::<Pair>()];
    for precision in [Precision::F32, Precision::Bf16] {
        tried.extend([forward(precision), backward(precision)]);
    }
    tried
}

#[derive(Clone)]
struct Owned {
    size: usize,
    groups: usize,
    pre: Vec<f32>,
    conv: Vec<f32>,
    gain: Vec<f32>,
    bias: Vec<f32>,
    post: Vec<f32>,
}

impl Owned {
    fn new(d: usize, size: usize, groups: usize) -> Self {
        let [pre, conv, gain, bias, post] = [2 * d * d, d * (d / groups) * size, d, d, d * d].map(numbers);
        Self { size, groups, pre, conv, gain, bias, post }
    }

    fn view(&self) -> Expert<'_> {
        let Self { size, groups, pre, conv, gain, bias, post } = self;
        let norm = Norm { gain, bias, eps: 1e-3 };
        Expert { size: *size, groups: *groups, pre, conv, norm, post }
    }
}

#[derive(Clone)]
struct Units {
    x: Vec<f32>,
    experts: Vec<Owned>,
    covered: Vec<Vec<u32>>,
    dout: Vec<f32>,
    /// What the forward pass of a right call kept, in some precision, for so many units of the second expert.
    kept: (Precision, usize),
    precision: Precision,
}

fn units(precision: Precision) -> Units {
    Units {
        x: numbers(60),
        experts: vec![Owned::new(6, 1, 2), Owned::new(6, 3, 3)],
        covered: vec![vec![9, 0], vec![1, 2, 3, 6, 7, 8]],
        dout: numbers(24),
        kept: (precision, 2),
        precision,
    }
}

impl Units {
    fn views(&self) -> Vec<Expert<'_>> {
        self.experts.iter().map(Owned::view).collect()
    }

    fn kept(&self) -> Kept {
        let right = units(self.kept.0);
        let covered = [right.covered[0].clone(), right.covered[1][..3 * self.kept.1].to_vec()];
        experts::forward(&right.x, &right.views(), &covered, self.kept.0, true).1
    }
}

fn misshapen_experts(kernel: Kernel<Units>) -> Kernel<Units> {
    kernel
        .wrong("`size` is 0", |a| a.experts[1].size = 0)
        .wrong("`conv` holds 36 elements, but its shape is [6, 2, 2]", |a| a.experts[1].size = 2)
        .wrong("`conv` holds 36 elements, but its shape is [6, 2, 9223372036854775811]", |a| {
            a.experts[1].size = (1 << 63) + 3;
        })
        .wrong("`groups` is 0", |a| a.experts[0].groups = 0)
        .wrong("`groups` is 4, which does not divide a width of 6", |a| a.experts[0].groups = 4)
        .wrong("`groups` is 18446744073709551615, which does not divide a width of 6", |a| {
            a.experts[0].groups = usize::MAX;
        })
        .wrong("`pre` holds 71 elements, but its shape is [2, 6, 6]", |a| a.experts[0].pre.truncate(71))
        .wrong("`pre` holds 73 elements, but its shape is [2, 6, 6]", |a| a.experts[0].pre.push(0.0))
        .wrong("`conv` holds 35 elements, but its shape is [6, 2, 3]", |a| a.experts[1].conv.truncate(35))
        .wrong("`conv` holds 37 elements, but its shape is [6, 2, 3]", |a| a.experts[1].conv.push(0.0))
        .wrong("`post` holds 0 elements, but its shape is [6, 6]", |a| a.experts[1].post.clear())
        .wrong("`post` holds 37 elements, but its shape is [6, 6]", |a| a.experts[1].post.push(0.0))
        .wrong("`norm.bias` holds 5 elements, but its shape is [6]", |a| a.experts[0].bias.truncate(5))
        .wrong("`norm.bias` holds 7 elements, but its shape is [6]", |a| a.experts[0].bias.push(0.0))
        .wrong("`norm.gain` is 0", |a| a.experts[0].gain.clear())
        .wrong("`experts` are [6, 4] wide, but", |a| a.experts[1] = Owned::new(4, 3, 2))
}

fn misshapen_units(kernel: Kernel<Units>) -> Kernel<Units> {
    misshapen_experts(kernel)
        .wrong("`x` holds 59 elements, but its shape is [rows, 6]", |a| a.x.truncate(59))
        .wrong("`covered` holds 9, but its values are at least 0 and below 9", |a| a.x.truncate(54))
        .wrong("`covered` holds 10, but its values are at least 0 and below 10", |a| a.covered[1][5] = 10)
        .wrong("`covered` holds 4294967295, but", |a| a.covered[0][0] = u32::MAX)
        .wrong("`covered` holds 9, but its values are at least 0 and below 0", |a| a.x.clear())
        .wrong("`covered` holds 5 elements, but its shape is [rows, 3]", |a| a.covered[1].truncate(5))
        .wrong("`covered` holds 1 elements, but its shape is [2]", |a| a.covered.truncate(1))
        .wrong("`covered` holds 3 elements, but its shape is [2]", |a| a.covered.push(vec![]))
        .wrong("`covered` holds 2 elements, but its shape is [0]", |a| a.experts.clear())
}

fn no_experts(a: &mut Units) {
    (a.experts, a.covered, a.dout) = (vec![], vec![], vec![]);
}

fn prepared_new() -> Tried {
    misshapen_experts(kernel("experts::forward::Prepared::new", units(Precision::F32), 0, |a| {
        _ = (Prepared::<f32>::new(&a.views()), Prepared::<Pair>::new(&a.views()));
        vec![]
    }))
    .tried()
}

fn prepared_forward<U: Unit>() -> Tried {
    let tried = kernel("experts::forward::Prepared::forward", units(Precision::F32), 24, |a| {
        Prepared::<U>::new(&a.views()).forward(&a.x, &a.covered)
    });
    misshapen_units(tried).right(0, no_experts).tried()
}

fn forward(precision: Precision) -> Tried {
    let tried = kernel("experts::forward", units(precision), 24, |a| {
        experts::forward(&a.x, &a.views(), &a.covered, a.precision, true).0
    });
    misshapen_units(tried)
        .right(0, no_experts)
        .right(0, |a| (a.x, a.covered) = (vec![], vec![vec![], vec![]]))
        .right(24, |a| a.covered[0] = vec![1, 1])
        .tried()
}

fn backward(precision: Precision) -> Tried {
    let weights = 2 * (72 + 6 + 6 + 36) + 18 + 36;
    let tried = kernel("experts::backward", units(precision), 60 + weights, |a| {
        let kept = if a.dout.is_empty() { Kept::default() } else { a.kept() };
        let (dx, found) = experts::backward(&a.x, &a.views(), &a.covered, &kept, &a.dout, true, a.precision);
        let found = found.into_iter().map(|g| all([g.pre, g.conv, all(g.norm), g.post]));
        all([dx, all(found)])
    });
    misshapen_units(tried)
        .right(60, no_experts)
        .right(weights, |a| (a.x, a.covered, a.dout) = (vec![], vec![vec![], vec![]], vec![]))
        .wrong("`dout` holds 23 elements, but its shape is [4, 6]", |a| a.dout.truncate(23))
        .wrong("`dout` holds 30 elements, but its shape is [4, 6]", |a| a.dout = numbers(30))
        .wrong("`dout` holds 24 elements, but its shape is [3, 6]", |a| a.covered[1].truncate(3))
        .wrong("`kept` holds 18 elements, but its shape is [4, 6]", |a| a.kept.1 = 1)
        .wrong("`kept` holds ", |a| {
            a.kept.0 = match a.precision {
                Precision::F32 => Precision::Bf16,
                Precision::Bf16 => Precision::F32,
            }
        })
        .wrong("`covered` holds row 2 twice", |a| a.covered[0] = vec![9, 2])
        .wrong("`covered` holds row 1 twice", |a| a.covered[1] = vec![1, 2, 1, 6, 7, 8])
        .tried()
}
