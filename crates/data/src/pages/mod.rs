//! What the pages of a Parquet file would take in memory, told before the library makes room for it.
//!
//! The library makes room for whatever size a page claims, and for as many values as a dictionary, a page of lengths or a run of
//! levels claims. So the claims are looked at first: those of headers before a page is unpacked ([`check`], [`check_group`]), and
//! those within a page before its values are ([`Guarded`]).

mod delta;
mod guard;
mod header;
mod levels;

pub(crate) use guard::Guarded;
pub(crate) use header::{Excess, check, check_group};

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;

/// Makes an error of a panic: on some damaged pages the Parquet library panics. What it leaves half-changed is not used again,
/// since nothing is read after an error.
pub(crate) fn catch_panic<T, E: From<ParquetError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| Err(damaged().into()))
}

fn damaged() -> ParquetError {
    ParquetError::General("a damaged page".into())
}
