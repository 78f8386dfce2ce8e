//! Windows as their tokens, and the file in a run's folder that holds the codes of its corpus.
//!
//! ```text
//! codes/corpus.npy                 an array [bases, levels], as `vqdna tokenize` writes it
//! codes/corpus.npy.records.tsv     which rows of it belong to which record and strand
//! codes/provenance.json            what they were computed from, and their digests; written last, so that it vouches for the others
//! ```

use burn::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use vqdna_data::alphabet::N;
use vqdna_data::aside::write_aside;
use vqdna_data::bounded;
use vqdna_data::codes::{RandomReader, Writer};
use vqdna_data::corpus::{Corpus, SegmentInfo};
use vqdna_data::segment::Policy;
use vqdna_data::span::{Strand, StrandPolicy};
use vqdna_data::tokens::{Spans, Tokens};

use super::config::DataConfig;
use super::source::{Gather, Place};
use crate::batch::{Batch, HostWindow, TokenWindow, TokenWindows};
use crate::model_dir::Vocabulary;
use crate::ops::{self, Frozen, Precision};
use crate::tokenizer::Tokenizer;
use crate::transcode::TranscodeError;
use crate::transcode::encode::{Progress, Tokenize};

/// Windows as their tokens.
pub struct WindowTokens<'a> {
    /// Where the windows are.
    pub corpus: &'a Corpus,
    /// Whether tokens of soft-masked bases may be predicted.
    pub predicts_soft_masked: bool,
    /// Where the tokens come from.
    pub origin: Origin<'a>,
}

/// Where tokens come from. Codes are the same from a file and from a vocabulary.
pub enum Origin<'a> {
    /// Computed from the bases of a window alone, without a device.
    Bases(&'a Tokenizer),
    /// Read from a file.
    File(CodeFile),
    /// Computed by a vocabulary from a window and the neighbourhood that its codes see; with its weights as kernels read them.
    Vocabulary(&'a Vocabulary, Frozen),
}

/// Per level, the codes of a window.
type Levels = Vec<Vec<u16>>;

impl Gather for WindowTokens<'_> {
    type Batch = TokenWindows;

    fn gather(&self, places: &[Place], device: &Device) -> io::Result<TokenWindows> {
        let windows = places.iter().map(|place| place.read(self.corpus)).collect::<io::Result<Vec<_>>>()?;
        let codes = |levels: Levels| {
            let bases = levels.first().map_or(0, Vec::len);
            let wide = |level: Vec<u16>| level.into_iter().map(u32::from).collect();
            Tokens { levels: levels.into_iter().map(wide).collect(), spans: Spans::Bases(bases) }
        };
        let tokens: Vec<Tokens> = match &self.origin {
            Origin::Bases(tokenizer) => {
                let tokens = |window: &HostWindow| tokenizer.encode(&window.bases);
                windows.iter().map(tokens).collect::<Option<_>>().expect("tokens of bases alone")
            }
            Origin::File(file) => places.iter().map(|place| file.read(place).map(codes)).collect::<io::Result<_>>()?,
            Origin::Vocabulary(vocabulary, frozen) => {
                let found = frozen.run(|| encode(vocabulary, self.corpus, places, device))?;
                found.into_iter().map(codes).collect()
            }
        };
        let window = |((place, read), tokens): ((&Place, HostWindow), Tokens)| {
            let may_be = |base: usize| {
                read.bases[base] != N
                    && (self.predicts_soft_masked || !read.soft_masked.get(base).copied().unwrap_or(false))
            };
            let is_target = tokens.spans.iter().map(|mut bases| bases.all(may_be)).collect();
            TokenWindow { tokens, is_target, number: place.number }
        };
        let windows = places.iter().zip(windows).zip(tokens).map(window).collect();
        Ok(TokenWindows { windows, device: device.clone() })
    }
}

