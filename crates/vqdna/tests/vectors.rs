//! The numbers of `docs/vectors.md` (V1 to V5) and `docs/vectors.md` (T9) that a quantizer as a whole must give. V6 to V8 and T14 are laws;
//! T1, T3, T4, T5, T10 and the averages of V5 stand beside the code.

use burn::prelude::*;

use crate::host::{assert_near, floats, integers, noise, tensor};
use vqdna::ops::{AttentionWeights, Positions, attention, with_composed_ops};
use vqdna::quantizer::codebook::CodebookConfig;
use vqdna::quantizer::{HrqConfig, HrqRule, Quantized, Quantizer, QuantizerConfig, RqConfig, VqConfig};
use vqdna::seed::stream;
use vqdna::weights::{Array, assign, collect};
use vqdna_data::metric;

/// f32 against numbers by hand.
const TOLERANCE: f32 = 1e-6;

/// Codes of one level, each of the same width.
type Table<'a> = &'a [&'a [f32]];

fn hrq(tables: &[Table<'_>], rule: HrqRule) -> Quantizer {
    let codebook_sizes = tables.iter().map(|table| table.len()).collect();
    with_tables(&QuantizerConfig::Hrq(HrqConfig { codebook_sizes, rule, codebook: CodebookConfig::default() }), tables)
}

fn rq(tables: &[Table<'_>]) -> Quantizer {
    let codebook_sizes = tables.iter().map(|table| table.len()).collect();
    with_tables(&QuantizerConfig::Rq(RqConfig { codebook_sizes, codebook: CodebookConfig::default() }), tables)
}

fn with_tables(config: &QuantizerConfig, tables: &[Table<'_>]) -> Quantizer {
    let d_code = tables[0][0].len();
    let fresh = config.init(d_code, &mut stream(0, "weights", &[]), &Device::flex());
    let mut arrays = collect(&fresh);
    for (level, table) in tables.iter().enumerate() {
        let codes = Array { shape: vec![table.len(), d_code], values: table.concat() };
        arrays.insert(format!("codebooks.{level}.codes"), codes);
    }
    assign(fresh, &arrays).expect("names of codebooks")
}

/// Quantizes one position, given by its vector at each tap.
fn quantize(quantizer: &Quantizer, taps: &[&[f32]]) -> Quantized {
    let device = Device::flex();
    let taps: Vec<Tensor<3>> = taps.iter().map(|tap| tensor(tap, [1, 1, tap.len()], &device)).collect();
    quantizer.forward(&taps, &Tensor::ones([1, 1], &device))
}

fn codes(quantized: &Quantized) -> Vec<i32> {
    quantized.codes.iter().flat_map(|codes| integers(codes.clone())).collect()
}

#[track_caller]
fn check(tensors: &[Tensor<3>], want: &[&[f32]]) {
    assert_eq!(tensors.len(), want.len());
    tensors.iter().zip(want).for_each(|(got, want)| assert_near("level", &floats(got.clone()), want, TOLERANCE));
}

/// Tables of V1 and V2.
const COARSE: Table<'_> = &[&[0.0, 0.0], &[1.0, 1.0]];
const FINE: Table<'_> = &[&[0.0, 0.0], &[1.5, 0.5], &[0.5, 1.5], &[2.0, 2.0]];

#[test]
fn v1_two_levels_by_hand() {
    for rule in [HrqRule::Mean, HrqRule::Paper] {
        let made = quantize(&hrq(&[COARSE, FINE], rule), &[&[0.9, 0.7], &[1.2, 0.8]]);
        assert_eq!(codes(&made), [1, 1]);
        check(&made.searched, &[&[0.9, 0.7], &[1.4, 0.6]]);
        check(&made.means, &[&[1.0, 1.0], &[1.25, 0.75]]);
        // Squared norms of 0.1 and 0.005, each a mean over two channels; below, of 0.05 and 0.005.
        assert_near("commitment", &floats(made.commitment), &[0.0525], TOLERANCE);
    }
    let residual = quantize(&rq(&[COARSE, FINE]), &[&[1.2, 0.8]]);
    assert_eq!(codes(&residual), [1, 0]);
    check(&[residual.output], &[&[1.0, 1.0]]);
}

#[test]
fn v2_two_levels_by_hand() {
    let made = quantize(&hrq(&[COARSE, FINE], HrqRule::Mean), &[&[0.2, -0.1], &[0.3, 0.7]]);
    assert_eq!(codes(&made), [0, 2]);
    check(&made.searched, &[&[0.2, -0.1], &[0.6, 1.4]]);
    check(&made.means, &[&[0.0, 0.0], &[0.25, 0.75]]);
    assert_near("commitment", &floats(made.commitment), &[0.0275], TOLERANCE);
    // As near to (0, 0) as to (1, 1): the lowest index wins.
    let residual = quantize(&rq(&[COARSE, FINE]), &[&[0.3, 0.7]]);
    assert_eq!(codes(&residual), [0, 0]);
    check(&[residual.output], &[&[0.0, 0.0]]);
}

fn norm(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

/// V3: the error of the n-th mean is one n-th of the error of the n-th search; as printed in the paper for n ≤ 2 only.
#[test]
fn v3_the_mean_is_as_near_as_the_search() {
    let tables: Vec<Vec<Vec<f32>>> =
        [3, 5, 8].iter().map(|&k| (0..k).map(|code| noise(100 * k + code, 4)).collect()).collect();
    let tables: Vec<Vec<&[f32]>> = tables.iter().map(|table| table.iter().map(Vec::as_slice).collect()).collect();
    let tables: Vec<Table<'_>> = tables.iter().map(Vec::as_slice).collect();
    for seed in 0..20 {
        let taps: Vec<Vec<f32>> = (0..3).map(|tap| noise(1000 + 3 * seed + tap, 4)).collect();
        let taps: Vec<&[f32]> = taps.iter().map(Vec::as_slice).collect();
        let gaps = |rule| -> Vec<f64> {
            let made = quantize(&hrq(&tables, rule), &taps);
            let level = |n: usize| {
                let code = tables[n][codes(&made)[n] as usize];
                let search = norm(code, &floats(made.searched[n].clone())) / (n + 1) as f64;
                (norm(&floats(made.means[n].clone()), taps[n]) - search).abs()
            };
            (0..3).map(level).collect()
        };
        let mean = gaps(HrqRule::Mean);
        assert!(mean.iter().all(|&gap| gap < 1e-6), "mean: {mean:?}");
        let paper = gaps(HrqRule::Paper);
        assert!(paper[..2].iter().all(|&gap| gap < 1e-6) && paper[2] > 1e-3, "paper: {paper:?}");
    }
}

/// V4: codebooks that hold exactly what is searched, among codes that are far away.
#[test]
fn v4_three_levels_of_scalars() {
    let taps: [&[f32]; 3] = [&[1.0], &[2.0], &[4.0]];
    for (rule, third, mean) in [(HrqRule::Mean, 8.0, 4.0), (HrqRule::Paper, 5.0, 3.0)] {
        let exact: [Table<'_>; 3] = [&[&[100.0], &[1.0]], &[&[3.0], &[100.0]], &[&[100.0], &[third]]];
        let made = quantize(&hrq(&exact, rule), &taps);
        check(&made.searched, &[&[1.0], &[3.0], &[third]]);
        assert_eq!(codes(&made), [1, 0, 1]);
        check(&[made.output], &[&[mean]]);
    }
}

/// V5 and T1 before the averages move.
#[test]
fn v5_commitment_and_use_of_three_codes() {
    let config = QuantizerConfig::Vq(VqConfig { codebook_size: 3, codebook: CodebookConfig::default() });
    let quantizer = with_tables(&config, &[&[&[0.0], &[1.0], &[10.0]]]);
    let device = Device::flex();
    let made = quantizer.forward(&[tensor(&[0.2, 0.4, 1.4], [1, 3, 1], &device)], &Tensor::ones([1, 3], &device));
    assert_eq!(codes(&made), [0, 0, 1]);
    assert_near("commitment", &floats(made.commitment.clone()), &[0.12], TOLERANCE);
    let statistics = quantizer.statistics(&made, &Tensor::ones([1, 3], &device)).remove(0);
    assert_near("sums", &floats(statistics.sums), &[0.6, 1.4, 0.0], TOLERANCE);
    let counts: Vec<u64> = floats(statistics.counts).iter().map(|&n| n as u64).collect();
    assert_eq!(counts, [2, 1, 0]);
    assert!((metric::perplexity(&counts) - 1.889_882).abs() < 1e-6);
    assert!((metric::usage(&counts) - 2.0 / 3.0).abs() < 1e-12);
}

#[test]
fn t9_residuals_and_running_means_of_one_number() {
    let tables: [Table<'_>; 3] = [&[&[-1.0], &[1.0]], &[&[-0.5], &[0.5]], &[&[-0.25], &[0.25]]];
    let made = quantize(&rq(&tables), &[&[0.6]]);
    assert_eq!(codes(&made), [1, 0, 1]);
    check(&made.means, &[&[1.0], &[0.5], &[0.75]]);
    // Squared errors of 0.16, 0.01 and 0.0225 of the three partial sums.
    assert_near("commitment", &floats(made.commitment), &[0.1925], TOLERANCE);
    check(&[made.output], &[&[0.75]]);

    let made = quantize(&hrq(&tables, HrqRule::Mean), &[&[0.6], &[0.6], &[0.6]]);
    assert_eq!(codes(&made), [1, 1, 1]);
    check(&made.searched, &[&[0.6], &[0.2], &[0.3]]);
    check(&made.means, &[&[1.0], &[0.75], &[0.583_333_3]]);
}

/// B4 of `docs/vectors.md`. The first of eight heads has slope 1/2; with no queries and keys, its weights are the bias alone. The
/// values are the one-hot rows of `x` again, so that the head returns its weights.
#[test]
fn b4_attention_by_distance_alone() {
    const D: usize = 24;
    let (device, high) = (Device::flex(), (D as f32 - 1.0).sqrt());
    let rows: Vec<f32> = (0..3 * D).map(|i| f32::from(i % D == i / D)).collect();
    let eye: Vec<f32> = (0..D * D).map(|i| f32::from(i % D == i / D)).collect();
    // The norm of a one-hot row is `high` where it is 1 and -1/`high` elsewhere.
    let scale = 1.0 / (high + high.recip());
    let qkv: Vec<f32> = std::iter::repeat_n(0.0, 2 * D * D).chain(eye.iter().map(|v| v * scale)).collect();
    let qkv_bias: Vec<f32> = std::iter::repeat_n(0.0, 2 * D).chain(std::iter::repeat_n(scale / high, D)).collect();
    let weights = AttentionWeights {
        gain: Tensor::ones([D], &device),
        bias: Tensor::zeros([D], &device),
        eps: 1e-12,
        qkv: tensor(&qkv, [3 * D, D], &device),
        qkv_bias: tensor(&qkv_bias, [3 * D], &device),
        qkv_part: None,
        out: tensor(&eye, [D, D], &device),
        out_bias: Tensor::zeros([D], &device),
        out_part: None,
        heads: 8,
        positions: Positions::Alibi,
        causal: false,
    };
    let x = tensor(&rows, [1, 3, D], &device);
    let added =
        |weights| floats((attention(x.clone(), Tensor::ones([1, 3], &device), weights) - x.clone()).narrow(2, 0, 3));
    let want = [0.506_480, 0.307_196, 0.186_324, 0.274_069, 0.451_862, 0.274_069, 0.186_324, 0.307_196, 0.506_480];
    assert_near("weights", &added(weights.clone()), &want, 2e-6);
    assert_near("weights", &with_composed_ops(|| added(weights)), &want, 2e-6);
}
