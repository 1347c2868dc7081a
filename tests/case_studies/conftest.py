"""A tiny model with random transcoders, and what was gathered of them."""

from pathlib import Path

import pytest

from helpers_features import subjects
from transcoders.config import Interpretability, Site
from transcoders.layout import Layout
from transcoders.models import load_model

REPOSITORY = Path(__file__).resolve().parents[2]
N_ROWS, ROW_LENGTH = 16, 10


@pytest.fixture(scope="session")
def repository(tiny_models, random_dictionary, random_tokens, tmp_path_factory):
    """A folder with the scale smoke, and transcoders at layers 0 and 1 that know nothing."""
    root, layout = tmp_path_factory.mktemp("repository"), Layout("smoke")
    (root / "config").symlink_to(REPOSITORY / "config")
    (root / layout.model("x")).parent.mkdir(parents=True)
    (root / layout.model("tiny-llama")).symlink_to(tiny_models["llama"])
    dictionaries = {}
    for layer in (0, 1):
        dictionary = random_dictionary("transcoder", seed=10 + layer)
        folder = layout.dictionary(f"tiny-llama_layer{layer}_transcoder_l1-0.5")
        dictionary.save_pretrained(root / folder, {"metadata": {}})
        dictionaries[folder.name] = (Site(model="tiny", layer=layer), dictionary)
    settings = Interpretability.model_construct(
        batch_contexts=8, top_examples=4, sampled_examples=5, background_tokens=20
    )
    rows = random_tokens(N_ROWS, ROW_LENGTH, seed=6)
    subjects(load_model(tiny_models["llama"]), rows, dictionaries, settings, root / layout.observed)
    return root


@pytest.fixture(autouse=True)
def inside(repository, monkeypatch):
    monkeypatch.chdir(repository)
