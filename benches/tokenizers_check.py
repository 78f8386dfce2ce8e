#!/usr/bin/env python3
"""Compares the fixed tokenizers with Python's `tokenizers`: ids of real genomes from raw letters, and the merges that both learn.

    cargo build --release -p vqdna-data --example vocab
    python3 benches/tokenizers_check.py --genomes ../shared/data/genomes

Needs `pip install tokenizers==0.23.3 numpy` and the example above. For each kind of vocabulary, the example writes its tokenizer.json and
the ids of all records; `tokenizers` loads the file and encodes the same records as they stand in the genomes: with lower case, N,
other IUPAC codes, and a record with U and every code in both cases. It has no overlapping windows, so for overlapping k-mers the script
makes DNABERT's sentences first. All ids must be equal, those that are put around each record included.

Exits with 1 if anything differs. Times are of one run each; ours hold the reading of the genome and the writing of the ids.
"""
import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

KINDS = ("character", "kmer:3", "kmer:6", "kmer:8", "blocks:1:v2", "blocks:3:v1", "blocks:6:v1", "blocks:6:v2", "blocks:8:v2",
         "train:4096:5000000")
GENOMES = ("ecoli.fna.gz", "human.chr22.20-21M.fa.gz", "human.chr3.42M.fa.gz", "A.thaliana.1pct.fa.gz", "D.melanogaster.1pct.fa.gz",
           "vertebrates/hg38.fa.gz", "vertebrates/monDom5.fa.gz", "vertebrates/rheMac3.fa.gz")
CODES = "ACGTURYSWKMBDHVN"
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]


def records(path):
    """The letters of each record that has any."""
    parts = []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            if line.startswith(">"):
                if parts:
                    yield "".join(parts)
                parts = []
            else:
                parts.append(line.strip())
    if parts:
        yield "".join(parts)


def corpus(args, folder):
    """All records, also as one file."""
    letters = [letters for name in GENOMES for letters in records(args.genomes / name)]
    letters += [CODES + CODES.lower() + "ACGU" * 20 + "acgu" * 20 + "AANNNCCnnnTTRggYtt", "A", "n", "AC"]
    path = folder / "genome.fa"
    path.write_text("".join(f">{number}\n{record}\n" for number, record in enumerate(letters)))
    return letters, path


def ours(args, kind, genome, out):
    start = time.perf_counter()
    subprocess.run([args.program, kind, genome, out], check=True)
    return numpy.fromfile(f"{out}.u32", "<u4"), time.perf_counter() - start


def theirs(kind, letters, out):
    tokenizer = Tokenizer.from_file(f"{out}.json")
    name, _, rest = kind.partition(":")
    if name == "kmer":
        k = int(rest)
        letters = [" ".join(record[start:start + k] for start in range(len(record) - k + 1)) for record in letters]
    start = time.perf_counter()
    ids = [numpy.array(tokenizer.encode(record).ids, "<u4") for record in letters]
    return numpy.concatenate(ids), time.perf_counter() - start


def report(name, bases, mine, other, times):
    equal = numpy.array_equal(mine, other)
    different = "" if equal else f", first difference at {next((i for i, pair in enumerate(zip(mine, other)) if pair[0] != pair[1]), 'the end')}"
    print(f"{name:<34} {bases / 1e6:6.2f} Mb {len(mine):>9} ids {'equal' if equal else 'DIFFERENT'}{different} "
          f"(ours {times[0]:.2f} s, theirs {times[1]:.2f} s)", flush=True)
    return equal


def check_ids(args, letters, genome, folder):
    sound = True
    bases = sum(map(len, letters))
    for number, kind in enumerate(KINDS + tuple(f"bpe:{file}" for file in args.tokenizer)):
        out = folder / str(number)
        mine, my_time = ours(args, kind, genome, out)
        other, other_time = theirs(kind, letters, out)
        sound &= report(kind, bases, mine, other, (my_time, other_time))
        if kind.startswith("train"):
            again, again_time = ours(args, f"bpe:{out}.json", genome, folder / "again")
            sound &= report(f"{kind}, file read again", bases, again, other, (again_time, other_time))
    return sound


def check_merges(args, letters, folder):
    """Learns from the first bases of a genome on both sides."""
    sound = True
    for name, record, size in (("E. coli", letters[0], 1000), ("human", letters[2], 1000), ("human", letters[2], 4096)):
        record = record[:args.train_bases].upper()
        (folder / "train.fa").write_text(f">1\n{record}\n")
        start = time.perf_counter()
        ours(args, f"train:{size}:{len(record)}", folder / "train.fa", folder / "trained")
        middle = time.perf_counter()
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        tokenizer.train_from_iterator([record], trainers.BpeTrainer(
            vocab_size=size, min_frequency=2, special_tokens=SPECIAL, initial_alphabet=list("ACGT"), show_progress=False))
        end = time.perf_counter()
        model = json.loads(tokenizer.to_str())["model"]
        mine = json.loads((folder / "trained.json").read_text())["model"]
        equal = [model[part] == mine[part] for part in ("merges", "vocab")]
        sound &= all(equal)
        print(f"{name}, {len(record) / 1e3:.0f} kb, {size} ids asked for: {len(mine['merges'])} merges, {len(mine['vocab'])} ids, "
              f"{'equal' if all(equal) else 'DIFFERENT'} (ours {middle - start:.2f} s, theirs {end - middle:.2f} s)", flush=True)
    return sound


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genomes", type=Path, default=Path("../shared/data/genomes"))
    parser.add_argument("--program", type=Path, default=Path("target/release/examples/vocab"))
    parser.add_argument("--tokenizer", type=Path, action="append", default=[], help="a further tokenizer.json to compare with")
    parser.add_argument("--train-bases", type=int, default=100_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        letters, genome = corpus(args, folder)
        sound = check_merges(args, letters, folder)
        sound &= check_ids(args, letters, genome, folder)
    sys.exit(0 if sound else 1)


if __name__ == "__main__":
    main()
