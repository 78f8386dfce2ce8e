//! Where the parts of a data set lie.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{Format, LabelledError, PartFault};
use crate::{
    input::{InputError, is_stdin, label},
    split::Split,
};

/// The files of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parts {
    /// One file, or `-` for standard input, to be cut in three.
    One(PathBuf),
    /// A file for each part.
    Files {
        /// The training set.
        train: PathBuf,
        /// What is watched while learning; held out of the training set if absent.
        dev: Option<PathBuf>,
        /// What is kept away until the end.
        test: Option<PathBuf>,
    },
}

impl Parts {
    /// Finds the parts at a path: the file itself, or those of the folder, named `train`, `dev` (or `valid`, `validation`, `val`) and
    /// `test` with the ending of a [format](Format::of). Other files of the folder are passed over.
    ///
    /// # Errors
    /// If there is no such path, it is a folder without a training set, or with two files for one part.
    pub fn find(path: &Path) -> Result<Self, LabelledError> {
        if is_stdin(path) || !path.is_dir() {
            return Ok(Self::One(path.into()));
        }
        match scan(path)? {
            [Some(train), dev, test] => Ok(Self::Files { train, dev, test }),
            [None, ..] => Err(LabelledError::Parts { folder: label(path), fault: PartFault::NoTrain }),
        }
    }

    /// The file named `test` in a folder, if there is one; no other part need be there.
    ///
    /// # Errors
    /// If the folder cannot be read, or has two files for one part.
    pub fn test(folder: &Path) -> Result<Option<PathBuf>, LabelledError> {
        scan(folder).map(|[_, _, test]| test)
    }
}

/// The files of a folder that are named for the training set, what is watched, and the test set.
fn scan(path: &Path) -> Result<[Option<PathBuf>; 3], LabelledError> {
    let folder = label(path);
    let unreadable = |source| InputError::Read { file: folder.clone(), source };
    let [mut train, mut dev, mut test]: [Option<PathBuf>; 3] = [None, None, None];
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?.path();
        let place = match part_of(&entry) {
            None => continue,
            Some(Split::Train) => &mut train,
            Some(Split::Valid) => &mut dev,
            Some(Split::Test) => &mut test,
        };
        if let Some(other) = place.replace(entry.clone()) {
            // In the order of the alphabet, whatever the folder's.
            let (first, second) = if other < entry { (other, entry) } else { (entry, other) };
            let fault = PartFault::Two { first: name_of(&first), second: name_of(&second) };
            return Err(LabelledError::Parts { folder, fault });
        }
    }
    Ok([train, dev, test])
}

/// The part that a file is named for.
fn part_of(path: &Path) -> Option<Split> {
    Format::of(path).filter(|_| path.is_file())?;
    match name_of(path).split('.').next()? {
        "train" => Some(Split::Train),
        "dev" | "valid" | "validation" | "val" => Some(Split::Valid),
        "test" => Some(Split::Test),
        _ => None,
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the parts of a folder with such files, or the message.
    fn find(files: &[&str]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        let short = |error: LabelledError| error.to_string().replace(&*folder.path().to_string_lossy(), "x");
        let Parts::Files { train, dev, test } = Parts::find(folder.path()).map_err(short)? else { panic!("a folder") };
        let name = |path: Option<PathBuf>| path.map_or("none".to_owned(), |path| name_of(&path));
        Ok(format!("{} {} {}", name(Some(train)), name(dev), name(test)))
    }

    #[test]
    fn parts_are_told_by_their_names() {
        assert_eq!(find(&["train.csv", "dev.csv", "test.csv"]).unwrap(), "train.csv dev.csv test.csv");
        for dev in ["valid.tsv", "validation.jsonl.zst", "val.parquet"] {
            let files = ["train.csv.gz", dev, "README.md", "train.txt", "training.csv", "dev.csv.md5"];
            assert_eq!(find(&files).unwrap(), format!("train.csv.gz {dev} none"));
        }
    }

    #[test]
    fn a_folder_has_one_training_set() {
        assert!(find(&["test.csv", "train"]).unwrap_err().starts_with("x: holds no training set; expected train.csv"));
        assert_eq!(
            find(&["train.csv", "val.csv", "dev.csv"]).unwrap_err(),
            "x: both dev.csv and val.csv claim to be one part"
        );
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Parts::test(folder.path()).unwrap(), None);
        let test = folder.path().join("test.csv");
        fs::write(&test, "").unwrap();
        assert_eq!(Parts::test(folder.path()).unwrap(), Some(test));
        assert_eq!(Parts::find(Path::new("-")).unwrap(), Parts::One("-".into()));
    }
}
