"""The whole study on tiny models: every table, whatever the tokenizer, and all or nothing."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest

from helpers_circuits import Make, hooks_of_ours
from helpers_greater_than import TEMPLATES, TRAP_TEMPLATES, trap_tokenizer
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.config import GreaterThan
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.greater_than import study, study_greater_than
from transcoders.models import load_model, load_tokenizer

FILES = {
    "where.csv", "metric.csv", "curves.csv", "features.csv", "features_by_year.csv",
    "recurring.csv", "paths.csv", "summary.json",
}  # fmt: skip
KEPT = [0, 1, 2, 4, 8, 24]
N_FEATURES = 24
YEARS = list(range(1, 99))
LoadSae = Callable[[int], SparseDictionary | None]


class Case(NamedTuple):
    """What a study is made on."""

    name: str
    tracer: Tracer
    settings: GreaterThan
    load_sae: LoadSae

    def run(self, destination: Path, seed: int = 7) -> None:
        study_greater_than(
            self.tracer,
            self.settings,
            self.load_sae,
            destination,
            n_paths=6,
            iterations=2,
            seed=seed,
        )


class Done(NamedTuple):
    """A case with what was written."""

    case: Case
    folder: Path

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv")

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.folder / "summary.json").read_text())

    @property
    def kinds(self) -> list[str]:
        return ["transcoder", *(["mlp_out_sae"] if self.case.load_sae(1) else []), "neurons"]


CASES = ["llama with SAE", "llama everywhere", "gpt2 with SAE", "gpt2 with a trap"]


def make_case(name: str, tiny_models: dict[str, Path], make: Make) -> Case:
    architecture, _, variant = name.partition(" ")
    folder = tiny_models[architecture]
    transcoders = {
        layer: make("transcoder", n_features=N_FEATURES, seed=20 + layer) for layer in (0, 1)
    }
    sae = make("mlp_out_sae", n_features=N_FEATURES, seed=30)
    trap = variant == "with a trap"
    settings = GreaterThan(
        model="tiny",
        templates=TRAP_TEMPLATES[:1] if trap else TEMPLATES[: 2 if architecture == "llama" else 1],
        positions="all" if variant == "everywhere" else "predicting",
        kept=KEPT,
        n_features=3,
        n_upstream_features=5,
    )
    circuit = ReplacementModel(load_model(folder), transcoders, first_position=1)
    tokenizer = trap_tokenizer() if trap else load_tokenizer(folder)
    has_sae = variant == "with SAE"
    return Case(
        name,
        Tracer(circuit, tokenizer, 0),
        settings,
        lambda layer: sae if has_sae and layer == 1 else None,
    )


@pytest.fixture(scope="module", params=CASES)
def done(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_models: dict[str, Path],
    random_dictionary: Make,
) -> Done:
    case = make_case(request.param, tiny_models, random_dictionary)
    folder = tmp_path_factory.mktemp("study") / "greater_than"
    case.run(folder)
    return Done(case, folder)


def test_all_files_are_written_and_nothing_else(done: Done) -> None:
    assert {path.name for path in done.folder.iterdir()} == FILES
    assert [path.name for path in done.folder.parent.iterdir()] == ["greater_than"]
    assert hooks_of_ours(done.case.tracer.replacement.model) == []


def test_every_prompt_has_a_metric(done: Done) -> None:
    table = done.table("metric")
    dictionaries = [kind for kind in done.kinds if kind != "neurons"]
    without_bad = ["transcoder_without_bad"] if done.summary["bad_features"] else []
    names = ["original", *dictionaries, *without_bad, "removed"]
    assert list(table.columns) == ["template", "year", *names]
    n_templates = len(done.case.settings.templates)
    assert table["template"].tolist() == [t for t in range(1, n_templates + 1) for _ in range(100)]
    assert table["year"].tolist() == list(range(100)) * n_templates
    for name in names:
        assert table[name].between(-1.00001, 1.00001).all()
    assert table.loc[table["year"] == 99, "original"].tolist() == pytest.approx([-1] * n_templates)


def test_curves_go_from_the_constant_to_all_units(done: Done) -> None:
    table = done.table("curves")
    assert list(table.columns) == ["curve", "kept", "template", "metric", "low", "high"]
    summary = done.summary
    drawn = done.kinds + (["transcoder_without_bad"] if summary["bad_features"] else [])
    assert table["curve"].unique().tolist() == drawn
    templates = ["all", *(str(t + 1) for t in range(len(done.case.settings.templates)))]
    for name, part in table.groupby("curve"):
        whole = list(range(KEPT[-1] + 1))  # to find a bad one, all are added one by one
        kept = whole if name == "transcoder" else KEPT
        assert part["kept"].tolist() == [k for k in kept for _ in templates]
        assert part["template"].astype(str).tolist() == templates * len(kept)
        assert (part["low"] <= part["metric"]).all()
        assert (part["metric"] <= part["high"]).all()
        of_all = part[part["template"] == "all"].set_index("kept")["metric"]
        others = part[part["template"] != "all"].groupby("kept")["metric"].mean()
        assert of_all.tolist() == pytest.approx(others.tolist(), abs=1e-5)
        if name in summary["metric"]:
            expected = summary["metric"][name]["value"]
            if name != "transcoder_without_bad":  # which has a unit less
                assert of_all[N_FEATURES] == pytest.approx(expected, abs=1e-5)
    at_none = table[(table["curve"] == "neurons") & (table["kept"] == 0)]
    removed = summary["metric"]["removed"]["value"]
    assert at_none["metric"].iloc[0] == pytest.approx(removed, abs=1e-5)


def test_every_part_of_the_model_has_its_place_in_where(done: Done) -> None:
    table, summary = done.table("where"), done.summary
    assert list(table.columns) == [
        "part", "kind", "layer", "head", "zero", "mean", "attribution", "into_chosen_mlp",
        "has_transcoder",
    ]  # fmt: skip
    assert len(table) == 3 * 3
    is_mlp = table["kind"] == "mlp"
    assert table["into_chosen_mlp"].isna().tolist() == is_mlp.tolist()
    has = [part in ("mlp0", "mlp1") for part in table["part"]]
    assert table["has_transcoder"].tolist() == has
    assert summary["layer"] == 1  # the only one after layer 0
    seen = table[~is_mlp & (table["layer"] <= 1)]
    best = seen.nlargest(1, "into_chosen_mlp")
    assert best["part"].tolist() == [summary["head"]]
    assert (table.loc[~is_mlp & (table["layer"] > 1), "into_chosen_mlp"] == 0).all()


def test_shown_features_have_a_value_for_every_number(done: Done) -> None:
    table, features = done.table("features_by_year"), done.table("features")
    assert list(table.columns) == ["feature", "quantity", "number", "value"]
    shown = features[(features["rank"] <= 3) | features["bad"]]["feature"].tolist()
    n_numbers = 10 if done.summary["numbers"] == "digits" else 100
    expected = [
        (feature, quantity, number)
        for feature in shown
        for quantity, n in (("activation", 100), ("dla", n_numbers), ("de_embedding", n_numbers))
        for number in range(n)
    ]
    columns = ("feature", "quantity", "number")
    assert list(zip(*(table[name] for name in columns), strict=True)) == expected
    assert table["value"].notna().all()
    activations = table[table["quantity"] == "activation"]
    assert (activations["value"] >= 0).all()
    assert (activations.groupby("feature")["value"].std() > 0).all()
    dla = table[table["quantity"] == "dla"].groupby("feature")["value"]
    assert (dla.mean().abs() < 1e-4).all()


def test_a_bad_feature_costs_what_the_curves_say(done: Done) -> None:
    curves = done.table("curves")
    curve = curves[(curves["curve"] == "transcoder") & (curves["template"] == "all")]
    drops = -curve.set_index("kept")["metric"].diff()
    found = done.summary["bad_features"]
    # Without any, nothing of this would be tested.
    assert len(found) == 1 or done.case.name != "llama with SAE"
    for bad in found:
        assert drops.idxmax() == bad["rank"]
        assert bad["drop"]["value"] == pytest.approx(drops.max(), abs=1e-5)
        assert 0 < bad["drop"]["low"] <= bad["drop"]["value"] <= bad["drop"]["high"]


def test_the_summary_says_what_was_studied(done: Done) -> None:
    summary, settings = done.summary, done.case.settings
    assert summary["model"] == "tiny"
    assert summary["templates"] == settings.templates
    assert summary["positions"] == settings.positions
    assert summary["layers_with_transcoder"] == [0, 1]
    architecture = done.case.tracer.replacement.model.original_model.config.model_type
    assert summary["numbers"] == ("digits" if architecture == "llama" else "pairs")
    assert math.isfinite(summary["logit_difference"])
    assert -1 <= summary["next_token_difference"] <= 1
    if summary["numbers"] == "pairs":  # the next token is the whole answer
        expected = summary["metric"]["original"]["value"]
        assert summary["next_token_difference"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["llama everywhere", "gpt2 with a trap"])
def test_two_runs_write_the_same_bytes(
    tmp_path: Path, tiny_models: dict[str, Path], random_dictionary: Make, name: str
) -> None:
    case = make_case(name, tiny_models, random_dictionary)
    case = case._replace(settings=case.settings.model_copy(update={"kept": [0, 1, 2]}))
    for folder in ("first", "second"):
        case.run(tmp_path / folder)
    for file in FILES:
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


class PlannedError(Exception):
    pass


def short(case: Case) -> Case:
    """The same with a single template and a few units."""
    settings = case.settings.model_copy(
        update={"templates": case.settings.templates[:1], "kept": [0, 1]}
    )
    return case._replace(settings=settings)


def test_a_failure_half_way_leaves_nothing_and_what_was_there_before(
    tmp_path: Path,
    tiny_models: dict[str, Path],
    random_dictionary: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = short(make_case("llama with SAE", tiny_models, random_dictionary))
    written: list[str] = []

    def fail(path: Path, _: Any) -> None:
        written.extend(other.name for other in path.parent.iterdir())
        raise PlannedError

    monkeypatch.setattr(study, "write_json", fail)
    with pytest.raises(PlannedError):
        case.run(tmp_path / "greater_than")
    assert set(written) == FILES - {"summary.json"}
    assert list(tmp_path.iterdir()) == []
    before = tmp_path / "greater_than" / "summary.json"
    before.parent.mkdir()
    before.write_text("of an earlier study")
    with pytest.raises(PlannedError):
        case.run(tmp_path / "greater_than")
    assert list(tmp_path.rglob("*")) == [before.parent, before]
    assert before.read_text() == "of an earlier study"
    assert hooks_of_ours(case.tracer.replacement.model) == []


def test_positions_decide_where_units_are_set_to_zero(
    tmp_path: Path, tiny_models: dict[str, Path], random_dictionary: Make
) -> None:
    case = short(make_case("llama with SAE", tiny_models, random_dictionary))
    found = []
    for positions in ("predicting", "all"):
        settings = case.settings.model_copy(update={"positions": positions})
        case._replace(settings=settings).run(tmp_path / positions)
        found.append(Done(case, tmp_path / positions).table("metric"))
    predicting, everywhere = found
    assert predicting["original"].tolist() == pytest.approx(everywhere["original"], abs=1e-5)
    assert (predicting["transcoder"] - everywhere["transcoder"]).abs().max() > 1e-3
    assert (predicting["removed"] - everywhere["removed"]).abs().max() > 1e-3


def with_dead_features(case: Case) -> Case:
    """The same with a transcoder at layer 1 whose features are never active."""
    tracer = case.tracer
    dead = copy.deepcopy(tracer.replacement.transcoders[1])
    dead.b_enc.fill_(-100)
    circuit = copy.copy(tracer.replacement)
    circuit.transcoders = {**circuit.transcoders, 1: dead}
    return case._replace(tracer=Tracer(circuit, tracer.tokenizer, tracer.bos_id))


def test_a_transcoder_that_never_changes_with_the_year_is_refused(done: Done, tmp_path) -> None:
    dead = with_dead_features(done.case)
    with pytest.raises(UserError, match="no feature of the transcoder at layer 1 changes"):
        dead.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_more_units_than_there_are_cannot_be_kept(done: Done, tmp_path) -> None:
    settings = done.case.settings.model_copy(update={"kept": [0, 8, 10_000]})
    with pytest.raises(UserError, match=r"greater_than\.kept: 10000 units, expected at most 24"):
        done.case._replace(settings=settings).run(tmp_path / "out")
