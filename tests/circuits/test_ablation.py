"""Ablating in the real model, and keeping parts of it, is what hooks written by hand do."""

from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from helpers_circuits import (
    active_units,
    assert_close,
    hooks_of_ours,
    make_circuit,
    outputs,
    prompt,
    some_targets,
)
from transcoders.circuits.ablation import BATCH, ablation_effects, node_output, rank_correlation
from transcoders.circuits.faithfulness import (
    Means,
    _kept,
    _value_with,
    faithfulness,
    mean_activations,
    parts_by_attribution,
    replaceable_parts,
)
from transcoders.circuits.model import Run
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import KINDS, Target, feature_target, logit_target
from transcoders.circuits.verify import attribution_of, total_attributions


@pytest.fixture(scope="module")
def rows(random_tokens: Callable[..., Tensor]) -> Tensor:
    """Text: more rows than are run at a time."""
    return random_tokens(BATCH + 3, 6, seed=5).long()


@pytest.fixture(scope="module")
def means(mixed_run: Run, rows: Tensor) -> Means:
    return mean_activations(mixed_run.circuit, rows)


@pytest.fixture(scope="module")
def logits(mixed_run: Run) -> Target:
    return logit_target(mixed_run, {7: 1.0, 9: -1.0}, -1, name="difference")


@pytest.fixture(scope="module")
def feature(mixed_run: Run) -> Target:
    return feature_target(mixed_run, 2, active_units(mixed_run, 2, 7)[0], -1)


@torch.no_grad()
def value_by_hand(run: Run, target: Target, hooks: dict[torch.nn.Module, Any]) -> float:
    """The target in the real model with some modules' outputs changed."""
    model = run.circuit.model
    read: dict[str, Tensor] = {}

    def keep(_: Any, arguments: tuple[Tensor, ...], __: Any) -> None:
        read["mlp_in"] = arguments[0][0]

    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    if target.node.kind == "feature":
        handles.append(model.mlp(target.node.layer).register_forward_hook(keep))
    logits = model.hf(run.passed.tokens[None], use_cache=False).logits[0, target.node.token]
    for handle in handles:
        handle.remove()
    if target.node.kind == "feature":
        z = run.circuit.transcoders[target.node.layer].encode(read["mlp_in"][target.node.token])
        return z[target.node.unit].item()
    return sum(weight * logits[i].item() for i, weight in target.logits.items())


def writer(run: Run, node: Node) -> torch.nn.Module:
    """The module in whose output a node's is a part."""
    model = run.circuit.model
    if node.kind == "embed":
        return model.hf.get_input_embeddings()
    if node.kind == "head":
        block = model.blocks[node.layer]
        return block.get_submodule(model.architecture.attention_output)
    return model.mlp(node.layer)


def attention_outputs(run: Run) -> list[torch.nn.Module]:
    """The output maps of all layers."""
    name = run.circuit.model.architecture.attention_output
    return [block.get_submodule(name) for block in run.circuit.model.blocks]


