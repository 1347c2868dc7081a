"""From tables to tables, figure and claim: what is made where a scale sweeps its data."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers_gaps import SITE, Made, tables
from transcoders.claims import Evidence, judge_page
from transcoders.cli import app
from transcoders.config import load_scale
from transcoders.files import read_table, write_table
from transcoders.gaps import Pairs
from transcoders.gaps.by_tokens import FIT_COLUMNS, POINT_COLUMNS, gap_by_tokens
from transcoders.gaps.why import WHY_COLUMNS
from transcoders.layout import Layout
from transcoders.plots import gap_by_tokens_figure
from transcoders.tables.gaps import points_table, why_table

ROOT = Path(__file__).parents[2]
MARGIN = 0.027
LAPTOP = "smollm2-135m_layer20"


def sweep(site=SITE):
    """A pair by data with an equal-steps line, and a control."""
    made = [Made(-0.08, 2**18), Made(-0.06, 2**19), Made(-0.04, 2**20), Made(-0.06, 2**18, 4),
            Made(-0.01, 2**20, kinds=("topk_transcoder", "topk_sae"))]  # fmt: skip
    return [pair._replace(site=site) for pair in made]


def drawn(pairs):
    """The points and the fits of some pairs."""
    made = tables(pairs, noise=0.02)
    return gap_by_tokens(Pairs(*made, seed=0, resamples=100), margin=MARGIN)


def test_the_figure_has_a_panel_for_each_site_with_both_lines_bars_and_the_margin():
    points, fits = drawn([*sweep(), *sweep("tiny_layer2")])
    figure = gap_by_tokens_figure(points, fits, margin=MARGIN)
    for panel, (_, at_site) in zip(figure.axes, points.groupby("site"), strict=True):
        for container, line in zip(panel.containers, ("equal steps", "one pass"), strict=True):
            rows = at_site[at_site["line"] == line]
            shown, _, (bars,) = container.lines
            np.testing.assert_array_equal(shown.get_xdata(), rows["tokens_different"])
            np.testing.assert_array_equal(shown.get_ydata(), rows["gap"])
            ends = [(segment[0, 1], segment[1, 1]) for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, rows[["low", "high"]])
        band = panel.patches[0].get_bbox()
        assert (band.y0, band.y1) == (-MARGIN, 0)
        (fitted,) = [line for line in panel.lines if line.get_label() == "line fitted to one pass"]
        of = fits[fits["site"] == at_site["site"].iloc[0]].set_index("quantity")["value"]
        assert fitted.get_ydata()[1] == pytest.approx(of["level"] + 2 * of["slope"])
        assert panel.get_title() == f"tiny, layer {at_site['layer'].iloc[0]}"
    # A scale in which no fronts meet has an empty figure.
    assert not gap_by_tokens_figure(*drawn([Made(-0.1)]), margin=MARGIN).axes


@pytest.fixture
def evidence(tmp_path, monkeypatch):
    """The laptop scale with tables of a sweep at one site, after its command has run."""
    (tmp_path / "config").symlink_to(ROOT / "config")
    monkeypatch.chdir(tmp_path)
    layout = Layout("laptop")
    evaluation, by_document = tables(sweep(LAPTOP), noise=0.02)
    write_table(layout.evaluation, evaluation)
    write_table(layout.evaluation_by_document, by_document)
    app(["compare-gaps", "--scale", "laptop"], standalone_mode=False)
    return Evidence(load_scale(layout.config), layout)


@pytest.mark.usefixtures("own_settings")
def test_the_command_writes_all_tables_and_the_claim_is_judged_by_them(evidence):
    layout = evidence.layout
    paths = layout.gap_by_tokens, layout.gap_by_tokens_fit, layout.why
    points, fits, why = map(read_table, paths)
    for table, columns in ((points, POINT_COLUMNS), (fits, FIT_COLUMNS), (why, WHY_COLUMNS)):
        assert list(table) == columns and len(table) > 2
    found = judge_page(evidence, "why").set_index("claim")
    row = found.loc[f"gap-shrinks-with-data:{LAPTOP}"]
    slope = fits[fits["quantity"] == "slope"].iloc[0]
    assert (row["value"], row["low"], row["high"]) == tuple(slope[["value", "low", "high"]])
    other = found.loc["gap-shrinks-with-data:smollm2-135m_layer12"]
    assert "one amount of data" in other["evidence"] and pd.isna(other["value"])
    assert points_table(points).count("<tr>") == len(points) + 1
    shown = why_table(why)
    assert shown.count("<tr>") == len(why) + 1 and "nan" not in shown


def test_data_are_swept_where_both_kinds_see_two_amounts_in_one_pass(scale):
    *others, once = scale.groups
    assert scale.sweeps_data and not scale.model_copy(update={"groups": others}).sweeps_data
    transcoders = once.dictionaries[:2]
    for change in ({"epochs": 2}, {"train_contexts": [400]}, {"dictionaries": transcoders}):
        changed = [*others, once.model_copy(update=change)]
        assert not scale.model_copy(update={"groups": changed}).sweeps_data
