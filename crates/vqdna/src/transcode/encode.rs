//! FASTA to codes.

use burn::prelude::*;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vqdna_data::alphabet::{BaseId, reverse_complement};
use vqdna_data::codes::{Header, ROW_BASES, Row, ShardNumber, Writer};
use vqdna_data::fasta::{self, Fetched, Record};
use vqdna_data::segment::{Counts, Policy, Segment, segments};
use vqdna_data::span::Strand;
use vqdna_data::window::{Window, Windowing};

use super::{TranscodeError, holds};
use crate::batch::{Batch, HostWindow};
use crate::ops::{self, Precision};
use crate::run::folder::Vocabulary;

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

/// Pieces computed together hold about this many bases unless told otherwise: enough work for many threads, and small beside
/// the memory of a laptop.
pub const BASES_TOGETHER: usize = 16_384;

/// What was tokenized.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokenized {
    /// Codes written, per level.
    pub bases: u64,
    /// What the policies did to the letters that were read.
    pub counts: Counts,
}

/// Called with the number of bases done so far; says whether to go on.
pub type Progress<'a> = &'a mut dyn FnMut(u64) -> ControlFlow<()>;

impl Tokenize<'_> {
    /// The header of a codes file of this vocabulary, or of one shard.
    #[must_use]
    pub fn header(&self, shard: Option<ShardNumber>) -> Header {
        let codebook_sizes = self.vocabulary.config.tokenizer.quantizer.codebook_sizes();
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
            Some(_) => self.count(inputs)?,
            None => 0,
        };
        let mut tokenized = Tokenized::default();
        let mut pipeline = Pipeline { job: self, pieces: Vec::new(), rows: Rows::new(writer), progress };
        let mut offset = 0;
        for record in fasta::read_all(inputs)? {
            // A chromosome may be large: its letters are dropped as soon as it is segments.
            let found = record.map(|record| segments(&record, self.letters, &mut tokenized.counts))??;
            for track in self.tracks(found) {
                let wanted = match shard {
                    None => 0..track.bases.len(),
                    Some(shard) => share_of(shard, offset, total, track.bases.len()),
                };
                offset += track.bases.len() as u64;
                tokenized.bases += wanted.len() as u64;
                pipeline.push(&track, wanted)?;
            }
        }
        pipeline.flush()?;
        Ok(tokenized)
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
        let halo = self.vocabulary.config.tokenizer.encoder_halo() as u64;
        let fetched = fasta::fetch_padded(input, region, halo)?;
        let mut tokenized = Tokenized::default();
        let found = segments(&fetched.record, self.letters, &mut Counts::default())?;
        segments(&without_halo(&fetched), self.letters, &mut tokenized.counts)?;
        let mut pipeline = Pipeline { job: self, pieces: Vec::new(), rows: Rows::new(writer), progress };
        for track in self.tracks(found) {
            let wanted = track.within(&fetched.region);
            tokenized.bases += wanted.len() as u64;
            pipeline.push(&track, wanted)?;
        }
        pipeline.flush()?;
        Ok(tokenized)
    }

    /// Bases that the files hold under the letter policies, over the strands asked for.
    fn count(&self, inputs: &[PathBuf]) -> Result<u64, TranscodeError> {
        let mut total = 0;
        for record in fasta::read_all(inputs)? {
            let found = segments(&record?, self.letters, &mut Counts::default())?;
            total += found.iter().map(|segment| segment.bases.len() as u64).sum::<u64>();
        }
        Ok(if self.both_strands { 2 * total } else { total })
    }

    /// The segments of a record in the order of the output: all forward, then all reverse from the record's end.
    fn tracks(&self, segments: Vec<Segment>) -> Vec<Track> {
        let track = |segment: Segment, strand| {
            let Segment { contig: record, start, bases, .. } = segment;
            Track { record, start, strand, bases }
        };
        let mut reverse: Vec<Track> = Vec::new();
        if self.both_strands {
            reverse.extend(segments.iter().rev().map(|segment| {
                let mut track = track(segment.clone(), Strand::Reverse);
                reverse_complement(&mut track.bases);
                track
            }));
        }
        segments.into_iter().map(|segment| track(segment, Strand::Forward)).chain(reverse).collect()
    }

    /// Per level, the codes of each piece's core.
    fn codes(&self, pieces: &[Piece]) -> Vec<Vec<Vec<u16>>> {
        let windows: Vec<HostWindow> =
            pieces.iter().map(|p| HostWindow { bases: p.context.clone(), soft_masked: Vec::new() }).collect();
        let batch = Batch::new(&windows, 1.0, self.device);
        let width = batch.bases.dims()[1];
        let codes = ops::with_precision(self.precision, || self.vocabulary.model.encode(&batch));
        let levels: Vec<Vec<i32>> =
            codes.into_iter().map(|codes| codes.into_data().try_into_vec_as().expect("codes fit i32")).collect();
        let core = |codes: &[i32], row: usize, piece: &Piece| {
            let at = row * width + piece.skip;
            codes[at..at + piece.core.len()].iter().map(|&code| code as u16).collect()
        };
        pieces
            .iter()
            .enumerate()
            .map(|(row, piece)| levels.iter().map(|codes| core(codes, row, piece)).collect())
            .collect()
    }
}

/// The region alone, for counting its letters.
fn without_halo(fetched: &Fetched) -> Record {
    let offset = |position: u64| (position - fetched.record.start) as usize;
    let bases = fetched.record.bases[offset(fetched.region.start)..offset(fetched.region.end)].to_vec();
    Record { bases, start: fetched.region.start, ..fetched.record.clone() }
}

