"""What rules ask for, what their jobs then take, and that they take no more cores than granted."""

import json

import pandas as pd
from benchmarks.rules import allotted

from transcoders.config import load_scale
from transcoders.layout import Layout
from workflow.running import REPOSITORY, snakemake, workspace

LAYOUT = Layout("smoke")
PROBE = """
rule probe:
    output:
        "threads{threads}.json",
    threads: lambda wildcards: int(wildcards.threads)
    shell:
        "python -c 'import json, numpy, scipy.linalg, threadpoolctl;"
        " print(json.dumps([pool[\\"num_threads\\"] for pool in threadpoolctl.threadpool_info()]))'"
        " > {output}"
"""


def test_no_job_takes_more_memory_or_cores_than_it_asks_for(run, scale):
    measured = sorted((run / LAYOUT.results / "logs").glob("*.tsv"))
    jobs = {path.stem for path in measured}
    assert {"figure3", "judge_claims", "table4", "landing_page"} <= jobs and len(jobs) > 35
    for path in measured:
        took, given = pd.read_csv(path, sep="\t", na_values="-").iloc[0], allotted(path.stem, scale)
        # Nothing is measured of a job that is too short. One thread imports the libraries.
        assert not took["max_rss"] > given.mem_mb, path.stem
        assert not took["cpu_time"] / took["s"] > given.threads + 0.25, path.stem


def test_no_job_of_the_laptop_run_took_more_than_it_asks_for():
    table = pd.read_csv(REPOSITORY / "benchmarks/rules.csv")
    scale = load_scale(REPOSITORY / "config/laptop.yaml")
    assert len(table) > 30 and (table["peak_memory_mb"] <= table["allotted_mb"]).all()
    assert list(table["allotted_mb"]) == [allotted(job, scale).mem_mb for job in table["job"]]


def test_libraries_for_linear_algebra_get_the_threads_of_the_rule(tmp_path):
    folder = workspace(tmp_path / "run")
    with (folder / "Snakefile").open("a") as file:
        file.write(PROBE)
    snakemake(folder, "threads1.json", "threads2.json", "--config", "scale=smoke")
    for threads in (1, 2):
        found = json.loads((folder / f"threads{threads}.json").read_text())
        assert len(found) >= 2 and set(found) == {threads}
