//! The state of a run on disk: `checkpoint/{model,optimizer}.safetensors`, `best.safetensors` where a run selects, and
//! `state.json`, which holds the digests of the others and its own.
//!
//! Written into a folder beside it and swapped in by renames; if the swap is cut short, the former state is found again.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vqdna_data::bounded;

use super::TrainError;
use super::identity::Identity;
use super::selection::{Best, Kept};
use crate::weights::{self, Arrays};

/// A checkpoint as read.
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Steps it holds.
    pub steps: u64,
    /// Whether the evaluation after its last step is still to be done.
    pub evaluation_due: bool,
    /// Weights and buffers by module path.
    pub model: Arrays,
    /// Moments of the optimiser.
    pub optimizer: Arrays,
    /// The best evaluation so far, in a run that selects one.
    pub kept: Option<Kept>,
    /// What is wrong with the newest one, if this is the one before it.
    pub instead_of: Option<String>,
}

/// What [`Checkpoint::write`] writes.
pub(super) struct Contents<'a> {
    pub steps: u64,
    pub evaluation_due: bool,
    pub model: &'a Arrays,
    pub optimizer: &'a Arrays,
    pub kept: Option<&'a Kept>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format_version: u64,
    /// Names the run, in format 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fingerprint: Option<String>,
    /// What the run depends on, from format 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    run: Option<Identity>,
    steps: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    evaluation_due: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best: Option<Best>,
    /// BLAKE3 of the other files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    files: BTreeMap<String, String>,
    /// BLAKE3 of all of the above.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    digest: String,
}

/// The newest format of `state.json` that this program writes and reads. Format 1 has no digests.
pub(super) const FORMAT_VERSION: u64 = 2;
/// Bytes of `state.json` beyond which it is none of ours.
const MOST_STATE: u64 = 16 << 20;

const STATE: &str = "state.json";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const BEST: &str = "best.safetensors";

impl State {
    /// BLAKE3 of everything but the digest.
    fn own_digest(&self) -> String {
        let mut value = serde_json::to_value(self).expect("plain fields");
        if let Some(fields) = value.as_object_mut() {
            fields.remove("digest");
        }
        blake3::hash(value.to_string().as_bytes()).to_string()
    }

    /// Reads the state of a checkpoint; `file` is its `state.json`.
    fn read(file: &Path) -> Result<Self, TrainError> {
        let damaged = |reason: String| TrainError::Damaged { path: file.to_owned(), reason };
        let text = bounded::read(file, MOST_STATE).map_err(|e| damaged(e.to_string()))?;
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
        // Before anything else, because the fields of a newer format are unknown here.
        match value.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(found) if found > FORMAT_VERSION => {
                return Err(TrainError::NewerCheckpoint { path: file.to_owned(), found });
            }
            Some(1..) => {}
            _ => return Err(damaged("`format_version` is missing, or no version".to_owned())),
        }
        let state: Self = serde_json::from_value(value).map_err(|e| damaged(e.to_string()))?;
        if state.format_version > 1 && state.digest != state.own_digest() {
            return Err(damaged("it was changed after it was written".to_owned()));
        }
        Ok(state)
    }

    /// Refuses the state of another run.
    fn check_run(&self, run: &Identity, path: &Path) -> Result<(), TrainError> {
        let differs = match (&self.run, &self.fingerprint) {
            (Some(known), _) => known.difference(run),
            (None, known) => (known.as_ref() != Some(&run.fingerprint()))
                .then(|| "its config, its input or its vocabulary differs".to_owned()),
        };
        differs.map_or(Ok(()), |what| Err(TrainError::OtherRun { path: path.to_owned(), what }))
    }
}

impl Checkpoint {
    /// The checkpoint of a run folder, or none if there is none yet. Where the newest one is damaged and the one before it is still there,
    /// that one.
    ///
    /// # Errors
    /// If it cannot be read, is damaged, or belongs to another run.
    pub fn open(folder: &Path, run: &Identity) -> Result<Option<Self>, TrainError> {
        Self::first(folder, |path| Self::read(path, run))?.map_or(Ok(None), |(mut found, instead_of)| {
            found.instead_of = instead_of;
            Ok(Some(found))
        })
    }

    /// Refuses the checkpoint of another run before any work is done for it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], which reads the weights besides.
    pub fn check(folder: &Path, run: &Identity) -> Result<(), TrainError> {
        Self::first(folder, |path| State::read(&path.join(STATE))?.check_run(run, path)).map(drop)
    }

