//! Attention alone and in its block: two sequences of three rows, two heads of two numbers.

use crate::{all, numbers};
use vqdna_kernels::attention::cached::{Cache, Shape};
use vqdna_kernels::attention::{self, Input, Positions, alibi_slopes, rotary_table};
use vqdna_kernels::attention_block::{self, Kept, Prepared, Wanted};
use vqdna_kernels::linear;
use vqdna_kernels::low_rank::LowRank;
use vqdna_kernels::norm::Norm;
use vqdna_kernels::product::{Pair, Precision, Saved, Unit};
use vqdna_misuse::{Kernel, Tried, kernel};

pub fn tried() -> Vec<Tried> {
    let mut tried = vec![slopes(), table(), among(), with()];
    tried.extend([cache_new(), cache_shape(), cache_lengths(), cache_truncate(), cache_append()]);
    tried.extend([forward::<f32>(), forward::<Pair>(), backward::<f32>(), backward::<Pair>()]);
    for precision in [Precision::F32, Precision::Bf16] {
        tried.extend([block_forward(precision), block_backward(precision)]);
    }
    tried.extend([block_prepared_new(), block_prepared_forward::<f32>(), block_prepared_forward::<Pair>()]);
    tried
}

fn slopes() -> Tried {
    kernel("attention::rotation::alibi_slopes", 6, 6, alibi_slopes)
        .right(0, |heads| *heads = 0)
        .wrong("`heads` is 65537, but must be at most 65536", |heads| *heads = 65_537)
        .wrong("`heads` is 18446744073709551615, but", |heads| *heads = usize::MAX)
        .tried()
}

fn table() -> Tried {
    kernel("attention::rotation::rotary_table", (7, 2), 28, |(length, half)| rotary_table(1e4, length, half))
        .right(0, |(length, half)| (*length, *half) = (0, 1 << 60))
        .right(0, |(_, half)| *half = 0)
        .wrong("`length` is 16777217, but must be at most 16777216", |(length, _)| *length = (1 << 24) + 1)
        .wrong("`length` is 18446744073709551615, but", |(length, _)| *length = usize::MAX)
        .wrong("`table` of shape [7, 2, 9223372036854775808] holds more", |(_, half)| *half = 1 << 63)
        .tried()
}

#[derive(Clone)]
struct Attend {
    qkv: Vec<f32>,
    /// Units that are missing at the end, as they can be in the rows of a precision.
    missing: usize,
    mask: Vec<f32>,
    keys: Option<Vec<f32>>,
    places: Option<Vec<u32>>,
    length: usize,
    heads: usize,
    positions: Positions,
    causal: bool,
    /// What the backward pass gets: rows of the output, its statistics, the gradient.
    out: Vec<f32>,
    stats: Vec<f32>,
    dout: Vec<f32>,
}

fn attend() -> Attend {
    Attend {
        qkv: numbers(72),
        missing: 0,
        mask: vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0],
        keys: None,
        places: None,
        length: 3,
        heads: 2,
        positions: Positions::Rotary { theta: 100.0 },
        causal: false,
        out: numbers(24),
        stats: numbers(12),
        dout: numbers(24),
    }
}

impl Attend {
    fn input<'a, U: Unit>(&'a self, qkv: &'a Saved) -> Input<'a, U> {
        let units = qkv.units();
        let units = &units[..units.len() - self.missing];
        let among = Input::among(units, &self.mask, self.length, self.heads, self.positions);
        Input { keys: self.keys.as_deref(), places: self.places.as_deref(), causal: self.causal, ..among }
    }

    fn empty(&mut self) {
        let (qkv, mask, out, stats, dout) = Default::default();
        *self = Self { qkv, mask, out, stats, dout, ..self.clone() };
    }
}

fn among() -> Tried {
    kernel("attention::Input::among", attend(), 6, |a| a.input::<f32>(&Saved::of::<f32>(&a.qkv, 12)).mask.to_vec())
        .tried()
}

fn with() -> Tried {
    kernel("attention::Input::with", attend(), 36, |a| {
        let qkv = Saved::of::<f32>(&a.qkv, 12);
        let others = Saved::of::<Pair>(&a.qkv, 12);
        let input: Input<Pair> = a.input::<f32>(&qkv).with(others.units());
        vec![0.0; input.qkv.len()]
    })
    .tried()
}

