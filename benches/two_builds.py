#!/usr/bin/env python3
"""Speed and memory of two builds of the program, interleaved: has a change made anything slower?

    python3 benches/two_builds.py OLD [NEW] [--pairs N] [--runs N] [--works …] [--bar 0.98] -o results/DATE-MACHINE-two-builds

A pair is a call of each build with the same threads, which one comes first alternates; the ratio new ÷ old is taken pair by pair, and the
table shows its median and range. Above 1 the new build is faster; of memory it takes more. Whole pairs are appended to rows.jsonl and the
table is written to README.md, so a long table can be made in several sittings. Needs Python 3 alone.
"""
import argparse
import itertools
import sys
import tempfile
from pathlib import Path

from beside_pytorch import PRESETS, cell_of, cut, shown
from measuring import GENOMES, PROGRAM, ROOT, Rows, cpu, markdown, measure, spread

WORKS = ("learn", "encode", "tokenize", "pretrain", "embed")
PRECISIONS = ("f32", "bf16")
TOKENIZE_BASES = {"small": 1_000_000, "base": 150_000}


def command(program, cell, runs, files):
    work, preset, precision = cell
    tail = [*files] if work == "tokenize" else ["--runs", runs]
    return [program, "bench", work, "--preset", preset, "--precision", precision, *tail]


def table(rows, cells, bar):
    head = ["work", "preset", "precision", "pairs", "old, bases/s", "new, bases/s", "speed, new ÷ old", "memory, new ÷ old"]
    lines, below = [], []
    for cell in cells:
        sides = {side: [row for row in rows if row["side"] == side and cell_of(row) == cell] for side in ("old", "new")}
        if not sides["new"]:
            continue
        ratios = {key: [new[key] / old[key] for old, new in zip(sides["old"], sides["new"])] for key in ("bases_per_s", "peak_rss_mb")}
        middle = [shown(sorted(row["bases_per_s"] for row in sides[side])[len(sides[side]) // 2]) for side in ("old", "new")]
        speed = sorted(ratios["bases_per_s"])
        if (speed[len(speed) // 2] + speed[(len(speed) - 1) // 2]) / 2 < bar:
            below.append(" ".join(cell))
        lines.append([*cell, str(len(sides["new"])), *middle, spread(ratios["bases_per_s"], "{:.3f}"), spread(ratios["peak_rss_mb"])])
    return markdown(head, lines), below


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("old", type=Path)
    options.add_argument("new", type=Path, nargs="?", default=PROGRAM)
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    options.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    options.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    options.add_argument("--bar", type=float, default=0.98, help="median ratio of speed below which a cell is named")
    options.add_argument("--fasta", type=Path, default=GENOMES / "ecoli.fna.gz")
    options.add_argument("-o", "--output", type=Path, required=True)
    options = options.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.output / "rows.jsonl")
    programs = {"old": options.old.resolve(), "new": options.new.resolve()}
    cells = list(itertools.product(options.works, options.presets, options.precisions))
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for preset in options.presets if "tokenize" in options.works else ():
            files[preset] = Path(folder) / f"{preset}.fa.gz", Path(folder) / "codes.npy"
            cut(options.fasta, files[preset][0], TOKENIZE_BASES[preset])
        for pair in range(options.pairs):
            for cell in cells:
                if sum(row["side"] == "new" and cell_of(row) == cell for row in rows) > pair:
                    continue
                found = {}
                for side in ("old", "new") if pair % 2 == 0 else ("new", "old"):
                    found[side] = measure(command(programs[side], cell, options.runs, files.get(cell[1], ())))
                rows.add([{"side": side, "pair": pair, **found[side]} for side in ("old", "new")])
                ratio = found["new"]["bases_per_s"] / found["old"]["bases_per_s"]
                print(f"{' '.join(cell)}, pair {pair + 1} of {options.pairs}: {ratio:.3f}", file=sys.stderr)
    text, below = table(rows, list(itertools.product(WORKS, PRESETS, PRECISIONS)), options.bar)
    call = f"python3 benches/two_builds.py OLD NEW --pairs {options.pairs} --runs {options.runs}"
    (options.output / "README.md").write_text(f"# Two builds\n\n`{call}` on {cpu()}.\n\n{text}\n")
    print(text)
    print(f"below {options.bar}: {', '.join(below) or 'none'}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
