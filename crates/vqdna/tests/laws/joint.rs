//! Laws of the joint: every tokenizer with every backbone that every objective can train.

use burn::prelude::*;
use std::path::Path;

use crate::host::{assert_near, floats, noise};
use vqdna::backbone::BackboneConfig;
use vqdna::backbone::mxdna::{MxdnaConfig, UnitConfig};
use vqdna::backbone::transformer::TransformerConfig;
use vqdna::batch::{TokenWindow, TokenWindows};
use vqdna::model::LanguageModel;
use vqdna::model_dir::{Manifest, Model, ModelConfig, Network, publish, save};
use vqdna::objective::masking::MaskingConfig;
use vqdna::objective::next::NextConfig;
use vqdna::objective::{LanguageObjective, Measures, Objective, ObjectiveConfig, Over};
use vqdna::tokenizer::vqdna::{Kind, Preset};
use vqdna::tokenizer::{Tokenizer, TokenizerConfig};
use vqdna::train::optimizer::{Adamw, AdamwConfig, Gradients};
use vqdna_data::segment::Policy;
use vqdna_data::vocab::bpe::Trainer;
use vqdna_data::vocab::{BlocksConfig, BpeConfig, CharacterConfig, KmerConfig};

/// Sums over rows of other lengths.
const ROUNDING: f32 = 2e-5;

/// Every tokenizer; a byte-pair encoding is written into the folder.
fn tokenizers(folder: &Path) -> Vec<(TokenizerConfig, Tokenizer)> {
    let mut trainer = Trainer::new(BpeConfig { size: 40, ..BpeConfig::default() }).expect("sound");
    trainer.add(&bases(99, 3000));
    let file = folder.join("tokenizer.json");
    std::fs::write(&file, trainer.train().hugging_face().to_string()).expect("written");
    let bpe = TokenizerConfig::named(&format!("bpe:{}", file.display())).expect("readable").expect("a name");
    let codes = Preset::Tiny.config(Kind::Hrq);
    let learned = codes.init(1, &Device::flex()).into();
    let fixed = [
        TokenizerConfig::Character(CharacterConfig::default()),
        TokenizerConfig::mxdna(),
        TokenizerConfig::Kmer(KmerConfig { k: 3 }),
        TokenizerConfig::Blocks(BlocksConfig { k: 3, ..BlocksConfig::default() }),
        bpe,
    ];
    let fixed = fixed.into_iter().map(|config| {
        let tokenizer = config.fixed().expect("sound");
        (config, tokenizer)
    });
    fixed.chain([(codes.into(), learned)]).collect()
}

fn backbones() -> Vec<BackboneConfig> {
    let stack = TransformerConfig { d_model: 32, layers: 2, heads: 2, d_ff: 48, ..TransformerConfig::tiny() };
    let units = UnitConfig { sizes: vec![1, 2, 3], ..UnitConfig::default() };
    let mxdna = MxdnaConfig { d_model: 32, heads: 2, d_ff: 48, units, ..MxdnaConfig::tiny() };
    vec![stack.clone().into(), TransformerConfig { pool: 2, ..stack }.into(), mxdna.into()]
}

fn bases(seed: u64, count: usize) -> Vec<u8> {
    noise(seed, count).into_iter().map(|v| ((v * 0.499 + 0.5) * 4.0) as u8).collect()
}

/// Windows of unequal length.
fn windows(tokenizer: &Tokenizer) -> Vec<TokenWindow> {
    let all: Vec<Vec<u8>> = [40, 17, 64, 9].into_iter().zip(0..).map(|(count, seed)| bases(seed, count)).collect();
    let never = || std::ops::ControlFlow::Continue(());
    let tokens = tokenizer.tokenize(&all, &Device::flex(), &never).expect("nobody stops it");
    let window = |(tokens, number): (vqdna_data::tokens::Tokens, u64)| TokenWindow {
        is_target: vec![true; tokens.len()],
        tokens,
        number,
    };
    tokens.into_iter().zip(0..).map(window).collect()
}

fn objectives() -> Vec<ObjectiveConfig> {
    let masking = MaskingConfig { share: 0.3, replaced: 1.0, random: 0.0, ..MaskingConfig::default() };
    vec![ObjectiveConfig::Masked(masking), ObjectiveConfig::Next(NextConfig {})]
}

/// One of each.
struct Trio<'a> {
    named: &'a TokenizerConfig,
    tokenizer: &'a Tokenizer,
    backbone: BackboneConfig,
    trained_by: ObjectiveConfig,
}

impl<'a> Trio<'a> {
    fn fresh(&self, device: &Device) -> LanguageModel {
        LanguageModel::new(&self.backbone, self.named.source(), &self.named.sizes(), 3, device)
    }

