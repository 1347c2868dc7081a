"""The smoke scale on a Slurm cluster, through the profile: one run, shared by the tests below.

While it runs, a training job is killed.
"""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import yaml

import helpers_slurm
from helpers_slurm import wait_for
from transcoders.config import load_scale
from transcoders.layout import Layout
from workflow.running import hashes_below, planned_rules, snakemake, workspace

WHY_NOT = helpers_slurm.missing()
pytestmark = [pytest.mark.full, pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))]
SMOKE = ("--config", "scale=smoke")
LAYOUT = Layout("smoke")
KILLED, KILLED_RULE = "tiny-gpt2", "train_tiny_gpt2"
WHOLE_RUN = 2700  # seconds: some forty jobs, each of which starts Snakemake twice
COMPARED = ("models/", "corpus/", "activations/", "dictionaries/", "evaluation/")


def longer_workspace(folder):
    """A workspace whose training jobs want a GPU each, and last long enough to be killed.

    One job wants more memory than the profile for a single machine lets all jobs have together.
    """
    workspace(folder)
    path = folder / LAYOUT.config
    scale = yaml.safe_load(path.read_text())
    scale["training"]["epochs"] = 12
    scale["resources"]["train"] = {"threads": 1, "mem_mb": 1200, "runtime": 7, "gpus": 1}
    scale["resources"]["measure_features"] = {"threads": 2, "mem_mb": 9000, "runtime": 9}
    path.write_text(yaml.safe_dump(scale, sort_keys=False))
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What is left of the run, and Slurm's records of all jobs in the order of their submission."""
    folder = longer_workspace(tmp_path_factory.mktemp("run") / "slurm")
    with helpers_slurm.cluster(tmp_path_factory.mktemp("slurm")) as cluster:
        with cluster.snakemake(folder, *SMOKE) as running:
            # A training job is cancelled as soon as it has a checkpoint.
            wait_for("a checkpoint", (folder / LAYOUT.checkpoint(KILLED)).exists, WHOLE_RUN)
            (job,) = records_of(cluster.jobs(folder), KILLED_RULE)
            cluster.ask("scancel", job["JobId"])
            running.wait(WHOLE_RUN)
        printed, records = (folder / "snakemake.log").read_text(), cluster.jobs(folder)
    assert running.returncode == 0, printed
    scale = load_scale(folder / LAYOUT.config)
    return SimpleNamespace(folder=folder, scale=scale, printed=printed, records=records)


def records_of(records, rule):
    return [record for record in records if record["Comment"] == f"rule_{rule}"]


def test_every_job_ran_on_the_cluster_and_nothing_is_left_to_do(run):
    ended_well = [record for record in run.records if record["JobState"] == "COMPLETED"]
    steps = len(ended_well) + 1  # `all`, which has no command
    assert f"{steps} of {steps} steps (100%) done" in run.printed
    assert len(run.records) == len(ended_well) + 1  # the one that was killed
    assert planned_rules(run.folder, *SMOKE) == []


def test_jobs_were_given_what_the_scale_file_says(run):
    jobs = {"train": "train_tiny_neox", "measure_features": "measure_features"}
    jobs |= {"evaluate": "evaluate_wildcards_tiny-neox_layer1", "notebook": "figure3"}
    training = [record for record in run.records if record["Comment"].startswith("rule_train_")]
    for key, rule in jobs.items():
        wanted = getattr(run.scale.resources, key)
        (record,) = records_of(run.records, rule)
        assert record["CPUs/Task"] == record["NumCPUs"] == str(wanted.threads)
        assert record["MinMemoryNode"] == f"{wanted.mem_mb}M"
        assert record["TimeLimit"] == f"00:{wanted.runtime:02}:00"
    # Those that want a GPU get one, the others none.
    assert {record.get("TresPerJob") for record in training} == {"gres:gpu:1"}
    assert not any("TresPerJob" in record for record in run.records if record not in training)
    times = sorted((record["StartTime"], record["EndTime"]) for record in training)
    # The node has one, so they took turns.
    assert all(ended <= began for (_, ended), (began, _) in pairwise(times))


def test_a_killed_training_job_is_submitted_again_and_goes_on(run):
    first, second = records_of(run.records, KILLED_RULE)
    assert (first["JobState"], second["JobState"]) == ("CANCELLED", "COMPLETED")
    assert "Trying to restart job" in run.printed
    logs = (run.folder / LAYOUT.results / "logs").glob("train_*.log")
    began = {log.stem.removeprefix("train_"): log.read_text().splitlines()[0] for log in logs}
    resumed = [name for name, line in began.items() if not line.startswith("training: 0.00/")]
    assert resumed == [KILLED]
    assert not (run.folder / LAYOUT.checkpoint(KILLED)).exists()


def test_the_results_are_those_of_a_run_without_a_cluster(run, tmp_path):
    local = longer_workspace(tmp_path / "local")
    [site] = run.scale.group(KILLED).sites  # of the job that was killed
    snakemake(local, str(LAYOUT.site_evaluation(site.name)), *SMOKE)
    here, there = (hashes_below(folder / LAYOUT.results) for folder in (local, run.folder))
    made = [name for name in here if name.startswith(COMPARED)]
    weights = [name for name in made if name.endswith("/sae_weights.safetensors")]
    assert len(weights) == len(run.scale.dictionaries_of(site))
    assert [name for name in made if here[name] != there[name]] == []