    /// Steps that the checkpoint of a run folder holds, whatever run it is of; 0 without one.
    #[must_use]
    pub fn steps(folder: &Path) -> u64 {
        let found = Self::first(folder, |path| State::read(&path.join(STATE)));
        found.ok().flatten().map_or(0, |(state, _)| state.steps)
    }

    /// What `read` makes of the newest checkpoint, or of the one before it if that one is damaged and this is not.
    fn first<T>(
        folder: &Path,
        read: impl Fn(&Path) -> Result<T, TrainError>,
    ) -> Result<Option<(T, Option<String>)>, TrainError> {
        let [current, _, former] = places(folder);
        let mut found = [current, former].into_iter().filter(|path| path.exists());
        let Some(newest) = found.next() else { return Ok(None) };
        match (read(&newest), found.next()) {
            (Ok(made), _) => Ok(Some((made, None))),
            (Err(error @ (TrainError::OtherRun { .. } | TrainError::NewerCheckpoint { .. })), _)
            | (Err(error), None) => Err(error),
            (Err(error), Some(before)) => match read(&before) {
                Ok(made) => Ok(Some((made, Some(error.to_string())))),
                Err(_) => Err(error),
            },
        }
    }

    fn read(path: &Path, run: &Identity) -> Result<Self, TrainError> {
        let state = State::read(&path.join(STATE))?;
        state.check_run(run, path)?;
        let arrays = |name: &str| -> Result<Arrays, TrainError> {
            let file = path.join(name);
            if state.format_version > 1 {
                let damaged = |e: std::io::Error| TrainError::Damaged { path: file.clone(), reason: e.to_string() };
                let found = weights::digest(&file).map_err(damaged)?;
                if state.files.get(name) != Some(&found) {
                    let reason = "it is not the file that was written".to_owned();
                    return Err(TrainError::Damaged { path: file, reason });
                }
            }
            let read = weights::read(&file);
            read.map(|(arrays, _)| arrays)
                .map_err(|source| TrainError::Damaged { path: file.clone(), reason: source.to_string() })
        };
        let kept = match state.best {
            Some(best) => Some(Kept { best, weights: arrays(BEST)? }),
            None => None,
        };
        Ok(Self {
            path: path.to_owned(),
            steps: state.steps,
            evaluation_due: state.evaluation_due,
            model: arrays(MODEL)?,
            optimizer: arrays(OPTIMIZER)?,
            kept,
            instead_of: None,
        })
    }

    /// Replaces the checkpoint of a run folder.
    ///
    /// # Errors
    /// If a file cannot be written, or a number is not finite.
    pub(super) fn write(folder: &Path, run: &Identity, contents: &Contents) -> Result<(), TrainError> {
        let [current, next, former] = places(folder);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Io { path, source }
        };
        remove(&next).map_err(io(&next))?;
        std::fs::create_dir_all(&next).map_err(io(&next))?;
        let best = contents.kept.map(|kept| (BEST, &kept.weights));
        let mut files = BTreeMap::new();
        for (name, arrays) in [(MODEL, contents.model), (OPTIMIZER, contents.optimizer)].into_iter().chain(best) {
            let digest = weights::write_with_digest(&next.join(name), arrays, &[])
                .map_err(|source| TrainError::Checkpoint { path: next.clone(), source })?;
            files.insert(name.to_owned(), digest);
        }
        let mut state = State {
            format_version: FORMAT_VERSION,
            fingerprint: None,
            run: Some(run.clone()),
            steps: contents.steps,
            evaluation_due: contents.evaluation_due,
            best: contents.kept.map(|kept| kept.best),
            files,
            digest: String::new(),
        };
        state.digest = state.own_digest();
        let text = serde_json::to_vec_pretty(&state).expect("plain fields");
        vqdna_data::aside::write_aside(&next.join(STATE), &text).map_err(io(&next))?;
        if current.exists() {
            remove(&former).map_err(io(&former))?;
            std::fs::rename(&current, &former).map_err(io(&former))?;
        }
        std::fs::rename(&next, &current).map_err(io(&current))?;
        remove(&former).map_err(io(&former))
    }
}

/// The checkpoint, the one being written, and the one before it while the two are swapped.
fn places(folder: &Path) -> [PathBuf; 3] {
    ["checkpoint", "checkpoint.next", "checkpoint.former"].map(|name| folder.join(name))
}

