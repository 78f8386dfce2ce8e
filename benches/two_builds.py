#!/usr/bin/env python3
"""Speed and memory of two builds of the program, interleaved: has a change made anything slower?

    python3 benches/two_builds.py OLD [NEW] [--pairs N] [--runs N] [--works …] [--bar 0.98] -o results/DATE-MACHINE-two-builds

A pair is a call of each build with the same threads. Both calls are under way at once, and one of them is stopped while the other runs, in
turns of a quarter of a second: a host that is slower for a while is so for both. A call's seconds are those in which it ran; which one
begins alternates. The ratio of speed is old ÷ new seconds, pair by pair, and the table shows its median and range. Above 1 the new build
is faster; of memory it takes more. Whole pairs are appended to rows.jsonl and the table is written to README.md, so a long table can be made
in several sittings. Needs Python 3 alone.
"""
import argparse
import itertools
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from beside_pytorch import PRESETS, cell_of, cut
from measuring import GENOMES, PROGRAM, Failed, Rows, cpu, markdown, spread

WORKS = ("learn", "encode", "tokenize", "pretrain", "embed")
PRECISIONS = ("f32", "bf16")
TOKENIZE_BASES = {"small": 1_000_000, "base": 150_000}


def command(program, cell, runs, fasta, codes):
    work, preset, precision = cell
    tail = [fasta, codes] if work == "tokenize" else ["--runs", runs]
    return [program, "bench", work, "--preset", preset, "--precision", precision, *tail]


def in_turns(commands, turn=0.25):
    """Runs commands interleaved until all have ended: for each, the seconds in which it ran, and the JSON of its last line."""
    commands = [[str(word) for word in command] for command in commands]
    # Stopped before it begins, so that nothing of it is missed.
    begin = "import os, signal, sys; os.kill(os.getpid(), signal.SIGSTOP); os.execv(sys.argv[1], sys.argv[1:])"
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    calls = [subprocess.Popen([sys.executable, "-c", begin, *command], **pipes) for command in commands]
    seconds = [0.0 for _ in calls]
    try:
        time.sleep(0.5)
        while any(call.poll() is None for call in calls):
            for number, call in enumerate(calls):
                if call.poll() is not None:
                    continue
                start = time.perf_counter()
                call.send_signal(signal.SIGCONT)
                try:
                    call.wait(turn)
                except subprocess.TimeoutExpired:
                    call.send_signal(signal.SIGSTOP)
                seconds[number] += time.perf_counter() - start
    finally:
        for call in calls:
            if call.poll() is None:
                call.kill()
    found = []
    for command, call, ran in zip(commands, calls, seconds):
        out, messages = call.communicate()
        if call.returncode:
            raise Failed(command, call.returncode, messages)
        found.append({"ran_s": round(ran, 4), **json.loads(out.strip().splitlines()[-1])})
    return found


def table(rows, cells, bar):
    head = ["work", "preset", "precision", "pairs", "old, s a call", "new, s a call", "speed, new ÷ old", "memory, new ÷ old"]
    lines, below = [], []
    for cell in cells:
        sides = {side: [row for row in rows if row["side"] == side and cell_of(row) == cell] for side in ("old", "new")}
        if not sides["new"]:
            continue
        pairs = list(zip(sides["old"], sides["new"]))
        speed = [old["ran_s"] / new["ran_s"] for old, new in pairs]
        memory = [new["peak_rss_mb"] / old["peak_rss_mb"] for old, new in pairs]
        middle = [f"{statistics.median(row['ran_s'] for row in sides[side]):.1f}" for side in ("old", "new")]
        if statistics.median(speed) < bar:
            below.append(" ".join(cell))
        lines.append([*cell, str(len(pairs)), *middle, spread(speed, "{:.3f}"), spread(memory)])
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
        folder = Path(folder)
        for preset in options.presets if "tokenize" in options.works else ():
            cut(options.fasta, folder / f"{preset}.fa.gz", TOKENIZE_BASES[preset])
        for pair in range(options.pairs):
            for cell in cells:
                if sum(row["side"] == "new" and cell_of(row) == cell for row in rows) > pair:
                    continue
                order = ("old", "new") if pair % 2 == 0 else ("new", "old")
                fasta = folder / f"{cell[1]}.fa.gz"
                calls = [command(programs[side], cell, options.runs, fasta, folder / f"{side}.npy") for side in order]
                found = dict(zip(order, in_turns(calls)))
                rows.add([{"side": side, "pair": pair, **found[side]} for side in ("old", "new")])
                ratio = found["old"]["ran_s"] / found["new"]["ran_s"]
                print(f"{' '.join(cell)}, pair {pair + 1} of {options.pairs}: {ratio:.3f}", file=sys.stderr)
    text, below = table(rows, list(itertools.product(WORKS, PRESETS, PRECISIONS)), options.bar)
    call = f"python3 benches/two_builds.py OLD NEW --pairs {options.pairs} --runs {options.runs}"
    (options.output / "README.md").write_text(f"# Two builds\n\n`{call}` on {cpu()}.\n\n{text}\n")
    print(text)
    print(f"below {options.bar}: {', '.join(below) or 'none'}", file=sys.stderr)
    return 1 if below else 0


if __name__ == "__main__":
    sys.exit(main())
