"""What is installed: lock files that pin all that is needed, their licences, the whole package."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RENEW = "run .venv/bin/python docs/licences.py --write"


def pins(name):
    """The versions in a lock file, which may hold nothing but pins and comments."""
    lines = (ROOT / name).read_text().splitlines()
    parts = [re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+)", line) for line in lines if line[:1] != "#"]
    assert all(parts), f"{name}: every line must be name==version"
    found = {canonicalize_name(part[1]): part[2] for part in parts}
    assert len(found) == len(parts), f"{name}: a package is listed twice"
    return found


LOCK, CUDA, SLURM = (pins(f"requirements{part}.lock") for part in ("", "-cuda", "-slurm"))


@pytest.fixture(scope="module")
def needed():
    """Every package that `transcoders[dev]` needs."""
    own = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]
    waiting = list(map(Requirement, own))
    followed: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for part in {(name, extra) for extra in ("", *requirement.extras)} - followed:
            followed.add(part)
            asked = map(Requirement, requires(part[0]) or [])
            waiting += [r for r in asked if not r.marker or r.marker.evaluate({"extra": part[1]})]
    return {name for name, _ in followed}


def test_all_that_is_needed_is_pinned_as_it_is_installed_and_nothing_else(needed):
    # a build's name, as in 2.13.0+cpu, is no part of the version
    installed = {name: version(name).split("+")[0] for name in needed}
    assert {name: (CUDA | LOCK).get(name) for name in needed} == installed
    assert LOCK.keys() - needed == set()
    assert CUDA.keys() & LOCK.keys() == SLURM.keys() & (LOCK | CUDA).keys() == set()
    assert f"torch=={LOCK['torch']}" in PROJECT["dependencies"]


def test_conda_takes_python_from_itself_and_all_else_from_the_lock():
    content = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = content["dependencies"]
    assert pip == "pip"
    assert python == PROJECT["requires-python"].replace(">=", "python=")  # that of the lock
    # Written out: Snakemake copies the file to another folder before conda reads it.
    locked = (ROOT / "requirements.lock").read_text().splitlines()
    assert packages == {"pip": [line for line in locked if line[:1] != "#"]}


def test_the_page_lists_the_licences_of_what_is_locked():
    licences = runpy.run_path(str(ROOT / "docs/licences.py"))
    page = (ROOT / "docs/supply_chain.md").read_text()
    written = page.split(licences["BEGIN"])[1].split(licences["END"])[0].strip()
    assert written == licences["table"](), RENEW


def test_an_installed_package_has_every_file_of_the_source(tmp_path):
    pytest.importorskip("pip")  # uv leaves it out
    source = tmp_path / "src"  # a build writes beside the source
    left_out = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source, ignore=left_out)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    files = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    build = ["wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", "wheels", "."]
    subprocess.run([sys.executable, "-m", "pip", *build], cwd=tmp_path, check=True)
    [wheel] = (tmp_path / "wheels").glob("*.whl")
    assert files <= set(zipfile.ZipFile(wheel).namelist())
