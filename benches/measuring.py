"""What the scripts of this folder share: a measured command, the rows they collect, the input they cut, and the machine."""
import gzip
import hashlib
import json
import os
import platform
import shlex
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENOMES = ROOT.parent / "shared/data/genomes"
PROGRAM = ROOT / "target/release/vqdna"


class Failed(Exception):
    """A command that did not end well; a negative code is the signal that ended it."""

    def __init__(self, command, code, message):
        super().__init__(f"{shlex.join(command)}\nexit code {code}: {message.strip()[-2000:]}")
        self.code = code


def measure(command, cwd=None):
    """Runs a command and reads the JSON in its last line."""
    command = [str(word) for word in command]
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    except OSError as error:
        raise Failed(command, 127, str(error)) from error
    if done.returncode:
        raise Failed(command, done.returncode, done.stderr)
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise Failed(command, 0, f"its last line is not JSON: {done.stdout[-200:]!r}") from error


class Rows(list):
    """The rows of a rows.jsonl, which only grows."""

    def __init__(self, path):
        self.path = path
        super().__init__(map(json.loads, path.read_text().splitlines()) if path.exists() else ())

    def add(self, rows):
        """Keeps rows that belong together, all or none."""
        with open(self.path, "a") as log:
            log.write("".join(json.dumps(row) + "\n" for row in rows))
        self.extend(rows)

    def differences(self, expected, where=lambda row: True):
        """What rows already here say otherwise than expected, in words."""
        found = {(key, str(row.get(key))) for row in self if where(row) for key in expected if row.get(key) != expected[key]}
        return [f"{key} is {value} there, and {expected[key]} here" for key, value in sorted(found)]


def refuse_mixed(differences, path, allowed):
    if differences and not allowed:
        lines = "\n  ".join(sorted(set(differences)))
        raise SystemExit(f"error: {path} was measured under other conditions:\n  {lines}\ntake another -o, or --allow-mixed")


def spread(values, form="{:.2f}"):
    """The median, and the range where it can be seen."""
    each = [form.format(v) for v in (statistics.median(values), min(values), max(values))]
    return each[0] if each[1] == each[2] else f"{each[0]} ({each[1]}..{each[2]})"


def markdown(head, rows):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def fasta_lines(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt") as lines:
        yield from (line.rstrip() for line in lines)


def output(*command, default="unknown"):
    try:
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return default


def commit():
    """The commit, with a + when the sources differ from it."""
    changed = output("git", "status", "--porcelain", "--", "crates", "Cargo.toml", "Cargo.lock", default="")
    return output("git", "rev-parse", "--short", "HEAD") + ("+" if changed else "")


def build(program, of_commit):
    """Names the commit and the very file that is measured, which need not be built from it."""
    try:
        with open(program, "rb") as file:
            return {"commit": of_commit or commit(), "build": hashlib.file_digest(file, "sha256").hexdigest()[:12]}
    except OSError as error:
        raise SystemExit(f"error: {error}; build it with `cargo build --release`, or give --program") from error


def cpuinfo():
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def cpu():
    """Model name and numbers: on a virtual machine the name alone may hide the generation."""
    info = cpuinfo()
    numbers = ", ".join(f"{key.removeprefix('cpu ')} {info[key]}" for key in ("cpu family", "model", "stepping") if key in info)
    return f"{info.get('model name', platform.machine())} ({numbers})"


def machine():
    flags = cpuinfo().get("flags", "").split()
    simd = ", ".join(f"{flag} {'yes' if flag in flags else 'no'}" for flag in ("avx512f", "avx512_bf16", "amx_bf16"))
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    system = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    return f"{cpu()}; {simd}; {len(os.sched_getaffinity(0))} cores; {memory:.0f} GiB RAM; {system}, {platform.machine()}"
