//! Writes a vocabulary and the ids of a genome: `vocab KIND GENOME OUT` leaves `OUT.json`, a `tokenizer.json`, and `OUT.u32`,
//! the ids of all records one after the other, with the special ids around each, as little-endian numbers of 32 bits.
//!
//! KIND is `character`, `kmer:K`, `blocks:K:v1`, `blocks:K:v2`, `bpe:FILE` (a `tokenizer.json`), or `train:SIZE:BASES`, which
//! learns from the first BASES bases of the genome. `benches/tokenizers_check.py` compares the ids with those of Python's
//! `tokenizers`.

use std::{error::Error, fs, io::Write, path::Path};

use vqdna_data::{
    alphabet::BaseId,
    fasta::read,
    segment::{Counts, Policy, segments},
    vocab::{
        Blocks, BlocksConfig, Bpe, BpeConfig, Character, CharacterConfig, Kmer, KmerConfig, Special, bpe::Trainer,
    },
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, genome, out] = &arguments[..] else { return Err("vocab KIND GENOME OUT".into()) };
    let records = records(Path::new(genome))?;
    match kind.split(':').collect::<Vec<_>>()[..] {
        ["character"] => {
            let characters = Character::new(CharacterConfig::default())?;
            write(out, &records, &characters.hugging_face(), characters.special(), |bases| {
                characters.encode(bases).levels.remove(0)
            })
        }
        ["kmer", k] => {
            let kmers = Kmer::new(KmerConfig { k: k.parse()? })?;
            write(out, &records, &kmers.hugging_face(), kmers.special(), |bases| kmers.encode(bases).levels.remove(0))
        }
        ["blocks", k, layout] => {
            let blocks = Blocks::new(BlocksConfig { k: k.parse()?, layout: layout.parse()? })?;
            write(out, &records, &blocks.hugging_face(), blocks.special(), |bases| {
                blocks.encode(bases).levels.remove(0)
            })
        }
        ["bpe", file] => write_bpe(out, &records, &Bpe::read(Path::new(file))?),
        ["train", size, bases] => {
            let mut trainer = Trainer::new(BpeConfig { size: size.parse()?, ..BpeConfig::default() })?;
            let mut rest: usize = bases.parse()?;
            for record in &records {
                let used = record.len().min(rest);
                trainer.add(&record[..used]);
                rest -= used;
            }
            write_bpe(out, &records, &trainer.train())
        }
        _ => Err(format!("{kind} is not a kind of vocabulary").into()),
    }
}

/// The bases of each record.
fn records(genome: &Path) -> Result<Vec<Vec<BaseId>>, Box<dyn Error>> {
    let mut all = Vec::new();
    for record in read(genome)? {
        let segments = segments(&record?, Policy::default(), &mut Counts::default())?;
        all.extend(segments.into_iter().map(|segment| segment.bases));
    }
    Ok(all)
}

fn write_bpe(out: &str, records: &[Vec<BaseId>], bpe: &Bpe) -> Result<(), Box<dyn Error>> {
    write(out, records, &bpe.hugging_face(), bpe.special(), |bases| bpe.encode(bases).levels.remove(0))
}

fn write(
    out: &str,
    records: &[Vec<BaseId>],
    tokenizer: &serde_json::Value,
    special: Special,
    encode: impl Fn(&[BaseId]) -> Vec<u32>,
) -> Result<(), Box<dyn Error>> {
    fs::write(format!("{out}.json"), tokenizer.to_string())?;
    let mut file = std::io::BufWriter::new(fs::File::create(format!("{out}.u32"))?);
    for record in records {
        for id in special.first.into_iter().chain(encode(record)).chain(special.last) {
            file.write_all(&id.to_le_bytes())?;
        }
    }
    Ok(file.flush()?)
}
