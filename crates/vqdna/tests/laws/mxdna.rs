//! Laws of MxDNA: what hidden states of units depend on, for every place of units and by both forms of the operations.

use burn::prelude::*;

use crate::host::{assert_near, floats, noise};
use vqdna::backbone::Backbone;
use vqdna::backbone::mxdna::{Grid, Mxdna, MxdnaConfig, States, UnitConfig, UnitPlaces};
use vqdna::model::Embed;
use vqdna::model::embed::encoder;
use vqdna::ops::{ExpertWeights, experts, with_composed_ops};
use vqdna::tokenizer::TokenizerConfig;
use vqdna::weights::{assign, collect};

/// Sums over rows of other lengths.
const ROUNDING: f32 = 1e-5;
const SIZES: [usize; 4] = [1, 2, 3, 5];

fn config(unit_places: UnitPlaces, grid: Grid) -> MxdnaConfig {
    let units = UnitConfig { sizes: SIZES.to_vec(), grid, ..UnitConfig::default() };
    MxdnaConfig { d_model: 16, heads: 2, d_ff: 24, base_layers: 1, unit_layers: 2, units, unit_places, theta: 10_000.0 }
}

/// The embedding of characters, and the encoder over them.
#[derive(Module, Debug)]
struct Model {
    embed: Embed,
    backbone: Backbone,
}

impl Model {
    fn fresh(config: &MxdnaConfig, seed: u64, device: &Device) -> Self {
        let (embed, backbone) = encoder(&config.clone().into(), TokenizerConfig::mxdna().source(), seed, device);
        Self { embed, backbone }
    }

    fn mxdna(&self) -> &Mxdna {
        let Backbone::Mxdna(mxdna) = &self.backbone else { panic!("MxDNA") };
        mxdna
    }
}

/// A model whose weights are large enough that every part counts.
fn model(config: &MxdnaConfig, device: &Device) -> Model {
    let model = Model::fresh(config, 3, device);
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

/// A sequence of bases.
fn sequence(seed: u64, bases: usize) -> Vec<u8> {
    noise(seed, bases).into_iter().map(|v| ((v * 0.499 + 0.5) * 4.0) as u8).collect()
}

/// Positions of a sequence, with the special ones.
fn positions(sequence: &[u8]) -> usize {
    sequence.len() + 2
}

/// The states of sequences side by side, with some padding behind the longest.
fn run(model: &Model, sequences: &[Vec<u8>], padding: usize) -> States {
    let tokenizer = TokenizerConfig::mxdna().fixed().expect("sound");
    let longest = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let row = |bases: &Vec<u8>| {
        let tokens = tokenizer.encode(bases).expect("tokens of bases alone");
        tokenizer.special().row(&tokens.levels, None)
    };
    let mut rows: Vec<_> = sequences.iter().map(row).collect();
    // A longer sequence beside them, which is left out again.
    rows.push(row(&vec![0; longest + padding]));
    let batch = tokenizer.batch(&rows, &Device::flex());
    let (x, layout) = model.embed.forward(&batch, None);
    model.mxdna().forward(x, &layout, None)
}

/// The states of the tokens of one sequence.
fn states(hidden: &States, sequence: usize) -> Vec<f32> {
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
        let sequences = [sequence(1, 40), sequence(2, 1), sequence(3, 17), vec![]];
        let (together, wide) = (run(&model, &sequences, 0), run(&model, &sequences, 18));
        for (number, one) in sequences.iter().enumerate() {
            let alone = states(&run(&model, std::slice::from_ref(one), 0), 0);
            assert!(!alone.is_empty());
            assert_near("together", &states(&together, number), &alone, ROUNDING);
            assert_near("with padding", &states(&wide, number), &alone, ROUNDING);
        }
        assert_eq!(floats(run(&model, &sequences, 0).units.states), floats(together.units.states), "twice the same");
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
                if let Some(rest) = name.strip_prefix(&format!("backbone.tokenizer.experts.{old}.")) {
                    moved.insert(format!("backbone.tokenizer.experts.{new}.{rest}"), array.clone());
                }
            }
        }
        let gate = moved.get_mut("backbone.tokenizer.gate.weight").expect("a gate");
        let rows: Vec<&[f32]> = known["backbone.tokenizer.gate.weight"].values.chunks(config.d_model).collect();
        gate.values = order.iter().flat_map(|&old| rows[old].to_vec()).collect();
        let second = assign(Model::fresh(&other, 0, &device), &moved).expect("the same network");
        let sequences = [sequence(1, 40), sequence(2, 23)];
        let (first, second) = (run(&first, &sequences, 0), run(&second, &sequences, 0));
        assert_eq!(first.tokens.kept, second.tokens.kept);
        assert_near("in another order", &floats(second.units.states), &floats(first.units.states), ROUNDING);
    });
}

#[test]
fn unknown_bases_and_long_sequences_are_sequences() {
    let model = model(&config(UnitPlaces::Rank, Grid::Compact), &Device::flex());
    let unknown = vec![4; 30];
    for sequence in [unknown, sequence(4, 32_766)] {
        let hidden = run(&model, std::slice::from_ref(&sequence), 0);
        assert!(states(&hidden, 0).iter().all(|v| v.is_finite()));
        let owners = &hidden.tokens.selection.owners[..positions(&sequence)];
        let covered = owners.iter().filter(|&&owner| owner >= 0).count();
        assert_eq!(covered, sequence.len(), "with a size of 1 every base is part of a unit");
    }
}

/// On the sparse grid as on the compact one, the number of a unit is not its place.
#[test]
fn ranks_are_not_anchors() {
    let device = Device::flex();
    for grid in [Grid::Compact, Grid::Sparse] {
        let of = |places| states(&run(&model(&config(places, grid), &device), &[sequence(1, 40)], 0), 0);
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
        states(&run(&model(&config, &device), &[sequence(1, 40), sequence(2, 23)], 0), 0)
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
