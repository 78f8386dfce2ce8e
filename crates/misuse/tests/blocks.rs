//! The blocks of convolutional and of transformer layers: two sequences of three rows of four numbers, eight inside.

use crate::{all, numbers};
use vqdna_kernels::conv_block;
use vqdna_kernels::linear;
use vqdna_kernels::low_rank::LowRank;
use vqdna_kernels::mlp::{self, Activation};
use vqdna_kernels::mlp_block;
use vqdna_kernels::norm::Norm;
use vqdna_kernels::product::{Pair, Precision, Saved, Unit};
use vqdna_misuse::{Kernel, Tried, kernel};

pub fn tried() -> Vec<Tried> {
    let mut tried = vec![inputs(), conv_prepared_new(), mlp_prepared_new()];
    for precision in [Precision::F32, Precision::Bf16] {
        tried.extend([conv_forward(precision), conv_backward(precision)]);
        tried.extend([mlp_forward(precision), mlp_backward(precision)]);
    }
    tried.extend([conv_prepared_forward::<f32>(), conv_prepared_forward::<Pair>()]);
    tried.extend([mlp_prepared_forward::<f32>(), mlp_prepared_forward::<Pair>()]);
    tried
}

fn inputs() -> Tried {
    kernel("mlp::activation::Activation::inputs", Activation::SwiGlu, 1, |a| vec![a.inputs() as f32]).tried()
}

#[derive(Clone)]
struct Block {
    x: Vec<f32>,
    mask: Vec<f32>,
    length: usize,
    conv: Vec<f32>,
    conv_bias: Vec<f32>,
    gain: Vec<f32>,
    bias: Vec<f32>,
    up: Vec<f32>,
    up_bias: Vec<f32>,
    down: Vec<f32>,
    down_bias: Vec<f32>,
    activation: Activation,
    dout: Vec<f32>,
    /// Units of what the forward pass kept, beside what it is to be: so many, if they are not as many as they should be.
    kept: Option<usize>,
    /// Sizes of the factors of parts of both layers, and their rank.
    parts: Option<[[usize; 2]; 2]>,
    rank: usize,
    precision: Precision,
}

fn block(precision: Precision) -> Block {
    Block {
        x: numbers(24),
        mask: vec![1.0, 1.0, 1.0, 1.0, 1.0, 0.0],
        length: 3,
        conv: numbers(12),
        conv_bias: numbers(4),
        gain: numbers(4),
        bias: numbers(4),
        up: numbers(32),
        up_bias: numbers(8),
        down: numbers(32),
        down_bias: numbers(4),
        activation: Activation::Gelu,
        dout: numbers(24),
        kept: None,
        parts: None,
        rank: 2,
        precision,
    }
}

impl Block {
    fn input(&self) -> conv_block::Input<'_> {
        conv_block::Input { x: &self.x, mask: &self.mask, length: self.length }
    }

    fn norm(&self) -> Norm<'_> {
        Norm { gain: &self.gain, bias: &self.bias, eps: 1e-3 }
    }

    fn mlp(&self) -> mlp::Weights<'_> {
        let Self { up, up_bias, down, down_bias, activation, .. } = self;
        mlp::Weights { up, up_bias, down, down_bias, activation: *activation }
    }

    fn weights(&self) -> conv_block::Weights<'_> {
        conv_block::Weights { conv: &self.conv, conv_bias: &self.conv_bias, norm: self.norm(), mlp: self.mlp() }
    }

    /// What is kept, in the units of the precision: any numbers will do.
    fn kept(&self) -> Saved {
        let units = self.kept.unwrap_or(8 * self.width(self.mask.len()));
        match self.precision {
            Precision::F32 => Saved::of::<f32>(&numbers(units), 1),
            Precision::Bf16 => Saved::of::<Pair>(&numbers(units), 1),
        }
    }

    fn width(&self, numbers: usize) -> usize {
        match self.precision {
            Precision::F32 => <f32 as Unit>::width(numbers),
            Precision::Bf16 => Pair::width(numbers),
        }
    }

    fn no_rows(&mut self) {
        (self.x, self.mask, self.dout) = (vec![], vec![], vec![]);
    }

    fn swiglu(&mut self) {
        (self.activation, self.down) = (Activation::SwiGlu, numbers(16));
    }

    fn geglu(&mut self) {
        (self.activation, self.down) = (Activation::GeGlu, numbers(16));
    }
}

