//! What a run depends on. A checkpoint holds it, so that a run goes on as itself alone, and says what differs if not.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// What a run depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// The settings that change bits of the result, as TOML.
    pub settings: String,
    /// Digests of the inputs, in their order.
    pub inputs: Vec<String>,
    /// Digest of the vocabulary or model that the run began with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Version of the rule by which windows of reads are held out; none where no reads are, and in runs that began under the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_reads: Option<u64>,
}

/// Fields that a message names; further ones are counted.
const MOST_NAMED: usize = 3;

impl Identity {
    /// One name for all of it, as checkpoints of format 1 have it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(self.settings.as_bytes());
        for input in &self.inputs {
            hash.update(input.as_bytes());
        }
        hash.update(self.model.as_deref().unwrap_or_default().as_bytes());
        if let Some(version) = self.held_out_reads {
            hash.update(&version.to_le_bytes());
        }
        hash.finalize().to_string()
    }

    /// What of this is another thing in `other`, in words: there in the checkpoint, here in `other`. None if nothing is.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<String> {
        let mut found = changed(&self.settings, &other.settings);
        if self.model != other.model {
            found.push("it began with another model or vocabulary".to_owned());
        }
        if self.held_out_reads != other.held_out_reads {
            found.push("another version of vqdna chose which reads are held out there, by another rule".to_owned());
        }
        if self.inputs.len() != other.inputs.len() {
            found.push(format!("it has {} inputs there and {} here", self.inputs.len(), other.inputs.len()));
        } else if let Some(n) = (0..self.inputs.len()).find(|&n| self.inputs[n] != other.inputs[n]) {
            found.push(format!("input {} has other contents", n + 1));
        }
        if found.len() > MOST_NAMED {
            let more = found.len() - MOST_NAMED;
            found.truncate(MOST_NAMED);
            found.push(format!("and {more} more"));
        }
        (!found.is_empty()).then(|| found.join("; "))
    }
}

/// The fields that differ between two texts of TOML, with both values.
fn changed(there: &str, here: &str) -> Vec<String> {
    if there == here {
        return Vec::new();
    }
    let fields = |text: &str| {
        let mut fields = BTreeMap::new();
        flatten(String::new(), Value::Table(text.parse::<Table>().unwrap_or_default()), &mut fields);
        fields
    };
    let (there, here) = (fields(there), fields(here));
    let value = |fields: &BTreeMap<String, String>, name: &str| fields.get(name).cloned();
    let mut names: Vec<&String> = there.keys().chain(here.keys().filter(|name| !there.contains_key(*name))).collect();
    names.sort();
    let differs = |name: &&&String| there.get(**name) != here.get(**name);
    let shown = |name: &String| {
        let [there, here] = [&there, &here].map(|fields| value(fields, name).unwrap_or_else(|| "unset".to_owned()));
        format!("`{name}` is {there} there and {here} here")
    };
    names.iter().filter(differs).map(|name| shown(name)).collect()
}

fn flatten(path: String, value: Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                flatten(if path.is_empty() { key } else { format!("{path}.{key}") }, value, fields);
            }
        }
        value => {
            fields.insert(path, value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(settings: &str, inputs: &[&str], model: Option<&str>) -> Identity {
        Identity {
            settings: settings.to_owned(),
            inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
            model: model.map(str::to_owned),
            held_out_reads: None,
        }
    }

    #[test]
    fn what_differs_is_named_with_both_values() {
        let one = identity("seed = 1\n[train]\nsteps = 10\nrate = 0.5\n", &["a", "b"], None);
        assert_eq!(one.difference(&one), None);
        for (other, expected) in [
            (
                identity("seed = 1\n[train]\nsteps = 20\nrate = 0.5\n", &["a", "b"], None),
                "`train.steps` is 10 there and 20 here",
            ),
            (
                identity("[train]\nsteps = 10\nrate = 0.5\nnew = \"x\"\n", &["a", "b"], None),
                "`seed` is 1 there and unset here; `train.new` is unset there and \"x\" here",
            ),
            (
                identity("[other]\na = 1\n", &["a", "b"], None),
                "`other.a` is unset there and 1 here; `seed` is 1 there and unset here; `train.rate` is 0.5 there and unset \
                 here; and 1 more",
            ),
            (identity(&one.settings, &["a", "c"], None), "input 2 has other contents"),
            (identity(&one.settings, &["a"], None), "it has 2 inputs there and 1 here"),
            (identity(&one.settings, &["a", "b"], Some("m")), "it began with another model or vocabulary"),
        ] {
            assert_eq!(one.difference(&other).as_deref(), Some(expected));
            assert_ne!(one.fingerprint(), other.fingerprint());
        }
        let other = Identity { held_out_reads: Some(2), ..one.clone() };
        assert!(one.difference(&other).expect("a difference").contains("which reads are held out"));
        assert_ne!(one.fingerprint(), other.fingerprint());
    }
}
