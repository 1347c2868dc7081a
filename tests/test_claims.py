"""The claims: what decides them, and that what is committed follows from the committed tables."""

from pathlib import Path

import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from transcoders.claims import (
    COLUMNS,
    Claim,
    Evidence,
    Measured,
    Untestable,
    judge_claims,
    load_claims,
    verdict,
)
from transcoders.claims import measures as measures_module
from transcoders.claims.measures import MEASURES
from transcoders.config import Scale, load_scale
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.tables import claims as tables

ROOT = Path(__file__).parents[1]
LISTED = ROOT / "config/claims.yaml"
ORDER = ["not reproduced", "partly", "reproduced"]


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch) -> Evidence:
    monkeypatch.chdir(ROOT)
    layout = Layout("laptop")
    return Evidence(load_scale(layout.config), layout)


def judged(measured: Measured, **threshold: float | bool) -> str:
    defaults = {"better_than": None, "no_worse_than": None, "smaller_is_better": False}
    return verdict(measured, **defaults | threshold)


@pytest.mark.parametrize(
    ("measured", "better", "no_worse"),
    [
        (Measured(2, 1, 3), "reproduced", "reproduced"),
        (Measured(2, -1, 3), "partly", "reproduced"),
        (Measured(0, -1, 1), "not reproduced", "reproduced"),
        (Measured(-1, -3, 1), "not reproduced", "partly"),
        (Measured(-1, -3, 0), "not reproduced", "partly"),
        (Measured(-2, -3, -1), "not reproduced", "not reproduced"),
        (Measured(2, 0, 3), "partly", "reproduced"),  # an interval that touches is not beyond
    ],
)
def test_verdicts_worked_by_hand(measured, better, no_worse):
    assert judged(measured, better_than=0) == better
    assert judged(measured, no_worse_than=0) == no_worse


intervals = st.lists(st.floats(-100, 100, allow_nan=False), min_size=3, max_size=3).map(
    lambda three: Measured(*(sorted(three)[i] for i in (1, 0, 2)))
)


@given(measured=intervals, threshold=st.floats(-100, 100), better=st.booleans())
def test_turning_the_sign_of_everything_changes_no_verdict(measured, threshold, better):
    key = "better_than" if better else "no_worse_than"
    turned = Measured(-measured.value, -measured.high, -measured.low)
    assert judged(measured, **{key: threshold}) == judged(
        turned, **{key: -threshold}, smaller_is_better=True
    )


@given(measured=intervals, by=st.floats(0, 50), threshold=st.floats(-100, 100))
def test_more_is_never_judged_worse_and_better_asks_more_than_no_worse(measured, by, threshold):
    more = Measured(*(number + by for number in measured))
    ranks = {}
    for key in ("better_than", "no_worse_than"):
        first, second = (ORDER.index(judged(m, **{key: threshold})) for m in (measured, more))
        assert first <= second
        ranks[key] = first
    assert ranks["better_than"] <= ranks["no_worse_than"]


def test_every_measure_decides_a_claim_and_every_claim_has_one():
    claims = load_claims(LISTED)
    assert {claim.measure for claim in claims} == set(MEASURES)
    notebooks = {path.stem for path in (ROOT / "workflow/notebooks").glob("*.ipynb")}
    assert {claim.page for claim in claims} <= notebooks


def test_the_committed_ledger_follows_from_the_committed_tables(laptop):
    expected = judge_claims(load_claims(LISTED), laptop)
    committed = pd.read_csv(laptop.layout.claims)
    assert list(committed.columns) == list(expected.columns) == COLUMNS
    expected[["value", "low", "high"]] = expected[["value", "low", "high"]].astype(float)
    pd.testing.assert_frame_equal(committed, expected, rtol=1e-5)
    sites = [row.partition(":")[2] for row in expected["claim"] if row.startswith("pareto:")]
    assert sites == [site.name for site in laptop.scale.sites]


def test_the_gap_between_models_is_that_of_the_largest_over_the_smallest(laptop, monkeypatch):
    outcome = MEASURES["gap_of_largest_over_smallest_model"](laptop, None)
    assert isinstance(outcome, Untestable) and "one model" in outcome.reason
    paper = load_scale(ROOT / "config/paper.yaml")
    gaps = {"gpt2-small": 0.01, "pythia-410m": -0.02, "pythia-1.4b": -0.05}
    monkeypatch.setattr(
        measures_module,
        "front_gap",
        lambda _, site: Measured(*(gaps[site.model] + d for d in (0, -0.003, 0.004))),
    )
    found = MEASURES["gap_of_largest_over_smallest_model"](Evidence(paper, Layout("paper")), None)
    # Advantages are 0.05 and -0.01, with half-widths of 0.004 below and 0.003 above.
    assert found == pytest.approx((0.06, 0.06 - 0.005, 0.06 + 0.005))


