"""The sentences and tables of a page say what the numbers say."""

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

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
    assert "<details>" not in tables.evaluation_table(rows[alike])


def test_costs_are_shown_by_source_where_there_are_several():
    evaluation = pd.DataFrame(
        {
            "dictionary": ["a", "b"], "site": "m_layer3", "kind": "transcoder",
            "headline": [True, False], "ce_original": 3.0, "ce_mean_ablated": 4.0,
        }
    )  # fmt: skip
    by_document = pd.DataFrame(
        {
            "dictionary": ["a", "a", "a", "b"], "source": ["news", "news", "wiki", "wiki"],
            "tokens": [10, 30, 10, 10], "ce": [3.4, 3.2, 2.0, 9.0],
            "ce_original": [3.0, 3.0, 1.0, 1.0],
        }
    )  # fmt: skip
    table = cells(tables.by_source_table(evaluation, by_document))
    assert list(table) == ["site", "kind", "news (2 documents)", "wiki (1 documents)"]
    # (10 · 0.4 + 30 · 0.2) / 40 of a worth of 1; and 1.0, all of it.
    assert table.iloc[0, 2:].tolist() == ["+0.2500 (0.75)", "+1.0000 (0.00)"]
    assert len(table) == 1
    assert not tables.by_source_table(evaluation, by_document.assign(source="wiki"))


def test_training_curves_say_whose_they_are_and_where_they_end(monkeypatch):
    monkeypatch.chdir(ROOT)
    layout = Layout("overnight")
    scale = load_scale(layout.config)
    entries = [one for one in scale.dictionaries if one.site.layer == 20]
    curves = tables.training_curves(entries, layout)
    ends = [read_table(layout.dictionary(one.name) / "training.csv").iloc[-1] for one in entries]
    assert list(curves["dictionary"].unique()) == [one.name for one in entries]
    page = tables.final_values_table(curves)
    table = cells(page)
    assert list(table["kind"]) == [LABELS[one.kind] for one in entries]
    # That of its name, not of a row: it warms up.
    assert list(table["λ₁ or k"]) == [f"{one.k or one.l1_coefficient:g}" for one in entries]
    for heading, column in (("loss", "loss"), ("L0", "l0")):
        assert list(table[heading]) == [f"{end[column]:.1f}" for end in ends]
    assert bold_rows(page) == {n for n, one in enumerate(entries) if one.headline}


def test_paths_are_listed_by_size():
    target, one, two = Node("target", 2, -1, 3), Node("head", 1, 0, 3, 1), Node("embed", -1, -1, 1)
    first = ComputationalPath((target,), 4.0, 4.0)
    second = ComputationalPath((target, one), 1.0, parent=first)
    third = ComputationalPath((target, one, two), -2.0, parent=second)
    table = cells(tables.paths_table([first, second, third]))
    assert list(table["attribution"]) == ["-2.000", "+1.000"]
    assert table["path, from the target back"].iloc[0] == "target@3 <- attn1[0]@1 <- embed@1"


def test_features_on_paths_are_listed_with_a_name_only_if_it_is_good():
    nodes = tuple(Node("feature", layer, 5, 3) for layer in (3, 2, 1, 0))
    start = ComputationalPath(nodes[:1], 4.0, 4.0)
    paths = [start, ComputationalPath(nodes, 1.0, parent=start)]
    labels = {
        "tc3[5]": Label("digits", 0.91, "token: digits", ("in 17", "in 18")),
        "tc2[5]": Label("punctuation", 0.7, "token: punctuation", ("so,",)),
        "tc1[5]": Label("years", float("nan"), "", ("in 17",), "anna", "all are"),
        "tc9[5]": Label("elsewhere", 1.0, "token: words", ()),
    }
    table = cells(tables.labels_table(paths, labels))
    assert list(table["feature"]) == ["tc3[5]", "tc2[5]", "tc1[5]"]
    assert table["name"].fillna("").tolist() == ["digits", "", "years"]
    assert list(table["score"]) == ["0.910", "0.700", "by anna: all are"]
    assert list(table["clearest contexts"]) == ["in 17 | in 18", "so,", "in 17"]


