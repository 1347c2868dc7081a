"""The sentences of a page say what the numbers say."""

import pandas as pd
import pytest

from transcoders.config import Site
from transcoders.fronts import FrontGap
from transcoders.tables import EVALUATION_COLUMNS, describe_claim, describe_gap, evaluation_table

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
