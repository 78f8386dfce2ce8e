//! Codes of pieces joined to rows.

use std::sync::Arc;
use vqdna_data::codes::{CodesError, ROW_BASES, Row, Writer};
use vqdna_data::span::Strand;

use super::pieces::Place;

/// Codes that were computed together.
pub(super) struct Coded {
    pub(super) places: Vec<Place>,
    /// Positions of each piece, context and padding included.
    pub(super) width: usize,
    /// Per level, `[pieces, width]`.
    pub(super) levels: Vec<Vec<i32>>,
}

/// Joins the codes of neighbouring pieces to rows of [`ROW_BASES`], and writes them.
pub(super) struct Rows<'w> {
    writer: &'w mut Writer,
    /// The row in the making, if it holds any codes.
    row: Option<Row>,
}

impl<'w> Rows<'w> {
    pub(super) fn new(writer: &'w mut Writer) -> Self {
        Self { writer, row: None }
    }

    pub(super) fn push(&mut self, batch: &Coded) -> Result<(), CodesError> {
        for (n, place) in batch.places.iter().enumerate() {
            let first = n * batch.width + place.skip;
            let codes: Vec<&[i32]> = batch.levels.iter().map(|codes| &codes[first..first + place.bases()]).collect();
            self.push_piece(place, &codes)?;
        }
        Ok(())
    }

    fn push_piece(&mut self, place: &Place, codes: &[&[i32]]) -> Result<(), CodesError> {
        let length = place.bases();
        let mut done = 0;
        while done < length {
            // The piece starts where the row ends, or begins a row.
            let row = self.row.get_or_insert_with(|| {
                let at = match place.strand {
                    Strand::Forward => place.span.start + done as u64,
                    Strand::Reverse => place.span.end - done as u64,
                };
                let codes = vec![Vec::with_capacity(ROW_BASES); codes.len()];
                Row { record: Arc::clone(&place.record), start: at, end: at, strand: place.strand, codes }
            });
            let take = (ROW_BASES - (row.end - row.start) as usize).min(length - done);
            match place.strand {
                Strand::Forward => row.end += take as u64,
                Strand::Reverse => row.start -= take as u64,
            }
            for (row, codes) in row.codes.iter_mut().zip(codes) {
                row.extend(codes[done..done + take].iter().map(|&code| code as u16));
            }
            done += take;
            if (row.end - row.start) as usize == ROW_BASES || (done == length && place.ends_track) {
                self.writer.write(row)?;
                self.row = None;
            }
        }
        Ok(())
    }
}
