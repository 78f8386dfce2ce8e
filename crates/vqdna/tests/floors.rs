//! A room imports only from lower floors. The floors are the table in the documentation of each `lib.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Floors by room, read from rows such as ``//! | 2 | [`layers`] |``.
fn floors(lib: &str) -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for row in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let Some((floor, rooms)) = row.split_once('|') else { continue };
        let Ok(floor) = floor.trim().parse::<u32>() else { continue };
        for room in rooms.split('`').skip(1).step_by(2) {
            assert!(floors.insert(room.to_owned(), floor).is_none(), "`{room}` stands on two floors");
        }
    }
    floors
}

/// Rooms that a `lib.rs` declares.
fn rooms(lib: &str) -> Vec<String> {
    let module = |line: &str| {
        let line = line.strip_prefix("pub ").unwrap_or(line);
        Some(line.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
    };
    lib.lines().filter_map(module).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The source without comments and without what is compiled for tests only, which may use any room.
fn code(source: &str) -> String {
    let mut kept = String::new();
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if line == "#[cfg(test)]" {
            let item = lines.next().unwrap_or_default();
            if item.ends_with('{') {
                lines.by_ref().find(|line| *line == "}");
            }
        } else if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Names that follow `crate::`, or as many `super::` as lead to the crate's root from a module `depth` modules deep.
fn imports(code: &str, depth: usize) -> Vec<String> {
    let mut found = Vec::new();
    for (at, word) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        if code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_') {
            continue;
        }
        let mut rest = &code[at + word.len()..];
        if word == "super::" {
            if code[..at].ends_with("super::") {
                continue;
            }
            let mut supers = 1;
            while let Some(more) = rest.strip_prefix("super::") {
                (rest, supers) = (more, supers + 1);
            }
            if supers < depth {
                continue;
            }
        }
        found.extend(first_names(rest));
    }
    found
}

/// `a` of `a::b`; `a` and `c` of `{a::b, c::{d, e}}`.
fn first_names(path: &str) -> Vec<String> {
    let name =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut names, mut open, mut is_first) = (Vec::new(), 1, true);
    for (at, letter) in group.char_indices() {
        if is_first && open == 1 && !letter.is_whitespace() && letter != '}' {
            names.push(name(&group[at..]));
            is_first = false;
        }
        match letter {
            '{' => open += 1,
            '}' => open -= 1,
            ',' if open == 1 => is_first = true,
            _ => {}
        }
        if open == 0 {
            break;
        }
    }
    names
}

/// One line for each import that points up or sideways.
fn violations(room: &str, code: &str, depth: usize, floors: &BTreeMap<String, u32>) -> Vec<String> {
    let own = floors[room];
    let wrong = |import: &String| *import != room && floors.get(import).is_none_or(|&floor| floor >= own);
    let describe = |import: &String| match floors.get(import) {
        Some(floor) => format!("`{room}` (floor {own}) imports `{import}` (floor {floor})"),
        None => format!("`{room}` imports `{import}`, which is no room"),
    };
    imports(code, depth).iter().filter(|import| wrong(import)).map(describe).collect()
}

fn check(src: &Path) {
    let lib = std::fs::read_to_string(src.join("lib.rs")).unwrap_or_else(|e| panic!("{}: {e}", src.display()));
    let floors = floors(&lib);
    let homeless: Vec<_> = rooms(&lib).into_iter().filter(|room| !floors.contains_key(room)).collect();
    assert!(homeless.is_empty(), "no floor in {}: {homeless:?}", src.display());
    let (mut read, mut wrong) = (0, Vec::new());
    for path in sources(src) {
        let place = path.strip_prefix(src).expect("below src").with_extension("");
        let mut modules: Vec<String> = place.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if modules.last().is_some_and(|last| last == "mod") {
            modules.pop();
        }
        if modules == ["lib"] {
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("readable");
        let found = violations(&modules[0], &code(&source), modules.len(), &floors);
        wrong.extend(found.into_iter().map(|line| format!("{}: {line}", path.display())));
        read += imports(&code(&source), modules.len()).len();
    }
    assert!(wrong.is_empty(), "imports that point up or sideways:\n{}", wrong.join("\n"));
    assert!(read >= rooms(&lib).len(), "only {read} imports found in {}", src.display());
}

#[test]
fn the_library_imports_downwards() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
}

#[test]
fn the_data_crate_imports_downwards() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/src"));
}