class Made(Evidence):
    """Evidence with made-up tables."""

    def __init__(self, scale: Scale, **tables: object) -> None:
        object.__setattr__(self, "scale", scale)
        object.__setattr__(self, "tables", tables)

    def table(self, name: str) -> pd.DataFrame:
        return self.tables[Path(name).stem]


def test_ratings_of_several_people_are_added_up(scale):
    table = pd.DataFrame(
        [("a", "interpretable", 41, 38), ("a", "maybe", 8, 8), ("a", "uninterpretable", 1, 4),
         ("a", "context-free", 6, 16), ("a", "rated", 50, 50),
         ("b", "interpretable", 30, 40), ("b", "maybe", 10, 5), ("b", "uninterpretable", 10, 5)],
        columns=["rater", "rating", "transcoder", "mlp_in_sae"],
    )  # fmt: skip
    found = MEASURES["rated_interpretable"](Made(scale, table1=table), None)
    assert found.value == pytest.approx(71 / 100 - 78 / 100)
    assert -0.2 < found.low < found.value < found.high < 0.06
    nobody = table.assign(rater="no ratings yet", transcoder=None)
    outcome = MEASURES["rated_interpretable"](Made(scale, table1=nobody), None)
    assert isinstance(outcome, Untestable)


def test_newcombes_interval_is_the_published_one():
    # Newcombe 1998, Table II, method 10: 56/70 - 48/80 is 0.2, 0.0524 to 0.3339.
    found = measures_module._difference_of_shares((56, 70), (48, 80))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)


def test_studies_of_other_weights_count_for_nothing(scale):
    outcomes = pd.DataFrame({"outcome": ["success", "mostly", "failure", "other weights"]})
    found = MEASURES["share_of_successful_studies"](Made(scale, table4=outcomes), None)
    assert found.value == pytest.approx(2 / 3)
    outcome = MEASURES["share_of_successful_studies"](Made(scale, table4=outcomes[3:]), None)
    assert isinstance(outcome, Untestable)


def test_a_scale_without_a_table_cannot_test_its_claims(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evidence = Evidence(load_scale(ROOT / "config/published.yaml"), Layout("published"))
    rows = judge_claims(load_claims(LISTED), evidence)
    assert set(rows["verdict"]) == {"not testable at this scale"}
    assert rows["evidence"].str.startswith("this scale makes no ").all()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"better_than": 1.0, "no_worse_than": 0.0}, "expected either better_than or no_worse_th"),
        ({"typo": 1}, "typo"),
    ],
)
def test_a_list_that_is_not_valid_is_refused(tmp_path, change, expected):
    content = yaml.safe_load(LISTED.read_text())
    content[0] |= change
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError) as caught:
        load_claims(path)
    assert str(path) in str(caught.value) and expected in str(caught.value)


def test_a_claim_listed_twice_or_without_a_measure_is_refused(tmp_path, laptop):
    content = yaml.safe_load(LISTED.read_text())
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump([*content, content[0]]))
    with pytest.raises(UserError, match="pareto is listed 2 times"):
        load_claims(path)
    claim = Claim.model_validate(content[0] | {"measure": "by_eye"})
    with pytest.raises(UserError, match="no measure named 'by_eye'"):
        judge_claims([claim], laptop)


def test_the_table_escapes_texts_links_pages_and_shows_every_verdict(laptop):
    rows = judge_claims(load_claims(LISTED), laptop)
    rows.loc[0, "statement"] = "<script>alert(1)</script>"
    shown = tables.claims_table(rows)
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    for page in {claim.page for claim in load_claims(LISTED)}:
        assert f'<a href="{page}.html">{page}</a>' in shown
        assert (laptop.layout.notebook(page)).with_suffix(".html").exists()
    counts = rows["verdict"].value_counts()
    for found, sign in tables.VERDICTS.items():
        assert shown.count(f"<b>{sign} {found}</b>") == counts.get(found, 0)
        if found in counts:
            assert f"{counts[found]} {found}" in tables.describe_verdicts(rows)
