"""The greedy search finds what plain loops find, and its filters do what they say."""

from collections.abc import Callable
from typing import Any

import pytest

from helpers_circuits import active_units, greedy_paths, some_targets
from transcoders.circuits.notation import CONTRIBUTORS, Node
from transcoders.circuits.paths import ComputationalPath, Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import Target, feature_target
from transcoders.errors import UserError

SIGNS: dict[str, Callable[[float], float]] = {
    "positive": lambda attribution: attribution,
    "negative": lambda attribution: -attribution,
    "both": abs,
}


@pytest.fixture(scope="module")
def target(mixed: LocalReplacementModel) -> Target:
    """A feature of the last layer at the last token, which reads through everything before."""
    return feature_target(mixed, 2, active_units(mixed, 2, 7)[0], -1)


def search_nodes(local: LocalReplacementModel, target: Target, **settings: Any) -> list[Node]:
    """The nodes found besides the target."""
    search = Search(**{"n_paths": 60, "iterations": 3, "sign": "both", **settings})
    return [node for path in find_paths(local, target, search) for node in path.nodes[1:]]


def by_length(paths: list[ComputationalPath]) -> dict[int, list[ComputationalPath]]:
    """Paths by their number of nodes, in the order in which they were found."""
    rounds: dict[int, list[ComputationalPath]] = {}
    for path in paths:
        rounds.setdefault(len(path.nodes), []).append(path)
    return rounds


@pytest.mark.parametrize(("n", "iterations"), [(1, 3), (3, 1), (4, 3), (9, 2)])
@pytest.mark.parametrize("sign", SIGNS)
def test_the_paths_are_those_of_plain_loops(
    small: LocalReplacementModel, *, n: int, iterations: int, sign: Any
) -> None:
    for target in (some_targets(small)[0], some_targets(small)[-1]):
        found = find_paths(small, target, Search(n, iterations, sign=sign))
        expected = greedy_paths(small, target, n=n, iterations=iterations, score=SIGNS[sign])
        assert [path.nodes for path in found] == [path.nodes for path in expected]
        assert [path.attribution for path in found] == pytest.approx(
            [path.attribution for path in expected], rel=1e-3, abs=1e-5
        )


def test_filters_together_are_those_of_plain_loops(small: LocalReplacementModel) -> None:
    def allowed(node: Node) -> bool:
        where = node.source if node.kind == "head" else node.token
        in_layers = node.layer in (0, 1, -1)
        return node.kind in ("head", "error", "embed") and in_layers and where in (1, 3)

    target = some_targets(small)[-1]
    search = Search(6, 3, ("head", "error", "embed"), layers=(0, 1), tokens=(1, 3), sign="both")
    found = find_paths(small, target, search)
    expected = greedy_paths(small, target, n=6, iterations=3, score=abs, allowed=allowed)
    assert [path.nodes for path in found] == [path.nodes for path in expected]


def test_the_first_path_is_the_target_alone(local: LocalReplacementModel) -> None:
    for target in some_targets(local):
        first = find_paths(local, target, Search(3, 1))[0]
        assert first.nodes == (target.node,)
        assert first.attribution == first.activation == target.value
        assert first.parent is None


def test_every_path_extends_one_that_was_found_before(
    mixed: LocalReplacementModel, target: Target
) -> None:
    paths = find_paths(mixed, target, Search(20, 4))
    for number, path in enumerate(paths[1:], start=1):
        assert any(path.parent is earlier for earlier in paths[:number])
        assert path.parent is not None
        assert path.parent.nodes == path.nodes[:-1]
        assert any(path is child for child in path.parent.children)
    assert sum(len(path.children) for path in paths) == len(paths) - 1
    assert len({path.nodes for path in paths}) == len(paths)