/// Modules of a crate, those of `commands` each by itself, and which others each imports.
fn graph(src: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in sources(src) {
        let place = path.strip_prefix(src).expect("below src").with_extension("");
        let mut modules: Vec<String> = place.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if modules.last().is_some_and(|last| last == "mod") {
            modules.pop();
        }
        let is_command = modules.len() > 1 && modules[0] == "commands";
        let room = if is_command { modules[..2].join("/") } else { modules[0].clone() };
        let code = code(&std::fs::read_to_string(&path).expect("readable"));
        let found = graph.entry(room.clone()).or_default();
        if is_command {
            // Neighbours: `super::x::` in a file of `commands`, `crate::commands::x::` anywhere.
            for (at, word) in code.match_indices("super::").chain(code.match_indices("crate::commands::")) {
                let name: String =
                    code[at + word.len()..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if (word != "super::" || modules.len() == 2) && !name.is_empty() {
                    found.insert(format!("commands/{name}"));
                }
            }
        }
        // The room of commands lists them, which is no import.
        let rest = imports(&code, modules.len()).into_iter().filter(|import| *import != room && import != "commands");
        found.extend(rest);
    }
    let known: BTreeSet<String> = graph.keys().cloned().collect();
    for found in graph.values_mut() {
        found.retain(|import| known.contains(import));
    }
    graph
}

/// Modules that are left when those are taken away that import nothing of what is left.
fn in_circles(mut graph: BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    loop {
        let left: BTreeSet<String> = graph.keys().cloned().collect();
        let before = graph.len();
        graph.retain(|room, imports| imports.iter().any(|import| import != room && left.contains(import)));
        if graph.len() == before {
            return graph.into_keys().collect();
        }
    }
}

#[test]
fn no_modules_import_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for src in ["src", "../data/src", "../kernels/src", "../cli/src"] {
        let graph = graph(&root.join(src));
        assert!(graph.len() > 10, "{src}: {graph:?}");
        let circles = in_circles(graph);
        assert!(circles.is_empty(), "in {src}, these import each other, or what does: {circles:?}");
    }
    let of = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            graph.entry((*to).to_owned()).or_default();
        }
        in_circles(graph)
    };
    assert!(of(&[("a", "b"), ("b", "c"), ("a", "c")]).is_empty());
    assert_eq!(of(&[("a", "b"), ("b", "a"), ("b", "c")]), ["a", "b"]);
}

/// Where new kinds are added, nobody else branches: no other room names a variant of these enums.
#[test]
fn kinds_are_named_in_their_room_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (room, enums) in
        [("tokenizer", ["TokenizerConfig::", "Tokenizer::"]), ("backbone", ["BackboneConfig::", "Backbone::"])]
    {
        for path in [root.join("src"), root.join("../cli/src")].iter().flat_map(|src| sources(src)) {
            if path.components().any(|part| part.as_os_str() == room) {
                continue;
            }
            let code = code(&std::fs::read_to_string(&path).expect("readable"));
            for (at, name) in enums.iter().flat_map(|name| code.match_indices(name)) {
                let is_whole = !code[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_');
                let after = code[at + name.len()..].chars().collect::<Vec<_>>();
                // Constants are in capitals throughout.
                let is_variant = after.first().is_some_and(char::is_ascii_uppercase)
                    && after.get(1).is_some_and(char::is_ascii_lowercase);
                let line = 1 + code[..at].matches('\n').count();
                assert!(!(is_whole && is_variant), "{}: {name} names a variant, near line {line}", path.display());
            }
        }
    }
}

/// Rooms of one crate by floor in the table of ARCHITECTURE.md, whose rows begin ``| model 2 | `layers` |``, or ``| |`` for
/// another room of the same floor.
fn planned_floors(plan: &str, of: &str) -> BTreeMap<String, u32> {
    let (mut floors, mut floor) = (BTreeMap::new(), None);
    for cells in plan.lines().filter_map(|line| line.strip_prefix("| ")).map(|row| row.split('|').collect::<Vec<_>>()) {
        let place = cells[0].trim();
        if !place.is_empty() {
            floor = place.strip_prefix(of).and_then(|number| number.trim().parse::<u32>().ok());
        }
        let (Some(floor), Some(rooms)) = (floor, cells.get(1)) else { continue };
        floors.extend(rooms.split('`').skip(1).step_by(2).map(|room| (room.to_owned(), floor)));
    }
    floors
}

#[test]
fn the_plan_shows_the_same_floors() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    for (of, lib) in [("model", "crates/vqdna/src/lib.rs"), ("data", "crates/data/src/lib.rs")] {
        assert_eq!(planned_floors(&read("ARCHITECTURE.md"), of), floors(&read(lib)), "{of}: ARCHITECTURE.md and {lib}");
    }
}

#[test]
fn wrong_imports_are_found() {
    let floors =
        floors("//! | floor | rooms |\n//! | --- | --- |\n//! | 0 | [`low`], [`beside`] |\n//! | 1 | [`high`] |\n");
    let found = |room: &str, source: &str, depth| violations(room, &code(source), depth, &floors).len();
    for (source, depth, wrong) in [
        ("use crate::low::A;", 1, 0),
        ("use crate::high::A;", 1, 1),
        ("use crate::{beside::A, low::B, high::{C, low}};", 1, 2),
        ("    let a = crate::beside::a();", 1, 1),
        ("use super::high::A;", 1, 1),
        ("use super::high::A;", 2, 0),
        ("use super::super::{low, high};", 2, 1),
        ("use super::super::high;", 3, 0),
        ("use crate::nowhere::A;", 1, 1),
        ("use other_crate::high::A;", 1, 0),
        ("// use crate::high::A;\n    /// [`crate::high`]", 1, 0),
        ("#[cfg(test)]\nmod tests {\n    use crate::high::A;\n}\nuse crate::beside::B;", 1, 1),
    ] {
        assert_eq!(found("low", source, depth), wrong, "{source}");
    }
    assert_eq!(found("high", "use crate::{beside::A, low::B};", 1), 0);
}
