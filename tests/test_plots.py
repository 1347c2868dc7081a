"""Figures say what their tables say, in the same bytes every time."""

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer

from transcoders.config import KINDS, TRAITS
from transcoders.plots import (
    COLOURS,
    LABELS,
    MARKERS,
    kept_figure,
    save_figure,
    sparsity_label,
    tradeoff_figure,
    training_figure,
    verification_figure,
    where_figure,
    years_figure,
)

LAYERS = (8, 15)
SWEEP = (2e-05, 0.001, 0.5)


def row_of(layer, kind, sparsity, step) -> dict[str, object]:
    """A row of the table; λ₁ or k is ``sparsity``, and L0 falls as ``step`` grows."""
    index = list(TRAITS).index(kind)
    is_topk = TRAITS[kind].is_topk
    name = f"gpt2_layer{layer}_{kind}_" + (f"k-{sparsity}" if is_topk else f"l1-{sparsity:g}")
    return {
        "dictionary": name,
        "site": f"gpt2_layer{layer}",
        "model": "gpt2",
        "layer": layer,
        "kind": kind,
        "l1_coefficient": np.nan if is_topk else sparsity,
        "l0": 100.0 / (step + 1) + index,
        "ce": 3.6 + 0.01 * step + 0.002 * index + 0.1 * layer,
        "ce_low": 3.595 + 0.01 * step + 0.002 * index + 0.1 * layer,
        "ce_high": 3.607 + 0.01 * step + 0.002 * index + 0.1 * layer,
        "ce_original": 3.55 + 0.1 * layer,
        "ce_mean_ablated": 3.68 + 0.1 * layer,
    }