fn remove(folder: &Path) -> std::io::Result<()> {
    if folder.exists() { std::fs::remove_dir_all(folder) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::Array;

    fn run(settings: &str) -> Identity {
        Identity { settings: settings.to_owned(), ..Identity::default() }
    }

    fn arrays(value: f32) -> Arrays {
        Arrays::from([("a".to_owned(), Array { shape: vec![1], values: vec![value] })])
    }

    fn write(folder: &Path, steps: u64, value: f32) {
        let kept = Kept { best: Best { step: 1, value: 0.25, waited: 0 }, weights: arrays(9.0) };
        let (model, optimizer) = (arrays(value), arrays(0.0));
        let contents =
            Contents { steps, evaluation_due: false, model: &model, optimizer: &optimizer, kept: Some(&kept) };
        Checkpoint::write(folder, &run("seed = 1"), &contents).expect("written");
    }

    #[test]
    fn the_last_whole_state_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Checkpoint::open(folder.path(), &run("seed = 1")).expect("readable").expect("there");
        assert!(Checkpoint::open(folder.path(), &run("seed = 1")).expect("readable").is_none());
        write(folder.path(), 1, 1.0);
        write(folder.path(), 2, 2.0);
        assert_eq!((open().steps, open().model), (2, arrays(2.0)));
        assert_eq!(open().kept.map(|kept| kept.best.value), Some(0.25));

        // Cut short between the two renames.
        std::fs::rename(folder.path().join("checkpoint"), folder.path().join("checkpoint.former")).expect("renamed");
        assert_eq!(open().steps, 2);
        write(folder.path(), 3, 3.0);
        assert_eq!(open().steps, 3);
        match Checkpoint::open(folder.path(), &run("seed = 2")) {
            Err(TrainError::OtherRun { what, .. }) => assert_eq!(what, "`seed` is 1 there and 2 here"),
            _ => panic!("another run"),
        }
    }

    /// Each byte of each file counts: whatever is cut, or changed by one bit, is one error that names the file.
    #[test]
    fn a_checkpoint_that_was_changed_is_an_error_or_the_former_one_is_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), 2, 2.0);
        let current = folder.path().join("checkpoint");
        let open = || Checkpoint::open(folder.path(), &run("seed = 1"));
        for name in [STATE, MODEL, OPTIMIZER, BEST] {
            let file = current.join(name);
            let whole = std::fs::read(&file).expect("readable");
            let cuts = (0..whole.len()).map(|end| whole[..end].to_vec());
            let flips = (0..whole.len()).map(|at| {
                let mut bytes = whole.clone();
                bytes[at] ^= 1;
                bytes
            });
            for bytes in cuts.chain(flips) {
                // White space is nothing that a reader sees.
                if serde_json::from_slice::<serde_json::Value>(&bytes)
                    .ok()
                    .is_some_and(|value| name == STATE && Some(value) == serde_json::from_slice(&whole).ok())
                {
                    continue;
                }
                std::fs::write(&file, &bytes).expect("written");
                let error = open().err().unwrap_or_else(|| panic!("{name}: {}", String::from_utf8_lossy(&bytes)));
                assert!(error.to_string().contains(name) || matches!(error, TrainError::OtherRun { .. }), "{error}");
            }
            std::fs::write(&file, &whole).expect("written");
        }
        assert_eq!(open().expect("whole again").expect("there").steps, 2);

        let copy = folder.path().join("checkpoint.former");
        std::fs::create_dir(&copy).expect("made");
        for name in [STATE, MODEL, OPTIMIZER, BEST] {
            std::fs::copy(current.join(name), copy.join(name)).expect("copied");
        }
        std::fs::write(current.join(MODEL), "half").expect("written");
        let found = open().expect("the former").expect("there");
        assert_eq!((found.steps, found.path), (2, copy.clone()));
        assert!(found.instead_of.is_some_and(|what| what.contains("checkpoint/model.safetensors")));
        std::fs::write(copy.join(BEST), "half").expect("written");
        assert!(open().is_err_and(|error| error.to_string().contains("checkpoint/model.safetensors")));
    }

    /// As the first format had it, without digests.
    #[test]
    fn an_older_checkpoint_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        write(folder.path(), 2, 2.0);
        let file = folder.path().join("checkpoint").join(STATE);
        let name = run("seed = 1").fingerprint();
        std::fs::write(&file, format!(r#"{{"format_version":1,"fingerprint":"{name}","steps":2}}"#)).expect("written");
        let open = |settings| Checkpoint::open(folder.path(), &run(settings));
        assert_eq!(open("seed = 1").expect("readable").expect("there").steps, 2);
        assert!(matches!(open("seed = 2"), Err(TrainError::OtherRun { .. })));
    }
}
