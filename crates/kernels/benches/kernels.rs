//! Speed of each kernel: `cargo bench -p vqdna-kernels [-- FILTER]`.
//!
//! One line a kernel and shape: the median time of a call, its matrix products in GFLOP/s and as a share of the product peak of
//! this machine (measured first, out of cache), or the memory it must read and write in GB/s. Two threads unless
//! `RAYON_NUM_THREADS` says otherwise.
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints its figures")]

use std::hint::black_box;
use std::time::Instant;
use vqdna_kernels::conv_block::{self, Input};
use vqdna_kernels::experts::{self, Expert};
use vqdna_kernels::low_rank::LowRank;
use vqdna_kernels::norm::Norm;
use vqdna_kernels::product::{Onto, Pair, Precision, Saved, Unit, peak, transposed};
use vqdna_kernels::sample::{self, Taps};
use vqdna_kernels::{attention, codebook, cross_entropy, gelu, linear, mlp, units};

/// Reproducible numbers in −1..1.
fn noise(length: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..length).map(|_| next()).collect()
}

/// Median seconds of a call.
fn seconds(mut call: impl FnMut()) -> f64 {
    let mut times = Vec::new();
    let start = Instant::now();
    call();
    while times.len() < 5 || start.elapsed().as_secs_f64() < 1.0 {
        let start = Instant::now();
        call();
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

enum Work {
    /// Multiplications and additions of matrix products.
    Flops(f64),
    /// Bytes that must be read or written.
    Bytes(f64),
}

struct Bench {
    filter: String,
    peaks: [f64; 2],
}

impl Bench {
    fn wants(&self, kernel: &str, shape: &str, precision: Precision) -> bool {
        format!("{kernel} {shape} {precision:?}").contains(&self.filter)
    }

    fn run(&self, kernel: &str, shape: &str, precision: Precision, work: Work, call: impl FnMut()) {
        if !self.wants(kernel, shape, precision) {
            return;
        }
        let time = seconds(call);
        let rate = match work {
            Work::Flops(flops) => {
                let rate = flops / time * 1e-9;
                let peak = self.peaks[usize::from(precision == Precision::Bf16)];
                format!("{rate:8.1} GFLOP/s {:5.1} % of peak", 100.0 * rate / peak)
            }
            Work::Bytes(bytes) => format!("{:8.1} GB/s", bytes / time * 1e-9),
        };
        println!("{kernel:<22} {shape:<26} {precision:?} {:9.3} ms {rate}", time * 1e3);
    }
}

fn main() {
    let filter = std::env::args().skip(1).find(|a| !a.starts_with("--")).unwrap_or_default();
    let peaks = [Precision::F32, Precision::Bf16].map(|p| peak(p, 0.5));
    println!("peak: {:.1} GFLOP/s f32, {:.1} GFLOP/s bf16", peaks[0], peaks[1]);
    let bench = Bench { filter, peaks };
    for precision in [Precision::F32, Precision::Bf16] {
        for (rows, d, d_inner, length) in [(8192, 128, 512, 512), (2048, 384, 1536, 512)] {
            conv_blocks(&bench, precision, rows, d, d_inner, length);
        }
        for (rows, d_in, d_out) in
            [(8192, 384, 1152), (2048, 768, 2304), (8192, 64, 128), (8192, 128, 512), (2048, 384, 1536)]
        {
            linears(&bench, precision, rows, d_in, d_out);
        }
        for (batch, length, heads, d_head) in [(16, 512, 6, 64), (4, 512, 12, 64), (1, 8192, 6, 64), (16, 512, 4, 32)] {
            match precision {
                Precision::F32 => attentions::<f32>(&bench, precision, batch, length, heads, d_head),
                Precision::Bf16 => attentions::<Pair>(&bench, precision, batch, length, heads, d_head),
            }
        }
        for (rows, d, classes) in [(1228, 384, 4097), (2048, 128, 512)] {
            classifiers(&bench, precision, rows, d, classes);
        }
    }
    for (rows, d, k) in [(8192, 128, 256), (8192, 128, 512), (2048, 384, 1024), (2048, 384, 2048)] {
        let (h, codes) = (noise(rows * d, 1), noise(k * d, 2));
        let work = Work::Flops(2.0 * (rows * d * k) as f64);
        bench.run("nearest", &format!("[{rows}, {d}], {k} codes"), Precision::F32, work, || {
            black_box(codebook::nearest(&h, &codes, d));
        });
    }
    let mut x = noise(1 << 22, 1);
    let start = x.clone();
    bench.run("gelu", "4 Mi", Precision::F32, Work::Bytes(8.0 * x.len() as f64), || {
        x.copy_from_slice(&start);
        gelu::in_place(&mut x);
    });
    for (batch, length, heads, d_head) in [(8, 512, 6, 64), (1, 4096, 6, 64), (1, 4096, 12, 64)] {
        causal::<f32>(&bench, Precision::F32, batch, length, heads, d_head);
        causal::<Pair>(&bench, Precision::Bf16, batch, length, heads, d_head);
    }
    for (batch, length, heads, d_head) in [(1, 4096, 6, 64), (16, 4096, 6, 64), (1, 4096, 12, 64)] {
        generation(&bench, batch, length, heads, d_head);
    }
    units_of_mxdna(&bench, 16, 512, 384);
    for precision in [Precision::F32, Precision::Bf16] {
        experts_of_mxdna(&bench, precision, 8192, 384);
    }
}

/// What MxDNA adds to a transformer, at `batch` sequences of `length` states.
fn units_of_mxdna(bench: &Bench, batch: usize, length: usize, d: usize) {
    let (rows, sizes) = (batch * length, (1..=10).collect::<Vec<_>>());
    let scores = noise(rows * sizes.len(), 1);
    let (mut anchors, mut owners) = (vec![0; rows], vec![0; rows]);
    // Of all scores, as the sort reads them.
    let work = Work::Bytes(4.0 * scores.len() as f64);
    bench.run("units", &format!("{batch} x {length}, 10 sizes"), Precision::F32, work, || {
        let outputs = anchors.chunks_mut(length).zip(owners.chunks_mut(length));
        for ((anchors, owners), scores) in outputs.zip(scores.chunks(length * sizes.len())) {
            units::select(scores, &sizes, 1..length - 1, anchors, owners);
        }
    });
    let (x, offsets, factors) = (noise(rows * d, 2), noise(rows * 3, 3), noise(rows * 3, 4));
    let taps = Taps { offsets: &offsets, factors: &factors, count: 3, length };
    let (shape, moved) = (format!("[{rows}, {d}], 3 taps"), 4.0 * (rows * d) as f64);
    bench.run("sample forward", &shape, Precision::F32, Work::Bytes(4.0 * moved), || {
        black_box(sample::forward(&x, &taps, d));
    });
    let dy = noise(rows * 3 * d, 5);
    bench.run("sample backward", &shape, Precision::F32, Work::Bytes(8.0 * moved), || {
        black_box(sample::backward(&x, &taps, d, &dy));
    });
}

/// Experts for units of 1 to 10 rows, each with as many of `rows` rows.
fn experts_of_mxdna(bench: &Bench, precision: Precision, rows: usize, d: usize) {
    let sizes: Vec<usize> = (1..=10).collect();
    let groups = |size: usize| (1..=size).rev().find(|groups| d.is_multiple_of(*groups)).unwrap_or(1);
    let weights: Vec<[Vec<f32>; 4]> = sizes
        .iter()
        .map(|&size| [2 * d * d, d * (d / groups(size)) * size, d, d * d].map(|length| noise(length, size as u64)))
        .collect();
    let mut all = Vec::new();
    for (&size, [pre, conv, vector, post]) in sizes.iter().zip(&weights) {
        let norm = Norm { gain: vector, bias: vector, eps: 1e-5 };
        all.push(Expert { size, groups: groups(size), pre, conv, norm, post });
    }
    let each = rows / sizes.len();
    let covered: Vec<Vec<u32>> = sizes
        .iter()
        .map(|&size| (0..(each / size * size) as u32).map(|row| row + ((size - 1) * each) as u32).collect())
        .collect();
    let units: usize = covered.iter().zip(&sizes).map(|(rows, size)| rows.len() / size).sum();
    let convolved: usize = sizes.iter().map(|&size| each * d * (d / groups(size))).sum();
    let products = 2 * rows * d * d + convolved + units * d * d;
    let (shape, flops) =
        (format!("[{rows}, {d}], {units} units"), |passes: usize| Work::Flops((2 * passes * products) as f64));
    let (x, dout) = (noise(rows * d, 2), noise(units * d, 3));
    bench.run("experts forward", &shape, precision, flops(1), || {
        black_box(experts::forward(&x, &all, &covered, precision, false));
    });
    let (_, kept) = experts::forward(&x, &all, &covered, precision, true);
    bench.run("experts backward", &shape, precision, flops(2), || {
        black_box(experts::backward(&x, &all, &covered, &kept, &dout, true, precision));
    });
}

fn conv_blocks(bench: &Bench, precision: Precision, rows: usize, d: usize, d_inner: usize, length: usize) {
    let (x, mask, dout) = (noise(rows * d, 1), vec![1.0; rows], noise(rows * d, 2));
    let (conv, vector) = (noise(d * 7, 3), noise(d, 4));
    let (up, up_bias, down) = (noise(d * d_inner, 5), noise(d_inner, 6), noise(d * d_inner, 7));
    let weights = conv_block::Weights {
        conv: &conv,
        conv_bias: &vector,
        norm: Norm { gain: &vector, bias: &vector, eps: 1e-6 },
        mlp: mlp::Weights {
            up: &up,
            up_bias: &up_bias,
            down: &down,
            down_bias: &vector,
            activation: mlp::Activation::Gelu,
        },
    };
    let input = Input { x: &x, mask: &mask, length };
    let shape = format!("[{rows}, {d}], inner {d_inner}");
    let flops = |products: usize| Work::Flops(2.0 * (products * rows * d * d_inner) as f64);
    bench.run("conv_block forward", &shape, precision, flops(2), || {
        black_box(conv_block::forward(input, weights, precision, false));
    });
    bench.run("conv_block forward+keep", &shape, precision, flops(2), || {
        black_box(conv_block::forward(input, weights, precision, true));
    });
    let (_, pre) = conv_block::forward(input, weights, precision, true);
    bench.run("conv_block backward", &shape, precision, flops(4), || {
        black_box(conv_block::backward(input, weights, &dout, &pre, precision));
    });
}

fn linears(bench: &Bench, precision: Precision, rows: usize, d_in: usize, d_out: usize) {
    let (x, w, b, dy) = (noise(rows * d_in, 1), noise(d_in * d_out, 2), noise(d_out, 3), noise(rows * d_out, 4));
    let shape = format!("[{rows}, {d_in}] to {d_out}");
    let flops = |products: usize| Work::Flops(2.0 * (products * rows * d_in * d_out) as f64);
    bench.run("linear forward", &shape, precision, flops(1), || {
        black_box(linear::forward(&x, &w, &b, precision));
    });
    let mut dw = vec![0.0; d_in * d_out];
    bench.run("transposed product", &shape, precision, flops(1), || match precision {
        Precision::F32 => transposed::<f32>(&mut dw, &x, d_in, &dy, d_out, Onto::Zero),
        Precision::Bf16 => transposed::<Pair>(&mut dw, &x, d_in, &dy, d_out, Onto::Zero),
    });
    bench.run("linear backward", &shape, precision, flops(2), || {
        black_box(linear::backward(&x, &w, d_out, &dy, true, linear::Wanted::ALL, precision));
    });
    let rank = 8;
    let (a, b) = (noise(rank * d_in, 5), noise(d_out * rank, 6));
    let low_rank = Some(LowRank { a: &a, b: &b, rank, scale: 2.0 });
    let thin = Work::Flops(4.0 * (rows * rank * (d_in + d_out)) as f64);
    bench.run(&format!("gradients of rank {rank}"), &shape, precision, thin, || {
        let wanted = linear::Wanted { low_rank, ..linear::Wanted::default() };
        black_box(linear::backward(&x, &w, d_out, &dy, false, wanted, precision));
    });
}

fn attentions<U: Unit>(bench: &Bench, precision: Precision, batch: usize, length: usize, heads: usize, d_head: usize) {
    let (rows, d) = (batch * length, heads * d_head);
    let (qkv, mask, dout) = (Saved::of::<U>(&noise(rows * 3 * d, 1), 3 * d), vec![1.0; rows], noise(rows * d, 2));
    let positions = attention::Positions::Rotary { theta: 10_000.0 };
    let input = attention::Input::among(qkv.units::<U>(), &mask, length, heads, positions);
    let shape = format!("{batch} x {length}, {heads} x {d_head}");
    let flops = |products: f64| Work::Flops(2.0 * products * (rows * length * d) as f64);
    bench.run("attention forward", &shape, precision, flops(2.0), || {
        black_box(attention::forward(input, true));
    });
    if !bench.wants("attention backward", &shape, precision) {
        return;
    }
    let (out, stats) = attention::forward(input, true);
    bench.run("attention backward", &shape, precision, flops(5.0), || {
        black_box(attention::backward(input, &out, &stats, &dout));
    });
}

/// Attention in training, two-sided and causal, interleaved: the same queries, keys and values.
fn causal<U: Unit>(bench: &Bench, precision: Precision, batch: usize, length: usize, heads: usize, d_head: usize) {
    const ROUNDS: usize = 7;
    let shape = format!("{batch} x {length}, {heads} x {d_head}");
    if !bench.wants("attention causal", &shape, precision) {
        return;
    }
    let (rows, d) = (batch * length, heads * d_head);
    let (qkv, mask, dout) = (Saved::of::<U>(&noise(rows * 3 * d, 1), 3 * d), vec![1.0; rows], noise(rows * d, 2));
    let positions = attention::Positions::Rotary { theta: 10_000.0 };
    let two_sided = attention::Input::among(qkv.units::<U>(), &mask, length, heads, positions);
    // Forward and backward of two-sided and causal attention.
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    for round in 0..=ROUNDS {
        for (times, causal) in times.iter_mut().zip([false, true]) {
            let input = attention::Input { causal, ..two_sided };
            let start = Instant::now();
            let (out, stats) = attention::forward(input, true);
            let forward = start.elapsed().as_secs_f64();
            black_box(attention::backward(input, &out, &stats, &dout));
            // The first round warms up.
            if round > 0 {
                times[0].push(forward);
                times[1].push(start.elapsed().as_secs_f64() - forward);
            }
        }
    }
    let median = |times: &[f64]| {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2] * 1e3
    };
    let [two_sided, causal] = times.map(|times| times.map(|times| median(&times)));
    let ratio = |a: f64, b: f64| format!("{a:8.2} -> {b:8.2} ms ({:.2}x)", a / b);
    println!(
        "{:<22} {shape:<26} {precision:?} forward {}, backward {}, both {}",
        "attention causal",
        ratio(two_sided[0], causal[0]),
        ratio(two_sided[1], causal[1]),
        ratio(two_sided.iter().sum(), causal.iter().sum())
    );
}

/// Attention of one more position to `length` others that are kept, and of whole prompts of that length.
fn generation(bench: &Bench, batch: usize, length: usize, heads: usize, d_head: usize) {
    let d = heads * d_head;
    let positions = attention::Positions::Rotary { theta: 10_000.0 };
    let kept = attention::cached::Shape { batch, capacity: length + 1, heads, d_head, positions };
    let shape = format!("{batch} x {length}, {heads} x {d_head}");
    if !bench.wants("attention cached", &shape, Precision::F32) {
        return;
    }
    let (prompt, mask, next) = (noise(batch * length * 3 * d, 1), vec![1.0; batch * length], noise(batch * 3 * d, 2));
    let mut cache = attention::Cache::new(kept);
    cache.append(&prompt, &mask);
    let work = Work::Bytes(8.0 * (batch * length * d) as f64);
    bench.run("attention cached", &shape, Precision::F32, work, || {
        black_box(cache.append(&next, &vec![1.0; batch]));
        (0..batch).for_each(|sequence| cache.truncate(sequence, length));
    });
    let work = Work::Flops(2.0 * (batch * length * length * d) as f64);
    bench.run("attention cached prompt", &shape, Precision::F32, work, || {
        (0..batch).for_each(|sequence| cache.truncate(sequence, 0));
        black_box(cache.append(&prompt, &mask));
    });
}

fn classifiers(bench: &Bench, precision: Precision, rows: usize, d: usize, classes: usize) {
    let (h, weight, bias) = (noise(rows * d, 1), noise(classes * d, 2), noise(classes, 3));
    let target: Vec<i32> = (0..rows).map(|row| (row * 7 % classes) as i32).collect();
    let input = cross_entropy::Input { h: &h, weight: &weight, bias: &bias, target: &target };
    let shape = format!("[{rows}, {d}], {classes} classes");
    let flops = |products: usize| Work::Flops(2.0 * (products * rows * d * classes) as f64);
    bench.run("cross_entropy forward", &shape, precision, flops(1), || {
        black_box(cross_entropy::forward(input, precision));
    });
    if !bench.wants("cross_entropy backward", &shape, precision) {
        return;
    }
    let (_, stats) = cross_entropy::forward(input, precision);
    bench.run("cross_entropy backward", &shape, precision, flops(3), || {
        black_box(cross_entropy::backward(input, &stats, 1.0, precision));
    });
}
