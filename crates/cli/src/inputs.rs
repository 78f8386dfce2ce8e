//! What is read by commands that use a finished model, and what is said of it.

use anyhow::Result;
use clap::Args as ClapArgs;
use vqdna::infer::input::{Input, Opened};
use vqdna_data::alphabet::{AmbiguousPolicy, SoftMaskPolicy};
use vqdna_data::segment::{Counts, Policy, PolicyChange};

use crate::progress;

/// Bases seen together by a model that remembers no window.
pub const WINDOW: usize = 512;

/// What becomes of letters that are not certain, unmasked bases.
#[derive(ClapArgs, Clone, Debug)]
pub struct LetterArgs {
    /// Ambiguous letters: n (become N), split (the parts between them are seen apart) or error. Default: as the model learned.
    #[arg(long, value_name = "n|split|error")]
    pub ambiguous: Option<AmbiguousPolicy>,
    /// Soft-masked bases: keep, or drop (the parts between them are seen apart). Default: as the model learned.
    #[arg(long, value_name = "keep|drop")]
    pub soft_mask: Option<SoftMaskPolicy>,
}

impl LetterArgs {
    /// The policies of a model, where none is given.
    pub fn over(&self, model: Policy) -> Policy {
        PolicyChange { ambiguous: self.ambiguous, soft_mask: self.soft_mask }.over(model)
    }
}

/// Opens an input, and says what it is if its name says something else, and which columns are read.
pub fn open(input: &Input) -> Result<Opened> {
    let opened = input.open()?;
    if let Some(remark) = opened.remark() {
        message!("note: {remark}");
    }
    if let Some(columns) = opened.columns() {
        message!("{columns}");
    }
    Ok(opened)
}

/// Says what letter policies saw, and what of a BED file was passed over.
pub fn report(counts: &Counts, comments: u64) {
    message!("{}", progress::describe(counts));
    if comments > 0 {
        message!("note: lines of BED passed over as comments: {comments}");
    }
}
