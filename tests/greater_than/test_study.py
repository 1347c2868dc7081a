"""The whole study on tiny models: every table, whatever the tokenizer, and all or nothing."""

import json
from itertools import product
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

KEPT = [0, 1, 2, 4, 8, 24]
N_FEATURES = 24


class Case(NamedTuple):
    """What a study is made on, and where."""

    tracer: Tracer
    settings: GreaterThan
    saes: dict[int, SparseDictionary]
    folder: Path

    def run(self, **changes):
        settings, search = self.settings.model_copy(update=changes), Search(6, 2, COMPONENTS)
        study_greater_than(self.tracer, settings, self.saes, self.folder, search=search, seed=7)
        return self

    def table(self, name):
        return pd.read_csv(self.folder / f"{name}.csv")

    @property
    def summary(self):
        return json.loads((self.folder / "summary.json").read_text())


@pytest.fixture(scope="module")
def make_case(tiny_models, random_dictionary, tmp_path_factory):
    def make(name):
        architecture, _, variant = name.partition(" ")
        trap = variant == "with a trap"
        seeds = (("transcoder", 0, 20), ("transcoder", 1, 21), ("mlp_out_sae", 1, 30))
        *transcoders, sae = (
            (layer, random_dictionary(kind, n_features=N_FEATURES, seed=seed))
            for kind, layer, seed in seeds
        )
        settings = GreaterThan(
            model="tiny", templates=TRAP_TEMPLATES[:1] if trap else TEMPLATES,
            positions="predicting", kept=KEPT, n_features=3, n_upstream_features=5,
        )  # fmt: skip
        folder = tiny_models[architecture]
        replacement = ReplacementModel(load_model(folder), dict(transcoders), first_position=1)
        tracer = Tracer(replacement, trap_tokenizer() if trap else load_tokenizer(folder), 0)
        saes = dict([sae] if variant == "with SAE" else [])
        return Case(tracer, settings, saes, tmp_path_factory.mktemp("study") / "greater_than")

    return make


@pytest.fixture(scope="module", params=["llama with SAE", "gpt2 with a trap"])
def done(request, make_case):
    return make_case(request.param).run()


@pytest.fixture
def short(make_case):
    """A case with a single template and a few units."""
    case, few = make_case("llama with SAE"), {"templates": TEMPLATES[:1], "kept": [0, 1]}
    return case._replace(settings=case.settings.model_copy(update=few))


def test_every_prompt_has_a_metric(done):
    table, summary = done.table("metric"), done.summary
    templates = range(1, 1 + len(done.settings.templates))
    prompts = list(table[["template", "year"]].itertuples(index=False, name=None))
    assert prompts == list(product(templates, range(100)))
    assert table[list(summary["metric"])].abs().max(axis=None) < 1.00001
    assert table.loc[table["year"] == 99, "original"].to_numpy() == pytest.approx(-1)
    if summary["numbers"] == "pairs":  # the next token is the whole answer
        expected = summary["metric"]["original"]["value"]
        assert summary["next_token_difference"] == pytest.approx(expected, abs=1e-5)


def test_curves_go_from_the_constant_to_all_units(done):
    table, metric = done.table("curves"), done.summary["metric"]
    curves = table[table["template"] == "all"].set_index(["curve", "kept"])["metric"]
    kinds = {"transcoder", "neurons"} | ({"mlp_out_sae"} if done.saes else set())
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
    quantities = {"activation": 100, "dla": n_numbers, "de_embedding": n_numbers}
    for (feature, quantity), rows in table.groupby(["feature", "quantity"]):
        assert feature in set(shown) and rows["number"].tolist() == [*range(quantities[quantity])]
    assert len(table) == len(shown) * sum(quantities.values()) and table["value"].notna().all()


def test_what_a_study_concludes_is_in_its_summary(done):
    summary = done.summary
    few, harmful, leads = map(summary.get, ("few_above_neurons", "harmful_feature", "leads"))
    bad = done.table("features").query("bad")
    assert bad["feature"].str.endswith(f"[{harmful['unit']}]").all()
    assert (bad["rank"] == harmful["rank"]).all()
    own = [found["gain"] for found in summary["own_above_others"].values() if found]
    for found in (*few.values(), harmful["drop"], leads["lead"], *own):
        assert found["low"] <= found["value"] <= found["high"]
    parts = [part["part"] for part in leads["parts"]]
    assert parts == [f"mlp{summary['layer']}", summary["head"]]


def test_positions_decide_where_units_are_set_to_zero(tmp_path, short):
    predicting, everywhere = (
        short._replace(folder=tmp_path / positions).run(positions=positions).table("metric")
        for positions in ("predicting", "all")
    )
    assert predicting["original"].tolist() == pytest.approx(everywhere["original"], abs=1e-5)
    for changed in ("transcoder", "removed"):
        assert (predicting[changed] - everywhere[changed]).abs().max() > 1e-3


def test_a_transcoder_that_never_changes_with_the_year_is_refused(short):
    short.tracer.replacement.transcoders[1].b_enc.fill_(-100)
    with pytest.raises(UserError, match="no feature of the transcoder at layer 1 changes"):
        short.run()
    assert not short.folder.exists()


def test_more_units_than_there_are_cannot_be_kept(short):
    with pytest.raises(UserError, match=r"greater_than\.kept: 10000 units, expected at most 24"):
        short.run(kept=[0, 8, 10_000])
