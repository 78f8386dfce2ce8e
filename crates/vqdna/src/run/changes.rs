//! What a person changes of a config: a TOML file, and single assignments; and which of them a fault came from.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

use super::config::{ConfigError, StageConfig};

/// Where a setting came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The file.
    File(PathBuf),
    /// An assignment: which of those given, and its text.
    Assignment(usize, String),
}

impl Origin {
    /// What stands before the message of an error.
    pub(super) fn prefix(&self) -> String {
        match self {
            Self::File(path) => format!("{}: ", path.display()),
            Self::Assignment(_, text) => format!("--set {text}: "),
        }
    }
}

/// Changes in the order in which they count.
pub(super) struct Changes(Vec<(Origin, Table)>);

/// Bytes of a config file beyond which it is none.
const MOST: u64 = 16 << 20;

impl Changes {
    /// Reads a file, which may be a pipe, and assignments `path.to.field=value`.
    pub(super) fn read(file: Option<&Path>, assignments: &[String]) -> Result<Self, ConfigError> {
        let mut changes = Vec::new();
        if let Some(path) = file {
            let io = |source| ConfigError::Io { path: path.to_owned(), source };
            let mut bytes = Vec::new();
            File::open(path).and_then(|file| file.take(MOST + 1).read_to_end(&mut bytes)).map_err(io)?;
            if bytes.len() as u64 > MOST {
                return Err(io(std::io::Error::other("it is too large for a config")));
            }
            let text = String::from_utf8(bytes).map_err(|_| io(std::io::Error::other("it is not UTF-8 text")))?;
            let syntax = |e| ConfigError::Syntax { path: path.to_owned(), reason: syntax(&text, &e) };
            changes.push((Origin::File(path.to_owned()), text.parse().map_err(syntax)?));
        }
        for (n, text) in assignments.iter().enumerate() {
            changes.push((Origin::Assignment(n, text.clone()), parse_assignment(text)?));
        }
        Ok(Self(changes))
    }

    /// The same changes by the present names of fields.
    pub(super) fn renamed(mut self, former: &[[&str; 3]]) -> Self {
        for (_, table) in &mut self.0 {
            for [former, present, kind] in former {
                let Some(mut value) = table.remove(*former) else { continue };
                if let Value::Table(fields) = &mut value {
                    fields.entry("kind").or_insert_with(|| Value::String((*kind).to_owned()));
                }
                merge(table, Table::from_iter([((*present).to_owned(), value)]));
            }
        }
        self
    }

    /// A config with the changes.
    pub(super) fn apply<C: StageConfig>(&self, config: &C) -> Result<C, ConfigError> {
        let mut table = Table::try_from(config).map_err(|e| field_error(String::new(), &e))?;
        if let Some([field, reason]) = config.settled()
            && let Some((origin, _)) = self.0.iter().rev().find(|(_, changes)| changes.contains_key(field))
        {
            let error = ConfigError::Settled { field, reason };
            return Err(ConfigError::From { origin: origin.clone(), error: Box::new(error) });
        }
        for [field, kind] in C::KINDS {
            let is_changed = self.0.iter().any(|(_, changes)| changes.contains_key(*field));
            if is_changed && !table.contains_key(*field) {
                let kind = Table::from_iter([("kind".to_owned(), Value::String((*kind).to_owned()))]);
                table.insert((*field).to_owned(), Value::Table(kind));
            }
        }
        for (_, changes) in &self.0 {
            merge(&mut table, changes.clone());
        }
        if let Some(field) = not_finite(&table) {
            return Err(self.blame(ConfigError::Field { field, reason: "it must be a finite number".to_owned() }));
        }
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
            let path = e.path().to_string();
            self.blame(field_error(path, e.inner()))
        })
    }

    /// The error with the change that it came from: the last one of the first field that its message names and a change has.
    pub(super) fn blame(&self, error: ConfigError) -> ConfigError {
        let message = error.to_string();
        // Messages name fields in backticks.
        let fields = message.split('`').skip(1).step_by(2);
        let mut origins = fields.filter_map(|field| self.0.iter().rev().find(|(_, table)| has(table, field)));
        match origins.next() {
            Some((origin, _)) => ConfigError::From { origin: origin.clone(), error: Box::new(error) },
            None => error,
        }
    }
}

