//! Sequence files that others found hard: each gives its codes or one clear error.
//!
//! They lie outside the repository, in the folder `VQDNA_SHARED` (default: `../shared` beside the workspace); without it the
//! test passes and says so.

use std::env;
use std::path::{Path, PathBuf};

use crate::program::{Folder, walk};

#[test]
fn every_file_gives_codes_or_one_clear_error() {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let shared = env::var_os("VQDNA_SHARED").map_or(default, PathBuf::from);
    let specimens = shared.join("data/fasta_edge_cases");
    let Ok(specimens) = specimens.canonicalize() else {
        println!("skipped: no specimens in {}", specimens.display());
        return;
    };
    let folder = Folder::with_vocabulary();
    let (mut tokenized, mut refused, mut failures) = (0, 0, Vec::new());
    for path in walk(&specimens).iter().filter(|path| path.is_file()) {
        let path = path.display();
        let outcome = folder.run(&format!("tokenize model {path} -o -"));
        let errors: Vec<&str> = outcome.stderr.lines().filter(|line| line.starts_with("error:")).collect();
        match (outcome.code, errors.as_slice()) {
            (Some(0), []) if outcome.stdout.starts_with(b"# vqdna codes") => tokenized += 1,
            (Some(2), [error]) if error.contains(&path.to_string()) && outcome.stderr.trim_end().ends_with(error) => {
                refused += 1;
            }
            (code, _) => failures.push(format!("{path}: {code:?} {}", outcome.stderr)),
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(tokenized > 50 && refused > 50, "{tokenized} tokenized, {refused} refused: are all specimens there?");
}
