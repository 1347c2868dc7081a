"""Prompts through tiny models with random transcoders. Shared between tests: do not change them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

from helpers_circuits import MIXES, Make, make_circuit, prompt
from helpers_models import FAMILIES, make_tiny_model
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.models import LanguageModel, load_model, load_tokenizer


@pytest.fixture(scope="session", params=list(MIXES))
def mix(request: pytest.FixtureRequest) -> str:
    """Which layers have transcoders."""
    return request.param


@pytest.fixture(scope="session", params=[0, 1], ids=["from BOS", "after BOS"])
def first(request: pytest.FixtureRequest) -> int:
    """The first position with transcoders."""
    return request.param


@pytest.fixture(scope="session")
def local(
    tiny_model: LanguageModel,
    random_dictionary: Make,
    random_tokens: Callable[..., Tensor],
    mix: str,
    first: int,
) -> LocalReplacementModel:
    """Eight tokens, for every architecture, mix of transcoders and first position."""
    replacement = make_circuit(tiny_model, random_dictionary, MIXES[mix], first=first)
    return replacement.freeze(prompt(random_tokens))


@pytest.fixture(scope="session")
def mixed(
    tiny_model: LanguageModel, random_dictionary: Make, random_tokens: Callable[..., Tensor]
) -> LocalReplacementModel:
    """Eight tokens, for every architecture: transcoders at layers 0 and 2 after BOS."""
    replacement = make_circuit(tiny_model, random_dictionary, MIXES["layers 0 and 2"], first=1)
    return replacement.freeze(prompt(random_tokens))


@pytest.fixture(scope="session")
def small(
    tiny_model: LanguageModel,
    random_dictionary: Make,
    random_tokens: Callable[..., Tensor],
    mix: str,
) -> LocalReplacementModel:
    """Four tokens and five features a layer, for every architecture and mix: few paths."""
    replacement = make_circuit(tiny_model, random_dictionary, MIXES[mix], first=1, n_features=5)
    return replacement.freeze(prompt(random_tokens, 4))


@pytest.fixture(scope="session", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of a family."""
    return make_tiny_model(request.param, tmp_path_factory.mktemp("families") / request.param)


@pytest.fixture(scope="session")
def of_family(
    folder: Path, random_dictionary: Make, random_tokens: Callable[..., Tensor]
) -> LocalReplacementModel:
    """A prompt, with transcoders at layers 0 and 2."""
    mix = MIXES["layers 0 and 2"]
    replacement = make_circuit(load_model(folder), random_dictionary, mix, first=1)
    return replacement.freeze(prompt(random_tokens))


@pytest.fixture(scope="session")
def gpt2_replacement(tiny_models: dict[str, Path], random_dictionary: Make) -> ReplacementModel:
    """A single model, for what does not depend on it."""
    model = load_model(tiny_models["gpt2"])
    return make_circuit(model, random_dictionary, MIXES["layers 0 and 2"], first=1)


@pytest.fixture(scope="session")
def tracer(tiny_models: dict[str, Path], gpt2_replacement: ReplacementModel) -> Tracer:
    """The same with its tokenizer, whose tokens are w0, w1 and so on."""
    return Tracer(gpt2_replacement, load_tokenizer(tiny_models["gpt2"]), 0)
