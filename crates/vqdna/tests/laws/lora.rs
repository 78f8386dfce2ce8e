//! Laws of adapters and of freezing: what learns, that nothing else moves, and that both forms of the operations agree.

use burn::module::{ModuleMapper, Param};
use burn::prelude::*;

use crate::host::{assert_near, floats, noise, tensor};
use vqdna::backbone::Backbone;
use vqdna::backbone::transformer::{Transformer, TransformerConfig};
use vqdna::batch::TokenBatch;
use vqdna::layers::lora::{LoraConfig, Target};
use vqdna::model::Embed;
use vqdna::model::embed;
use vqdna::ops::{Positions, with_composed_ops, with_recomputation};
use vqdna::seed::{Stream, stream};
use vqdna::tokenizer::Source;
use vqdna::train::optimizer::{Adamw, AdamwConfig, Gradients};
use vqdna::weights::{Arrays, WeightError, assign, collect};

/// Sums in another order.
const ROUNDING: f32 = 1e-5;
const D_INPUT: usize = 6;
/// Three sequences, the last two padded.
const LENGTHS: [usize; 3] = [37, 20, 5];
const WIDTH: usize = 37;

const ALL: [Target; 6] = [Target::Query, Target::Key, Target::Value, Target::Dense, Target::Up, Target::Down];

/// A first layer and a stack of layers over it.
#[derive(Module, Debug)]
struct Encoder {
    embed: Embed,
    backbone: Backbone,
}

impl Encoder {
    fn with_adapters(self, config: &LoraConfig, seed: u64) -> Self {
        Self { embed: self.embed.no_grad(), backbone: self.backbone.with_adapters(config, seed) }
    }

    fn with_dropped_adapters(&self, random: &mut Stream) -> Self {
        Self { embed: self.embed.clone(), backbone: self.backbone.with_dropped_adapters(random) }
    }

    fn merged(self) -> Self {
        Self { backbone: self.backbone.merged(), ..self }
    }

    fn stack(&mut self) -> &mut Transformer {
        let Backbone::Stack(stack) = &mut self.backbone else { panic!("a stack") };
        stack
    }
}

fn encoder(checkpoint: bool, positions: Positions, device: &Device) -> Encoder {
    let sizes = TransformerConfig { d_model: 24, layers: 3, heads: 3, d_ff: 40, ..TransformerConfig::tiny() };
    let config = TransformerConfig { checkpoint, positions, ..sizes }.into();
    let (embed, backbone) = embed::encoder(&config, Source::Vectors(D_INPUT), 7, device);
    Encoder { embed: embed.without_mask(), backbone }
}

fn lora(targets: &[Target]) -> LoraConfig {
    LoraConfig { rank: 3, alpha: 2.0, dropout: 0.3, targets: targets.to_vec() }
}

/// Adapters of a few tenths, as after some steps: fresh ones add nothing.
fn adapted(encoder: Encoder, targets: &[Target]) -> Encoder {
    struct Fill {
        is_adapter: bool,
        seed: u64,
    }
    impl ModuleMapper for Fill {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.is_adapter |= name == "lora";
        }
        fn exit_module(&mut self, name: &str, _: &str) {
            self.is_adapter &= name != "lora";
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !self.is_adapter {
                return param;
            }
            self.seed += 1;
            let (shape, device) = (param.dims(), param.device());
            let values: Vec<f32> = noise(self.seed, shape.iter().product()).iter().map(|v| 0.3 * v).collect();
            let new: Tensor<D> = tensor(&values, shape, &device);
            param.map(|old| if old.is_require_grad() { new.require_grad() } else { new })
        }
    }
    encoder.with_adapters(&lora(targets), 3).map(&mut Fill { is_adapter: false, seed: 0 })
}

fn batch(device: &Device) -> TokenBatch {
    let real: Vec<f32> =
        LENGTHS.iter().flat_map(|&bases| (0..WIDTH).map(move |i| f32::from(u8::from(i < bases)))).collect();
    let vectors = tensor(&noise(1, LENGTHS.len() * WIDTH * D_INPUT), [LENGTHS.len(), WIDTH, D_INPUT], device);
    TokenBatch::of_vectors(vectors, tensor(&real, [LENGTHS.len(), WIDTH], device))
}

/// Hidden states at real positions, 0 elsewhere.
fn hidden(encoder: &Encoder, device: &Device) -> Tensor<3> {
    let (x, layout) = encoder.embed.forward(&batch(device), None);
    let hidden = encoder.backbone.forward(x, &layout, None);
    hidden.states * hidden.real.unsqueeze_dim(2)
}

