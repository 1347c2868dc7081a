"""How much dictionaries cost the model, and how they were trained."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from transcoders.config import Dictionary
from transcoders.files import read_table
from transcoders.fronts import Setup, like_headline
from transcoders.layout import Layout
from transcoders.plots.style import LABELS, sparsity_label
from transcoders.tables.html import html_table
from transcoders.templates import SCROLLING

TRAINED_COLUMNS = {
    "n_features": ("features", "{:,}"),
    "tokens_trained": ("tokens", "{:,}"),
    "tokens_different": ("different tokens", "{:,}"),
}
"""Heading and format of what dictionaries must have in common to be compared."""
EVALUATION_COLUMNS = {
    "kind": ("kind", "{}"),
    "seed": ("seed", "{}"),
    "l1_coefficient": ("λ₁ or k", "{}"),
    "l0": ("L0", "{:.1f}"),
    "ce": ("CE", "{:.4f}"),
    "ce_low": ("CE low", "{:.4f}"),
    "ce_high": ("CE high", "{:.4f}"),
    "ce_recovered": ("CE recovered", "{:.3f}"),
    "kl": ("KL", "{:.4f}"),
    "fvu": ("FVU", "{:.3f}"),
    "dead_fraction": ("dead", "{:.3f}"),
    "l2_ratio": ("norm ratio", "{:.3f}"),
}
"""The same for each other column of ``evaluation.csv`` that a page shows."""
LAYER_COLUMNS = {
    "model": ("model", "{}"),
    "layer": ("layer", "{}"),
    "tokens_trained": ("tokens", "{:,}"),
    **{name: EVALUATION_COLUMNS[name] for name in ("l1_coefficient", "l0")},
    "ce_original": ("CE unmodified", "{:.4f}"),
    "ce_mean_ablated": ("CE, mean output", "{:.4f}"),
    **{name: EVALUATION_COLUMNS[name] for name in ("ce", "ce_recovered", "fvu", "dead_fraction")},
}
"""The same for transcoders at sites that only circuits use."""
TRAINING_COLUMNS = {
    "kind": ("kind", "{}"),
    "l1_coefficient": ("λ₁ or k", "{}"),
    "loss": ("loss", "{:.1f}"),
    "l0": ("L0", "{:.1f}"),
    "fvu": ("FVU", "{:.3f}"),
    "dead_fraction": ("never fired", "{:.3f}"),
}
"""The same for ``training.csv``."""


def describe_site(rows: pd.DataFrame) -> str:
    """A heading and one line of Markdown: the bounds at a site, and how much data there was.

    Args:
        rows: of ``evaluation.csv``: dictionaries of the site that were trained alike.
    """
    first = rows.iloc[0]
    return (
        f"### {first['model']}, layer {first['layer']}\n\n"
        f"CE {first['ce_original']:.4f} unmodified, {first['ce_mean_ablated']:.4f} with the MLP's "
        f"mean output, {first['ce_zero_ablated']:.4f} with none; {first['tokens_evaluated']:,} "
        f"held-out tokens; dictionaries of {first['n_features']:,} features, trained on "
        f"{first['tokens_trained']:,} tokens ({first['tokens_different']:,} different ones)."
    )


def training_curves(dictionaries: Sequence[Dictionary], layout: Layout) -> pd.DataFrame:
    """The training curves of all dictionaries, with the columns that ``training_figure`` needs."""
    curves = []
    for entry in dictionaries:
        curve = read_table(layout.dictionary(entry.name) / "training.csv")
        of_entry = entry.model_dump(include={"kind", "headline", "l1_coefficient"})
        site = f"{entry.site.model}, layer {entry.site.layer}"
        curves.append(curve.assign(dictionary=entry.name, site=site, **of_entry))
    return pd.concat(curves, ignore_index=True)


def evaluation_table(rows: pd.DataFrame) -> str:
    """The dictionaries of a site as HTML tables, headline dictionaries in bold.

    Those that were not trained like these come second, folded in.
    """
    alike = like_headline(rows, *Setup._fields)
    table, others = _html_table(rows[alike], EVALUATION_COLUMNS, name="alike"), rows[~alike]
    if others.empty:
        return table
    folded = _html_table(others, TRAINED_COLUMNS | EVALUATION_COLUMNS, name="others")
    return (
        f"{_scrolling(table)}<details><summary>{len(others)} dictionaries of another width, or "
        f"trained on another amount of data</summary>{_scrolling(folded)}</details>"
    )


def circuit_sites_table(rows: pd.DataFrame) -> str:
    """The transcoders of sites that only circuits use, as one HTML table."""
    return _html_table(rows.assign(headline=False), LAYER_COLUMNS, name="circuit-sites")


def _scrolling(table: str) -> str:
    """A table that scrolls by itself. Pages do this only for a table that stands alone."""
    return f"{SCROLLING}{table}</div>"


def by_source_table(evaluation: pd.DataFrame, by_document: pd.DataFrame) -> str:
    """What headline dictionaries cost on text of each source, as HTML; empty for a single source.

    Args:
        evaluation: rows of ``evaluation.csv``.
        by_document: ``evaluation_by_document.csv``.
    """
    if by_document["source"].nunique() < 2:
        return ""
    headline = evaluation[evaluation["headline"]]
    rows = []
    for entry in headline.to_dict("records"):
        row = {"site": entry["site"], "kind": LABELS[entry["kind"]]}
        own = by_document[by_document["dictionary"] == entry["dictionary"]]
        for source, documents in own.groupby("source"):
            excess = documents["ce"] - documents["ce_original"]
            added = np.average(excess, weights=documents["tokens"])
            recovered = 1 - added / (entry["ce_mean_ablated"] - entry["ce_original"])
            row[f"{source} ({len(documents)} documents)"] = f"{added:+.4f} ({recovered:.2f})"
        rows.append(row)
    return html_table(pd.DataFrame(rows), {}, name="sources")


def final_values_table(curves: pd.DataFrame) -> str:
    """The last row of every training curve as an HTML table, headline dictionaries in bold."""
    last = curves.groupby("dictionary", sort=False).tail(1)
    return _html_table(last, TRAINING_COLUMNS, name="trained")


def _html_table(rows: pd.DataFrame, columns: dict[str, tuple[str, str]], *, name: str) -> str:
    shown = rows[list(columns)].replace({"kind": LABELS})
    shown["l1_coefficient"] = rows.apply(sparsity_label, axis="columns")
    headings = {column: heading for column, (heading, _) in columns.items()}
    formats = {column: how for column, (_, how) in columns.items() if column != "kind"}
    return html_table(shown, formats, name=name, headings=headings, bold=rows["headline"])
