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
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.text import Text

from helpers_evidence import controls_of
from transcoders.config import KINDS, TRAITS
from transcoders.plots import (
    COLOURS,
    LABELS,
    MARKERS,
    controls_figure,
    front_gap_figure,
    gap_by_tokens_figure,
    kept_figure,
    measures_figure,
    replacement_figure,
    save_figure,
    steering_figure,
    studies_figure,
    tradeoff_figure,
    training_figure,
    verification_figure,
    where_figure,
    years_figure,
)
from transcoders.plots.style import WIDTH

LAYERS = (8, 15)
SWEEP = (2e-05, 0.001, 0.5)
EXTENSIONS = [kind for kind in TRAITS if kind not in KINDS]


def texts(items):
    """What is written."""
    return [item.get_text() for item in items]


def legend(figure):
    """What a figure's only legend names."""
    return texts(figure.legends[0].get_texts())


def marks(panel):
    """All scattered points."""
    return [tuple(p) for part in panel.collections for p in part.get_offsets().tolist()]


def drawn(evaluation):
    return tradeoff_figure(evaluation, n_documents=34)


def row_of(layer, kind, sparsity, step):
    """A row of the table; λ₁ or k is ``sparsity``, and L0 falls as ``step`` grows."""
    is_topk = TRAITS[kind].is_topk
    ce = 3.6 + 0.01 * step + 0.002 * list(TRAITS).index(kind) + 0.1 * layer
    return {
        "dictionary": f"gpt2_layer{layer}_{kind}_" + (f"k-{sparsity}" if is_topk else "l1"),
        "site": f"gpt2_layer{layer}", "model": "gpt2", "layer": layer, "kind": kind,
        "headline": kind == "transcoder" and step == 0, "seed": 42, "n_features": 512,
        "l1_coefficient": np.nan if is_topk else sparsity, "l0": 100.0 / (step + 1),
        "ce": ce, "ce_low": ce - 0.005, "ce_high": ce + 0.007,
        "ce_original": 3.55 + 0.1 * layer, "ce_mean_ablated": 3.68 + 0.1 * layer,
    }  # fmt: skip


@pytest.fixture
def evaluation():
    """Two sites × three kinds × three λ₁, in another order than the plot's; extensions at one."""
    rows = [
        row_of(layer, kind, l1_coefficient, step)
        for layer in LAYERS
        for step, l1_coefficient in reversed(list(enumerate(SWEEP)))
        for kind in (*KINDS, "skip_transcoder", "skip_sae")
        if kind in KINDS or layer == 15
    ]
    for kind in ("topk_transcoder", "topk_sae"):
        rows += [row_of(15, kind, k, step) for k, step in ((32, 1), (64, 0))]
    return pd.DataFrame(rows).assign(dictionary=lambda t: t.index.astype(str) + t["dictionary"])


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_colours_and_markers_of_kinds_differ():
    for by_kind in (COLOURS, MARKERS, LABELS):
        assert list(by_kind) == list(TRAITS)
        assert len(set(by_kind.values())) == len(TRAITS)


def test_points_bars_bounds_and_labels_are_the_tables_rows_in_the_order_of_their_l0(evaluation):
    panels = drawn(evaluation).axes
    shown = [(8, KINDS), (15, KINDS), (15, ["transcoder", *EXTENSIONS])]
    titles = [panel.get_title() for panel in panels]
    assert titles == ["gpt2, layer 8", "gpt2, layer 15", "gpt2, layer 15:\nextensions"]
    for panel, (layer, kinds) in zip(panels, shown, strict=True):
        bars = [c for c in panel.containers if isinstance(c, ErrorbarContainer)]
        series = {container.get_label(): container for container in bars}
        assert set(series) == {LABELS[kind] for kind in kinds}
        for kind in kinds:
            rows = evaluation[(evaluation["layer"] == layer) & (evaluation["kind"] == kind)]
            rows = rows.sort_values("l0")
            line, _, (bars,) = series[LABELS[kind]].lines
            np.testing.assert_array_equal(line.get_xydata(), rows[["l0", "ce"]])
            ends = [segment[:, 1] for segment in bars.get_segments()]
            np.testing.assert_allclose(ends, rows[["ce_low", "ce_high"]], rtol=1e-12)
            look = to_hex(line.get_color()), line.get_marker()
            assert look == (COLOURS[kind].lower(), MARKERS[kind])
        n_topk = sum(TRAITS[kind].is_topk for kind in kinds)
        for label in ("32", "64", "2e-05", "0.001", "0.5"):
            n = n_topk if label in ("32", "64") else len(kinds) - n_topk
            assert texts(panel.texts).count(label) == n
        levels = {line.get_ydata()[0] for line in panel.lines if list(line.get_xdata()) == [0, 1]}
        assert levels == {3.55 + 0.1 * layer, 3.68 + 0.1 * layer}
        below, above = panel.get_ylim()
        assert below < min(levels) and max(levels) < above


