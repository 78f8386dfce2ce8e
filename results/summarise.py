#!/usr/bin/env python3
"""A table of run folders: python3 results/summarise.py RUN... > results/DATE-WHAT/README.md

Each RUN is a folder that `vqdna learn` wrote. What the table needs is copied beside it with `--keep FOLDER`.
"""
import argparse
import json
import shutil
from pathlib import Path

KEPT = ("config.toml", "metrics.jsonl", "config.json")
PROGRAM = "vqdna"


def command_line(manifest):
    return [PROGRAM, *(Path(a).name if "/" in a else a for a in manifest["command_line"][1:])]


def row(run):
    manifest = json.loads((run / "run.json").read_text())
    measures = manifest["measures"]
    levels = [n for n in range(1, 99) if f"usage_{n}" in measures]
    each = lambda name, form: ", ".join(form.format(measures[f"{name}_{n}"]) for n in levels)
    quantizer = manifest["config"]["tokenizer"]["quantizer"]
    return [
        run.name, quantizer["kind"], str(manifest["config"]["seed"]), str(manifest["steps"]), f"{manifest['wall_s'] / 60:.1f}",
        manifest["evaluated_on"], f"{measures['bases']:,}", f"{100 * measures['reconstruction']:.4f}",
        each("usage", "{:.2%}"), each("perplexity", "{:.1f}"), each("dead_codes", "{:.0f}")]


HEAD = ["run", "quantizer", "seed", "steps", "minutes", "split", "bases", "reconstruction, %", "usage per level", "perplexity per level",
        "unused codes per level"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("runs", nargs="+", type=Path)
    p.add_argument("--keep", type=Path, help="copy configs, manifests and logs into this folder")
    p.add_argument("--title", default="Vocabularies")
    args = p.parse_args()
    manifests = [json.loads((run / "run.json").read_text()) for run in args.runs]
    print(f"# {args.title}\n")
    print("| " + " | ".join(HEAD) + " |\n" + "| --- " * len(HEAD) + "|")
    for run in args.runs:
        print("| " + " | ".join(row(run)) + " |")
    print("\nReconstruction: share of the bases of the split whose most likely letter is their own (N does not count). Usage: share of the"
          " codes of a level that the split uses at least once. Perplexity: exp of the entropy of the codes in nats.\n")
    print("| run | program | device | threads | machine | input | BLAKE3 of the input | command |\n" + "| --- " * 8 + "|")
    for run, m in zip(args.runs, manifests):
        for file in m["inputs"]:
            command = " ".join(command_line(m))
            print(f"| {run.name} | {m['program']} | {m['device']} | {m['threads']} | {m['machine']} | {Path(file['path']).name} | "
                  f"{file['blake3'][:16]}… | `{command}` |")
    if args.keep:
        for run in args.runs:
            (args.keep / run.name).mkdir(parents=True, exist_ok=True)
            for name in KEPT:
                shutil.copy(run / name, args.keep / run.name / name)
            # Where programs and files lay on that machine says nothing to others.
            manifest = json.loads((run / "run.json").read_text())
            manifest["command_line"] = command_line(manifest)
            for file in manifest["inputs"]:
                file["path"] = Path(file["path"]).name
            (args.keep / run.name / "run.json").write_text(json.dumps(manifest, indent=2) + "\n")
    print("\nConfig, manifest and log of each run lie in the folders beside this file. Made by `results/summarise.py`.")


if __name__ == "__main__":
    main()
