"""A whole run that is killed again and again: what it makes must be what a run left alone makes.

    make long-run

Runs the laptop scale in a folder of its own. After a random time, Snakemake and all its jobs get
SIGKILL together; then `--unlock`, and the same command again, until it ends by itself. Then every
table, record and dictionary is compared with those of this checkout. Writes
``benchmarks/long_run.json``; fails if anything differs.
"""

import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from transcoders.files import write_json
from workflow.running import REPOSITORY, hashes_below, workspace

RESULTS = Path("results/laptop")
COMPARED = (".csv", ".json", ".safetensors", ".parquet")
MINUTES = (2, 8)
"""The shortest and the longest time between two kills."""
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "all"]


def main():
    """Run, kill, run again, compare."""
    with tempfile.TemporaryDirectory(prefix="long-run-") as temporary:
        folder = workspace(Path(temporary) / "run")
        began = time.monotonic()
        kills = run_under_kills(folder)
        seconds = round(time.monotonic() - began)
        compared, different = compare(folder / RESULTS, REPOSITORY / RESULTS)
    record = {
        "command": "make long-run",
        "machine": platform.platform(),
        "kills": kills,
        "seconds": seconds,
        "files_compared": compared,
        "different": different,
    }
    write_json(REPOSITORY / "benchmarks/long_run.json", record)
    print(record)
    sys.exit(1 if different or not compared else 0)


def run_under_kills(folder):
    """How many kills there were before the run ended by itself, without an error."""
    chosen = random.Random(0)
    for kills in count():
        with (folder / "snakemake.log").open("ab") as log:
            options = {"cwd": folder, "stdout": log, "stderr": log}
            running = subprocess.Popen(SNAKEMAKE, start_new_session=True, **options)
            try:
                status = running.wait(60 * chosen.uniform(*MINUTES))
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGKILL)
                running.wait()
                print(f"kill {kills + 1}", file=sys.stderr)
                subprocess.run([*SNAKEMAKE, "--unlock"], check=True, **options)
                continue
        if status != 0:
            sys.exit(f"{(folder / 'snakemake.log').read_text()}\nended with {status}")
        return kills
    raise AssertionError  # count() does not end


def compare(results, other):
    """How many files both runs have, and which of them differ."""
    found, expected = (hashes_below(folder, *COMPARED) for folder in (results, other))
    both = found.keys() & expected.keys() - {"environment.json"}  # names the commit
    return len(both), sorted(name for name in both if found[name] != expected[name])


if __name__ == "__main__":
    main()
