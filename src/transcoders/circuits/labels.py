"""Names of features that a person can read, each with a score that says how far to trust it.

:mod:`transcoders.interpretability.labelling` makes them; whoever shows a circuit reads them here.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from transcoders.config import Scale
from transcoders.files import read_table, write_table
from transcoders.layout import Layout

TRUSTED = 0.75
"""Balanced accuracy from which a label is shown as a feature's name."""
N_EXAMPLES = 3
LONGEST = 40
"""Characters of an example that stands in for a name."""
ELLIPSIS = "…"


class Label(NamedTuple):
    """What a feature is called, and why."""

    text: str
    """As a person would say it: ``of after “one” or “each”``."""
    score: float
    """Balanced accuracy on examples that the label was not chosen by: 0.5 is chance."""
    rule: str
    """Which rule of the grammar made it."""
    examples: tuple[str, ...]
    """Its clearest contexts, the clearest first, each up to the token where it is active."""
    by: str = "rule"
    """``rule``, or who wrote the text by hand."""
    why: str = ""
    """Of a text written by hand: the reason."""

    @property
    def is_trusted(self) -> bool:
        """Whether the text may stand for the feature: it predicts it, or a person wrote it."""
        return self.by != "rule" or self.score >= TRUSTED


Labels = dict[str, Label]
"""Labels of the features of one model, by a feature's name without its token: ``tc20[1706]``."""


def shown(label: Label) -> str:
    """The text if it is trusted, else the end of the clearest example."""
    if label.is_trusted or not label.examples:
        return label.text if label.is_trusted else ""
    example = label.examples[0]
    return example if len(example) <= LONGEST else ELLIPSIS + example[1 - LONGEST :]


def described(label: Label) -> list[tuple[str, str]]:
    """What a page says of a feature, as titles and texts: its name, or its clearest contexts."""
    if not label.is_trusted:
        score = f"none that predicts it; the best has score {label.score:.2f}"
        return [("name", score), *(("example", text) for text in label.examples)]
    credit = f"score {label.score:.2f}" if label.by == "rule" else f"by {label.by}: {label.why}"
    return [("name", label.text), ("its credit", credit)]


def write_labels(path: Path, labels: Mapping[str, Labels]) -> None:
    """Write the labels of several dictionaries, by the dictionaries' names, as one CSV table."""
    rows = [
        {
            "dictionary": dictionary,
            "feature": feature,
            **label._asdict(),
            "examples": None,
            **{f"example_{n}": text for n, text in enumerate(label.examples, start=1)},
        }
        for dictionary, own in labels.items()
        for feature, label in own.items()
    ]
    examples = [f"example_{n}" for n in range(1, N_EXAMPLES + 1)]
    columns = ["dictionary", "feature", "text", "score", "rule", "by", "why", *examples]
    write_table(path, pd.DataFrame(rows, columns=columns))


def read_labels(path: Path, dictionaries: Collection[str]) -> Labels:
    """The labels of some dictionaries, of which no two are at one layer.

    Args:
        path: that :func:`write_labels` wrote.
        dictionaries: their names, as those of the transcoders of one model.

    Raises:
        UserError: the file is missing, or is no such table.
    """
    table = read_table(path, keep_default_na=False, dtype={"score": float})
    own = table[table["dictionary"].isin(list(dictionaries))]
    examples = [f"example_{n}" for n in range(1, N_EXAMPLES + 1)]
    return {
        row["feature"]: Label(
            row["text"],
            row["score"],
            row["rule"],
            tuple(row[column] for column in examples if row[column]),
            row["by"],
            row["why"],
        )
        for row in own.to_dict("records")
    }


def labels_of(scale: Scale, layout: Layout, model: str) -> Labels:
    """The labels of the features of a model's circuits; none if nobody has made any yet.

    Raises:
        UserError: the table is no such table.
    """
    names = [entry.name for entry in scale.circuit_transcoders(model)]
    return read_labels(layout.labels, names) if layout.labels.exists() else {}
