"""Snakemake runs however unusual the checkout, the text and the user are."""

import os
import time

import pandas as pd
import yaml

from transcoders.layout import Layout
from workflow.running import planned_rules, snakemake, workspace

TEXT = "Some words that follow each other. " * 100
NAMES = ["notes {draft}.txt", "NA.txt", "ż 'q'.txt", "a.txt"]
LAYOUT = Layout("135")
OF_135 = [str(LAYOUT.documents), "--config", "scale=135"]


def test_texts_from_the_future_with_any_names_are_read_without_a_home(tmp_path, monkeypatch):
    # A checkout in a folder with special characters in its name; a number names its scale.
    folder = workspace(tmp_path / "a folder, größer (2)")
    scale = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    source = {"type": "files", "path": "texts", "license": "none"}
    scale["corpus"] |= {"source": source, "eval_documents": 2, "eval_contexts": 2}
    (folder / LAYOUT.config).write_text(yaml.safe_dump(scale))
    (folder / "texts").mkdir()
    for name in NAMES:
        (folder / "texts" / name).write_text(TEXT)
    results = tmp_path / "another disk"
    results.mkdir()
    (folder / "results").symlink_to(results)
    for late in (folder / "texts/NA.txt", folder / "config/claims.yaml"):
        os.utime(late, (time.time() + 1e6,) * 2)
    monkeypatch.setenv("HOME", "/nonexistent")
    snakemake(folder, *OF_135)
    table = pd.read_parquet(folder / LAYOUT.documents)
    assert table["id"].tolist() == sorted(name.removesuffix(".txt") for name in NAMES)
    assert (folder / "config/claims.yaml").stat().st_mtime <= time.time()
    (folder / "texts/a.txt").write_text(TEXT + "More.")
    assert planned_rules(folder, *OF_135) == ["fetch_corpus"]