@pytest.fixture
def evaluation() -> pd.DataFrame:
    """Two sites × three kinds × three L1 coefficients, in an order that is not the plot's."""
    rows = [
        row_of(layer, kind, l1_coefficient, step)
        for layer in LAYERS
        for step, l1_coefficient in reversed(list(enumerate(SWEEP)))
        for kind in KINDS
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def extended(evaluation) -> pd.DataFrame:
    """The same with extensions at the second site: skip transcoders, and two of each with TopK."""
    rows = [row_of(15, "skip_transcoder", l1, step) for step, l1 in enumerate(SWEEP)]
    for kind in ("topk_transcoder", "topk_sae"):
        rows += [row_of(15, kind, k, step) for k, step in ((32, 1), (64, 0))]
    return pd.concat([evaluation, pd.DataFrame(rows)], ignore_index=True)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def series_of(panel) -> dict[str, ErrorbarContainer]:
    return {c.get_label(): c for c in panel.containers if isinstance(c, ErrorbarContainer)}


def test_each_site_has_a_panel_with_its_model_and_layer(evaluation):
    panels = tradeoff_figure(evaluation).axes
    assert [panel.get_title() for panel in panels] == ["gpt2, layer 8", "gpt2, layer 15"]


def test_each_kind_is_one_series_with_its_own_colour_and_marker(evaluation):
    for panel in tradeoff_figure(evaluation).axes:
        series = series_of(panel)
        assert set(series) == {LABELS[kind] for kind in KINDS}
        for kind in KINDS:
            line = series[LABELS[kind]].lines[0]
            assert to_hex(line.get_color()) == COLOURS[kind].lower()
            assert line.get_marker() == MARKERS[kind]


def test_colours_and_markers_of_kinds_differ():
    for by_kind in (COLOURS, MARKERS, LABELS):
        assert list(by_kind) == list(TRAITS)
        assert len(set(by_kind.values())) == len(TRAITS)


def test_points_are_the_tables_rows_joined_in_the_order_of_their_l0(evaluation):
    for panel, layer in zip(tradeoff_figure(evaluation).axes, LAYERS, strict=True):
        for kind in KINDS:
            container = series_of(panel)[LABELS[kind]]
            rows = evaluation[(evaluation["layer"] == layer) & (evaluation["kind"] == kind)]
            rows = rows.sort_values("l0")
            np.testing.assert_array_equal(container.lines[0].get_xdata(), rows["l0"])
            np.testing.assert_array_equal(container.lines[0].get_ydata(), rows["ce"])


def test_error_bars_reach_from_ce_low_to_ce_high(evaluation):
    panel = tradeoff_figure(evaluation).axes[0]
    for kind in KINDS:
        (bars,) = series_of(panel)[LABELS[kind]].lines[2]
        ends = [(segment[0, 1], segment[1, 1]) for segment in bars.get_segments()]
        rows = evaluation[(evaluation["layer"] == 8) & (evaluation["kind"] == kind)]
        rows = rows.sort_values("l0")
        # ce - (ce - ce_low) rounds
        np.testing.assert_allclose(ends, rows[["ce_low", "ce_high"]], rtol=1e-12)


def test_every_point_is_labelled_with_its_l1_coefficient(evaluation):
    for panel in tradeoff_figure(evaluation).axes:
        texts = [text.get_text() for text in panel.texts]
        for label in ("2e-05", "0.001", "0.5"):
            assert texts.count(label) == len(KINDS)


def test_both_bounds_are_drawn_across_each_panel(evaluation):
    for panel, layer in zip(tradeoff_figure(evaluation).axes, LAYERS, strict=True):
        levels = {line.get_ydata()[0] for line in panel.lines if list(line.get_xdata()) == [0, 1]}
        assert levels == {3.55 + 0.1 * layer, 3.68 + 0.1 * layer}
        below, above = panel.get_ylim()
        assert below < min(levels)
        assert max(levels) < above


def test_the_legend_names_every_kind_once(evaluation):
    (legend,) = tradeoff_figure(evaluation).legends
    assert [text.get_text() for text in legend.get_texts()] == [LABELS[kind] for kind in KINDS]


def test_a_single_site_with_a_single_dictionary_a_kind_is_a_figure(evaluation):
    one = evaluation.query("layer == 8 and l1_coefficient == 0.5")
    (panel,) = tradeoff_figure(one).axes
    assert len(series_of(panel)) == 3


def test_extensions_have_a_panel_of_their_own_beside_the_sites_transcoders(extended):
    *papers, extensions = tradeoff_figure(extended).axes
    assert [set(series_of(panel)) for panel in papers] == [{LABELS[kind] for kind in KINDS}] * 2
    assert extensions.get_title() == "gpt2, layer 15: extensions"
    series = series_of(extensions)
    shown = ["transcoder", *(kind for kind in TRAITS if kind not in KINDS)]
    assert set(series) == {LABELS[kind] for kind in shown}
    for kind in shown:
        rows = extended[(extended["layer"] == 15) & (extended["kind"] == kind)].sort_values("l0")
        line = series[LABELS[kind]].lines[0]
        np.testing.assert_array_equal(line.get_xdata(), rows["l0"])
        np.testing.assert_array_equal(line.get_ydata(), rows["ce"])
        assert (to_hex(line.get_color()), line.get_marker()) == (
            COLOURS[kind].lower(),
            MARKERS[kind],
        )


def test_topk_dictionaries_are_labelled_with_their_k(evaluation, extended):
    *papers, extensions = tradeoff_figure(extended).axes
    texts = [text.get_text() for text in extensions.texts]
    assert (texts.count("32"), texts.count("64")) == (2, 2)
    assert texts.count("0.001") == 2  # of the transcoder and the skip transcoder
    for panel in papers:
        assert not {"32", "64", "nan"} & {text.get_text() for text in panel.texts}
    for table, mentioned in ((evaluation, False), (extended, True)):
        (legend,) = tradeoff_figure(table).legends
        assert ("TopK" in legend.get_title().get_text()) == mentioned


def test_the_legend_names_kinds_that_are_at_one_site_only(extended):
    (legend,) = tradeoff_figure(extended).legends
    assert [text.get_text() for text in legend.get_texts()] == [LABELS[kind] for kind in TRAITS]


@pytest.mark.parametrize(
    ("kind", "sparsity", "label"),
    [
        ("transcoder", 2e-5, "2e-05"),
        ("skip_transcoder", 0.25, "0.25"),
        ("topk_transcoder", 32, "32"),
        ("topk_transcoder", 128, "128"),
    ],
)
def test_a_dictionary_is_labelled_with_what_sets_its_sparsity(kind, sparsity, label, tmp_path):
    rows = pd.DataFrame([row_of(8, kind, sparsity, 0), row_of(8, "transcoder", 0.5, 0)])
    rows.to_csv(tmp_path / "evaluation.csv", index=False)
    read = pd.read_csv(tmp_path / "evaluation.csv")
    assert sparsity_label(rows.iloc[0]) == sparsity_label(read.iloc[0]) == label


@pytest.fixture
def curves(extended) -> pd.DataFrame:
    """Three rows of ``training.csv`` for each dictionary, the last of each kind a headline one."""
    headline = ~extended.duplicated(["site", "kind"], keep="last")
    rows = extended.assign(headline=headline).loc[extended.index.repeat(3)]
    tokens = np.tile([1000, 2000, 3000], len(extended))
    return rows.assign(
        tokens=tokens, fvu=0.5 / tokens, l0=rows["l0"] / tokens, dead_fraction=tokens / 1e4
    )


def test_training_curves_are_drawn_for_every_dictionary_of_every_kind(curves):
    panels = training_figure(curves).axes
    assert [panel.get_title() for panel in panels[:2]] == ["gpt2_layer8", "gpt2_layer15"]
    for number, quantity in enumerate(("fvu", "l0", "dead_fraction")):
        for column, layer in enumerate(LAYERS):
            lines = panels[2 * number + column].lines
            at_site = curves[curves["layer"] == layer].groupby("dictionary")
            assert len(lines) == len(at_site)
            drawn = {(tuple(line.get_ydata()), to_hex(line.get_color())) for line in lines}
            assert drawn == {
                (tuple(rows[quantity]), COLOURS[rows["kind"].iloc[0]].lower())
                for _, rows in at_site
            }
            widths = sorted(line.get_linewidth() for line in lines)
            n_headlines = curves[curves["layer"] == layer]["kind"].nunique()
            assert widths.count(widths[-1]) == n_headlines


def test_the_legend_of_the_training_curves_names_every_kind_once(curves):
    (legend,) = training_figure(curves).legends
    assert {text.get_text() for text in legend.get_texts()} == set(LABELS.values())
    assert len(legend.get_texts()) == len(TRAITS)


def verified(n_parts: int = 3) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    effects = pd.DataFrame(
        {
            "node": ["tc1[2]@3", "attn0[1]@2", "mlp2@3"],
            "kind": ["feature", "head", "mlp"],
            "attribution": [1.0, -0.5, 0.2],
            "effect": [0.8, -0.6, 0.1],
        }
    )
    sizes = [0, 1, 2, 4, 8, 64, 512, 4096]
    shares = {"faithfulness": [0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.0]}
    curve = pd.DataFrame({"n_nodes": sizes, **shares})
    return effects, curve.assign(remaining=1 - curve["faithfulness"]), n_parts


def test_verification_has_a_row_a_circuit_and_every_node_and_size_in_it():
    figure = verification_figure({"one": verified(), "other": verified(7)})
    assert [axes.get_title() for axes in figure.axes] == ["one", "", "other", ""]
    left, right = figure.axes[2:]
    points = [tuple(p) for part in left.collections for p in part.get_offsets().tolist()]
    assert sorted(points) == [(-0.5, -0.6), (0.2, 0.1), (1.0, 0.8)]
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert labels == ["only these", "all but these", "the circuit found: 7 parts"]
    only, all_but = right.lines[:2]
    assert list(only.get_ydata()) == list(verified()[1]["faithfulness"])
    assert list(all_but.get_ydata()) == list(verified()[1]["remaining"])


def test_where_draws_every_part_and_names_the_chosen_ones():
    where = pd.DataFrame(
        {
            "part": ["mlp0", "mlp1", "attn0[0]", "attn1[0]"],
            "kind": ["mlp", "mlp", "head", "head"],
            "layer": [0, 1, 0, 1],
            "mean": [0.1, 0.4, -0.1, 0.3],
            "zero": [0.5, 0.2, 0.0, 0.1],
            "attribution": [1.0, 2.0, -1.0, 0.5],
            "has_transcoder": [False, True, False, False],
        }
    )
    figure = where_figure(where, 1, "attn0[0]")
    for panel, column in zip(figure.axes, ("mean", "zero", "attribution"), strict=True):
        heights = sorted(patch.get_height() for patch in panel.patches)
        assert heights == sorted(where.loc[where["kind"] == "mlp", column])
        points = panel.collections[0].get_offsets().tolist()
        assert [y for _, y in points] == list(where.loc[where["kind"] == "head", column])
        assert {text.get_text() for text in panel.texts} == {"MLP 1", "attn0[0]"}


def kept_curves(templates: int) -> pd.DataFrame:
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
    levels = {name: {"value": v} for name, v in
              (("original", 0.9), ("transcoder", 0.8), ("removed", 0.3))}  # fmt: skip
    figure = kept_figure(kept_curves(templates), levels)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["all prompts", *(["template 1", "template 2"] if templates == 2 else [])]
    panel = figure.axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in panel.lines}
    assert lines["transcoder features"] == [0.5, 0.51, 0.52, 0.58]
    assert lines["neurons of the MLP"][-1] == pytest.approx(0.48)
    assert lines["unmodified model"] == [0.9, 0.9]
    legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert set(lines) == legend


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
    assert len(axes) == 6
    assert [len(panel.patches) for panel in axes[:3]] == [100, 10, 10]
    assert "bad" in axes[3].get_ylabel() and "bad" not in axes[0].get_ylabel()
    assert axes[4].get_xlabel() == "tens digit of YY"
    assert years_figure(described, by_year, "pairs").axes[4].get_xlabel() == "YY"


