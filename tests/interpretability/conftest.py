"""One pass over a text for dictionaries of every kind, at two layers of a tiny model."""

import pytest
import torch

from transcoders.config import Site
from transcoders.corpus import Rows
from transcoders.interpretability.gather import gather
from transcoders.models import load_model


@pytest.fixture(scope="session")
def rows(random_tokens):
    return Rows(random_tokens(30, 12, seed=5), torch.zeros(30, dtype=torch.int32))


@pytest.fixture(scope="session")
def model(tiny_models):
    return load_model(tiny_models["llama"])


@pytest.fixture(scope="session")
def dictionaries(random_dictionary):
    return {
        "early": (Site(model="m", layer=0), random_dictionary("transcoder", seed=1)),
        "late": (Site(model="m", layer=2), random_dictionary("transcoder", seed=2)),
        "sae": (Site(model="m", layer=2), random_dictionary("mlp_in_sae", seed=3)),
        "out": (Site(model="m", layer=2), random_dictionary("mlp_out_sae", seed=4)),
    }


@pytest.fixture(scope="session")
def gathered(tmp_path_factory, scale, model, rows, dictionaries):
    """Where the results of the pass are."""
    folder = tmp_path_factory.mktemp("gathered") / "observed"
    gather(model, rows, dictionaries, scale.interpretability, folder, first_position=1, seed=3)
    return folder