fn misshapen<U: Unit>(kernel: Kernel<Attend>) -> Kernel<Attend> {
    let units = |numbers: usize| numbers / U::DEPTH;
    let held = |of: usize, shape: &str| format!("`qkv` holds {of} elements, but its shape is {shape}");
    kernel
        .wrong(&held(units(72) - 1, &format!("[6, {}]", if U::DEPTH == 1 { 9 } else { 5 })), |a| a.missing = 1)
        .wrong(&held(units(84), "[6, "), |a| a.qkv = numbers(84))
        .wrong(&held(units(48), "[6, "), |a| a.qkv = numbers(48))
        .wrong(&held(units(72), "[0]"), |a| a.mask.clear())
        .wrong("`qkv` holds ", |a| a.mask = vec![1.0; 9])
        .wrong("`heads` is 2, but a width of 0", |a| a.qkv.clear())
        .wrong("`mask` holds 5 elements, but its shape is [batch * 3]", |a| a.mask.truncate(5))
        .wrong("`mask` holds 6 elements, but its shape is [batch * 0]", |a| a.length = 0)
        .wrong("`mask` holds 6 elements, but its shape is [batch * 4]", |a| a.length = 4)
        .wrong("`mask` holds 6 elements, but its shape is [batch * 18446744073709551615]", |a| a.length = usize::MAX)
        .wrong("`keys` holds 5 elements, but its shape is [6]", |a| a.keys = Some(vec![1.0; 5]))
        .wrong("`keys` holds 7 elements, but its shape is [6]", |a| a.keys = Some(vec![1.0; 7]))
        .wrong("`places` holds 3 elements, but its shape is [6]", |a| a.places = Some(vec![0, 1, 2]))
        .wrong("`places` holds 7 elements, but its shape is [6]", |a| a.places = Some(vec![0; 7]))
        .wrong("`places` holds 16777216, but", |a| a.places = Some(vec![0, 0, 0, 0, 0, 1 << 24]))
        .wrong("`places` holds 4294967295, but", |a| a.places = Some(vec![u32::MAX; 6]))
        .wrong("`keys` holds 5 elements, but its shape is [6]", |a| (a.keys, a.causal) = (Some(vec![1.0; 5]), true))
        .wrong("`places` holds 3 elements, but its shape is [6]", |a| (a.places, a.causal) = (Some(vec![0; 3]), true))
        .wrong("`mask` holds 5 elements, but its shape is [batch * 3]", |a| {
            a.mask.truncate(5);
            a.causal = true;
        })
        .wrong("`heads` is 0", |a| a.heads = 0)
        .wrong("`heads` is 3, but a width of 4", |a| a.heads = 3)
        .wrong("`heads` is 4, but a width of 4", |a| a.heads = 4)
        .wrong("`heads` is 8, but a width of 4", |a| (a.heads, a.positions) = (8, Positions::Alibi))
        .wrong("`heads` is 9223372036854775809, but a width of 4", |a| a.heads = (1 << 63) + 1)
}

fn forward<U: Unit>() -> Tried {
    let tried = kernel("attention::forward::forward", attend(), 36, |a| {
        let (out, stats) = attention::forward(a.input::<U>(&Saved::of::<U>(&a.qkv, 12)), true);
        all([out.numbers::<U>(4), stats])
    });
    misshapen::<U>(tried)
        .right(0, Attend::empty)
        .right(0, |a| {
            a.empty();
            (a.heads, a.length) = (usize::MAX, usize::MAX);
        })
        .right(36, |a| a.positions = Positions::Alibi)
        .right(36, |a| a.mask.fill(0.0))
        .right(36, |a| a.mask.fill(f32::NAN))
        .right(36, |a| a.keys = Some(vec![0.0; 6]))
        .right(36, |a| (a.keys, a.places) = (Some(vec![0.0, 1.0, 1.0, 0.0, 0.0, 0.0]), Some(vec![9, 7, 7, 1, 0, 3])))
        .right(36, |a| a.causal = true)
        .right(36, |a| (a.causal, a.positions) = (true, Positions::Alibi))
        .right(36, |a| (a.causal, a.mask) = (true, vec![0.0; 6]))
        .right(36, |a| (a.causal, a.keys) = (true, Some(vec![0.0; 6])))
        .right(36, |a| {
            a.causal = true;
            (a.keys, a.places) = (Some(vec![0.0, 1.0, 1.0, 0.0, 0.0, 1.0]), Some(vec![9, 7, 7, 1, 0, 3]));
        })
        .tried()
}

