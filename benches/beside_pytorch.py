#!/usr/bin/env python3
"""Speed and memory beside the PyTorch definition of the networks, run in turns on this machine.

    python3 benches/beside_pytorch.py --peer ../shared/peers --python VENV/bin/python -o results/DATE-MACHINE-speed

Needs the release build (`cargo build --release`) and, for the other side, Python 3.11 with
`pip install torch==2.13.0 safetensors numpy`; "tuned" also gcc and Debian's libtcmalloc-minimal4 (see tuned.sh of the peer). Fine-tuning in PyTorch is finetune_torch.py, MxDNA
mxdna_torch.py, beside this; the latter needs `pip install --no-deps torchvision==0.28.0` and `pip install pillow` too. With --mxdna, both
sides begin with the same pre-trained weights, such as the folder `mxdna` that three_stages.py leaves in its --work, and cut alike.

A pair is ours, stock, tuned (in bf16: ours, tuned), one after another with the same threads. Ratios are taken pair by pair; the
table shows their median and range. Speed above 1 means that we are faster, memory below 1 that we need less. Whole pairs are
appended to rows.jsonl and the tables written to README.md, so a long table can be made in several sittings: pairs that are
there are not run again. FLOPs are counted as flops.py says; the share of the peak needs `vqdna bench peak`.

tokenize is the whole job, once a call, on the E. coli genome for small and on its first 500,000 bases for base, which take a
minute or so a side; --tokenize-bases sets another cut for all presets (0: the whole file). A cut file is gzipped like the whole.
"""
import argparse
import gzip
import hashlib
import itertools
import shlex
import statistics
import sys
import tempfile
from pathlib import Path

import flops
from measuring import (GENOMES, PROGRAM, ROOT, Failed, Rows, build, cpu, fasta_lines, machine, markdown, measure, output, refuse_mixed,
                       spread)

WORKS = ("learn", "encode", "tokenize", "pretrain", "embed", "finetune-lora", "finetune-full", "mxdna-train", "mxdna-embed")
PRESETS = ("small", "base")
PRECISIONS = {"f32": ("ours", "stock", "tuned"), "bf16": ("ours", "tuned")}
TOKENIZE_BASES = {"small": 0, "base": 500_000}
# Works whose other side is not the peer's bench.py.
SCRIPTS = {"finetune": ROOT / "benches/finetune_torch.py", "mxdna": ROOT / "benches/mxdna_torch.py"}

# What --bars measures against: speed over tuned PyTorch (small, base), and memory as a share of its.
SPEED_BARS = {
    "f32": {"learn": (1.5, 1.3), "encode": (1.6, 1.15), "tokenize": (1.6, 1.15), "pretrain": (1.2, 1.08), "embed": (1.2, 1.08),
            "mxdna-train": (1.3,), "mxdna-embed": (1.3,)},
    "bf16": {"learn": (1.5, 1.5), "encode": (1.5, 1.15), "tokenize": (1.5, 1.15), "pretrain": (1.1, 1.1), "embed": (1.1, 1.05),
             "mxdna-train": (1.3,), "mxdna-embed": (1.3,)},
}
MEMORY_BARS = {"learn": 0.6, "pretrain": 0.6, "tokenize": 0.5}


def command(args, side, cell, files):
    """The command of a side, and the folder it runs in."""
    work, preset, precision = cell
    name, _, mode = work.partition("-")
    tail = ["--preset", preset, "--threads", args.threads, *(files if work == "tokenize" else ["--runs", args.runs])]
    weights = ["--model", args.mxdna] if name == "mxdna" and args.mxdna else []
    if side == "ours":
        bf16 = ["--precision", "bf16"] if precision == "bf16" else []
        own = ["finetune", "--mode", mode] if name == "finetune" else [work]
        return [args.program, "bench", *own, *tail, *weights, *bf16], None
    bench = [args.python, *([SCRIPTS[name], mode, "--peer", args.peer] if name in SCRIPTS else ["bench.py", work])]
    bench += [*tail, *weights, *(["--bf16"] if precision == "bf16" else [])]
    bench += ["--products"] if name == "mxdna" and args.products else []
    return (["./tuned.sh", *bench] if side == "tuned" else bench), args.peer


