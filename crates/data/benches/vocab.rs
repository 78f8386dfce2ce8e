//! Speed of the fixed tokenizers: `cargo bench -p vqdna-data --bench vocab [-- GENOME...]`; without a genome, on random bases.
//!
//! Encoding is the best of several calls on one thread, in bases per second. Learning reads at most 40 Mb; its memory is the most
//! that the process has had, which holds the genome too.
#![allow(clippy::print_stdout, missing_docs, reason = "a program that prints its figures")]
#![allow(clippy::cast_precision_loss, reason = "figures")]

use std::{fs, hint::black_box, path::Path, time::Instant};

use vqdna_data::{
    alphabet::{BaseId, Letter, N, classify},
    fasta::read,
    synthetic,
    tokens::Tokens,
    vocab::{Blocks, BlocksConfig, BpeConfig, Character, CharacterConfig, Kmer, KmerConfig, bpe::Trainer},
};

const MEGA: usize = 1_000_000;

fn main() {
    let genomes: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let bases = if genomes.is_empty() { ids(&synthetic::genome(1, 40 * MEGA, 0.4)) } else { concatenated(&genomes) };
    let corpus = &bases[..bases.len().min(40 * MEGA)];
    println!(
        "{:.1} Mb, of which {} N",
        bases.len() as f64 / 1e6,
        bases.iter().map(|&base| usize::from(base == N)).sum::<usize>()
    );

    let start = Instant::now();
    let mut trainer = Trainer::new(BpeConfig::default()).expect("sound");
    trainer.add(corpus);
    let bpe = trainer.train();
    let (time, megabases) = (start.elapsed().as_secs_f64(), corpus.len() as f64 / 1e6);
    println!("train BPE {:>5} ids      {megabases:6.1} Mb {time:9.2} s, {}", bpe.size(), peak_memory());

    let head = &bases[..bases.len().min(10 * MEGA)];
    let characters = Character::new(CharacterConfig::default()).expect("sound");
    line("characters", head, |bases| characters.encode(bases));
    for k in [3, 6, 8] {
        let kmers = Kmer::new(KmerConfig { k }).expect("sound");
        line(&format!("overlapping {k}-mers"), head, |bases| kmers.encode(bases));
    }
    for k in [3, 6] {
        let blocks = Blocks::new(BlocksConfig { k, ..BlocksConfig::default() }).expect("sound");
        line(&format!("non-overlapping {k}-mers"), head, |bases| blocks.encode(bases));
    }
    for length in [10_000, 100_000, MEGA, 10 * MEGA] {
        line("BPE", &head[..head.len().min(length)], |bases| bpe.encode(bases));
    }
    let repeats: Vec<BaseId> = [0].repeat(5 * MEGA).into_iter().chain([0, 3].repeat(5 * MEGA / 2)).collect();
    line("BPE, tandem repeats", &repeats, |bases| bpe.encode(bases));
}

fn concatenated(genomes: &[String]) -> Vec<BaseId> {
    let records = genomes.iter().flat_map(|genome| read(Path::new(genome)).expect("a genome"));
    records.flat_map(|record| ids(&record.expect("a record").bases)).collect()
}

fn ids(letters: &[u8]) -> Vec<BaseId> {
    let id = |&letter: &u8| if let Letter::Base(base) = classify(letter) { base } else { N };
    letters.iter().map(id).collect()
}

/// Prints the best time of a call.
fn line(name: &str, bases: &[BaseId], encode: impl Fn(&[BaseId]) -> Tokens) {
    let mut best = f64::INFINITY;
    let (mut tokens, mut calls) = (0, 0);
    let begin = Instant::now();
    while calls < 3 || (begin.elapsed().as_secs_f64() < 1.5 && calls < 1000) {
        let start = Instant::now();
        tokens = black_box(encode(bases)).len();
        best = best.min(start.elapsed().as_secs_f64());
        calls += 1;
    }
    let (kilobases, rate) = (bases.len() as f64 / 1e3, bases.len() as f64 / best / 1e6);
    println!(
        "{name:<24} {kilobases:8.0} kb {:9.3} ms {rate:8.1} MB/s, {:.2} bases per token",
        best * 1e3,
        bases.len() as f64 / tokens.max(1) as f64
    );
}

fn peak_memory() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.map_or_else(|| "peak memory unknown".to_owned(), |peak| format!("peak memory {}", peak.trim()))
}
