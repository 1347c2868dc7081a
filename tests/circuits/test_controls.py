"""Controls are as many parts as the circuit has, and are measured as the circuit is."""

from collections import Counter

import numpy as np
import pytest

from helpers_circuits import outputs
from transcoders.circuits.controls import DRAWN, OF_LAYER, control_effects, part_sizes, parts_like
from transcoders.circuits.faithfulness import parts_by_attribution, values_of_sets
from transcoders.circuits.notation import Node
from transcoders.circuits.vectors import logit_target
from transcoders.circuits.verify import TotalAttributions


@pytest.fixture(scope="module")
def target(mixed):
    """It does not see the last token."""
    return logit_target(mixed, {7: 1.0, 9: -1.0}, -2, name="difference")


@pytest.fixture(scope="module")
def ranked(mixed, target):
    return parts_by_attribution(TotalAttributions(mixed, target), 10**6)


def effect(table, measure, name):
    return table[(table["measure"] == measure) & (table["set"] == name)]["effect"].to_numpy()


def test_a_random_set_that_is_the_circuit_has_its_effect(mixed, target, means):
    everything = list(part_sizes(mixed, target))  # so every set of as many is the same
    table = control_effects(mixed, target, everything, means, seed=1, draws=2)
    for measure in ("necessity", "sufficiency"):
        (circuit,) = effect(table, measure, "circuit")
        assert abs(circuit) > 0.01
        for name in ("random", "random at tokens", "strongest"):
            assert effect(table, measure, name) == pytest.approx(circuit, rel=1e-3, abs=1e-5)


def test_a_circuit_is_measured_as_its_parts_are_kept_or_replaced(mixed, target, means, ranked):
    circuit = [part for part in ranked[:6] if part in part_sizes(mixed, target)]
    table = control_effects(mixed, target, circuit, means, seed=1, draws=3)
    (nothing, only), (whole, without) = values_of_sets(mixed, target, [[], circuit], means)
    assert effect(table, "necessity", "circuit") == pytest.approx([whole - without], abs=1e-6)
    assert effect(table, "sufficiency", "circuit") == pytest.approx([only - nothing], abs=1e-6)
    assert effect(table, "sufficiency", "everything") == pytest.approx([whole - nothing], abs=1e-6)
    again = control_effects(mixed, target, circuit, means, seed=1, draws=3)
    other = control_effects(mixed, target, circuit, means, seed=2, draws=3)
    assert table.equals(again) and not table.equals(other)


def test_parts_are_active_where_the_target_sees_them_and_as_large_as_what_they_write(mixed, target):
    sizes = part_sizes(mixed, target)
    seen = range(1, target.node.token + 1)
    written = {node: out for node, out in outputs(mixed).items() if node.token in seen}
    heads = Counter()
    for node, out in written.items():
        if node.kind == "head":
            heads[node._replace(source=-1)] += out
    whole = {node for node in written if node.kind in ("feature", "mlp")}
    assert set(sizes) == whole | set(heads)
    centred = mixed.replacement.is_centred  # what is read, not all that is written
    for part, out in {} if centred else heads.items():
        assert sizes[part] == pytest.approx(out.norm().item(), rel=1e-3, abs=1e-6)
    columns = (getattr(mixed.active, name).tolist() for name in ("layer", "unit", "token", "z"))
    for layer, unit, token, z in zip(*columns, strict=True):
        assert token not in seen or sizes[Node("feature", layer, unit, token)] == z


def test_controls_have_the_circuits_kinds_layers_and_tokens(mixed, target, ranked):
    sizes = part_sizes(mixed, target)
    circuit = [part for part in ranked[::5] if part in sizes]
    shuffled = np.random.default_rng(0).permutation
    for stratum in DRAWN.values():
        sets = [parts_like(circuit, list(sizes), stratum, shuffled) for _ in range(20)]
        for drawn in sets:
            assert Counter(map(stratum, drawn)) == Counter(map(stratum, circuit))
            assert len(set(drawn)) == len(drawn)
        drawable = {part for part in sizes if stratum(part) in set(map(stratum, circuit))}
        assert len(set().union(*sets)) > 0.8 * len(drawable)
    by_size = sorted(sizes, key=lambda part: -sizes[part])
    strongest = parts_like(circuit, by_size, OF_LAYER)
    assert Counter(map(OF_LAYER, strongest)) == Counter(map(OF_LAYER, circuit))
    for part in strongest:
        larger = [o for o in sizes if OF_LAYER(o) == OF_LAYER(part) and sizes[o] > sizes[part]]
        assert set(larger) <= set(strongest)