fn misshapen_mlp(kernel: Kernel<Block>) -> Kernel<Block> {
    kernel
        .wrong("`norm.gain` holds 3 elements, but its shape is [4]", |a| a.gain.truncate(3))
        .wrong("`norm.gain` holds 5 elements, but its shape is [4]", |a| a.gain.push(1.0))
        .wrong("`norm.bias` holds 3 elements, but its shape is [4]", |a| a.bias.truncate(3))
        .wrong("`norm.bias` holds 5 elements, but its shape is [4]", |a| a.bias.push(1.0))
        .wrong("`mlp.up` holds 31 elements, but its shape is [8, 4]", |a| a.up.truncate(31))
        .wrong("`mlp.up` holds 33 elements, but its shape is [8, 4]", |a| a.up.push(0.0))
        .wrong("`mlp.up` holds 32 elements, but its shape is [7, 4]", |a| a.up_bias.truncate(7))
        .wrong("`mlp.up_bias` is 0", |a| a.up_bias.clear())
        .wrong("`mlp.down` holds 28 elements, but its shape is [4, 8]", |a| a.down.truncate(28))
        .wrong("`mlp.down` holds 33 elements, but its shape is [4, 8]", |a| a.down.push(0.0))
        .wrong("`mlp.down` holds 32 elements, but its shape is [4, 4]", |a| a.activation = Activation::SwiGlu)
        .wrong("`mlp.down` holds 32 elements, but its shape is [4, 4]", |a| a.activation = Activation::GeGlu)
        .wrong("`mlp.up_bias` holds 7 elements, which are not 2 equal parts", |a| {
            a.swiglu();
            a.up_bias.truncate(7);
        })
        .wrong("`mlp.up_bias` holds 7 elements, which are not 2 equal parts", |a| {
            a.geglu();
            a.up_bias.truncate(7);
        })
}

fn misshapen_conv_weights(kernel: Kernel<Block>) -> Kernel<Block> {
    misshapen_mlp(kernel)
        .wrong("`conv` holds 11 elements, but its shape is [4, width]", |a| a.conv.truncate(11))
        .wrong("`conv` holds 13 elements, but its shape is [4, width]", |a| a.conv.push(0.0))
        .wrong("`conv` has a kernel of 2, but it must be odd", |a| a.conv.truncate(8))
        .wrong("`conv` holds 0 elements, but its shape is [4, width]", |a| a.conv.clear())
        .wrong("`conv` holds 12 elements, but its shape is [5, width]", |a| a.conv_bias.push(0.0))
        .wrong("`conv_bias` is 0", |a| a.conv_bias.clear())
        .wrong("`mlp.down_bias` holds 3 elements, but its shape is [4]", |a| a.down_bias.truncate(3))
        .wrong("`mlp.down_bias` holds 5 elements, but its shape is [4]", |a| a.down_bias.push(0.0))
}

fn misshapen_conv(kernel: Kernel<Block>) -> Kernel<Block> {
    misshapen_conv_weights(kernel)
        .wrong("`x` holds 23 elements, but its shape is [6, 4]", |a| a.x.truncate(23))
        .wrong("`x` holds 28 elements, but its shape is [6, 4]", |a| a.x = numbers(28))
        .wrong("`x` holds 24 elements, but its shape is [5, 4]", |a| a.mask.truncate(5))
        .wrong("`x` holds 24 elements, but its shape is [7, 4]", |a| a.mask.push(1.0))
        .wrong("`mask` holds 6 elements, but its shape is [batch * 0]", |a| a.length = 0)
        .wrong("`mask` holds 6 elements, but its shape is [batch * 4]", |a| a.length = 4)
        .wrong("`mask` holds 6 elements, but its shape is [batch * 18446744073709551615]", |a| a.length = usize::MAX)
}

fn conv_prepared_new() -> Tried {
    let tried = kernel("conv_block::Prepared::new", block(Precision::F32), 0, |a| {
        _ = conv_block::Prepared::<f32>::new(a.weights());
        _ = conv_block::Prepared::<Pair>::new(a.weights());
        vec![]
    });
    misshapen_conv_weights(tried).tried()
}

fn conv_prepared_forward<U: Unit>() -> Tried {
    let tried = kernel("conv_block::Prepared::forward", block(Precision::F32), 24, |a| {
        conv_block::Prepared::<U>::new(a.weights()).forward(a.input())
    });
    misshapen_conv(tried).right(0, Block::no_rows).right(24, |a| a.conv = numbers(36)).tried()
}

fn conv_forward(precision: Precision) -> Tried {
    let tried = kernel("conv_block::forward", block(precision), 24, |a| {
        conv_block::forward(a.input(), a.weights(), a.precision, true).0
    });
    misshapen_conv(tried).right(0, Block::no_rows).right(24, Block::swiglu).right(24, Block::geglu).tried()
}

