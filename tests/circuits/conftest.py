"""Prompts through tiny models with random transcoders. Shared between tests: do not change them."""

import pytest

from helpers_circuits import (
    MIXES,
    N_TOKENS,
    PROMPT,
    TARGETS,
    active_units,
    make_circuit,
    outputs,
    prompt,
    write_files,
)
from helpers_models import FAMILIES, make_tiny_model
from transcoders.circuits.ablation import BATCH, REPLACEABLE
from transcoders.circuits.faithfulness import mean_activations
from transcoders.circuits.notation import CONTRIBUTORS
from transcoders.circuits.paths import Search
from transcoders.circuits.trace import Tracer
from transcoders.circuits.vectors import feature_target, logit_target
from transcoders.models import load_model, load_tokenizer


@pytest.fixture(scope="session")
def freeze(random_dictionary, random_tokens):
    """Freezes random tokens on a model with random transcoders, by default after BOS."""

    def freeze(model, mix="layers 0 and 2", n_tokens=N_TOKENS, *, first=1, **options):
        replacement = make_circuit(model, random_dictionary, MIXES[mix], first=first, **options)
        return replacement.freeze(prompt(random_tokens, n_tokens))

    return freeze


LOCAL = [
    ("gpt2", "all layers", 1), ("gpt2", "no layer", 0), ("gpt_neox", "all layers", 0),
    ("gpt_neox", "layer 1", 1), ("gpt_neox", "layers 0 and 2", 1), ("llama", "layers 0 and 2", 0),
    ("llama", "all layers", 1), ("llama", "no layer", 1),
]  # fmt: skip
"""Architectures, mixes of transcoders and first positions with them: each meets several others."""


@pytest.fixture(scope="session", params=LOCAL, ids=lambda each: f"{each[0]}, {each[1]}, {each[2]}")
def local(request, tiny_models, freeze):
    """Eight tokens, for some of the settings."""
    architecture, mix, first = request.param
    return freeze(load_model(tiny_models[architecture]), mix, first=first)


@pytest.fixture(scope="session")
def mixed(tiny_model, freeze):
    """Eight tokens, for every architecture: transcoders at layers 0 and 2 after BOS."""
    return freeze(tiny_model)


@pytest.fixture(scope="session", params=MIXES)
def small(request, tiny_model, freeze):
    """Four tokens and five features a layer, for every architecture and mix: few paths."""
    return freeze(tiny_model, request.param, 4, n_features=5)


@pytest.fixture(scope="session")
def text(random_tokens):
    """Rows of a text: more than are run at a time."""
    return random_tokens(BATCH + 3, 6, seed=5).long()


@pytest.fixture(scope="session")
def means(mixed, text):
    """What its parts do on the text."""
    return mean_activations(mixed.replacement, text)


@pytest.fixture(scope="session")
def logits(mixed):
    """A difference of two logits at the end."""
    return logit_target(mixed, {7: 1.0, 9: -1.0}, -1, name="difference")


@pytest.fixture(params=["logits", "feature"])
def target(mixed, request, logits):
    """This difference, or the most active feature at the end."""
    top = feature_target(mixed, 2, active_units(mixed, 2, 7)[0], -1)
    return {"logits": logits, "feature": top}[request.param]


@pytest.fixture(scope="session")
def nodes(mixed):
    """Some nodes of each kind that can be ablated, of all layers and the later tokens."""
    late = [node for node in outputs(mixed) if node.token > 2]
    kinds = [[node for node in late if node.kind == kind] for kind in REPLACEABLE]
    return [node for of_kind in kinds for node in of_kind[:: max(len(of_kind) // 7, 1)]]


@pytest.fixture(scope="session", params=FAMILIES)
def of_family(request, tmp_path_factory, freeze):
    """A prompt on a tiny model of a family, with transcoders at layers 0 and 2."""
    folder = tmp_path_factory.mktemp("families") / request.param
    return freeze(load_model(make_tiny_model(request.param, folder)))


@pytest.fixture(scope="session")
def tracer(tiny_models, random_dictionary):
    """A single model, for tests that do not depend on the architecture. Tokens are w0, w1, ..."""
    model = load_model(tiny_models["gpt2"])
    replacement = make_circuit(model, random_dictionary, MIXES["layers 0 and 2"], first=1)
    return Tracer(replacement, load_tokenizer(tiny_models["gpt2"]), 0)


@pytest.fixture(scope="session")
def rows(random_tokens):
    """A text on which features are looked up."""
    return random_tokens(10, 12, seed=8).long()


@pytest.fixture(scope="session")
def circuits(tracer, rows, tmp_path_factory):
    """Circuits of all kinds of parts, and the folder with the files of each, by name."""
    folder, made = tmp_path_factory.mktemp("circuits"), {}
    for name, target in TARGETS.items():
        circuit = tracer.trace(PROMPT, target, Search(40, 4, CONTRIBUTORS, sign="both"))
        write_files(tracer, circuit, rows, folder / name)
        made[name] = circuit, folder / name
    return made


@pytest.fixture(params=TARGETS)
def written(request, circuits):
    """One of them."""
    return circuits[request.param]
