//! Joins shards to the file that one writer would have written.

use std::path::{Path, PathBuf};

use super::error::CodesError;
use super::{Header, Reader, ShardNumber, Writer, Written};

/// Writes the rows of all shards, in the order given, to `out`.
///
/// The rows are written anew, so the result has the very bytes of an unsharded file; `out` may have another
/// format than the shards. Numbered shards must be complete. Files without a number are joined as they are, since
/// nothing in them tells whether one is missing.
///
/// # Errors
///
/// When there are no shards, their models or codebook sizes differ, a numbered shard is missing, repeated or out of
/// order, numbered shards are mixed with whole files, a row does not follow the row before it across all shards, or
/// a file cannot be read or written. Then `out` is left as it was.
pub fn merge(shards: &[PathBuf], out: &Path) -> Result<Written, CodesError> {
    merge_with_progress(shards, out, &mut |_| {})
}

/// As [`merge`]; calls `progress` after each row with the number of its bases.
///
/// # Errors
///
/// As [`merge`].
pub fn merge_with_progress(
    shards: &[PathBuf],
    out: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<Written, CodesError> {
    let (Some(first), Some(last)) = (shards.first(), shards.last()) else {
        return Err(CodesError::NoShards { out: out.into() });
    };
    let reader = Reader::open(first)?;
    let number = reader.header().shard;
    check_number(first, 1, number, number)?;
    let whole = without_number(reader.header());
    let mut writer = Writer::create(out, &whole)?;
    append(&mut writer, reader, first, progress)?;
    for (index, shard) in (1..).zip(shards).skip(1) {
        let reader = Reader::open(shard)?;
        if without_number(reader.header()) != whole {
            return Err(CodesError::OtherModel { path: shard.clone(), first: first.clone() });
        }
        check_number(shard, index, number, reader.header().shard)?;
        append(&mut writer, reader, shard, progress)?;
    }
    check_count(last, shards.len() as u64, number)?;
    writer.finish()
}

/// The header of the whole file that a shard belongs to.
fn without_number(header: &Header) -> Header {
    Header { shard: None, ..header.clone() }
}

/// Refuses a file whose number `found` is not that of the `index`-th file, which the `first` file's tells.
fn check_number(
    path: &Path,
    index: u64,
    first: Option<ShardNumber>,
    found: Option<ShardNumber>,
) -> Result<(), CodesError> {
    let expected = first.map(|first| ShardNumber { index, ..first });
    match expected {
        Some(ShardNumber { count, .. }) if index > count => Err(CodesError::SurplusShard { path: path.into(), count }),
        _ if found == expected => Ok(()),
        _ => Err(CodesError::OtherShard { path: path.into(), expected, found }),
    }
}

/// Refuses fewer files than the `first` file's number tells; `last` is the last of them.
fn check_count(last: &Path, files: u64, first: Option<ShardNumber>) -> Result<(), CodesError> {
    match first {
        Some(ShardNumber { count, .. }) if files < count => {
            Err(CodesError::MissingShard { path: last.into(), missing: ShardNumber { index: files + 1, count } })
        }
        _ => Ok(()),
    }
}

fn append(writer: &mut Writer, reader: Reader, shard: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), CodesError> {
    for row in reader {
        let row = row?;
        writer.write_from(&row, shard)?;
        progress(row.end - row.start);
    }
    Ok(())
}
