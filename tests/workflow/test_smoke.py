"""The whole workflow at smoke scale: one run, shared by the tests below.

What its tables hold is compared with kept ones in ``test_golden.py``.
"""

import json
import re

import pandas as pd
import pytest
import yaml
from benchmarks.rules import allotted

from transcoders.checksums import sha256
from transcoders.circuits.export import load_circuit
from transcoders.circuits.labels import feature_name, read_labels
from transcoders.config import load_scale
from transcoders.files import read_json
from transcoders.layout import Layout
from workflow.running import REPOSITORY, cli, hashes_below, planned_rules, snakemake, workspace

SMOKE = ("--config", "scale=smoke")
LAYOUT = Layout("smoke")
COMPARED = (".safetensors", ".csv", ".json", ".parquet", ".ipynb", ".html", ".pdf", ".png")


def test_features_are_measured_and_studied_blind(run, scale):
    measures = pd.read_csv(run / LAYOUT.automatic)
    names = [scale.rated(kind).name for kind in ("transcoder", "mlp_in_sae")]
    assert list(measures["dictionary"].unique()) == [*names, scale.interpretability.baseline]
    studies = pd.read_csv(run / LAYOUT.systematic)
    assert studies["feature"].nunique() == scale.interpretability.studied_features
    for name in names:
        live = set(measures.loc[measures["dictionary"] == name, "feature"])
        shown = features_in_browser(run / LAYOUT.features_of(name))
        assert len(live) > scale.interpretability.rated_features and live <= shown


def features_in_browser(page):
    index = re.search(r'id="index">(.*?)</script>', page.read_text()).group(1)
    return set(json.loads(index)["feature"])


def test_every_circuit_is_found_checked_and_drawn_and_its_features_are_labelled(run, scale):
    shown = set()
    for case in scale.circuits.cases:
        folder = run / LAYOUT.circuit(case.name)
        record, paths = load_circuit(folder)
        assert record["prompt"] == case.prompt and record["tokens"][0] == "<|endoftext|>"
        assert record["completeness_error"] < 1e-5
        assert 1 < len(paths) <= 1 + scale.circuits.n_paths * scale.circuits.iterations
        assert (folder / "circuit.html").stat().st_size > 10_000
        by_layer = {e.site.layer: e.name for e in scale.circuit_transcoders(case.model)}
        labels = read_labels(run / LAYOUT.labels, by_layer.values())
        features = {path.node for path in paths if path.node.kind == "feature"}
        shown |= features
        for node in features:
            assert 0 <= labels[feature_name(node.layer, node.unit)].score <= 1
            page = run / LAYOUT.features_of(by_layer[node.layer])
            assert node.unit in features_in_browser(page)
    assert shown


def test_what_the_run_ran_on_is_recorded(run, scale):
    record = read_json(run / LAYOUT.environment)
    assert record["trained_on"] == {"cpu": len(scale.dictionaries)}
    assert record["sha256"] == {
        str(path): sha256(run / path) for path in (LAYOUT.config, LAYOUT.corpus_manifest)
    }
    for entry in scale.dictionaries:
        training = read_json(run / LAYOUT.dictionary(entry.name) / "cfg.json")["training"]
        assert training["corpus_manifest_sha256"] in record["sha256"].values()
    page = (run / LAYOUT.notebook("claims")).with_suffix(".html").read_text()
    assert all(digest in page for digest in record["sha256"].values())
    assert record["hardware"]["processor"] in page


def test_a_case_study_is_carried_out_and_rendered(run):
    (row,) = pd.read_csv(run / LAYOUT.table4).itertuples()
    # It was written before the weights were made.
    assert (row.study, row.outcome) == ("first", "other weights")
    transcript = read_json(run / LAYOUT.carried_out("first") / "transcript.json")
    assert transcript[-1]["digest"] == row.seal
    page = (run / LAYOUT.notebook("case_study_first")).with_suffix(".html").read_text()
    assert "It was nothing in particular." in page
    assert "study.tokens(row=0)</code>: refused." in page


def test_a_circuit_can_be_asked_for_by_hand(run):
    found = cli(
        run, "circuit", "--scale", "smoke", "--model", "tiny-llama", "--prompt", "w1 w2 w3",
        "--target", "tc1[top]@-1", "--sign", "both", "--head", "attn0[1]",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("tc1[") and "attn0[0]" not in found.stdout


def test_a_second_run_does_nothing_and_a_changed_setting_reruns_what_depends_on_it(run):
    assert planned_rules(run, *SMOKE) == []
    path = run / "config/smoke.yaml"
    original, key = path.read_text(), "evaluation:\n  batch_contexts: "
    assert f"{key}8" in original
    try:
        path.write_text(original.replace(f"{key}8", f"{key}4"))
        planned = planned_rules(run, *SMOKE)
        # These show what was evaluated.
        pages = {"figure3", "compare_gaps", "gap_by_tokens", "interpretability_page"}
        judged = {"judge_claims", "record_environment", "claims_page", "landing_page"}
        assert set(planned) == {"evaluate", "collect_tables", *pages, *judged, "all"}
    finally:
        path.write_text(original)


def test_tables_that_failed_jobs_removed_are_made_again(run):
    removed = [run / LAYOUT.replacement, run / LAYOUT.site_evaluation("tiny-llama_layer1")]
    for table in removed:
        table.rename(table.with_suffix(".aside"))
    try:
        assert {"measure_replacement", "evaluate"} <= set(planned_rules(run, *SMOKE))
    finally:
        for table in removed:
            table.with_suffix(".aside").rename(table)


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
    assert list(table["allotted_mb"]) == [allotted(job, scale).mem_mb for job in table["job"]]
    assert len(table) > 30 and (table["peak_memory_mb"] <= table["allotted_mb"]).all()


def test_a_bad_scale_file_stops_snakemake_with_one_message(tmp_path):
    folder = workspace(tmp_path / "run")
    content = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    (folder / "config/bad.yaml").write_text(yaml.safe_dump(content | {"sede": 42}))
    run = snakemake(folder, "--config", "scale=bad", expect_success=False)
    assert "config/bad.yaml" in run.stderr and "did you mean 'seed'" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (folder / "results").exists()


def jobs(folder):
    """What the jobs of a folder's first run said they do, in the order in which they began."""
    log = min((folder / ".snakemake/log").glob("*.log"))  # its name is the time
    return re.findall(r"^Job \d+: (.+)$", log.read_text(), re.MULTILINE)


@pytest.mark.full
def test_two_clean_runs_give_the_same_bytes(run, tmp_path):
    """One on two cores, which other tests look at too, one on a single core in another order."""
    again = workspace(tmp_path / "again")
    first_of_all = str(LAYOUT.site_evaluation("tiny-neox_layer1"))
    snakemake(again, "--prioritize", first_of_all, *SMOKE, cores=1)
    assert sorted(jobs(run)) == sorted(jobs(again)) and jobs(run) != jobs(again)
    for top, least in (("results", 50), ("figures", 5)):
        first, second = (hashes_below(folder / top, *COMPARED) for folder in (run, again))
        assert len(first) > least
        assert first.keys() == second.keys()
        assert [name for name in first if first[name] != second[name]] == []
