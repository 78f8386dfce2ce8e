//! FASTA to codes: read, computed and written at the same time.
//!
//! Each stage has a thread of its own, so that the device need not wait for a decompressor or a disk:
//!
//! ```text
//! read, segment, cut ──Pieces──▶ compute ──Coded──▶ join to rows, write
//! ```
//!
//! The caller's thread computes, so tensors and what holds for a thread ([`ops::with_precision`]) stay where they are. Few
//! batches wait between two stages, so memory is bounded, and they keep their order, so the file is the same as if one thread
//! did everything. A stage that ends, for whatever reason, closes its channels; its neighbours then end too.

use burn::prelude::*;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, ScopedJoinHandle};
use vqdna_data::codes::{Header, ROW_BASES, ShardNumber, Writer};
use vqdna_data::corpus::Corpus;
use vqdna_data::fasta::{self, Fetched, Record};
use vqdna_data::segment::{Counts, Policy, Segment, segments};

pub use super::pieces::BASES_TOGETHER;

use super::pieces::{Cut, Cutter, Pieces, tracks};
use super::rows::{Coded, Rows};
use super::{TranscodeError, holds};
use crate::batch::Batch;
use crate::model_dir::Vocabulary;
use crate::ops::{self, Precision};

/// How a genome is tokenized. None of it changes a code; `letters`, `both_strands`, `region` and `shard` choose which codes
/// are written.
#[derive(Clone, Debug)]
pub struct Tokenize<'a> {
    /// The vocabulary.
    pub vocabulary: &'a Vocabulary,
    /// Where it computes.
    pub device: &'a Device,
    /// What becomes of ambiguous letters and soft-masked bases.
    pub letters: Policy,
    /// Also the reverse complement of each record, after the record.
    pub both_strands: bool,
    /// Bases of a piece, without its context.
    pub chunk: usize,
    /// Pieces computed together; if none, as many as make [`BASES_TOGETHER`].
    pub batch: Option<usize>,
    /// How products are computed. In bf16, some codes are others, and the header says so.
    pub precision: Precision,
}

/// Behind the digest of a vocabulary in the header of codes that were computed in bf16.
pub const BF16: &str = "+bf16";

/// Batches that wait between two stages, so that a stage that takes longer now and then does not hold up the next.
const WAITING: usize = 2;

/// What was tokenized.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokenized {
    /// Codes written, per level.
    pub bases: u64,
    /// What the policies did to the letters that were read.
    pub counts: Counts,
}

/// Called on the caller's thread with the number of bases done so far, which may not be on the disk yet; says whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

