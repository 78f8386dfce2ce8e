//! The steps of a `tokenizer.json` before and after its model.

use serde_json::Value;

use super::file::{Fault, fault};
use crate::alphabet::BASES;

/// Refuses a normalizer that changes a sequence of A, C, G, T and N. What it does with other letters does not matter, since they
/// became base ids before.
pub(super) fn check_normalizer(normalizer: &Value) -> Result<(), Fault> {
    let keeps = match normalizer["type"].as_str() {
        None => normalizer.is_null(),
        Some("Sequence") => {
            let steps = normalizer["normalizers"].as_array();
            return steps.into_iter().flatten().try_for_each(check_normalizer);
        }
        Some("Replace") => replaces_no_base(&normalizer["pattern"]),
        Some(kind) => ["NFC", "NFD", "NFKC", "NFKD", "StripAccents", "Strip"].contains(&kind),
    };
    if keeps { Ok(()) } else { fault("normalizer", format!("{normalizer} may change the letters A, C, G, T and N")) }
}

/// Whether a pattern is a text, or a class of letters such as `[tUu]`, that does not occur in a sequence.
fn replaces_no_base(pattern: &Value) -> bool {
    let is_base = |letter: char| letter.is_ascii() && BASES.contains(&(letter as u8));
    if let Some(text) = pattern["String"].as_str() {
        return text.chars().any(|letter| !is_base(letter));
    }
    let class = pattern["Regex"].as_str().and_then(|regex| regex.strip_prefix('[')?.strip_suffix(']'));
    class.is_some_and(|class| class.chars().all(|letter| letter.is_ascii_alphabetic() && !is_base(letter)))
}

/// Refuses a pre-tokenizer that would cut a sequence.
pub(super) fn check_pre_tokenizer(pre_tokenizer: &Value) -> Result<(), Fault> {
    let is_known = match pre_tokenizer["type"].as_str() {
        None => pre_tokenizer.is_null(),
        Some(kind) => ["Whitespace", "WhitespaceSplit"].contains(&kind),
    };
    if is_known { Ok(()) } else { fault("pre_tokenizer", format!("{pre_tokenizer} is neither Whitespace nor null")) }
}

/// The ids that are put before and after a sequence.
pub(super) fn around(post_processor: &Value) -> Result<[Option<u32>; 2], Fault> {
    let around = match post_processor["type"].as_str() {
        None => post_processor.is_null().then_some([None; 2]),
        Some("TemplateProcessing") => template(post_processor),
        Some("BertProcessing" | "RobertaProcessing") => {
            let id = |field: &str| id(&post_processor[field][1]).map(Some);
            id("cls").zip(id("sep")).map(<[_; 2]>::from)
        }
        Some(_) => None,
    };
    let reason = || format!("{post_processor} does not put at most one token before a sequence and one after it");
    around.map_or_else(|| fault("post_processor", reason()), Ok)
}

fn template(post_processor: &Value) -> Option<[Option<u32>; 2]> {
    let special = |piece: &Value| {
        let name = piece["SpecialToken"]["id"].as_str()?;
        match post_processor["special_tokens"][name]["ids"].as_array()?.as_slice() {
            [only] => id(only),
            _ => None,
        }
    };
    let is_sequence = |piece: &Value| piece["Sequence"]["id"] == "A";
    match post_processor["single"].as_array()?.as_slice() {
        [only] if is_sequence(only) => Some([None; 2]),
        [first, rest] if is_sequence(rest) => Some([Some(special(first)?), None]),
        [rest, last] if is_sequence(rest) => Some([None, Some(special(last)?)]),
        [first, rest, last] if is_sequence(rest) => Some([Some(special(first)?), Some(special(last)?)]),
        _ => None,
    }
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
