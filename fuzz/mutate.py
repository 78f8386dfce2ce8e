#!/usr/bin/env python3
"""Gives the program mutated inputs of every kind and checks how it ends.

    python3 fuzz/mutate.py [-n CASES] [--seed N] [--first N] [--jobs N] [--work DIR] [-o FILE.json]

Case n is a function of the seed and n alone: a file of one of the kinds below is mutated one to four times (bits, bytes, runs, numbers,
truncation, splices), and one command reads it. A case is a fault if the program panics, is ended by a signal, takes longer than 30
seconds or more than 1 GB of resident memory, ends with an exit code other than 0, 1 or 2, ends with 2 and not exactly one line that
begins with `error:`, or leaves a file that it should not: any file after a failure but for an index, and any temporary file.

Folders of faulty cases are kept under --work. Needs Python 3 alone. The exit code is 1 if there is a fault; figures are printed as JSON.
"""
import argparse
import concurrent.futures
import gzip
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SECONDS, MEBIBYTES = 30, 1000
TINY = "--preset tiny --set train.log_every=1 --threads 1"
BRIEF = f"{TINY} --set train.batch=4 --set data.length=64"

# What is mutated, and the commands that read it; `OUT` is where results go. Files are those that `prepare` makes.
KINDS = {
    "fasta": ("genome.fa", ["tokenize vocabulary genome.fa -o OUT.tsv", "embed vocabulary genome.fa -o OUT.npy", "predict tuned genome.fa"]),
    "fasta.gz": ("genome.fa.gz", ["tokenize vocabulary genome.fa.gz -o OUT.parquet"]),
    "fasta.bgz": ("genome.bgz", ["tokenize vocabulary genome.bgz -o OUT.npy --region one:100-900"]),
    "fasta.xz": ("genome.fa.xz", ["predict tuned genome.fa.xz"]),
    "fasta.bz2": ("genome.fa.bz2", ["predict tuned genome.fa.bz2"]),
    "fastq": ("reads.fastq", ["embed vocabulary reads.fastq -o OUT.tsv", f"learn reads.fastq -o OUT --steps 1 {BRIEF}"]),
    "fai": ("genome.fa.fai", ["tokenize vocabulary genome.fa -o OUT.tsv --region two:1,001-1,500", "predict tuned places.bed --fasta genome.fa"]),
    "gzi": ("genome.bgz.gzi", ["tokenize vocabulary genome.bgz -o OUT.tsv --region two:1-500"]),
    "bed": ("places.bed", ["predict tuned places.bed --fasta genome.fa", "units mxdna places.bed --fasta genome.fa"]),
    "csv": ("rows.csv", ["predict tuned rows.csv", "evaluate tuned rows.csv", f"finetune vocabulary rows.csv -o OUT --mode probe --steps 1 {TINY}"]),
    "tsv": ("rows.tsv", ["predict tuned rows.tsv", "evaluate tuned rows.tsv"]),
    "jsonl": ("rows.jsonl", ["predict tuned rows.jsonl", "evaluate tuned rows.jsonl"]),
    "parquet": ("rows.parquet", ["predict tuned rows.parquet", "embed vocabulary rows.parquet -o OUT.npy"]),
    "codes.tsv": ("codes.tsv", ["decode vocabulary codes.tsv -o OUT.fa", "merge codes.tsv -o OUT.npy"]),
    "codes.npy": ("codes.npy", ["decode vocabulary codes.npy -o OUT.fa", "merge codes.npy -o OUT.tsv"]),
    "records.tsv": ("codes.npy.records.tsv", ["decode vocabulary codes.npy -o OUT.fa"]),
    "codes.parquet": ("codes.parquet", ["decode vocabulary codes.parquet -o OUT.fa", "merge codes.parquet -o OUT.tsv"]),
    "config.json": ("vocabulary/config.json", ["inspect vocabulary", "tokenize vocabulary short.fa -o OUT.tsv"]),
    "weights": ("vocabulary/model.safetensors", ["tokenize vocabulary short.fa -o OUT.tsv"]),
    "run.json": ("vocabulary/run.json", ["inspect vocabulary"]),
    "encoder config": ("encoder/config.json", ["inspect encoder", "embed encoder short.fa -o OUT.tsv"]),
    "encoder weights": ("encoder/model.safetensors", ["embed encoder short.fa -o OUT.tsv"]),
    "tuned config": ("tuned/config.json", ["inspect tuned", "predict tuned short.fa"]),
    "tuned weights": ("tuned/model.safetensors", ["predict tuned short.fa"]),
    "mxdna config": ("mxdna/config.json", ["inspect mxdna", "tokenize mxdna short.fa -o OUT.bed"]),
    "mxdna weights": ("mxdna/model.safetensors", ["embed mxdna short.fa -o OUT.tsv"]),
    "settings": ("settings.toml", [f"learn genome.fa -o OUT --config settings.toml --steps 1 --threads 1 --set data.length=64 --set train.batch=4"]),
}
# Parts of a stopped run, read again by --resume; the files are found when they are made.
STOPPED = {"checkpoint": ("stopped-learn", f"learn genome.fa -o stopped-learn --steps 6 --resume {BRIEF}"),
           "codes of a run": ("stopped-pretrain", f"pretrain vocabulary genome.fa -o stopped-pretrain --steps 6 --resume {BRIEF}")}
