#!/usr/bin/env python3
"""What pre-training is worth: all three stages on real genomes and tasks, beside the same encoder without the second.

    python3 benches/three_stages.py --work runs/three-stages -o results/DATE-MACHINE-tasks

Needs the release build (`cargo build --release`). In the folder --work it learns a vocabulary of the genomes, pre-trains an encoder
over it (configs in `configs/genomes`), and fine-tunes to each task with as many seeds as --seeds says: once the encoder that was
pre-trained, once a fresh one of the same network, with the same settings. k-mers under logistic regression, chosen on dev, stand
beside them. What is there is not run again, so a run that was stopped goes on. The table is made of all tasks that are whole.

With `--arms pretrained fresh mxdna` an MxDNA model, which cuts sequences itself, is pre-trained on the same genomes too, for about
the time of vocabulary and encoder, and fine-tuned with the same settings; how long its units are in each task is counted and drawn.
"""
import argparse
import csv
import gzip
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from measuring import GENOMES, PROGRAM, ROOT, build, machine, markdown, output

DATA = GENOMES.parent
NETWORK = ["--preset", "small", "--set", "backbone.pool=4"]
SETTINGS = ["--mode", "full", "--precision", "bf16"]
# Name, data, settings, measure. Epochs are chosen for time; sequences of a transcription factor mean the same on either strand.
TASKS = [
    ("prom_core_tata", "gue/prom/prom_core_tata", ["--epochs", 6], "mcc"),
    ("mouse/2", "gue/mouse/2", ["--epochs", 6, "--rc", "augment"], "mcc"),
    ("mouse/0", "gue/mouse/0", ["--epochs", 3, "--rc", "augment"], "mcc"),
    ("crispr/HELA", "crispr/HELA.csv.gz", ["--epochs", 6, "--sequence", "sgRNA", "--label", "indel"], "spearman"),
    ("tf/0", "gue/tf/0", ["--epochs", 0.5, "--set", "train.batch=64", "--rc", "augment"], "mcc"),
    ("tf/1", "gue/tf/1", ["--epochs", 0.5, "--set", "train.batch=64", "--rc", "augment"], "mcc"),
    ("prom_300_tata", "gue/prom/prom_300_tata", ["--epochs", 2], "mcc"),
]
# Folder of the model that is fine-tuned, more settings, and a name for people.
ARMS = {
    "pretrained": ("encoder", [], "HRQ, pre-trained"),
    "fresh": ("encoder", ["--from-scratch", *NETWORK], "HRQ, fresh"),
    "mxdna": ("mxdna", [], "MxDNA, pre-trained"),
}


def genomes(data):
    """Files of the corpus; every record is named after its file too, since some share their names."""
    folder = data / "genomes"
    return [folder / "yeast.fa.gz", folder / "ecoli.fna.gz", *sorted(folder.glob("human.*.gz")),
            *sorted((folder / "vertebrates").glob("*.gz"))]


def write_corpus(files, target):
    aside = target.with_suffix(".part")
    with gzip.open(aside, "wt", compresslevel=6) as out:
        for file in files:
            with gzip.open(file, "rt") as lines:
                for line in lines:
                    header = line.startswith(">")
                    out.write(f">{file.name.split('.f')[0]}:{line[1:].split()[0].replace(':', '_')}\n" if header else line)
    aside.rename(target)


