//! Laws of generation: the cache changes no token, a seed gives one text, and a prompt stays as it is.

use burn::prelude::*;
use std::ops::ControlFlow;

use crate::host::{floats, noise};
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::infer::generate::{GenerateError, Generator, Sampling};
use vqdna::model::LanguageModel;
use vqdna::model_dir::{Model, ModelConfig, Network};
use vqdna::objective::ObjectiveConfig;
use vqdna::objective::masking::MaskingConfig;
use vqdna::objective::next::NextConfig;
use vqdna::ops::Positions;
use vqdna::tokenizer::TokenizerConfig;
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna_data::segment::Policy;
use vqdna_data::vocab::{BlocksConfig, CharacterConfig, KmerConfig};

const GREEDY: Sampling = Sampling { temperature: 0.0, top_k: 0, top_p: 0.0, seed: 1 };

fn fixed() -> [TokenizerConfig; 4] {
    [
        TokenizerConfig::Character(CharacterConfig::default()),
        TokenizerConfig::mxdna(),
        TokenizerConfig::Kmer(KmerConfig { k: 3 }),
        TokenizerConfig::Blocks(BlocksConfig { k: 3, ..BlocksConfig::default() }),
    ]
}

fn codes() -> TokenizerConfig {
    Preset::Tiny.config(Kind::Hrq).into()
}

fn bases(seed: u64, count: usize) -> Vec<u8> {
    noise(seed, count).into_iter().map(|v| ((v * 0.499 + 0.5) * 4.0) as u8).collect()
}

/// A fresh model that predicts the next token, as of a folder.
fn model(named: &TokenizerConfig, positions: Positions, window: usize, device: &Device) -> Model {
    let trained_by = ObjectiveConfig::Next(NextConfig {});
    let sizes = TransformerConfig { d_model: 32, layers: 2, heads: 2, d_ff: 64, ..TransformerConfig::tiny() };
    let backbone = trained_by.encoder(&TransformerConfig { positions, ..sizes }.into()).expect("a form");
    let network = LanguageModel::new(&backbone, named.source(), &named.sizes(), 3, device);
    let tokenizer = named.fixed().unwrap_or_else(|| named.learned().expect("learned").init(1, device).into());
    let config = ModelConfig::of_pretrained(named.clone(), None, Policy::default(), backbone, trained_by, Some(window));
    Model { config, tokenizer, network: Network::Language(Box::new(network)), digest: String::new() }
}

fn network(model: &Model) -> &LanguageModel {
    let Network::Language(network) = &model.network else { panic!("a language model") };
    network
}

fn generate(model: &Model, sampling: Sampling, prompt: &[u8], length: usize, number: u64) -> Vec<u8> {
    let device = Device::flex();
    let generator = Generator::new(model, &device, sampling).expect("it predicts the next token");
    let go_on = &mut |_| ControlFlow::Continue(());
    generator.sequence(prompt, length, number, go_on).expect("a sequence")
}

/// Logits of each level after the last token, by a forward pass over all of them.
fn logits(model: &Model, levels: &[Vec<u32>], device: &Device) -> Vec<Vec<f32>> {
    let special = model.tokenizer.special();
    let batch = model.tokenizer.batch(&[special.row(levels, None)], device);
    let network = network(model);
    let hidden = network.hidden(&batch, None).states;
    let last = hidden.narrow(1, special.before() + levels[0].len() - 1, 1).squeeze_dim::<2>(0);
    let features = network.head.features(last);
    (0..levels.len()).map(|level| floats(network.head.logits(level, features.clone()))).collect()
}

fn likeliest(logits: &[f32], allowed: impl Fn(u32) -> bool) -> u32 {
    let ids = (0..logits.len() as u32).filter(|&id| allowed(id));
    ids.max_by(|&a, &b| logits[a as usize].total_cmp(&logits[b as usize])).expect("an id")
}

#[test]
fn greedy_tokens_are_those_of_a_full_forward_pass_at_each_step() {
    let device = Device::flex();
    for positions in [Positions::default(), Positions::Alibi] {
        for named in fixed() {
            let model = model(&named, positions, 1000, &device);
            let prompt = bases(7, 12);
            let (mut found, mut ids) = (prompt.clone(), model.tokenizer.encode(&prompt).expect("tokens").levels);
            let shared = named.overlap() - 1;
            while found.len() < 12 + 60 {
                let agrees = |id| {
                    let own = model.tokenizer.bases(id);
                    own.is_some_and(|own| own[..shared] == found[found.len() - shared..])
                };
                let id = likeliest(&logits(&model, &ids, &device)[0], agrees);
                ids[0].push(id);
                found.extend(&model.tokenizer.bases(id).expect("bases")[shared..]);
            }
            found.truncate(72);
            assert_eq!(generate(&model, GREEDY, &prompt, 60, 0), found, "{named:?}, {positions:?}");
        }
    }
}