EXTREMES = [b"0", b"-1", b"1e308", b"1e999", b"NaN", b"4294967296", b"18446744073709551615", b"9223372036854775807", b"65536", b"1" * 40, b"", b"null", b"0.5"]
TOKENS = [b"\n", b"\r\n", b"\r", b"\t", b",", b'"', b">", b"@", b"+", b"#", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x1b[31m", b"N" * 300, b"NA", b"{", b"}", b"[" * 200, b":", b"-", b" "]


def prepare(work, program):
    """One of every kind, small."""
    draw = random.Random(7)
    letters = lambda n: "".join(draw.choices("ACGT", k=n))
    one = letters(1500)
    records = {"one some words": one[:400] + "NNRY" + one[400:800].lower() + one[800:], "empty": "", "two": letters(1800), "a": "A"}
    wrap = lambda text: "".join(text[i : i + 60] + "\n" for i in range(0, len(text), 60))
    fasta = "".join(f">{name}\n{wrap(bases)}" for name, bases in records.items())
    (work / "genome.fa").write_text(fasta)
    (work / "short.fa").write_text(f">s\n{letters(120)}\n>t\n{letters(30)}\n")
    import bz2, lzma
    (work / "genome.fa.gz").write_bytes(gzip.compress(fasta.encode()))
    (work / "genome.fa.xz").write_bytes(lzma.compress(fasta.encode()))
    (work / "genome.fa.bz2").write_bytes(bz2.compress(fasta.encode()))
    (work / "genome.bgz").write_bytes(bgzip(fasta.encode()))
    (work / "reads.fastq").write_text("".join(f"@r{n}\n{letters(70)}\n+\n{'I' * 70}\n" for n in range(20)))
    (work / "places.bed").write_text("track name=x\n" + "".join(f"{c}\t{s}\t{s + 90}\tp{s}\t{s % 9}\t{'+-'[s % 2]}\n" for c in ("one", "two") for s in range(0, 900, 151)))
    rows = [(letters(60), n % 2) for n in range(60)]
    (work / "rows.csv").write_text("sequence,label\r\n" + "".join(f"{s},{l}\r\n" for s, l in rows))
    (work / "rows.tsv").write_text("id\tsequence\tlabel\n" + "".join(f"i{n}\t{s}\t{l}\n" for n, (s, l) in enumerate(rows)))
    (work / "rows.jsonl").write_text("".join(json.dumps({"sequence": s, "label": l}) + "\n" for s, l in rows))
    shutil.copy(Path(__file__).with_name("rows.parquet"), work)
    (work / "settings.toml").write_bytes((ROOT / "configs/tiny.toml").read_bytes())
    lines = [
        f"learn genome.fa -o vocabulary --steps 3 {BRIEF}",
        f"pretrain vocabulary genome.fa -o encoder --steps 2 {BRIEF}",
        f"pretrain --tokenizer mxdna genome.fa -o mxdna --steps 2 {BRIEF}",
        f"finetune vocabulary rows.csv -o tuned --mode probe --steps 2 --threads 1 --set train.batch=8",
        "tokenize vocabulary genome.fa -o codes.tsv", "tokenize vocabulary genome.fa -o codes.npy", "tokenize vocabulary genome.fa -o codes.parquet",
        "tokenize vocabulary genome.fa -o region.tsv --region one:1-10", "tokenize vocabulary genome.bgz -o region.tsv --region one:1-10",
    ]
    for line in lines:
        done = subprocess.run([program, *line.split()], cwd=work, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{line}: {done.stderr}")
    kinds = dict(KINDS)
    for kind, (folder, line) in STOPPED.items():
        begin = line.replace("--resume ", "").replace("--steps 6", "--steps 400") + " --set train.checkpoint_every=2"
        child = subprocess.Popen([program, *begin.split()], cwd=work, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            if (work / folder / "checkpoint").exists():
                break
            time.sleep(0.05)
        child.kill()
        child.wait()
        for path in sorted((work / folder).rglob("*")):
            if path.is_file() and "tfevents" not in path.name and path.stat().st_size:
                line = begin.replace("--threads 1", "--threads 1 --resume")
                kinds[f"{kind} {path.relative_to(work / folder)}"] = (str(path.relative_to(work)), [line.replace("--steps 400", "--steps 400 --stop-check")])
    return {k: (f, [c.replace(" --stop-check", "") for c in cs]) for k, (f, cs) in kinds.items()}


def bgzip(data):
    """Blocks of gzip with their sizes, as bgzip writes them."""
    import struct, zlib
    out = b""
    for at in [*range(0, len(data), 1000), None]:
        part = data[at : at + 1000] if at is not None else b""
        squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
        body = squeeze.compress(part) + squeeze.flush()
        out += b"\x1f\x8b\x08\x04\0\0\0\0\0\xff\x06\0BC\x02\0" + struct.pack("<H", len(body) + 25) + body + struct.pack("<II", zlib.crc32(part), len(part))
    return out


def mutate(data, draw, others):
    """One to four changes."""
    data = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        # Headers decide most, so half of all changes are near the start.
        reach = min(len(data), 400) if draw.random() < 0.5 else len(data)
        at = draw.randrange(reach) if reach else 0
        length = min(draw.choice((1, 2, 8, 100, 5000)), len(data) - at)
        match draw.randrange(11):
            case 0:
                if data:
                    data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + length] = draw.randbytes(length)
            case 2:
                data[at:at] = draw.choice(TOKENS) * draw.choice((1, 1, 1, 500))
            case 3:
                del data[at : at + length]
            case 4:
                del data[at:]
            case 5:
                data[at:at] = data[at : at + length] * draw.choice((1, 3))
            case 6:
                other = draw.choice(others)
                begin = draw.randrange(len(other)) if other else 0
                data[at : at + length] = other[begin : begin + draw.choice((10, 1000))]
            case 7 | 8:
                numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data[:200_000]))
                if numbers:
                    found = draw.choice(numbers)
                    data[found.start() : found.end()] = draw.choice(EXTREMES)
            case 9:
                data[at : at + length] = bytes(length)
            case 10:
                data[at : at + 8] = draw.choice((b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\0\0\0\0\0\0\0\x80", b"\0\0\0\x40\0\0\0\0"))
    return bytes(data)


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def case(number, options, kinds, template, seeds, base):
    """One input, one command; None or what is wrong with how it ended."""
    draw = random.Random(f"{options.seed} {number}")
    kind = options.turns[number % len(options.turns)]
    file, lines = kinds[kind]
    line = draw.choice(lines)
    folder = base / f"case-{number}"
    folder.mkdir()
    # What the command names, and what lies beside it: indexes and tables of records.
    for path in template.iterdir():
        if any(path.name.startswith(word) for word in line.split() if (template / word).exists()):
            copy = shutil.copytree if path.is_dir() else os.link
            copy(path, folder / path.name, **({"copy_function": os.link} if path.is_dir() else {}))
    target = folder / file
    target.unlink()
    target.write_bytes(mutate(seeds[kind], draw, list(seeds.values())))
    if file in ("genome.fa", "genome.bgz"):
        for index in folder.glob(f"{file}.*i"):
            index.unlink()
    else:
        # Indexes are younger than what they index.
        for index in (folder / "genome.fa.fai", folder / "genome.bgz.gzi", folder / "genome.bgz.fai"):
            if index.exists():
                data = index.read_bytes()
                index.unlink()
                index.write_bytes(data)
    # Runs that may go on for long, and the folder that one writes into.
    long = file.startswith("stopped-") or kind == "settings"
    run = file.split("/")[0] if file.startswith("stopped-") else None
    if run:
        # A run writes into its folder: its files must not be those of the template.
        for path in (folder / run).rglob("*"):
            if path.is_file():
                data = path.read_bytes()
                path.unlink()
                path.write_bytes(data)
    before = names(folder)
    command = [options.program, *line.replace("OUT", "made").split()]
    with open(folder / "stderr", "w+b") as said:
        child = subprocess.Popen(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        # A run that goes on is stopped when it has shown that it can.
        soon = threading.Timer(1.0 if long else SECONDS, child.terminate if long else child.kill)
        late = threading.Timer(SECONDS, child.kill)
        soon.start(), late.start()
        begun = time.monotonic()
        _, status, usage = os.wait4(child.pid, 0)
        took = time.monotonic() - begun
        child.returncode = 0
        soon.cancel(), late.cancel()
        code = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read(200_000).decode("utf-8", "replace")
    faults = []
    if "panicked" in text or "overflow" in text and code not in (0, 1, 2):
        faults.append("panic")
    if took >= SECONDS:
        faults.append("hang")
    elif code not in ((0, 1, 2, 143) if long else (0, 1, 2)):
        faults.append(f"exit code {code}")
    if usage.ru_maxrss > MEBIBYTES * 1024:
        faults.append(f"{usage.ru_maxrss // 1024} MiB of memory")
    if code == 2 and sum(part.startswith("error:") for part in text.splitlines()) != 1:
        faults.append("not one line of error")
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text.replace("\r", "")):
        faults.append("control characters in a message")
    made = names(folder) - before - {"stderr"}
    if code == 2 and not run:
        made -= {"genome.fa.fai", "genome.bgz.gzi", "genome.bgz.fai"}
        if made:
            faults.append(f"left {sorted(made)[:3]}")
    if any(".part" in name or name.endswith(".lock") for name in made):
        faults.append(f"temporary files {sorted(made)[:3]}")
    if faults:
        return code, usage.ru_maxrss, took, f"case {number} ({kind}): {line}: {', '.join(faults)}: {text.strip()[-300:]}"
    shutil.rmtree(folder)
    return code, usage.ru_maxrss, took, None


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("-n", "--cases", type=int, default=20_000)
    options.add_argument("--first", type=int, default=0, help="number of the first case, to repeat one")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--jobs", type=int, default=os.cpu_count())
    options.add_argument("--program", type=Path, default=ROOT / "target/release/vqdna")
    options.add_argument("--work", type=Path, help="folder for cases; default: a temporary one")
    options.add_argument("-o", "--output", type=Path, help="where the figures go, as JSON")
    options = options.parse_args()
    base = options.work or Path(tempfile.mkdtemp(prefix="mutate-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    options.program = str(options.program.resolve())
    template = base / "template"
    template.mkdir(parents=True)
    kinds = prepare(template, options.program)
    # Runs that go on take a second each: every fourth turn for them.
    options.turns = [kind for turn in range(4) for kind in kinds if turn == 0 or not kind.startswith(tuple(STOPPED))]
    seeds = {kind: (template / file).read_bytes() for kind, (file, _) in kinds.items()}
    begun = time.monotonic()
    codes, faults, most, longest = {}, [], 0, 0.0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        numbers = range(options.first, options.first + options.cases)
        for code, memory, took, fault in pool.map(lambda n: case(n, options, kinds, template, seeds, base), numbers):
            codes[code] = codes.get(code, 0) + 1
            most, longest = max(most, memory), max(longest, took)
            if fault:
                faults.append(fault)
                print(fault, file=sys.stderr, flush=True)
    figures = {
        "cases": options.cases, "seed": options.seed, "kinds": len(kinds), "exit_codes": dict(sorted(codes.items())),
        "largest_memory_mib": most // 1024, "longest_s": round(longest, 1), "wall_s": round(time.monotonic() - begun), "faults": len(faults),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if options.output:
        options.output.write_text(text + "\n")
    if not faults and not options.work:
        shutil.rmtree(base)
    elif faults:
        print(f"folders of faulty cases are in {base}", file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
