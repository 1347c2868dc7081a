"""What Snakemake plans in a fresh clone, where file times are whatever the checkout made them."""

import os
import random
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from workflow.running import REPOSITORY, planned_rules, snakemake

HEAVY = ("fetch", "tokenize", "cache", "train_", "evaluate")


@pytest.fixture
def fresh_clone(tmp_path: Path) -> Path:
    """The files that git knows, copied, with times in random order."""
    clone = tmp_path / "clone"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.split("\0") if name and (REPOSITORY / name).exists()]
    shuffled = random.Random(0)
    for name in names:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, clone / name)
        when = 1_700_000_000 + shuffled.randrange(10_000_000)
        os.utime(clone / name, (when, when))
    return clone


def heavy(planned: list[str]) -> list[str]:
    """The rules that need models or activations."""
    return [rule for rule in planned if rule.startswith(HEAVY) or rule == "circuit"]


@pytest.mark.parametrize(
    ("target", "forced"),
    [
        ("figures", "figure3"),
        ("notebooks", "figure3"),
        ("figure3", "figure3"),
        ("circuits", "circuits"),
        ("figures", "circuits"),
    ],
)
def test_a_page_or_figure_asks_for_nothing_heavy(
    fresh_clone: Path, target: str, forced: str
) -> None:
    planned = planned_rules(fresh_clone, target, "--forcerun", forced)
    assert forced in planned  # forced, so that the plan is not empty for another reason
    assert not heavy(planned)


def test_the_committed_figures_are_up_to_date_or_rebuilt_from_tables(fresh_clone: Path) -> None:
    assert not heavy(planned_rules(fresh_clone, "figures"))


def test_all_asks_for_everything(fresh_clone: Path) -> None:
    planned = planned_rules(fresh_clone, "all")
    assert all(any(rule.startswith(start) for rule in planned) for start in HEAVY)
    assert "circuit" in planned
    trained = [rule for rule in planned if rule.startswith("train_")]
    groups = re.findall(
        r"^  - name:", (REPOSITORY / "config/laptop.yaml").read_text(), re.MULTILINE
    )
    assert len(trained) == len(groups)
    assert {"evaluate", "collect_tables", "figure3"} <= set(planned)


def test_circuits_are_drawn_from_their_committed_records_alone(fresh_clone: Path) -> None:
    figures = list((fresh_clone / "figures/laptop").glob("circuit*"))
    assert len(figures) == 2 * 4
    for figure in figures:
        figure.unlink()
    snakemake(fresh_clone, "circuits")
    assert all(figure.stat().st_size > 10_000 for figure in figures)
    assert not (fresh_clone / "results/laptop/models").exists()


def test_a_figure_is_rebuilt_from_the_committed_table_alone(fresh_clone: Path) -> None:
    for figure in (fresh_clone / "figures/laptop").glob("fig3_*"):
        figure.unlink()
    assert planned_rules(fresh_clone, "figure3") == ["figure3"]
    snakemake(fresh_clone, "figure3")
    assert (fresh_clone / "figures/laptop/fig3_tradeoff.pdf").stat().st_size > 10_000
    assert not (fresh_clone / "results/laptop/models").exists()
