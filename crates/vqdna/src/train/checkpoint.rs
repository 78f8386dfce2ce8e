//! The state of a run on disk: `checkpoint/{model,optimizer}.safetensors`, `best.safetensors` where a run selects, and
//! `state.json`.
//!
//! Written into a folder beside it and swapped in by renames; if the swap is cut short, the former state is found again.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

use super::TrainError;
use super::selection::{Best, Kept};
use crate::weights::{self, Arrays};

/// A checkpoint as read.
pub struct Checkpoint {
    /// Its folder.
    pub path: PathBuf,
    /// Steps it holds.
    pub steps: u64,
    /// Weights and buffers by module path.
    pub model: Arrays,
    /// Moments of the optimiser.
    pub optimizer: Arrays,
    /// The best evaluation so far, in a run that selects one.
    pub kept: Option<Kept>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    format_version: u64,
    fingerprint: String,
    steps: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    best: Option<Best>,
}

/// The newest format of `state.json` that this program writes and reads.
pub(super) const FORMAT_VERSION: u64 = 1;

impl Checkpoint {
    /// The checkpoint of a run folder, or none if there is none yet.
    ///
    /// # Errors
    /// If it cannot be read, or belongs to a run with another fingerprint.
    pub fn open(folder: &Path, fingerprint: &str) -> Result<Option<Self>, TrainError> {
        let Some((path, state)) = Self::find(folder, fingerprint)? else { return Ok(None) };
        let arrays = |name: &str| {
            let read = weights::read(&path.join(name));
            read.map(|(arrays, _)| arrays).map_err(|source| TrainError::Checkpoint { path: path.clone(), source })
        };
        let (model, optimizer) = (arrays("model.safetensors")?, arrays("optimizer.safetensors")?);
        let kept = match state.best {
            Some(best) => Some(Kept { best, weights: arrays("best.safetensors")? }),
            None => None,
        };
        Ok(Some(Self { path, steps: state.steps, model, optimizer, kept }))
    }

    /// Refuses the checkpoint of another run before any work is done for it.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], which reads the weights besides.
    pub fn check(folder: &Path, fingerprint: &str) -> Result<(), TrainError> {
        Self::find(folder, fingerprint).map(drop)
    }

    /// The folder and state of the checkpoint, if there is one.
    fn find(folder: &Path, fingerprint: &str) -> Result<Option<(PathBuf, State)>, TrainError> {
        let [current, _, former] = places(folder);
        let Some(path) = [current, former].into_iter().find(|path| path.join("state.json").is_file()) else {
            return Ok(None);
        };
        let file = path.join("state.json");
        let text = std::fs::read_to_string(&file).map_err(|source| TrainError::Io { path: file.clone(), source })?;
        let other = |what: String| TrainError::OtherRun { path: path.clone(), what };
        let damaged = |e: &dyn std::fmt::Display| TrainError::Io {
            path: file.clone(),
            source: std::io::Error::other(format!("not the state of a checkpoint: {e}")),
        };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| damaged(&e))?;
        // Before anything else, because the fields of a newer format are unknown here.
        match value.get("format_version").and_then(serde_json::Value::as_u64) {
            Some(found) if found > FORMAT_VERSION => return Err(TrainError::NewerCheckpoint { path: file, found }),
            _ => {}
        }
        let state: State = serde_json::from_value(value).map_err(|e| damaged(&e))?;
        if state.fingerprint != fingerprint {
            return Err(other("its config or its input differs".to_owned()));
        }
        Ok(Some((path, state)))
    }

    /// Replaces the checkpoint of a run folder.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(
        folder: &Path,
        fingerprint: &str,
        steps: u64,
        model: &Arrays,
        optimizer: &Arrays,
        kept: Option<&Kept>,
    ) -> Result<(), TrainError> {
        let [current, next, former] = places(folder);
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Io { path, source }
        };
        remove(&next).map_err(io(&next))?;
        std::fs::create_dir_all(&next).map_err(io(&next))?;
        let best = kept.map(|kept| ("best.safetensors", &kept.weights));
        for (name, arrays) in
            [("model.safetensors", model), ("optimizer.safetensors", optimizer)].into_iter().chain(best)
        {
            weights::write(&next.join(name), arrays, &[])
                .map_err(|source| TrainError::Checkpoint { path: next.clone(), source })?;
        }
        let state = State {
            format_version: FORMAT_VERSION,
            fingerprint: fingerprint.to_owned(),
            steps,
            best: kept.map(|kept| kept.best),
        };
        let text = serde_json::to_vec_pretty(&state).expect("plain fields");
        vqdna_data::aside::write_aside(&next.join("state.json"), &text).map_err(io(&next))?;
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

    #[test]
    fn the_last_whole_state_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let arrays = |value| Arrays::from([("a".to_owned(), Array { shape: vec![1], values: vec![value] })]);
        let write = |steps, value| {
            Checkpoint::write(folder.path(), "f", steps, &arrays(value), &arrays(0.0), None).expect("written");
        };
        assert!(Checkpoint::open(folder.path(), "f").expect("readable").is_none());
        write(1, 1.0);
        write(2, 2.0);
        let open = || Checkpoint::open(folder.path(), "f").expect("readable").expect("there");
        assert_eq!((open().steps, open().model), (2, arrays(2.0)));

        // Cut short between the two renames.
        std::fs::rename(folder.path().join("checkpoint"), folder.path().join("checkpoint.former")).expect("renamed");
        assert_eq!(open().steps, 2);
        write(3, 3.0);
        assert_eq!(open().steps, 3);
        assert!(matches!(Checkpoint::open(folder.path(), "other"), Err(TrainError::OtherRun { .. })));
    }
}
