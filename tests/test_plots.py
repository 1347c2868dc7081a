"""Figures say what their tables say, in the same bytes every time."""

from itertools import combinations
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from matplotlib.legend import Legend
from matplotlib.text import Text

from helpers_evidence import controls_of
from transcoders import plots
from transcoders.config import KINDS, TRAITS
from transcoders.plots import style

ROOT = Path(__file__).parents[1]
ALL_TOKENS = 2_096_896
"""Of the overnight scale's training rows, once."""
LAYERS = (12, 20)
EXTENSIONS = [kind for kind in TRAITS if kind not in KINDS]
CIRCUITS = ("tiny-feature", "tiny-logits")


def golden(name):
    """A table that the smoke scale made."""
    return pd.read_csv(ROOT / f"tests/golden/{name}.csv")


def texts(items):
    """What is written."""
    return [item.get_text() for item in items]


def panels_of(figure):
    """The panels of a figure, without the place that is free for the legend."""
    return [axes for axes in figure.axes if axes.axison]


def legend_of(figure):
    """The only legend of a figure."""
    [found] = figure.findobj(Legend)
    return found


def legend(figure):
    """What it names."""
    return [text.replace("\n", " ") for text in texts(legend_of(figure).get_texts())]


def marks(panel):
    """All scattered points."""
    return [tuple(p) for part in panel.collections for p in part.get_offsets().tolist()]


def drawn(evaluation):
    return plots.tradeoff_figure(evaluation, n_documents=34)


@pytest.fixture(scope="module")
def evaluation():
    """Two sites of the overnight scale: at one, kinds beside the paper's, and three seeds."""
    table = pd.read_csv(ROOT / "results/overnight/evaluation.csv")
    compared = (table["tokens_trained"] == ALL_TOKENS) | table["kind"].isin(EXTENSIONS)
    return table[table["layer"].isin(LAYERS) & compared]


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_colours_and_markers_of_kinds_differ():
    markers = {kind: look["marker"] for kind, look in style.LOOKS.items()}
    for by_kind in (style.COLOURS, markers, style.LABELS):
        assert len(set(by_kind.values())) == len(by_kind) == len(TRAITS)


def test_points_bars_bounds_and_labels_are_the_tables_rows_in_the_order_of_their_l0(evaluation):
    shown = [(12, KINDS), (20, KINDS), (20, ["transcoder", *EXTENSIONS])]
    for panel, (layer, kinds) in zip(panels_of(drawn(evaluation)), shown, strict=True):
        site = evaluation[(evaluation["layer"] == layer) & evaluation["kind"].isin(kinds)]
        bars = [c for c in panel.containers if isinstance(c, ErrorbarContainer)]
        series = {container.get_label(): container for container in bars}
        assert set(series) == {style.LABELS[kind] for kind in kinds}
        for kind in kinds:
            rows = site[(site["kind"] == kind) & (site["seed"] == 42)].sort_values("l0")
            line, _, (bars,) = series[style.LABELS[kind]].lines
            np.testing.assert_array_equal(line.get_xydata(), rows[["l0", "ce"]])
            ends = [segment[:, 1] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, rows[["ce_low", "ce_high"]], rtol=1e-12)
            # Runs with other seeds are faint points without a line.
            again = site[(site["kind"] == kind) & (site["seed"] != 42)]
            alike = [line for line in panel.lines if line.get_color() == style.COLOURS[kind]]
            [faint] = [line for line in alike if line.get_alpha()]
            assert (faint.get_linestyle(), *faint.get_ydata()) == ("None", *again["ce"])
        labels = site[site["seed"] == 42].apply(style.sparsity_label, axis=1)
        assert sorted(texts(panel.texts)) == sorted(labels)
        levels = {line.get_ydata()[0] for line in panel.lines if list(line.get_xdata()) == [0, 1]}
        assert levels == {*site["ce_original"], *site["ce_mean_ablated"]}


def boxes_of(texts, figure):
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts if text.get_visible()]


def test_numbers_stand_below_all_marks_and_never_on_each_other(evaluation):
    first = evaluation[(evaluation["kind"] == "transcoder") & evaluation["headline"]].iloc[:1]
    crowded = [first.assign(l0=first["l0"] * (1 + i / 50)) for i in range(4)]
    figure = drawn(pd.concat([evaluation, *crowded], ignore_index=True))
    hidden = 0
    for panel in panels_of(figure):
        boxes = boxes_of(panel.texts, figure)
        lowest = min(panel.transData.transform(line.get_xydata())[:, 1].min()
                     for line in panel.lines if len(line.get_xydata()) > 2)  # fmt: skip
        assert max(box.y1 for box in boxes) < lowest
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        hidden += len(panel.texts) - len(boxes)
    assert hidden > 0