    fn objective(&self) -> LanguageObjective<'a> {
        let (named, tokenizer, pool) = (self.named, self.tokenizer, self.backbone.pool());
        self.trained_by.over(Over { named, tokenizer, pool, balance: 0.01, seed: 5 })
    }
}

/// Every tokenizer with every backbone and every objective.
fn for_all(law: impl Fn(&str, Trio)) {
    let folder = tempfile::tempdir().expect("a folder");
    for (named, tokenizer) in &tokenizers(folder.path()) {
        for (backbone, trained_by) in backbones().iter().flat_map(|it| objectives().into_iter().map(move |by| (it, by)))
        {
            let Ok(backbone) = trained_by.encoder(backbone) else { continue };
            let kind = |value: Result<serde_json::Value, _>| -> String {
                let value: serde_json::Value = value.expect("plain");
                value["kind"].as_str().unwrap_or_default().to_owned()
            };
            let kinds = [
                kind(serde_json::to_value(named)),
                kind(serde_json::to_value(&backbone)),
                kind(serde_json::to_value(&trained_by)),
            ];
            let what = format!("{kinds:?}, pools of {}", backbone.pool());
            law(&what, Trio { named, tokenizer, backbone, trained_by });
        }
    }
}

fn measure(measures: &Measures, name: &str) -> f32 {
    measures.iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no {name} in {measures:?}")).1 as f32
}

#[test]
fn batches_and_padding_change_no_measure() {
    let device = Device::flex();
    for_all(|what, trio| {
        let (model, objective, tokenizer) = (trio.fresh(&device), trio.objective(), trio.tokenizer);
        let batch = |windows: &[TokenWindow]| TokenWindows { windows: windows.to_vec(), device: device.clone() };
        let windows = windows(tokenizer);
        let together = objective.evaluate(&model, &mut std::iter::once(batch(&windows)));
        let alone = objective.evaluate(&model, &mut windows.iter().map(|one| batch(std::slice::from_ref(one))));
        let bases = together.iter().find(|(name, _)| name.ends_with("ed_bases")).unwrap_or_else(|| panic!("{what}"));
        assert!(bases.1 > 10.0, "{what}: {together:?}");
        for name in ["loss", &bases.0] {
            assert_near(what, &[measure(&alone, name)], &[measure(&together, name)], ROUNDING);
        }
    });
}

#[test]
fn every_trio_overfits_a_batch() {
    let device = Device::flex().autodiff();
    for_all(|what, trio| {
        let (mut model, objective) = (trio.fresh(&device), trio.objective());
        let batch = TokenWindows { windows: windows(trio.tokenizer), device: device.clone() };
        let mut optimizer = Adamw::new(&AdamwConfig::default());
        let first = floats(objective.forward(&model, &batch).loss)[0];
        let mut last = first;
        for _ in 0..40 {
            let outcome = objective.forward(&model, &batch);
            last = floats(outcome.loss.clone())[0];
            let gradients = Gradients::of(&model, &outcome.loss.backward());
            model = optimizer.step(model, gradients, 5e-3, 1.0).0;
        }
        assert!(last < 0.6 * first, "{what}: {first} to {last}");
    });
}

#[test]
fn folders_give_back_every_trio() {
    let device = Device::flex();
    for_all(|what, trio| {
        let folder = tempfile::tempdir().expect("a folder");
        let model = trio.fresh(&device);
        let Trio { named: config, tokenizer, backbone, trained_by } = trio;
        let vocabulary = config.learned().map(|_| "vocabulary".to_owned());
        let made =
            ModelConfig::of_pretrained(config.clone(), vocabulary, Policy::default(), backbone, trained_by, Some(64));
        let weights = publish(&made, tokenizer, &model);
        let manifest = Manifest {
            program: "test".to_owned(),
            command_line: Vec::new(),
            started_unix_s: 0,
            wall_s: 0.0,
            device: "cpu".to_owned(),
            threads: 1,
            machine: "test".to_owned(),
            config: (),
            vocabulary: None,
            inputs: Vec::new(),
            counts: None,
            windows: (0, 0),
            steps: 0,
            evaluated_on: "nothing".to_owned(),
            measures: serde_json::json!({}),
        };
        save(folder.path(), &made, &weights, &manifest).unwrap_or_else(|e| panic!("{what}: {e}"));
        let read = Model::load(folder.path(), &device).unwrap_or_else(|e| panic!("{what}: {e}"));
        let Network::Language(network) = &read.network else { panic!("{what}: a language model") };
        assert_eq!(publish(&read.config, &read.tokenizer, network), weights, "{what}");
        assert_eq!((&read.config.backbone, read.config.window), (&made.backbone, made.window), "{what}");
        assert_eq!(folder.path().join("tokenizer.json").exists(), config.learned().is_none(), "{what}");
        let sequence = bases(7, 50);
        assert_eq!(read.tokenizer.encode(&sequence), tokenizer.encode(&sequence), "{what}");
    });
}
