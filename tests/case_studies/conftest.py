"""Scales of tiny models with random transcoders, and what was gathered of them."""

from pathlib import Path

import pytest

from helpers_features import subjects
from transcoders.config import Interpretability, Site
from transcoders.layout import Layout
from transcoders.models import load_model

REPOSITORY = Path(__file__).resolve().parents[2]
N_ROWS, ROW_LENGTH = 16, 10
LAYERS = (0, 1)
ARCHITECTURES = ("gpt_neox", "llama")


@pytest.fixture(scope="session")
def repository(tiny_models, random_dictionary, random_tokens, tmp_path_factory):
    """A folder with a scale for each architecture: transcoders at layers 0 and 1, after BOS."""
    root = tmp_path_factory.mktemp("repository")
    (root / "config").mkdir()
    smoke = (REPOSITORY / "config/smoke.yaml").read_text()
    for architecture in ARCHITECTURES:
        name = architecture.replace("_", "-")
        source = smoke.replace("architecture: llama", f"architecture: {architecture}")
        (root / f"config/{name}.yaml").write_text(source)
        layout = Layout(name)
        (root / layout.model("x")).parent.mkdir(parents=True)
        (root / layout.model("tiny-llama")).symlink_to(tiny_models[architecture])
        dictionaries = {}
        for layer in LAYERS:
            dictionary = random_dictionary("transcoder", seed=10 + layer)
            folder = layout.dictionary(f"tiny-llama_layer{layer}_transcoder_l1-0.5")
            dictionary.save_pretrained(root / folder, {"metadata": {}})
            dictionaries[folder.name] = (Site(model="tiny", layer=layer), dictionary)
        settings = Interpretability.model_construct(
            batch_contexts=8, top_examples=4, sampled_examples=5, background_tokens=20
        )
        rows, folder = random_tokens(N_ROWS, ROW_LENGTH, seed=6), root / layout.observed
        subjects(load_model(tiny_models[architecture]), rows, dictionaries, settings, folder)
    return root


@pytest.fixture(autouse=True)
def inside(repository, monkeypatch):
    monkeypatch.chdir(repository)
