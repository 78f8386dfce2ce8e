//! Laws of MxDNA: what hidden states of units depend on, for every place of units and by both forms of the operations.

use burn::prelude::*;

use crate::host::{assert_near, floats, noise};
use vqdna::ops::{ExpertWeights, experts, with_composed_ops};
use vqdna::tokenizer::mxdna::{
    FIRST, Grid, Hidden, LAST, Letters, Mxdna, MxdnaConfig, PADDING, UNKNOWN, UnitConfig, UnitPlaces, letter,
};
use vqdna::weights::{assign, collect};

/// Sums over rows of other lengths.
const ROUNDING: f32 = 1e-5;
const SIZES: [usize; 4] = [1, 2, 3, 5];

fn config(unit_places: UnitPlaces, grid: Grid) -> MxdnaConfig {
    let units = UnitConfig { sizes: SIZES.to_vec(), grid, ..UnitConfig::default() };
    MxdnaConfig { d_model: 16, heads: 2, d_ff: 24, base_layers: 1, unit_layers: 2, units, unit_places, theta: 10_000.0 }
}

/// A model whose weights are large enough that every part counts.
fn model(config: &MxdnaConfig, device: &Device) -> Mxdna {
    let model = config.init(3, device);
    let mut arrays = collect(&model);
    for (seed, array) in (0..).zip(arrays.values_mut()) {
        let moves = noise(seed, array.values.len());
        array.values.iter_mut().zip(moves).for_each(|(v, n)| *v += 0.3 * n);
    }
    assign(model, &arrays).expect("its own names")
}

fn for_all(law: impl Fn(&MxdnaConfig)) {
    for places in [UnitPlaces::Anchor, UnitPlaces::Rank] {
        for grid in [Grid::Compact, Grid::Sparse] {
            let config = config(places, grid);
            law(&config);
            with_composed_ops(|| law(&config));
        }
    }
}

/// A sequence between its special positions.
fn sequence(seed: u64, bases: usize) -> Vec<i32> {
    let inner = noise(seed, bases).into_iter().map(|v| letter(((v * 0.499 + 0.5) * 4.0) as u8));
    std::iter::once(FIRST).chain(inner).chain([LAST]).collect()
}

fn run(model: &Mxdna, sequences: &[Vec<i32>], width: usize) -> Hidden {
    let device = Device::flex();
    let padded = |sequence: &Vec<i32>| {
        let mut ids = sequence.clone();
        ids.resize(width, PADDING);
        ids
    };
    let ids: Vec<i32> = sequences.iter().flat_map(padded).collect();
    let special: Vec<bool> = ids.iter().map(|id| [PADDING, FIRST, LAST].contains(id)).collect();
    let lengths: Vec<usize> = sequences.iter().map(Vec::len).collect();
    let ids = Tensor::from_data(TensorData::new(ids, [sequences.len(), width]), &device);
    model.forward(&Letters { ids, lengths: &lengths, special: &special }, None)
}

/// The states of the tokens of one sequence.
fn states(hidden: &Hidden, sequence: usize) -> Vec<f32> {
    let [_, width, d] = hidden.units.states.dims();
    let real = floats(hidden.units.real.clone());
    let all = floats(hidden.units.states.clone());
    let rows = sequence * width..(sequence + 1) * width;
    rows.filter(|&row| real[row] == 1.0).flat_map(|row| all[row * d..(row + 1) * d].to_vec()).collect()
}

#[test]
fn a_sequence_depends_neither_on_its_batch_nor_on_padding() {
    for_all(|config| {
        let model = model(config, &Device::flex());
        let sequences = [sequence(1, 40), sequence(2, 1), sequence(3, 17), vec![FIRST, LAST]];
        let (together, wide) = (run(&model, &sequences, 42), run(&model, &sequences, 60));
        for (number, one) in sequences.iter().enumerate() {
            let alone = states(&run(&model, std::slice::from_ref(one), one.len()), 0);
            assert!(!alone.is_empty());
            assert_near("together", &states(&together, number), &alone, ROUNDING);
            assert_near("with padding", &states(&wide, number), &alone, ROUNDING);
        }
        assert_eq!(floats(run(&model, &sequences, 42).units.states), floats(together.units.states), "twice the same");
    });
}

