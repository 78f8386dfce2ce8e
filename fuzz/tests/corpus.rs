//! The kept corpus, replayed without instrumentation: inputs that once reached new code, and those that once made a parser fail.

use std::{fs, path::Path};

#[test]
fn no_input_of_the_corpus_makes_a_parser_panic() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in vqdna_fuzz::TARGETS {
        let inputs: Vec<_> = fs::read_dir(corpus.join(name)).expect("a folder for each target").collect();
        assert!(!inputs.is_empty(), "{name} has no inputs");
        for input in inputs {
            let path = input.expect("an entry").path();
            println!("{}", path.display());
            target(&fs::read(&path).expect("read"));
        }
    }
}
