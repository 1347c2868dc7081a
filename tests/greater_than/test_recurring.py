"""Who is on the paths of many prompts: against a recount from the same prompts."""

from collections import Counter, defaultdict
from typing import Any

import pandas as pd
import pytest
import torch

from helpers_circuits import Make, make_circuit
from helpers_greater_than import Setting, only
from transcoders.circuits.notation import Node, NodeKind
from transcoders.circuits.paths import ComputationalPath, Search, find_paths
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.vectors import logit_target
from transcoders.greater_than.recurring import (
    COMPONENTS,
    EXAMPLE_YEARS,
    PATHS_SHOWN,
    Recurring,
    _part,
)
from transcoders.greater_than.task import Prompts
from transcoders.greater_than.where import attribute

SEARCH = Search(12, 3, COMPONENTS)
YEARS = (11, 20, 47, 60, 85)

Case = tuple[Setting, list[Prompts], Recurring, list[tuple[Prompts, int, list[ComputationalPath]]]]


def circuit_of(setting: Setting, make: Make) -> ReplacementModel:
    mix: Any = {0: "transcoder", 1: "transcoder"}
    return make_circuit(setting.model, make, mix, first=1)


@pytest.fixture(scope="module")
def case(setting: Setting, random_dictionary: Make) -> Case:
    """Counts as :func:`attribute` makes them, and the paths of the same prompts."""
    circuit = circuit_of(setting, random_dictionary)
    groups = [only(group, YEARS) for group in setting.prompts]
    recurring = Recurring(SEARCH)
    attribute(circuit, setting.numbers, groups, recurring.add)
    paths = []
    for group in groups:
        for row, year in zip(group.rows, group.years.tolist(), strict=True):
            local = circuit.freeze(row)
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


def test_the_table_begins_with_those_of_most_prompts(case: Case) -> None:
    table = case[2].table()
    order = list(zip(-table["prompts"], -table["attribution"], strict=True))
    assert order == sorted(order)
    assert table.index.tolist() == list(range(len(table)))
    assert table["share"].max() <= 1


def test_embeddings_are_no_part_that_recurs(case: Case) -> None:
    assert any(path.node.kind == "embed" for _, _, paths in case[3] for path in paths)
    assert not case[2].table()["part"].str.startswith("embed").any()


def test_examples_are_the_strongest_paths_of_the_example_years(case: Case) -> None:
    _, groups, recurring, all_paths = case
    table = recurring.examples()
    assert list(table.columns) == ["template", "year", "rank", "attribution", "path"]
    assert [year for year in YEARS if year in EXAMPLE_YEARS] == [20, 60]
    rows = []
    for group, year, paths in all_paths:
        if year in EXAMPLE_YEARS:
            best = sorted(paths[1:], key=lambda path: -abs(path.attribution))[:PATHS_SHOWN]
            assert len(best) == PATHS_SHOWN
            rows += [
                (group.template + 1, year, rank, str(path)) for rank, path in enumerate(best, 1)
            ]
    columns = ("template", "year", "rank", "path")
    assert list(zip(*(table[name] for name in columns), strict=True)) == rows
    assert set(table["template"]) == {1, len(groups)}
    sizes = table["attribution"].abs()
    assert (sizes.groupby([table["template"], table["year"]]).diff().dropna() <= 1e-6).all()


def test_what_is_on_two_paths_of_a_prompt_counts_once(
    settings: dict[str, Setting], random_dictionary: Make
) -> None:
    setting = settings["llama"]
    circuit = circuit_of(setting, random_dictionary)
    recurring = Recurring(Search(200, 3, COMPONENTS))
    attribute(circuit, setting.numbers, [only(setting.prompts[0], [47])], recurring.add)
    table = recurring.table()
    assert table["prompts"].unique().tolist() == [1]
    assert table["share"].unique().tolist() == [1.0]


def test_a_part_is_named_without_its_token_and_placed_by_it() -> None:
    rows = torch.zeros(2, 7, dtype=torch.long)
    prompts = Prompts(0, torch.tensor([1, 2]), rows, 4)
    for token, expected in ((4, "year"), (6, "last"), (0, "other"), (5, "other")):
        assert _part(Node(NodeKind.FEATURE, 2, 17, token), prompts) == ("tc2[17]", expected)
        # A head is placed by what it reads, wherever it writes.
        for writes in (4, 6):
            assert _part(Node(NodeKind.HEAD, 1, 3, writes, token), prompts) == (
                "attn1[3]",
                expected,
            )


def test_a_year_at_the_end_is_the_year() -> None:
    prompts = Prompts(0, torch.tensor([1]), torch.zeros(1, 5, dtype=torch.long), 4)
    assert _part(Node(NodeKind.FEATURE, 0, 1, 4), prompts) == ("tc0[1]", "year")


def test_without_prompts_there_is_an_empty_table() -> None:
    table = Recurring(SEARCH).table()
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == ["part", "token", "prompts", "share", "attribution"]
    assert len(table) == 0
