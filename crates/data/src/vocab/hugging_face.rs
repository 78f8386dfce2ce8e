//! The parts of a `tokenizer.json` that all kinds share.

use serde_json::{Value, json};

/// What is put around a sequence: the name of a special token and its id.
pub(super) type Around<'a> = Option<(&'a str, u32)>;

/// A whole file. `special` are the special tokens by id.
pub(super) fn file<'a>(
    special: impl IntoIterator<Item = (&'a str, u32)>,
    pre_tokenizer: Value,
    around: [Around; 2],
    model: Value,
) -> Value {
    let added = special.into_iter().map(|(content, id)| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": normalizer(),
        "pre_tokenizer": pre_tokenizer,
        "post_processor": post_processor(around),
        "decoder": null,
        "model": model,
    })
}

/// Folds letters as this project does. The library has no step that makes letters upper case, so each is replaced.
fn normalizer() -> Value {
    let folds =
        [("a", "A"), ("c", "C"), ("g", "G"), ("[tUu]", "T"), ("[nRYSWKMBDHVryswkmbdhv]", "N")].map(|(class, base)| {
            let pattern = if class.len() == 1 { json!({ "String": class }) } else { json!({ "Regex": class }) };
            json!({ "type": "Replace", "pattern": pattern, "content": base })
        });
    json!({ "type": "Sequence", "normalizers": folds })
}

fn post_processor([first, last]: [Around; 2]) -> Value {
    let special = |around: Around, type_id: u32| {
        around.map(|(name, _)| json!({ "SpecialToken": { "id": name, "type_id": type_id } }))
    };
    let sequence = |name: &str, type_id: u32| Some(json!({ "Sequence": { "id": name, "type_id": type_id } }));
    let single = [special(first, 0), sequence("A", 0), special(last, 0)];
    let pair = single.clone().into_iter().chain([sequence("B", 1), special(last, 1)]);
    let tokens = [first, last].into_iter().flatten().map(|(name, id)| {
        let token = json!({ "id": name, "ids": [id], "tokens": [name] });
        (name.to_owned(), token)
    });
    json!({
        "type": "TemplateProcessing",
        "single": single.into_iter().flatten().collect::<Vec<_>>(),
        "pair": pair.flatten().collect::<Vec<_>>(),
        "special_tokens": tokens.collect::<serde_json::Map<_, _>>(),
    })
}

/// A model that merges nothing more than `merges`: with none, each letter is a token.
pub(super) fn bpe(vocabulary: serde_json::Map<String, Value>, merges: Vec<Value>, unknown: &str) -> Value {
    json!({
        "type": "BPE",
        "dropout": null,
        "unk_token": unknown,
        "continuing_subword_prefix": null,
        "end_of_word_suffix": null,
        "fuse_unk": false,
        "byte_fallback": false,
        "ignore_merges": false,
        "vocab": vocabulary,
        "merges": merges,
    })
}

/// A model that looks up whole words.
pub(super) fn word_level(vocabulary: serde_json::Map<String, Value>, unknown: &str) -> Value {
    json!({ "type": "WordLevel", "vocab": vocabulary, "unk_token": unknown })
}

/// Names by id, as a vocabulary.
pub(super) fn vocabulary(size: usize, token: impl Fn(u32) -> Option<String>) -> serde_json::Map<String, Value> {
    (0..).take(size).filter_map(|id| Some((token(id)?, id.into()))).collect()
}
