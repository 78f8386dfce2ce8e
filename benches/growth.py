#!/usr/bin/env python3
"""How time and memory grow with length: `tokenize` with that of a sequence, `embed` with that of a window.

    python3 benches/growth.py -o results/DATE-MACHINE-growth
    python3 benches/growth.py -o results/DATE-MACHINE-growth --lengths 10M 40M --rounds 1

Needs the release build (`cargo build --release`). The sequences are one record each, plain FASTA: the genomes of --genome put
end to end, begun again from the start where they are too short, and cut at the length. Every round measures every length once,
so that a slow minute of the machine does not fall on one length alone. Rows are appended to rows.jsonl, and what is there is not
run again; README.md and growth.svg are made from all rows. A command that a signal ended (no memory left) is kept as failed.

Attention compares every base of a window with every other: `embed` of 32,768 bases takes minutes, so windows from
8,192 bases on are measured one step a call.
"""
import argparse
import itertools
import math
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

import flops
from measuring import (GENOMES, PROGRAM, Failed, Rows, build, cpu, fasta_lines, machine, markdown, measure, output, refuse_mixed,
                       spread)

WORKS = ("tokenize", "embed")
LONG_WINDOW = 8192


def bases(text):
    """10k, 4M or 512."""
    unit = {"k": 1_000, "M": 1_000_000}.get(text[-1:], 1)
    try:
        count = int(text if unit == 1 else text[:-1]) * unit
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: a length is 512, 10k or 4M") from None
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text}: a length is at least 1")
    return count


def short(count):
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if count >= unit and count % unit == 0:
            return f"{count // unit}{letter}"
    return f"{count:g}"


def write_sequence(genomes, length, target):
    """One record of that many bases."""
    def lines():
        while True:
            yield from (line for genome in genomes for line in fasta_lines(genome) if line and not line.startswith(">"))

    with open(target, "w") as out:
        out.write(f">{'+'.join(genome.name for genome in genomes)}:1-{length}\n")
        for line in lines():
            out.write(line[:length] + "\n")
            length -= len(line[:length])
            if not length:
                return


def steps(args, work, length):
    return 1 if work == "tokenize" or length >= LONG_WINDOW else args.runs


def command(args, work, length, folder):
    tail = ["--preset", args.preset, "--threads", args.threads]
    if work == "tokenize":
        return [args.program, "bench", work, *tail, folder / f"{length}.fa", folder / "codes.npy"]
    return [args.program, "bench", work, *tail, "--length", length, "--batch", 1, "--runs", steps(args, work, length)]


def plan(args):
    """Works with their lengths, shortest first."""
    lengths = {"tokenize": args.lengths, "embed": args.windows}
    return [(work, length) for work in args.works for length in sorted(set(lengths[work]))]


def missing(args, rows):
    done = {(row["round"], row["work"], row["preset"], row["length"]) for row in rows}
    each = ((number, *point) for number in range(args.rounds) for point in plan(args))
    return [point for point in each if (point[0], point[1], args.preset, point[2]) not in done]


def conditions(args, work, length):
    """What must not change within a point."""
    return {"runs": steps(args, work, length), **({"input": [g.name for g in args.genome]} if work == "tokenize" else {})}


def measure_point(args, number, work, length, common, folder):
    sequence = folder / f"{length}.fa"
    if work == "tokenize" and not sequence.exists():
        write_sequence(args.genome, length, sequence)
    row = {"round": number, "length": length, **common, **conditions(args, work, length), "work": work, "preset": args.preset}
    try:
        measured = measure(command(args, work, length, folder))
    except Failed as failed:
        if failed.code >= 0:
            raise
        print(f"{work} of {length:,} bases: {failed}", file=sys.stderr)
        return {**row, "failed": f"signal {-failed.code}"}
    if measured["bases"] != length or measured["work"] != work:
        raise SystemExit(f"error: asked for {work} of {length} bases, measured {measured['work']} of {measured['bases']}")
    print(f"round {number + 1} of {args.rounds}: {work} of {length:,} bases, {measured['seconds']:,.3f} s", file=sys.stderr)
    return {**row, **measured}


def points(rows, work, preset):
    """{length: its rows}, shortest first"""
    found = {}
    for row in sorted(rows, key=lambda row: row["length"]):
        if (row["work"], row["preset"]) == (work, preset):
            found.setdefault(row["length"], []).append(row)
    return found


def column(measured, key):
    return [row[key] for row in measured if row.get(key)]


def power(before, now, key):
    """p in key ~ length^p, from one length to the next."""
    low, high = column(before, key), column(now, key)
    if not (low and high):
        return ""
    ratio = statistics.median(high) / statistics.median(low)
    return f"{math.log(ratio) / math.log(now[0]['length'] / before[0]['length']):.2f}"


