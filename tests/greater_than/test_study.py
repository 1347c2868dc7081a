"""The whole study on tiny models: every table, whatever the tokenizer, and all or nothing."""

import copy
import json
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

from helpers_greater_than import TEMPLATES, TRAP_TEMPLATES, trap_tokenizer
from transcoders.circuits.paths import Search
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.config import GreaterThan
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.greater_than import study_greater_than
from transcoders.greater_than.where import COMPONENTS
from transcoders.models import load_model, load_tokenizer

FILES = {
    "where.csv", "metric.csv", "curves.csv", "features.csv", "features_by_year.csv",
    "recurring.csv", "paths.csv", "summary.json",
}  # fmt: skip
KEPT = [0, 1, 2, 4, 8, 24]
N_FEATURES = 24


class Case(NamedTuple):
    """What a study is made on."""

    tracer: Tracer
    settings: GreaterThan
    saes: dict[int, SparseDictionary]

    def run(self, destination, **changes):
        study_greater_than(
            self.tracer,
            self.settings.model_copy(update=changes),
            self.saes,
            destination,
            search=Search(6, 2, COMPONENTS),
            seed=7,
        )


class Done(NamedTuple):
    """A case with what was written."""

    case: Case
    folder: Path

    def table(self, name):
        return pd.read_csv(self.folder / f"{name}.csv")

    @property
    def summary(self):
        return json.loads((self.folder / "summary.json").read_text())


def make_case(name, tiny_models, make):
    architecture, _, variant = name.partition(" ")
    folder, trap = tiny_models[architecture], variant == "with a trap"
    transcoders = {
        layer: make("transcoder", n_features=N_FEATURES, seed=20 + layer) for layer in (0, 1)
    }
    settings = GreaterThan(
        model="tiny",
        templates=TRAP_TEMPLATES[:1] if trap else TEMPLATES,
        positions="all" if variant == "everywhere" else "predicting",
        kept=KEPT,
        n_features=3,
        n_upstream_features=5,
    )
    replacement = ReplacementModel(load_model(folder), transcoders, first_position=1)
    tokenizer = trap_tokenizer() if trap else load_tokenizer(folder)
    sae = {1: make("mlp_out_sae", n_features=N_FEATURES, seed=30)} if variant == "with SAE" else {}
    return Case(Tracer(replacement, tokenizer, 0), settings, sae)


@pytest.fixture(scope="module", params=["llama with SAE", "llama everywhere", "gpt2 with a trap"])
def done(request, tmp_path_factory, tiny_models, random_dictionary):
    case = make_case(request.param, tiny_models, random_dictionary)
    folder = tmp_path_factory.mktemp("study") / "greater_than"
    case.run(folder)
    return Done(case, folder)


@pytest.fixture
def short(tiny_models, random_dictionary):
    """A case with a single template and a few units."""
    case = make_case("llama with SAE", tiny_models, random_dictionary)
    changes = {"templates": TEMPLATES[:1], "kept": [0, 1]}
    return case._replace(settings=case.settings.model_copy(update=changes))


def test_every_prompt_has_a_metric(done):
    assert {path.name for path in done.folder.iterdir()} == FILES
    table, summary = done.table("metric"), done.summary
    templates = range(1, 1 + len(done.case.settings.templates))
    assert list(table[["template", "year"]].itertuples(index=False, name=None)) == [
        (template, year) for template in templates for year in range(100)
    ]
    assert table[list(summary["metric"])].abs().max(axis=None) < 1.00001
    assert table.loc[table["year"] == 99, "original"].to_numpy() == pytest.approx(-1)
    if summary["numbers"] == "pairs":  # the next token is the whole answer
        expected = summary["metric"]["original"]["value"]
        assert summary["next_token_difference"] == pytest.approx(expected, abs=1e-5)