#[test]
fn greedy_codes_are_those_of_a_full_forward_pass_at_each_step() {
    let (device, named) = (Device::flex(), codes());
    let model = model(&named, Positions::default(), 1000, &device);
    let (vocabulary, halo) = (model.tokenizer.learned().expect("learned"), named.learned().expect("it").encoder_halo());
    let prompt = bases(8, halo + 30);
    let go_on = || ControlFlow::Continue(());
    let mut codes =
        model.tokenizer.tokenize(std::slice::from_ref(&prompt), &device, &go_on).expect("codes").remove(0).levels;
    for ids in &mut codes {
        ids.truncate(30);
    }
    let all = prompt.len() + 20 + halo;
    while codes[0].len() < all {
        let logits = logits(&model, &codes, &device);
        for (ids, logits) in codes.iter_mut().zip(&logits) {
            ids.push(likeliest(logits, |_| true));
        }
    }
    let level = |ids: &Vec<u32>| {
        let ids: Vec<i32> = ids.iter().map(|&id| id as i32).collect();
        Tensor::<2, Int>::from_data(TensorData::new(ids, [1, all]), &device)
    };
    let padding = Tensor::<2, Bool>::from_data(TensorData::new(vec![false; all], [1, all]), &device);
    let decoded = vocabulary.decode(&codes.iter().map(level).collect::<Vec<_>>(), &padding).argmax(2);
    let decoded = decoded.reshape([all]).into_data().try_into_vec_as::<i32>().expect("bases");
    let found = generate(&model, GREEDY, &prompt, 20, 0);
    assert_eq!(found[..prompt.len()], prompt);
    let further: Vec<i32> = found[prompt.len()..].iter().map(|&base| i32::from(base)).collect();
    assert_eq!(further, decoded[prompt.len()..][..20]);
}

/// Over windows that the sequence outgrows several times, with every setting.
#[test]
fn a_seed_gives_one_text_that_begins_with_the_prompt() {
    let device = Device::flex();
    let sampling = Sampling { temperature: 0.8, top_k: 40, top_p: 0.95, seed: 5 };
    for named in fixed().into_iter().chain([codes()]) {
        let model = model(&named, Positions::default(), 64, &device);
        for prompt in [bases(9, 41), bases(10, 200)] {
            let one = generate(&model, sampling, &prompt, 150, 0);
            assert_eq!(one.len(), prompt.len() + 150, "{named:?}");
            assert!(one.starts_with(&prompt) && one.iter().all(|&base| base < 4), "{named:?}");
            assert_eq!(generate(&model, sampling, &prompt, 150, 0), one, "{named:?}: repeatable");
            assert!(one.starts_with(&generate(&model, sampling, &prompt, 70, 0)), "{named:?}: of any length");
            assert_ne!(generate(&model, sampling, &prompt, 150, 1), one, "{named:?}: another sequence");
            assert_ne!(generate(&model, Sampling { seed: 6, ..sampling }, &prompt, 150, 0), one, "{named:?}: seed");
            if named.learned().is_none() {
                // Tokens agree with the sequence, whatever the last ones of the prompt were.
                assert!(model.tokenizer.encode(&one).is_some(), "{named:?}");
            }
        }
    }
}

#[test]
fn what_cannot_go_on_is_an_error() {
    let device = Device::flex();
    let go_on = &mut |_| ControlFlow::Continue(());
    let stop = &mut |_| ControlFlow::Break(());
    let [character, _, kmer, _] = fixed();
    let model_of = |named: &TokenizerConfig| model(named, Positions::default(), 64, &device);
    let (characters, kmers, learned) = (model_of(&character), model_of(&kmer), model_of(&codes()));
    let generator = |model| Generator::new(model, &device, GREEDY).expect("it predicts the next token");
    let halo = codes().learned().expect("learned").encoder_halo();
    assert_eq!(generator(&characters).sequence(&[], 5, 0, go_on), Err(GenerateError::Prompt(1)));
    assert_eq!(generator(&characters).sequence(&[0, 4], 5, 0, go_on), Err(GenerateError::Letter(2)));
    assert_eq!(generator(&characters).sequence(&[0], 5, 0, stop), Err(GenerateError::Interrupted));
    assert_eq!(generator(&learned).sequence(&[0; 3], 5, 0, go_on), Err(GenerateError::Prompt(halo + 1)));
    for prompt in [&[][..], &[2], &[2, 3]] {
        let made = generator(&kmers).sequence(prompt, 9, 0, go_on).expect("a special token stands before the first");
        assert!(made.len() == prompt.len() + 9 && made.starts_with(prompt));
    }
    let mut masked = model_of(&character);
    masked.config.objective = Some(ObjectiveConfig::Masked(MaskingConfig::default()));
    assert_eq!(Generator::new(&masked, &device, GREEDY).err(), Some(GenerateError::NotCausal));
    masked.config.objective = Some(ObjectiveConfig::Next(NextConfig {}));
    masked.config.window = None;
    assert_eq!(Generator::new(&masked, &device, GREEDY).err(), Some(GenerateError::NoWindow));
}
