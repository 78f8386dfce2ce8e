//! Codes back to bases.

use burn::prelude::*;
use std::collections::HashMap;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use vqdna_data::alphabet::{BaseId, N, letter, reverse_complement};
use vqdna_data::codes::{Reader, Row};
use vqdna_data::corpus::Corpus;
use vqdna_data::span::Strand;

use super::TranscodeError;
use super::encode::{BF16, Progress};
use crate::model_dir::Vocabulary;
use crate::ops;

/// Bases of a FASTA line.
const LINE: usize = 60;

/// How codes are decoded.
#[derive(Clone, Debug)]
pub struct Decode<'a> {
    /// The vocabulary they were written with.
    pub vocabulary: &'a Vocabulary,
    /// Where it computes.
    pub device: &'a Device,
    /// Positions decoded together, without their context. Does not change the result.
    pub chunk: usize,
}

/// What was decoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Bases written.
    pub bases: u64,
    /// Bases that the original knows (no N).
    pub compared: u64,
    /// Those among them that were decoded right.
    pub right: u64,
}

impl Decoded {
    /// Share of bases decoded right; none without an original.
    #[must_use]
    pub fn accuracy(&self) -> Option<f64> {
        (self.compared > 0).then(|| self.right as f64 / self.compared as f64)
    }
}

impl Decode<'_> {
    /// Decodes a file of codes to FASTA, and compares with the original if there is one. A run of neighbouring rows becomes
    /// one record, named as its contig if it starts where the contig does, else with its first base (`chr1:1001`, 1-based).
    /// The reverse strand is written as it reads, named with the base it starts from: `chr1:2000(-)`.
    ///
    /// # Errors
    /// If the codes belong to another vocabulary, cannot be read, or the output cannot be written.
    pub fn run(
        &self,
        codes: &Path,
        original: Option<&Corpus>,
        output: &mut dyn Write,
        progress: Progress,
    ) -> Result<Decoded, TranscodeError> {
        let reader = Reader::open(codes)?;
        self.check(codes, &reader)?;
        let original = original.map(Original::new);
        let mut stream =
            Stream { job: self, original, output: FastaWriter::new(output), run: None, decoded: Decoded::default() };
        ops::with_frozen_weights(|| {
            for row in reader {
                stream.push(row?)?;
                if progress(stream.decoded.bases).is_break() {
                    return Err(TranscodeError::Interrupted);
                }
            }
            stream.finish()
        })?;
        Ok(stream.decoded)
    }

    fn check(&self, path: &Path, reader: &Reader) -> Result<(), TranscodeError> {
        let sizes = self.vocabulary.tokenizer.quantizer.codebook_sizes();
        let differs = |what, found: String, expected: String| {
            Err(TranscodeError::OtherVocabulary { path: path.to_owned(), what, found, expected })
        };
        let header = reader.header();
        if header.codebook_sizes != sizes {
            return differs("codebook sizes", format!("{:?}", header.codebook_sizes), format!("{sizes:?}"));
        }
        // Codes computed in bf16 stand for the same vectors.
        if header.model.strip_suffix(BF16).unwrap_or(&header.model) != self.vocabulary.digest {
            return differs("digest", header.model.clone(), self.vocabulary.digest.clone());
        }
        Ok(())
    }

    /// Most likely bases of neighbouring positions.
    fn bases(&self, codes: &[&[u16]]) -> Vec<BaseId> {
        let device = &self.device.clone().without_autodiff();
        let length = codes[0].len();
        let levels: Vec<Tensor<2, Int>> = codes
            .iter()
            .map(|codes| {
                let values: Vec<i32> = codes.iter().map(|&code| i32::from(code)).collect();
                Tensor::from_data(TensorData::new(values, [1, length]), device)
            })
            .collect();
        let padding = Tensor::from_data(TensorData::new(vec![false; length], [1, length]), device);
        let logits = self.vocabulary.model.decode(&levels, &padding);
        let best: Vec<i32> = logits.argmax(2).into_data().try_into_vec_as().expect("bases fit i32");
        best.into_iter().map(|base| base as BaseId).collect()
    }
}

