"""Running the workflow and its commands from tests, and comparing what they made."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from transcoders.checksums import sha256

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


def python(folder, *arguments, sources=REPOSITORY):
    """Run Python in a folder, with this repository's sources or another's."""
    given = {"PYTHONPATH": str(sources / "src"), "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
        env=os.environ | given, check=False, timeout=500,
    )  # fmt: skip


def cli(folder, *arguments):
    """Run ``python -m transcoders`` with the sources in ``folder``."""
    return python(folder, "-m", "transcoders", *arguments, sources=folder)


def hashes_below(folder, *suffixes):
    """SHA-256 of the files below a folder, by path; logs are left out.

    Args:
        folder: to look in.
        suffixes: with any, files of these kinds alone.
    """
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {
        str(name): sha256(path)
        for name, path in files.items()
        if "logs" not in name.parts and path.suffix in (suffixes or {path.suffix})
    }


def planned_rules(folder, *arguments):
    """Names of the rules that ``snakemake --dry-run`` would execute."""
    run = snakemake(folder, *arguments, "--dry-run")
    return rules_of(run.stdout + run.stderr)


def run_offline(folder, scale):
    """Run a whole scale without a network, with the hub's cache that lies beside the folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("HF_HUB_CACHE", str(folder.parent / "hub"))
        snakemake(folder, "--config", f"scale={scale}")
        assert planned_rules(folder, "--config", f"scale={scale}") == []
    return folder


def rules_of(printed):
    """Names of the rules that a run of Snakemake executes, by what it printed."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", printed, re.MULTILINE | re.DOTALL)
    if table is None:
        assert "Nothing to be done" in printed, printed
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