fn backward<U: Unit>() -> Tried {
    let tried = kernel("attention::backward::backward", attend(), 72, |a| {
        let (qkv, out) = (Saved::of::<U>(&a.qkv, 12), Saved::of::<U>(&a.out, 4));
        attention::backward(a.input::<U>(&qkv), &out, &a.stats, &a.dout)
    });
    let out =
        |numbers: usize| format!("`out` holds {} elements, but its shape is [6, {}]", numbers / U::DEPTH, 4 / U::DEPTH);
    misshapen::<U>(tried)
        .right(0, Attend::empty)
        .right(72, |a| a.mask.fill(0.0))
        .right(72, |a| a.keys = Some(vec![0.0; 6]))
        .right(72, |a| (a.keys, a.places) = (Some(vec![0.0, 1.0, 1.0, 0.0, 0.0, 0.0]), Some(vec![9, 7, 7, 1, 0, 3])))
        .right(72, |a| a.causal = true)
        .right(72, |a| (a.causal, a.positions) = (true, Positions::Alibi))
        .right(72, |a| (a.causal, a.mask) = (true, vec![0.0; 6]))
        .right(72, |a| (a.causal, a.keys) = (true, Some(vec![0.0; 6])))
        .right(72, |a| {
            a.causal = true;
            (a.keys, a.places) = (Some(vec![0.0, 1.0, 1.0, 0.0, 0.0, 1.0]), Some(vec![9, 7, 7, 1, 0, 3]));
        })
        .wrong(&out(20), |a| a.out.truncate(20))
        .wrong(&out(28), |a| a.out = numbers(28))
        .wrong("`stats` holds 11 elements, but its shape is [6, 2]", |a| a.stats.truncate(11))
        .wrong("`stats` holds 0 elements, but its shape is [6, 2]", |a| a.stats.clear())
        .wrong("`dout` holds 23 elements, but its shape is [6, 4]", |a| a.dout.truncate(23))
        .wrong("`dout` holds 25 elements, but its shape is [6, 4]", |a| a.dout.push(0.0))
        .tried()
}

/// A cache of two sequences of four positions at most, the first of which has two already.
#[derive(Clone)]
struct Cached {
    shape: Shape,
    qkv: Vec<f32>,
    mask: Vec<f32>,
    sequence: usize,
    length: usize,
}

fn cached() -> Cached {
    let positions = Positions::Rotary { theta: 100.0 };
    let shape = Shape { batch: 2, capacity: 4, heads: 2, d_head: 2, positions };
    Cached { shape, qkv: numbers(2 * 2 * 12), mask: vec![1.0, 1.0, 0.0, 1.0], sequence: 0, length: 1 }
}

impl Cached {
    fn cache(&self) -> Cache {
        let mut cache = Cache::new(self.shape);
        cache.append(&numbers(2 * 2 * 12), &[1.0, 1.0, 0.0, 0.0]);
        cache
    }
}

fn cache_new() -> Tried {
    kernel("attention::cached::Cache::new", cached(), 2, |a| {
        Cache::new(a.shape).lengths().iter().map(|&length| length as f32).collect()
    })
    .right(2, |a| (a.shape.positions, a.shape.d_head) = (Positions::Alibi, 3))
    .wrong("`batch` is 0", |a| a.shape.batch = 0)
    .wrong("`capacity` is 0", |a| a.shape.capacity = 0)
    .wrong("`capacity` is 16777217, but must be at most 16777216", |a| a.shape.capacity = (1 << 24) + 1)
    .wrong("`capacity` is 18446744073709551615, but", |a| a.shape.capacity = usize::MAX)
    .wrong("`d_head` is 0", |a| a.shape.d_head = 0)
    .wrong("`heads` is 0", |a| a.shape.heads = 0)
    .wrong("`heads` is 2, but a width of 6 is not so many heads of an even width", |a| a.shape.d_head = 3)
    .wrong("`heads` is 65537, but must be at most 65536", |a| {
        (a.shape.heads, a.shape.positions) = (65_537, Positions::Alibi);
    })
    .wrong("`d` of shape [2, 9223372036854775808] holds more", |a| a.shape.d_head = 1 << 63)
    .wrong("`qkv` of shape [2, 4, 3, 2, 2305843009213693952] holds more", |a| a.shape.d_head = 1 << 61)
    .wrong("`qkv` of shape [18446744073709551615, 4, 3, 2, 2] holds more", |a| a.shape.batch = usize::MAX)
    .tried()
}