impl Tokenize<'_> {
    /// The header of a codes file of this vocabulary, or of one shard.
    #[must_use]
    pub fn header(&self, shard: Option<ShardNumber>) -> Header {
        let codebook_sizes = self.vocabulary.tokenizer.quantizer.codebook_sizes();
        let model = match self.precision {
            Precision::F32 => self.vocabulary.digest.clone(),
            Precision::Bf16 => format!("{}{BF16}", self.vocabulary.digest),
        };
        Header { model, codebook_sizes, shard }
    }

    /// Tokenizes whole files, or one shard of them.
    ///
    /// # Errors
    /// If an input cannot be read or the output cannot be written.
    pub fn files(
        &self,
        inputs: &[PathBuf],
        shard: Option<ShardNumber>,
        writer: &mut Writer,
        progress: Progress,
    ) -> Result<Tokenized, TranscodeError> {
        let total = match shard {
            Some(_) if inputs.iter().any(|path| path == Path::new("-")) => return Err(TranscodeError::ShardOfStdin),
            Some(_) => count(inputs, self.letters, self.both_strands)?,
            None => 0,
        };
        let (letters, both_strands) = (self.letters, self.both_strands);
        self.run(writer, progress, move |cutter| {
            let mut tokenized = Tokenized::default();
            let mut offset = 0;
            for record in fasta::read_all(inputs)? {
                // A chromosome may be large: its letters are dropped as soon as it is segments.
                let found = record.map(|record| segments(&record, letters, &mut tokenized.counts))??;
                for track in tracks(found, both_strands) {
                    let wanted = match shard {
                        None => 0..track.bases.len(),
                        Some(shard) => share_of(shard, offset, total, track.bases.len()),
                    };
                    offset += track.bases.len() as u64;
                    tokenized.bases += wanted.len() as u64;
                    cutter.push(&track, wanted)?;
                }
            }
            Ok(tokenized)
        })
    }

    /// Tokenizes a corpus, whose letters were dealt with as it was read: to the same file as [`Tokenize::files`] with its inputs
    /// and policies, or, where names repeat, with the [names that segments are filed under](Corpus::filed_under).
    ///
    /// # Errors
    /// If the corpus cannot be read or the output cannot be written.
    pub fn corpus(
        &self,
        corpus: &Corpus,
        writer: &mut Writer,
        progress: Progress,
    ) -> Result<Tokenized, TranscodeError> {
        let both_strands = self.both_strands;
        self.run(writer, progress, move |cutter| {
            let mut tokenized = Tokenized { bases: 0, counts: corpus.counts() };
            let numbers: Vec<usize> = (0..corpus.segments().len()).collect();
            for record in numbers.chunk_by(|&a, &b| corpus.filed_under(a) == corpus.filed_under(b)) {
                let whole = record.iter().map(|&number| whole_segment(corpus, number));
                for track in tracks(whole.collect::<Result<_, _>>()?, both_strands) {
                    tokenized.bases += track.bases.len() as u64;
                    cutter.push(&track, 0..track.bases.len())?;
                }
            }
            Ok(tokenized)
        })
    }

    /// Tokenizes one region, such as `chr1:1,000-2,000` (1-based, inclusive). The codes are those that the region has in its
    /// whole contig.
    ///
    /// # Errors
    /// If the region is not in the file, or anything cannot be read or written.
    pub fn region(
        &self,
        input: &Path,
        region: &str,
        writer: &mut Writer,
        progress: Progress,
    ) -> Result<Tokenized, TranscodeError> {
        let halo = self.vocabulary.tokenizer.encoder_halo() as u64;
        let (letters, both_strands) = (self.letters, self.both_strands);
        self.run(writer, progress, move |cutter| {
            let fetched = fasta::fetch_padded(input, region, halo)?;
            let mut tokenized = Tokenized::default();
            let found = segments(&fetched.record, letters, &mut Counts::default())?;
            segments(&without_halo(&fetched), letters, &mut tokenized.counts)?;
            for track in tracks(found, both_strands) {
                let wanted = track.within(&fetched.region);
                tokenized.bases += wanted.len() as u64;
                cutter.push(&track, wanted)?;
            }
            Ok(tokenized)
        })
    }

    /// Runs the three stages. `read` hands everything to the cutter.
    fn run<R>(&self, writer: &mut Writer, progress: Progress, read: R) -> Result<Tokenized, TranscodeError>
    where
        R: FnOnce(&mut Cutter) -> Result<Tokenized, TranscodeError> + Send,
    {
        let halo = self.vocabulary.tokenizer.encoder_halo();
        let cut = Cut { halo, chunk: self.chunk, batch: self.batch };
        let mut rows = Rows::new(writer);
        thread::scope(|scope| {
            let (give_pieces, pieces) = sync_channel(WAITING);
            let (give_codes, codes) = sync_channel::<Coded>(WAITING);
            let reader = scope.spawn(move || {
                let mut cutter = Cutter::new(cut, give_pieces);
                let tokenized = read(&mut cutter)?;
                cutter.flush()?;
                Ok(tokenized)
            });
            let writer = scope.spawn(move || codes.into_iter().try_for_each(|batch| rows.push(&batch)));
            let computed = self.compute(pieces, give_codes, progress);
            // Of two errors, the one that met the earlier bases counts: writing lags behind computing, reading is ahead.
            join(writer)?;
            computed?;
            join(reader)
        })
    }

    /// The stage in the middle. Both channels close when it returns or unwinds.
    fn compute(
        &self,
        pieces: Receiver<Pieces>,
        codes: SyncSender<Coded>,
        progress: Progress,
    ) -> Result<(), TranscodeError> {
        let device = self.device.clone().without_autodiff();
        let mut bases = 0;
        ops::with_frozen_weights(|| {
            for pieces in pieces {
                let batch = self.codes(pieces, &device);
                bases += batch.places.iter().map(|place| place.bases() as u64).sum::<u64>();
                if codes.send(batch).is_err() {
                    // The writer has failed, and says why where it is joined.
                    return Ok(());
                }
                if progress(bases).is_break() {
                    return Err(TranscodeError::Interrupted);
                }
            }
            Ok(())
        })
    }

    fn codes(&self, Pieces { places, windows }: Pieces, device: &Device) -> Coded {
        let batch = Batch::new(&windows, 1.0, device);
        let width = batch.bases.dims()[1];
        let codes = ops::with_precision(self.precision, || self.vocabulary.model.encode(&batch));
        let levels = codes.into_iter().map(|codes| codes.into_data().try_into_vec_as().expect("codes fit i32"));
        Coded { places, width, levels: levels.collect() }
    }
}

/// What a stage returned; its panic goes on in the caller's thread.
fn join<T>(stage: ScopedJoinHandle<T>) -> T {
    stage.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A segment of a corpus with all its bases.
fn whole_segment(corpus: &Corpus, number: usize) -> Result<Segment, TranscodeError> {
    let info = &corpus.segments()[number];
    let read = corpus.window(number, 0..info.bases as usize);
    let (bases, _) = read.map_err(|source| TranscodeError::Io { what: "reading the corpus".to_owned(), source })?;
    Ok(Segment { contig: corpus.filed_under(number), start: info.start, bases, soft_masked: Vec::new() })
}

/// Bases that the files hold under the letter policies, over the strands that are read.
pub(super) fn count(inputs: &[PathBuf], letters: Policy, both_strands: bool) -> Result<u64, TranscodeError> {
    let mut total = 0;
    for record in fasta::read_all(inputs)? {
        let found = segments(&record?, letters, &mut Counts::default())?;
        total += found.iter().map(|segment| segment.bases.len() as u64).sum::<u64>();
    }
    Ok(if both_strands { 2 * total } else { total })
}

/// The region alone, for counting its letters.
pub(super) fn without_halo(fetched: &Fetched) -> Record {
    let offset = |position: u64| (position - fetched.record.start) as usize;
    let bases = fetched.record.bases[offset(fetched.region.start)..offset(fetched.region.end)].to_vec();
    Record { bases, start: fetched.region.start, ..fetched.record.clone() }
}

/// The part of a track whose rows belong to a shard; rows start at multiples of [`ROW_BASES`] on the track, and a shard's
/// rows are neighbours.
pub(super) fn share_of(shard: ShardNumber, offset: u64, total: u64, bases: usize) -> Range<usize> {
    let mine = |row: &usize| holds(shard, offset + (row * ROW_BASES) as u64, total);
    let mut rows = (0..bases.div_ceil(ROW_BASES)).filter(mine);
    let Some(first) = rows.next() else { return 0..0 };
    let last = rows.next_back().unwrap_or(first);
    first * ROW_BASES..((last + 1) * ROW_BASES).min(bases)
}