def boxes_of(texts, figure):
    figure.draw_without_rendering()
    return [text.get_window_extent() for text in texts if text.get_visible()]


def test_numbers_stand_below_all_marks_and_never_on_each_other(evaluation):
    crowded = [row_of(8, "transcoder", 1e-5 * (i + 1), i / 4) for i in range(8)]
    figure = drawn(pd.concat([evaluation, pd.DataFrame(crowded)], ignore_index=True))
    hidden = 0
    for panel in figure.axes:
        boxes = boxes_of(panel.texts, figure)
        lowest = min(panel.transData.transform(line.get_xydata())[:, 1].min()
                     for line in panel.lines if len(line.get_xydata()) > 2)  # fmt: skip
        assert max(box.y1 for box in boxes) < lowest
        assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        hidden += sum(not text.get_visible() for text in panel.texts)
    assert hidden > 0


def test_dictionaries_trained_again_are_faint_points_without_a_line(evaluation):
    again = evaluation.assign(seed=43, headline=False, ce=evaluation["ce"] + 0.01)
    both = pd.concat([evaluation, again], ignore_index=True)
    for panel, with_faint in zip(drawn(evaluation).axes, drawn(both).axes, strict=True):
        assert texts(panel.texts) == texts(with_faint.texts)
        faint = [line for line in with_faint.lines if line.get_alpha()]
        assert len(faint) == len({line.get_color() for line in faint}) > 2
        assert {line.get_linestyle() for line in faint} == {"None"}
        assert {ce for line in faint for ce in line.get_ydata()} <= set(again["ce"])


def test_the_legend_names_every_kind_once_and_k_where_there_is_one(evaluation):
    papers = evaluation[evaluation["kind"].isin(KINDS)]
    for table, kinds in ((papers, KINDS), (evaluation, TRAITS)):
        figure = drawn(table)
        levels = ["MLP output replaced by its mean", "unmodified model"]
        assert sorted(legend(figure)) == sorted([*levels, *(LABELS[kind] for kind in kinds)])
        title = figure.legends[0].get_title().get_text()
        assert "34 documents" in title and ("TopK" in title) == (table is evaluation)


def test_training_curves_are_drawn_for_every_dictionary_of_every_kind(evaluation):
    headline = ~evaluation.duplicated(["site", "kind"], keep="last")
    curves = evaluation.assign(headline=headline).loc[evaluation.index.repeat(3)]
    tokens = np.tile([1000, 2000, 3000], len(evaluation))
    curves = curves.assign(
        tokens=tokens, fvu=0.5 / tokens, l0=curves["l0"] / tokens, dead_fraction=tokens / 1e4
    )
    figure = training_figure(curves)
    assert [panel.get_ylabel() for panel in figure.axes[::3]] == ["gpt2_layer8", "gpt2_layer15"]
    for number, quantity in enumerate(("fvu", "l0", "dead_fraction")):
        for group, layer in enumerate(LAYERS):
            lines = figure.axes[3 * group + number].lines
            here = curves[curves["layer"] == layer]
            dictionaries = here.groupby("dictionary")
            assert len(lines) == len(dictionaries)
            assert {(tuple(line.get_ydata()), to_hex(line.get_color())) for line in lines} == {
                (tuple(rows[quantity]), COLOURS[rows["kind"].iloc[0]].lower())
                for _, rows in dictionaries
            }
            widths = sorted(line.get_linewidth() for line in lines)
            assert widths.count(widths[-1]) == here["kind"].nunique()
    assert sorted(legend(figure)) == sorted(LABELS.values())