def kept_bases(args, preset):
    """Bases of the FASTA that are tokenized; 0 is all."""
    return TOKENIZE_BASES[preset] if args.tokenize_bases is None else args.tokenize_bases


def tokenize_files(args, preset, folder):
    kept = kept_bases(args, preset)
    return (folder / f"first-{kept}.fa.gz" if kept else args.fasta), folder / "codes.npy"


def cut(source, target, bases):
    """Copies the first bases of a FASTA."""
    with gzip.open(target, "wt") as out:
        for line in fasta_lines(source):
            if bases <= 0:
                break
            kept = line if line.startswith(">") else line[:bases]
            bases -= 0 if line.startswith(">") else len(kept)
            out.write(kept + "\n")


def conditions(args, cell):
    """What must not change within a cell."""
    if cell[0].startswith("mxdna"):
        return {"runs": args.runs, "weights": args.weights, "products": args.products}
    if cell[0] != "tokenize":
        return {"runs": args.runs}
    kept = kept_bases(args, cell[1])
    return {"runs": 1, "input": args.fasta.name + (f", first {kept:,} bases" if kept else "")}


def pairs(args, cell):
    return args.tokenize_pairs or args.pairs if cell[0] == "tokenize" else args.pairs


def cell_of(row):
    return row["work"], row["preset"], "bf16" if row["bf16"] else "f32"


def checked(row, cell):
    """A row that measured what was asked for."""
    if cell_of(row) != cell:
        raise SystemExit(f"error: asked for {' '.join(cell)}, measured {' '.join(cell_of(row))}: {row['peer']}")
    return row


def measure_peak(args, common):
    """Rows of the product peak; none where the program cannot measure it."""
    try:
        return [{"side": "ours", **common, **measure([args.program, "bench", "peak", "--threads", args.threads])}]
    except Failed as failed:
        print(f"no product peak: {failed}", file=sys.stderr)
        return []


def patiently(words, folder):
    """Measures; once more where tuned.sh ends by SIGPIPE, which its search for the allocator now and then raises before any work."""
    try:
        return measure(words, folder)
    except Failed as failed:
        if failed.code not in (141, -13):
            raise
        return measure(words, folder)


def measure_pair(args, cell, pair, common, files):
    rows = []
    for side in PRECISIONS[cell[2]]:
        if side == "stock" and args.stock_pairs is not None and pair >= args.stock_pairs:
            continue
        row = checked(patiently(*command(args, side, cell, files)), cell)
        print(f"{' '.join(cell)}, pair {pair + 1} of {pairs(args, cell)}: {side} {row['bases_per_s']:,.0f} bases/s", file=sys.stderr)
        rows.append({"side": side, "pair": pair, **common, **conditions(args, cell), **row})
    if len({row["bases"] for row in rows}) > 1:
        raise SystemExit(f"error: the sides disagree on the bases of {' '.join(cell)}: {[row['bases'] for row in rows]}")
    return rows


def by_side(rows, cell):
    """{side: {pair: row}}"""
    found = {}
    for row in rows:
        if row["work"] != "peak" and cell_of(row) == cell:
            found.setdefault(row["side"], {})[row["pair"]] = row
    return found


def ratios(sides, other, key):
    """Ours over the other's, pair by pair."""
    each = [(row, sides[other][pair]) for pair, row in sides["ours"].items() if pair in sides.get(other, {})]
    return [ours[key] / theirs[key] for ours, theirs in each if ours[key] and theirs[key]]


def median(sides, side, key):
    values = [row[key] for row in sides.get(side, {}).values() if row[key]]
    return statistics.median(values) if values else None


def shown(value, form="{:,.0f}"):
    return "" if value is None else form.format(value)


