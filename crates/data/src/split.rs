//! Which window is for training, validation or test: by contig or by hash, never by luck.

use serde::{Deserialize, Serialize};

use crate::{
    nearest::{did_you_mean, nearest},
    random,
    words::words,
};

/// What a window is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// Learned from.
    Train,
    /// Watched while learning.
    Valid,
    /// Kept away until the end.
    Test,
}

words!(Split, "a split", { Train => "train", Valid => "valid", Test => "test" });

/// The rule that assigns windows to splits; what it does not hold out is for training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum SplitPolicy {
    /// Whole contigs are held out.
    Contig {
        /// Names of the contigs for validation.
        #[serde(default)]
        valid: Vec<String>,
        /// Names of the contigs for test.
        #[serde(default)]
        test: Vec<String>,
    },
    /// Each window by a hash of the seed, its contig and its start. Neighbours may fall into different splits, so windows that
    /// overlap share bases across splits.
    Hash {
        /// Share of the windows for validation, from 0 to below 1.
        #[serde(default)]
        valid: f64,
        /// Share of the windows for test, from 0 to below 1.
        #[serde(default)]
        test: f64,
    },
}

impl Default for SplitPolicy {
    /// One window in twenty for validation, none for test.
    fn default() -> Self {
        Self::Hash { valid: 0.05, test: 0.0 }
    }
}

/// Why a split policy cannot be followed.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SplitError {
    /// No contig has this name.
    #[error("split.{split}: no contig `{name}`{}", did_you_mean(.suggestion.as_deref()))]
    UnknownContig {
        /// The split the contig was named for.
        split: Split,
        /// The name as given.
        name: String,
        /// The known name that was probably meant.
        suggestion: Option<String>,
    },
    /// A contig is held out for both validation and test.
    #[error("contig `{name}` is named in both split.valid and split.test")]
    InBoth {
        /// Name of the contig.
        name: String,
    },
    /// A share is not a share.
    #[error("split.{split} is {share}; it must be at least 0 and below 1")]
    Share {
        /// The split the share is for.
        split: Split,
        /// The share as given.
        share: f64,
    },
    /// Nothing would be left to train on.
    #[error("split.valid and split.test add up to {sum}; less than 1 must be held out")]
    NoTrain {
        /// Sum of both shares.
        sum: f64,
    },
}

impl SplitPolicy {
    /// Checks the policy against the names of the contigs that exist.
    ///
    /// # Errors
    /// If a contig is unknown or in both held-out splits, or the shares leave nothing for training.
    pub fn check<'a>(&self, contigs: impl IntoIterator<Item = &'a str>) -> Result<(), SplitError> {
        match self {
            Self::Contig { valid, test } => {
                let contigs: Vec<&str> = contigs.into_iter().collect();
                for (split, names) in [(Split::Valid, valid), (Split::Test, test)] {
                    if let Some(name) = names.iter().find(|name| !contigs.contains(&name.as_str())) {
                        let suggestion = nearest(name, contigs).map(str::to_owned);
                        return Err(SplitError::UnknownContig { split, name: name.clone(), suggestion });
                    }
                }
                match valid.iter().find(|name| test.contains(name)) {
                    Some(name) => Err(SplitError::InBoth { name: name.clone() }),
                    None => Ok(()),
                }
            }
            &Self::Hash { valid, test } => Shares { valid, test }.check(),
        }
    }

    /// The split of the window that starts at base `start` of `contig`: a pure function of its arguments, the same on every
    /// machine and in every version.
    #[must_use]
    pub fn assign(&self, seed: u64, contig: &str, start: u64) -> Split {
        match self {
            Self::Contig { valid, .. } if valid.iter().any(|name| name == contig) => Split::Valid,
            Self::Contig { test, .. } if test.iter().any(|name| name == contig) => Split::Test,
            Self::Contig { .. } => Split::Train,
            &Self::Hash { valid, test } => {
                let mut hash = blake3::Hasher::new();
                hash.update(&seed.to_le_bytes()).update(&start.to_le_bytes()).update(contig.as_bytes());
                Shares { valid, test }.assign(&hash)
            }
        }
    }
}