def test_curves_go_from_the_constant_to_all_units(done):
    table, metric = done.table("curves"), done.summary["metric"]
    curves = table[table["template"] == "all"].set_index(["curve", "kept"])["metric"]
    kinds = {"transcoder", "neurons"} | ({"mlp_out_sae"} if done.case.saes else set())
    assert "transcoder_without_bad" in metric
    assert set(table["curve"]) == kinds | {"transcoder_without_bad"}
    assert curves["transcoder"].index.tolist() == list(range(KEPT[-1] + 1))
    assert curves["neurons"].index.tolist() == KEPT
    for kind in kinds - {"neurons"}:
        assert curves[kind, N_FEATURES] == pytest.approx(metric[kind]["value"], abs=1e-5)
    assert curves["neurons", 0] == pytest.approx(metric["removed"]["value"], abs=1e-5)


def test_every_part_of_the_model_has_its_place_in_where(done):
    table, summary = done.table("where"), done.summary
    assert len(table) == 3 * 3
    is_mlp, early = table["kind"] == "mlp", table["layer"] <= 1
    assert table["has_transcoder"].equals(is_mlp & early)
    assert summary["layer"] == 1  # the only one after layer 0
    carried = table.set_index("part")["into_chosen_mlp"]
    assert carried.isna().tolist() == is_mlp.tolist()
    assert carried[(~is_mlp & early).to_numpy()].idxmax() == summary["head"]
    assert (carried[(~is_mlp & ~early).to_numpy()] == 0).all()


def test_shown_features_have_a_value_for_every_number(done):
    table, features = done.table("features_by_year"), done.table("features")
    shown = features[(features["rank"] <= 3) | features["bad"]]["feature"]
    n_numbers = 10 if done.summary["numbers"] == "digits" else 100
    assert list(table[["feature", "quantity", "number"]].itertuples(index=False, name=None)) == [
        (feature, quantity, number)
        for feature in shown
        for quantity, n in (("activation", 100), ("dla", n_numbers), ("de_embedding", n_numbers))
        for number in range(n)
    ]
    assert table["value"].notna().all()


def test_what_a_study_concludes_is_in_its_summary(done):
    summary = done.summary
    few, harmful, leads = (
        summary[key] for key in ("few_above_neurons", "harmful_feature", "leads")
    )
    assert set(few) == {"transcoder"} | ({"mlp_out_sae"} if done.case.saes else set())
    bad = done.table("features").query("bad")
    assert bad["feature"].str.endswith(f"[{harmful['unit']}]").all()
    assert (bad["rank"] == harmful["rank"]).all()
    own = [found["gain"] for found in summary["own_above_others"].values() if found]
    for found in (*few.values(), harmful["drop"], leads["lead"], *own):
        assert found["low"] <= found["value"] <= found["high"]
    parts = [part["part"] for part in leads["parts"]]
    assert parts == [f"mlp{summary['layer']}", summary["head"]]


def test_positions_decide_where_units_are_set_to_zero(tmp_path, short):
    found = []
    for positions in ("predicting", "all"):
        short.run(tmp_path / positions, positions=positions)
        found.append(Done(short, tmp_path / positions).table("metric"))
    predicting, everywhere = found
    assert predicting["original"].tolist() == pytest.approx(everywhere["original"], abs=1e-5)
    assert (predicting["transcoder"] - everywhere["transcoder"]).abs().max() > 1e-3
    assert (predicting["removed"] - everywhere["removed"]).abs().max() > 1e-3


def test_a_transcoder_that_never_changes_with_the_year_is_refused(short, tmp_path):
    dead = copy.deepcopy(short.tracer.replacement.transcoders[1])
    dead.b_enc.fill_(-100)
    short.tracer.replacement.transcoders[1] = dead
    with pytest.raises(UserError, match="no feature of the transcoder at layer 1 changes"):
        short.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_units_than_there_are_cannot_be_kept(short, tmp_path):
    with pytest.raises(UserError, match=r"greater_than\.kept: 10000 units, expected at most 24"):
        short.run(tmp_path / "out", kept=[0, 8, 10_000])