def speed_bar(work, preset, precision):
    """None where none is set."""
    return dict(zip(PRESETS, SPEED_BARS[precision].get(work, ()))).get(preset)


def judged(values, bar, sign, wanted):
    """A ratio, with its bar when bars are wanted."""
    if not values:
        return ""
    if not wanted or bar is None:
        return spread(values)
    met = statistics.median(values) >= bar if sign == "≥" else statistics.median(values) <= bar
    return f"{spread(values)} {sign} {bar} {'met' if met else '**not met**'}"


def speed_table(rows, cells, bars):
    head = ["work", "preset", "precision", "pairs", "ours, bases/s", "tuned, bases/s", "stock, bases/s", "speed, ours ÷ tuned",
            "speed, ours ÷ stock", "ours, MiB", "tuned, MiB", "memory, ours ÷ tuned"]
    lines = []
    for cell in cells:
        sides = by_side(rows, cell)
        lines.append([
            *cell, str(len(sides["ours"])), *(shown(median(sides, side, "bases_per_s")) for side in ("ours", "tuned", "stock")),
            judged(ratios(sides, "tuned", "bases_per_s"), speed_bar(*cell), "≥", bars),
            judged(ratios(sides, "stock", "bases_per_s"), None, "≥", bars),
            *(shown(median(sides, side, "peak_rss_mb")) for side in ("ours", "tuned")),
            judged(ratios(sides, "tuned", "peak_rss_mb"), MEMORY_BARS.get(cell[0]), "≤", bars)])
    return markdown(head, lines)


def token_table(rows, cells):
    """Units of the works that form them; empty if there are none."""
    head = ["work", "preset", "precision", "ours, tokens/s", "tuned, tokens/s", "ours, bases per token", "tuned, bases per token",
            "choice of units, share of our time"]
    lines = []
    for cell in (cell for cell in cells if cell[0].startswith("mxdna")):
        sides = by_side(rows, cell)
        rates = [median(sides, side, "tokens_per_s") for side in ("ours", "tuned")]
        sizes = [rate and median(sides, side, "bases_per_s") / rate for side, rate in zip(("ours", "tuned"), rates)]
        lines.append([*cell, *(shown(rate) for rate in rates), *(shown(size, "{:.2f}") for size in sizes),
                      shown(median(sides, "ours", "selection_share"), "{:.1%}")])
    if not lines:
        return ""
    found = {key: distinct([row for row in rows if row["work"].startswith("mxdna")], key) for key in ("weights", "products")}
    start = f"those of a pre-trained model (SHA-256 of its weights: {found['weights']})"
    fresh = "those after a few steps of training, so that the sides cut as chance has it"
    theirs = "gathers and products" if found["products"] == "True" else "PyTorch's and torchvision's convolutions"
    return f"""
## Tokens

Units with the special ones. Weights at the start: {fresh if found["weights"] == "fresh" else start}. Experts and assembly of the
other side are {theirs}.

{markdown(head, lines)}
"""


def peaks(rows):
    """{precision: GFLOP/s} as far as measured."""
    found = {p: [row[f"{p}_gflops"] for row in rows if row["work"] == "peak" and row.get(f"{p}_gflops")] for p in PRECISIONS}
    return {precision: statistics.median(values) for precision, values in found.items() if values}


def peak_words(rows):
    return ", ".join(f"{precision} {rate:,.0f} GFLOP/s" for precision, rate in peaks(rows).items()) or "not measured"


