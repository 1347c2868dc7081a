"""A whole run that is killed again and again: what it makes must be what a run left alone makes.

    make long-run

Runs the scale in a folder of its own. After a random time, Snakemake and all its jobs get SIGKILL
together; then `--unlock`, and the same command again, until it ends by itself. Then every table,
record and dictionary is compared with those of another run: by default the ones in this checkout.
That run must have rounded as this machine does, which vector instructions decide. Writes
``benchmarks/long_run.json``; fails if anything differs.
"""

import argparse
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from faults.injection import environment
from transcoders.checksums import sha256
from transcoders.files import read_json, write_json
from workflow.running import REPOSITORY, workspace

COMPARED = ("*.csv", "*.json", "*.safetensors", "*.parquet")
OF_THE_MACHINE = ("environment.json",)
"""Tells of the commit, so that it may differ."""


def main() -> None:
    """Run, kill, run again, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="laptop")
    parser.add_argument("--minutes", type=float, nargs=2, default=(2.0, 8.0),
                        help="the shortest and the longest time between two kills")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of those times")
    parser.add_argument("--like", type=Path, default=REPOSITORY, help="where the other run is")
    parser.add_argument("--folder", type=Path, help="where to run; a temporary one by default")
    arguments = parser.parse_args()
    check_instructions(arguments.like / "results" / arguments.scale / "environment.json")
    with tempfile.TemporaryDirectory(prefix="long-run-") as temporary:
        folder = workspace(arguments.folder or Path(temporary) / "run")
        began = time.monotonic()
        kills = run_under_kills(folder, arguments.scale, arguments.minutes, arguments.seed)
        seconds = round(time.monotonic() - began)
        compared, different = compare(folder, arguments.like, arguments.scale)
    record = {
        "command": " ".join(["python -m faults.long_run", *sys.argv[1:]]),
        "machine": platform.platform(),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "kills": kills,
        "seconds": seconds,
        "files_compared": compared,
        "different": different,
    }
    write_json(REPOSITORY / "benchmarks/long_run.json", record)
    print(record)
    sys.exit(1 if different or not compared else 0)


def check_instructions(record: Path) -> None:
    """Refuse to spend an hour on a comparison that must fail."""
    here = torch.backends.cpu.get_cpu_capability()
    there = read_json(record)["hardware"]["vector_instructions"]
    if here != there:
        sys.exit(
            f"{record}: that run used {there}, this machine uses {here}; set ATEN_CPU_CAPABILITY="
            f"{there.lower()}, or compare with another run (--like FOLDER)"
        )


def run_under_kills(folder: Path, scale: str, minutes: tuple[float, float], seed: int) -> int:
    """How often it took a kill until the run ended by itself, well."""
    chosen = random.Random(seed)
    base = [sys.executable, "-m", "snakemake", "--cores", "all", "--config", f"scale={scale}"]
    kills = 0
    while True:
        with (folder / "snakemake.log").open("ab") as log:
            running = subprocess.Popen(
                base, cwd=folder, env=environment(folder), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
            try:
                status = running.wait(60 * chosen.uniform(*minutes))
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                kills += 1
                print(f"kill {kills}", file=sys.stderr)
                subprocess.run(
                    [*base[:-2], "--unlock", *base[-2:]], cwd=folder, env=environment(folder),
                    stdout=log, stderr=log, check=True,
                )  # fmt: skip
                continue
        if status != 0:
            sys.exit(f"{folder / 'snakemake.log'}: the run ended with {status} after {kills} kills")
        return kills


def compare(folder: Path, other: Path, scale: str) -> tuple[int, list[str]]:
    """How many files both runs have, and which of them differ."""
    results = folder / "results" / scale
    both = [
        path.relative_to(folder)
        for pattern in COMPARED
        for path in sorted(results.rglob(pattern))
        if "logs" not in path.parts
        and path.name not in OF_THE_MACHINE
        and (other / path.relative_to(folder)).exists()
    ]
    return len(both), [str(p) for p in both if sha256(folder / p) != sha256(other / p)]


if __name__ == "__main__":
    main()