/// Whether a table sets a field, or something within it.
fn has(table: &Table, field: &str) -> bool {
    let mut keys = field.split(['.', '[']);
    let mut here = keys.next().and_then(|key| table.get(key));
    for key in keys {
        match here {
            Some(Value::Table(table)) => here = table.get(key),
            // Set as a whole.
            Some(_) => return true,
            None => return false,
        }
    }
    here.is_some()
}

/// The first field that is infinite or no number.
fn not_finite(table: &Table) -> Option<String> {
    table.iter().find_map(|(key, value)| match value {
        Value::Float(number) => (!number.is_finite()).then(|| key.clone()),
        Value::Array(all) => all.iter().any(|one| one.as_float().is_some_and(|n| !n.is_finite())).then(|| key.clone()),
        Value::Table(within) => not_finite(within).map(|field| format!("{key}.{field}")),
        _ => None,
    })
}

/// What is wrong with a TOML text, on one line, with the number of the line.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    format!("line {}: {}", 1 + before.matches('\n').count(), error.message().replace('\n', ", "))
}

/// The first line of an error, without the snippet of a document the user never wrote.
fn field_error(field: String, error: &dyn std::fmt::Display) -> ConfigError {
    let text = error.to_string();
    let reason = text.lines().filter(|line| !line.trim().is_empty()).map(str::trim).collect::<Vec<_>>().join(" ");
    ConfigError::Field { field, reason }
}

/// `a.b.c=1` as the table `{ a = { b = { c = 1 } } }`. A value that is not TOML is taken as a string.
fn parse_assignment(text: &str) -> Result<Table, ConfigError> {
    let wrong = || ConfigError::Assignment(text.to_owned());
    let (path, value) = text.split_once('=').ok_or_else(wrong)?;
    let value = value.trim();
    let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut table| table.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::String(value.to_owned()));
    let mut fields = path.trim().split('.').rev();
    let last = fields.next().filter(|field| !field.is_empty()).ok_or_else(wrong)?;
    let innermost = Table::from_iter([(last.to_owned(), value)]);
    Ok(fields.fold(innermost, |inner, field| Table::from_iter([(field.to_owned(), Value::Table(inner))])))
}

/// Puts the fields of `changes` over those of `table`. Where the `kind` of a choice changes, the fields of the former kind go.
fn merge(table: &mut Table, changes: Table) {
    for (key, change) in changes {
        match (table.get_mut(&key), change) {
            (Some(Value::Table(old)), Value::Table(new)) => {
                if new.get("kind").is_some_and(|kind| old.get("kind") != Some(kind)) {
                    old.clear();
                }
                merge(old, new);
            }
            (_, change) => {
                table.insert(key, change);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::config::StageConfig;
    use crate::run::learn::LearnConfig;

    fn resolve(file: Option<&Path>, assignments: &[&str]) -> Result<LearnConfig, ConfigError> {
        let assignments: Vec<String> = assignments.iter().map(|&a| a.to_owned()).collect();
        LearnConfig::default().resolve(file, &assignments)
    }

    #[test]
    fn errors_say_where_a_setting_came_from() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("run.toml");
        std::fs::write(&path, "[data]\nlength = 0\n[train]\nbatch = 2\n").expect("written");
        let file = format!("{}: ", path.display());
        for (with_file, assignments, start) in [
            (true, &[][..], format!("{file}config field `data.length` must be at least 1")),
            (true, &["data.length=0"], "--set data.length=0: config field `data.length`".to_owned()),
            (true, &["data.length=64", "train.batch=0"], "--set train.batch=0: config field `train.batch`".to_owned()),
            (
                true,
                &["data.length=many"],
                "--set data.length=many: config field `data.length`: invalid type".to_owned(),
            ),
            (false, &["train.stepz=3"], "--set train.stepz=3: config field `train.stepz`".to_owned()),
            (false, &["data.length=64", "data.stride=100"], "--set data.stride=100: ".to_owned()),
            // The field that is named is a default: no change is to blame alone.
            (false, &["tokenizer.blocks=7"], "config: `tokenizer.taps` must".to_owned()),
            (
                false,
                &["train.optimizer.clip=inf"],
                "--set train.optimizer.clip=inf: config field `train.opt".to_owned(),
            ),
            (false, &["seed=2", "train.schedule.rate=nan"], "--set train.schedule.rate=nan: ".to_owned()),
            (false, &["data.split.kind=x"], "--set data.split.kind=x: ".to_owned()),
        ] {
            let message = resolve(with_file.then_some(&*path), assignments).expect_err("a fault").to_string();
            assert!(message.starts_with(&start), "{assignments:?}: {message}");
        }
    }
}