/// Rows in, FASTA out; holds a chunk and its context at a time.
struct Stream<'a, 'w> {
    job: &'a Decode<'a>,
    original: Option<Original<'a>>,
    output: FastaWriter<'w>,
    run: Option<Run>,
    decoded: Decoded,
}

/// Neighbouring rows of one record and strand.
struct Run {
    record: Arc<str>,
    strand: Strand,
    /// Where the next row must start (forward strand) or end (reverse strand).
    next: u64,
    /// Where the next base to be written lies: its start, or its end on the reverse strand.
    written: u64,
    /// Codes not yet behind all contexts, per level.
    codes: Vec<Vec<u16>>,
    /// How many of them, in front, are context only.
    context: usize,
}

impl Run {
    fn start(row: &Row) -> Self {
        let at = if row.strand == Strand::Forward { row.start } else { row.end };
        let codes = vec![Vec::new(); row.codes.len()];
        Self { record: Arc::clone(&row.record), strand: row.strand, next: at, written: at, codes, context: 0 }
    }

    fn continues_with(&self, row: &Row) -> bool {
        let at = if row.strand == Strand::Forward { row.start } else { row.end };
        self.record == row.record && self.strand == row.strand && self.next == at
    }
}

impl Stream<'_, '_> {
    fn push(&mut self, row: Row) -> Result<(), TranscodeError> {
        if !self.run.as_ref().is_some_and(|run| run.continues_with(&row)) {
            self.end_run()?;
            let run = Run::start(&row);
            self.output.record(&run).map_err(write_error)?;
            self.run = Some(run);
        }
        let Some(run) = &mut self.run else { return Ok(()) };
        run.next = if row.strand == Strand::Forward { row.end } else { row.start };
        run.codes.iter_mut().zip(&row.codes).for_each(|(all, new)| all.extend_from_slice(new));
        self.decode_ready(false)
    }

    /// Decodes what has all its context, or everything at the end of a run.
    fn decode_ready(&mut self, at_end: bool) -> Result<(), TranscodeError> {
        let halo = self.job.vocabulary.tokenizer.decoder_halo();
        let Some(run) = &mut self.run else { return Ok(()) };
        loop {
            let waiting = run.codes[0].len() - run.context;
            let ready = if at_end { waiting } else { waiting.saturating_sub(halo) };
            let take = ready.min(self.job.chunk);
            if take == 0 || (!at_end && ready < self.job.chunk) {
                return Ok(());
            }
            let end = (run.context + take + halo).min(run.codes[0].len());
            let seen: Vec<&[u16]> = run.codes.iter().map(|codes| &codes[..end]).collect();
            let bases = self.job.bases(&seen)[run.context..run.context + take].to_vec();
            self.output.bases(&bases).map_err(write_error)?;
            let span = match run.strand {
                Strand::Forward => run.written..run.written + take as u64,
                Strand::Reverse => run.written - take as u64..run.written,
            };
            run.written = if run.strand == Strand::Forward { span.end } else { span.start };
            self.decoded.bases += take as u64;
            if let Some(original) = &self.original {
                let (compared, right) = original.compare(&run.record, span.start, span.end, run.strand, bases)?;
                self.decoded.compared += compared;
                self.decoded.right += right;
            }
            let keep = (run.context + take).min(halo);
            let drop = run.context + take - keep;
            run.codes.iter_mut().for_each(|codes| {
                codes.drain(..drop);
            });
            run.context = keep;
        }
    }

    fn end_run(&mut self) -> Result<(), TranscodeError> {
        self.decode_ready(true)?;
        self.run = None;
        self.output.end_record().map_err(write_error)
    }

    fn finish(&mut self) -> Result<(), TranscodeError> {
        self.end_run()?;
        self.output.inner.flush().map_err(write_error)
    }
}

fn write_error(source: std::io::Error) -> TranscodeError {
    TranscodeError::Io { what: "writing FASTA".to_owned(), source }
}

/// FASTA with lines of [`LINE`] bases.
struct FastaWriter<'w> {
    inner: BufWriter<&'w mut dyn Write>,
    column: usize,
}

