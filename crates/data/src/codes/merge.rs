//! Joins shards to the file that one writer would have written.

use std::path::{Path, PathBuf};

use super::error::CodesError;
use super::{Reader, Writer, Written};

/// Writes the rows of all shards, in the order given, to `out`.
///
/// The rows are written anew, so the result has the very bytes of an unsharded file; `out` may have another
/// format than the shards.
///
/// # Errors
///
/// When there are no shards, their models or codebook sizes differ, a row does not follow the row before it
/// across all shards, a shard seems to be missing because the one before broke off within a segment, or a file
/// cannot be read or written. Then `out` is left as it was.
pub fn merge(shards: &[PathBuf], out: &Path) -> Result<Written, CodesError> {
    let (first, others) = shards.split_first().ok_or_else(|| CodesError::NoShards { out: out.into() })?;
    let reader = Reader::open(first)?;
    let mut writer = Writer::create(out, reader.header())?;
    let header = reader.header().clone();
    append(&mut writer, reader, first)?;
    for shard in others {
        let reader = Reader::open(shard)?;
        if *reader.header() != header {
            return Err(CodesError::OtherModel { path: shard.clone(), first: first.clone() });
        }
        append(&mut writer, reader, shard)?;
    }
    writer.finish()
}

fn append(writer: &mut Writer, reader: Reader, shard: &Path) -> Result<(), CodesError> {
    for (index, row) in reader.enumerate() {
        let is_first = index == 0;
        writer.write_from(&row?, shard, is_first)?;
    }
    Ok(())
}
