"""What Snakemake plans in a fresh clone, where file times are whatever the checkout made them."""

import os
import random
import re
import shutil
import subprocess

import pytest

from transcoders.config import load_scale
from workflow.running import REPOSITORY, planned_rules, rules_of, snakemake

HEAVY = (
    "fetch", "tokenize", "cache", "train_", "evaluate", "find_circuits", "check_features",
    "measure_replacement", "study_greater_than", "gather_examples", "measure_features",
    "study_features", "table4", "gather_activity", "label_features", "feature_browser", "table1",
)  # fmt: skip
"""How the names of rules begin that need models or activations."""
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
    """A copy of the files that git knows, with times in random order."""
    folder = tmp_path_factory.mktemp("clone") / "clone"
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


def test_all_asks_for_everything_and_pages_and_figures_for_nothing_heavy(clone):
    # Some rules are forced, so that the plan is not empty for another reason.
    planned = planned_rules(clone, *LIGHT, "--forcerun", *PAGES)
    assert set(PAGES) <= set(planned)
    assert not any(rule.startswith(HEAVY) for rule in planned)
    planned = planned_rules(clone, "all")
    assert all(any(rule.startswith(start) for rule in planned) for start in HEAVY)
    trained = {rule for rule in planned if rule.startswith("train_")}
    groups = load_scale(REPOSITORY / "config/laptop.yaml").all_groups
    assert trained == {"train_" + re.sub(r"\W", "_", group.name) for group in groups}
    assert "gap_by_tokens" not in planned  # laptop trains with one amount of data


def test_a_figure_and_the_article_are_made_again_from_the_committed_tables(clone):
    figure = clone / "figures/laptop/fig3_tradeoff.pdf"
    figure.unlink()
    run = snakemake(clone, "figure3")
    assert figure.stat().st_size > 10_000
    drawn = run.stdout + run.stderr
    assert rules_of(drawn) == ["figure3"]
    assert "\nDone.\n" in drawn  # no page to open was made
    (clone / "figures/laptop/fig5_dla.pdf").unlink()
    snakemake(clone, "figure5")
    assert (clone / "figures/laptop/fig5_dla.pdf").stat().st_size > 10_000
    snakemake(clone, "notebooks", "--report", "report.html")
    report = (clone / "report.html").read_text()
    for shown in ("fig3_tradeoff.png", "fig5_dla.png", "claims.html", "Transcoders and SAEs"):
        assert shown in report
    page, rule = "results/laptop/index.html", "landing_page"
    # That rule alone: where times say nothing, most pages seem out of date.
    made = snakemake(clone, page, "--forcerun", rule, "--allowed-rules", rule)
    assert f"\nDone. Open {page} in a browser.\n" in made.stdout + made.stderr
    assert not (clone / "results/laptop/models").exists()