#[test]
fn the_order_of_experts_does_not_matter() {
    let device = Device::flex();
    for_all(|config| {
        let first = model(config, &device);
        let order = [2, 0, 3, 1];
        let sizes = order.map(|n| SIZES[n]).to_vec();
        let other = MxdnaConfig { units: UnitConfig { sizes, ..config.units.clone() }, ..config.clone() };
        let known = collect(&first);
        let mut moved = known.clone();
        for (name, array) in &known {
            for (new, old) in order.iter().enumerate() {
                if let Some(rest) = name.strip_prefix(&format!("tokenizer.experts.{old}.")) {
                    moved.insert(format!("tokenizer.experts.{new}.{rest}"), array.clone());
                }
            }
        }
        let gate = moved.get_mut("tokenizer.gate.weight").expect("a gate");
        let rows: Vec<&[f32]> = known["tokenizer.gate.weight"].values.chunks(config.d_model).collect();
        gate.values = order.iter().flat_map(|&old| rows[old].to_vec()).collect();
        let second = assign(other.init(0, &device), &moved).expect("the same network");
        let sequences = [sequence(1, 40), sequence(2, 23)];
        let (first, second) = (run(&first, &sequences, 42), run(&second, &sequences, 42));
        assert_eq!(first.tokens.kept, second.tokens.kept);
        assert_near("in another order", &floats(second.units.states), &floats(first.units.states), ROUNDING);
    });
}

#[test]
fn unknown_bases_and_long_sequences_are_sequences() {
    let model = model(&config(UnitPlaces::Rank, Grid::Compact), &Device::flex());
    let unknown: Vec<i32> = std::iter::once(FIRST).chain([UNKNOWN; 30]).chain([LAST]).collect();
    for sequence in [unknown, sequence(4, 32_766)] {
        let hidden = run(&model, std::slice::from_ref(&sequence), sequence.len());
        assert!(states(&hidden, 0).iter().all(|v| v.is_finite()));
        let covered = hidden.tokens.selection.owners.iter().filter(|&&owner| owner >= 0).count();
        assert_eq!(covered, sequence.len() - 2, "with a size of 1 every base is part of a unit");
    }
}

/// On the sparse grid as on the compact one, the number of a unit is not its place.
#[test]
fn ranks_are_not_anchors() {
    let device = Device::flex();
    for grid in [Grid::Compact, Grid::Sparse] {
        let of = |places| states(&run(&model(&config(places, grid), &device), &[sequence(1, 40)], 42), 0);
        let (anchor, rank) = (of(UnitPlaces::Anchor), of(UnitPlaces::Rank));
        assert!(anchor.iter().zip(&rank).any(|(a, b)| (a - b).abs() > 1e-3), "{grid:?}");
    }
}

/// Where every base is a unit, nothing is left out, and the grids are one.
#[test]
fn grids_differ_by_what_lies_between_units() {
    let device = Device::flex();
    let hidden = |sizes: &[usize], grid: Grid| {
        let mut config = config(UnitPlaces::Anchor, grid);
        config.units.sizes = sizes.to_vec();
        states(&run(&model(&config, &device), &[sequence(1, 40), sequence(2, 23)], 42), 0)
    };
    assert_near("units of one base", &hidden(&[1], Grid::Sparse), &hidden(&[1], Grid::Compact), ROUNDING);
    let (sparse, compact) = (hidden(&SIZES, Grid::Sparse), hidden(&SIZES, Grid::Compact));
    assert_eq!(sparse.len(), compact.len());
    assert!(sparse.iter().zip(&compact).any(|(a, b)| (a - b).abs() > 0.01), "neighbours are others");
}

/// Whether the experts learn or not.
#[test]
fn no_units_are_no_vectors() {
    for device in [Device::flex(), Device::flex().autodiff()] {
        let matrix = |rows| Tensor::<2>::ones([rows, 4], &device);
        let row = Tensor::<1>::ones([4], &device);
        let expert = ExpertWeights {
            pre: matrix(8),
            conv: Tensor::ones([4, 4, 1], &device),
            gain: row.clone(),
            bias: row,
            eps: 1e-5,
            post: matrix(4),
        };
        let found = || experts(matrix(3), vec![expert.clone(), expert.clone()], &[Vec::new(), Vec::new()]).dims();
        assert_eq!([found(), with_composed_ops(found)], [[0, 4]; 2]);
        let units = experts(matrix(3), vec![expert.clone(), expert.clone()], &[Vec::new(), vec![0, 2]]);
        assert_eq!(units.dims(), [2, 4], "one expert has units");
    }
}
