#!/usr/bin/env python3
"""Kills runs of all stages at random moments and resumes them until they finish.

    python3 benches/kill_storm.py [-n KILLS] [--seed N] [--work DIR] [-o FILE.json]

Four kinds of run (learn, pretrain over codes, fine-tune, pretrain MxDNA) are first done once without interruption. Then each is begun
again and again in a new folder; a seeded choice sends SIGKILL, SIGTERM or SIGINT after a seeded delay, and the run goes on with
`--resume` until it finishes. It must end with the same weights, bit for bit, as the run that was left alone; a stopped run must exit
with 128 plus the number of its signal; and the folder must hold the same files as the other, no temporary file or lock among them.
At last two runs are started in one folder: one must succeed, the other must end with exit code 2 and one line of error.

Needs Python 3 alone. The exit code is 1 if anything differs. Numbers are printed as JSON.
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIGNALS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
TINY = "--preset tiny --set train.checkpoint_every=3 --set train.log_every=1 --threads 1"


def genome(path, seed, bases=60_000):
    """A FASTA file with two contigs, runs of N and soft-masked bases."""
    draw = random.Random(seed)
    with open(path, "w") as out:
        for contig in ("one", "two"):
            letters = "".join(draw.choices("ACGT", k=bases))
            letters = letters[:1000] + "N" * 50 + letters[1000:2000].lower() + letters[2000:]
            print(f">{contig}", *(letters[i : i + 80] for i in range(0, len(letters), 80)), sep="\n", file=out)


def table(path, seed, rows):
    """Sequences of 60 bases; those of class 1 hold a motif."""
    draw = random.Random(seed)
    with open(path, "w") as out:
        print("sequence,label", file=out)
        for row in range(rows):
            letters = "".join(draw.choices("ACGT", k=60))
            if row % 2:
                letters = letters[:20] + "TATAAAAGGC" + letters[30:]
            print(f"{letters},{row % 2}", file=out)


def prepare(work, program):
    """Inputs, and what later stages begin with."""
    genome(work / "genome.fa", 1)
    (work / "data").mkdir()
    for seed, (name, rows) in enumerate((("train", 240), ("dev", 60), ("test", 60))):
        table(work / f"data/{name}.csv", seed, rows)
    data = "--set data.length=128 --set train.batch=8"
    kinds = {
        "learn": f"learn genome.fa -o OUT --steps 60 {data} {TINY}",
        "pretrain": f"pretrain vocabulary genome.fa -o OUT --steps 60 {data} {TINY}",
        "finetune": "finetune encoder data -o OUT --mode full --set train.batch=8 --steps 60 --set train.evaluate_every=10 " + TINY,
        "mxdna": f"pretrain --tokenizer mxdna genome.fa -o OUT --steps 24 --set data.length=64 --set train.batch=4 {TINY}",
    }
    for kind, name in (("learn", "vocabulary"), ("pretrain", "encoder")):
        line = kinds[kind].replace("OUT", name).replace("--steps 60", "--steps 12")
        subprocess.run([program, *line.split()], cwd=work, check=True, capture_output=True)
    return kinds


def weights(folder):
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def files(folder):
    """Names of everything in the folder, but for dated logs."""
    found = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in found if "tfevents" not in name)


def run(program, line, work, kill=None):
    """Exit code (negative: a signal that was not caught), last lines of stderr, seconds. `kill` is a delay and a signal."""
    begun = time.monotonic()
    child = subprocess.Popen([program, *line.split()], cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    sent = False
    if kill:
        try:
            child.wait(kill[0])
        except subprocess.TimeoutExpired:
            child.send_signal(kill[1])
            sent = True
    message = child.communicate(timeout=600)[1]
    return child.returncode, message.strip(), time.monotonic() - begun, sent


def storm(program, kinds, work, kills, draw, faults):
    """Kills until enough, kind after kind; returns what happened."""
    whole, seconds = {}, {}
    for kind, line in kinds.items():
        code, message, took, _ = run(program, line.replace("OUT", f"whole-{kind}"), work)
        if code:
            raise SystemExit(f"{kind} alone ended with {code}: {message}")
        whole[kind], seconds[kind] = work / f"whole-{kind}", took
    counts = {kind: dict.fromkeys([*SIGNALS, "runs", "kept"], 0) for kind in kinds}
    stops, done, number = [], 0, 0
    while done < kills:
        kind = list(kinds)[number % len(kinds)]
        number += 1
        folder = work / f"run-{number}"
        line = kinds[kind].replace("OUT", folder.name)
        resumed = False
        for attempt in range(200):
            name = draw.choice(list(SIGNALS)) if done < kills and attempt < 12 else None
            kill = (draw.uniform(0.02, 1.1 * seconds[kind]), SIGNALS[name]) if name else None
            begun = time.monotonic()
            code, message, took, sent = run(program, line + (" --resume" if resumed else ""), work, kill)
            if sent:
                done += 1
                counts[kind][name] += 1
                if name != "SIGKILL":
                    stops.append(time.monotonic() - begun - kill[0])
                expected = {-SIGNALS[name], 128 + SIGNALS[name], 0} if name != "SIGKILL" else {-signal.SIGKILL, 0}
                if code not in expected:
                    faults.append(f"{kind}: exit code {code} after {name}: {message[-300:]}")
                    break
            elif code:
                faults.append(f"{kind}: exit code {code} without a signal: {message[-300:]}")
                break
            if code == 0 and (folder / "model.safetensors").exists():
                break
            # A run that was stopped before it made its folder begins anew.
            resumed = folder.exists()
        else:
            faults.append(f"{kind}: not finished after 200 attempts")
        counts[kind]["runs"] += 1
        if not (folder / "model.safetensors").exists():
            faults.append(f"{kind}: no model in {folder}")
        elif weights(folder) != weights(whole[kind]):
            faults.append(f"{kind}: other weights than the run that was left alone, in {folder}")
        elif files(folder) != files(whole[kind]):
            differ = sorted(set(files(folder)) ^ set(files(whole[kind])))
            faults.append(f"{kind}: files differ in {folder}: {differ}")
        else:
            counts[kind]["kept"] += 1
            shutil.rmtree(folder)
    for path in work.glob(".*"):
        faults.append(f"left beside the folders: {path.name}")
    return counts, stops


def two_at_once(program, kinds, work, faults):
    """Two runs with other seeds in one folder: one wins, the other says so."""
    outcomes = {}
    for kind, line in kinds.items():
        name = f"both-{kind}"
        command = [[program, *line.replace("OUT", name).split(), "--seed", seed] for seed in ("1", "99")]
        children = [subprocess.Popen(c, cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for c in command]
        messages = [child.communicate(timeout=600)[1].strip() for child in children]
        codes = [child.returncode for child in children]
        outcomes[kind] = codes
        if sorted(codes) != [0, 2]:
            faults.append(f"{kind}: two runs in one folder ended with {codes}")
            continue
        refused = messages[codes.index(2)].splitlines()
        if sum(text.startswith("error:") for text in refused) != 1:
            faults.append(f"{kind}: the second run says {refused[-3:]}")
        winner = ("1", "99")[codes.index(0)]
        if f"seed = {winner}\n" not in (work / name / "config.toml").read_text():
            faults.append(f"{kind}: config.toml is not that of the run that finished")
    return outcomes


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("-n", "--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--program", type=Path, default=ROOT / "target/release/vqdna")
    options.add_argument("--work", type=Path, help="folder for the runs, kept; default: a temporary one")
    options.add_argument("-o", "--output", type=Path, help="where the figures go, as JSON")
    options = options.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="kill-storm-"))
    work.mkdir(parents=True, exist_ok=True)
    program = str(options.program.resolve())
    faults, begun = [], time.monotonic()
    kinds = prepare(work, program)
    counts, stops = storm(program, kinds, work, options.kills, random.Random(options.seed), faults)
    both = two_at_once(program, kinds, work, faults)
    stops.sort()
    figures = {
        "kills": sum(counts[kind][name] for kind in kinds for name in SIGNALS),
        "seed": options.seed,
        "by_kind": counts,
        "stop_s_median_max": [round(stops[len(stops) // 2], 3), round(stops[-1], 3)] if stops else None,
        "two_runs_exit_codes": both,
        "wall_s": round(time.monotonic() - begun),
        "faults": faults,
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    if not options.work and not faults:
        shutil.rmtree(work)
    elif faults:
        print(f"the folders are in {work}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
