"""The sentences and tables of a page say what the numbers say."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from helpers_evidence import controls_of
from transcoders import tables
from transcoders.circuits import ComputationalPath, Node
from transcoders.circuits.labels import Label
from transcoders.config import PublishedGreaterThan, load_scale
from transcoders.files import read_table
from transcoders.greater_than.years import LOOKED_AT, above_others
from transcoders.layout import Layout
from transcoders.plots import LABELS
from transcoders.tables import greater_than

ROOT = Path(__file__).parents[1]
ALL_TOKENS = 2_096_896
"""Of the overnight scale's training rows, once."""


def cells(page):
    """What a reader sees of a table, as text."""
    table = ElementTree.fromstring(page[page.index("<table") :])
    heading, *rows = [[cell.text for cell in row] for row in table.iter("tr")]
    return pd.DataFrame(rows, columns=heading)


def bold_rows(page):
    """The rows that a table sets in bold."""
    return {n for n, look in enumerate(re.findall(r"<tr(.*?)><td", page)) if "bold" in look}


def test_dictionaries_are_listed_and_those_trained_in_another_way_folded_in():
    rows = pd.read_csv(ROOT / "results/overnight/evaluation.csv")
    rows = rows[rows["layer"] == 20]
    alike = rows["tokens_trained"] == ALL_TOKENS
    page = tables.evaluation_table(rows)
    assert f"<details><summary>{(~alike).sum()} dictionaries of another width" in page
    shown = re.findall("<table.*?</table>", page, re.DOTALL)
    for table, listed in zip(shown, (rows[alike], rows[~alike]), strict=True):
        found = cells(table)
        assert list(found["kind"]) == [LABELS[kind] for kind in listed["kind"]]
        in_names = listed["dictionary"].str.extract(r"_(?:l1|k)-([\d.]+)")[0]
        assert list(found["λ₁ or k"]) == list(in_names)
        assert list(found["L0"]) == [f"{l0:.1f}" for l0 in listed["l0"]]
        assert bold_rows(table) == set(np.flatnonzero(listed["headline"]))
    assert list(found["tokens"]) == [f"{n:,}" for n in rows[~alike]["tokens_trained"]]
    assert "nan" not in page
    of_circuits = cells(tables.circuit_sites_table(rows[alike]))
    assert list(of_circuits["L0"]) == [f"{l0:.1f}" for l0 in rows[alike]["l0"]]


def test_costs_are_shown_by_source_where_there_are_several():
    evaluation = pd.DataFrame(
        [("a", "m_layer3", "transcoder", True, 3, 4), ("b", "m_layer3", "transcoder", False, 3, 4)],
        columns=["dictionary", "site", "kind", "headline", "ce_original", "ce_mean_ablated"],
    )
    by_document = pd.DataFrame(
        [("a", "news", 10, 3.4, 3), ("a", "news", 30, 3.2, 3), ("a", "wiki", 10, 2.0, 1),
         ("b", "wiki", 10, 9.0, 1)],
        columns=["dictionary", "source", "tokens", "ce", "ce_original"],
    )  # fmt: skip
    table = cells(tables.by_source_table(evaluation, by_document))
    # (10 · 0.4 + 30 · 0.2) / 40 of a worth of 1; and 1.0, all of it.
    costs = {"news (2 documents)": "+0.2500 (0.75)", "wiki (1 documents)": "+1.0000 (0.00)"}
    assert table.drop(columns=["site", "kind"]).to_dict("records") == [costs]
    assert not tables.by_source_table(evaluation, by_document.assign(source="wiki"))


def test_training_curves_say_whose_they_are_and_where_they_end(monkeypatch):
    monkeypatch.chdir(ROOT)
    layout = Layout("overnight")
    scale = load_scale(layout.config)
    entries = [one for one in scale.dictionaries if one.site.layer == 20]
    curves = tables.training_curves(entries, layout)
    ends = [read_table(layout.dictionary(one.name) / "training.csv").iloc[-1] for one in entries]
    assert list(curves["dictionary"].unique()) == [one.name for one in entries]
    table = cells(tables.final_values_table(curves))
    assert list(table["kind"]) == [LABELS[one.kind] for one in entries]
    # That of its name, not of a row: it warms up.
    assert list(table["λ₁ or k"]) == [f"{one.k or one.l1_coefficient:g}" for one in entries]
    assert list(table["loss"]) == [f"{end['loss']:.1f}" for end in ends]


