//! Every public function of the kernels is called here, and says in its documentation when it panics.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vqdna_misuse::Tried;

/// A public function, as its source declares it.
struct Function {
    documents_panics: bool,
}

/// Public functions by their path in the crate, such as `product::panels::View::pack`.
fn public_functions() -> BTreeMap<String, Function> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kernels/src");
    let mut functions = BTreeMap::new();
    for file in files(&source) {
        let path = file.strip_prefix(&source).expect("a file of the folder").with_extension("");
        let mut module: Vec<&str> = path.iter().map(|name| name.to_str().expect("a name of a module")).collect();
        if module.last() == Some(&"mod") {
            module.pop();
        }
        let text = std::fs::read_to_string(&file).expect("readable");
        read(&text, &module.join("::"), &mut functions);
    }
    functions
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let paths = entries.map(|entry| entry.expect("readable").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The functions of a module that other crates can name: `pub fn`, and those of a `pub trait`.
fn read(text: &str, module: &str, functions: &mut BTreeMap<String, Function>) {
    // What methods belong to, and whether it is a trait that other crates can name.
    let mut owner = (String::new(), false);
    let mut documents_panics = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        if line == "#[cfg(test)]" {
            let item = lines.next().unwrap_or_default();
            if item.ends_with('{') {
                lines.by_ref().find(|line| *line == "}");
            }
        } else if code.starts_with("///") {
            documents_panics |= code.trim_end() == "/// # Panics";
        } else if indent == 0 && (code.starts_with("impl") || code.contains("trait ")) {
            owner = (owner_of(code), code.starts_with("pub trait ") || code.starts_with("pub unsafe trait "));
            documents_panics = false;
        } else if let Some(name) = function(code, owner.1 && indent == 4) {
            let of = if indent == 0 || owner.0.is_empty() { String::new() } else { format!("{}::", owner.0) };
            functions.insert(format!("{module}::{of}{name}"), Function { documents_panics });
            documents_panics = false;
        } else if line == "}" {
            owner = (String::new(), false);
        } else if !code.starts_with("#[") {
            documents_panics = false;
        }
    }
}

/// The name of what an `impl` or a trait is of: the type of `impl<U: Unit> Trait for Type<U>`.
fn owner_of(code: &str) -> String {
    let start = code.find("trait ").map(|at| at + "trait ".len());
    let rest = match start {
        Some(at) => &code[at..],
        None => match code.split_once(" for ") {
            Some((_, of)) => of,
            None => after_generics(code.trim_start_matches("impl")),
        },
    };
    let rest = rest.trim_start();
    rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// What follows `<…>`, if that comes first.
fn after_generics(code: &str) -> &str {
    let mut depth = 0;
    for (at, c) in code.char_indices() {
        match c {
            '<' => depth += 1,
            '>' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return if c == '>' { &code[at + 1..] } else { code };
        }
    }
    code
}

/// The name of the public function that a line declares.
fn function(code: &str, in_public_trait: bool) -> Option<&str> {
    let code = match code.strip_prefix("pub ") {
        Some(code) => code,
        None if in_public_trait => code,
        None => return None,
    };
    let mut words = code.split_whitespace();
    let name = words.by_ref().find(|word| !["const", "unsafe", "async"].contains(word)).filter(|word| *word == "fn");
    let name = name.and_then(|_| words.next())?;
    name.split(['(', '<', '[']).next()
}

/// Functions that take any argument: nothing of theirs is of a shape, or nothing is done with it yet.
const TAKE_ANYTHING: [&str; 29] = [
    "adamw::sum_of_squares",
    "attention::Input::among",
    "attention::Input::with",
    "attention::cached::Cache::lengths",
    "attention::cached::Cache::shape",
    "gelu::in_place",
    "linear::Wanted::any",
    "linear::Wanted::needs_rows",
    "mlp::activation::Activation::inputs",
    "pool::awake",
    "product::Matrix::transposed",
    "product::kernel::panel_width",
    "product::panels::Panels::new",
    "product::panels::Panels::view",
    "product::panels::View::cols",
    "product::panels::View::depth",
    "product::panels::View::steps",
    "product::peak",
    "product::saved::Saved::is_empty",
    "product::saved::Saved::units",
    "product::unit::Unit::from_floats_mut",
    "product::unit::Unit::new",
    "product::unit::Unit::scratch",
    "product::unit::Unit::width",
    "simd::Level::name",
    "simd::check_environment",
    "simd::level",
    "simd::native_bf16",
    "units::unit",
];

/// Functions that nobody else can call: they take what only the crate can make.
const INSIDE: [&str; 2] = ["product::unit::Unit::put_rows", "product::unit::Unit::put_steps"];

/// Its documentation says for all of its functions that they panic.
const DOCUMENTED_AS_ONE: &str = "product::unit::Unit::";

#[test]
#[cfg_attr(miri, ignore = "about sources, and calls all that other tests call")]
fn every_public_function_is_called_rightly_and_wrongly() {
    let modules = [
        crate::attention::tried(),
        crate::blocks::tried(),
        crate::codes::tried(),
        crate::experts::tried(),
        crate::layers::tried(),
        crate::products::tried(),
        crate::quantize::tried(),
    ];
    let mut called: BTreeMap<&str, [usize; 2]> = BTreeMap::new();
    for Tried { name, right, wrong, .. } in modules.into_iter().flatten() {
        let [all_right, all_wrong] = called.entry(name).or_default();
        (*all_right, *all_wrong) = (*all_right + right, *all_wrong + wrong);
    }
    let mut functions = public_functions();
    functions.retain(|name, _| !INSIDE.contains(&name.as_str()));
    assert!(functions.len() > 60, "the sources were read: {} functions", functions.len());
    let mut faults = Vec::new();
    for (name, function) in &functions {
        let takes_anything = TAKE_ANYTHING.contains(&name.as_str());
        match called.get(name.as_str()) {
            None => faults.push(format!("`{name}` is not called")),
            Some([_, 0]) if !takes_anything => faults.push(format!("`{name}` is not called wrongly")),
            Some([_, wrong]) if takes_anything && *wrong > 0 => faults.push(format!("`{name}` refuses some arguments")),
            Some(_) if !takes_anything && !function.documents_panics && !name.starts_with(DOCUMENTED_AS_ONE) => {
                faults.push(format!("`{name}` does not document when it panics"));
            }
            Some(_) => {}
        }
    }
    let unknown = called.keys().chain(&TAKE_ANYTHING).filter(|name| !functions.contains_key(**name));
    faults.extend(unknown.map(|name| format!("`{name}` is no public function")));
    assert!(faults.is_empty(), "\n  {}", faults.join("\n  "));
}
