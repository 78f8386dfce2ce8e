//! Tests of the crate through its public face.

use std::{
    env,
    path::{Path, PathBuf},
};

mod benchmarks;
mod compressed;
mod edge_cases;
mod labelled;
mod laws;
mod malformed;
mod markov;
mod tables;

/// A folder of real data. They lie outside the repository, in the folder `VQDNA_SHARED` (default: `../shared` beside the
/// workspace); a test passes without them, and says so.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn shared(folder: &str) -> Option<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let folder = env::var_os("VQDNA_SHARED").map_or(default, PathBuf::from).join(folder);
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: there is no {}", folder.display());
    None
}