/// Some number that depends on every hidden state.
fn loss(encoder: &Encoder, device: &Device) -> Tensor<1> {
    let hidden = hidden(encoder, device);
    let along = tensor(&noise(2, hidden.dims().iter().product()), hidden.dims(), device);
    (hidden * along).sum()
}

/// Gradients of the parameters of `learned` when `used` is computed with, which may drop channels.
fn gradients(learned: &Encoder, used: &Encoder, device: &Device) -> Arrays {
    Gradients::of(learned, &loss(used, device).backward()).to_arrays()
}

#[track_caller]
fn assert_same(what: &str, got: &Arrays, want: &Arrays) {
    assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "{what}");
    for (name, array) in got {
        assert_near(&format!("{what}: {name}"), &array.values, &want[name].values, ROUNDING);
    }
}

#[test]
fn fresh_adapters_change_nothing() {
    let device = Device::flex();
    let plain = encoder(false, Positions::Alibi, &device);
    let fresh = plain.clone().with_adapters(&lora(&ALL), 3);
    assert_eq!(floats(hidden(&fresh, &device)), floats(hidden(&plain, &device)));
    with_composed_ops(|| assert_eq!(floats(hidden(&fresh, &device)), floats(hidden(&plain, &device))));
    assert_eq!(collect(&fresh.merged()), collect(&plain));
}

#[test]
fn adapters_agree_in_both_forms_of_the_operations_and_computed_again() {
    let device = Device::flex().autodiff();
    for positions in [Positions::Rotary { theta: 10_000.0 }, Positions::Alibi] {
        for targets in [&ALL[..4], &ALL[..1], &ALL[4..], &ALL[3..]] {
            let made = |checkpoint: bool, dropped: bool| {
                let encoder = adapted(encoder(checkpoint, positions, &device), targets);
                let used = if dropped {
                    encoder.with_dropped_adapters(&mut stream(5, "dropout for a test", &[]))
                } else {
                    encoder.clone()
                };
                (floats(hidden(&used, &device)), gradients(&encoder, &used, &device))
            };
            for dropped in [false, true] {
                let (states, found) = made(false, dropped);
                assert_eq!(found.len(), 3 * 2 * targets.len(), "{targets:?}: two factors a target and layer");
                let others = [
                    ("composed", with_composed_ops(|| made(false, dropped))),
                    ("checkpoint", made(true, dropped)),
                    ("composed, checkpoint", with_composed_ops(|| made(true, dropped))),
                    ("nothing kept", with_recomputation(|| made(false, dropped))),
                ];
                for (what, (other_states, other)) in others {
                    let what = format!("{what}, {positions:?}, {targets:?}, dropped {dropped}");
                    assert_near(&what, &other_states, &states, ROUNDING);
                    assert_same(&what, &other, &found);
                }
            }
        }
    }
}

#[test]
fn merged_adapters_are_adapters_apart() {
    let device = Device::flex();
    let apart = adapted(encoder(false, Positions::default(), &device), &ALL);
    let mut merged = apart.clone().merged();
    assert_ne!(collect(&merged), collect(&encoder(false, Positions::default(), &device)));
    assert!(merged.stack().layers.iter().all(|layer| layer.lora.is_none()));
    assert_eq!(floats(hidden(&merged, &device)), floats(hidden(&apart, &device)), "the same bits");
    with_composed_ops(|| {
        let merged = apart.clone().merged();
        assert_near("composed", &floats(hidden(&merged, &device)), &floats(hidden(&apart, &device)), ROUNDING);
    });
    let again = apart.clone().with_adapters(&lora(&[Target::Query]), 4);
    assert_eq!(floats(hidden(&again, &device)), floats(hidden(&apart, &device)), "folded in before others come");
}

