"""The record of what a run ran on: true, complete, and the same every time."""

import os
import subprocess
from importlib.metadata import version
from pathlib import Path

from transcoders import environment as env
from transcoders.checksums import sha256
from transcoders.config import load_scale
from transcoders.layout import Layout
from transcoders.tables.claims import environment_table

ROOT = Path(__file__).parents[1]


def git(folder, *arguments):
    command = ["git", "-C", folder, "-c", "user.name=A", "-c", "user.email=a@b.c", *arguments]
    return subprocess.check_output(command, text=True).strip()


def test_the_commit_is_the_one_checked_out_and_changed_code_is_said(tmp_path, monkeypatch):
    for name in ("src/code.py", "results/table.csv", "copy/src/code.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("first\n")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "all")
    head = git(tmp_path, "rev-parse", "HEAD")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a hook
    (tmp_path / "results/table.csv").write_text("second\n")  # as during a run
    assert env.commit(tmp_path) == head
    (tmp_path / "src/more.py").write_text("new\n")
    if os.getuid() == 0:  # a checkout that belongs to somebody else
        os.chown(tmp_path, 54321, 54321)
        os.chown(tmp_path / ".git", 54321, 54321)
    assert env.commit(tmp_path) == f"{head} with uncommitted changes"
    # Not the commit of a repository around a copy without a history.
    assert env.commit(tmp_path / "copy") == "unknown: not a Git checkout"


def test_versions_are_those_installed_without_the_build(tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"# a comment\nnumpy=={version('numpy')}\npandas==0.1\nno-such-package==1.0\n")
    assert env.differing(lock) == {"pandas": version("pandas"), "no-such-package": "missing"}
    monkeypatch.setattr(env, "version", lambda _: "2.13.0+cu130")
    assert env.package_versions("torch") == {"torch": "2.13.0"}


def test_the_record_is_the_same_every_time_and_holds_no_path_host_or_user(monkeypatch):
    monkeypatch.chdir(ROOT)
    layout = Layout("laptop")
    scale = load_scale(layout.config)
    record = env.environment_record(scale, layout)
    assert record == env.environment_record(scale, layout)
    assert record["sha256"]["config/laptop.yaml"] == sha256(layout.config)
    assert record["trained_on"] == {"cpu": len(scale.dictionaries)}
    assert record["hardware"]["processor"] in environment_table(record)
    assert str(ROOT) not in str(record)
