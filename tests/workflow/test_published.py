"""The published scale, end to end and offline, on a hub laid out by hand with tiny files.

The scale file is the real one, but for sizes: names, revisions, templates and rules are what a user
runs.
"""

import pandas as pd
import pytest
import torch
import yaml

from helpers_hub import add_model, add_to_hub, released_file, released_tensors, shard
from transcoders.config import load_scale
from transcoders.dictionaries import SparseDictionary
from transcoders.files import read_json
from transcoders.layout import Layout
from workflow.running import REPOSITORY, run_offline, workspace

pytestmark = pytest.mark.full
LAYOUT = Layout("published")
LAYERS, D_MODEL, N_FEATURES = 4, 32, 128  # 128 neurons too: Figure 4 keeps up to 100


def smaller(scale):
    """The published scale with everything but its sizes."""
    scale["models"]["gpt2-small"] |= {"n_layers": LAYERS, "d_model": D_MODEL}
    scale["imported"][0] |= {"layers": list(range(LAYERS)), "n_features": N_FEATURES}
    scale["corpus"] |= {"context_length": 32, "train_contexts": 40}
    del scale["corpus"]["source"]["sha256"]  # that of the real shard
    for case in scale["circuits"]["cases"]:
        if case["target"].startswith("tc"):
            case["target"] = f"tc{LAYERS - 2}[top]@-1"
    scale["circuits"]["text_contexts"] = 8
    for check in scale["circuits"]["checks"]:
        check["feature"] = "tc2[5]"
    return scale


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A workspace with the scale made smaller, and beside it the hub's cache."""
    folder = workspace(tmp_path_factory.mktemp("published") / "run")
    scale = smaller(yaml.safe_load((REPOSITORY / "config/published.yaml").read_text()))
    (folder / "config/published.yaml").write_text(yaml.safe_dump(scale, sort_keys=False))
    hub = folder.parent / "hub"
    add_model(hub, scale["models"]["gpt2-small"], "gpt2", folder.parent / "gpt2")
    source = scale["corpus"]["source"]
    texts = {source["data_files"][0]: shard(0, 40, n_words=120)}
    add_to_hub(hub, source["repo"], source["revision"], texts, "dataset")
    imported = scale["imported"][0]
    files = {
        imported["file"].replace("{layer}", str(layer)): released_file(
            released_tensors(D_MODEL, N_FEATURES, seed=layer)
        )
        for layer in range(LAYERS)
    }
    source = imported["source"]
    add_to_hub(hub, source["repo"], source["revision"], files, "model")
    return folder


@pytest.fixture(scope="module")
def run(published):
    """The same after ``snakemake --config scale=published``, without a network."""
    return run_offline(published, "published")


def test_nothing_is_trained_cached_or_evaluated(run):
    rules = {path.stem for path in (run / LAYOUT.results / "logs").glob("*.log")}
    assert not {
        rule for rule in rules if rule.startswith(("train", "cache", "evaluate", "figure3"))
    }
    assert {"study_greater_than", "check_features", "circuits", "greater_than_page"} <= rules


def test_every_layer_has_its_released_transcoder(run):
    scale = load_scale(run / LAYOUT.config)
    assert [entry.site.layer for entry in scale.imported_transcoders] == list(range(LAYERS))
    for entry in scale.imported_transcoders:
        tensors = released_tensors(D_MODEL, N_FEATURES, seed=entry.site.layer)
        weights = SparseDictionary.from_pretrained(run / LAYOUT.dictionary(entry.name))
        assert torch.equal(weights.W_enc, tensors["W_enc"])


def test_figures_4_and_5_and_the_tables_behind_them_are_made(run):
    for name in ("greater_than_where", "fig4_greater_than", "fig5_dla"):
        for suffix in (".pdf", ".png"):
            assert (run / LAYOUT.figure(name)).with_suffix(suffix).stat().st_size > 10_000
    summary = read_json(run / LAYOUT.greater_than / "summary.json")
    assert summary["numbers"] == "pairs"
    assert summary["layers_with_transcoder"] == list(range(LAYERS))
    assert 1 <= summary["layer"] < LAYERS
    curves = pd.read_csv(run / LAYOUT.greater_than / "curves.csv")
    kept = curves[(curves["curve"] == "neurons") & (curves["template"] == "all")]["kept"]
    assert list(kept) == list(range(101))
    metric = pd.read_csv(run / LAYOUT.greater_than / "metric.csv")
    assert len(metric) == 100 and metric.drop(columns="template").notna().all().all()


def test_the_paper_values_stand_beside_those_found(run):
    page = (run / LAYOUT.notebook("greater_than")).with_suffix(".html").read_text()
    for expected in ("0.88294", "0.7978", "0.84531", "attn9[1]", "1954, 21238, 10437", "5315"):
        assert expected in page
    checks = pd.read_csv(run / LAYOUT.feature_checks)
    assert list(checks["published"]) == [19.97, 0.81, 12.48, 12.13]
    assert checks[["activation", "activation_replaced"]].notna().all().all()
