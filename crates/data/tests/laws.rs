//! What must hold for every input.

use std::fs;

use proptest::{collection::vec, prelude::*};
use vqdna_data::{
    alphabet::{BASES, reverse_complement},
    corpus::Corpus,
    fasta::{Record, fetch_padded, read},
    segment::{Counts, Policy, segments},
    span::Region,
    split::{Split, SplitPolicy},
    window::Windowing,
};

/// Bytes that look enough like FASTA or FASTQ to get past the first checks.
fn nearly_sequences() -> impl Strategy<Value = Vec<u8>> {
    const PIECES: [&[u8]; 13] =
        [b">", b"@", b"+", b"\n", b"\r\n", b"\r", b" ", b"ACGT", b"name", b"IIII", b"-", b"\0", b"\xff"];
    let piece = prop::sample::select(&PIECES[..]);
    vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// How each compressed format starts.
const MAGICS: [&[u8]; 5] = [
    b"\x1f\x8b\x08\x04\x00\x00\x00\x00\x00\xff\x06\x00BC\x02\x00",
    b"\x1f\x8b\x08\x00",
    b"BZh9",
    b"\xfd7zXZ\0",
    b"\x28\xb5\x2f\xfd",
];

fn letters() -> impl Strategy<Value = String> {
    "[ACGTacgtNnR]{0,200}"
}

/// Reads bytes as a file, records and regions; the outcome matters only in that there is one.
fn read_anything(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    fs::write(&path, bytes).unwrap();
    for record in read(&path).into_iter().flatten().flatten() {
        let _ = segments(&record, Policy::default(), &mut Counts::default());
    }
    for _ in 0..2 {
        let _ = fetch_padded(&path, "name:2-3", 1);
    }
    // The same bytes as an index of a sound file.
    let path = folder.path().join("sound");
    fs::write(&path, ">name\nACGT\nACGT\n").unwrap();
    fs::write(folder.path().join("sound.fai"), bytes).unwrap();
    let _ = fetch_padded(&path, "name:2-3", 1);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_anything(&bytes);
    }

    #[test]
    fn no_text_makes_it_panic(bytes in nearly_sequences()) {
        read_anything(&bytes);
    }

    #[test]
    fn no_compressed_bytes_make_it_panic(
        magic in prop::sample::select(&MAGICS[..]),
        bytes in vec(any::<u8>(), 0..100),
    ) {
        read_anything(&[magic, &bytes].concat());
    }

    #[test]
    fn the_reverse_complement_of_the_reverse_complement_is_the_sequence(bases in vec(0..5u8, 0..100)) {
        let mut twice = bases.clone();
        reverse_complement(&mut twice);
        reverse_complement(&mut twice);
        prop_assert_eq!(twice, bases);
    }

    #[test]
    fn cores_tile_the_sequence(bases in 0..2000usize, length in 1..300usize, halo in 0..100usize) {
        let windowing = Windowing { length, stride: length, halo };
        let cores = windowing.windows(bases).flat_map(|window| window.core);
        prop_assert!(cores.eq(0..bases));
    }

    #[test]
    fn windows_cover_every_base(bases in 0..2000usize, length in 1..300usize, stride in 1..300usize, halo in 0..100usize) {
        let windowing = Windowing { length, stride: stride.min(length), halo };
        let mut covered = 0;
        for window in windowing.windows(bases) {
            prop_assert!(window.core.start <= covered && covered < window.core.end);
            prop_assert_eq!(&window.context, &(window.core.start.saturating_sub(halo)..bases.min(window.core.end + halo)));
            covered = window.core.end;
        }
        prop_assert_eq!(covered, bases);
    }

    #[test]
    fn a_printed_region_is_parsed_back(contig in "[A-Za-z0-9_.:*-]{1,12}", start in 0..u64::MAX - 1, bases in proptest::option::of(1..1000u64)) {
        let region = Region { contig: contig.clone(), start, end: bases.map(|bases| start.saturating_add(bases)) };
        prop_assert_eq!(Region::parse(&region.to_string(), [contig.as_str()]), Ok(region));
    }

    #[test]
    fn no_region_string_makes_it_panic(text in "[a-c0-9:,-]{0,12}") {
        if let Ok(region) = Region::parse(&text, ["a", "a:1", "b:2-3"]) {
            let _ = region.on_contig(5);
        }
    }

    #[test]
    fn a_split_depends_on_nothing_but_its_arguments(seed: u64, start: u64, valid in 0.0..0.5, test in 0.0..0.49) {
        let policy = SplitPolicy::Hash { valid, test };
        prop_assert_eq!(policy.assign(seed, "chr1", start), policy.clone().assign(seed, "chr1", start));
        // Holding out more never returns a window to training.
        let more = SplitPolicy::Hash { valid: valid + 0.01, test };
        if policy.assign(seed, "chr1", start) != Split::Train {
            prop_assert_ne!(more.assign(seed, "chr1", start), Split::Train);
        }
    }

    #[test]
    fn segments_hold_what_the_policy_leaves(letters in letters()) {
        let record = Record::in_memory("x", letters.as_bytes());
        let mut counts = Counts::default();
        for segment in segments(&record, Policy::default(), &mut counts).unwrap() {
            for (index, base) in segment.bases.iter().enumerate() {
                let letter = letters.as_bytes()[index];
                let is_masked = segment.soft_masked.iter().any(|run| run.contains(&index));
                prop_assert_eq!(is_masked, letter.is_ascii_lowercase());
                prop_assert!(BASES[usize::from(*base)] == letter.to_ascii_uppercase() || *base == 4);
            }
        }
        prop_assert_eq!(counts.bases, letters.len() as u64);
    }

    #[test]
    fn a_corpus_is_the_same_in_memory_and_spooled(records in vec(letters(), 1..5), limit in 0..400u64, cut in any::<prop::sample::Index>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.fa");
        let text: Vec<_> = records.iter().enumerate().map(|(index, bases)| format!(">{index}\n{bases}\n")).collect();
        fs::write(&path, text.concat()).unwrap();
        let paths = [path];
        let whole = Corpus::read(&paths, Policy::default(), u64::MAX).unwrap();
        let limited = Corpus::read(&paths, Policy::default(), limit).unwrap();
        prop_assert_eq!(limited.is_spooled(), whole.counts().bases > limit);
        prop_assert_eq!(whole.segments(), limited.segments());
        for (index, segment) in whole.segments().iter().enumerate() {
            let bases = usize::try_from(segment.bases).unwrap();
            let cut = cut.index(bases);
            for range in [0..bases, 0..cut, cut..bases] {
                prop_assert_eq!(whole.window(index, range.clone()).unwrap(), limited.window(index, range).unwrap());
            }
        }
    }

    #[test]
    fn a_fetched_region_is_a_stretch_of_the_record(letters in "[ACGTacgtN]{1,200}", width in 1..70usize, start in 0..200u64, bases in 1..100u64, halo in 0..50u64) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.fa");
        let lines: Vec<_> = letters.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).unwrap()).collect();
        fs::write(&path, format!(">before\nAC\n>x\n{}\n", lines.join("\n"))).unwrap();
        let start = start % letters.len() as u64;
        let fetched = fetch_padded(&path, &format!("x:{}-{}", start + 1, start + bases), halo).unwrap();
        let end = (start + bases).min(letters.len() as u64);
        prop_assert_eq!(&fetched.region, &(start..end));
        let first = usize::try_from(fetched.record.start).unwrap();
        prop_assert_eq!(fetched.record.start, start.saturating_sub(halo));
        prop_assert_eq!(first + fetched.record.bases.len(), usize::try_from(end + halo).unwrap().min(letters.len()));
        prop_assert_eq!(&fetched.record.bases[..], &letters.as_bytes()[first..first + fetched.record.bases.len()]);
    }
}