def verified(n_parts=3):
    rows = [("tc1[2]@3", "feature", 1, 0.8), ("attn0[1]@2", "head", -0.5, -0.6),
            ("mlp2@3", "mlp", 0.2, 0.1)]  # fmt: skip
    effects = pd.DataFrame(rows, columns=["node", "kind", "attribution", "effect"])
    sizes = [0, 1, 2, 4, 8, 64, 512, 4096]
    shares = {"faithfulness": [0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.0]}
    curve = pd.DataFrame({"n_nodes": sizes, **shares})
    return effects, curve.assign(remaining=1 - curve["faithfulness"]), n_parts


def test_verification_has_a_row_a_circuit_and_every_node_and_size_in_it():
    figure = verification_figure({"one": verified(), "other": verified(7)})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles[2:] == ["other\n3 nodes", "other\ncircuit of 7 parts"]
    left, right = figure.axes[2:]
    assert sorted(marks(left)) == [(-0.5, -0.6), (0.2, 0.1), (1.0, 0.8)]
    assert legend(figure)[3:] == ["only these", "all but these", "the circuit found"]
    only, all_but = right.lines[:2]
    assert list(only.get_ydata()) == list(verified()[1]["faithfulness"])
    assert list(all_but.get_ydata()) == list(verified()[1]["remaining"])


def test_controls_show_every_set_of_every_circuit_as_a_share_of_all_parts():
    draws = [0.0, 1.0, 3.0]
    circuits = {"one": 2.0, "other": -1.5}
    figure = controls_figure(
        {name: controls_of(effect, draws, everything=-4.0) for name, effect in circuits.items()}
    )
    assert [panel.get_title() for panel in figure.axes] == ["necessity", "sufficiency"]
    assert texts(figure.axes[0].get_yticklabels()) == ["one", "other"]
    for panel in figure.axes:
        for row, effect in enumerate(circuits.values()):
            found = [x for x, y in marks(panel) if abs(y - row) < 0.5]
            effects = [*draws, *(draw / 2 for draw in draws), 1.0, effect]
            assert sorted(found) == pytest.approx(sorted(effect / 4 for effect in effects))
    assert len(legend(figure)) == 4
    assert figure.legends[0].get_title().get_text() == "3 random sets of each sort"


def test_steering_has_a_panel_a_factor_with_every_node_and_the_slope():
    rows = [(kind, factor, (factor - 1) * x, 2 * (factor - 1) * x)
            for factor in (0, 2, -1) for kind, x in (("feature", 1.0), ("head", 0.5), ("mlp", -1.0))
            ]  # fmt: skip
    steered = pd.DataFrame(rows, columns=["kind", "factor", "predicted", "change"])
    figure = steering_figure({"one": steered, "other": steered})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [f"× {factor}: 6 nodes\nr = 1.00, slope 2.00" for factor in (-1, 0, 2)]
    for axes, factor in zip(figure.axes, (-1, 0, 2), strict=True):
        for part, x in zip(axes.collections, (1.0, 0.5, -1.0), strict=True):
            point = [(factor - 1) * x, 2 * (factor - 1) * x]
            assert part.get_offsets().tolist() == [point, point]


def test_replacement_draws_each_model_and_the_errors_of_each_circuit():
    quality = pd.DataFrame(
        {
            "model": ["a", "a", "b"], "n_replaced": [0, 2, 0], "layers": [np.nan, "3 5", np.nan],
            "ce": [3.0, 3.5, 4.0], "ce_low": [3.0, 3.4, 4.0], "ce_high": [3.0, 3.6, 4.0],
            "ce_mean_ablated": [3.0, 5.0, 4.0], "ce_mean_ablated_low": [3.0, 4.5, 4.0],
            "ce_mean_ablated_high": [3.0, 5.5, 4.0], "ce_original": [3.0, 3.0, 4.0],
        }
    )  # fmt: skip
    errors = pd.DataFrame(
        {"origin": ["embed", "error", "error"], "layer": [-1, 3, 5], "share": [0.4, 0.35, -0.9]}
    )
    figure = replacement_figure(quality, {"one": errors, "other": errors[:2]})
    of_a, of_b, shares = figure.axes
    assert (of_a.get_title(), of_b.get_title()) == ("a", "b")
    lines = [list(line.get_ydata()) for line in of_a.lines]
    assert [3.0, 5.0] in lines and [3.0, 3.5] in lines
    assert texts(shares.texts) == ["-0.90", "0.35", "0.35"]
    assert texts(shares.get_yticklabels()) == ["5", "3"]
    assert texts(shares.get_xticklabels()) == ["one", "other"]