/// Parameters of frozen weights have no gradient, and the optimiser, decay of weights and all, leaves them alone.
#[test]
fn only_adapters_learn() {
    let device = Device::flex().autodiff();
    let before = adapted(encoder(false, Positions::default(), &device), &ALL);
    let is_adapter = |name: &str| name.contains(".lora.");
    let found = gradients(&before, &before, &device);
    assert!(found.keys().all(|name| is_adapter(name)));
    for name in ["backbone.layers.0.lora.query.a", "backbone.layers.2.lora.down.b"] {
        assert!(found[name].values.iter().any(|&v| v != 0.0), "{name}");
    }
    let mut optimizer = Adamw::new(&AdamwConfig { weight_decay: 0.5, ..AdamwConfig::default() });
    let step = Gradients::of(&before, &loss(&before, &device).backward());
    let (after, _) = optimizer.step(before.clone(), step, 0.1, 1.0);
    let (before, after) = (collect(&before), collect(&after));
    for (name, array) in &after {
        assert_eq!(*array != before[name], is_adapter(name), "{name}");
    }
    assert_eq!(optimizer.to_arrays().len(), 2 * found.len(), "moments of adapters only");
}

#[test]
fn weights_with_adapters_come_back_by_name() {
    let device = Device::flex().autodiff();
    let learned = adapted(encoder(false, Positions::default(), &device), &ALL[..4]);
    let arrays = collect(&learned);
    let fresh = || encoder(false, Positions::default(), &device).with_adapters(&lora(&ALL[..4]), 99);
    let loaded = assign(fresh(), &arrays).expect("the same network");
    assert_eq!(collect(&loaded), arrays);
    assert_eq!(gradients(&loaded, &loaded, &device), gradients(&learned, &learned, &device), "what is frozen stays so");
    let refused = assign(encoder(false, Positions::default(), &device), &arrays).unwrap_err();
    assert!(matches!(&refused, WeightError::Unused { name } if name == "backbone.layers.0.lora.dense.a"), "{refused}");
}

/// What is frozen is left out of the backward pass; the gradients of all else keep their bits.
#[test]
fn freezing_changes_no_other_gradient() {
    type Freeze<'a> = &'a dyn Fn(&mut Encoder);
    let device = Device::flex().autodiff();
    for checkpoint in [false, true] {
        let all = encoder(checkpoint, Positions::default(), &device);
        let expected = gradients(&all, &all, &device);
        let freezing: [(&str, Freeze); 4] = [
            ("the lower layers", &|encoder| {
                encoder.embed = encoder.embed.clone().no_grad();
                let layer = &mut encoder.stack().layers[0];
                *layer = layer.clone().no_grad();
            }),
            ("everything but the last linear layer", &|encoder| {
                let down = encoder.stack().layers[2].down.clone();
                *encoder = encoder.clone().no_grad();
                encoder.stack().layers[2].down = down;
            }),
            ("norms and biases", &|encoder| {
                for layer in &mut encoder.stack().layers {
                    layer.norm1 = layer.norm1.clone().no_grad();
                    layer.qkv.bias = layer.qkv.bias.clone().set_require_grad(false);
                    layer.down.bias = layer.down.bias.clone().set_require_grad(false);
                }
            }),
            ("a layer in the middle", &|encoder| {
                let layer = &mut encoder.stack().layers[1];
                *layer = layer.clone().no_grad();
            }),
        ];
        for (what, freeze) in freezing {
            let mut frozen = all.clone();
            freeze(&mut frozen);
            let found = gradients(&frozen, &frozen, &device);
            assert!(!found.is_empty() && found.len() < expected.len(), "{what}");
            for (name, gradient) in found {
                assert_eq!(gradient, expected[&name], "{what}: {name}");
            }
        }
    }
}

/// A dropped channel is a column of A that neither counts nor learns.
#[test]
fn dropout_drops_whole_channels() {
    let device = Device::flex().autodiff();
    let encoder = adapted(encoder(false, Positions::default(), &device), &ALL);
    let random = |place| stream(5, "dropout for a test", &[place]);
    let dropped = encoder.with_dropped_adapters(&mut random(0));
    let states = |encoder: &Encoder| floats(hidden(encoder, &device));
    assert_ne!(states(&dropped), states(&encoder));
    assert_eq!(states(&dropped), states(&encoder.with_dropped_adapters(&mut random(0))));
    assert_ne!(states(&dropped), states(&encoder.with_dropped_adapters(&mut random(1))));
    assert_eq!(states(&dropped), states(&dropped.clone().merged()));
    let of_a = &gradients(&encoder, &dropped, &device)["backbone.layers.1.lora.up.a"].values;
    let zeros = |row: usize| -> Vec<bool> { of_a[row * 24..(row + 1) * 24].iter().map(|&v| v == 0.0).collect() };
    assert!(zeros(0).contains(&true) && zeros(0).contains(&false) && zeros(0) == zeros(1) && zeros(1) == zeros(2));
}
