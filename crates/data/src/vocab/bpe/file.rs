//! Reads a `tokenizer.json`, and refuses what would give other ids than the library `tokenizers` does.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    ops::Range,
    path::Path,
};

use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{
    Bpe, BpeError, MAX_SIZE, MAX_WIDTH,
    rules::{Id, Merge},
    small::{Small, list},
    steps,
};
use crate::{
    alphabet::{BASES, Letter, classify},
    vocab::Special,
};

/// The most letters of all tokens together, which bounds the memory of the tables that are made of them.
const MAX_LETTERS: usize = 1 << 21;

/// The most added tokens.
const MAX_ADDED: usize = 1024;

/// A fault: the field, and what is wrong with it.
pub(super) type Fault = (String, String);

/// Texts of the file are shortened, since they may be as long as it.
pub(super) fn fault<T>(field: impl Into<String>, reason: impl Into<String>) -> Result<T, Fault> {
    let short = |text: String| match text.char_indices().nth(300) {
        Some((end, _)) => text[..end].to_owned() + "…",
        None => text,
    };
    Err((short(field.into()), short(reason.into())))
}

pub(super) fn parse(file: &Path, content: &[u8]) -> Result<Bpe, BpeError> {
    // The kind first, since other kinds have other fields.
    let kind = json::<Outline>(file, content)?.model.kind;
    let checked = match kind.as_deref() {
        None | Some("BPE") => json::<Content>(file, content)?.check(),
        Some(kind) => fault("model.type", format!("it is {kind:?}; only \"BPE\" can be read")),
    };
    checked.map_err(|(field, reason)| BpeError::Field { file: file.to_owned(), field, reason })
}

fn json<'de, T: Deserialize<'de>>(file: &Path, content: &'de [u8]) -> Result<T, BpeError> {
    let mut from = serde_json::Deserializer::from_slice(content);
    let error = |field: String, source| BpeError::Json { file: file.to_owned(), field, source };
    let value = serde_path_to_error::deserialize(&mut from).map_err(|e| error(e.path().to_string(), e.into_inner()))?;
    from.end().map_err(|source| error(".".to_owned(), source))?;
    Ok(value)
}

#[derive(Deserialize)]
struct Outline {
    model: OutlineOfModel,
}

#[derive(Deserialize)]
struct OutlineOfModel {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    #[serde(default, rename = "version")]
    _version: IgnoredAny,
    #[serde(default, rename = "truncation")]
    _truncation: IgnoredAny,
    #[serde(default, rename = "padding")]
    _padding: IgnoredAny,
    #[serde(default, rename = "decoder")]
    _decoder: IgnoredAny,
    #[serde(default)]
    added_tokens: AddedTokens,
    #[serde(default)]
    normalizer: Small,
    #[serde(default)]
    pre_tokenizer: Small,
    #[serde(default)]
    post_processor: Small,
    model: Model,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    #[serde(default, rename = "type")]
    _kind: IgnoredAny,
    dropout: Option<f64>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: bool,
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    vocab: Vocabulary,
    merges: Merges,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    id: u32,
    content: String,
    #[serde(default, rename = "single_word")]
    _single_word: IgnoredAny,
    #[serde(default, rename = "lstrip")]
    _lstrip: IgnoredAny,
    #[serde(default, rename = "rstrip")]
    _rstrip: IgnoredAny,
    #[serde(default, rename = "normalized")]
    _normalized: IgnoredAny,
    #[serde(default, rename = "special")]
    _special: IgnoredAny,
}

impl Content {
    fn check(self) -> Result<Bpe, Fault> {
        steps::check_normalizer(&self.normalizer.0)?;
        steps::check_pre_tokenizer(&self.pre_tokenizer.0)?;
        self.model.check()?;
        let names = self.names()?;
        let ids: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
        let ordinary = ordinary(&names)?;
        let special = self.special(&ids, &ordinary)?;
        let merges = self.model.merges.0.iter().enumerate().map(|(rank, merge)| {
            merge.of(&ids, &ordinary).or_else(|reason| fault(format!("model.merges[{rank}]"), reason))
        });
        let merges = merges.collect::<Result<Vec<Merge>, Fault>>()?;
        let mut ranks = HashMap::new();
        for (rank, merge) in merges.iter().enumerate() {
            if let Some(first) = ranks.insert((merge.left, merge.right), rank) {
                return fault(
                    format!("model.merges[{rank}]"),
                    format!("it merges the same tokens as model.merges[{first}]"),
                );
            }
        }
        Ok(Bpe::new(names, special, ordinary, merges))
    }

