//! The test vectors of DNABERT-2. Its vocabulary is not in this repository, so they are checked with a stand-in: of its 4087
//! merges, those that the vectors go through stand at their own ids, and all others make tokens that occur in none of the
//! vectors.

use std::path::Path;

use serde_json::{Value, json};

use super::Bpe;
use crate::{
    random::{below, stream},
    vocab::bases_of,
};

const VECTORS: [(&str, &[u32]); 7] = [
    (
        "ACGTAGCATCGGATCTATCTATCGACACTTGGTTATCGATCTACGAGCATCTCGTTAGC",
        &[5, 194, 32, 757, 1239, 2092, 294, 24, 359, 88, 93, 32, 75, 77, 19],
    ),
    ("ACGT", &[5, 6, 1049]),
    ("TATAAA", &[302]),
    ("GGGGGGGGGG", &[1395, 15]),
    ("AAAAAAAAAAAAAAAAAAAA", &[1169, 39]),
    ("TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT", &[1323, 1323, 122, 8]),
    ("ACGTNACGT", &[5, 6, 1049, 0, 5, 6, 1049]),
];

/// Ids of the published vocabulary, and merges that give its tokens. Where the vectors do not say the id of a part, it is any
/// that is not needed for something else.
const MERGES: [(u32, &str); 39] = [
    (9, "A A"),
    (10, "T T"),
    (11, "T G"),
    (12, "C A"),
    (13, "C C"),
    (14, "T A"),
    (15, "G G"),
    (16, "T C"),
    (17, "G A"),
    (18, "AA A"),
    (19, "G C"),
    (20, "T AA"),
    (21, "TT TT"),
    (24, "TT A"),
    (30, "G TA"),
    (32, "G CA"),
    (39, "AA AA"),
    (45, "T AAA"),
    (75, "TC TC"),
    (77, "G TTA"),
    (88, "TC TA"),
    (93, "C GA"),
    (100, "GG GG"),
    (101, "GG A"),
    (102, "TT GG"),
    (122, "TTTT TT"),
    (150, "TTTT TTTT"),
    (151, "AAAA AAAA"),
    (194, "C GTA"),
    (294, "C TTGG"),
    (302, "TA TAAA"),
    (359, "TC GA"),
    (757, "TC GGA"),
    (1049, "G T"),
    (1169, "AAAAAAAA AAAAAAAA"),
    (1239, "TCTA TCTA"),
    (1323, "TTTTTTTT TTTTTTTT"),
    (1395, "GGGG GGGG"),
    (2092, "TCGA CA"),
];

/// A file with the layout of the published one.
pub(super) fn stand_in() -> Value {
    let mut names: Vec<String> =
        ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "A", "C", "G", "T"].map(str::to_owned).into();
    let mut merges: Vec<String> = Vec::new();
    let mut random = stream(1, 0);
    let is_free = |name: &String| {
        let is_reserved = MERGES.iter().any(|(_, merge)| merge.replace(' ', "") == *name);
        !is_reserved && !VECTORS.iter().any(|(sequence, _)| sequence.contains(&**name))
    };
    while names.len() < 4096 {
        let known = MERGES.iter().find(|(id, _)| *id as usize == names.len());
        let merge = known.map_or_else(
            || loop {
                let part = |random: &mut _| names[5 + below(names.len() - 5, random)].clone();
                let (left, right) = (part(&mut random), part(&mut random));
                let name = left.clone() + &right;
                if name.len() <= 32 && is_free(&name) && !names.contains(&name) {
                    break format!("{left} {right}");
                }
            },
            |(_, merge)| (*merge).to_owned(),
        );
        names.push(merge.replace(' ', ""));
        merges.push(merge);
    }
    let added = names[..5].iter().enumerate().map(|(id, name)| {
        json!({
            "id": id, "special": true, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false,
        })
    });
    let special = |name: &str| json!({ "SpecialToken": { "id": name, "type_id": 0 } });
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 512, "strategy": "LongestFirst", "stride": 0 },
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": { "type": "Whitespace" },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [special("[CLS]"), { "Sequence": { "id": "A", "type_id": 0 } }, special("[SEP]")],
            "pair": [],
            "special_tokens": {
                "[CLS]": { "id": "[CLS]", "ids": [1], "tokens": ["[CLS]"] },
                "[SEP]": { "id": "[SEP]", "ids": [2], "tokens": ["[SEP]"] },
            },
        },
        "decoder": null,
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": "[UNK]",
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "vocab": names.iter().zip(0..).map(|(name, id)| (name.clone(), id.into())).collect::<serde_json::Map<_, _>>(),
            "merges": merges,
        },
    })
}

#[test]
fn ids_are_those_of_dnabert_2() {
    let mut file = stand_in();
    let of_texts = Bpe::parse(Path::new("x"), file.to_string().as_bytes()).unwrap();
    for merge in file["model"]["merges"].as_array_mut().unwrap() {
        *merge = merge.as_str().unwrap().split(' ').collect();
    }
    let of_pairs = Bpe::parse(Path::new("x"), file.to_string().as_bytes()).unwrap();
    for bpe in [of_texts, of_pairs] {
        for (sequence, ids) in VECTORS {
            let bases = bases_of(sequence).unwrap();
            let tokens = bpe.encode(&bases);
            assert_eq!(tokens.levels, [ids], "{sequence}");
            assert_eq!(bpe.decode(ids).unwrap(), bases);
        }
        let special = bpe.special();
        assert_eq!((special.unknown, special.padding, special.mask), (0, 3, 4));
        assert_eq!((special.first, special.last), (Some(1), Some(2)));
        assert_eq!((bpe.size(), bpe.ordinary()), (4096, 5..4096));
        assert_eq!(bpe.token(1239).as_deref(), Some("TCTATCTA"));
        assert!(bpe.search.is_some());
    }
}
