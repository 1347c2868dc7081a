"""Wheels carried to a machine without a network: `make parts` and `make carried-run`."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import yaml

from test_sources import write_wheel
from transcoders.checksums import sha256
from transcoders.config import SyntheticCorpus
from transcoders.synthetic import make_texts
from workflow.running import REPOSITORY, hashes_below, snakemake, workspace

TEXTS = SyntheticCorpus(type="synthetic", documents=40, words_per_document=600, license="none")


def make(folder, *arguments, expect_success=True):
    """What `make` prints in a folder, with the interpreter that runs this test."""
    given = [f"BIN={Path(sys.executable).parent}", "SCALE=tiny", *arguments]
    run = subprocess.run(
        ["make", "-o", "setup", *given], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (run.returncode == 0) == expect_success, run.stdout + run.stderr
    return run.stdout + run.stderr


def checkout(folder):
    """A copy of the sources, with a tiny scale whose text comes from a wheel."""
    workspace(folder)
    shutil.copyfile(REPOSITORY / "Makefile", folder / "Makefile")
    scale = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    for key in ("extensions", "greater_than", "interpretability"):
        del scale[key]
    scale["models"] = {"tiny-gpt2": scale["models"]["tiny-gpt2"]}
    scale["sites"] = [{"model": "tiny-gpt2", "layer": 1}]
    scale["circuit_sites"], scale["groups"] = [], scale["groups"][:1]
    scale["circuits"] |= {"cases": [], "checks": []}
    scale["corpus"]["source"] = {
        "type": "wheel", "package": "texts", "version": "1.0", "file": "texts/all",
        "wheel_sha256": sha256(folder.parent / "index/texts-1.0-py3-none-any.whl"),
        "format": "texts", "license": "none",
    }  # fmt: skip
    (folder / "config/tiny.yaml").write_text(yaml.safe_dump(scale))
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A checkout with parts, beside the index from which their wheel came."""
    folder = tmp_path_factory.mktemp("carried")
    (folder / "index").mkdir()
    texts = {f"texts/all/{n:02d}.txt": t.encode() for n, t in enumerate(make_texts(TEXTS, 42))}
    write_wheel(folder / "index", "texts-1.0-py3-none-any.whl", texts)
    here = checkout(folder / "here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(folder / "index"))
        make(here, "parts", "PART=8192")  # bytes
    return here


@pytest.fixture
def elsewhere(packed, tmp_path, monkeypatch):
    """A fresh checkout with the parts, where pip finds nothing by itself."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    (tmp_path / "index").symlink_to(packed.parent / "index")
    there = checkout(tmp_path / "there")
    shutil.copytree(packed / "parts", there / "parts")
    return there


def test_parts_are_as_large_as_asked_and_one_damaged_or_missing_is_refused_by_name(elsewhere):
    assert max(part.stat().st_size for part in (elsewhere / "parts").glob("part-*")) == 8192
    part = elsewhere / "parts/part-01"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    for _ in ("damaged", "missing"):
        said = make(elsewhere, "carried-run", expect_success=False)
        assert "part-01: FAILED" in said
        assert "part-00" not in said
        assert not (elsewhere / "results").exists()
        part.unlink(missing_ok=True)


@pytest.mark.full
def test_a_carried_run_gives_the_same_bytes(packed, elsewhere):
    make(elsewhere, "carried-run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_FIND_LINKS", str(packed.parent / "index"))
        snakemake(packed, "evaluation", "--config", "scale=tiny")
    made, again = (hashes_below(folder / "results/tiny") for folder in (packed, elsewhere))
    assert len(made) > 15
    assert [name for name in made if made[name] != again.get(name)] == []
    with tarfile.open(elsewhere / "tables-tiny.tar.gz") as archive:
        kept = set(archive.getnames())
    tables = [name for name in made if name.endswith((".csv", ".json"))]
    assert kept >= {f"results/tiny/{n}" for n in tables if not n.startswith("models/")}
    assert "results/tiny/environment.json" in kept
    assert not any(name.endswith((".safetensors", ".parquet")) for name in kept)
