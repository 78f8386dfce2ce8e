//! What the pages of a Parquet file would take in memory, computed before the library allocates it.
//!
//! The library makes room for whatever size a page claims, and for as many values as a dictionary, a page of lengths or a run of
//! levels claims. So the claims are looked at first: those of headers before a page is unpacked ([`check`], [`check_group`]), and
//! those within a page before its values are ([`Guarded`]), which begins with the schema.

mod delta;
mod footer;
mod guard;
mod header;
mod levels;
mod thrift;

pub(crate) use guard::Guarded;
pub(crate) use header::{Excess, check, check_group};

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

use parquet::errors::ParquetError;

thread_local! {
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic of this thread becomes an error of a file that is damaged: then a panic hook need print nothing.
#[must_use]
pub fn panics_are_caught() -> bool {
    CATCHING.get()
}

/// Makes an error of a panic: on some damaged pages the Parquet library panics. What it leaves half-changed is not used again,
/// since nothing is read after an error.
pub(crate) fn catch_panic<T, E: From<ParquetError>>(read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let before = CATCHING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(read));
    CATCHING.set(before);
    outcome.unwrap_or_else(|_| Err(damaged().into()))
}

fn damaged() -> ParquetError {
    ParquetError::General("a damaged page".into())
}
