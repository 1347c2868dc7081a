"""Somebody's own settings change no page and no figure."""

import json
import shutil
from pathlib import Path

import pytest

from workflow.running import snakemake

PAGE = [
    Path(folder, f"{name}{suffix}")
    for folder, name, suffixes in (
        ("figures/smoke", "fig3_tradeoff", (".pdf", ".png")),
        ("results/smoke/notebooks", "figure3", (".ipynb", ".html")),
    )
    for suffix in suffixes
]
FILES = {
    ".config/matplotlib/matplotlibrc": "savefig.facecolor: red\nno.such.key: 1\n",
    ".ipython/profile_default/startup/00.py": "import sys; sys.modules['pandas'] = None",
    ".local/share/jupyter/kernels/python3/kernel.json": json.dumps(
        {"argv": ["false", "{connection_file}"], "display_name": "of another environment"}
    ),
}
VARIABLES = {
    "MPLBACKEND": "TkAgg", "PYTHONWARNINGS": "default", "PYTHONOPTIMIZE": "2",
    "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii",
    "OMP_THREAD_LIMIT": "1", "JUPYTER_PREFER_ENV_PATH": "0",
}  # fmt: skip


@pytest.mark.full
def test_a_page_is_the_same_bytes_whatever_the_users_settings_are(run, tmp_path, monkeypatch):
    folder, home = tmp_path / "run", tmp_path / "home"
    shutil.copytree(run, folder, symlinks=True)
    for name, content in FILES.items():
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(content)
    (folder / "matplotlibrc").write_text("savefig.facecolor: red\n")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("JUPYTER_PATH", str(home / ".local/share/jupyter"))
    for path in PAGE:
        (folder / path).unlink()
    snakemake(folder, "figure3", "--config", "scale=smoke")
    assert [p for p in PAGE if (folder / p).read_bytes() != (run / p).read_bytes()] == []