/// The part of a track whose rows belong to a shard; rows start at multiples of [`ROW_BASES`] on the track, and a shard's
/// rows are neighbours.
fn share_of(shard: ShardNumber, offset: u64, total: u64, bases: usize) -> Range<usize> {
    let mine = |row: &usize| holds(shard, offset + (row * ROW_BASES) as u64, total);
    let mut rows = (0..bases.div_ceil(ROW_BASES)).filter(mine);
    let Some(first) = rows.next() else { return 0..0 };
    let last = rows.next_back().unwrap_or(first);
    first * ROW_BASES..((last + 1) * ROW_BASES).min(bases)
}

/// A segment as it is read: on one strand, in reading direction.
struct Track {
    record: Arc<str>,
    /// First base of the segment on the forward strand.
    start: u64,
    strand: Strand,
    bases: Vec<BaseId>,
}

impl Track {
    /// The part of the track that lies in a range of the contig.
    fn within(&self, range: &Range<u64>) -> Range<usize> {
        let end = self.start + self.bases.len() as u64;
        let clip = |position: u64| (position.clamp(self.start, end) - self.start) as usize;
        let (from, to) = (clip(range.start), clip(range.end));
        match self.strand {
            Strand::Forward => from..to,
            Strand::Reverse => self.bases.len() - to..self.bases.len() - from,
        }
    }

    /// Forward coordinates of a range in reading direction.
    fn span(&self, range: &Range<usize>) -> Range<u64> {
        match self.strand {
            Strand::Forward => self.start + range.start as u64..self.start + range.end as u64,
            Strand::Reverse => {
                let end = self.start + self.bases.len() as u64;
                end - range.end as u64..end - range.start as u64
            }
        }
    }
}

/// Some bases of a track with the context that their codes see.
struct Piece {
    record: Arc<str>,
    strand: Strand,
    /// Forward coordinates of the core.
    core: Core,
    /// Context in front of the core.
    skip: usize,
    /// Bases of the core and its context.
    context: Vec<BaseId>,
    /// Whether a row must end behind this piece at the latest.
    ends_track: bool,
}

#[derive(Clone, Copy)]
struct Core {
    start: u64,
    end: u64,
}

impl Core {
    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

/// Tracks in, rows out: gathers pieces, computes them together, joins their codes to rows.
struct Pipeline<'a, 'w> {
    job: &'a Tokenize<'a>,
    pieces: Vec<Piece>,
    rows: Rows<'w>,
    progress: Progress<'a>,
}

impl Pipeline<'_, '_> {
    fn push(&mut self, track: &Track, wanted: Range<usize>) -> Result<(), TranscodeError> {
        let halo = self.job.vocabulary.config.tokenizer.encoder_halo();
        let windowing = Windowing { length: self.job.chunk, stride: self.job.chunk, halo: 0 };
        for Window { core, .. } in windowing.windows(wanted.len()) {
            let core = wanted.start + core.start..wanted.start + core.end;
            let context = core.start.saturating_sub(halo)..(core.end + halo).min(track.bases.len());
            let span = track.span(&core);
            self.pieces.push(Piece {
                record: Arc::clone(&track.record),
                strand: track.strand,
                core: Core { start: span.start, end: span.end },
                skip: core.start - context.start,
                context: track.bases[context].to_vec(),
                ends_track: core.end == wanted.end,
            });
            if self.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        // All pieces of a batch are padded to the widest.
        let width = self.pieces.iter().map(|piece| piece.context.len()).max().unwrap_or_default();
        match self.job.batch {
            Some(pieces) => self.pieces.len() >= pieces,
            None => self.pieces.len() * width >= BASES_TOGETHER,
        }
    }

    fn flush(&mut self) -> Result<(), TranscodeError> {
        if self.pieces.is_empty() {
            return Ok(());
        }
        let codes = self.job.codes(&self.pieces);
        for (piece, codes) in self.pieces.drain(..).zip(codes) {
            self.rows.push(&piece, &codes)?;
        }
        match (self.progress)(self.rows.bases) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(TranscodeError::Interrupted),
        }
    }
}

/// Joins the codes of neighbouring pieces to rows of [`ROW_BASES`].
struct Rows<'w> {
    writer: &'w mut Writer,
    /// The row in the making, if it holds any codes.
    row: Option<Row>,
    bases: u64,
}

impl<'w> Rows<'w> {
    fn new(writer: &'w mut Writer) -> Self {
        Self { writer, row: None, bases: 0 }
    }

    fn push(&mut self, piece: &Piece, codes: &[Vec<u16>]) -> Result<(), TranscodeError> {
        let length = piece.core.len();
        self.bases += length as u64;
        let mut done = 0;
        while done < length {
            // The piece starts where the row ends, or begins a row.
            let row = self.row.get_or_insert_with(|| {
                let at = match piece.strand {
                    Strand::Forward => piece.core.start + done as u64,
                    Strand::Reverse => piece.core.end - done as u64,
                };
                let codes = vec![Vec::with_capacity(ROW_BASES); codes.len()];
                Row { record: Arc::clone(&piece.record), start: at, end: at, strand: piece.strand, codes }
            });
            let take = (ROW_BASES - (row.end - row.start) as usize).min(length - done);
            match piece.strand {
                Strand::Forward => row.end += take as u64,
                Strand::Reverse => row.start -= take as u64,
            }
            row.codes.iter_mut().zip(codes).for_each(|(row, codes)| row.extend_from_slice(&codes[done..done + take]));
            done += take;
            if (row.end - row.start) as usize == ROW_BASES || (done == length && piece.ends_track) {
                self.writer.write(row)?;
                self.row = None;
            }
        }
        Ok(())
    }
}