def test_a_circuit_is_described_with_what_it_is_worth():
    text = tables.describe_circuit(
        {
            "name": "case", "model": "tiny", "tokens": ["<|endoftext|>", "a", " b"],
            "transcoders": [0, 2], "target": {"name": "logit[c]@-1", "value": 1.5},
            "completeness_error": 2e-8, "rank_correlation": 0.25,
        }
    )  # fmt: skip
    assert text.startswith("### case: why logit[c]@-1?")
    for part in ("&lt;|endoftext|>a b", "3 tokens", "layers 0, 2", "1.500", "2e-08", "0.25"):
        assert part in text
    assert "(../circuits/case/circuit.html)" in text


STEERED = pd.DataFrame(
    [("feature", 0, -1.0, -0.5), ("head", 0, -2.0, -1.0), ("head", 2, 2.0, 1.0)],
    columns=["kind", "factor", "predicted", "change"],
)
ERRORS = pd.DataFrame(
    [("embed", -1, 0.5), ("error", 3, 0.8), ("error", 5, -0.2), ("bias", -1, -0.1)],
    columns=["origin", "layer", "attribution"],
)


def asked(value):
    """The record of a circuit."""
    answers = [{"token": "*a*", "weight": 1, "rank": 3}, {"token": "b", "weight": -1, "rank": 1200}]
    return {"target": {"value": value, "logits": answers, "prefers_first": value > 0}}


def evidence(value, circuit, draws, errors=ERRORS):
    """What is said of a circuit with this effect, beside random sets with those."""
    return tables.describe_evidence(asked(value), controls_of(circuit, draws), STEERED, errors)


def test_a_circuit_that_stands_out_is_told_from_one_that_does_not():
    best = evidence(1.0, 3.0, [0.0, 1.0, 2.0])
    for part in (
        "**The model prefers the first of the two.**", "“&#42;a&#42;” is number 3 and",
        "number 1,200", "features 1, heads 1, whole MLPs 0", "lowers the target by 3.00",
        "everything lowers it by 4.00", "None of the random sets", "parts do less (",
        "the target, 1.00, is the sum", "embeddings +0.50, errors of transcoders +0.60, biases",
        "layer 3 (+0.80)", "Over 3 scalings", "correlation of 1.00 and a slope of 0.50",
    ):  # fmt: skip
        assert part in best
    assert "do more, but none at the same tokens" in evidence(1.0, 1.5, [0.0, 1.0, 2.0])
    worst = evidence(-1.0, 0.5, [0.5, 1.0, 2.0], ERRORS[:1])
    for part in ("does not prefer the first", "at the same tokens too", "parts do as much or more"):
        assert part in worst


def test_circuits_that_stand_out_are_counted():
    controls = {"a": controls_of(3.0, [0.0, 1.0, 2.0]), "b": controls_of(1.5, [0.0, 1.0, 2.0])}
    replacement = pd.DataFrame(
        {
            "model": "m", "n_replaced": [0, 9], "ce_original": 3.158, "ce": [3.158, 4.379],
            "ce_mean_ablated": [3.158, 10.466],
        }
    )  # fmt: skip
    necessary, sufficient, replaced = tables.summarise_circuits(controls, replacement)
    assert necessary.startswith("In 1 of 2 circuits, removing") and "any of 3 random" in necessary
    assert "In 2, it lowers the target more than removing as many" in necessary
    assert sufficient.startswith("In 1 of 2 circuits, keeping")
    assert "9 MLPs of m at once, the cross entropy rises from 3.16 to 4.38 nats" in replaced


