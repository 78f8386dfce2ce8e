#!/usr/bin/env python3
"""How many codes of a chromosome are the same in bf16 as in f32, here and under PyTorch's autocast, with the same weights.

    VENV/bin/python benches/bf16_codes.py MODEL FASTA --region XVI --peer ../shared/peers -o results/DATE-MACHINE-bf16

MODEL is a folder that `vqdna learn` wrote. Needs the release build, and a Python with torch, safetensors and numpy. Both sides see the
region alone, in pieces of 4096 bases with the halo of the network; the search of the codebooks is in f32 on both sides.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from measuring import commit, fasta_lines, machine

ROOT = Path(__file__).resolve().parent.parent
WINDOW = 4096


def ours(args, precision, folder):
    out = folder / f"{precision}.npy"
    command = [str(args.program), "tokenize", str(args.model), str(args.fasta), "--region", args.region, "--precision", precision, "-o", str(out)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return np.load(out)


def bases_of_record(args):
    """Base ids of the record, without the program: A, C, G, T are 0 to 3, all else 4."""
    table = np.full(256, 4, np.uint8)
    for i, pair in enumerate(("Aa", "Cc", "Gg", "Tt")):
        for letter in pair:
            table[ord(letter)] = i
    parts, inside = [], False
    for line in fasta_lines(args.fasta):
        if line.startswith(">"):
            inside = line[1:].split()[0] == args.region
        elif inside:
            parts.append(line)
    return torch.from_numpy(table[np.frombuffer("".join(parts).encode(), np.uint8)]).long()


def peer(args, bases, bf16):
    sys.path.insert(0, str(args.peer))
    from vqdna_torch import TokenizerConfig, VqDna
    config = json.loads((args.model / "config.json").read_text())["tokenizer"]
    sizes = config["quantizer"].get("codebook_sizes") or [config["quantizer"]["codebook_size"]]
    c = TokenizerConfig(d_stem=config["d_stem"], d_code=config["d_code"], blocks=config["blocks"], kernel=config["kernel"],
                        taps=tuple(config["taps"]), codebook_sizes=tuple(sizes), eps=config["norm_eps"])
    model = VqDna(c).eval()
    model.load_state_dict(load_file(args.model / "model.safetensors"))
    halo, out = 2 + c.blocks * (c.kernel // 2), []
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        for low in range(0, len(bases), WINDOW):
            high = min(low + WINDOW, len(bases))
            left, right = max(low - halo, 0), min(high + halo, len(bases))
            piece = bases[None, left:right]
            codes = model.encode(piece, torch.ones_like(piece, dtype=torch.bool))
            out.append(torch.stack(codes, -1)[0, low - left:high - left].numpy())
    return np.concatenate(out)


def shares(a, b):
    a, b = a.reshape(len(a), -1).astype(np.int64), b.reshape(len(b), -1).astype(np.int64)
    return [float((a[:, level] == b[:, level]).mean()) for level in range(a.shape[1])]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("fasta", type=Path)
    p.add_argument("--region", required=True, help="name of a record, taken whole")
    p.add_argument("--peer", type=Path, default=ROOT.parent / "shared/peers")
    p.add_argument("--program", type=Path, default=ROOT / "target/release/vqdna")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("-o", "--output", type=Path, required=True)
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        mine = {precision: ours(args, precision, folder) for precision in ("f32", "bf16")}
    bases = bases_of_record(args)
    theirs = {precision: peer(args, bases, precision == "bf16") for precision in ("f32", "bf16")}
    rows = {
        "ours, bf16 and f32": shares(mine["bf16"], mine["f32"]),
        "PyTorch, bf16 autocast and f32": shares(theirs["bf16"], theirs["f32"]),
        "ours and PyTorch, f32": shares(mine["f32"], theirs["f32"]),
    }
    levels = len(rows["ours, bf16 and f32"])
    head = ["codes compared", *(f"equal at level {level + 1}" for level in range(levels))]
    table = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    table += ["| " + " | ".join([name, *(f"{100 * share:.3f} %" for share in row)]) + " |" for name, row in rows.items()]
    text = "\n".join(["# Codes in bf16", "", f"{machine()}; commit {commit()}", "",
                      f"Record {args.region} of {args.fasta.name}, {len(bases):,} bases, vocabulary {args.model.name}; PyTorch {torch.__version__}.", "",
                      *table, "", "Made by `benches/bf16_codes.py`.", ""])
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "README.md").write_text(text)
    (args.output / "shares.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