/// Codes of windows, each computed with the exact neighbourhood that its codes see, in f32 as in files.
fn encode(vocabulary: &Vocabulary, corpus: &Corpus, places: &[Place], device: &Device) -> io::Result<Vec<Levels>> {
    let halo = vocabulary.tokenizer.encoder_halo();
    let around = |place: &Place| {
        let end = corpus.segments()[place.segment].bases as usize;
        Place { bases: place.bases.start.saturating_sub(halo)..(place.bases.end + halo).min(end), ..place.clone() }
    };
    let windows = places.iter().map(|place| around(place).read(corpus)).collect::<io::Result<Vec<_>>>()?;
    let batch = Batch::new(&windows, 1.0, &device.clone().without_autodiff());
    let width = batch.bases.dims()[1];
    let codes = ops::with_precision(Precision::F32, || vocabulary.model.encode(&batch));
    let levels: Vec<Vec<i32>> =
        codes.into_iter().map(|codes| codes.into_data().try_into_vec_as().expect("codes fit i32")).collect();
    let of_window = |(row, place): (usize, &Place)| {
        let context = around(place).bases;
        let before = match place.strand {
            Strand::Forward => place.bases.start - context.start,
            Strand::Reverse => context.end - place.bases.end,
        };
        let first = row * width + before;
        let own = |codes: &Vec<i32>| codes[first..first + place.bases.len()].iter().map(|&code| code as u16).collect();
        levels.iter().map(own).collect()
    };
    Ok(places.iter().enumerate().map(of_window).collect())
}

/// The codes of a corpus in a file, read window by window.
pub struct CodeFile {
    codes: RandomReader,
    /// Stretch of the file that holds each segment of the corpus, on the forward strand.
    forward: Vec<usize>,
    /// The same on the reverse strand; empty if the file has none.
    reverse: Vec<usize>,
}

/// What codes were computed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Provenance {
    format_version: u64,
    /// Digest of the vocabulary.
    vocabulary: String,
    /// Digests of the inputs.
    inputs: Vec<String>,
    letters: Policy,
    both_strands: bool,
    /// BLAKE3 of the array and of the table beside it; empty before they are written.
    files: [String; 2],
}

/// What a run's folder holds of codes.
pub enum Found {
    /// Those of this vocabulary, these inputs and letters.
    Codes(CodeFile),
    /// The same, but they were changed or cut after they were written.
    Damaged,
    /// None, or others.
    Nothing,
}

/// Names of the folder and the files.
const FOLDER: &str = "codes";
const ARRAY: &str = "corpus.npy";
const RECORDS: &str = "corpus.npy.records.tsv";
const PROVENANCE: &str = "provenance.json";
/// Version of `provenance.json`; files of another one are computed anew.
const FORMAT_VERSION: u64 = 2;
/// Bytes of `provenance.json` beyond which it is none of ours.
const MOST: u64 = 16 << 20;
/// Bytes that are hashed before it is asked whether to go on.
const PART: usize = 1 << 24;
/// Bases computed in one piece; changes no code.
const CHUNK: usize = 4096;

impl CodeFile {
    /// The codes of a corpus that an earlier run left in a run's folder, if they are of the same vocabulary, inputs and letters, and are
    /// what was written.
    ///
    /// # Errors
    /// If `stop` is set while they are read.
    pub fn find(
        folder: &Path,
        vocabulary: &Vocabulary,
        corpus: &Corpus,
        data: &DataConfig,
        stop: &AtomicBool,
    ) -> Result<Found, TranscodeError> {
        let (folder, wanted) = (folder.join(FOLDER), Provenance::of(vocabulary, corpus, data));
        let Some(found) = Provenance::read(&folder) else { return Ok(Found::Nothing) };
        let both_strands = wanted.both_strands || found.both_strands;
        if found != (Provenance { both_strands, files: found.files.clone(), ..wanted.clone() }) {
            return Ok(Found::Nothing);
        }
        if Provenance::digests(&folder, stop)? != Some(found.files) {
            return Ok(Found::Damaged);
        }
        let opened = Self::open(&folder, &wanted, corpus).ok().flatten();
        Ok(opened.map_or(Found::Damaged, Found::Codes))
    }

    /// Computes the codes of a corpus into a run's folder, in place of what is there.
    ///
    /// # Errors
    /// If they cannot be computed or written, or `progress` breaks it off.
    pub fn compute(
        folder: &Path,
        vocabulary: &Vocabulary,
        corpus: &Corpus,
        data: &DataConfig,
        device: &Device,
        progress: Progress,
    ) -> Result<Self, TranscodeError> {
        let (folder, provenance) = (folder.join(FOLDER), Provenance::of(vocabulary, corpus, data));
        provenance.clone().compute(&folder, vocabulary, corpus, device, progress)?;
        Ok(Self::open(&folder, &provenance, corpus)?.expect("codes of every segment were just written"))
    }

