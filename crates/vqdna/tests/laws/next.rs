//! Laws of causal language modelling: which tokens are predicted, what a base costs, and that nothing of a token is seen before it is
//! predicted.

use burn::prelude::*;

use crate::host::noise;
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::batch::{TokenWindow, TokenWindows};
use vqdna::model::LanguageModel;
use vqdna::objective::next::NextConfig;
use vqdna::objective::{LanguageObjective, Measures, Objective, ObjectiveConfig, Over};
use vqdna::tokenizer::{Tokenizer, TokenizerConfig};
use vqdna::train::optimizer::{Adamw, AdamwConfig, Gradients};
use vqdna_data::vocab::{BlocksConfig, CharacterConfig, KmerConfig};

fn tokenizers() -> [TokenizerConfig; 3] {
    [
        TokenizerConfig::Character(CharacterConfig::default()),
        TokenizerConfig::Kmer(KmerConfig { k: 3 }),
        TokenizerConfig::Blocks(BlocksConfig { k: 3, ..BlocksConfig::default() }),
    ]
}

fn bases(seed: u64, count: usize) -> Vec<u8> {
    noise(seed, count).into_iter().map(|v| ((v * 0.499 + 0.5) * 4.0) as u8).collect()
}

/// Windows of random bases.
fn windows(tokenizer: &Tokenizer, seed: u64, device: &Device) -> TokenWindows {
    let window = |number: u64| {
        let tokens = tokenizer.encode(&bases(seed * 100 + number, 48)).expect("tokens of bases alone");
        TokenWindow { is_target: vec![true; tokens.len()], tokens, number }
    };
    TokenWindows { windows: (0..8).map(window).collect(), device: device.clone() }
}

fn objective<'a>(named: &'a TokenizerConfig, tokenizer: &'a Tokenizer) -> LanguageObjective<'a> {
    ObjectiveConfig::Next(NextConfig {}).over(Over { named, tokenizer, pool: 1, balance: 0.0, seed: 1 })
}

fn model(named: &TokenizerConfig, device: &Device) -> LanguageModel {
    let stack = TransformerConfig { d_model: 32, layers: 2, heads: 2, d_ff: 64, ..TransformerConfig::tiny() };
    let causal = ObjectiveConfig::Next(NextConfig {}).encoder(&stack.into()).expect("a form");
    LanguageModel::new(&causal, named.source(), &named.sizes(), 3, device)
}

fn measure(measures: &Measures, name: &str) -> f64 {
    measures.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name} in {measures:?}")).1
}

/// Nothing predicts random bases: whatever was learned of others, each takes two bits. A token that were seen would take less.
#[test]
fn random_bases_take_two_bits_each() {
    let device = Device::flex();
    for named in tokenizers() {
        let tokenizer = named.fixed().expect("sound");
        let (objective, learning) = (objective(&named, &tokenizer), device.clone().autodiff());
        let (mut model, mut optimizer) = (model(&named, &learning), Adamw::new(&AdamwConfig::default()));
        for step in 0..150 {
            let outcome = objective.forward(&model, &windows(&tokenizer, step, &learning));
            let gradients = Gradients::of(&model, &outcome.loss.backward());
            model = optimizer.step(model, gradients, 3e-3, 1.0).0;
        }
        let held_out = (1000..1010).map(|seed| windows(&tokenizer, seed, &device));
        let measures = objective.evaluate(&model.valid(), &mut held_out.into_iter());
        let bits = measure(&measures, "bits_per_base");
        assert!((1.98..2.3).contains(&bits), "{named:?}: {bits} bits a base");
    }
}

/// The bases of a window that its predicted tokens add, one by one: all of them, but for those of a first token with nothing before it, and
/// those after N of which a token that is not predicted tells.
#[test]
fn each_base_is_counted_once() {
    let device = Device::flex();
    let n = 4;
    let mut with_n = bases(5, 48);
    with_n[20] = n;
    for (named, expected) in tokenizers().iter().zip([
        // Nothing stands before the first base of characters: neither it nor the N counts.
        [(48, 48), (47, 47)],
        // Three k-mers hold the N; those after it add one base each.
        [(46, 48), (43, 45)],
        // 16 blocks of three; then six, two single bases, N, and nine blocks.
        [(16, 48), (17, 47)],
    ]) {
        let tokenizer = named.fixed().expect("sound");
        let special = tokenizer.special();
        let unseen = usize::from(special.before() == 0);
        for (sequence, (tokens, bases)) in [bases(4, 48), with_n.clone()].into_iter().zip(expected) {
            let encoded = tokenizer.encode(&sequence).expect("tokens of bases alone");
            let is_target: Vec<bool> =
                (0..encoded.len()).map(|token| !sequence[encoded.spans.get(token)].contains(&n)).collect();
            let window = TokenWindow { tokens: encoded, is_target, number: 0 };
            let batch = TokenWindows { windows: vec![window], device: device.clone() };
            let measures = objective(named, &tokenizer).evaluate(&model(named, &device), &mut std::iter::once(batch));
            let found = ["predicted_tokens", "predicted_bases"].map(|name| measure(&measures, name) as usize);
            assert_eq!(found, [tokens - unseen, bases - unseen], "{named:?}");
        }
    }
}