def test_the_legend_names_every_kind_once_and_k_where_there_is_one(evaluation):
    papers = evaluation[evaluation["kind"].isin(KINDS)]
    for table, kinds in ((papers, KINDS), (evaluation, TRAITS)):
        figure = drawn(table)
        levels = ["MLP output replaced by its mean", "unmodified model"]
        assert sorted(legend(figure)) == sorted([*levels, *(style.LABELS[kind] for kind in kinds)])
        title = legend_of(figure).get_title().get_text().replace("\n", " ")
        assert "34 documents" in title and ("TopK" in title) == (table is evaluation)
        [box] = boxes_of([legend_of(figure)], figure)
        assert all(figure.bbox.contains(*corner) for corner in (box.min, box.max))
        assert not any(box.overlaps(panel.get_tightbbox()) for panel in panels_of(figure))


def verified(name, n_parts):
    folder = f"circuits/{name}"
    return golden(f"{folder}/ablation"), golden(f"{folder}/faithfulness"), n_parts


def test_verification_has_a_row_for_each_circuit_with_every_node_and_size():
    circuits = {name: verified(name, len(name)) for name in CIRCUITS}
    figure = plots.verification_figure(circuits)
    panels = iter(figure.axes)
    for name, (nodes, curve, n_parts) in circuits.items():
        left, right = next(panels), next(panels)
        assert right.get_title() == f"{name}\ncircuit of {n_parts} parts"
        expected = nodes[["attribution", "effect"]].itertuples(index=False, name=None)
        assert sorted(marks(left)) == sorted(expected)
        only, all_but = right.lines[:2]
        assert list(only.get_ydata()) == list(curve["faithfulness"])
        assert list(all_but.get_ydata()) == list(curve["remaining"])


def test_controls_show_every_set_of_every_circuit_as_a_share_of_all_parts():
    draws = [0.0, 1.0, 3.0]
    circuits = {"one": 2.0, "other": -1.5}
    figure = plots.controls_figure(
        {name: controls_of(effect, draws, everything=-4.0) for name, effect in circuits.items()}
    )
    for panel in figure.axes:
        for row, effect in enumerate(circuits.values()):
            found = [x for x, y in marks(panel) if abs(y - row) < 0.5]
            effects = [*draws, *(draw / 2 for draw in draws), 1.0, effect]
            assert sorted(found) == pytest.approx(sorted(effect / 4 for effect in effects))


def test_steering_has_a_panel_for_each_factor_with_every_node_and_the_slope():
    steered = {name: golden(f"circuits/{name}/steering") for name in CIRCUITS}
    everything = pd.concat(steered.values())
    figure = plots.steering_figure(steered)
    for panel, factor in zip(panels_of(figure), (-1, 0, 2), strict=True):
        rows = everything[everything["factor"] == factor]
        x, y = rows["predicted"], rows["change"]
        said = f"r = {np.corrcoef(x, y)[0, 1]:.2f}, slope {x @ y / (x @ x):.2f}"
        title = f"× {factor}: {len(rows)} nodes\n{said}".replace("-", "−")
        assert panel.get_title() == title
        for part, kind in zip(panel.collections, ("feature", "head", "mlp"), strict=True):
            of_kind = rows.loc[rows["kind"] == kind, ["predicted", "change"]]
            np.testing.assert_array_equal(part.get_offsets(), of_kind)


def test_replacement_draws_each_model_and_the_errors_of_each_circuit():
    quality = golden("circuits/replacement")
    errors = {name: golden(f"circuits/{name}/errors") for name in CIRCUITS}
    figure = plots.replacement_figure(quality, errors)
    *panels, shares = figure.axes
    for panel, (model, rows) in zip(panels, quality.groupby("model"), strict=True):
        assert panel.get_title() == model
        lines = [list(line.get_ydata()) for line in panel.lines]
        assert list(rows["ce"]) in lines and list(rows["ce_mean_ablated"]) in lines
    # Each circuit has a transcoder at one layer; the later layer is drawn first.
    assert texts(shares.texts) == ["0.86", "0.28"]


def test_where_draws_every_part_and_names_the_chosen_ones():
    where = golden("greater_than/where")
    figure = plots.where_figure(where, 1, "attn0[0]")
    for panel, column in zip(figure.axes, ("mean", "zero", "attribution"), strict=True):
        heights = sorted(patch.get_height() for patch in panel.patches)
        assert heights == sorted(where.loc[where["kind"] == "mlp", column])
        assert [y for _, y in marks(panel)] == list(where.loc[where["kind"] == "head", column])
        assert set(texts(panel.texts)) == {"MLP 1", "attn0[0]"}


