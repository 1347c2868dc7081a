"""The greedy search finds what plain loops find, and its filters do what they say."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from helpers_circuits import assert_close, greedy_paths, some_targets
from transcoders.circuits.notation import CONTRIBUTORS, Node, NodeKind
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.vectors import contributions, pull_back

SIGNS: dict[str, Callable[[float], float]] = {
    "positive": lambda attribution: attribution,
    "negative": lambda attribution: -attribution,
    "both": abs,
}


def assert_as_plain_loops(local, n, iterations, sign):
    for target in (some_targets(local)[0], some_targets(local)[-1]):
        found = find_paths(local, target, Search(n, iterations, sign=sign))
        expected = greedy_paths(local, target, n=n, iterations=iterations, score=SIGNS[sign])
        assert [path.nodes for path in found] == [path.nodes for path in expected]
        assert [path.attribution for path in found] == pytest.approx(
            [path.attribution for path in expected], rel=1e-3, abs=1e-5
        )


def test_the_paths_are_those_of_plain_loops(small):
    assert_as_plain_loops(small, 4, 3, "both")


# What does not depend on the architecture.
SOME = pytest.mark.parametrize(
    ("tiny_model_folder", "mix"),
    [("llama", "all layers"), ("gpt_neox", "layers 0 and 2")],
    indirect=True,
)


@SOME
def test_paths_of_one_sign_or_after_one_round_are_those_of_plain_loops(small):
    for n, iterations, sign in ((3, 1, "both"), (4, 3, "positive"), (4, 3, "negative")):
        assert_as_plain_loops(small, n, iterations, sign)


FILTERS: dict[str, tuple[dict[str, Any], Callable[[Node], bool]]] = {
    "components": (
        {"components": ("head", "error", "embed")},
        lambda node: node.kind in ("head", "error", "embed"),
    ),
    "layers": ({"layers": (1,)}, lambda node: node.layer in (1, -1)),
    "heads": (
        {"heads": [(0, 1), (1, 0)]},
        lambda node: node.kind != "head" or (node.layer, node.unit) in ((0, 1), (1, 0)),
    ),
    "tokens": ({"tokens": (1, -1)}, lambda node: where(node) in (1, 3)),
    "without BOS": ({"exclude_bos": True}, lambda node: where(node) != 0),
}


def where(node):
    """The token that a node lies at, or that a head reads."""
    return node.source if node.kind == "head" else node.token


@SOME
@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_those_of_plain_loops(small, name):
    settings, passes = FILTERS[name]

    def allowed(node):
        return passes(node) and (node.kind != "error" or "components" in settings)

    target = some_targets(small)[0]
    found = find_paths(small, target, Search(12, 3, sign="both", **settings))
    expected = greedy_paths(small, target, n=12, iterations=3, score=abs, allowed=allowed)
    assert {path.nodes for path in found} == {path.nodes for path in expected}


def test_activations_are_those_of_the_features(mixed):
    active = mixed.active
    columns = (active.token, active.layer, active.unit, active.z)
    z = {tuple(key): value for *key, value in zip(*(c.tolist() for c in columns), strict=True)}
    for path in find_paths(mixed, some_targets(mixed)[-1], Search(30, 3))[1:]:
        key = (path.node.token, path.node.layer, path.node.unit)
        assert path.activation == (z[key] if path.node.kind == "feature" else 0.0)


def test_bias_error_and_extensions_add_up_to_a_path(small):
    target = some_targets(small)[0]
    paths = find_paths(small, target, Search(10**9, 10, CONTRIBUTORS, sign="both"))
    scale = max(abs(path.attribution) for path in paths)
    for path in paths:
        if path.expanded:
            kept = sum(child.attribution for child in path.children)
            assert kept + path.bias == pytest.approx(path.attribution, abs=1e-5 * scale)
            errors = (c.attribution for c in path.children if c.node.kind == "error")
            assert sum(errors) == pytest.approx(path.error, abs=1e-5 * scale)


def test_a_head_of_layer_0_reads_the_embedding_alone(mixed):
    """So no path goes on after it: the step would repeat its value. With GPT-2's positions too."""
    vectors = some_targets(mixed)[0].vectors
    found = contributions(mixed, vectors)
    is_first = (found.columns.kind == NodeKind.HEAD.code) & (found.columns.layer == 0)
    column = (is_first & (found.values[0] != 0)).nonzero()[:, 0]
    assert len(column) == 2 * mixed.n_tokens
    pulled = pull_back(mixed, vectors, found, torch.zeros_like(column), column)
    read = contributions(mixed, pulled)
    is_embedding = read.columns.kind == NodeKind.EMBED.code
    assert not read.values[:, ~is_embedding].any() and not read.bias.any()
    assert_close(read.values[:, is_embedding][:, 0], found.values[0, column])
