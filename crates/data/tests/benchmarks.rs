//! Public benchmarks have the sizes, and the leakage between their parts, that they are known for.

use std::path::Path;

use vqdna_data::labelled::{
    ColumnNames, ColumnRequest, Labelling, Options, Overlap, Parts, Set, Splits, Targets, Task,
};

use crate::shared;

fn read(folder: &Path) -> Splits {
    Splits::read(folder, &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

/// What a set holds: rows of train, dev and test; rows that repeat others within train; rows of train that stand in dev and in
/// test, and of dev that stand in test.
struct Known {
    set: &'static str,
    rows: [usize; 3],
    repeats: usize,
    shared: [usize; 3],
}

#[rustfmt::skip]
const KNOWN: [Known; 8] = [
    Known { set: "tf/0", rows: [32_378, 1000, 1000], repeats: 8, shared: [1, 0, 0] },
    Known { set: "tf/1", rows: [30_672, 1000, 1000], repeats: 0, shared: [0, 1, 0] },
    Known { set: "tf/2", rows: [19_000, 1000, 1000], repeats: 185, shared: [20, 0, 0] },
    Known { set: "mouse/0", rows: [6478, 810, 810], repeats: 0, shared: [0, 0, 0] },
    Known { set: "mouse/2", rows: [2620, 328, 328], repeats: 0, shared: [0, 0, 0] },
    Known { set: "prom/prom_core_all", rows: [47_356, 5920, 5920], repeats: 148, shared: [54, 42, 8] },
    Known { set: "prom/prom_core_tata", rows: [4904, 613, 613], repeats: 57, shared: [8, 16, 2] },
    Known { set: "prom/prom_300_tata", rows: [4904, 613, 613], repeats: 56, shared: [14, 6, 0] },
];

#[test]
fn gue_sets_have_the_sizes_and_the_leakage_they_are_known_for() {
    let Some(folder) = shared("data/gue") else { return };
    for Known { set, rows, repeats, shared } in KNOWN {
        let splits = read(&folder.join(set));
        let parts = [Some(&splits.train), splits.dev.as_ref(), splits.test.as_ref()];
        assert_eq!(parts.map(|part| part.map_or(0, Set::len)), rows, "{set}");
        let Overlap { train, train_dev, train_test, dev_test } = splits.overlap;
        assert_eq!((train.rows, [train_dev, train_test, dev_test].map(|part| part.rows)), (repeats, shared), "{set}");
        assert_eq!(
            (splits.labelling.task(), splits.labelling.outputs()),
            (Task::Binary, &["0", "1"].map(str::to_owned)[..])
        );
    }
}

#[test]
fn dedup_removes_what_the_other_parts_have() {
    let Some(folder) = shared("data/gue/prom/prom_core_tata") else { return };
    let options = Options { dedup: true, ..Options::default() };
    let splits = Splits::read(&folder, &options).unwrap();
    assert_eq!((splits.removed, splits.train.len()), (24, 4880));
}

#[test]
fn files_with_carriage_returns_are_those_without() {
    let Some(folder) = shared("data/fasta_edge_cases/crlf_gue") else { return };
    let mouse = read(&folder.join("mouse/3"));
    assert_eq!([mouse.train.len(), mouse.dev.unwrap().len(), mouse.test.unwrap().len()], [1904, 239, 239]);
    let Some(plain) = shared("data/gue/prom/prom_core_tata") else { return };
    let labelling = Labelling::Classes { column: "label".into(), classes: ["0", "1"].map(str::to_owned).into() };
    let read = |path: &Path| {
        let set = vqdna_data::labelled::read(path, None, &ColumnRequest::default(), &labelling).unwrap().0;
        let sequences: Vec<Vec<u8>> = set.rows.iter().map(|row| row.sequence.to_vec()).collect();
        (sequences, set.targets)
    };
    let with = read(&folder.join("prom/prom_core_tata/test.csv"));
    assert!(with == read(&plain.join("test.csv.gz")));
}

#[test]
fn m10_splice_sites_are_at_the_centre() {
    let Some(folder) = shared("data/gue/splice/reconstructed") else { return };
    let parts = Parts::Files { train: folder.join("dev.csv.gz"), dev: None, test: Some(folder.join("test.csv.gz")) };
    let options = Options { held_out: vqdna_data::split::Shares { valid: 0.0, test: 0.0 }, ..Options::default() };
    let splits = Splits::of(&parts, None, &options).unwrap();
    assert_eq!(splits.overlap.train_test.sequences, 30, "known to stand in dev and test");

    let test = splits.test.unwrap();
    let Targets::Classes(classes) = &test.targets else { panic!("{:?}", test.targets) };
    let rows_of = |class| classes.iter().enumerate().filter(move |(_, found)| **found == class).map(|(row, _)| row);
    assert_eq!([0, 1, 2].map(|class| rows_of(class).count()), [956, 1025, 2581]);
    for (class, start, site) in [(0, 198, b"AG"), (1, 200, b"GT")] {
        let found = rows_of(class).filter(|&row| &test.rows.get(row).sequence[start..start + 2] == site).count();
        let rows = rows_of(class).count();
        assert!(found * 100 >= rows * 98, "class {class}: {found} of {rows}");
    }
}

#[test]
fn guide_efficiencies_are_a_regression() {
    let Some(folder) = shared("data/crispr") else { return };
    for (file, rows) in [("HCT116.csv.gz", 4239), ("HELA.csv.gz", 8101), ("HL60.csv.gz", 2076)] {
        let columns = ColumnNames { sequence: vec!["sgRNA".into()], label: vec!["indel".into()] };
        let splits = Splits::read(&folder.join(file), &Options { columns, ..Options::default() }).unwrap();
        assert_eq!(splits.labelling.task(), Task::Regression);
        let parts = [Some(&splits.train), splits.dev.as_ref(), splits.test.as_ref()];
        assert_eq!(parts.iter().map(|part| part.map_or(0, Set::len)).sum::<usize>(), rows, "{file}");
        // What is cut apart by sequence shares none.
        assert_eq!([splits.overlap.train_dev, splits.overlap.train_test].map(|part| part.rows), [0, 0]);
    }
}