def saved(figure, path) -> list[bytes]:
    save_figure(figure, path)
    return [path.with_suffix(suffix).read_bytes() for suffix in (".pdf", ".png")]


def test_the_same_table_gives_the_same_bytes(evaluation, tmp_path):
    one_site = evaluation.query("layer == 8")
    first, again = (saved(tradeoff_figure(one_site), tmp_path / name / "fig3") for name in "ab")
    assert first == again
    assert b"CreationDate" not in first[0]


def test_saving_a_figure_twice_gives_the_same_bytes(evaluation, tmp_path):
    figure = tradeoff_figure(evaluation.query("layer == 8"))
    assert saved(figure, tmp_path / "fig3") == saved(figure, tmp_path / "fig3")


def test_a_figure_is_saved_in_the_resolution_and_fonts_of_the_style(evaluation, tmp_path):
    figure = tradeoff_figure(evaluation.query("layer == 8"))
    save_figure(figure, tmp_path / "fig3")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fig3.pdf", "fig3.png"]
    width = matplotlib.image.imread(tmp_path / "fig3.png").shape[1]
    assert width == round(figure.get_figwidth() * 200)  # savefig.dpi of style.mplstyle
    assert b"/Type3" not in (tmp_path / "fig3.pdf").read_bytes()  # pdf.fonttype 42: TrueType