    /// The texts of all tokens, by id.
    fn names(&self) -> Result<Vec<String>, Fault> {
        let added = &self.added_tokens.0;
        let content = |number| format!("added_tokens[{number}].content");
        for (number, Added { content: name, .. }) in added.iter().enumerate() {
            if name.bytes().all(|letter| classify(letter) != Letter::Invalid) {
                return fault(content(number), format!("{name:?} would be found within a sequence"));
            }
        }
        let known: HashSet<&str> =
            added.iter().map(|token| &token.content).chain(&self.model.unk_token).map(String::as_str).collect();
        let mut letters = 0;
        let mut ids: HashMap<&str, u32> = HashMap::new();
        for (name, id) in &self.model.vocab.0 {
            let field = || format!("model.vocab.{name:?}");
            letters += name.len();
            if !is_bases(name) && !known.contains(&**name) {
                return fault(field(), "it is neither bases (A, C, G, T, N) nor an added token");
            }
            if name.len() > MAX_WIDTH || letters > MAX_LETTERS {
                return fault(field(), format!("tokens may have {MAX_WIDTH} letters, and all together {MAX_LETTERS}"));
            }
            if ids.insert(name, *id).is_some() {
                return fault(field(), "it occurs twice");
            }
        }
        for (number, Added { content: name, id, .. }) in added.iter().enumerate() {
            if ids.insert(name, *id).is_some_and(|other| other != *id) {
                return fault(content(number), format!("{name:?} has another id elsewhere"));
            }
        }
        let mut names = vec![None; ids.len()];
        for (name, id) in ids {
            let Some(place) = names.get_mut(id as usize) else {
                return fault("model.vocab", format!("the id {id} of {name:?} is not below the number of tokens"));
            };
            if place.replace(name.to_owned()).is_some() {
                return fault("model.vocab", format!("two tokens have the id {id}"));
            }
        }
        // As many ids as tokens, all different and below their number: none is missing.
        let names: Vec<String> = names.into_iter().flatten().collect();
        if names.len() <= MAX_SIZE {
            Ok(names)
        } else {
            fault("model.vocab", format!("there are more than {MAX_SIZE} tokens"))
        }
    }

    fn special(&self, ids: &HashMap<&str, u32>, ordinary: &Range<u32>) -> Result<Special, Fault> {
        let Some(name) = &self.model.unk_token else {
            return fault("model.unk_token", "there is none, so N would have no id");
        };
        if is_bases(name) || !self.model.vocab.0.iter().any(|(token, _)| token == name) {
            return fault("model.unk_token", format!("{name:?} is not a special token of model.vocab"));
        }
        let known = |spellings: [&str; 2]| match spellings.iter().find_map(|name| ids.get(name)) {
            Some(id) => Ok(*id),
            None => fault("added_tokens", format!("there is no {}", spellings.join(" or "))),
        };
        let [first, last] = steps::around(&self.post_processor.0)?;
        for id in [first, last].into_iter().flatten() {
            if id as usize >= ids.len() || ordinary.contains(&id) {
                return fault("post_processor", format!("{id} is not the id of a special token"));
            }
        }
        let (padding, mask) = (known(["[PAD]", "<pad>"])?, known(["[MASK]", "<mask>"])?);
        Ok(Special { padding, unknown: ids[&**name], mask, first, last })
    }
}

impl Model {
    fn check(&self) -> Result<(), Fault> {
        let is_text = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
        let refused = [
            ("dropout", self.dropout.is_some_and(|dropout| dropout != 0.0), "ids would depend on chance"),
            ("continuing_subword_prefix", is_text(&self.continuing_subword_prefix), "tokens would not be bases alone"),
            ("end_of_word_suffix", is_text(&self.end_of_word_suffix), "tokens would not be bases alone"),
            ("fuse_unk", self.fuse_unk, "neighbouring N would share a token"),
            ("byte_fallback", self.byte_fallback, "N would become bytes"),
            ("ignore_merges", self.ignore_merges, "the tokens of a sequence would depend on whether it is one itself"),
        ];
        match refused.into_iter().find(|(_, is_set, _)| *is_set) {
            Some((field, _, reason)) => fault(format!("model.{field}"), format!("it is set: {reason}")),
            None => Ok(()),
        }
    }
}