def growth_table(rows, work, preset):
    head = ["bases", "calls", "seconds", "bases/s", "peak memory, MiB", "time grows as length to the", "memory grows as length to the",
            "MFLOP per base", "GFLOP/s"]
    lines, before = [], []
    for length, measured in points(rows, work, preset).items():
        per_base = flops.per_base(work, preset, length)
        failed = sum("failed" in row for row in measured)
        calls = f"{len(measured) - failed}" + (f" and {failed} failed" if failed else "")
        if failed == len(measured):
            lines.append([f"{length:,}", calls, *[""] * 5, f"{per_base / 1e6:,.1f}", ""])
            continue
        show = lambda key, form: spread(column(measured, key), form) if column(measured, key) else ""
        lines.append([f"{length:,}", calls, show("seconds", "{:,.3f}"), show("bases_per_s", "{:,.0f}"),
                      show("peak_rss_mb", "{:,.0f}"), power(before, measured, "seconds"), power(before, measured, "peak_rss_mb"),
                      f"{per_base / 1e6:,.1f}", f"{statistics.median(column(measured, 'bases_per_s')) * per_base / 1e9:,.1f}"])
        before = measured
    return markdown(head, lines)


def report(rows):
    distinct = lambda key: ", ".join(sorted({str(row[key]) for row in rows if key in row}))
    sections = [f"## {work}, {preset}\n\n{growth_table(rows, work, preset)}\n"
                for work, preset in itertools.product(WORKS, sorted({row["preset"] for row in rows})) if points(rows, work, preset)]
    genomes = " + ".join(dict.fromkeys(name for row in rows for name in row.get("input", ())))
    return f"""# How cost grows with length

Machine: {machine()}.
Versions: {distinct("peer")}, {output("rustc", "--version")}, commit {distinct("commit")}; {distinct("threads")} threads, f32.

Medians over calls, in brackets their range. tokenize is the whole job, from a FASTA file of one record to a file of codes, of
{genomes or "nothing"} put end to end and cut. embed is the frozen encoder over one window of code vectors. FLOPs are useful matrix
products only, counted by `benches/flops.py`. A power of 1 is linear growth, 0 none.

![bases per second and peak memory against length](growth.svg)

{chr(10).join(sections)}
Made by `python3 benches/growth.py`; raw rows are in `rows.jsonl`.
"""


class Axis:
    """A logarithmic axis between two pixels."""

    def __init__(self, values, start, end):
        low, high = math.log10(min(values)), math.log10(max(values))
        marks = (1,) if high - low > 2.5 else (1, 2, 5)
        ticks = [mark * 10**power for power in range(math.floor(low), math.ceil(high) + 1) for mark in marks]
        first = max((tick for tick in ticks if tick <= min(values) * 1.001), default=ticks[0])
        last = min((tick for tick in ticks if tick >= max(values) * 0.999 and tick > first), default=10 * first)
        self.ticks = [tick for tick in ticks if first <= tick <= last]
        self.ticks += [last] if last not in self.ticks else []
        self.low, self.start = math.log10(first), start
        self.scale = (end - start) / (math.log10(last) - self.low)

    def at(self, value):
        return self.start + (math.log10(value) - self.low) * self.scale


COLOURS = {"tokenize": "#0b6fa4", "embed": "#c2571a"}
LABELS = {"tokenize": "tokenize, by bases of the sequence", "embed": "embed, by bases of the window"}
WIDTH, HEIGHT, PANEL = 980, 430, 375


def marker(work, x, y):
    if work == "tokenize":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{COLOURS[work]}"/>'
    return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{COLOURS[work]}"/>'


def text(x, y, words, anchor="middle", more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{words}</text>'


def panel(series, left, title, unit):
    """Lines {work: {length: values}}: a mark at the median, a stroke over the range."""
    top, bottom = 84, HEIGHT - 62
    x = Axis([length for line in series.values() for length in line], left, left + PANEL)
    y = Axis([value for line in series.values() for values in line.values() for value in values], bottom, top)
    parts = [text(left, top - 14, title, "start", ' font-weight="600"')]
    for tick in x.ticks:
        parts.append(f'<path class="grid" d="M{x.at(tick):.1f} {bottom}V{top}"/>')
        parts.append(text(x.at(tick), bottom + 18, short(tick)))
    for tick in y.ticks:
        parts.append(f'<path class="grid" d="M{left} {y.at(tick):.1f}H{left + PANEL}"/>')
        parts.append(text(left - 8, y.at(tick) + 4, short(tick), "end"))
    parts.append(text(left + PANEL / 2, bottom + 42, "length, bases"))
    middle = (top + bottom) / 2
    parts.append(text(left - 50, middle, unit, more=f' transform="rotate(-90 {left - 50} {middle})"'))
    parts.append(f'<path class="axis" d="M{left} {top}V{bottom}H{left + PANEL}"/>')
    for work, line in series.items():
        place = {length: (x.at(length), y.at(statistics.median(values))) for length, values in line.items()}
        path = "L".join(f"{px:.1f} {py:.1f}" for px, py in place.values())
        parts.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[work]}" stroke-width="2"/>')
        for length, (px, py) in place.items():
            low, high = y.at(min(line[length])), y.at(max(line[length]))
            parts.append(f'<path d="M{px:.1f} {low:.1f}V{high:.1f}" stroke="{COLOURS[work]}"/>' + marker(work, px, py))
    return parts


