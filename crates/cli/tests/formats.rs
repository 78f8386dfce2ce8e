//! Model folders that earlier programs made are read, and give what they gave.

use std::fs;
use std::path::{Path, PathBuf};

use crate::program::Folder;

/// Folders by the program that made them: see `fixtures/folders/make.sh`.
const MADE_BY: [&str; 2] = ["2", "3"];

/// A kind of folder, and the commands that make the tables beside it.
const KINDS: [(&str, &[(&str, &str)]); 9] = [
    ("hrq", &[EMBED, TOKENIZE]),
    ("fsq", &[EMBED, TOKENIZE]),
    ("pretrained", &[EMBED, TOKENIZE]),
    ("mxdna", &[EMBED, UNITS]),
    ("full", &[EMBED, TOKENIZE, PREDICT]),
    ("lora", &[EMBED, PREDICT]),
    ("pairs", &[EMBED, ("predicted.tsv", "predict {} pairs.csv")]),
    ("probe", &[EMBED, PREDICT]),
    ("mxdna_full", &[EMBED, PREDICT, UNITS]),
];
const EMBED: (&str, &str) = ("embedded.tsv", "embed {} sequences.fa");
const TOKENIZE: (&str, &str) = ("codes.tsv", "tokenize {} sequences.fa");
const PREDICT: (&str, &str) = ("predicted.tsv", "predict {} sequences.fa");
const UNITS: (&str, &str) = ("units.tsv", "units {} sequences.fa");

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/folders")
}

/// Words are the same, and numbers nearly so: systems compute exponentials that differ in their last bits.
#[track_caller]
fn assert_same(found: &str, wanted: &str, what: &str) {
    let (found, wanted): (Vec<&str>, Vec<&str>) = (found.lines().collect(), wanted.lines().collect());
    assert_eq!(found.len(), wanted.len(), "{what}: lines");
    for (found, wanted) in found.into_iter().zip(wanted) {
        let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let (found, wanted) = (fields(found), fields(wanted));
        assert_eq!(found.len(), wanted.len(), "{what}: fields");
        for (found, wanted) in found.iter().zip(&wanted) {
            let is_near = match (found.parse::<f64>(), wanted.parse::<f64>()) {
                (Ok(found), Ok(wanted)) if wanted.fract() != 0.0 => {
                    (found - wanted).abs() < 1e-5 * (1.0 + wanted.abs())
                }
                _ => found == wanted,
            };
            assert!(is_near, "{what}: {found}, not {wanted}");
        }
    }
}

#[test]
fn folders_of_earlier_programs_give_what_they_gave() {
    let folder = Folder::new();
    for input in ["sequences.fa", "pairs.csv"] {
        folder.write(input, fs::read(fixtures().join(input)).expect("a fixture"));
    }
    for (made_by, (kind, commands)) in MADE_BY.iter().flat_map(|made_by| KINDS.iter().map(move |kind| (made_by, kind)))
    {
        let made = fixtures().join(made_by).join(kind);
        for (table, line) in *commands {
            let line = format!("{} -o {table} --threads 1", line.replace("{}", &made.display().to_string()));
            let outcome = folder.command(&line).env("VQDNA_SIMD", "baseline").output().expect("the program runs");
            assert!(outcome.status.success(), "{line}: {}", String::from_utf8_lossy(&outcome.stderr));
            let wanted = fs::read_to_string(made.join(table)).expect("a fixture");
            assert_same(&folder.text(table), &wanted, &line);
            fs::remove_file(folder.path(table)).expect("removed");
        }
    }
}