fn cache_shape() -> Tried {
    kernel("attention::cached::Cache::shape", cached(), 4, |a| vec![0.0; a.cache().shape().capacity]).tried()
}

fn cache_lengths() -> Tried {
    kernel("attention::cached::Cache::lengths", cached(), 2, |a| vec![0.0; a.cache().lengths()[0]]).tried()
}

fn cache_truncate() -> Tried {
    kernel("attention::cached::Cache::truncate", cached(), 1, |a| {
        let mut cache = a.cache();
        cache.truncate(a.sequence, a.length);
        vec![0.0; cache.lengths()[0]]
    })
    .right(0, |a| a.length = 0)
    .right(2, |a| a.length = 2)
    .right(2, |a| (a.sequence, a.length) = (1, 0))
    .wrong("`length` is 3, but sequence 0 has 2 positions", |a| a.length = 3)
    .wrong("`length` is 1, but sequence 1 has 0 positions", |a| a.sequence = 1)
    .wrong("`sequence` is 2, but there are 2", |a| a.sequence = 2)
    .wrong("`sequence` is 18446744073709551615, but there are 2", |a| a.sequence = usize::MAX)
    .tried()
}

fn cache_append() -> Tried {
    kernel("attention::cached::Cache::append", cached(), 16, |a| a.cache().append(&a.qkv, &a.mask))
        .right(16, |a| a.shape.positions = Positions::Alibi)
        .right(16, |a| a.mask.fill(0.0))
        .right(8, |a| (a.qkv, a.mask) = (numbers(24), vec![1.0, 1.0]))
        .right(8, |a| (a.qkv, a.mask) = (numbers(24), vec![f32::NAN, 0.0]))
        .right(32, |a| (a.qkv, a.mask) = (numbers(96), vec![0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]))
        .wrong("`mask` holds 0 elements, but its shape is [2, width]", |a| a.mask.clear())
        .wrong("`mask` holds 3 elements, but its shape is [2, width]", |a| a.mask.truncate(3))
        .wrong("`qkv` holds 48 elements, but its shape is [2, 1, 3, 4]", |a| a.mask.truncate(2))
        .wrong("`qkv` holds 47 elements, but its shape is [2, 2, 3, 4]", |a| a.qkv.truncate(47))
        .wrong("`qkv` holds 0 elements, but its shape is [2, 2, 3, 4]", |a| a.qkv.clear())
        .wrong("`mask` has padding between positions", |a| {
            (a.qkv, a.mask) = (numbers(72), vec![1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
        })
        .wrong("`capacity` is 4, but sequence 0 would have 5 positions", |a| {
            (a.qkv, a.mask) = (numbers(72), vec![1.0; 6]);
        })
        .wrong("`capacity` is 4, but sequence 1 would have 5 positions", |a| {
            (a.qkv, a.mask) = (numbers(120), [vec![0.0; 5], vec![1.0; 5]].concat());
        })
        .tried()
}

/// The block, four numbers a row.
#[derive(Clone)]
struct Block {
    x: Vec<f32>,
    mask: Vec<f32>,
    length: usize,
    places: Option<Vec<u32>>,
    causal: bool,
    gain: Vec<f32>,
    bias: Vec<f32>,
    qkv: Vec<f32>,
    qkv_bias: Vec<f32>,
    out: Vec<f32>,
    out_bias: Vec<f32>,
    heads: usize,
    positions: Positions,
    dout: Vec<f32>,
    /// The block whose forward pass is to have kept what the backward pass gets, unless this one's; and whether anything was kept.
    other: Option<Box<Block>>,
    keep: bool,
    /// Sizes of the factors of a part of both projections, and their rank.
    parts: [[usize; 2]; 2],
    rank: usize,
    precision: Precision,
}

fn block(precision: Precision) -> Block {
    Block {
        x: numbers(24),
        mask: vec![1.0, 1.0, 0.0, 1.0, 1.0, 1.0],
        length: 3,
        places: None,
        causal: false,
        gain: numbers(4),
        bias: numbers(4),
        qkv: numbers(48),
        qkv_bias: numbers(12),
        out: numbers(16),
        out_bias: numbers(4),
        heads: 2,
        positions: Positions::Rotary { theta: 100.0 },
        dout: numbers(24),
        other: None,
        keep: true,
        parts: [[8, 24], [8, 8]],
        rank: 2,
        precision,
    }
}

impl Block {
    fn input(&self) -> attention_block::Input<'_> {
        let places = self.places.as_deref();
        attention_block::Input { x: &self.x, mask: &self.mask, length: self.length, places, causal: self.causal }
    }

    fn weights(&self) -> attention_block::Weights<'_> {
        attention_block::Weights {
            norm: Norm { gain: &self.gain, bias: &self.bias, eps: 1e-3 },
            qkv: &self.qkv,
            qkv_bias: &self.qkv_bias,
            out: &self.out,
            out_bias: &self.out_bias,
            heads: self.heads,
            positions: self.positions,
        }
    }

    fn kept(&self) -> Kept {
        if !self.keep {
            return Kept::default();
        }
        let of = self.other.as_deref().unwrap_or(self);
        attention_block::forward(of.input(), of.weights(), of.precision, true).1
    }

    fn no_rows(&mut self) {
        (self.x, self.mask, self.dout) = (vec![], vec![], vec![]);
    }
}