    /// Opens the file; none if a segment is missing in it.
    fn open(folder: &Path, provenance: &Provenance, corpus: &Corpus) -> Result<Option<Self>, TranscodeError> {
        let codes = RandomReader::open(&folder.join(ARRAY))?;
        let of_strand = |strand| {
            let numbered = codes.stretches().iter().zip(0..).filter(|(stretch, _)| stretch.strand == strand);
            let known: HashMap<_, usize> =
                numbered.map(|(stretch, number)| ((&*stretch.record, stretch.start, stretch.end), number)).collect();
            let find = |(number, s): (usize, &SegmentInfo)| {
                known.get(&(&*corpus.filed_under(number), s.start, s.start + s.bases)).copied()
            };
            corpus.segments().iter().enumerate().map(find).collect::<Option<Vec<_>>>()
        };
        let forward = of_strand(Strand::Forward);
        let reverse = if provenance.both_strands { of_strand(Strand::Reverse) } else { Some(Vec::new()) };
        Ok(forward.zip(reverse).map(|(forward, reverse)| Self { codes, forward, reverse }))
    }

    /// The codes of a window on its strand.
    fn read(&self, place: &Place) -> io::Result<Levels> {
        let (stretch, bases) = match place.strand {
            Strand::Forward => (self.forward[place.segment], place.bases.clone()),
            Strand::Reverse => {
                let stretch = self.reverse[place.segment];
                let whole = &self.codes.stretches()[stretch];
                let bases = (whole.end - whole.start) as usize;
                (stretch, bases - place.bases.end..bases - place.bases.start)
            }
        };
        self.codes.read(stretch, bases).map_err(io::Error::other)
    }
}

impl Provenance {
    fn of(vocabulary: &Vocabulary, corpus: &Corpus, data: &DataConfig) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            vocabulary: vocabulary.digest.clone(),
            inputs: corpus.digests().iter().map(|input| input.blake3.clone()).collect(),
            letters: data.letters,
            both_strands: data.strand != StrandPolicy::Forward,
            files: [String::new(), String::new()],
        }
    }

    fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&bounded::read(&folder.join(PROVENANCE), MOST).ok()?).ok()
    }

    /// BLAKE3 of the array and of the table beside it; none if one cannot be read.
    fn digests(folder: &Path, stop: &AtomicBool) -> Result<Option<[String; 2]>, TranscodeError> {
        let [array, records] = [ARRAY, RECORDS].map(|name| digest(&folder.join(name), stop));
        Ok(array?.zip(records?).map(|(array, records)| [array, records]))
    }

    /// Computes the codes into a folder.
    fn compute(
        mut self,
        folder: &Path,
        vocabulary: &Vocabulary,
        corpus: &Corpus,
        device: &Device,
        progress: Progress,
    ) -> Result<(), TranscodeError> {
        let writing = |source| TranscodeError::Io { what: format!("writing {}", folder.display()), source };
        let provenance = folder.join(PROVENANCE);
        std::fs::create_dir_all(folder).map_err(writing)?;
        if provenance.exists() {
            std::fs::remove_file(&provenance).map_err(writing)?;
        }
        let job = Tokenize {
            vocabulary,
            device,
            letters: self.letters,
            both_strands: self.both_strands,
            chunk: CHUNK,
            batch: None,
            precision: Precision::F32,
        };
        let mut writer = Writer::create(&folder.join(ARRAY), &job.header(None))?;
        job.corpus(corpus, &mut writer, progress)?;
        writer.finish()?;
        if let Some(files) = Self::digests(folder, &AtomicBool::new(false))? {
            self.files = files;
        }
        let text = serde_json::to_vec_pretty(&self).expect("plain fields");
        write_aside(&provenance, &text).map_err(writing)
    }
}

/// BLAKE3 of a file; none if it cannot be read.
fn digest(path: &Path, stop: &AtomicBool) -> Result<Option<String>, TranscodeError> {
    let Ok((mut file, _)) = bounded::open(path) else { return Ok(None) };
    let (mut hash, mut part) = (blake3::Hasher::new(), vec![0; PART]);
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(TranscodeError::Interrupted);
        }
        match file.read(&mut part) {
            Ok(0) => return Ok(Some(hash.finalize().to_string())),
            Ok(bytes) => hash.update(&part[..bytes]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Ok(None),
        };
    }
}