def flop_table(rows, cells, bars):
    head = ["work", "preset", "precision", "MFLOP per base", "ours, GFLOP/s", "tuned, GFLOP/s", "ours, of peak", "tuned, of peak",
            *(["of peak that the bar asks for"] if bars else [])]
    peak, lines = peaks(rows), []
    # How much MxDNA multiplies depends on how it cuts.
    for cell in (cell for cell in cells if not cell[0].startswith("mxdna")):
        per_base, sides = flops.per_base(*cell[:2]), by_side(rows, cell)
        speeds = [median(sides, side, "bases_per_s") for side in ("ours", "tuned")]
        rates = [speed and speed * per_base / 1e9 for speed in speeds]
        of_peak = [rate / peak[cell[2]] if rate and cell[2] in peak else None for rate in rates]
        if bars:
            bar = speed_bar(*cell)
            of_peak.append(of_peak[1] and bar and of_peak[1] * bar)
        lines.append([*cell, f"{per_base / 1e6:,.2f}", *(shown(r, "{:,.1f}") for r in rates), *(shown(f, "{:.0%}") for f in of_peak)])
    if not lines:
        return ""
    return f"""## Arithmetic

Useful matrix products only, counted by `benches/flops.py`. Product peak of this program (`vqdna bench peak`): {peak_words(rows)}.

{markdown(head, lines)}

"""


def inputs(rows):
    """What was tokenized, by preset."""
    name = lambda row: row["input"] + ("" if "first" in row["input"] else f", all {row['bases']:,} bases")
    found = sorted({(row["preset"], name(row)) for row in rows if "input" in row}, reverse=True)
    return "".join(f"; {preset}: {words}" for preset, words in found)


def distinct(rows, key):
    return ", ".join(sorted({str(row[key]) for row in rows if key in row}))


def allocator():
    return "tcmalloc" if "libtcmalloc_minimal.so.4" in output("ldconfig", "-p") else "glibc's allocator (libtcmalloc-minimal4 is absent)"


def report(args, rows):
    cells = [cell for cell in itertools.product(WORKS, PRESETS, PRECISIONS) if by_side(rows, cell).get("ours")]
    steps = distinct([row for row in rows if row["work"] not in ("tokenize", "peak")], "runs")
    return f"""# Speed beside PyTorch

Machine: {machine()}.
Versions: {distinct(rows, "peer")}, {output("rustc", "--version")}, commit {distinct(rows, "commit")}; {distinct(rows, "threads")} threads.

Medians of interleaved pairs{f", {steps} steps a call" if steps else ""}; in brackets the range over the pairs. A window has {flops.WINDOW} bases; a
batch has 16 windows (small) or 4 (base). Fine-tuning has 32 windows of {flops.FINETUNE_WINDOW} bases. tokenize is the whole job, from FASTA to a file of
codes, once a call{inputs(rows)}.
"Tuned" is PyTorch with MKL told to use AVX-512 on AMD processors, and {allocator()}; "stock" is as pip installs it.

{speed_table(rows, cells, args.bars)}
{token_table(rows, cells)}
{flop_table(rows, cells, args.bars)}Made by `python3 benches/beside_pytorch.py`; raw rows are in `rows.jsonl`.
"""


