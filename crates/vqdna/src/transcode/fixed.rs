//! FASTA to the tokens of a fixed tokenizer: ids and the bases that each stands for.

use std::ops::Range;
use std::path::{Path, PathBuf};
use vqdna_data::codes::ShardNumber;
use vqdna_data::fasta;
use vqdna_data::segment::{Counts, Policy, segments};
use vqdna_data::span::Strand;
use vqdna_data::tokens::Context;

use super::TranscodeError;
use super::encode::{Progress, Tokenized, count, share_of, without_halo};
use super::pieces::{Track, tracks};
use crate::tokenizer::Tokenizer;

/// How a genome is tokenized. A token belongs to the region or shard in which it starts, in reading direction, and has the id that it has in
/// the whole record.
#[derive(Clone, Copy, Debug)]
pub struct TokenizeFixed<'a> {
    /// The tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// What becomes of ambiguous letters and soft-masked bases.
    pub letters: Policy,
    /// Also the reverse complement of each record, after the record.
    pub both_strands: bool,
}

/// A token of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAt<'a> {
    /// Name of the record.
    pub record: &'a str,
    /// The bases that it stands for, on the forward strand, 0-based and half-open.
    pub bases: Range<u64>,
    /// The strand that it is read from.
    pub strand: Strand,
    /// Its id.
    pub id: u32,
}

/// Bases of a piece that is tokenized at a time, where a piece can be.
const PIECE: usize = 1 << 20;

impl TokenizeFixed<'_> {
    /// Tokenizes whole files, or one shard of them, token by token.
    ///
    /// # Errors
    /// If an input cannot be read, `write` fails, or `progress` breaks it off.
    ///
    /// # Panics
    /// If the tokenizer is not a fixed one.
    pub fn files<E: From<TranscodeError>>(
        &self,
        inputs: &[PathBuf],
        shard: Option<ShardNumber>,
        write: &mut dyn FnMut(TokenAt) -> Result<(), E>,
        progress: Progress,
    ) -> Result<Tokenized, E> {
        let total = match shard {
            Some(_) if inputs.iter().any(|path| path == Path::new("-")) => {
                return Err(TranscodeError::ShardOfStdin.into());
            }
            Some(_) => count(inputs, self.letters, self.both_strands)?,
            None => 0,
        };
        let (mut tokenized, mut offset) = (Tokenized::default(), 0);
        for record in fasta::read_all(inputs).map_err(TranscodeError::from)? {
            let record = record.map_err(TranscodeError::from)?;
            let found = segments(&record, self.letters, &mut tokenized.counts).map_err(TranscodeError::from)?;
            drop(record);
            for track in tracks(found, self.both_strands) {
                let wanted = match shard {
                    None => 0..track.bases.len(),
                    Some(shard) => share_of(shard, offset, total, track.bases.len()),
                };
                offset += track.bases.len() as u64;
                self.track(&track, wanted, &mut tokenized.bases, write, progress)?;
            }
        }
        Ok(tokenized)
    }

    /// Tokenizes one region, such as `chr1:1,000-2,000` (1-based, inclusive).
    ///
    /// # Errors
    /// If the region is not in the file, it cannot be read, `write` fails, or `progress` breaks it off.
    ///
    /// # Panics
    /// If the tokenizer is not a fixed one.
    pub fn region<E: From<TranscodeError>>(
        &self,
        input: &Path,
        region: &str,
        write: &mut dyn FnMut(TokenAt) -> Result<(), E>,
        progress: Progress,
    ) -> Result<Tokenized, E> {
        // Where tokens begin may depend on all bases of the contig.
        let fetched = fasta::fetch_padded(input, region, u64::MAX / 2).map_err(TranscodeError::from)?;
        let mut tokenized = Tokenized::default();
        let found = segments(&fetched.record, self.letters, &mut Counts::default()).map_err(TranscodeError::from)?;
        segments(&without_halo(&fetched), self.letters, &mut tokenized.counts).map_err(TranscodeError::from)?;
        for track in tracks(found, self.both_strands) {
            let wanted = track.within(&fetched.region);
            self.track(&track, wanted, &mut tokenized.bases, write, progress)?;
        }
        Ok(tokenized)
    }

    /// Writes the tokens that start in a part of a track.
    fn track<E: From<TranscodeError>>(
        &self,
        track: &Track,
        wanted: Range<usize>,
        bases: &mut u64,
        write: &mut dyn FnMut(TokenAt) -> Result<(), E>,
        progress: Progress,
    ) -> Result<(), E> {
        let context = self.tokenizer.context().expect("a fixed tokenizer");
        let piece = match context {
            Context::After(_) | Context::Grid { .. } => PIECE,
            // Each piece of a run would need the whole of it.
            Context::Run | Context::Whole => track.bases.len().max(1),
        };
        for start in wanted.clone().step_by(piece) {
            let piece = start..(start + piece).min(wanted.end);
            let seen = context.widen(&track.bases, piece.clone());
            let tokens = self.tokenizer.encode(&track.bases[seen.clone()]).expect("a fixed tokenizer");
            for (&id, span) in tokens.levels[0].iter().zip(tokens.spans.iter()) {
                let span = seen.start + span.start..seen.start + span.end;
                if piece.contains(&span.start) {
                    write(TokenAt { record: track.record(), bases: track.span(&span), strand: track.strand(), id })?;
                }
            }
            *bases += piece.len() as u64;
            if progress(*bases).is_break() {
                return Err(TranscodeError::Interrupted.into());
            }
        }
        Ok(())
    }
}