def some_of_each_kind(nodes: Iterable[Node]) -> list[Node]:
    """Five nodes of each kind, of all layers and the later tokens."""
    late = [node for node in nodes if node.token > 2]
    kinds = [[node for node in late if node.kind == kind] for kind in KINDS]
    return [node for of_kind in kinds for node in of_kind[:: len(of_kind) // 5]]


@torch.no_grad()
def test_a_nodes_output_is_what_it_writes(run: Run) -> None:
    written = outputs(run)
    found = torch.stack([node_output(run, node) for node in written])
    assert_close(found, torch.stack(list(written.values())))
    for node in (Node("target", 3, -1, 7), Node("bias", -1, -1, 7)):
        with pytest.raises(ValueError, match="writes nothing"):
            node_output(run, node)


@pytest.mark.parametrize("which", ["logits", "feature"])
def test_effects_are_those_of_hooks_written_by_hand(
    mixed_run: Run, request: pytest.FixtureRequest, which: str
) -> None:
    target = request.getfixturevalue(which)
    written = outputs(mixed_run)
    # More than are run at a time.
    nodes = some_of_each_kind(written)
    assert len(nodes) > BATCH
    effects = ablation_effects(mixed_run, target, total_attributions(mixed_run, target), nodes)
    whole = value_by_hand(mixed_run, target, {})
    for node, effect in zip(nodes, effects["effect"], strict=True):

        def without(_: Any, __: Any, output: Tensor, node: Node = node) -> Tensor:
            output = output.clone()
            output[0, node.token] -= written[node]
            return output

        value = value_by_hand(mixed_run, target, {writer(mixed_run, node): without})
        assert effect == pytest.approx(whole - value, rel=1e-3, abs=1e-4)
    assert effects["effect"].abs().max() > 0.1
    assert hooks_of_ours(mixed_run.circuit.model) == []


def test_the_table_of_effects_has_every_node_with_its_attribution(
    mixed_run: Run, logits: Target
) -> None:
    nodes = list(outputs(mixed_run))[::40]
    effects = ablation_effects(mixed_run, logits, total_attributions(mixed_run, logits), nodes)
    assert list(effects.columns) == ["node", "kind", "attribution", "effect"]
    assert effects["node"].tolist() == [str(node) for node in nodes]
    assert effects["kind"].tolist() == [node.kind for node in nodes]
    totals = total_attributions(mixed_run, logits)
    expected = [attribution_of(mixed_run, totals, node) for node in nodes]
    assert effects["attribution"].tolist() == expected


def test_no_nodes_have_no_effects(mixed_run: Run, logits: Target) -> None:
    assert len(ablation_effects(mixed_run, logits, total_attributions(mixed_run, logits), [])) == 0


def test_what_comes_after_or_beside_a_target_has_no_effect(mixed_run: Run) -> None:
    target = feature_target(mixed_run, 0, active_units(mixed_run, 0, 5)[0], 5)
    nodes = [
        Node("feature", 2, active_units(mixed_run, 2, 5)[0], 5),
        Node("feature", 0, active_units(mixed_run, 0, 4)[0], 4),
        Node("head", 1, 0, 5, 2),
        Node("mlp", 1, -1, 5),
        Node("embed", -1, -1, 6),
    ]
    effects = ablation_effects(mixed_run, target, total_attributions(mixed_run, target), nodes)
    assert not effects["attribution"].any()
    assert effects["effect"].abs().max() < 1e-5


def test_rank_correlation_is_of_ranks_and_needs_three_nodes() -> None:
    effects = pd.DataFrame({"attribution": [1.0, 2.0, 30.0], "effect": [0.1, 0.2, 0.3]})
    assert rank_correlation(effects) == pytest.approx(1.0)
    assert rank_correlation(effects.assign(effect=[3.0, 2.0, 1.0])) == pytest.approx(-1.0)
    assert rank_correlation(effects.head(2)) != rank_correlation(effects.head(2))  # NaN


@torch.no_grad()
def test_means_are_averages_over_all_rows_and_positions(run: Run, rows: Tensor) -> None:
    circuit, first = run.circuit, run.circuit.first_position
    found = mean_activations(circuit, rows)
    assert list(found.features) == list(circuit.transcoders)
    into: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda _, arguments: into.__setitem__(layer, arguments[0])

    modules = enumerate(attention_outputs(run))
    handles = [m.register_forward_pre_hook(keep(layer)) for layer, m in modules]
    circuit.model.hf(rows)
    for handle in handles:
        handle.remove()
    for layer, (mlp_in, mlp_out) in circuit.model.mlp_activations(rows, [0, 1, 2]).items():
        assert_close(found.mlp_out[layer], mlp_out[:, first:].mean(dim=(0, 1)))
        assert_close(found.heads[layer].flatten(), into[layer][:, first:].mean(dim=(0, 1)))
        if layer in circuit.transcoders:
            z = circuit.transcoders[layer].encode(mlp_in[:, first:])
            assert_close(found.features[layer], z.mean(dim=(0, 1)))
    assert hooks_of_ours(circuit.model) == []


def test_with_everything_kept_the_target_is_what_it_is(run: Run, rows: Tensor) -> None:
    means = mean_activations(run.circuit, rows)
    for target in some_targets(run):
        everything = _kept(run, [], inside=False)
        value = _value_with(run, target, everything, means)
        assert value == pytest.approx(target.value, rel=1e-4, abs=1e-4)
    assert hooks_of_ours(run.circuit.model) == []


def mean_hooks(run: Run, means: Means, nodes: list[Node]) -> dict[torch.nn.Module, Any]:
    """Hooks that put means from the first position on, and leave ``nodes`` as they are."""
    circuit, first = run.circuit, run.circuit.first_position
    hooks: dict[torch.nn.Module, Any] = {}

    def on_mlp(layer: int) -> Any:
        def hook(_: Any, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            output = output.clone()
            real = output[0].clone()
            output[0, first:] = means.mlp_out[layer]
            for node in nodes:
                if node.kind == "mlp" and node.layer == layer:
                    output[0, node.token] = real[node.token]
                if node.kind == "feature" and node.layer == layer:
                    transcoder = circuit.transcoders[layer]
                    z = transcoder.encode(arguments[0][0, node.token])[node.unit]
                    more = z - means.features[layer][node.unit]
                    output[0, node.token] += more * transcoder.W_dec[node.unit]
            return output

        return hook

    def on_attention(layer: int) -> Any:
        def hook(module: Any, arguments: tuple[Tensor, ...], _: Any) -> Tensor:
            x = arguments[0].clone().unflatten(2, (circuit.n_heads, -1))
            real = x.clone()
            x[0, first:] = means.heads[layer]
            for node in nodes:
                if node.kind == "head" and node.layer == layer:
                    x[0, node.token, node.unit] = real[0, node.token, node.unit]
            return module.forward(x.flatten(2))

        return hook

    for layer, module in enumerate(attention_outputs(run)):
        hooks[module] = on_attention(layer)
        hooks[circuit.model.mlp(layer)] = on_mlp(layer)
    return hooks


def test_with_nothing_kept_all_parts_do_what_they_do_on_average(run: Run, rows: Tensor) -> None:
    means = mean_activations(run.circuit, rows)
    nothing = _kept(run, [], inside=True)
    for target in some_targets(run):
        expected = value_by_hand(run, target, mean_hooks(run, means, []))
        found = _value_with(run, target, nothing, means)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_kept_parts_do_what_they_do_and_the_others_what_they_do_on_average(
    mixed_run: Run, means: Means, logits: Target
) -> None:
    nodes = [
        Node("feature", 0, active_units(mixed_run, 0, 3)[0], 3),
        Node("feature", 2, active_units(mixed_run, 2, 7)[0], 7),
        Node("feature", 2, active_units(mixed_run, 2, 7)[1], 7),
        Node("head", 1, 0, 7),
        Node("head", 2, 1, 7),
        Node("mlp", 1, -1, 7),
        Node("mlp", 1, -1, 3),
    ]
    for some in (nodes[:1], nodes[3:4], nodes[5:6], nodes):
        kept = _kept(mixed_run, some, inside=True)
        expected = value_by_hand(mixed_run, logits, mean_hooks(mixed_run, means, some))
        found = _value_with(mixed_run, logits, kept, means)
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_inside_and_outside_are_each_others_opposite_from_the_first_position_on(
    mixed_run: Run,
) -> None:
    nodes = [Node("feature", 0, 5, 3), Node("head", 1, 1, 4, 2), Node("mlp", 1, -1, 6)]
    inside, outside = (_kept(mixed_run, nodes, inside=inside) for inside in (True, False))
    assert (inside.heads[:, 1:] ^ outside.heads[:, 1:]).all()
    assert (inside.mlps[:, 1:] ^ outside.mlps[:, 1:]).all()
    assert inside.heads[:, 1:].nonzero().tolist() == [[1, 3, 1]]
    assert inside.mlps[:, 1:].nonzero().tolist() == [[1, 5]]
    assert inside.features[0].nonzero().tolist() == [[3, 5]]
    assert (inside.features[0] ^ outside.features[0]).all()
    for kept in (inside, outside):  # no transcoder was trained on BOS: nothing is replaced there
        assert kept.heads[:, 0].all()
        assert kept.mlps[:, 0].all()


def test_a_circuit_of_nothing_keeps_nothing_and_leaves_everything(
    mixed_run: Run, means: Means, logits: Target
) -> None:
    curve = faithfulness(mixed_run, logits, [], means, [0])
    assert curve.to_dict("records") == [{"n_nodes": 0, "faithfulness": 0.0, "remaining": 1.0}]


def test_faithfulness_is_the_share_of_the_target_between_nothing_and_everything(
    mixed_run: Run, means: Means, logits: Target
) -> None:
    ranked = parts_by_attribution(mixed_run, total_attributions(mixed_run, logits))
    curve = faithfulness(mixed_run, logits, ranked, means, [0, 1, 5, 20])
    assert curve["n_nodes"].tolist() == [0, 1, 5, 20]
    whole = value_by_hand(mixed_run, logits, {})
    empty = value_by_hand(mixed_run, logits, mean_hooks(mixed_run, means, []))
    for size, found in zip(curve["n_nodes"], curve["faithfulness"], strict=True):
        value = value_by_hand(mixed_run, logits, mean_hooks(mixed_run, means, ranked[:size]))
        assert found == pytest.approx((value - empty) / (whole - empty), rel=1e-3, abs=1e-4)


def test_all_parts_kept_but_errors_is_faithful_where_nothing_is_in_errors(
    tiny_model: Any, random_dictionary: Any, random_tokens: Any, rows: Tensor
) -> None:
    run = make_circuit(tiny_model, random_dictionary, {}, first=1).run(prompt(random_tokens))
    target = logit_target(run, {7: 1.0}, -1, name="one")
    ranked = parts_by_attribution(run, total_attributions(run, target))
    everything = [Node("head", i, h, t) for i in range(3) for h in range(2) for t in range(8)]
    everything += [Node("mlp", i, -1, t) for i in range(3) for t in range(8)]
    ranked = list(dict.fromkeys(ranked + everything))
    means = mean_activations(run.circuit, rows)
    curve = faithfulness(run, target, ranked, means, [len(ranked)])
    assert curve["faithfulness"].item() == pytest.approx(1.0, abs=1e-4)
    assert curve["remaining"].item() == pytest.approx(0.0, abs=1e-4)


def test_parts_count_heads_once_and_only_what_can_be_replaced(
    mixed_run: Run, means: Means, logits: Target
) -> None:
    ranked = [
        Node("head", 1, 0, 7, 2),
        Node("error", 0, -1, 7),
        Node("head", 1, 0, 7, 5),
        Node("embed", -1, -1, 7),
        Node("mlp", 1, -1, 7),
        Node("bias", -1, -1, 7),
    ]
    assert replaceable_parts(ranked) == [Node("head", 1, 0, 7), Node("mlp", 1, -1, 7)]
    curve = faithfulness(mixed_run, logits, ranked, means, [0, 1, 2, 3, 100])
    assert curve["n_nodes"].tolist() == [0, 1, 2]


def test_parts_by_attribution_are_all_parts_with_one_from_the_largest_on(run: Run) -> None:
    target = some_targets(run)[-1]
    totals = total_attributions(run, target)
    sizes: dict[Node, float] = {}
    for node in outputs(run):
        if node.kind in ("feature", "head", "mlp"):
            part = node._replace(source=-1)
            sizes[part] = sizes.get(part, 0.0) + attribution_of(run, totals, node)
    parts = parts_by_attribution(run, total_attributions(run, target))
    assert set(parts) == {part for part, size in sizes.items() if size != 0}
    found = [abs(sizes[part]) for part in parts]
    assert found == pytest.approx(sorted(found, reverse=True), rel=1e-4, abs=1e-6)


def test_a_target_that_no_part_moves_has_no_shares(mixed_run: Run, rows: Tensor) -> None:
    nothing = logit_target(mixed_run, {7: 1.0}, 0, name="after BOS, which is always kept")
    means = mean_activations(mixed_run.circuit, rows)
    assert faithfulness(mixed_run, nothing, [], means, [0]).isna().sum().tolist() == [0, 1, 1]