def test_features_on_paths_are_listed_with_a_name_only_if_it_is_good():
    nodes = tuple(Node("feature", layer, 5, 3) for layer in (3, 2, 1, 0))
    start = ComputationalPath(nodes[:1], 4.0, 4.0)
    paths = [start, ComputationalPath(nodes, 1.0, parent=start)]
    labels = {
        "tc3[5]": Label("digits", 0.91, "token: digits", ("in 17", "in 18")),
        "tc2[5]": Label("punctuation", 0.7, "token: punctuation", ("so,",)),
        "tc1[5]": Label("years", float("nan"), "", ("in 17",), "anna", "all are"),
    }
    table = cells(tables.labels_table(paths, labels)).fillna("").set_index("feature")
    assert table["name"].to_dict() == {"tc3[5]": "digits", "tc2[5]": "", "tc1[5]": "years"}
    assert list(table["score"]) == ["0.910", "0.700", "by anna: all are"]


STEERED = pd.DataFrame(
    [("feature", 0, -1.0, -0.5), ("head", 0, -2.0, -1.0), ("head", 2, 2.0, 1.0)],
    columns=["kind", "factor", "predicted", "change"],
)
ERRORS = pd.DataFrame(
    [("embed", -1, 0.5), ("error", 3, 0.8), ("error", 5, -0.2), ("bias", -1, -0.1)],
    columns=["origin", "layer", "attribution"],
)


def evidence(prefers_first, circuit, draws):
    """What is said of a circuit with this effect, beside random sets with those."""
    answers = [{"token": "*a*", "weight": 1, "rank": 3}, {"token": "b", "weight": -1, "rank": 1200}]
    record = {"target": {"value": 1.0, "logits": answers, "prefers_first": prefers_first}}
    return tables.describe_evidence(record, controls_of(circuit, draws), STEERED, ERRORS)


def test_a_circuit_that_stands_out_is_told_from_one_that_does_not():
    best = evidence(True, 3.0, [0.0, 1.0, 2.0])
    for part in (
        "**The model prefers the first of the two.**", "“&#42;a&#42;” is number 3 and",
        "lowers the target by 3.00", "everything lowers it by 4.00", "None of the random sets",
        "parts do less (", "the target, 1.00, is the sum", "errors of transcoders +0.60, biases",
        "layer 3 (+0.80)", "Over 3 scalings", "correlation of 1.00 and a slope of 0.50",
    ):  # fmt: skip
        assert part in best
    assert "do more, but none at the same tokens" in evidence(True, 1.5, [0.0, 1.0, 2.0])
    worst = evidence(False, 0.5, [0.5, 1.0, 2.0])
    for part in ("does not prefer the first", "at the same tokens too", "parts do as much or more"):
        assert part in worst


def test_circuits_that_stand_out_are_counted():
    controls = {"a": controls_of(3.0, [0.0, 1.0, 2.0]), "b": controls_of(1.5, [0.0, 1.0, 2.0])}
    replacement = pd.DataFrame(
        [("m", 0, 3.158, 3.158, 3.158), ("m", 9, 3.158, 4.379, 10.466)],
        columns=["model", "n_replaced", "ce_original", "ce", "ce_mean_ablated"],
    )
    necessary, sufficient, replaced = tables.summarise_circuits(controls, replacement)
    assert necessary.startswith("In 1 of 2 circuits, removing") and "any of 3 random" in necessary
    assert "In 2, it lowers the target more than removing as many" in necessary
    assert sufficient.startswith("In 1 of 2 circuits, keeping")
    assert "9 MLPs of m at once, the cross entropy rises from 3.16 to 4.38 nats" in replaced


