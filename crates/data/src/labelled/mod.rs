//! Labelled sequences, for fine-tuning, evaluation and prediction: CSV, TSV, JSON Lines and Parquet.
//!
//! A data set is a folder with `train`, `dev` and `test`, or one file ([`Splits`]). Without `dev`, a share of `train` is held out;
//! without `test`, there is none; a lone file is cut into all three. What is cut goes by a hash of the sequence, so that its copies
//! and those of its reverse complement stay together.
//!
//! Labels are values rather than spellings, alike in every format: `1`, `1.0` and `+1` are one label, and `true`, `True` and `TRUE`
//! are one. Labels that say that there is none are an error, unless [asked](Missing) otherwise; rows without a sequence are left out of
//! a labelled set. Both are [counted](LeftOut).
//!
//! What the labels mean is learned from `train` alone ([`Labelling`]), is kept with the model, and is applied to whatever is
//! read later. Everything that is wrong with a file is an error that names file, line (or row) and column.
//!
//! ```
//! use vqdna_data::labelled::{Labelling, Options, Splits, Target};
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! std::fs::write(folder.join("train.csv"), "sequence,label\nACGT,promoter\nTTTT,none\nGGCC,none\n")?;
//! std::fs::write(folder.join("test.csv"), "sequence,label\nTTTT,none\n")?;
//! let splits = Splits::read(folder, &Options::default())?;
//! let Labelling::Classes { classes, .. } = &splits.labelling else { panic!("two classes") };
//! assert_eq!(classes[..], ["none", "promoter"]);
//! assert_eq!(splits.train.rows.get(0).sequence, b"ACGT");
//! assert_eq!(splits.train.targets.get(0), Target::Class(1));
//! assert_eq!(splits.overlap.train_test.rows, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod columns;
mod error;
mod format;
mod label;
mod labelling;
mod labels;
mod overlap;
mod parts;
mod reader;
mod request;
mod rows;
mod set;
mod source;
mod splits;
mod table;
mod unlabelled;

pub use error::{CellFault, ColumnFault, LabelFault, LabelledError, LabellingFault, PartFault};
pub(crate) use format::Content;
pub use format::Format;
pub use labelling::{Labelling, Standardization, Task};
pub use labels::Inferred;
pub use overlap::{Overlap, Repeats, Shared};
pub use parts::Parts;
pub use request::{Carry, ColumnNames, ColumnRequest, LeftOut, Missing, TakenColumns};
pub use rows::{Place, Row, Rows, Unit};
pub use set::{Set, Target, Targets, class_weights, read};
pub(crate) use source::FIRST_LINE;
pub use splits::{Options, Splits};
pub use unlabelled::{Chunks, unlabelled};
