"""What a code host reads, and `make taste`: every name in it is one that the project has."""

import re
from pathlib import Path

import pytest
import yaml

from transcoders.config import load_scale
from transcoders.layout import Layout

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text()


def steps(workflow):
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_and_targets_of_make_exist(workflow):
    used = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action) for action in used)
    made = [step["run"].split()[1:] for step in steps(workflow) if "make " in step.get("run", "")]
    for target in (target for targets in made for target in targets):
        assert re.search(rf"^{target}:.*## ", MAKEFILE, re.MULTILINE), target


def test_the_host_runs_what_anyone_can_run():
    runs = " ".join(step.get("run", "") for step in steps(ROOT / ".github/workflows/tests.yml"))
    ours = (ROOT / ".ci/run").read_text().split("make ")[-1].split()
    assert {"lint", "test", "test-full"} <= set(ours) <= set(runs.split())


def test_what_taste_makes_is_of_its_scale():
    circuit, browser = re.search(r"^TASTED := (\S+) \\\n\s+(\S+)$", MAKEFILE, re.MULTILINE).groups()
    scale, layout = load_scale(ROOT / "config/taste.yaml"), Layout("taste")
    site = scale.interpretability.rated_site
    assert circuit == str(layout.circuit(scale.circuits.cases[0].name) / "circuit.html")
    assert browser == str(layout.features)
    laptop = load_scale(ROOT / "config/laptop.yaml")
    assert scale.model(site.model) == laptop.model(site.model) and site in laptop.sites