def test_a_features_circuit_and_a_sum_of_logits_have_no_preference():
    record, controls = asked(1.0), controls_of(1.0, [1.0, 2.0])
    record["target"] |= {"logits": record["target"]["logits"][:1], "prefers_first": None}
    assert "prefer" not in tables.describe_evidence(record, controls, STEERED, ERRORS)
    record["target"]["logits"] = []
    assert "no right answer" in tables.describe_evidence(record, controls, STEERED, ERRORS)


def test_ranks_and_slopes_are_listed_by_circuit():
    table = cells(tables.comparisons_table({"one": controls_of(1.5, [0.0, 1.0, 2.0])}))
    assert list(table["measure"]) == ["necessity"] * 2 + ["sufficiency"] * 2
    assert list(table["rank"]) == ["2 of 4", "1 of 4"] * 2
    assert list(table["random, median"]) == ["1.00", "0.50"] * 2
    table = cells(tables.steering_table({"one": STEERED, "other": STEERED[:1]})).set_index("nodes")
    assert list(table.index) == ["one", "other", "all features", "all heads"]
    assert list(table["slope"]) == ["0.50"] * 4
    assert list(table["scalings"]) == ["3", "1", "2", "2"]
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
        "harmful_feature": {"unit": 5315, "drop": estimate(0.05, 0.04, 0.06)},
    } | changes  # fmt: skip


@pytest.mark.parametrize(
    ("caught", "expected"),
    [(24, "until neurons catch up at 24"), (1, "not ahead"), (None, "ahead of neurons at every")],
)
def test_features_against_neurons_in_words(caught, expected):
    caught_up = {"transcoder": {"value": caught}}
    assert expected in greater_than.describe_kept(study(neurons_catch_up=caught_up))


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
            ("attn9[0]", 0.0, 0.1), ("attn9[1]", 1.0, 0.9)]  # fmt: skip
    where = pd.DataFrame(rows, columns=["part", "attribution", "mean"])
    where["kind"] = ["mlp"] * 4 + ["head"] * 2
    where["layer"] = where["part"].str.extract(r"(\d+)")[0].astype(int)
    text = greater_than.describe_where(study(), where)
    assert "mlp10 is number **1** of 4 MLPs" in text
    assert "attn9[1] is number **1** of 2 heads" in text
    assert "mlp11 (3.00 logits); it has no transcoder" in text
    last = where.assign(mean=[3.0, 4, 1, 2, 0, 1])
    assert "mlp10 is number **4**" in greater_than.describe_where(study(), last)


def test_the_paper_values_stand_beside_those_found():
    paper = PublishedGreaterThan(
        layer=10, head="attn9[1]", top_features=[1954, 21238], bad_feature=5315, original=0.88294,
        transcoder=0.7978, transcoder_without_bad=0.84531, neurons_catch_up=24,
    )  # fmt: skip
    features = pd.DataFrame(
        {"feature": ["tc10[7]", "tc10[1954]", "tc10[21238]"], "rank": [3, 1, 2]}
    )
    found = cells(greater_than.published_table(study(), features, paper)).set_index("quantity")
    assert found.loc["features of largest variance"].tolist() == ["1954, 21238", "1954, 21238"]
    assert found.loc["metric, model as it is"].tolist() == ["0.88294", "0.88000"]
    assert found.loc["bad feature"].tolist() == ["5315", "5315"]
    harmless = study(harmful_feature={"unit": 7, "drop": estimate(0.01, -0.04, 0.06)})
    found = cells(greater_than.published_table(harmless, features, paper)).set_index("quantity")
    assert found.loc["bad feature", "here"] == "none"


def test_checks_leave_out_the_paper_where_it_says_nothing():
    checks = pd.DataFrame(
        {
            "feature": ["tc8[235]"], "text": ["<b>"], "token": [" caught"], "activation": [19.97],
            "published": [None],
        }
    )  # fmt: skip
    table = tables.checks_table(checks)
    assert "19.97" in table and "&lt;b&gt;" in table and "paper" not in table
    assert "paper" in tables.checks_table(checks.assign(published=20.0))