impl<'w> FastaWriter<'w> {
    fn new(output: &'w mut dyn Write) -> Self {
        Self { inner: BufWriter::new(output), column: 0 }
    }

    fn record(&mut self, run: &Run) -> std::io::Result<()> {
        match run.strand {
            Strand::Forward if run.written == 0 => writeln!(self.inner, ">{}", run.record),
            Strand::Forward => writeln!(self.inner, ">{}:{}", run.record, run.written + 1),
            Strand::Reverse => writeln!(self.inner, ">{}:{}(-)", run.record, run.written),
        }
    }

    fn bases(&mut self, bases: &[BaseId]) -> std::io::Result<()> {
        for &base in bases {
            self.inner.write_all(&[letter(base)])?;
            self.column += 1;
            if self.column == LINE {
                self.end_record()?;
            }
        }
        Ok(())
    }

    fn end_record(&mut self) -> std::io::Result<()> {
        if self.column > 0 {
            self.column = 0;
            self.inner.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// The genome that codes were made from.
struct Original<'a> {
    corpus: &'a Corpus,
    /// Segments of each contig, in its order.
    contigs: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Original<'a> {
    fn new(corpus: &'a Corpus) -> Self {
        let mut contigs: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, segment) in corpus.segments().iter().enumerate() {
            contigs.entry(&segment.contig).or_default().push(index);
        }
        Self { corpus, contigs }
    }

    /// How many bases could be compared, and how many are right.
    fn compare(
        &self,
        record: &str,
        start: u64,
        end: u64,
        strand: Strand,
        mut decoded: Vec<BaseId>,
    ) -> Result<(u64, u64), TranscodeError> {
        let missing = || TranscodeError::NotInOriginal { record: record.to_owned(), start, end };
        let segment = |index: usize| &self.corpus.segments()[index];
        // The last that begins at the first base or before: segments lie in order and do not overlap.
        let all = self.contigs.get(record).map_or(&[][..], Vec::as_slice);
        let behind = all.partition_point(|&index| segment(index).start <= start);
        let last = all[..behind].last().copied();
        let index = last.filter(|&index| end <= segment(index).start + segment(index).bases).ok_or_else(missing)?;
        let offset = segment(index).start;
        let range = (start - offset) as usize..(end - offset) as usize;
        let read = self.corpus.window(index, range);
        let (original, _) =
            read.map_err(|source| TranscodeError::Io { what: "reading the original".to_owned(), source })?;
        if strand == Strand::Reverse {
            reverse_complement(&mut decoded);
        }
        let known = original.iter().zip(&decoded).filter(|(original, _)| **original != N);
        Ok(known.fold((0, 0), |(all, right), (a, b)| (all + 1, right + u64::from(a == b))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vqdna_data::alphabet::AmbiguousPolicy;
    use vqdna_data::segment::Policy;

    /// A search among all segments for each would take ten thousand million steps.
    #[test]
    fn an_original_of_very_many_segments_is_compared() {
        const SEGMENTS: u64 = 100_000;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("gaps.fa");
        let contig = |name: &str| format!(">{name}\n{}\n", "ACN".repeat(SEGMENTS as usize));
        std::fs::write(&path, [contig("a"), contig("b")].concat()).expect("written");
        let letters = Policy { ambiguous: AmbiguousPolicy::Split, ..Policy::default() };
        let corpus = Corpus::read(&[path], letters, u64::MAX).expect("readable");
        let original = Original::new(&corpus);
        for start in (0..SEGMENTS).map(|number| 3 * number) {
            let compared = original.compare("b", start, start + 2, Strand::Forward, vec![0, 2]).expect("there");
            assert_eq!(compared, (2, 1));
        }
        assert!(original.compare("b", 1, 3, Strand::Forward, vec![0, 2]).is_err(), "into a gap");
        assert!(original.compare("b", 2, 3, Strand::Forward, vec![0]).is_err(), "a gap");
        assert!(original.compare("c", 0, 1, Strand::Forward, vec![0]).is_err(), "no such contig");
    }
}