def plot(rows, preset):
    """An SVG of two log-log panels."""
    series = lambda key: {work: line for work in WORKS if (line := {
        length: column(measured, key) for length, measured in points(rows, work, preset).items() if column(measured, key)})}
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
             ' font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13" fill="#222" role="img"'
             ' aria-label="Speed and memory by length">',
             "<style>.grid{stroke:#e3e3e3}.axis{stroke:#555;fill:none}</style>",
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>']
    for place, work in enumerate(series("seconds")):
        left = 80 + 280 * place
        parts += [f'<path d="M{left} 28h26" stroke="{COLOURS[work]}" stroke-width="2"/>', marker(work, left + 13, 28),
                  text(left + 34, 32, LABELS[work], "start")]
    parts.append(text(WIDTH - 30, 32, f"preset {preset}", "end"))
    panels = (("bases_per_s", "Speed", "bases per second"), ("peak_rss_mb", "Peak memory", "MiB"))
    for place, (key, title, unit) in enumerate(panels):
        if series(key):
            parts += panel(series(key), 80 + place * (PANEL + 115), title, unit)
    return "\n".join([*parts, "</svg>"]) + "\n"


def write(args, rows):
    (args.output / "growth.svg").write_text(plot(rows, args.preset))
    (args.output / "README.md").write_text(report(rows))


def dry(args):
    for work, length in plan(args):
        print(f"{shlex.join(map(str, command(args, work, length, Path('TEMP'))))}   # {args.rounds} rounds")
    print("\nFLOPs of useful matrix products:\n")
    print(markdown(["work", "preset", "bases", "MFLOP per base", "TFLOP a step"], [
        [work, args.preset, f"{length:,}", f"{(each := flops.per_base(work, args.preset, length)) / 1e6:,.2f}",
         f"{each * length / 1e12:,.4g}"] for work, length in plan(args)]))


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", type=Path, default=PROGRAM, help="our program")
    p.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    p.add_argument("--preset", choices=flops.TOKENIZER, default="small")
    p.add_argument("--lengths", nargs="+", type=bases, default=[10_000, 100_000, 1_000_000, 4_000_000], help="to tokenize: 10k 4M ...")
    p.add_argument("--windows", nargs="+", type=bases, default=[128, 512, 2048, 8192, 32_768], help="to embed")
    p.add_argument("--genome", nargs="+", type=Path, default=[GENOMES / "yeast.fa.gz"], help="FASTA to make sequences of")
    p.add_argument("--rounds", type=int, default=3, help="calls for every length")
    p.add_argument("--runs", type=int, default=5, help="measured steps of a call of embed")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--commit", help="commit that --program was built from, if not this one")
    p.add_argument("--allow-mixed", action="store_true", help="add to rows of another commit, build, machine or setting")
    p.add_argument("--dry", action="store_true", help="print commands and FLOPs, run nothing")
    p.add_argument("-o", "--output", type=Path, help="folder of rows.jsonl, README.md and growth.svg")
    args = p.parse_args()
    if not (args.output or args.dry):
        p.error("-o is needed, unless --dry")
    args.program = args.program.absolute()
    return args


def main():
    args = arguments()
    if args.dry:
        return dry(args)
    absent = [str(genome) for genome in args.genome if not genome.exists()]
    if "tokenize" in args.works and absent:
        raise SystemExit(f"error: no {', '.join(absent)}: give --genome, or --works embed")
    args.output.mkdir(parents=True, exist_ok=True)
    rows = Rows(args.output / "rows.jsonl")
    todo = missing(args, rows)
    # Rows that are only shown again may come from another commit, not from another machine.
    common = {"cpu": cpu(), **({"threads": args.threads, **build(args.program, args.commit)} if todo else {})}
    differences = rows.differences(common)
    for _, work, length in todo:
        same = lambda row: (row["work"], row["preset"], row["length"]) == (work, args.preset, length)
        differences += rows.differences(conditions(args, work, length), same)
    refuse_mixed(differences, rows.path, args.allow_mixed)
    with tempfile.TemporaryDirectory() as folder:
        for point in todo:
            rows.add([measure_point(args, *point, common, Path(folder))])
            write(args, rows)
    write(args, rows)
    print(report(rows))


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"error: {failed}\nmeasured rows are kept; the same command goes on")
    except KeyboardInterrupt:
        sys.exit("stopped; measured rows are kept; the same command goes on")
