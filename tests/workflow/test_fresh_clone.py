"""What Snakemake plans in a fresh clone, where file times are whatever the checkout made them."""

import os
import random
import re
import shutil
import subprocess

import pytest

from transcoders.config import load_scale
from workflow.running import REPOSITORY, planned_rules, rules_of, snakemake

STUDIES = {
    "check_features", "measure_replacement", "study_greater_than", "gather_examples",
    "measure_features", "study_features", "table4", "gather_activity", "label_features",
    "feature_browser", "table1",
}  # fmt: skip
HEAVY = ("fetch", "tokenize", "cache", "train_", "evaluate", "find_circuits")
LIGHT = [
    "figures", "notebooks", "figure3", "circuits", "figure4", "greater_than", "interpretability",
    "case_studies", "claims",
]  # fmt: skip
"""Targets made from tables alone."""
PAGES = [
    "figure3", "circuits", "greater_than_page", "interpretability_page", "case_studies_page",
    "judge_claims", "claims_page", "landing_page",
]  # fmt: skip
"""Rules that make them."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files that git knows, copied, with times in random order. Only plans are made there."""
    return fresh_clone(tmp_path_factory.mktemp("planned") / "clone")


def fresh_clone(folder):
    """Copy the files that git knows, with times in random order."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.check_output(command, cwd=REPOSITORY, text=True)
    names = [name for name in listed.split("\0") if name and (REPOSITORY / name).exists()]
    shuffled = random.Random(0)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, folder / name)
        when = 1_700_000_000 + shuffled.randrange(10_000_000)
        os.utime(folder / name, (when, when))
    return folder


def heavy(planned):
    """The rules that need models or activations."""
    return [rule for rule in planned if rule.startswith(HEAVY) or rule in STUDIES]


def test_no_page_or_figure_asks_for_anything_heavy(clone):
    # Some rules are forced, so that the plan is not empty for another reason.
    planned = planned_rules(clone, *LIGHT, "--forcerun", *PAGES)
    assert set(PAGES) <= set(planned)
    assert not heavy(planned)


def test_all_asks_for_everything(clone):
    planned = planned_rules(clone, "all")
    assert all(any(rule.startswith(start) for rule in planned) for start in HEAVY)
    assert set(planned) >= STUDIES
    trained = {rule for rule in planned if rule.startswith("train_")}
    scale = load_scale(REPOSITORY / "config/laptop.yaml")
    names = {f"train_{group.name}" for group in scale.all_groups}
    assert trained == {re.sub(r"\W", "_", name) for name in names}
    assert {"evaluate", "collect_tables", "figure3"} <= set(planned)
    assert "gap_by_tokens" not in planned  # laptop trains with one amount of data


def test_a_figure_and_the_article_are_made_again_from_the_committed_tables(tmp_path):
    folder = fresh_clone(tmp_path / "clone")
    drawn = redrawn(folder, "figure3", "fig3_tradeoff")
    assert rules_of(drawn) == ["figure3"]
    assert "\nDone.\n" in drawn  # no page to open was made
    snakemake(folder, "notebooks", "--report", "report.html")
    report = (folder / "report.html").read_text()
    for name in ("fig3_tradeoff.png", "fig5_dla.png", "claims.html", "case_studies.html"):
        assert name in report
    for category in ("All claims", "Transcoders and SAEs", "Case studies"):
        assert category in report
    page, rule = "results/laptop/index.html", "landing_page"
    # That rule alone: where times say nothing, most pages seem out of date.
    made = snakemake(folder, page, "--forcerun", rule, "--allowed-rules", rule)
    assert f"\nDone. Open {page} in a browser.\n" in made.stdout + made.stderr
    assert not (folder / "results/laptop/models").exists()


@pytest.mark.full
def test_longer_pages_are_made_again_from_the_committed_tables(tmp_path):
    folder = fresh_clone(tmp_path / "clone")
    assert set(rules_of(redrawn(folder, "figure5", "fig5_dla"))) == {"figure5", "greater_than_page"}
    assert rules_of(redrawn(folder, "circuits", "circuit_capital")) == ["circuits"]


def redrawn(folder, target, name):
    """What Snakemake prints as it draws a figure that was removed."""
    figure = folder / f"figures/laptop/{name}.pdf"
    figure.unlink()
    run = snakemake(folder, target)
    assert figure.stat().st_size > 10_000
    return run.stdout + run.stderr
