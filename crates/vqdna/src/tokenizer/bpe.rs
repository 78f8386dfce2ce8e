//! Byte-pair encoding by a `tokenizer.json`: of DNABERT-2, or as `vqdna learn --tokenizer bpe` makes it.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use vqdna_data::vocab::Bpe;
use vqdna_data::vocab::bpe::BpeError;

/// Name of the file in a folder.
pub const FILE: &str = "tokenizer.json";

/// Where a byte-pair encoding is, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BpeFile {
    /// A `tokenizer.json`; in the config of a model folder, that of the folder.
    pub file: PathBuf,
    /// BLAKE3 of what is in it, as [`Bpe::hugging_face`] writes it.
    pub digest: String,
}

/// A byte-pair encoding that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BpeFileError {
    /// See [`BpeError`].
    #[error(transparent)]
    Bpe(#[from] BpeError),
    /// The file was changed.
    #[error("{}: does not hold the vocabulary that `tokenizer.digest` names", file.display())]
    Other {
        /// The file.
        file: PathBuf,
    },
}

impl BpeFile {
    /// The encoding of a file.
    ///
    /// # Errors
    /// See [`BpeError`].
    pub fn of(file: &Path) -> Result<Self, BpeError> {
        let digest = digest(&Bpe::read(file)?);
        Ok(Self { file: file.to_owned(), digest })
    }

    /// Reads it.
    ///
    /// # Errors
    /// See [`BpeFileError`].
    pub fn read(&self) -> Result<Bpe, BpeFileError> {
        let bpe = Bpe::read(&self.file)?;
        if digest(&bpe) == self.digest { Ok(bpe) } else { Err(BpeFileError::Other { file: self.file.clone() }) }
    }

    /// The same in a folder, or with none as a config names it there.
    pub(super) fn within(&self, folder: Option<&Path>) -> Self {
        Self { file: folder.map_or_else(|| FILE.into(), |folder| folder.join(FILE)), digest: self.digest.clone() }
    }
}

fn digest(bpe: &Bpe) -> String {
    blake3::hash(bpe.hugging_face().to_string().as_bytes()).to_string()
}
