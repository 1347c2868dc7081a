"""Running Snakemake from tests."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SOURCES = [
    "Snakefile", "workflow", "src", "config", "profiles", "environment.yml", "requirements.lock",
]  # fmt: skip


def snakemake(folder, *arguments, cores=2, expect_success=True):
    """Run snakemake in ``folder`` and return what it printed."""
    command = [sys.executable, "-m", "snakemake", "--cores", str(cores), *arguments]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SNAKEMAKE", "PYTEST"))}
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=kept, check=False)
    assert (run.returncode == 0) == expect_success, run.stdout + run.stderr
    return run


def cli(folder, *arguments):
    """Run ``python -m transcoders`` with the sources in ``folder``."""
    command = [sys.executable, "-m", "transcoders", *arguments]
    environment = os.environ | {"PYTHONPATH": str(folder / "src")}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=environment, check=False
    )


def planned_rules(folder, *arguments):
    """Names of the rules that ``snakemake --dry-run`` would execute."""
    run = snakemake(folder, *arguments, "--dry-run")
    text = run.stdout + run.stderr
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", text, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in text, text
        return []
    return [line.split()[0] for line in table.group(1).splitlines()]


def workspace(folder):
    """A copy of the sources without any results, to run the workflow in."""
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", ".snakemake")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    return folder
