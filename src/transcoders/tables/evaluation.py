"""How much dictionaries cost the model, and how they were trained."""

import re
from collections.abc import Sequence

import pandas as pd
from pandas.io.formats.style import Styler

from transcoders.config import Dictionary
from transcoders.files import read_table
from transcoders.layout import Layout
from transcoders.plots import LABELS, sparsity_label

EVALUATION_COLUMNS = {
    "kind": ("kind", "{}"),
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
"""Heading and format of each column of ``evaluation.csv`` that a page shows."""
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
    """A heading and one line of Markdown: the bounds at a site, and how much data there was."""
    first = rows.iloc[0]
    return (
        f"### {first['model']}, layer {first['layer']}\n\n"
        f"CE {first['ce_original']:.4f} unmodified, {first['ce_mean_ablated']:.4f} with the MLP's "
        f"mean output, {first['ce_zero_ablated']:.4f} with none; {first['tokens_evaluated']:,} "
        f"held-out tokens; dictionaries of {first['n_features']:,} features, trained on "
        f"{first['tokens_trained']:,} tokens (repetitions counted)."
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
    """The dictionaries of a site as an HTML table, headline dictionaries in bold."""
    return _html_table(rows, EVALUATION_COLUMNS)


def final_values_table(curves: pd.DataFrame) -> str:
    """The last row of every training curve as an HTML table, headline dictionaries in bold."""
    return _html_table(curves.groupby("dictionary", sort=False).tail(1), TRAINING_COLUMNS)


def _html_table(rows: pd.DataFrame, columns: dict[str, tuple[str, str]]) -> str:
    shown = rows[list(columns)].replace({"kind": LABELS})
    shown["l1_coefficient"] = rows.apply(sparsity_label, axis="columns")
    shown = shown.rename(columns={key: name for key, (name, _) in columns.items()})
    bold = rows["headline"].map({True: "font-weight: bold", False: ""})
    styler: Styler = (
        shown.style.hide(axis="index")
        .format(dict(columns.values()))
        .apply(lambda column: bold.loc[column.index])
        # A part of CSS selectors. A random one would change the page each time.
        .set_uuid(re.sub(r"[^\w-]+", "-", str(rows["site"].iloc[0])))
    )
    return styler.to_html()
