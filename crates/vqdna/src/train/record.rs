//! The log of a run: `metrics.jsonl`, one object a line, and the same curves as TensorBoard events.

use serde_json::{Map, Value};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::TrainError;
use super::tensorboard::EventWriter;
use crate::objective::Measures;

/// Bytes of a log beyond which it is none of ours.
const MOST_LOG: u64 = 4 << 30;

/// Writes the log of one run folder.
pub struct Recorder {
    path: PathBuf,
    metrics: File,
    events: EventWriter,
}

impl Recorder {
    /// Opens the log at a step; entries after it, from a run that went on past its last checkpoint, are dropped.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn open(folder: &Path, done: u64) -> Result<Self, TrainError> {
        let path = folder.join("metrics.jsonl");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| TrainError::Io { path, source }
        };
        let kept = if done > 0 && path.exists() {
            let text = vqdna_data::bounded::read_text(&path, MOST_LOG).map_err(io(&path))?;
            text.split_inclusive('\n').filter(|line| step_of(line).is_some_and(|step| step <= done)).collect()
        } else {
            String::new()
        };
        vqdna_data::aside::write_aside(&path, kept.as_bytes()).map_err(io(&path))?;
        let metrics = OpenOptions::new().append(true).open(&path).map_err(io(&path))?;
        let events = folder.join("tensorboard");
        if done == 0 {
            remove_events(&events).map_err(io(&events))?;
        }
        let events = EventWriter::create(&events, now()).map_err(io(&events))?;
        Ok(Self { path, metrics, events })
    }

    /// Appends one entry. A measure that is not finite, such as a correlation with equal numbers, is left out of `metrics.jsonl`: JSON has
    /// no word for it.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&mut self, step: u64, split: &str, measures: &Measures) -> Result<(), TrainError> {
        let mut entry = Map::new();
        entry.insert("step".to_owned(), step.into());
        entry.insert("split".to_owned(), split.into());
        let finite = measures.iter().filter(|(_, value)| value.is_finite());
        entry.extend(finite.map(|(name, value)| (name.clone(), Value::from(*value))));
        let io = |source| TrainError::Io { path: self.path.clone(), source };
        writeln!(self.metrics, "{}", Value::Object(entry)).map_err(io)?;
        for (name, value) in measures {
            self.events.scalar(step, &format!("{split}/{name}"), *value as f32, now()).map_err(io)?;
        }
        self.events.flush().map_err(io)
    }
}

/// Removes the curves of an earlier attempt, and nothing else that may lie there.
fn remove_events(folder: &Path) -> std::io::Result<()> {
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("events.out.tfevents.") && name.contains(".vqdna") {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn step_of(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?.get("step")?.as_u64()
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_log_has_each_step_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let measures = vec![("loss".to_owned(), 0.5)];
        let mut log = Recorder::open(folder.path(), 0).expect("opened");
        (1..=4).for_each(|step| log.write(step, "train", &measures).expect("written"));
        let mut log = Recorder::open(folder.path(), 2).expect("opened");
        log.write(3, "train", &measures).expect("written");
        let text = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("readable");
        assert_eq!(text.lines().filter_map(step_of).collect::<Vec<_>>(), [1, 2, 3]);
        let odd = vec![("loss".to_owned(), 0.5), ("spearman".to_owned(), f64::NAN)];
        log.write(4, "valid", &odd).expect("written");
        let last = std::fs::read_to_string(folder.path().join("metrics.jsonl")).expect("readable");
        assert!(last.ends_with("{\"step\":4,\"split\":\"valid\",\"loss\":0.5}\n"), "{last}");
        assert!(text.starts_with(r#"{"step":1,"split":"train","loss":0.5}"#), "{text}");
    }
}