def test_ranks_and_slopes_are_listed_by_circuit():
    table = cells(tables.comparisons_table({"one": controls_of(1.5, [0.0, 1.0, 2.0])}))
    assert list(table["rank"]) == ["2 of 4", "1 of 4"] * 2
    assert list(table["random, median"]) == ["1.00", "0.50"] * 2
    table = cells(tables.steering_table({"one": STEERED, "other": STEERED[:1]})).set_index("nodes")
    scalings = {"one": "3", "other": "1", "all features": "2", "all heads": "2"}
    assert table["scalings"].to_dict() == scalings and set(table["slope"]) == {"0.50"}
    assert table["correlation"].isna().tolist() == [False, True, True, True]  # of two or fewer


def estimate(value, low, high):
    return {"value": value, "low": low, "high": high}


def study(**changes):
    """A summary of the greater-than study."""
    levels = {"original": 0.88, "transcoder": 0.79, "transcoder_without_bad": 0.84, "removed": 0.5}
    return {
        "layer": 10, "head": "attn9[1]", "layers_with_transcoder": [0, 9, 10],
        "next_token_difference": 0.8,
        "metric": {name: estimate(value, 0.4, 0.9) for name, value in levels.items()},
        "neurons_catch_up": {"transcoder": estimate(24, 20, 30)},
    } | changes  # fmt: skip


def test_the_sentence_on_years_and_the_claims_are_about_the_same_features():
    values = {
        "step": np.array([np.nan, 1, 1, -1] * 12), "agreement": np.array([1, np.nan, np.nan] * 16)
    }  # fmt: skip
    positive = {}
    for name, given in values.items():
        claimed = above_others(np.diag(given[:LOOKED_AT]), seed=0)
        positive[name] = round((claimed["own"] + 1) / 2 * claimed["gain"]["n"])
    text = greater_than.describe_years(pd.DataFrame(values))
    assert f"Of the 20 features with the largest variance, {positive['step']} raise" in text
    assert f"For {positive['agreement']} of 14, the de-embedding" in text
    assert text.endswith("passed over, as in the claims.")


def test_the_place_is_compared_with_ablation_and_with_mlps_that_have_no_transcoder():
    rows = [("mlp0", 9.0, 0.1), ("mlp9", 1.0, 0.1), ("mlp10", 2.0, 0.9), ("mlp11", 3.0, 0.1),
            ("attn9[0]", 0.0, 0.9), ("attn9[1]", 1.0, 0.1)]  # fmt: skip
    where = pd.DataFrame(rows, columns=["part", "attribution", "mean"])
    where["kind"] = ["mlp"] * 4 + ["head"] * 2
    where["layer"] = where["part"].str.extract(r"(\d+)")[0].astype(int)
    text = greater_than.describe_where(study(), where)
    assert "mlp10 is number **1** of 4 MLPs" in text
    assert "attn9[1] is number **2** of 2 heads" in text
    assert "mlp11 (3.00 logits); it has no transcoder" in text


def test_the_paper_values_stand_beside_those_found():
    paper = PublishedGreaterThan(
        layer=10, head="attn9[1]", top_features=[1954, 21238], bad_feature=5315, original=0.88294,
        transcoder=0.7978, transcoder_without_bad=0.84531, neurons_catch_up=24,
    )  # fmt: skip
    features = pd.DataFrame(
        {"feature": ["tc10[7]", "tc10[1954]", "tc10[21238]"], "rank": [3, 1, 2]}
    )
    for low, bad in ((0.04, "5315"), (-0.04, "none")):
        found = study(harmful_feature={"unit": 5315, "drop": estimate(0.05, low, 0.06)})
        table = cells(greater_than.published_table(found, features, paper)).set_index("quantity")
        assert table.loc["features of largest variance"].tolist() == ["1954, 21238"] * 2
        assert table.loc["metric, model as it is"].tolist() == ["0.88294", "0.88000"]
        assert table.loc["bad feature"].tolist() == ["5315", bad]
