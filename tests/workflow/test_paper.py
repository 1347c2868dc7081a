"""The paper's scale, end to end and offline, on a hub laid out by hand with tiny files.

The scale file is the real one, but for sizes and the GPU: models, revisions, shards, groups,
coefficients, streaming and rules are what a user runs.
"""

import pandas as pd
import pytest
import yaml

from helpers_hub import add_model, add_to_hub, shard
from transcoders.config import load_scale
from transcoders.files import read_json
from transcoders.layout import Layout
from workflow.running import REPOSITORY, run_offline, workspace

pytestmark = pytest.mark.full
LAYOUT = Layout("paper")
D_MODEL = 32
ARCHITECTURES = {"gpt2-small": "gpt2", "pythia-410m": "gpt_neox", "pythia-1.4b": "gpt_neox"}


def smaller(scale):
    """The paper's scale with everything but its sizes, on a CPU."""
    scale["device"] = "cpu"
    for model in scale["models"].values():
        model["d_model"] = D_MODEL
    del scale["corpus"]["source"]["sha256"]  # that of the real shard
    scale["corpus"] |= {
        "context_length": 32, "train_contexts": 400, "eval_documents": 10, "eval_contexts": 20,
    }  # fmt: skip
    other_layers = [{"model": "gpt2-small", "layer": n} for n in range(12) if n not in (0, 4, 10)]
    scale["circuit_sites"] = [s for s in scale["circuit_sites"] if s not in other_layers]
    sites = [*scale["sites"], *scale["circuit_sites"]]
    scale["groups"] = [group for group in scale["groups"] if group["site"] in sites]
    scale["activations"] |= {"batch_contexts": 16, "shard_contexts": 120}
    scale["training"] |= {
        "expansion": 4, "batch_tokens": 256, "buffer_tokens": 2048, "learning_rate": 5e-3,
        "warmup_steps": 5, "sparse_below_density": 0.3, "log_every_steps": 10,
        "checkpoint_every_steps": 20,
    }  # fmt: skip
    scale["evaluation"] |= {"batch_contexts": 8}
    scale["circuits"] |= {"n_paths": 10, "iterations": 3, "text_contexts": 8}
    scale["interpretability"] |= {
        "text_contexts": 40, "batch_contexts": 8, "background_tokens": 64, "rated_features": 5,
        "random_directions": 32, "studied_features": 10,
    }  # fmt: skip
    for resources in scale["resources"].values():
        resources |= {"threads": 1, "mem_mb": 1500, "gpus": 0}
    return scale


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workspace after ``snakemake --config scale=paper``, without a network."""
    folder = workspace(tmp_path_factory.mktemp("paper") / "run")
    scale = smaller(yaml.safe_load((REPOSITORY / "config/paper.yaml").read_text()))
    (folder / "config/paper.yaml").write_text(yaml.safe_dump(scale, sort_keys=False))
    hub = folder.parent / "hub"
    for name, architecture in ARCHITECTURES.items():
        add_model(hub, scale["models"][name], architecture, folder.parent / name)
    source = scale["corpus"]["source"]
    files = {source["data_files"][0]: shard(0, 100), source["eval_data_files"][0]: shard(1000, 30)}
    add_to_hub(hub, source["repo"], source["revision"], files, "dataset")
    return run_offline(folder, "paper")


def test_every_dictionary_is_trained_on_streamed_activations_and_measured(run):
    scale, table = load_scale(run / LAYOUT.config), pd.read_csv(run / LAYOUT.evaluation)
    assert set(table["dictionary"]) == {entry.name for entry in scale.dictionaries}
    compared = table["site"].isin([site.name for site in scale.sites])
    assert table[compared]["headline"].sum() == 9
    assert table.drop(columns="l1_coefficient").notna().all().all()
    config = read_json(run / LAYOUT.dictionary(scale.dictionaries[0].name) / "cfg.json")
    assert config["training"]["loss_normalization"] == "released"
    assert config["metadata"]["hook_name"] == "blocks.8.ln2.hook_normalized"
    found = {path.name for path in (run / LAYOUT.results / "activations").glob("*/*")}
    assert found == {"activations.json", "statistics.safetensors"}


def test_training_never_reads_the_shards_of_evaluation(run):
    manifest = read_json(run / LAYOUT.corpus_manifest)
    shards = {"train": "train-00000-of-00080.parquet", "eval": "train-00079-of-00080.parquet"}
    assert manifest["documents_by_source"] == {"text": {"eval": 10, "train": 100}}
    for document in manifest["documents"]:
        assert document["id"].startswith(shards[document["split"]] + ":")


def test_the_studies_are_made_and_the_paper_stands_beside_greater_than(run):
    for name in ("fig3_tradeoff", "fig4_greater_than", "fig5_dla", "interpretability_automatic"):
        for suffix in (".pdf", ".png"):
            assert (run / LAYOUT.figure(name)).with_suffix(suffix).stat().st_size > 10_000
    page = (run / LAYOUT.notebook("greater_than")).with_suffix(".html").read_text()
    assert all(expected in page for expected in ("0.88294", "0.7978", "attn9[1]"))
    assert ">bad feature<" not in page  # whose number is one of the authors' weights
