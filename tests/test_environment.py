"""The record of what a run ran on: true, complete, and the same every time."""

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from transcoders import environment
from transcoders.checksums import sha256
from transcoders.config import load_scale
from transcoders.environment import (
    commit,
    device_name,
    differing,
    environment_record,
    hardware,
    package_versions,
)
from transcoders.layout import Layout
from transcoders.tables.claims import environment_table

ROOT = Path(__file__).parents[1]


def git(folder, *arguments):
    command = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_is_the_one_checked_out_and_changed_code_is_said(tmp_path, monkeypatch):
    for name in ("src/code.py", "results/table.csv", "copy/src/code.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "all")
    head = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a hook
    assert commit(tmp_path) == head
    (tmp_path / "results/table.csv").write_text("second\n")  # as during a run
    assert commit(tmp_path) == head
    (tmp_path / "src/more.py").write_text("new\n")
    assert commit(tmp_path) == f"{head} with uncommitted changes"
    # Not the commit of a repository around a copy without a history.
    assert commit(tmp_path / "copy") == "unknown: not a Git checkout"
    if os.getuid() == 0:  # a checkout that belongs to somebody else
        os.chown(tmp_path, 54321, 54321)
        os.chown(tmp_path / ".git", 54321, 54321)
    assert commit(tmp_path) == f"{head} with uncommitted changes"
    monkeypatch.setenv("PATH", "")  # no Git
    assert commit(tmp_path) == "unknown: not a Git checkout"


def test_versions_are_those_installed_without_the_build(tmp_path, monkeypatch):
    assert package_versions("numpy") == {"numpy": version("numpy")}
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"# a comment\nnumpy=={version('numpy')}\npandas==0.1\nno-such-package==1.0\n")
    assert differing(lock) == {"pandas": version("pandas"), "no-such-package": "missing"}
    monkeypatch.setattr(environment, "version", lambda _: "2.13.0+cu130")
    assert package_versions("torch") == {"torch": "2.13.0"}


def test_hardware_names_the_machine(monkeypatch):
    assert hardware()["vector_instructions"] == torch.backends.cpu.get_cpu_capability()
    assert hardware()["cores"] >= 1 and hardware()["memory_gib"] >= 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device[-1]}")
    assert hardware()["gpus"] == ["cuda (GPU 0)", "cuda (GPU 1)"]
    assert device_name("cpu") == "cpu"


def test_the_record_is_the_same_every_time_and_holds_no_path_host_or_user(monkeypatch):
    monkeypatch.chdir(ROOT)
    layout = Layout("laptop")
    scale = load_scale(layout.config)
    record = environment_record(scale, layout)
    assert record == environment_record(scale, layout)
    assert record["sha256"]["config/laptop.yaml"] == sha256(layout.config)
    assert record["trained_on"] == {"cpu": len(scale.dictionaries)}
    assert record["threads"]["cache_activations"] == scale.resources.cache_activations.threads
    assert record["instruction_set"] == "avx2"
    assert record["hardware"]["processor"] in environment_table(record)
    assert str(ROOT) not in str(record)
