"""The same machine and config give the same bytes."""

from pathlib import Path

import pytest

from transcoders.checksums import sha256
from workflow.running import snakemake, workspace

COMPARED = ("*.safetensors", "*.csv", "*.json", "*.parquet", "*.ipynb", "*.html", "*.pdf", "*.png")


@pytest.mark.full
def test_two_clean_runs_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    """One on two cores, which other tests look at too, and one on a single core."""
    again = workspace(tmp_path / "again")
    snakemake(again, "--config", "scale=smoke", cores=1)
    hashes = []
    for folder in (run, again):
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
