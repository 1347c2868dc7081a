"""The whole workflow at smoke scale: one run, shared by the tests below.

What its tables hold is compared with kept ones in ``test_golden.py``.
"""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from transcoders.checksums import sha256
from transcoders.circuits.export import load_circuit
from transcoders.circuits.labels import feature_name, read_labels
from transcoders.files import read_json
from transcoders.layout import Layout
from workflow.running import cli, planned_rules, snakemake, workspace

SMOKE = ("--config", "scale=smoke")
LAYOUT = Layout("smoke")


def test_greater_than_is_averaged_over_all_years_but_the_first_and_last(run):
    summary = read_json(run / LAYOUT.greater_than / "summary.json")
    metric = pd.read_csv(run / LAYOUT.greater_than / "metric.csv")
    averaged = metric[metric["year"].between(1, 98)]["original"].mean()
    assert summary["metric"]["original"]["value"] == pytest.approx(averaged, abs=1e-5)


def test_features_are_measured_and_studied_blind(run, scale):
    measures = pd.read_csv(run / LAYOUT.automatic)
    names = [scale.rated(kind).name for kind in ("transcoder", "mlp_in_sae")]
    assert list(measures["dictionary"].unique()) == [*names, scale.interpretability.baseline]
    studies = pd.read_csv(run / LAYOUT.systematic)
    assert len(studies.drop_duplicates("feature")) == scale.interpretability.studied_features
    for name in names:
        live = set(measures.loc[measures["dictionary"] == name, "feature"])
        shown = features_in_browser(run / LAYOUT.features_of(name))
        assert len(live) > scale.interpretability.rated_features and live <= shown


def features_in_browser(page):
    index = re.search(r'id="index">(.*?)</script>', page.read_text()).group(1)
    return set(json.loads(index)["feature"])


def test_every_feature_of_a_circuit_has_a_label_and_is_in_the_browser(run, scale):
    shown = 0
    for case in scale.circuits.cases:
        by_layer = {e.site.layer: e.name for e in scale.circuit_transcoders(case.model)}
        labels = read_labels(run / LAYOUT.labels, by_layer.values())
        _, paths = load_circuit(run / LAYOUT.circuit(case.name))
        features = {path.node for path in paths if path.node.kind == "feature"}
        shown += len(features)
        for node in features:
            label = labels[feature_name(node.layer, node.unit)]
            assert 0 <= label.score <= 1
            page = run / LAYOUT.features_of(by_layer[node.layer])
            assert node.unit in features_in_browser(page)
    assert shown


def test_what_the_run_ran_on_is_recorded(run, scale):
    record = read_json(run / LAYOUT.environment)
    assert record["scale"] == "smoke"
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
    table = pd.read_csv(run / LAYOUT.table4).set_index("study")
    assert list(table.index) == ["first"]
    assert table.loc["first", "outcome"] == "other weights"  # it was written before they were made
    folder = run / LAYOUT.carried_out("first")
    assert read_json(folder / "transcript.json")[-1]["digest"] == table.loc["first", "seal"]
    page = (run / LAYOUT.notebook("case_study_first")).with_suffix(".html").read_text()
    assert "It was nothing in particular." in page
    assert "are not those that the analyst studied" in page
    assert "study.tokens(row=0)</code>: refused." in page


def test_every_circuit_is_found_checked_and_drawn(run, scale):
    for case in scale.circuits.cases:
        folder = run / LAYOUT.circuit(case.name)
        record, paths = load_circuit(folder)
        assert record["prompt"] == case.prompt and record["tokens"][0] == "<|endoftext|>"
        assert record["completeness_error"] < 1e-5
        assert 1 < len(paths) <= 1 + scale.circuits.n_paths * scale.circuits.iterations
        assert {node["ctx_idx"] for node in read_json(folder / "graph.json")["nodes"]} <= set(
            range(len(record["tokens"]))
        )
        assert (folder / "circuit.html").stat().st_size > 10_000


def test_a_circuit_can_be_asked_for_by_hand(run):
    found = cli(
        run, "circuit", "--scale", "smoke", "--model", "tiny-llama", "--prompt", "w1 w2 w3",
        "--target", "tc1[top]@-1", "--sign", "both", "--head", "attn0[1]",
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("tc1[") and "attn0[0]" not in found.stdout


def test_notebooks_hold_neither_paths_of_this_machine_nor_warnings(run):
    for path in (run / "results/smoke/notebooks").iterdir():
        text = path.read_text()
        assert str(run) not in text and str(Path.home()) not in text
        assert "Warning" not in text


def test_a_second_run_does_nothing(run):
    assert planned_rules(run, *SMOKE) == []


def test_a_changed_setting_reruns_what_depends_on_it(run):
    path = run / "config/smoke.yaml"
    original = path.read_text()
    try:
        before, _, after = original.partition("evaluation:\n  batch_contexts: 8")
        path.write_text(f"{before}evaluation:\n  batch_contexts: 4{after}")
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


def test_a_bad_scale_file_stops_snakemake_with_one_message(tmp_path):
    folder = workspace(tmp_path / "run")
    content = yaml.safe_load((folder / "config/smoke.yaml").read_text())
    (folder / "config/bad.yaml").write_text(yaml.safe_dump(content | {"sede": 42}))
    run = snakemake(folder, "--config", "scale=bad", expect_success=False)
    assert "config/bad.yaml" in run.stderr and "did you mean 'seed'" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (folder / "results").exists()


@pytest.mark.full
def test_fewer_cores_than_a_rule_needs_are_refused(tmp_path):
    folder = workspace(tmp_path / "run")
    path = folder / "config/smoke.yaml"
    path.write_text(path.read_text().replace("&small {threads: 1", "&small {threads: 3"))
    outcome = snakemake(folder, *SMOKE, cores=2, expect_success=False)
    assert "--cores 3" in outcome.stdout + outcome.stderr
