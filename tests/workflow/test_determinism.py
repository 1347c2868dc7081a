"""The same machine and config give the same bytes."""

from pathlib import Path

import pytest

from transcoders.files import sha256
from workflow.running import snakemake, workspace

COMPARED = ("*.safetensors", "*.csv", "*.json", "*.parquet", "*.ipynb", "*.html", "*.pdf", "*.png")


@pytest.mark.full
def test_two_clean_runs_give_the_same_bytes(tmp_path: Path) -> None:
    hashes = []
    for name, cores in (("first", 2), ("second", 1)):
        folder = workspace(tmp_path / name)
        snakemake(folder, "--config", "scale=smoke", cores=cores)
        files = [
            path
            for top in ("results", "figures")
            for pattern in COMPARED
            for path in (folder / top).rglob(pattern)
            if "logs" not in path.parts
        ]
        hashes.append({str(path.relative_to(folder)): sha256(path) for path in files})
    first, second = hashes
    assert len(first) > 50
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