/// The ids of tokens over bases.
fn ordinary(names: &[String]) -> Result<Range<u32>, Fault> {
    let ids: Vec<u32> = (0..).zip(names).filter(|(_, name)| is_bases(name)).map(|(id, _)| id).collect();
    for base in &BASES[..4] {
        let base = char::from(*base).to_string();
        if !names.contains(&base) {
            return fault("model.vocab", format!("there is no token for {base}"));
        }
    }
    let ordinary = ids[0]..ids[ids.len() - 1] + 1;
    if ordinary.len() > ids.len() {
        return fault("model.vocab", "special tokens lie between those of bases");
    }
    Ok(ordinary)
}

fn is_bases(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|letter| BASES.contains(&letter))
}

#[derive(Default)]
struct AddedTokens(Vec<Added>);

struct Vocabulary(Vec<(String, u32)>);

struct Merges(Vec<Parts>);

/// The two texts of a merge: `["A", "C"]` or `"A C"`.
struct Parts(String, String);

impl Parts {
    fn of(&self, ids: &HashMap<&str, u32>, ordinary: &Range<u32>) -> Result<Merge, String> {
        let id = |text: &str| {
            let id = ids.get(text).filter(|id| ordinary.contains(id));
            id.and_then(|&id| Id::try_from(id).ok()).ok_or_else(|| format!("{text:?} is not in model.vocab"))
        };
        let Self(left, right) = self;
        Ok(Merge { left: id(left)?, right: id(right)?, made: id(&format!("{left}{right}"))? })
    }
}

/// Implements `Deserialize` by a visitor of one or two methods.
macro_rules! visited {
    ($name:ident, $expected:literal, $entry:ident, { $($methods:tt)+ }) => {
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                struct This;
                impl<'de> Visitor<'de> for This {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }

                    $($methods)+
                }
                from.$entry(This)
            }
        }
    };
}

visited!(AddedTokens, "a list of added tokens", deserialize_seq, {
    fn visit_seq<A: SeqAccess<'de>>(self, from: A) -> Result<AddedTokens, A::Error> {
        list(from, MAX_ADDED).map(AddedTokens)
    }
});

visited!(Merges, "a list of merges", deserialize_seq, {
    fn visit_seq<A: SeqAccess<'de>>(self, from: A) -> Result<Merges, A::Error> {
        list(from, MAX_SIZE).map(Merges)
    }
});

visited!(Vocabulary, "ids by token", deserialize_map, {
    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Vocabulary, A::Error> {
        let mut tokens = Vec::new();
        while let Some(token) = from.next_entry()? {
            if tokens.len() == MAX_SIZE {
                return Err(A::Error::custom(format_args!("there are more than {MAX_SIZE} tokens")));
            }
            tokens.push(token);
        }
        Ok(Vocabulary(tokens))
    }
});