@pytest.mark.parametrize("sign", SIGNS)
def test_rounds_follow_each_other_each_from_the_best_on_and_of_no_more_than_n(
    mixed: LocalReplacementModel, target: Target, sign: Any
) -> None:
    paths = find_paths(mixed, target, Search(7, 4, sign=sign))
    lengths = [len(path.nodes) for path in paths]
    assert lengths == sorted(lengths)
    rounds = by_length(paths)
    assert list(rounds) == list(range(1, len(rounds) + 1))
    for length, found in rounds.items():
        scores = [SIGNS[sign](path.attribution) for path in found]
        assert length == 1 or all(score > 0 for score in scores)
        assert scores == sorted(scores, reverse=True)
        assert len(found) <= 7


def test_fewer_paths_are_the_best_of_more(mixed: LocalReplacementModel, target: Target) -> None:
    few = find_paths(mixed, target, Search(5, 1))
    many = find_paths(mixed, target, Search(50, 1))
    assert [path.nodes for path in few] == [path.nodes for path in many[:6]]


def test_rounds_do_not_depend_on_how_many_follow(
    mixed: LocalReplacementModel, target: Target
) -> None:
    short = find_paths(mixed, target, Search(8, 2))
    long = find_paths(mixed, target, Search(8, 5))
    assert [path.nodes for path in short] == [path.nodes for path in long[: len(short)]]


def test_more_paths_than_there_are_give_all_there_are(small: LocalReplacementModel) -> None:
    target = some_targets(small)[0]
    found = find_paths(small, target, Search(10**9, 1, CONTRIBUTORS, sign="both"))
    expected = greedy_paths(small, target, n=10**9, iterations=1, score=abs, allowed=lambda _: True)
    assert {path.nodes for path in found} == {path.nodes for path in expected}


def test_more_rounds_than_the_model_is_deep_find_nothing_more(small: LocalReplacementModel) -> None:
    target = some_targets(small)[0]
    deep = find_paths(small, target, Search(5, 50))
    # Three layers of heads and features, the target before and the embedding after them.
    assert len(deep[-1].nodes) <= 8
    assert len(deep) == len(find_paths(small, target, Search(5, 7)))


def test_only_what_was_looked_into_is_expanded(
    mixed: LocalReplacementModel, target: Target
) -> None:
    paths = find_paths(mixed, target, Search(10, 2))
    for path in paths:
        reads = path.node.kind in ("feature", "head")
        assert path.expanded == (reads and len(path.nodes) <= 2)
        assert path.expanded or (path.bias, path.error, path.children) == (0.0, 0.0, [])


def test_activations_are_those_of_the_features(
    mixed: LocalReplacementModel, target: Target
) -> None:
    active = mixed.active
    columns = (active.token, active.layer, active.unit, active.z)
    z = {tuple(key): value for *key, value in zip(*(c.tolist() for c in columns), strict=True)}
    for path in find_paths(mixed, target, Search(30, 3))[1:]:
        key = (path.node.token, path.node.layer, path.node.unit)
        assert path.activation == (z[key] if path.node.kind == "feature" else 0.0)


def test_bias_error_and_extensions_add_up_to_a_path(small: LocalReplacementModel) -> None:
    target = some_targets(small)[0]
    paths = find_paths(small, target, Search(10**9, 10, CONTRIBUTORS, sign="both"))
    scale = max(abs(path.attribution) for path in paths)
    for path in paths:
        if path.expanded:
            kept = sum(child.attribution for child in path.children)
            assert kept + path.bias == pytest.approx(path.attribution, abs=1e-5 * scale)
            errors = (c.attribution for c in path.children if c.node.kind == "error")
            assert sum(errors) == pytest.approx(path.error, abs=1e-5 * scale)


@pytest.mark.parametrize("components", [["head"], ["feature", "head"], ["mlp", "embed"], ["error"]])
def test_components_are_the_only_ones_found(
    mixed: LocalReplacementModel, target: Target, components: list[str]
) -> None:
    nodes = search_nodes(mixed, target, components=components)
    assert {node.kind for node in nodes} == set(components)


def test_errors_are_left_out_unless_asked_for(mixed: LocalReplacementModel, target: Target) -> None:
    kinds = {node.kind for node in search_nodes(mixed, target)}
    assert kinds == {"feature", "head", "mlp", "embed"}