def test_kept_has_a_panel_for_all_and_for_each_of_several_templates():
    curves = golden("greater_than/curves")
    values = {"original": 0.9, "transcoder": 0.8, "removed": 0.3}
    figure = plots.kept_figure(curves, {name: {"value": value} for name, value in values.items()})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["all prompts (n = 196)", "template 1 (n = 98)", "template 2 (n = 98)"]
    lines = {line.get_label(): list(line.get_ydata()) for line in figure.axes[0].lines}
    of_all = curves[curves["template"] == "all"].set_index("curve")["metric"]
    assert lines["transcoder features"] == list(of_all["transcoder"])
    assert lines["neurons of the MLP"] == list(of_all["neurons"])
    assert lines["unmodified model"] == [0.9, 0.9]
    assert set(lines) == set(legend(figure))


def test_years_has_a_row_for_each_feature_and_a_column_for_each_quantity():
    described, by_year = golden("greater_than/features"), golden("greater_than/features_by_year")
    axes = plots.years_figure(described, by_year, "digits").axes
    groups = by_year.groupby(["feature", "quantity"], sort=False)["value"]
    heights = [[patch.get_height() for patch in panel.patches] for panel in axes]
    assert heights == [list(values) for _, values in groups]
    harmful = ["harm" in panel.get_ylabel() for panel in axes[::3]]
    assert harmful == list(described["bad"].head(3)) == [True, False, False]
    assert axes[5].get_xlabel() == "tens digit of YY"


@pytest.fixture
def judged():
    """What Figure 3's claim is judged by; the fronts of the last site share no range of L0."""
    claims = pd.read_csv(ROOT / "results/overnight/claims.csv")
    rows = claims[claims["measure"] == "front_gap"].copy()
    rows.loc[rows.index[-1], ["value", "low", "high"]] = np.nan
    return rows


def test_the_gap_of_every_site_stands_with_its_interval_beside_the_margin(judged):
    figure = plots.front_gap_figure(judged)
    (panel,) = figure.axes
    points = [bar.lines[0].get_xdata()[0] for bar in panel.containers]
    np.testing.assert_array_equal(points, judged["value"])
    ends = [bar.lines[2][0].get_segments()[0][:, 0] for bar in panel.containers[:-1]]
    np.testing.assert_allclose(ends, judged[["low", "high"]][:-1])
    (band,) = panel.patches
    assert [band.get_x(), band.get_x() + band.get_width()] == [-judged["margin"].iloc[0], 0.0]
    *said, last = texts(panel.texts)
    assert said[1::2] == [f"{row.n:.0f} {row.resampled}" for row in judged[:-1].itertuples()]
    assert last == f"smollm2-135m, layer 24: {judged['verdict'].iloc[-1]}"


def test_every_figure_is_as_wide_as_a_page_with_no_text_too_small_for_a_phone(evaluation, judged):
    points, fits = golden("gap_by_tokens"), golden("gap_by_tokens_fit")
    for figure in (
        drawn(evaluation),
        plots.front_gap_figure(judged),
        plots.gap_by_tokens_figure(points, fits, margin=0.03),
        plots.verification_figure({"one": verified("tiny-logits", 7)}),
        plots.controls_figure({"one": controls_of(2.0, [0.0, 1.0])}),
    ):
        assert figure.get_figwidth() == style.WIDTH
        written = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text())
        assert min(text.get_fontsize() for text in written) >= 9


SOMEBODYS = {
    "savefig.facecolor": "red", "figure.dpi": 37, "font.size": 20, "savefig.bbox": "tight",
    "axes.prop_cycle": plt.cycler(color="k"), "pdf.compression": 0, "xtick.direction": "in",
}  # fmt: skip
"""Settings of a user's own matplotlibrc."""


def test_a_figure_is_saved_with_the_same_bytes_in_the_styles_resolution(evaluation, tmp_path):
    saved = []
    for settings in ({}, SOMEBODYS):
        with plt.rc_context(settings):
            figure = drawn(evaluation.query("layer == 12"))
            plots.save_figure(figure, tmp_path / "fig3")
        saved.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert saved[0] == saved[1] and saved[0].keys() == {"fig3.pdf", "fig3.png"}
    width = matplotlib.image.imread(tmp_path / "fig3.png").shape[1]
    assert width == round(figure.get_figwidth() * 200)  # savefig.dpi of style.mplstyle
    assert b"/Type3" not in saved[0]["fig3.pdf"]  # pdf.fonttype 42: TrueType
    assert b"CreationDate" not in saved[0]["fig3.pdf"]