visited!(Parts, "two tokens, as a list or separated by a space", deserialize_any, {
    fn visit_str<E: Error>(self, text: &str) -> Result<Parts, E> {
        match text.split_once(' ') {
            Some((left, right)) if !right.contains(' ') => Ok(Parts(left.to_owned(), right.to_owned())),
            _ => Err(E::custom(format_args!("{text:?} is not two tokens separated by a space"))),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Parts, A::Error> {
        let mut next = || from.next_element()?.ok_or_else(|| A::Error::custom("a merge has two tokens"));
        let parts = Parts(next()?, next()?);
        match from.next_element::<IgnoredAny>()? {
            None => Ok(parts),
            Some(_) => Err(A::Error::custom("a merge has two tokens")),
        }
    }
});

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::vocab::{BpeConfig, bpe::Trainer};

    fn small() -> Value {
        let mut trainer = Trainer::new(BpeConfig { size: 20, ..BpeConfig::default() }).unwrap();
        trainer.add(&[0, 1, 2, 3].repeat(9));
        trainer.train().hugging_face()
    }

    fn parsed(content: &[u8]) -> Result<Bpe, String> {
        parse(Path::new("x.json"), content).map_err(|error| error.to_string())
    }

    #[test]
    fn what_was_written_is_read() {
        let file = small();
        let bpe = parsed(file.to_string().as_bytes()).unwrap();
        assert_eq!(bpe.hugging_face(), file);
        // ACGT becomes AC GT, ACGT, and twice as many, until no pair occurs twice.
        let names: Vec<_> = (9..).map_while(|id| bpe.token(id)).collect();
        assert_eq!(names, ["AC", "GT", "ACGT", "ACGTACGT", "ACGTACGTACGTACGT"]);
    }

    #[test]
    fn the_field_that_cannot_be_kept_is_named() {
        let faults = [
            ("/model/type", json!("WordPiece"), "`model.type`: it is \"WordPiece\""),
            ("/model/dropout", json!(0.1), "`model.dropout`: it is set: ids would depend on chance"),
            ("/model/byte_fallback", json!(true), "`model.byte_fallback`: it is set"),
            ("/model/fuse_unk", json!(true), "`model.fuse_unk`: it is set"),
            ("/model/ignore_merges", json!(true), "`model.ignore_merges`: it is set"),
            ("/model/continuing_subword_prefix", json!("##"), "`model.continuing_subword_prefix`: it is set"),
            ("/model/end_of_word_suffix", json!("</w>"), "`model.end_of_word_suffix`: it is set"),
            ("/model/unk_token", json!(null), "`model.unk_token`: there is none"),
            ("/model/unk_token", json!("A"), "`model.unk_token`: \"A\" is not a special token"),
            ("/model/unk_token", json!("[X]"), "`model.unk_token`: \"[X]\" is not a special token"),
            ("/model/vocab/A", json!("5"), "`model.vocab.A`: invalid type: string"),
            ("/model/vocab/A", json!(-1), "`model.vocab.A`: invalid value"),
            ("/model/vocab/A", json!(6), "`model.vocab`: two tokens have the id 6"),
            ("/model/vocab/A", json!(4_000_000_000_u32), "`model.vocab`: the id 4000000000 of \"A\""),
            ("/model/merges/0", json!("A  C"), "`model.merges[0]`: \"A  C\" is not two tokens"),
            ("/model/merges/0", json!("AC"), "`model.merges[0]`: \"AC\" is not two tokens"),
            ("/model/merges/0", json!(["A"]), "`model.merges[0]`: a merge has two tokens"),
            ("/model/merges/0", json!(["A", "C", "G"]), "`model.merges[0]`: a merge has two tokens"),
            ("/model/merges/0", json!(["A", "X"]), "`model.merges[0]`: \"X\" is not in model.vocab"),
            ("/model/merges/0", json!(["A", "G"]), "`model.merges[0]`: \"AG\" is not in model.vocab"),
            ("/model/merges/0", json!(["[UNK]", "A"]), "`model.merges[0]`: \"[UNK]\" is not in model.vocab"),
            ("/model/merges/1", json!(["A", "C"]), "`model.merges[1]`: it merges the same tokens as model.merges[0]"),
            ("/model/merges", json!({}), "`model.merges`: invalid type: map"),
            ("/model/vocab", json!([]), "`model.vocab`: invalid type: sequence"),
            ("/normalizer", json!({ "type": "Lowercase" }), "`normalizer`: {\"type\":\"Lowercase\"} may change"),
            ("/normalizer/normalizers/0/pattern", json!({ "String": "A" }), "`normalizer`: "),
            ("/normalizer/normalizers/0/pattern", json!({ "Regex": "." }), "`normalizer`: "),
            ("/normalizer/normalizers/0/pattern", json!({ "Regex": "[^x]" }), "`normalizer`: "),
            ("/pre_tokenizer", json!({ "type": "ByteLevel" }), "`pre_tokenizer`: {\"type\":\"ByteLevel\"} is neither"),
            ("/pre_tokenizer", json!([[[[0]]]]), "`pre_tokenizer`: "),
            ("/pre_tokenizer", json!(vec![0; 20_000]), "`: it has more than 10000 parts"),
            ("/post_processor", json!({ "type": "ByteLevel" }), "`post_processor`: "),
            ("/post_processor/special_tokens/[CLS]/ids", json!([5]), "`post_processor`: 5 is not the id of a special"),
            (
                "/post_processor/special_tokens/[CLS]/ids",
                json!([99]),
                "`post_processor`: 99 is not the id of a special",
            ),
            ("/post_processor/special_tokens/[CLS]/ids", json!([1, 2]), "`post_processor`: "),
            ("/added_tokens", json!([]), "`model.vocab.\"[CLS]\"`: it is neither bases"),
            ("/added_tokens/3/content", json!("[P]"), "`model.vocab.\"[PAD]\"`: it is neither bases"),
            ("/added_tokens/3/content", json!("AC"), "\"AC\" would be found within a sequence"),
            ("/added_tokens/3/content", json!("mask"), "\"mask\" would be found within a sequence"),
            ("/added_tokens/3/content", json!(""), "\"\" would be found within a sequence"),
            ("/added_tokens/3/id", json!(4), "`added_tokens[3].content`: \"[PAD]\" has another id elsewhere"),
            ("/added_tokens/3", json!({ "id": 3, "content": "[PAD]", "trim": 1 }), "`added_tokens[3].trim`: unknown"),
        ];
        let wrong: Vec<_> = faults
            .into_iter()
            .filter_map(|(pointer, value, message)| {
                let mut file = small();
                *file.pointer_mut(pointer).unwrap() = value;
                let given = parsed(file.to_string().as_bytes()).err().unwrap_or_default();
                (!given.starts_with("x.json: ") || !given.contains(message)).then_some((pointer, given, message))
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn tokens_are_bases_and_all_bases_are_tokens() {
        let with = |name: &str| {
            let mut file = small();
            let size = file["model"]["vocab"].as_object().unwrap().len();
            file["model"]["vocab"][name] = json!(size);
            parsed(file.to_string().as_bytes())
        };
        for name in ["acgt", "Ġ", "##A", "AX", "A ", ""] {
            assert!(
                with(name).unwrap_err().contains(&format!("`model.vocab.{name:?}`: it is neither bases")),
                "{name}"
            );
        }
        // A token that no merge makes never occurs.
        let unreachable = with("GGG").unwrap();
        assert_eq!(unreachable.encode(&[2, 2, 2]).levels, [[7, 7, 7]]);
        assert!(with(&"A".repeat(MAX_WIDTH + 1)).unwrap_err().contains("tokens may have 4096 letters"));
        // N may have a token of its own.
        let with_n = with("N").unwrap();
        assert_eq!(with_n.encode(&[4, 0, 1, 4]).levels, [[14, 9, 14]]);
        assert_eq!(with_n.decode(&[14, 9]).unwrap(), [4, 0, 1]);
        assert_eq!(with_n.decode(&[0]), None);
        let mut file = small();
        file["model"]["vocab"] = json!({ "[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "[PAD]": 3, "[MASK]": 4, "A": 5 });
        assert!(parsed(file.to_string().as_bytes()).unwrap_err().contains("`model.vocab`: there is no token for C"));
    }

    #[test]
    fn hostile_files_are_errors() {
        let deep = "[".repeat(100_000);
        let many = format!(
            "{{\"model\":{{\"type\":\"BPE\",\"vocab\":{{}},\"merges\":[{}\"A A\"]}}}}",
            "\"A A\",".repeat(70_000)
        );
        let twice = small().to_string().replacen("\"A\":5", "\"A\":5,\"A\":5", 1);
        let model_twice = small().to_string().replacen("\"model\"", "\"model\":{},\"model\"", 1);
        for (content, message) in [
            ("", "EOF"),
            ("{}", "missing field `model`"),
            ("null", "invalid type"),
            ("{\"model\": {}}", "missing field `vocab`"),
            (&*deep, ""),
            (&*many, "there are more than 65534"),
            (&*twice, "\"A\"`: it occurs twice"),
            (&*model_twice, "duplicate field `model`"),
            (&*(small().to_string() + "}"), "trailing"),
            (&*small().to_string().replacen("\"version\"", "\"verse\"", 1), "unknown field `verse`"),
        ] {
            let given = parsed(content.as_bytes()).unwrap_err();
            assert!(given.contains(message), "{given}");
        }
        assert!(parsed(&[0xff, 0]).is_err());
    }
}