fn misshapen_weights(kernel: Kernel<Block>) -> Kernel<Block> {
    kernel
        .wrong("`norm.gain` holds 3 elements, but its shape is [4]", |a| a.gain.truncate(3))
        .wrong("`norm.gain` holds 5 elements, but its shape is [4]", |a| a.gain.push(1.0))
        .wrong("`norm.bias` holds 0 elements, but its shape is [4]", |a| a.bias.clear())
        .wrong("`norm.bias` holds 5 elements, but its shape is [4]", |a| a.bias.push(1.0))
        .wrong("`qkv` holds 44 elements, but its shape is [3, 4, 4]", |a| a.qkv.truncate(44))
        .wrong("`qkv` holds 49 elements, but its shape is [3, 4, 4]", |a| a.qkv.push(0.0))
        .wrong("`qkv_bias` holds 11 elements, but its shape is [3, 4]", |a| a.qkv_bias.truncate(11))
        .wrong("`qkv_bias` holds 13 elements, but its shape is [3, 4]", |a| a.qkv_bias.push(0.0))
        .wrong("`out` holds 15 elements, but its shape is [4, 4]", |a| a.out.truncate(15))
        .wrong("`out` holds 17 elements, but its shape is [4, 4]", |a| a.out.push(0.0))
        .wrong("`norm.gain` holds 4 elements, but its shape is [3]", |a| a.out_bias.truncate(3))
        .wrong("`out_bias` is 0", |a| a.out_bias.clear())
        .wrong("`heads` is 0", |a| a.heads = 0)
        .wrong("`heads` is 3, but a width of 4", |a| a.heads = 3)
        .wrong("`heads` is 4, but a width of 4 is not so many heads of an even width", |a| a.heads = 4)
        .wrong("`heads` is 18446744073709551615, but a width of 4", |a| a.heads = usize::MAX)
}

fn misshapen_block(kernel: Kernel<Block>) -> Kernel<Block> {
    misshapen_weights(kernel)
        .wrong("`x` holds 23 elements, but its shape is [6, 4]", |a| a.x.truncate(23))
        .wrong("`x` holds 28 elements, but its shape is [6, 4]", |a| a.x = numbers(28))
        .wrong("`x` holds 24 elements, but its shape is [3, 4]", |a| a.mask.truncate(3))
        .wrong("`x` holds 24 elements, but its shape is [9, 4]", |a| a.mask = vec![1.0; 9])
        .wrong("`mask` holds 6 elements, but its shape is [batch * 0]", |a| a.length = 0)
        .wrong("`mask` holds 6 elements, but its shape is [batch * 4]", |a| a.length = 4)
        .wrong("`mask` holds 6 elements, but its shape is [batch * 9223372036854775808]", |a| a.length = 1 << 63)
        .wrong("`places` holds 5 elements, but its shape is [6]", |a| a.places = Some(vec![0; 5]))
        .wrong("`places` holds 7 elements, but its shape is [6]", |a| a.places = Some(vec![0; 7]))
        .wrong("`places` holds 4294967295, but", |a| (a.places, a.keep) = (Some(vec![u32::MAX; 6]), false))
}