def test_where_draws_every_part_and_names_the_chosen_ones():
    rows = [
        ("mlp0", "mlp", 0, 0.1, 0.5, 1.0, False),
        ("mlp1", "mlp", 1, 0.4, 0.2, 2.0, True),
        ("attn0[0]", "head", 0, -0.1, 0.0, -1.0, False),
        ("attn1[0]", "head", 1, 0.3, 0.1, 0.5, False),
    ]
    columns = ["part", "kind", "layer", "mean", "zero", "attribution", "has_transcoder"]
    where = pd.DataFrame(rows, columns=columns)
    figure = where_figure(where, 1, "attn0[0]")
    for panel, column in zip(figure.axes, ("mean", "zero", "attribution"), strict=True):
        heights = sorted(patch.get_height() for patch in panel.patches)
        assert heights == sorted(where.loc[where["kind"] == "mlp", column])
        assert [y for _, y in marks(panel)] == list(where.loc[where["kind"] == "head", column])
        assert set(texts(panel.texts)) == {"MLP 1", "attn0[0]"}


def kept_curves(templates):
    rows = [
        {"curve": curve, "kept": kept, "template": template, "metric": base + kept / 100,
         "low": base, "high": base + 0.2}
        for curve, base in (("transcoder", 0.5), ("transcoder_without_bad", 0.55), ("neurons", 0.4))
        for kept in (0, 1, 2, 8)
        for template in ("all", *(str(i + 1) for i in range(templates)))
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("templates", [1, 2])
def test_kept_has_a_panel_for_all_and_for_each_of_several_templates(templates):
    values = {"original": 0.9, "transcoder": 0.8, "removed": 0.3}
    levels = {name: {"value": value} for name, value in values.items()}
    figure = kept_figure(kept_curves(templates), levels)
    titles = [axes.get_title() for axes in figure.axes]
    each = ["template 1 (n = 98)", "template 2 (n = 98)"]
    assert titles == [f"all prompts (n = {98 * templates})", *(each if templates == 2 else [])]
    panel = figure.axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in panel.lines}
    assert lines["transcoder features"] == [0.5, 0.51, 0.52, 0.58]
    assert lines["neurons of the MLP"][-1] == pytest.approx(0.48)
    assert lines["unmodified model"] == [0.9, 0.9]
    assert set(lines) == set(legend(figure))


def test_years_has_a_row_a_feature_and_a_column_a_quantity():
    by_year = pd.DataFrame(
        [
            {"feature": feature, "quantity": quantity, "number": number, "value": float(number)}
            for feature in ("tc1[5]", "tc1[7]")
            for quantity, n in (("activation", 100), ("dla", 10), ("de_embedding", 10))
            for number in range(n)
        ]
    )
    described = pd.DataFrame(
        {"feature": ["tc1[5]", "tc1[7]"], "rank": [1, 9], "bad": [False, True]}
    )
    figure = years_figure(described, by_year, "digits")
    axes = figure.axes
    assert [len(panel.patches) for panel in axes] == [100, 10, 10] * 2
    assert "harm" in axes[3].get_ylabel() and "harm" not in axes[0].get_ylabel()
    assert axes[5].get_xlabel() == "tens digit of YY"
    assert years_figure(described, by_year, "pairs").axes[5].get_xlabel() == "YY"


def judged(*gaps):
    """Rows of claims.csv, one a site."""
    return pd.DataFrame(
        [
            {"claim": f"pareto:gpt2_layer{8 + i}", "margin": 0.03, "value": value, "low": low,
             "high": high, "n": 34, "resampled": "documents", "verdict": "inconclusive"}
            for i, (value, low, high) in enumerate(gaps)
        ]
    )  # fmt: skip


