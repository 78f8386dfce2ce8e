//! The specimens of needletail, gathered from the test data of older libraries: each gives its sequences or one clear error.

use std::{
    fs,
    path::{Path, PathBuf},
};

use vqdna_data::{
    fasta::{FastaError, read},
    segment::{Counts, Policy, segments},
};

/// What a file gives: how many records and bases, or a part of the message.
enum Gives {
    Records(u64, u64),
    Error(&'static str),
}
use Gives::{Error, Records};

#[test]
fn every_specimen_gives_sequences_or_one_clear_error() {
    let Some(folder) = specimens() else { return };
    let mut failures = Vec::new();
    for (file, expected) in SPECIMENS {
        let path = folder.join(file);
        let outcome = read_all_letters(&path);
        let is_as_expected = match (&outcome, expected) {
            (Ok(counts), Records(records, bases)) => (counts.records, counts.bases) == (*records, *bases),
            (Err(error), Error(part)) => is_clear(error, &path) && error.to_string().contains(part),
            _ => false,
        };
        if !is_as_expected {
            let outcome = outcome.map(|counts| (counts.records, counts.bases)).map_err(|error| error.to_string());
            failures.push(format!("{file}: {outcome:?}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_table_holds_every_specimen() {
    let Some(folder) = specimens() else { return };
    for sub in ["specimen/FASTA", "specimen/FASTQ", "data"] {
        for entry in fs::read_dir(folder.join(sub)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let file = format!("{sub}/{name}");
            assert!(
                name == "index.toml" || SPECIMENS.iter().any(|(known, _)| *known == file),
                "{file} is not in the table"
            );
        }
    }
}

fn specimens() -> Option<PathBuf> {
    crate::shared("data/fasta_edge_cases/needletail/tests")
}

fn read_all_letters(path: &Path) -> Result<Counts, FastaError> {
    let mut counts = Counts::default();
    for record in read(path)? {
        segments(&record?, Policy::default(), &mut counts)?;
    }
    Ok(counts)
}

fn is_clear(error: &FastaError, path: &Path) -> bool {
    let message = error.to_string();
    message.contains(path.to_str().unwrap()) && !message.contains(char::is_control)
}

#[rustfmt::skip]
const SPECIMENS: &[(&str, Gives)] = &[
    ("specimen/FASTA/AAC12660.fasta", Error("base 4: `Q` is not a nucleotide code")),
    ("specimen/FASTA/EFTU_BACSU.fasta", Error("base 4: `E` is not a nucleotide code")),
    ("specimen/FASTA/HUMBETGLOA.fasta", Records(1, 3002)),
    ("specimen/FASTA/P02456.fasta", Error("base 6: `Z` is not a nucleotide code")),
    ("specimen/FASTA/alnfile.fasta", Error("base 2: `I` is not a nucleotide code")),
    ("specimen/FASTA/amino.fasta", Error("base 5: `F` is not a nucleotide code")),
    ("specimen/FASTA/aster.fasta", Error("base 6: `P` is not a nucleotide code")),
    ("specimen/FASTA/badfasta.fasta", Records(3, 991)),
    ("specimen/FASTA/bug2901.fasta", Error("base 24: `-` is a gap")),
    ("specimen/FASTA/centaurea.fasta", Records(1, 1002)),
    ("specimen/FASTA/cysprot.fasta", Error("base 4: `I` is not a nucleotide code")),
    ("specimen/FASTA/cysprot1.fasta", Error("base 4: `I` is not a nucleotide code")),
    ("specimen/FASTA/cysprot1a.fasta", Error("base 4: `I` is not a nucleotide code")),
    ("specimen/FASTA/cysprot1b.fasta", Error("base 5: `L` is not a nucleotide code")),
    ("specimen/FASTA/dna1.fasta", Records(1, 210)),
    ("specimen/FASTA/dna2.fasta", Records(2, 560)),
    ("specimen/FASTA/dnaE-bsub-prot.fasta", Error("base 5: `I` is not a nucleotide code")),
    ("specimen/FASTA/dnaE-bsub.fasta", Records(1, 2001)),
    ("specimen/FASTA/ecolitst.fasta", Error("base 4: `L` is not a nucleotide code")),
    ("specimen/FASTA/elderberry.fasta", Records(1, 2050)),
    ("specimen/FASTA/example1.txt", Error("line 48: record `At1g65300:` has the name of an earlier record")),
    ("specimen/FASTA/example2.txt", Records(1, 1131)),
    ("specimen/FASTA/f001.fasta", Error("base 2: `E` is not a nucleotide code")),
    ("specimen/FASTA/f002.fasta", Records(3, 1517)),
    ("specimen/FASTA/f003.fasta", Error("line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `#`")),
    ("specimen/FASTA/fa01.fasta", Error("base 2: `P` is not a nucleotide code")),
    ("specimen/FASTA/forward_primer.fasta", Records(1, 20)),
    ("specimen/FASTA/forward_reverse_primers.fasta", Records(2, 35)),
    ("specimen/FASTA/genomic-seq.fasta", Records(1, 168_628)),
    ("specimen/FASTA/hs_owlmonkey.fasta", Error("base 28: `-` is a gap")),
    ("specimen/FASTA/lavender.fasta", Records(1, 550)),
    ("specimen/FASTA/loveliesbleeding.fasta", Error("base 1: `X` is not a nucleotide code")),
    ("specimen/FASTA/lupine.fasta", Records(1, 655)),
    ("specimen/FASTA/multi_1.fasta", Error("base 5: `E` is not a nucleotide code")),
    ("specimen/FASTA/multi_2.fasta", Error("base 5: `E` is not a nucleotide code")),
    ("specimen/FASTA/phlox.fasta", Records(1, 623)),
    ("specimen/FASTA/pictogram.fasta", Error("line 7: record `seq3` has the name of an earlier record")),
    ("specimen/FASTA/primedseq.fasta", Records(1, 218)),
    ("specimen/FASTA/rose.fasta", Error("base 2: `E` is not a nucleotide code")),
    ("specimen/FASTA/rosemary.fasta", Error("base 3: `P` is not a nucleotide code")),
    ("specimen/FASTA/spaced_fasta.fasta", Records(37, 12_637)),
    ("specimen/FASTA/sweetpea.fasta", Records(1, 309)),
    ("specimen/FASTA/test.fasta", Error("base 6: `Q` is not a nucleotide code")),
    ("specimen/FASTA/testaln.fasta", Error("base 2: `P` is not a nucleotide code")),
    ("specimen/FASTA/testaln2.fasta", Error("base 2: `P` is not a nucleotide code")),
    ("specimen/FASTA/wisteria.fasta", Records(1, 2551)),
    ("specimen/FASTQ/error_diff_ids.fastq", Error("line 9: record `SLXA-B3_649_FC8437_R1_1_1_850_123` has another name after its `+`")),
    ("specimen/FASTQ/error_double_qual.fastq", Error("line 13: record should start with `@` but starts with `+`")),
    ("specimen/FASTQ/error_double_seq.fastq", Error("line 15: record `SLXA-B3_649_FC8437_R1_1_1_362_549` should have `+` on its third line but has `@`")),
    ("specimen/FASTQ/error_long_qual.fastq", Error("line 13: record `SLXA-B3_649_FC8437_R1_1_1_362_549` has 25 bases but 26 qualities")),
    ("specimen/FASTQ/error_no_qual.fastq", Error("line 1: record `SLXA-B3_649_FC8437_R1_1_1_610_79` has 25 bases but 0 qualities")),
    ("specimen/FASTQ/error_qual_del.fastq", Error("line 13: record `SLXA-B3_649_FC8437_R1_1_1_362_549` has `\\x7f` among its qualities")),
    ("specimen/FASTQ/error_qual_escape.fastq", Error("line 17: record `SLXA-B3_649_FC8437_R1_1_1_183_714` has `\\x1b` among its qualities")),
    ("specimen/FASTQ/error_qual_null.fastq", Error("line 1: record `SLXA-B3_649_FC8437_R1_1_1_850_123` has `\\x00` among its qualities")),
    ("specimen/FASTQ/error_qual_space.fastq", Error("line 13: record `SLXA-B3_649_FC8437_R1_1_1_362_549` has ` ` among its qualities")),
    ("specimen/FASTQ/error_qual_tab.fastq", Error("line 17: record `SLXA-B3_649_FC8437_R1_1_1_183_714` has `\\t` among its qualities")),
    ("specimen/FASTQ/error_qual_unit_sep.fastq", Error("line 9: record `SLXA-B3_649_FC8437_R1_1_1_850_123` has `\\x1f` among its qualities")),
    ("specimen/FASTQ/error_qual_vtab.fastq", Error("line 1: record `SLXA-B3_649_FC8437_R1_1_1_610_79` has `\\x0b` among its qualities")),
    ("specimen/FASTQ/error_short_qual.fastq", Error("line 9: record `SLXA-B3_649_FC8437_R1_1_1_850_123` has 25 bases but 24 qualities")),
    ("specimen/FASTQ/error_spaces.fastq", Error("line 1: record `SLXA-B3_649_FC8437_R1_1_1_610_79` has ` ` among its qualities")),
    ("specimen/FASTQ/error_tabs.fastq", Error("line 1: record `SLXA-B3_649_FC8437_R1_1_1_610_79` has `\\t` among its qualities")),
    ("specimen/FASTQ/error_trunc_at_plus.fastq", Error("line 19: record `SLXA-B3_649_FC8437_R1_1_1_183_714` should have `+` on its third line but has `\\n`")),
    ("specimen/FASTQ/error_trunc_at_qual.fastq", Error("line 17: record `SLXA-B3_649_FC8437_R1_1_1_183_714` has 25 bases but 0 qualities")),
    ("specimen/FASTQ/error_trunc_at_seq.fastq", Error("line 19: record `SLXA-B3_649_FC8437_R1_1_1_183_714` is cut off: the file ends within it")),
    ("specimen/FASTQ/error_trunc_in_plus.fastq", Error("line 19: record `SLXA-B3_649_FC8437_R1_1_1_183_714` is cut off: the file ends within it")),
    ("specimen/FASTQ/error_trunc_in_qual.fastq", Error("line 17: record `SLXA-B3_649_FC8437_R1_1_1_183_714` has 25 bases but 24 qualities")),
    ("specimen/FASTQ/error_trunc_in_seq.fastq", Error("line 18: record `SLXA-B3_649_FC8437_R1_1_1_183_714` is cut off: the file ends within it")),
    ("specimen/FASTQ/error_trunc_in_title.fastq", Error("line 17: record is cut off: the file ends within it")),
    ("specimen/FASTQ/example.fastq", Records(3, 75)),
    ("specimen/FASTQ/example_dos.fastq", Records(3, 75)),
    ("specimen/FASTQ/illumina_faked.fastq", Records(1, 41)),
    ("specimen/FASTQ/illumina_full_range_as_illumina.fastq", Records(2, 126)),
    ("specimen/FASTQ/illumina_full_range_as_sanger.fastq", Records(2, 126)),
    ("specimen/FASTQ/illumina_full_range_as_solexa.fastq", Records(2, 126)),
    ("specimen/FASTQ/illumina_full_range_original_illumina.fastq", Records(2, 126)),
    ("specimen/FASTQ/longreads_as_illumina.fastq", Records(10, 3665)),
    ("specimen/FASTQ/longreads_as_sanger.fastq", Records(10, 3665)),
    ("specimen/FASTQ/longreads_as_solexa.fastq", Records(10, 3665)),
    ("specimen/FASTQ/longreads_original_sanger.fastq", Error("line 3: record `FSRRS4401BE7HA` should have `+` on its third line but has `G`")),
    ("specimen/FASTQ/misc_dna_as_illumina.fastq", Records(4, 153)),
    ("specimen/FASTQ/misc_dna_as_sanger.fastq", Records(4, 153)),
    ("specimen/FASTQ/misc_dna_as_solexa.fastq", Records(4, 153)),
    ("specimen/FASTQ/misc_dna_original_sanger.fastq", Records(4, 153)),
    ("specimen/FASTQ/misc_rna_as_illumina.fastq", Records(4, 153)),
    ("specimen/FASTQ/misc_rna_as_sanger.fastq", Records(4, 153)),
    ("specimen/FASTQ/misc_rna_as_solexa.fastq", Records(4, 153)),
    ("specimen/FASTQ/misc_rna_original_sanger.fastq", Records(4, 153)),
    ("specimen/FASTQ/sanger_93.fastq", Records(1, 94)),
    ("specimen/FASTQ/sanger_faked.fastq", Records(1, 41)),
    ("specimen/FASTQ/sanger_full_range_as_illumina.fastq", Records(2, 188)),
    ("specimen/FASTQ/sanger_full_range_as_sanger.fastq", Records(2, 188)),
    ("specimen/FASTQ/sanger_full_range_as_solexa.fastq", Records(2, 188)),
    ("specimen/FASTQ/sanger_full_range_original_sanger.fastq", Records(2, 188)),
    ("specimen/FASTQ/solexa_example.fastq", Records(5, 125)),
    ("specimen/FASTQ/solexa_faked.fastq", Records(1, 46)),
    ("specimen/FASTQ/solexa_full_range_as_illumina.fastq", Records(2, 136)),
    ("specimen/FASTQ/solexa_full_range_as_sanger.fastq", Records(2, 136)),
    ("specimen/FASTQ/solexa_full_range_as_solexa.fastq", Records(2, 136)),
    ("specimen/FASTQ/solexa_full_range_original_solexa.fastq", Records(2, 136)),
    ("specimen/FASTQ/tricky.fastq", Error("line 15: record `071113_EAS56_0053:1:3:990:501` should have `+` on its third line but has `A`")),
    ("specimen/FASTQ/wrapping_as_illumina.fastq", Records(3, 410)),
    ("specimen/FASTQ/wrapping_as_sanger.fastq", Records(3, 410)),
    ("specimen/FASTQ/wrapping_as_solexa.fastq", Records(3, 410)),
    ("specimen/FASTQ/wrapping_original_sanger.fastq", Error("line 1: record `SRR014849.50939` has 135 bases but 30 qualities")),
    ("specimen/FASTQ/zero_length.fastq", Records(5, 280)),
    ("data/28S.fasta", Records(570, 738_580)),
    ("data/PRJNA271013_head.fq", Records(2000, 250_000)),
    ("data/bad_header.fastq", Error("line 5: record is cut off: the file ends within it")),
    ("data/bad_test.fa", Error("line 1: neither FASTA nor FASTQ: expected `>` or `@` but found `T`")),
    ("data/random_tsv.fq", Error("line 7: record `HD` should have `+` on its third line but has `@`")),
    ("data/test.fa", Records(2, 14)),
    ("data/test.fa.bz2", Records(2, 14)),
    ("data/test.fa.gz", Records(2, 14)),
    ("data/test.fa.xz", Records(2, 14)),
    ("data/test.fa.zst", Records(2, 14)),
];
