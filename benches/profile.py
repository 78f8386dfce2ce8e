#!/usr/bin/env python3
"""Where the time goes: the share of matrix products, and how near they come to the product peak of this machine.

    python3 benches/profile.py -o results/DATE-MACHINE-profile

Needs Linux's perf and the release build. Samples begin after the warm-up. "Products" are samples inside the micro-kernel; "peak" is
`vqdna bench peak`, measured just before; "reached" is useful products (see flops.py) per second over that peak; "while multiplying" is
the same over the processor time spent in the micro-kernel alone, recomputed products included in the time but not in the work; "busy"
is processor time over wall time and threads.
"""
import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import flops
from measuring import PROGRAM, commit, machine, markdown, measure

MICRO_KERNEL = "kernel::sweep"


def shares(data):
    """Share of the samples of every symbol."""
    text = subprocess.run(["perf", "report", "-i", data, "--no-children", "-g", "none", "-F", "overhead,symbol", "-t", "\t"],
                          capture_output=True, text=True, check=True).stdout
    found = {}
    for line in text.splitlines():
        share, _, symbol = map(str.strip, line.partition("\t"))
        if share.endswith("%") and symbol:
            name = symbol.split("] ")[-1].strip()
            found[name] = found.get(name, 0.0) + float(share[:-1]) / 100
    return found


def profile(args, work, preset, precision):
    peak = measure([args.program, "bench", "peak", "--threads", args.threads])[f"{precision}_gflops"]
    bench = [str(args.program), "bench", work, "--preset", preset, "--precision", precision, "--threads", str(args.threads)]
    step = measure([*bench, "--runs", "1"])["seconds"]
    runs = max(3, round(args.seconds / step))
    with tempfile.TemporaryDirectory() as folder:
        data, stat = f"{folder}/perf.data", f"{folder}/stat"
        delay = str(round(3000 * step) + 500)
        record = ["perf", "record", "-D", delay, "-F", "999", "-o", data, "--", *bench, "--runs", str(runs)]
        row = json.loads(subprocess.run(record, capture_output=True, text=True, check=True).stdout.strip().splitlines()[-1])
        found = shares(data)
        count = ["perf", "stat", "-D", delay, "-x", ",", "-e", "task-clock", "-o", stat, "--", *bench, "--runs", str(runs)]
        subprocess.run(count, capture_output=True, check=True)
        fields = [line.split(",") for line in Path(stat).read_text().splitlines() if "task-clock" in line][0]
    busy = float(fields[5]) / args.threads
    products = sum(share for symbol, share in found.items() if MICRO_KERNEL in symbol)
    reached = flops.per_base(work, preset) * row["bases_per_s"] / 1e9 / peak
    others = sorted(((share, symbol) for symbol, share in found.items() if MICRO_KERNEL not in symbol), reverse=True)[:5]
    return {"work": work, "preset": preset, "precision": precision, "bases_per_s": row["bases_per_s"], "peak_gflops": peak, "reached": reached,
            "products": products, "busy": busy, "while_multiplying": reached / (products * busy),
            "others": [[symbol.replace("vqdna_kernels::", ""), share] for share, symbol in others]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", type=Path, default=PROGRAM)
    p.add_argument("--works", nargs="+", default=["learn", "encode", "pretrain", "embed"])
    p.add_argument("--presets", nargs="+", default=["small", "base"])
    p.add_argument("--precisions", nargs="+", default=["f32", "bf16"])
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seconds", type=float, default=6, help="length of a profile")
    p.add_argument("--commit", help="commit that --program was built from, if not this one")
    p.add_argument("-o", "--output", type=Path, required=True)
    args = p.parse_args()
    rows = [profile(args, work, preset, precision)
            for precision in args.precisions for work in args.works for preset in args.presets]
    percent = lambda share: f"{100 * share:.0f} %"
    head = ["work", "preset", "precision", "peak, GFLOP/s", "reached", "products", "while multiplying", "busy", "next"]
    table = markdown(head, [[row["work"], row["preset"], row["precision"], f"{row['peak_gflops']:.0f}", percent(row["reached"]),
                             percent(row["products"]), percent(row["while_multiplying"]), percent(row["busy"]),
                             ", ".join(f"{symbol} {100 * share:.1f} %" for symbol, share in row["others"])] for row in rows])
    text = "\n".join(["# Where the time goes", "", f"{machine()}; commit {args.commit or commit()}; {args.threads} threads.", "",
                      __doc__.strip().split("\n\n")[2], "", table, "", "Made by `benches/profile.py`; the numbers are in `rows.json`.", ""])
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "rows.json").write_text(json.dumps(rows, indent=1) + "\n")
    (args.output / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
