#!/usr/bin/env python3
"""What DNA that a model generated has in common with the genome that it learned from, beside a Markov chain and real DNA of the same length.

    vqdna generate runs/next --length 10000 -o generated.fa --prompt ATG
    python3 benches/generated.py generated.fa yeast.fa.gz --held-out XVI --left-out Mito

Needs numpy. For each text: Jensen-Shannon divergence in bits of its k-mers (k = 3, 6, 8; one strand) from those of the training contigs, GC,
and the longest stretch that stands in a training contig, on either strand. The rivals are as long as what was generated: a stretch from the
middle of the contig that was held out, a Markov chain of order 8 (add-one, both strands of the training contigs), and the real stretch
shuffled. Numbers of so few bases depend on their length, so compare rows of one table only.
"""

import argparse
import gzip

import numpy as np

LETTERS = b"ACGT"
LONGEST = 31


def contigs(path):
    """Names and bases, 0 to 3; 4 for anything else."""
    table = np.full(256, 4, np.uint8)
    for letter in range(4):
        table[LETTERS[letter]] = table[LETTERS[letter] + 32] = letter
    with (gzip.open if path.endswith(".gz") else open)(path, "rb") as file:
        records = file.read().split(b">")[1:]
    return {head.split()[0].decode(): table[np.frombuffer(body.replace(b"\n", b"").replace(b"\r", b""), np.uint8)]
            for head, body in (record.split(b"\n", 1) for record in records)}


def words(bases, k):
    """All k-mers without unknown bases, two bits a base."""
    if len(bases) < k:
        return np.zeros(0, np.uint64)
    count = len(bases) - k + 1
    found, known = np.zeros(count, np.uint64), np.ones(count, bool)
    for at in range(k):
        part = bases[at : at + count]
        found = found << np.uint64(2) | (part & 3).astype(np.uint64)
        known &= part < 4
    return found[known]


def other(bases):
    return np.where(bases < 4, 3 - np.minimum(bases, 3), 4).astype(np.uint8)[::-1]


def shares(texts, k):
    counts = sum(np.bincount(words(text, k).astype(np.int64), minlength=4**k) for text in texts)
    return counts / counts.sum()


def divergence(p, q):
    middle = (p + q) / 2
    half = lambda a: (a[a > 0] * np.log2(a[a > 0] / middle[a > 0])).sum() / 2
    return half(p) + half(q)


def has_any(few, many):
    """Whether any of the sorted `few` is among `many`."""
    return bool((few[np.minimum(np.searchsorted(few, many), len(few) - 1)] == many).any())


def longest_copied(text, sources):
    """The longest word of `text`, up to 31 bases, that is in one of `sources`; by halving."""
    low, high = 0, LONGEST
    while low < high:
        k = (low + high + 1) // 2
        own = np.unique(words(text, k))
        low, high = (k, high) if len(own) and any(has_any(own, words(source, k)) for source in sources) else (low, k - 1)
    return low


def markov(sources, order, length, random):
    counts = sum(np.bincount(words(text, order + 1).astype(np.int64), minlength=4 ** (order + 1)) for text in sources)
    rows = (counts.reshape(-1, 4) + 1).astype(float)
    sums = np.cumsum(rows / rows.sum(1, keepdims=True), axis=1)
    context, text = int(random.integers(4**order)), np.empty(length, np.uint8)
    for at, number in enumerate(random.random(length)):
        base = min(int(np.searchsorted(sums[context], number, side="right")), 3)
        text[at] = base
        context = (context * 4 + base) % 4**order
    return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("generated", help="FASTA of `vqdna generate`")
    parser.add_argument("genome", help="FASTA of the genome that the model learned from")
    parser.add_argument("--held-out", required=True, help="contig that was held out for the test")
    parser.add_argument("--left-out", nargs="*", default=[], help="further contigs that were not trained on")
    parser.add_argument("--seed", type=int, default=1, help="of the Markov chain and the shuffled text")
    args = parser.parse_args()
    genome, random = contigs(args.genome), np.random.default_rng(args.seed)
    real = genome.pop(args.held_out)
    training = [bases for name, bases in genome.items() if name not in args.left_out]
    sources = training + [other(bases) for bases in training]
    generated = np.concatenate(list(contigs(args.generated).values()))
    middle = max(0, (len(real) - len(generated)) // 2)
    stretch = real[middle : middle + len(generated)]
    texts = {
        f"real, {args.held_out}": stretch,
        "generated": generated,
        "Markov 8": markov(sources, 8, len(generated), random),
        "shuffled": random.permutation(stretch),
    }
    spectra = {k: shares(training, k) for k in (3, 6, 8)}
    print("text\tbases\tjsd_3\tjsd_6\tjsd_8\tgc\tlongest_copied")
    for name, text in texts.items():
        known = text[text < 4]
        distances = [f"{divergence(shares([text], k), spectra[k]):.5f}" for k in spectra]
        gc = f"{((known == 1) | (known == 2)).mean():.4f}"
        copied = longest_copied(text, sources)
        print("\t".join([name, str(len(text)), *distances, gc, f"{copied}{' or more' if copied == LONGEST else ''}"]))


if __name__ == "__main__":
    main()