def test_the_gap_of_every_site_stands_with_its_interval_beside_the_margin():
    gaps = (-0.02, -0.06, 0.02), (-0.06, -0.09, -0.04), (np.nan,) * 3
    figure = front_gap_figure(judged(*gaps))
    (panel,) = figure.axes
    points = [bar.lines[0].get_xdata()[0] for bar in panel.containers]
    np.testing.assert_array_equal(points, [value for value, *_ in gaps])
    for bar, (_, low, high) in zip(panel.containers[:2], gaps, strict=False):
        np.testing.assert_allclose(bar.lines[2][0].get_segments()[0][:, 0], [low, high])
    (band,) = panel.patches
    assert [band.get_x(), band.get_x() + band.get_width()] == [-0.03, 0.0]
    assert texts(panel.texts).count("34 documents") == 2
    assert texts(panel.texts)[-1] == "gpt2, layer 10: inconclusive"
    for text, bar in zip(boxes_of(panel.texts[:3:2], figure), panel.containers[:2], strict=True):
        assert not text.overlaps(bar.lines[0].get_window_extent())


def test_measures_and_studies_say_how_many_features_they_are_about():
    summary = pd.DataFrame(
        [
            {"dictionary": name, "measure": measure, "n_features": n}
            for name, n in (("a", 1200), ("b", 30))
            for measure in ("single_token_share", "token_entropy", "rule_accuracy")
        ]
    )
    summary = summary.assign(mean=0.5, low=0.4, high=0.6)
    figure = measures_figure(summary, {"a": "transcoder", "b": "mlp_in_sae"})
    labels = texts(figure.axes[2].get_yticklabels())
    assert labels == ["SAE on MLP input\n30 features", "transcoder\n1,200 features"]
    rows = [("all", "all", 40, 0.1), ("layer", "3", 25, 0.2), ("layer", "5", 15, 0.3)]
    gains = pd.DataFrame(rows, columns=["by", "group", "n_features", "precision_gain"])
    gains = gains.assign(method="direct", correlation_gain=-gains["precision_gain"])
    for score in ("precision", "correlation"):
        for end, shift in (("low", -0.05), ("high", 0.05)):
            gains[f"{score}_gain_{end}"] = gains[f"{score}_gain"] + shift
    panels = studies_figure(gains).axes
    assert texts(panels[2].get_yticklabels()) == ["3 (25)", "5 (15)"]
    for panel, sign in zip(panels[2:], (1, -1), strict=True):
        gained = panel.containers[0].lines[0].get_xdata()
        np.testing.assert_allclose(gained.astype(float), [sign * 0.2, sign * 0.3])


def test_every_figure_is_as_wide_as_a_page_with_no_text_too_small_for_a_phone(evaluation):
    points, fits = (
        pd.read_csv(Path(__file__).parent / "golden" / f"gap_by_tokens{part}.csv")
        for part in ("", "_fit")
    )
    for figure in (
        drawn(evaluation),
        front_gap_figure(judged((0.1, 0.0, 0.2))),
        gap_by_tokens_figure(points, fits, margin=0.03),
        verification_figure({"one": verified()}),
        controls_figure({"one": controls_of(2.0, [0.0, 1.0])}),
    ):
        assert figure.get_figwidth() == WIDTH
        written = figure.findobj(lambda artist: isinstance(artist, Text) and artist.get_text())
        assert min(text.get_fontsize() for text in written) >= 9


SOMEBODYS = {
    "savefig.facecolor": "red", "figure.facecolor": "green", "figure.dpi": 37, "font.size": 20,
    "axes.prop_cycle": plt.cycler(color="k"), "savefig.bbox": "tight", "text.color": "blue",
    "axes.formatter.use_locale": True, "pdf.compression": 0, "xtick.direction": "in",
}  # fmt: skip
"""Settings of a user's own matplotlibrc."""


def test_a_figure_is_saved_with_the_same_bytes_in_the_styles_resolution_and_fonts(
    evaluation, tmp_path
):
    table = evaluation.query("layer == 8")
    figure, saved = drawn(table), []
    for settings in ({}, SOMEBODYS, SOMEBODYS):
        with plt.rc_context(settings):
            figure = drawn(table) if len(saved) == 2 else figure  # one of them twice
            save_figure(figure, tmp_path / "fig3")
        saved.append([(tmp_path / f"fig3{suffix}").read_bytes() for suffix in (".pdf", ".png")])
    assert saved[0] == saved[1] == saved[2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fig3.pdf", "fig3.png"]
    width = matplotlib.image.imread(tmp_path / "fig3.png").shape[1]
    assert width == round(figure.get_figwidth() * 200)  # savefig.dpi of style.mplstyle
    assert b"/Type3" not in saved[0][0]  # pdf.fonttype 42: TrueType
    assert b"CreationDate" not in saved[0][0]
