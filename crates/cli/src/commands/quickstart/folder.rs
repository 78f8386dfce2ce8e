//! The folder of a quickstart, and what it has made in it so far.
//!
//! `quickstart.json` marks the folder and names the stages that were begun, with the digest of the model where one is done. Nothing that
//! it does not name is touched.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use vqdna::model_dir::digest;
use vqdna::objective::Measures;
use vqdna_data::aside::write_aside;

const MARKER: &str = "quickstart.json";
const STAGES: [&str; 3] = ["learn", "pretrain", "finetune"];
/// What a run leaves in its folder.
const OF_A_RUN: [&str; 12] = [
    ".lock",
    "README.md",
    "checkpoint",
    "checkpoint.former",
    "checkpoint.next",
    "codes",
    "config.json",
    "config.toml",
    "metrics.jsonl",
    "model.safetensors",
    "run.json",
    "tensorboard",
];

/// The folder.
pub struct Folder {
    path: PathBuf,
    settings: Value,
    /// Stages that were begun: the digest of the model, or null while it is not done.
    stages: Map<String, Value>,
}

/// How far a stage is.
pub enum State {
    /// Its model is there.
    Done(Done),
    /// It is to be run, from a checkpoint if there is one.
    Begun { has_checkpoint: bool },
}

/// What came of a stage.
pub struct Done {
    /// What the measures were taken on.
    pub evaluated_on: String,
    /// Final measures.
    pub measures: Measures,
    /// Duration of its last part in seconds.
    pub wall_s: f64,
}

impl Folder {
    /// A new or empty folder, or one of a quickstart: an unfinished one of the same settings goes on, any other begins anew, and what it
    /// had made makes way.
    ///
    /// # Errors
    /// If it holds anything that no quickstart made.
    pub fn open(path: &Path, settings: &[String]) -> Result<Self> {
        let mut folder = Self { path: path.to_owned(), settings: json!(settings), stages: Map::new() };
        match fs::read(path.join(MARKER)) {
            Ok(text) => folder.go_on(&text)?,
            Err(_) => ensure!(
                fs::read_dir(path).map_or(!path.exists(), |mut files| files.next().is_none()),
                "{} holds other files, and no {MARKER} that marks the folder of a quickstart; choose another with --output",
                path.display()
            ),
        }
        fs::create_dir_all(path).with_context(|| format!("cannot write to {}", path.display()))?;
        folder.write()?;
        Ok(folder)
    }

    /// Takes over what the marker names, or removes it.
    fn go_on(&mut self, marker: &[u8]) -> Result<()> {
        let place = self.path.join(MARKER);
        let unreadable =
            || format!("{} is not the marker of a quickstart; choose another folder with --output", place.display());
        let marker: Value = serde_json::from_slice(marker).with_context(unreadable)?;
        self.stages.clone_from(marker["stages"].as_object().with_context(unreadable)?);
        let is_done = STAGES.iter().all(|stage| self.stages.get(*stage).is_some_and(Value::is_string));
        for stage in STAGES {
            self.check(stage)?;
        }
        if !is_done && marker["settings"] == self.settings {
            message!("going on with the quickstart in {}", self.path.display());
            return Ok(());
        }
        for stage in STAGES {
            let folder = self.stage(stage);
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot write to {}", folder.display()))?;
            }
        }
        self.stages.clear();
        Ok(())
    }

    /// Refuses the folder of a stage that holds anything that quickstart did not make.
    fn check(&self, stage: &str) -> Result<()> {
        let folder = self.stage(stage);
        if !folder.exists() {
            return Ok(());
        }
        let place = folder.display();
        let Some(model) = self.stages.get(stage) else {
            anyhow::bail!("{place} was not made by quickstart; choose another folder with --output")
        };
        let made = model.as_str();
        ensure!(
            made.is_none_or(|made| digest(&folder).is_ok_and(|found| found == made)),
            "{place} no longer holds the model that quickstart made; choose another folder with --output"
        );
        for file in fs::read_dir(&folder).with_context(|| format!("cannot read {place}"))? {
            let name = file?.file_name();
            ensure!(
                name.to_str().is_some_and(is_of_a_run),
                "{} was not made by quickstart; move it, or choose another folder with --output",
                folder.join(name).display()
            );
        }
        Ok(())
    }

    /// The folder of a stage.
    pub fn stage(&self, stage: &str) -> PathBuf {
        self.path.join(stage)
    }

    /// Notes that a stage begins, unless it did so before; says how far it is.
    pub fn begin(&mut self, stage: &str) -> Result<State> {
        let folder = self.stage(stage);
        // A model without a checkpoint is a finished one, even if the program ended before it could be noted.
        let has_checkpoint = ["checkpoint", "checkpoint.former"].iter().any(|name| folder.join(name).exists());
        if self.stages.contains_key(stage)
            && folder.join("model.safetensors").exists()
            && folder.join("run.json").exists()
        {
            return self.finish(stage).map(State::Done);
        }
        self.check(stage)?;
        self.stages.entry(stage).or_insert(Value::Null);
        self.write()?;
        Ok(State::Begun { has_checkpoint })
    }

    /// Notes that a stage is done.
    pub fn finish(&mut self, stage: &str) -> Result<Done> {
        let folder = self.stage(stage);
        self.stages.insert(stage.to_owned(), digest(&folder)?.into());
        self.write()?;
        let manifest = folder.join("run.json");
        let place = || format!("cannot read {}", manifest.display());
        let found: Value = serde_json::from_slice(&fs::read(&manifest).with_context(place)?).with_context(place)?;
        let measures = found["measures"].as_object().into_iter().flatten();
        Ok(Done {
            evaluated_on: found["evaluated_on"].as_str().unwrap_or("nothing").to_owned(),
            measures: measures.filter_map(|(name, value)| Some((name.clone(), value.as_f64()?))).collect(),
            wall_s: found["wall_s"].as_f64().unwrap_or_default(),
        })
    }

    fn write(&self) -> Result<()> {
        let text = json!({ "settings": self.settings, "stages": self.stages });
        let text = serde_json::to_string_pretty(&text)? + "\n";
        let path = self.path.join(MARKER);
        write_aside(&path, text.as_bytes()).with_context(|| format!("cannot write to {}", path.display()))
    }
}

