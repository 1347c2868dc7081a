"""The same machine and config give the same bytes."""

import re

import pytest

from transcoders.layout import Layout
from workflow.running import hashes_below, snakemake, workspace

COMPARED = (".safetensors", ".csv", ".json", ".parquet", ".ipynb", ".html", ".pdf", ".png")


def jobs(folder):
    """What the jobs of a folder's first run said they do, in the order in which they began."""
    log = min((folder / ".snakemake/log").glob("*.log"))  # its name is the time
    return re.findall(r"^Job \d+: (.+)$", log.read_text(), re.MULTILINE)


@pytest.mark.full
def test_two_clean_runs_give_the_same_bytes(run, tmp_path):
    """One on two cores, which other tests look at too, one on a single core in another order."""
    again = workspace(tmp_path / "again")
    first_of_all = str(Layout("smoke").site_evaluation("tiny-neox_layer1"))
    snakemake(again, "--prioritize", first_of_all, "--config", "scale=smoke", cores=1)
    assert sorted(jobs(run)) == sorted(jobs(again)) and jobs(run) != jobs(again)
    for top, least in (("results", 50), ("figures", 5)):
        first, second = (hashes_below(folder / top, *COMPARED) for folder in (run, again))
        assert len(first) > least
        assert first.keys() == second.keys()
        assert [name for name in first if first[name] != second[name]] == []
