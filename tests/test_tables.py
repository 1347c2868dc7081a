"""The sentences and tables of a page say what the numbers say."""

import io
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from helpers_training import ALL_KINDS, entry
from transcoders.circuits import ComputationalPath, Node
from transcoders.config import Site
from transcoders.fronts import FrontGap
from transcoders.layout import Layout
from transcoders.plots import LABELS
from transcoders.tables import (
    EVALUATION_COLUMNS,
    describe_circuit,
    describe_claim,
    describe_gap,
    evaluation_table,
    final_values_table,
    paths_table,
    training_curves,
)

SITE = Site(model="m", layer=3)
WORSE = FrontGap(l0_low=10, l0_high=50, mean=0.01, low=0.005, high=0.02, share_better=0.0)
BETTER = WORSE._replace(mean=-0.01, low=-0.02, high=-0.005, share_better=1.0)
EQUAL = WORSE._replace(mean=0.001, low=-0.01, high=0.01, share_better=0.4)


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        (WORSE, "the SAE front is better"),
        (BETTER, "the transcoder front is better"),
        (EQUAL, "no difference can be told"),
        (None, "cannot be compared"),
    ],
)
def test_a_verdict_follows_the_sign_of_the_whole_interval(gap, verdict):
    sentence = describe_gap(SITE, gap)
    assert verdict in sentence
    assert "layer 3" in sentence


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ([BETTER, EQUAL, EQUAL], "reproduced here"),
        ([BETTER, BETTER, WORSE], "did not reproduce here:** at 1 of 3 sites"),
        ([WORSE, None, WORSE], "did not reproduce here:** at 2 of 2 sites"),
        ([None], "cannot be tested here"),
    ],
)
def test_one_site_that_is_worse_breaks_the_claim(gaps, verdict):
    assert verdict in describe_claim(gaps)


def test_the_table_shows_every_dictionary_and_marks_the_headline_one():
    row = dict.fromkeys(EVALUATION_COLUMNS, 0.5)
    rows = pd.DataFrame(
        [
            row | {"kind": "transcoder", "headline": True, "site": "s"},
            row | {"kind": "mlp_out_sae", "headline": False, "site": "s"},
        ]
    )
    page = evaluation_table(rows)
    assert page == evaluation_table(rows)  # no random identifiers
    assert page.count("<tr>") == 3
    assert "SAE on MLP output" in page
    assert "font-weight: bold" in page


def cells(page: str) -> pd.DataFrame:
    """What a reader sees of a table, as text."""
    table = ElementTree.fromstring(page.partition("</style>")[2])
    heading, *rows = [[cell.text for cell in row] for row in table.iter("tr")]
    return pd.DataFrame(rows, columns=heading)


def bold_rows(page: str) -> set[int]:
    """The rows that the style sheet of a table sets in bold."""
    style, _, table = page.partition("</style>")
    selectors = {one.strip() for one in re.split(r"[,{]", style.partition(">")[2])}
    assert all(re.fullmatch(r"#[\w-]+", one) for one in selectors if one.startswith("#"))
    ids = re.findall(r'id="([^"]*_row(\d+)_col0)"', table)
    return {int(row) for name, row in ids if f"#{name}" in selectors}


@pytest.fixture
def with_extensions() -> pd.DataFrame:
    """Rows as ``evaluation.csv`` gives them: TopK has an empty λ₁, its k is in its name."""
    numbers = dict.fromkeys(EVALUATION_COLUMNS, 0.5)
    text = pd.DataFrame(
        [
            numbers
            | {"dictionary": f"m1.5_layer3_{kind}_{sparsity}", "kind": kind, "site": "m1.5_layer3"}
            | {"l1_coefficient": l1_coefficient, "headline": kind == "transcoder"}
            for kind, sparsity, l1_coefficient in (
                ("transcoder", "l1-0.25", 0.25),
                ("skip_transcoder", "l1-0.0001", 1e-4),
                ("topk_transcoder", "k-32", None),
                ("topk_transcoder", "k-128", None),
            )
        ]
    ).to_csv(index=False)
    assert "m1.5_layer3_topk_transcoder_k-32" in text
    return pd.read_csv(io.StringIO(text))


