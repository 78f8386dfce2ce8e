//! Tracks cut into pieces with their context, and pieces gathered to be computed together.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use vqdna_data::alphabet::{BaseId, reverse_complement};
use vqdna_data::segment::Segment;
use vqdna_data::span::Strand;
use vqdna_data::window::{Window, Windowing};

use super::TranscodeError;
use crate::batch::HostWindow;

/// Pieces computed together hold about this many bases unless told otherwise: enough work for many threads, and small beside
/// the memory of a laptop.
pub const BASES_TOGETHER: usize = 16_384;

/// A segment as it is read: on one strand, in reading direction.
pub(super) struct Track {
    record: Arc<str>,
    /// First base of the segment on the forward strand.
    start: u64,
    strand: Strand,
    pub(super) bases: Vec<BaseId>,
}

/// The segments of a record in the order of the output: all forward, then, if asked for, all reverse from the record's end.
pub(super) fn tracks(segments: Vec<Segment>, both_strands: bool) -> Vec<Track> {
    let track = |segment: Segment, strand| {
        let Segment { contig: record, start, bases, .. } = segment;
        Track { record, start, strand, bases }
    };
    let mut reverse: Vec<Track> = Vec::new();
    if both_strands {
        reverse.extend(segments.iter().rev().map(|segment| {
            let mut track = track(segment.clone(), Strand::Reverse);
            reverse_complement(&mut track.bases);
            track
        }));
    }
    segments.into_iter().map(|segment| track(segment, Strand::Forward)).chain(reverse).collect()
}

impl Track {
    /// The part of the track that lies in a range of the contig.
    pub(super) fn within(&self, range: &Range<u64>) -> Range<usize> {
        let end = self.start + self.bases.len() as u64;
        let clip = |position: u64| (position.clamp(self.start, end) - self.start) as usize;
        let (from, to) = (clip(range.start), clip(range.end));
        match self.strand {
            Strand::Forward => from..to,
            Strand::Reverse => self.bases.len() - to..self.bases.len() - from,
        }
    }

    /// Name of its record.
    pub(super) fn record(&self) -> &str {
        &self.record
    }

    /// The strand that it is read from.
    pub(super) fn strand(&self) -> Strand {
        self.strand
    }

    /// Forward coordinates of a range in reading direction.
    pub(super) fn span(&self, range: &Range<usize>) -> Range<u64> {
        match self.strand {
            Strand::Forward => self.start + range.start as u64..self.start + range.end as u64,
            Strand::Reverse => {
                let end = self.start + self.bases.len() as u64;
                end - range.end as u64..end - range.start as u64
            }
        }
    }
}

/// Where the codes of a piece belong.
pub(super) struct Place {
    pub(super) record: Arc<str>,
    pub(super) strand: Strand,
    /// Forward coordinates of the piece without its context.
    pub(super) span: Range<u64>,
    /// Context in front of it.
    pub(super) skip: usize,
    /// Whether a row must end behind this piece at the latest.
    pub(super) ends_track: bool,
}

impl Place {
    /// Bases of the piece without its context.
    pub(super) fn bases(&self) -> usize {
        (self.span.end - self.span.start) as usize
    }
}

/// Pieces to be computed together.
#[derive(Default)]
pub(super) struct Pieces {
    pub(super) places: Vec<Place>,
    /// Bases of each piece and the context that their codes see.
    pub(super) windows: Vec<HostWindow>,
}

/// How tracks are cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Bases of context on either side.
    pub(super) halo: usize,
    /// Bases of a piece, without its context.
    pub(super) chunk: usize,
    /// Pieces computed together; if none, as many as make [`BASES_TOGETHER`].
    pub(super) batch: Option<usize>,
}

/// Tracks in, pieces out.
pub(super) struct Cutter {
    cut: Cut,
    pieces: Pieces,
    /// Bases of the longest of the pieces, to which all are padded.
    width: usize,
    taker: SyncSender<Pieces>,
}

impl Cutter {
    pub(super) fn new(cut: Cut, taker: SyncSender<Pieces>) -> Self {
        Self { cut, pieces: Pieces::default(), width: 0, taker }
    }

    /// Cuts the wanted part of a track.
    pub(super) fn push(&mut self, track: &Track, wanted: Range<usize>) -> Result<(), TranscodeError> {
        let Cut { halo, chunk, .. } = self.cut;
        let windowing = Windowing { length: chunk, stride: chunk, halo: 0 };
        for Window { core, .. } in windowing.windows(wanted.len()) {
            let core = wanted.start + core.start..wanted.start + core.end;
            let context = core.start.saturating_sub(halo)..(core.end + halo).min(track.bases.len());
            self.width = self.width.max(context.len());
            self.pieces.places.push(Place {
                record: Arc::clone(&track.record),
                strand: track.strand,
                span: track.span(&core),
                skip: core.start - context.start,
                ends_track: core.end == wanted.end,
            });
            self.pieces.windows.push(HostWindow { bases: track.bases[context].to_vec(), soft_masked: Vec::new() });
            if self.is_full() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        let count = self.pieces.places.len();
        match self.cut.batch {
            Some(pieces) => count >= pieces,
            None => count * self.width >= BASES_TOGETHER,
        }
    }

    /// Gives away what is left at the end.
    pub(super) fn flush(&mut self) -> Result<(), TranscodeError> {
        self.width = 0;
        let pieces = std::mem::take(&mut self.pieces);
        if pieces.places.is_empty() {
            return Ok(());
        }
        // Nobody takes pieces any more once a later stage has stopped, which then says why.
        self.taker.send(pieces).map_err(|_| TranscodeError::Interrupted)
    }
}