def call(args, *words):
    command = [str(word) for word in (args.program, *words)]
    print(shlex.join(["vqdna", *command[1:]]), file=sys.stderr, flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def stages(args):
    """The vocabulary and the models; a run that was stopped goes on."""
    corpus = args.work / "genomes.fa.gz"
    if not corpus.exists():
        write_corpus(genomes(args.data), corpus)
    runs = [(["learn"], "vocabulary", "learn"), (["pretrain", args.work / "vocabulary"], "encoder", "pretrain")]
    if "mxdna" in args.arms:
        runs.append((["pretrain", "--tokenizer", "mxdna"], "mxdna", "mxdna"))
    for words, name, config in runs:
        folder = args.work / name
        if not (folder / "model.safetensors").exists():
            resume = ["--resume"] if (folder / "checkpoint").exists() else []
            call(args, *words, corpus, "--config", ROOT / f"configs/genomes/{config}.toml", "-o", folder, *resume)


def tune(args):
    for name, data, settings, _ in TASKS:
        for arm in args.arms:
            model, words, _ = ARMS[arm]
            folder = args.work / name / arm
            if name in args.tasks and not (folder / "seeds.json").exists():
                resume = ["--resume"] if folder.exists() else []
                kmers = [] if list((args.work / name).glob("*/kmers.json")) else ["--kmers"]
                call(args, "finetune", args.work / model, args.data / data, "-o", folder, *SETTINGS, *words, *settings, *kmers,
                     "--seeds", args.seeds, *resume)


def values(folder, measure):
    summary = json.loads((folder / "seeds.json").read_text())
    return next(found for found in summary["measures"] if found["measure"] == measure)


def table(work, arms):
    """A row for each task that is whole, and for pairs of arms in how many tasks the first is better."""
    lines, means = [], []
    for name, _, _, measure in TASKS:
        folders = {arm: work / name / arm for arm in arms}
        if not all((folder / "seeds.json").exists() for folder in folders.values()):
            continue
        found = {arm: values(folder, measure) for arm, folder in folders.items()}
        manifest = json.loads((folders[arms[0]] / "run.json").read_text())
        kmers = json.loads(next((work / name).glob("*/kmers.json")).read_text())
        means.append({**{arm: found[arm]["mean"] for arm in arms}, "k-mers": kmers["measures"][measure]})
        show = lambda arm: f"{found[arm]['mean']:.3f} ± {found[arm]['sd']:.3f}"
        lines.append([name, measure, *map(show, arms), f"{kmers['measures'][measure]:.3f} (k = {kmers['k']})",
                      f"{manifest['config']['epochs']:g}", str(manifest["steps"])])
    head = ["task", "measure on test", *(ARMS[arm][2] for arm in arms), "k-mers", "epochs", "steps"]
    sides = [*arms, "k-mers"]
    shown = lambda side: ARMS[side][2] if side in ARMS else side
    wins = [f"{shown(a)} is better than {shown(b)} in {sum(row[a] > row[b] for row in means)} of {len(means)} tasks"
            for n, a in enumerate(sides) for b in sides[n + 1:]]
    return markdown(head, lines), "; ".join(wins)


def stage_table(work):
    lines = []
    for name in ("vocabulary", "encoder", "mxdna"):
        if not (work / name / "run.json").exists():
            continue
        manifest = json.loads((work / name / "run.json").read_text())
        command = " ".join(Path(word).name if "/" in word else word for word in manifest["command_line"][1:])
        shown = {key: value for key, value in manifest["measures"].items()
                 if key.startswith(("reconstruction", "usage", "perplexity", "accuracy", "bits", "masked_code_bits", "bases_per"))}
        lines.append([name, str(manifest["steps"]), f"{manifest['wall_s'] / 60:.1f}", manifest["evaluated_on"],
                      ", ".join(f"{key} {value:.4g}" for key, value in shown.items()), f"`vqdna {command}`"])
    return markdown(["stage", "steps", "minutes", "split", "measures", "command"], lines)


def units(args):
    """How long units are in each task; empty without a model that has any."""
    if "mxdna" not in args.arms:
        return ""
    files, names = [], [name for name, *_ in TASKS if name in args.tasks]
    for name, data, settings, _ in TASKS:
        if name not in names:
            continue
        source = args.data / data
        if source.is_dir():
            files.append(next(source.glob("test.csv*")))
            continue
        # Another name of the column of sequences.
        column = settings[settings.index("--sequence") + 1]
        files.append(args.work / f"{name.replace('/', '-')}.fa")
        with gzip.open(source, "rt") as rows, files[-1].open("w") as out:
            out.writelines(f">{n}\n{row[column]}\n" for n, row in enumerate(csv.DictReader(rows)))
    target, plot = args.output / "units.tsv", args.output / "units.svg"
    call(args, "units", args.work / "mxdna", *files, "--names", ",".join(names), "-o", target, "--plot", plot)
    rows = list(csv.DictReader(target.open(), delimiter="\t"))
    sizes = sorted({int(row["size"]) for row in rows})
    lines = []
    for name in names:
        own = {int(row["size"]): row for row in rows if row["class"] == name}
        lines.append([name, f"{float(own[sizes[0]]['bases_per_unit']):.2f}", *(f"{float(own[size]['share_of_units']):.1%}" for size in sizes)])
    return f"""## Units

Shares of the units of each length, in the test sequences of each task (HELA: all), as the pre-trained MxDNA model cuts them.

{markdown(["task", "bases per unit", *map(str, sizes)], lines)}

![shares of the lengths of units](units.svg)

"""


def report(args):
    tasks, wins = table(args.work, args.arms)
    settings = shlex.join(map(str, SETTINGS))
    own = "\n".join(f"* {name}: `{shlex.join(map(str, words))}`" for name, _, words, _ in TASKS if name in args.tasks)
    return f"""# What pre-training is worth

Machine: {machine()}.
Versions: {output('rustc', '--version')}, {', '.join(f'{key} {value}' for key, value in build(args.program, args.commit).items())}.

{tasks}

Mean ± sample standard deviation over seeds. {wins[0].upper() + wins[1:]}. Four bases are one position of the encoder over codes
(`backbone.pool = 4`). The evaluation on dev with the lowest loss is kept, and measured on test once.
crispr/HELA comes as one file, of which a hash of the sequence holds out a tenth for dev and for test.

{stage_table(args.work)}

{units(args)}Corpus: {', '.join(file.name for file in genomes(args.data))}. All fine-tuning: `{settings}`, fresh encoders also
`{shlex.join(map(str, ARMS['fresh'][1]))}`, and

{own}

Made by `python3 benches/three_stages.py`; settings and measures of every seed lie in the folders beside this file.
"""


def keep(args):
    """Configs, manifests and measures; where files lay on the machine says nothing to others."""
    def manifest(source, target):
        found = json.loads(source.read_text())
        found["command_line"] = ["vqdna", *(Path(word).name if "/" in word else word for word in found["command_line"][1:])]
        found["inputs"] = [{**file, "path": Path(file["path"]).name} for file in found["inputs"]]
        target.write_text(json.dumps(found, indent=2) + "\n")

    for name in ("vocabulary", "encoder", "mxdna", *(f"{task}/{arm}" for task in args.tasks for arm in args.arms)):
        source, target = args.work / name, args.output / name
        if not (source / "run.json").exists():
            continue
        target.mkdir(parents=True, exist_ok=True)
        manifest(source / "run.json", target / "run.json")
        for file in ("seeds.json", "kmers.json", *(("config.toml", "metrics.jsonl") if "/" not in name else ())):
            if (source / file).exists():
                shutil.copy(source / file, target / file)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("-o", "--output", type=Path, required=True, help="folder of the table")
    p.add_argument("--work", type=Path, required=True, help="folder of the runs, some hundred megabytes")
    p.add_argument("--data", type=Path, default=DATA, help="folder with genomes, gue and crispr")
    p.add_argument("--program", type=Path, default=PROGRAM)
    p.add_argument("--commit", help="commit that the program was built from, if it is not that of this tree")
    p.add_argument("--tasks", nargs="+", default=[name for name, *_ in TASKS], choices=[name for name, *_ in TASKS], metavar="TASK")
    p.add_argument("--arms", nargs="+", default=["pretrained", "fresh"], choices=list(ARMS), metavar="ARM")
    p.add_argument("--seeds", type=int, default=3)
    args = p.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    stages(args)
    tune(args)
    args.output.mkdir(parents=True, exist_ok=True)
    keep(args)
    (args.output / "README.md").write_text(report(args))


if __name__ == "__main__":
    main()