def test_the_table_shows_lambda_or_k_of_extensions(with_extensions):
    page = evaluation_table(with_extensions)
    table = cells(page)
    assert list(table["kind"]) == [
        LABELS[kind]
        for kind in ("transcoder", "skip_transcoder", "topk_transcoder", "topk_transcoder")
    ]
    assert list(table["λ₁ or k"]) == ["0.25", "0.0001", "32", "128"]
    assert "nan" not in page
    assert bold_rows(page) == {0}


def test_a_table_of_topk_dictionaries_only_shows_their_k(with_extensions):
    table = cells(evaluation_table(with_extensions[2:]))
    assert list(table["λ₁ or k"]) == ["32", "128"]


@pytest.fixture
def curves(tmp_path, monkeypatch) -> pd.DataFrame:
    """The curves of one dictionary of each kind, read from the files that training writes."""
    monkeypatch.chdir(tmp_path)
    layout = Layout("smoke")
    entries = [entry(kind, 0.25, k=32) for kind in ALL_KINDS]
    entries[1] = entries[1].model_copy(update={"headline": False})
    for number, one in enumerate(entries):
        folder = layout.dictionary(one.name)
        folder.mkdir(parents=True)
        l1_coefficients = ("", "") if one.k else (0.125, 0.25)  # as it warms up
        rows = [
            f"{step},{step * 10},0.01,{l1},{9 - step}.25,{step + number},0.5,0.125"
            for step, l1 in zip((4, 8), l1_coefficients, strict=True)
        ]
        columns = "step,tokens,learning_rate,l1_coefficient,loss,l0,fvu,dead_fraction"
        (folder / "training.csv").write_text("\n".join([columns, *rows]) + "\n")
    return training_curves(entries, layout)


def test_training_curves_say_whose_they_are(curves):
    assert list(curves["kind"]) == [kind for kind in ALL_KINDS for _ in range(2)]
    assert set(curves["site"]) == {"tiny, layer 1"}
    topk = curves[curves["kind"] == "topk_transcoder"]
    assert topk["l1_coefficient"].isna().all()
    assert topk["dictionary"].str.endswith("_k-32").all()
    assert (curves["l1_coefficient"].dropna() == 0.25).all()  # that of its name, not of a row


def test_final_values_are_those_of_the_last_rows(curves):
    page = final_values_table(curves)
    table = cells(page)
    assert list(table["kind"]) == [LABELS[kind] for kind in ALL_KINDS]
    assert list(table["λ₁ or k"]) == ["0.25"] * 4 + ["32"]
    assert list(table["loss"]) == ["1.2"] * 5  # 1.25, to one digit
    assert list(table["L0"]) == ["8.0", "9.0", "10.0", "11.0", "12.0"]
    assert bold_rows(page) == {0, 2, 3, 4}
    assert page == final_values_table(curves)


def test_paths_are_listed_by_size_with_their_share_of_the_target():
    target, one, two = Node("target", 2, -1, 3), Node("head", 1, 0, 3, 1), Node("embed", -1, -1, 1)
    first = ComputationalPath((target,), 4.0, 4.0)
    second = ComputationalPath((target, one), 1.0, parent=first)
    third = ComputationalPath((target, one, two), -2.0, parent=second)
    table = cells(paths_table([first, second, third]))
    assert list(table["attribution"]) == ["-2.000", "+1.000"]
    assert list(table["share of target"]) == ["-50%", "25%"]
    assert table["path, from the target back"].iloc[0] == "target@3 <- attn1[0]@1 <- embed@1"


def test_a_circuit_is_described_with_what_it_is_worth():
    text = describe_circuit(
        {
            "name": "case", "model": "tiny", "tokens": ["<|endoftext|>", "a", " b"],
            "transcoders": [0, 2], "target": {"name": "logit[c]@-1", "value": 1.5},
            "completeness_error": 2e-8, "rank_correlation": 0.25,
        }
    )  # fmt: skip
    assert text.startswith("### case: why logit[c]@-1?")
    for part in ("&lt;|endoftext|>a b", "3 tokens", "layers 0, 2", "1.500", "2e-08", "0.25"):
        assert part in text
