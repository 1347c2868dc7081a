"""Who is on the paths of many prompts: against a recount from the same prompts."""

from collections import Counter, defaultdict
from typing import Any

import pytest

from helpers_circuits import Make, make_circuit
from helpers_greater_than import Setting, only
from transcoders.circuits.paths import ComputationalPath, Search, find_paths
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.vectors import logit_target
from transcoders.greater_than.task import Prompts
from transcoders.greater_than.where import (
    COMPONENTS,
    Recurring,
    attribute,
)

SEARCH = Search(12, 3, COMPONENTS)
YEARS = (11, 20, 47, 60, 85)

Case = tuple[Setting, list[Prompts], Recurring, list[tuple[Prompts, int, list[ComputationalPath]]]]


def replacement_of(setting: Setting, make: Make) -> ReplacementModel:
    mix: Any = {0: "transcoder", 1: "transcoder"}
    return make_circuit(setting.model, make, mix, first=1)


@pytest.fixture(scope="module")
def case(setting: Setting, random_dictionary: Make) -> Case:
    """Counts as :func:`attribute` makes them, and the paths of the same prompts."""
    replacement = replacement_of(setting, random_dictionary)
    groups = [only(group, YEARS) for group in setting.prompts]
    recurring = Recurring(SEARCH)
    attribute(replacement, setting.numbers, groups, recurring.add)
    paths = []
    for group in groups:
        for row, year in zip(group.rows, group.years.tolist(), strict=True):
            local = replacement.freeze(row)
            weights = setting.numbers.contrast(year)
            assert weights is not None
            target = logit_target(local, weights, -1, name="later")
            paths.append((group, year, find_paths(local, target, SEARCH)))
    return setting, groups, recurring, paths


def place(prompts: Prompts, token: int) -> str:
    if token == prompts.year_token:
        return "year"
    return "last" if token == prompts.rows.shape[1] - 1 else "other"


def test_prompts_and_attributions_are_those_of_a_recount(case: Case) -> None:
    _, _, recurring, all_paths = case
    prompts: Counter[tuple[str, str]] = Counter()
    attributions: dict[tuple[str, str], float] = defaultdict(float)
    for group, _, paths in all_paths:
        on_a_path = set()
        for path in paths[1:]:
            for node in path.nodes[1:]:
                if node.kind == "feature":
                    name = f"tc{node.layer}[{node.unit}]"
                    on_a_path.add((name, place(group, node.token)))
                elif node.kind == "head":
                    name = f"attn{node.layer}[{node.unit}]"
                    on_a_path.add((name, place(group, node.source)))
            end = path.node
            if end.kind in ("feature", "head"):
                token = end.token if end.kind == "feature" else end.source
                key = (str(end).partition("@")[0], place(group, token))
                attributions[key] += path.attribution
        prompts.update(on_a_path)
    n = len(all_paths)
    table = recurring.table()
    assert recurring.n_prompts == n == 2 * len(YEARS)
    assert list(table.columns) == ["part", "token", "prompts", "share", "attribution"]
    found = {(row["part"], row["token"]): row for row in table.to_dict("records")}
    assert len(found) == len(table)
    assert set(found) == set(prompts)
    for key, row in found.items():
        assert row["prompts"] == prompts[key]
        assert row["share"] == pytest.approx(prompts[key] / n)
        assert row["attribution"] == pytest.approx(attributions[key] / n)
    # The comparison is of more than one kind, place and number.
    assert {part[:2] for part in table["part"]} == {"tc", "at"}
    assert set(table["token"]) >= {"year", "last"}
    assert table["prompts"].nunique() > 2
