"""What Snakemake plans in a fresh clone, where file times are whatever the checkout made them."""

import os
import random
import re
import shutil
import subprocess

import pytest

from transcoders.config import load_scale
from workflow.running import REPOSITORY, planned_rules, snakemake

STUDIES = {
    "check_features", "measure_replacement", "study_greater_than", "gather_examples",
    "measure_features", "study_features", "table4", "gather_activity", "label_features",
    "feature_browser", "table1",
}  # fmt: skip
HEAVY = ("fetch", "tokenize", "cache", "train_", "evaluate", "find_circuits")


@pytest.fixture
def fresh_clone(tmp_path):
    """The files that git knows, copied, with times in random order."""
    clone = tmp_path / "clone"
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.check_output(command, cwd=REPOSITORY, text=True)
    names = [name for name in listed.split("\0") if name and (REPOSITORY / name).exists()]
    shuffled = random.Random(0)
    for name in names:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, clone / name)
        when = 1_700_000_000 + shuffled.randrange(10_000_000)
        os.utime(clone / name, (when, when))
    return clone


def heavy(planned):
    """The rules that need models or activations."""
    return [rule for rule in planned if rule.startswith(HEAVY) or rule in STUDIES]


# In three plans, since each takes seconds: all pages, all figures, and all targets of their own.
@pytest.mark.parametrize(
    ("targets", "forced"),
    [
        ("figures", "figure3 circuits"),
        ("notebooks", "figure3 case_studies_page judge_claims claims_page landing_page"),
        (
            "figure3 circuits figure4 greater_than interpretability case_studies claims",
            "figure3 circuits greater_than_page interpretability_page case_studies_page "
            "judge_claims",
        ),
    ],
)
def test_a_page_or_figure_asks_for_nothing_heavy(fresh_clone, targets, forced):
    planned = planned_rules(fresh_clone, *targets.split(), "--forcerun", *forced.split())
    # Some rules are forced, so that the plan is not empty for another reason.
    assert set(forced.split()) <= set(planned)
    assert not heavy(planned)


def test_a_report_is_made_of_the_committed_pages(fresh_clone):
    snakemake(fresh_clone, "notebooks", "--report", "report.html")
    report = (fresh_clone / "report.html").read_text()
    for name in ("fig3_tradeoff.png", "fig5_dla.png", "claims.html", "case_studies.html"):
        assert name in report
    for category in ("All claims", "Transcoders and SAEs", "Case studies"):
        assert category in report
    assert not (fresh_clone / "results/laptop/models").exists()


def test_all_asks_for_everything(fresh_clone):
    planned = planned_rules(fresh_clone, "all")
    assert all(any(rule.startswith(start) for rule in planned) for start in HEAVY)
    assert set(planned) >= STUDIES
    trained = {rule for rule in planned if rule.startswith("train_")}
    scale = load_scale(REPOSITORY / "config/laptop.yaml")
    names = {f"train_{group.name}" for group in scale.all_groups}
    assert trained == {re.sub(r"\W", "_", name) for name in names}
    assert {"evaluate", "collect_tables", "figure3"} <= set(planned)


@pytest.mark.parametrize(
    ("target", "figure", "jobs"),
    [
        ("figure3", "fig3_tradeoff", ["figure3"]),
        ("figure5", "fig5_dla", ["figure5", "greater_than_page"]),
    ],
)
def test_one_figure_runs_only_its_job(fresh_clone, target, figure, jobs):
    for file in (fresh_clone / "figures/laptop").glob(f"{figure}.*"):
        file.unlink()
    assert sorted(planned_rules(fresh_clone, target)) == sorted(jobs)


def test_figures_are_drawn_again_from_the_committed_tables_alone(fresh_clone):
    names = ["fig3_tradeoff", "fig4_greater_than", "fig5_dla", "circuit_capital"]
    figures = [fresh_clone / f"figures/laptop/{name}.pdf" for name in names]
    for figure in figures:
        figure.unlink()
    run = snakemake(fresh_clone, *(str(figure.relative_to(fresh_clone)) for figure in figures))
    assert "\nDone.\n" in run.stdout + run.stderr  # no page to open was made
    assert all(figure.stat().st_size > 10_000 for figure in figures)
    assert not (fresh_clone / "results/laptop/models").exists()


def test_who_makes_the_article_is_told_to_open_it(fresh_clone):
    page = "results/laptop/index.html"
    landing = "landing_page"  # alone: where times say nothing, most pages seem out of date
    run = snakemake(fresh_clone, page, "--forcerun", landing, "--allowed-rules", landing)
    assert f"\nDone. Open {page} in a browser.\n" in run.stdout + run.stderr