fn conv_backward(precision: Precision) -> Tried {
    let weights = 12 + 4 + 4 + 4 + 32 + 8 + 32 + 4;
    let tried = kernel("conv_block::backward", block(precision), 24 + weights, |a| {
        let g = conv_block::backward(a.input(), a.weights(), &a.dout, &a.kept(), a.precision);
        let layers = [g.up, g.down].map(|g| all([g.weight.unwrap_or_default(), g.bias.unwrap_or_default()]));
        all([g.x, g.conv, g.conv_bias, g.gain, g.bias, all(layers)])
    });
    let units = block(precision).width(6) * 8;
    let kept =
        |units: usize| format!("`pre` holds {units} elements, but its shape is [8, {}]", block(precision).width(6));
    misshapen_conv(tried)
        .right(weights, Block::no_rows)
        .right(24 + weights, |a| a.kept = Some(0))
        .right(24 + weights - 16, |a| {
            a.swiglu();
            a.kept = Some(0);
        })
        .wrong("`dout` holds 20 elements, but its shape is [6, 4]", |a| a.dout.truncate(20))
        .wrong("`dout` holds 25 elements, but its shape is [6, 4]", |a| a.dout.push(0.0))
        .wrong(&kept(units - 1), |a| a.kept = Some(units - 1))
        .wrong(&kept(units + 8), |a| a.kept = Some(units + 8))
        .tried()
}

fn misshapen_rows(kernel: Kernel<Block>) -> Kernel<Block> {
    misshapen_mlp(kernel)
        .wrong("`x` holds 23 elements, but its shape is [rows, 4]", |a| a.x.truncate(23))
        .wrong("`x` holds 25 elements, but its shape is [rows, 4]", |a| a.x.push(0.0))
}

fn mlp_prepared_new() -> Tried {
    let tried = kernel("mlp_block::Prepared::new", block(Precision::F32), 0, |a| {
        _ = mlp_block::Prepared::<f32>::new(a.norm(), a.mlp());
        _ = mlp_block::Prepared::<Pair>::new(a.norm(), a.mlp());
        vec![]
    });
    misshapen_mlp(tried).tried()
}

fn mlp_prepared_forward<U: Unit>() -> Tried {
    let tried = kernel("mlp_block::Prepared::forward", block(Precision::F32), 24, |a| {
        mlp_block::Prepared::<U>::new(a.norm(), a.mlp()).forward(&a.x)
    });
    misshapen_rows(tried).right(0, Block::no_rows).right(24, Block::swiglu).right(24, Block::geglu).tried()
}

fn mlp_forward(precision: Precision) -> Tried {
    let tried = kernel("mlp_block::forward", block(precision), 24, |a| {
        mlp_block::forward(&a.x, a.norm(), a.mlp(), a.precision, true).0
    });
    misshapen_rows(tried).right(0, Block::no_rows).right(24, Block::swiglu).right(24, Block::geglu).tried()
}

fn mlp_backward(precision: Precision) -> Tried {
    let weights = 4 + 4 + 32 + 8 + 32 + 4;
    let tried = kernel("mlp_block::backward", block(precision), 24 + weights, |a| {
        let factors = a.parts.map(|parts| parts.map(|sizes| sizes.map(numbers)));
        let wanted = |layer: usize| {
            let part = factors.as_ref().map(|factors| &factors[layer]);
            let low_rank = part.map(|[f, g]| LowRank { a: f, b: g, rank: a.rank, scale: 0.5 });
            linear::Wanted { low_rank, ..linear::Wanted::ALL }
        };
        let wanted = mlp_block::Wanted { x: true, norm: true, up: wanted(0), down: wanted(1) };
        let g = mlp_block::backward(&a.x, a.norm(), a.mlp(), &a.dout, &a.kept(), wanted, a.precision);
        let layers = [g.up, g.down].map(|g| {
            let [a, b] = g.low_rank.unwrap_or_default();
            all([g.weight.unwrap_or_default(), g.bias.unwrap_or_default(), a, b])
        });
        all([g.x.unwrap_or_default(), all(g.norm.unwrap_or_default()), all(layers)])
    });
    let right = [[8, 16], [16, 8]];
    let units = block(precision).width(6) * 8;
    let kept =
        |units: usize| format!("`pre` holds {units} elements, but its shape is [8, {}]", block(precision).width(6));
    misshapen_rows(tried)
        .right(weights, Block::no_rows)
        .right(24 + weights, |a| a.kept = Some(0))
        .right(24 + weights + 48, |a| a.parts = Some(right))
        .wrong("`dout` holds 20 elements, but its shape is [6, 4]", |a| a.dout.truncate(20))
        .wrong("`dout` holds 28 elements, but its shape is [6, 4]", |a| a.dout = numbers(28))
        .wrong("`dout` holds 24 elements, but its shape is [5, 4]", |a| a.x.truncate(20))
        .wrong(&kept(units - 1), |a| a.kept = Some(units - 1))
        .wrong(&kept(units + 8), |a| a.kept = Some(units + 8))
        .wrong("`low_rank.rank` is 0", |a| (a.parts, a.rank) = (Some(right), 0))
        .wrong("`low_rank.a` holds 7 elements, but its shape is [2, 4]", |a| a.parts = Some([[7, 16], [16, 8]]))
        .wrong("`low_rank.b` holds 8 elements, but its shape is [8, 2]", |a| a.parts = Some([[8, 8], [16, 8]]))
        .wrong("`low_rank.a` holds 8 elements, but its shape is [2, 8]", |a| a.parts = Some([[8, 16], [8, 8]]))
        .tried()
}