def test_layers_are_the_only_ones_found_besides_the_embedding(
    mixed: LocalReplacementModel, target: Target
) -> None:
    nodes = search_nodes(mixed, target, layers=[1])
    assert {node.layer for node in nodes} == {1, -1}
    assert {node.kind for node in nodes if node.layer < 0} == {"embed"}


def test_heads_are_the_only_ones_found_and_other_parts_stay(
    mixed: LocalReplacementModel, target: Target
) -> None:
    nodes = search_nodes(mixed, target, heads=[(0, 1), (1, 0)])
    heads = {(node.layer, node.unit) for node in nodes if node.kind == "head"}
    assert heads == {(0, 1), (1, 0)}
    assert {node.kind for node in nodes} == {"feature", "head", "mlp", "embed"}
    assert not any(n.kind == "head" for n in search_nodes(mixed, target, heads=[]))


def test_tokens_are_where_features_lie_and_heads_read(
    mixed: LocalReplacementModel, target: Target
) -> None:
    nodes = search_nodes(mixed, target, tokens=[2, 7])
    assert {node.source for node in nodes if node.kind == "head"} == {2, 7}
    assert {node.token for node in nodes if node.kind == "feature"} <= {2, 7}
    assert 2 in {node.token for node in nodes}
    assert {node.token for node in nodes} <= {2, 7}


def test_bos_is_left_out_when_asked(mixed: LocalReplacementModel, target: Target) -> None:
    def reads_bos(nodes: list[Node]) -> bool:
        return any(0 in (node.token, node.source) for node in nodes)

    assert reads_bos(search_nodes(mixed, target))
    assert not reads_bos(search_nodes(mixed, target, exclude_bos=True))


def test_at_bos_itself_nothing_is_left_without_it(mixed: LocalReplacementModel) -> None:
    at_bos = next(target for target in some_targets(mixed) if target.node.token == 0)
    assert search_nodes(mixed, at_bos, n_paths=10**6)
    assert search_nodes(mixed, at_bos, n_paths=10**6, exclude_bos=True) == []
    assert search_nodes(mixed, at_bos, n_paths=10**6, tokens=[1]) == []


def test_filters_that_let_nothing_through_leave_the_target(
    mixed: LocalReplacementModel, target: Target
) -> None:
    for settings in ({"components": []}, {"tokens": []}, {"components": ["head"], "heads": []}):
        assert search_nodes(mixed, target, **settings) == []


def test_a_negative_search_follows_only_what_lowers_the_target(
    mixed: LocalReplacementModel, target: Target
) -> None:
    paths = find_paths(mixed, target, Search(10, 3, sign="negative"))
    assert all(path.attribution < 0 for path in paths[1:])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"components": ["heads", "feature", "bias"]}, "components: bias, heads not known"),
        ({"components": "feature"}, "not known; expected some of feature, head"),
        ({"sign": "any"}, "sign: expected one of positive, negative, both, found any"),
        ({"n_paths": 0}, "expected at least 1 of each, found 0 and 5"),
        ({"iterations": -1}, "expected at least 1 of each, found 25 and -1"),
    ],
)
def test_a_search_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Search(**settings)


def test_a_path_is_printed_from_the_target_back(
    mixed: LocalReplacementModel, target: Target
) -> None:
    search = Search(3, 2, ("head",), heads=[(1, 0)], tokens=[4], sign="both")
    path = find_paths(mixed, target, search)[-1]
    assert str(path) == f"{target.name} <- attn1[0]@4"


def test_tokens_may_be_counted_from_the_end(mixed: LocalReplacementModel, target: Target) -> None:
    last = mixed.n_tokens - 1
    found = [
        [str(path) for path in find_paths(mixed, target, Search(20, 2, tokens=[token]))]
        for token in (last, -1)
    ]
    assert found[0] == found[1]
    with pytest.raises(UserError, match="the prompt has"):
        find_paths(mixed, target, Search(tokens=[99]))