def dry(args, cells):
    print(shlex.join(map(str, [args.program, "bench", "peak", "--threads", args.threads])))
    for cell in cells:
        print(f"\n{' '.join(cell)}, {pairs(args, cell)} pairs, {conditions(args, cell)}:")
        for side in PRECISIONS[cell[2]]:
            words, folder = command(args, side, cell, tokenize_files(args, cell[1], Path("TEMP")))
            print(f"  {side}: " + (f"(in {folder}) " if folder else "") + shlex.join(map(str, words)))
    print("\nFLOPs of useful matrix products:\n")
    named = lambda parts: ", ".join(f"{name} {count / 1e6:,.3f}" for name, count in parts.items())
    sizes = dict.fromkeys(cell[:2] for cell in cells if not cell[0].startswith("mxdna"))
    print(markdown(["work", "preset", "MFLOP per base", "of which"],
                   [[*size, f"{flops.per_base(*size) / 1e6:,.3f}", named(flops.parts(*size))] for size in sizes]))


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer", type=Path, default=ROOT.parent / "shared/peers", help="folder of bench.py and tuned.sh")
    p.add_argument("--python", default=sys.executable, help="a Python that has torch")
    p.add_argument("--program", type=Path, default=PROGRAM, help="our program")
    p.add_argument("--works", nargs="+", choices=WORKS, default=WORKS)
    p.add_argument("--presets", nargs="+", choices=PRESETS, default=PRESETS)
    p.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--runs", type=int, default=5, help="measured steps of a call")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--fasta", type=Path, default=GENOMES / "ecoli.fna.gz", help="what to tokenize")
    p.add_argument("--tokenize-bases", type=int, metavar="N", help="tokenize the first N bases only; 0: all")
    p.add_argument("--tokenize-pairs", type=int, metavar="N", help="pairs of tokenize, if not --pairs")
    p.add_argument("--stock-pairs", type=int, metavar="N", help="measure stock PyTorch in the first N pairs only")
    p.add_argument("--bars", action="store_true", help="show beside every ratio the bar it has to reach")
    p.add_argument("--mxdna", type=Path, metavar="FOLDER", help="pre-trained MxDNA model that both sides begin with, of the one preset")
    p.add_argument("--products", action="store_true", help="let PyTorch's MxDNA use gathers and products in place of torchvision")
    p.add_argument("--commit", help="commit that --program was built from, if not this one")
    p.add_argument("--allow-mixed", action="store_true", help="add to rows of another commit, build, machine or setting")
    p.add_argument("--dry", action="store_true", help="print commands and FLOPs, run nothing")
    p.add_argument("-o", "--output", type=Path, help="folder of rows.jsonl and README.md")
    args = p.parse_args()
    if not (args.output or args.dry):
        p.error("-o is needed, unless --dry")
    # The peer runs in its own folder; a virtual environment's Python must keep its name, so links are not followed.
    args.python = str(Path(args.python).absolute()) if "/" in args.python else args.python
    args.peer, args.program, args.fasta = (path.absolute() for path in (args.peer, args.program, args.fasta))
    args.mxdna = args.mxdna and args.mxdna.absolute()
    args.weights = hashlib.sha256((args.mxdna / "model.safetensors").read_bytes()).hexdigest()[:12] if args.mxdna else "fresh"
    return args


def main():
    args = arguments()
    cells = list(itertools.product(args.works, args.presets, args.precisions))
    if args.dry:
        return dry(args, cells)
    if "tokenize" in args.works and not args.fasta.exists():
        raise SystemExit(f"error: no {args.fasta}: give --fasta, or leave tokenize out of --works")
    args.output.mkdir(parents=True, exist_ok=True)
    rows = Rows(args.output / "rows.jsonl")
    missing = {cell: [pair for pair in range(pairs(args, cell)) if pair not in by_side(rows, cell).get("ours", {})] for cell in cells}
    missing = {cell: numbers for cell, numbers in missing.items() if numbers}
    # Rows that are only shown again may come from another commit, not from another machine.
    common = {"cpu": cpu(), **({"threads": args.threads, **build(args.program, args.commit)} if missing else {})}
    differences = rows.differences(common)
    for cell in missing:
        differences += rows.differences(conditions(args, cell), lambda row: row["work"] != "peak" and cell_of(row) == cell)
    refuse_mixed(differences, rows.path, args.allow_mixed)
    has_peak = True
    with tempfile.TemporaryDirectory() as folder:
        for cell, numbers in missing.items():
            files = tokenize_files(args, cell[1], Path(folder))
            if cell[0] == "tokenize" and not files[0].exists():
                cut(args.fasta, files[0], kept_bases(args, cell[1]))
            if has_peak:
                peak = measure_peak(args, common)
                has_peak = bool(peak)
                rows.add(peak)
            for pair in numbers:
                rows.add(measure_pair(args, cell, pair, common, files))
                (args.output / "README.md").write_text(report(args, rows))
    text = report(args, rows)
    (args.output / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    try:
        main()
    except Failed as failed:
        sys.exit(f"error: {failed}\nmeasured pairs are kept; the same command goes on")
    except KeyboardInterrupt:
        sys.exit("stopped; measured pairs are kept; the same command goes on")
