//! Which names records may have, and what stands for those of reads.

use std::collections::HashMap;
use std::sync::Arc;

/// Whether names must tell records apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// Every record has a name of its own, as where results are filed under names and places.
    Unique,
    /// Names may repeat, as those of the two reads of a pair do, or of contigs of several genomes. The names of FASTQ records are
    /// not kept, since there may be billions: a name is one of 65,536, by a hash, and the same for both reads of a pair.
    Any,
}

/// Names that stand for those of reads.
#[derive(Default)]
pub(super) struct ReadNames(HashMap<u16, Arc<str>>);

impl ReadNames {
    /// What stands for a name. Old instruments add `/1` and `/2` to the two reads of a pair.
    pub(super) fn of(&mut self, name: &str) -> Arc<str> {
        let pair = name.strip_suffix("/1").or_else(|| name.strip_suffix("/2")).unwrap_or(name);
        let [low, high, ..] = *blake3::hash(pair.as_bytes()).as_bytes();
        let number = u16::from_le_bytes([low, high]);
        Arc::clone(self.0.entry(number).or_insert_with(|| format!("reads {number}").into()))
    }
}
