#!/usr/bin/env python3
"""Speed and memory beside the PyTorch definition of the network, run in turns on this machine.

    python3 benches/beside_pytorch.py --peer ../shared/peers --python VENV/bin/python -o results/DATE-MACHINE-speed

Needs the release build (`cargo build --release`) and, for the other side, Python 3.11 with
`pip install torch==2.13.0 safetensors numpy`; "tuned" also gcc and Debian's libtcmalloc-minimal4 (see tuned.sh of the peer).
Each pair is ours, stock, tuned, one after another with two threads; ratios are taken pair by pair, and the table shows their
median. Above 1 means that we are faster, or need less memory. Raw rows go to rows.jsonl, the table to README.md.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run(command, cwd=None):
    out = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True).stdout
    return json.loads(out.strip().splitlines()[-1])


def sides(args, work, preset):
    tail = ["--preset", preset, "--threads", str(args.threads), "--runs", str(args.runs)]
    bench = [args.python, "bench.py", work, *tail]
    return {
        "ours": lambda: run([str(ROOT / "target/release/vqdna"), "bench", work, *tail]),
        "stock": lambda: run(bench, args.peer),
        "tuned": lambda: run(["./tuned.sh", *bench], args.peer),
    }


def machine():
    model = next((line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "unknown")
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def commit():
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def table(rows):
    lines = ["| work | preset | ours, bases/s | stock, bases/s | tuned, bases/s | faster than stock | faster than tuned | "
             "ours, MB | tuned, MB | memory, tuned / ours |", "| --- " * 10 + "|"]
    cells = sorted({(r["work"], r["preset"]) for r in rows}, key=lambda c: (c[0] != "learn", c[1] != "small"))
    for work, preset in cells:
        by = {side: [r for r in rows if (r["work"], r["preset"], r["side"]) == (work, preset, side)] for side in ("ours", "stock", "tuned")}
        median = lambda side, key: statistics.median(r[key] for r in by[side])
        ratio = lambda side, key: statistics.median(p[key] / o[key] for o, p in zip(by["ours"], by[side]))
        lines.append("| " + " | ".join([
            work, preset, *(f"{median(s, 'bases_per_s'):,.0f}" for s in ("ours", "stock", "tuned")),
            f"{ratio('stock', 'seconds'):.2f}", f"{ratio('tuned', 'seconds'):.2f}",
            f"{median('ours', 'peak_rss_mb'):,.0f}", f"{median('tuned', 'peak_rss_mb'):,.0f}", f"{ratio('tuned', 'peak_rss_mb'):.1f}"]) + " |")
    return "\n".join(lines)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peer", type=Path, default=ROOT.parent / "shared/peers", help="folder of bench.py and tuned.sh")
    p.add_argument("--python", default=sys.executable, help="a Python that has torch")
    p.add_argument("--pairs", type=int, default=5)
    p.add_argument("--runs", type=int, default=5, help="measured steps of a call")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--work", nargs="+", default=["learn", "encode"])
    p.add_argument("--preset", nargs="+", default=["small", "base"])
    p.add_argument("-o", "--output", type=Path, required=True)
    args = p.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    rows = []
    with open(args.output / "rows.jsonl", "w") as log:
        for work in args.work:
            for preset in args.preset:
                for pair in range(args.pairs):
                    for side, measure in sides(args, work, preset).items():
                        row = {"side": side, "pair": pair, **measure()}
                        rows.append(row)
                        print(json.dumps(row), file=log, flush=True)
                        print(json.dumps(row), file=sys.stderr)
    versions = sorted({r["peer"] for r in rows})
    text = f"""# Speed beside PyTorch

{machine()}; {args.threads} threads; commit {commit()}; {", ".join(versions)}; f32.
Medians of {args.pairs} interleaved triples, {args.runs} steps each. A window has 512 bases; a batch has 16 windows (small) or 4 (base).
"Tuned" is PyTorch with MKL told to use AVX-512 on AMD processors, and tcmalloc; "stock" is as pip installs it.

{table(rows)}

Made by `python3 benches/beside_pytorch.py`; raw rows are in `rows.jsonl`.
"""
    (args.output / "README.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
