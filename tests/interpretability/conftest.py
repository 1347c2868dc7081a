"""One pass over a text for dictionaries of every kind, at two layers of a tiny model."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers_circuits import Make
from transcoders.config import Scale, Site
from transcoders.corpus import Rows
from transcoders.dictionaries import SparseDictionary
from transcoders.interpretability.gather import gather
from transcoders.models import LanguageModel, load_model

Placed = dict[str, tuple[Site, SparseDictionary]]
"""Dictionaries and their sites, by name."""


@pytest.fixture(scope="session")
def rows(random_tokens: Callable[..., Tensor]) -> Rows:
    return Rows(random_tokens(30, 12, seed=5), torch.zeros(30, dtype=torch.int32))


@pytest.fixture(scope="session")
def model(tiny_models: dict[str, Path]) -> LanguageModel:
    return load_model(tiny_models["llama"])


@pytest.fixture(scope="session")
def dictionaries(random_dictionary: Make) -> Placed:
    return {
        "early": (Site(model="m", layer=0), random_dictionary("transcoder", seed=1)),
        "late": (Site(model="m", layer=2), random_dictionary("transcoder", seed=2)),
        "sae": (Site(model="m", layer=2), random_dictionary("mlp_in_sae", seed=3)),
        "out": (Site(model="m", layer=2), random_dictionary("mlp_out_sae", seed=4)),
    }


@pytest.fixture(scope="session")
def gathered(
    tmp_path_factory: pytest.TempPathFactory, scale: Scale, model: LanguageModel, rows: Rows,
    dictionaries: Placed,
) -> Path:  # fmt: skip
    """Where the results of the pass are."""
    folder = tmp_path_factory.mktemp("gathered") / "observed"
    gather(model, rows, dictionaries, scale.interpretability, folder, first_position=1, seed=3)
    return folder