fn block_forward(precision: Precision) -> Tried {
    let tried = kernel("attention_block::forward", block(precision), 24, |a| {
        attention_block::forward(a.input(), a.weights(), a.precision, a.keep).0
    });
    misshapen_block(tried)
        .right(0, Block::no_rows)
        .right(24, |a| a.keep = false)
        .right(24, |a| a.places = Some(vec![5, 4, 3, 2, 1, 0]))
        .right(24, |a| (a.causal, a.places) = (true, Some(vec![5, 4, 3, 2, 1, 0])))
        .tried()
}

fn block_prepared_new() -> Tried {
    let tried = kernel("attention_block::Prepared::new", block(Precision::F32), 0, |a| {
        _ = (Prepared::<f32>::new(a.weights()), Prepared::<Pair>::new(a.weights()));
        vec![]
    });
    misshapen_weights(tried).tried()
}

fn block_prepared_forward<U: Unit>() -> Tried {
    let tried = kernel("attention_block::Prepared::forward", block(Precision::F32), 24, |a| {
        Prepared::<U>::new(a.weights()).forward(a.input())
    });
    misshapen_block(tried).right(0, Block::no_rows).right(24, |a| a.causal = true).tried()
}

fn block_backward(precision: Precision) -> Tried {
    let parts = 8 + 24 + 8 + 8;
    let other = |change: fn(&mut Block)| {
        let mut other = block(precision);
        change(&mut other);
        Some(Box::new(other))
    };
    let tried = kernel("attention_block::backward", block(precision), 24 + 8 + 48 + 12 + 16 + 4 + parts, |a| {
        let [[qkv_a, qkv_b], [out_a, out_b]] = a.parts.map(|sizes| sizes.map(numbers));
        let part = |a, b, rank| Some(LowRank { a, b, rank, scale: 0.5 });
        let wanted = Wanted {
            qkv: linear::Wanted { low_rank: part(&qkv_a, &qkv_b, a.rank), ..linear::Wanted::ALL },
            out: linear::Wanted { low_rank: part(&out_a, &out_b, a.rank), ..linear::Wanted::ALL },
            ..Wanted::ALL
        };
        let g = attention_block::backward(a.input(), a.weights(), &a.dout, a.kept(), wanted, a.precision);
        let norm = g.norm.unwrap_or_default();
        let layers = [g.qkv, g.out].map(|g| {
            let [a, b] = g.low_rank.unwrap_or_default();
            all([g.weight.unwrap_or_default(), g.bias.unwrap_or_default(), a, b])
        });
        all([g.x.unwrap_or_default(), all(norm), all(layers)])
    });
    misshapen_block(tried)
        .right(24 + 8 + 48 + 12 + 16 + 4 + parts, |a| a.keep = false)
        .right(24 + 8 + 48 + 12 + 16 + 4 + parts, |a| (a.causal, a.keep) = (true, false))
        .right(24 + 8 + 48 + 12 + 16 + 4 + parts, |a| (a.causal, a.positions) = (true, Positions::Alibi))
        .right(8 + 48 + 12 + 16 + 4 + parts, Block::no_rows)
        .wrong("`dout` holds 23 elements, but its shape is [6, 4]", |a| a.dout.truncate(23))
        .wrong("`dout` holds 28 elements, but its shape is [6, 4]", |a| a.dout = numbers(28))
        .wrong("`low_rank.rank` is 0", |a| a.rank = 0)
        .wrong("`low_rank.a` holds 7 elements, but its shape is [2, 4]", |a| a.parts[0][0] = 7)
        .wrong("`low_rank.b` holds 8 elements, but its shape is [12, 2]", |a| a.parts[0][1] = 8)
        .wrong("`low_rank.b` holds 24 elements, but its shape is [4, 2]", |a| a.parts[1][1] = 24)
        .wrong("`kept` holds 6 elements, but its shape is [6, 2]", |a| a.other = other(|other| other.heads = 1))
        .wrong("`kept` holds 6 elements, but its shape is [6, 2]", |a| {
            a.other = other(|other| (other.x, other.mask) = (numbers(12), vec![1.0; 3]));
        })
        .wrong("`kept` holds ", |a| {
            a.other = other(|other| {
                other.precision = match other.precision {
                    Precision::F32 => Precision::Bf16,
                    Precision::Bf16 => Precision::F32,
                }
            });
        })
        .tried()
}