/// How much is held out; what is left is for training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shares {
    /// Share for validation, from 0 to below 1.
    pub valid: f64,
    /// Share for test, from 0 to below 1.
    pub test: f64,
}

impl Shares {
    /// Checks that something is left to train on.
    ///
    /// # Errors
    /// If a share is outside 0..1, or both add up to 1 or more.
    pub fn check(&self) -> Result<(), SplitError> {
        let Self { valid, test } = *self;
        for (split, share) in [(Split::Valid, valid), (Split::Test, test)] {
            if !(0.0..1.0).contains(&share) {
                return Err(SplitError::Share { split, share });
            }
        }
        if valid + test < 1.0 { Ok(()) } else { Err(SplitError::NoTrain { sum: valid + test }) }
    }

    /// The split of what was hashed: a pure function, the same on every machine and in every version.
    #[must_use]
    pub fn assign(&self, hash: &blake3::Hasher) -> Split {
        match random::share(hash) {
            share if share < self.valid => Split::Valid,
            share if share < self.valid + self.test => Split::Test,
            _ => Split::Train,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_contig(valid: &[&str], test: &[&str]) -> SplitPolicy {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        SplitPolicy::Contig { valid: names(valid), test: names(test) }
    }

    #[test]
    fn contigs_are_held_out_whole() {
        let policy = by_contig(&["chrXV"], &["chrXVI"]);
        assert_eq!(policy.assign(1, "chrXV", 0), Split::Valid);
        assert_eq!(policy.assign(2, "chrXVI", 512), Split::Test);
        assert_eq!(policy.assign(3, "chrI", 1024), Split::Train);
    }

    #[test]
    fn shares_are_met() {
        let policy = SplitPolicy::Hash { valid: 0.1, test: 0.2 };
        let count = |split| (0..10_000).filter(|window| policy.assign(7, "chr1", window * 512) == split).count();
        assert!((900..1100).contains(&count(Split::Valid)), "{}", count(Split::Valid));
        assert!((1850..2150).contains(&count(Split::Test)), "{}", count(Split::Test));
    }

    #[test]
    fn an_assignment_never_changes() {
        // Written down once: runs of older versions must keep their splits.
        let policy = SplitPolicy::Hash { valid: 0.3, test: 0.3 };
        let splits: Vec<_> = (0..8).map(|window| policy.assign(1, "chr1", window * 512).to_string()).collect();
        assert_eq!(splits.join(" "), "test valid test test test test train train");
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let contigs = ["chr1", "chr2"];
        let message = |policy: SplitPolicy| policy.check(contigs).unwrap_err().to_string();
        assert_eq!(message(by_contig(&["1"], &[])), "split.valid: no contig `1`; did you mean `chr1`?");
        assert_eq!(
            message(by_contig(&["chr1"], &["chr1"])),
            "contig `chr1` is named in both split.valid and split.test"
        );
        assert_eq!(
            message(SplitPolicy::Hash { valid: 0.1, test: 1.5 }),
            "split.test is 1.5; it must be at least 0 and below 1"
        );
        assert!(message(SplitPolicy::Hash { valid: 0.5, test: 0.5 }).contains("add up to 1"));
        assert!(message(SplitPolicy::Hash { valid: f64::NAN, test: 0.5 }).contains("split.valid is NaN"));
        assert!(SplitPolicy::default().check(contigs).is_ok());
    }

    #[test]
    fn a_typo_in_the_configuration_is_an_error() {
        let read = |text: &str| toml::from_str::<SplitPolicy>(text);
        assert_eq!(read("kind = \"hash\"\nvalid = 0.1"), Ok(SplitPolicy::Hash { valid: 0.1, test: 0.0 }));
        assert!(read("kind = \"hash\"\nvalidd = 0.1").unwrap_err().to_string().contains("validd"));
    }
}