/// Whether a run leaves a file or folder of this name, whole or unfinished.
fn is_of_a_run(name: &str) -> bool {
    let is_unfinished = |name: &str| {
        let part = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
        part.is_some_and(|part| {
            OF_A_RUN.iter().any(|known| part.strip_prefix(known).is_some_and(|rest| rest.starts_with('.')))
        })
    };
    OF_A_RUN.contains(&name) || is_unfinished(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Vec<String> {
        vec!["a".to_owned()]
    }

    /// A quickstart that has begun its first stage and left these files in it.
    fn begun(root: &Path, files: &[&str]) -> Folder {
        let mut folder = Folder::open(root, &settings()).unwrap();
        assert!(matches!(folder.begin("learn").unwrap(), State::Begun { has_checkpoint: false }));
        fs::create_dir(folder.stage("learn")).unwrap();
        for file in files {
            fs::write(folder.stage("learn").join(file), "x").unwrap();
        }
        folder
    }

    #[test]
    fn what_others_made_is_refused_and_stays() {
        let root = tempfile::tempdir().unwrap();
        let precious = root.path().join("learn");
        fs::create_dir(&precious).unwrap();
        fs::write(precious.join("config.toml"), "mine").unwrap();
        let error = Folder::open(root.path(), &settings()).err().unwrap().to_string();
        assert!(error.contains("quickstart.json") && error.contains("--output"), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "nothing is added");
        assert_eq!(fs::read(precious.join("config.toml")).unwrap(), b"mine");
    }

    #[test]
    fn a_stage_that_others_made_is_refused_in_a_marked_folder_too() {
        let root = tempfile::tempdir().unwrap();
        begun(root.path(), &["config.toml"]);
        let other = root.path().join("pretrain");
        fs::create_dir(&other).unwrap();
        let error = Folder::open(root.path(), &settings()).err().unwrap().to_string();
        assert!(error.contains("pretrain was not made by quickstart"), "{error}");
        assert!(other.exists() && root.path().join("learn/config.toml").exists());
    }

    #[test]
    fn an_unfinished_one_goes_on_and_one_of_other_settings_makes_way() {
        let root = tempfile::tempdir().unwrap();
        begun(root.path(), &["config.toml", "metrics.jsonl", ".run.json.abc.part"]);
        fs::create_dir(root.path().join("learn/checkpoint")).unwrap();
        let mut folder = Folder::open(root.path(), &settings()).unwrap();
        assert!(matches!(folder.begin("learn").unwrap(), State::Begun { has_checkpoint: true }));

        Folder::open(root.path(), &["b".to_owned()]).unwrap();
        assert!(!root.path().join("learn").exists());
    }

    #[test]
    fn a_file_that_was_added_keeps_the_folder() {
        let root = tempfile::tempdir().unwrap();
        begun(root.path(), &["config.toml", "genes.bed"]);
        let error = Folder::open(root.path(), &["b".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("genes.bed"), "{error}");
        assert!(root.path().join("learn/config.toml").exists());
    }

    #[test]
    fn a_model_in_place_of_the_one_that_was_made_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let mut folder = begun(root.path(), &["config.toml", "model.safetensors"]);
        fs::write(root.path().join("learn/run.json"), r#"{"measures":{"reconstruction":0.5},"wall_s":2}"#).unwrap();
        let State::Done(done) = folder.begin("learn").unwrap() else { panic!("it is done") };
        assert_eq!((done.measures, done.wall_s), (vec![("reconstruction".to_owned(), 0.5)], 2.0));
        Folder::open(root.path(), &settings()).unwrap();

        fs::write(root.path().join("learn/model.safetensors"), "another").unwrap();
        let error = Folder::open(root.path(), &["b".to_owned()]).err().unwrap().to_string();
        assert!(error.contains("no longer holds the model"), "{error}");
        assert!(root.path().join("learn/model.safetensors").exists());
    }
}
