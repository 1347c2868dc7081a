"""Names of features that a person can read, each with a score that says how far to trust it.

:mod:`transcoders.interpretability.labelling` makes them; whoever shows a circuit reads them here.
"""

from collections.abc import Collection, Mapping
from math import nan
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from transcoders.config import Scale
from transcoders.errors import UserError
from transcoders.files import read_table, write_table
from transcoders.layout import Layout

TRUSTED = 0.75
"""Balanced accuracy from which a label is shown as a feature's name."""
N_EXAMPLES = 3
EXAMPLES = [f"example_{n}" for n in range(1, N_EXAMPLES + 1)]
COLUMNS = ["dictionary", "feature", "text", "score", "rule", "by", "why", *EXAMPLES]
LONGEST = 40
"""Characters of an example that stands in for a name."""
ELLIPSIS = "…"
RULE = "rule"
"""Who makes labels that no person wrote."""
EDIT_COLUMNS = ["dictionary", "feature", "label", "who", "why"]


class Label(NamedTuple):
    """What a feature is called, and why."""

    text: str
    """As a person would say it: ``of after “one” or “each”``."""
    score: float
    """Balanced accuracy on examples that the label was not chosen by: 0.5 is chance. NaN for a text
    written by hand."""
    rule: str
    """Which rule of the grammar made it."""
    examples: tuple[str, ...]
    """Its clearest contexts, the clearest first, each up to the token where it is active."""
    by: str = RULE
    """``rule``, or who wrote the text by hand."""
    why: str = ""
    """Of a text written by hand: the reason."""

    @property
    def is_trusted(self) -> bool:
        """Whether the text may stand for the feature: it predicts it, or a person wrote it."""
        return self.by != RULE or self.score >= TRUSTED


Labels = dict[str, Label]
"""Labels of the features of one model, by a feature's name without its token: ``tc20[1706]``."""


def feature_name(layer: int, unit: int, *, of_sae: bool = False) -> str:
    """A feature's name without a token; that of an SAE, which is in no circuit, begins with sae."""
    return f"{'sae' if of_sae else 'tc'}{layer}[{unit}]"


def shown(label: Label) -> str:
    """The text if it is trusted, else the end of the clearest example; empty without any."""
    if label.is_trusted:
        return label.text
    if not label.examples:
        return ""
    example = label.examples[0]
    if len(example) <= LONGEST:
        return example
    end = example[1 - LONGEST :]
    return ELLIPSIS + (end.partition(" ")[2] or end)  # whole words, if there are any


def named(label: Label) -> str:
    """What stands for a feature, with its credit: ``“of” (0.93)``; empty where nothing does."""
    credit = f"{label.score:.2f}" if label.by == RULE else f"by {label.by}"
    text = shown(label) if label.is_trusted else f"as in “{shown(label)}”"
    return f"{text} ({credit})" if shown(label) else ""


def write_labels(path: Path, labels: Mapping[str, Labels]) -> None:
    """Write the labels of several dictionaries, by the dictionaries' names, as one CSV table."""
    rows: list[dict[str, Any]] = [
        {
            "dictionary": dictionary,
            "feature": feature,
            **label._asdict(),
            **dict(zip(EXAMPLES, label.examples, strict=False)),
        }
        for dictionary, own in labels.items()
        for feature, label in own.items()
    ]
    write_table(path, pd.DataFrame(rows, columns=COLUMNS))


def read_labels(path: Path, dictionaries: Collection[str]) -> Labels:
    """The labels of some dictionaries, no two of them at the same layer.

    Args:
        path: that :func:`write_labels` wrote.
        dictionaries: their names, as those of the transcoders of one model.

    Raises:
        UserError: the file is missing, or is not such a table.
    """
    table = _table(path, COLUMNS, "delete it and run again")
    return {
        row["feature"]: Label(
            row["text"],
            float(row["score"] or nan),
            row["rule"],
            tuple(row[column] for column in EXAMPLES if row[column]),
            row["by"],
            row["why"],
        )
        for row in table[table["dictionary"].isin(list(dictionaries))].to_dict("records")
    }


def with_edits(labels: Mapping[str, Labels], path: Path) -> dict[str, Labels]:
    """Labels with the texts that people wrote by hand in their place.

    Args:
        labels: that the rule made, by dictionary.
        path: a CSV table ``dictionary, feature, label, who, why``, which need not exist.

    Raises:
        UserError: a row names no feature that has a label, leaves something out, or comes twice.
    """
    edited = {dictionary: dict(own) for dictionary, own in labels.items()}
    if not path.exists():
        return edited
    table = _table(path, EDIT_COLUMNS, "correct the first line")
    done: set[tuple[str, str]] = set()
    for line, row in enumerate(table.to_dict("records"), start=2):
        values = {key: value.strip() for key, value in row.items()}
        dictionary, feature = values["dictionary"], values["feature"]
        if empty := [key for key, value in values.items() if not value]:
            raise UserError(f"{path}, line {line}: {empty[0]} is empty; write it, or drop the line")
        if feature not in labels.get(dictionary, {}):
            known = ", ".join(labels.get(dictionary, labels)) or "none"
            what = f"feature {feature}" if dictionary in labels else f"dictionary {dictionary}"
            raise UserError(f"{path}, line {line}: {what} has no labels; expected one of {known}")
        if (dictionary, feature) in done:
            raise UserError(f"{path}, line {line}: {feature} is there twice; keep one line")
        if values["who"] == RULE:
            raise UserError(f"{path}, line {line}: who is {RULE}; expected the author's name")
        done.add((dictionary, feature))
        edited[dictionary][feature] = edited[dictionary][feature]._replace(
            text=values["label"], score=nan, rule="", by=values["who"], why=values["why"]
        )
    return edited


def _table(path: Path, columns: list[str], remedy: str) -> pd.DataFrame:
    """A table of texts, in which nothing counts as missing."""
    table = read_table(path, dtype=str, na_filter=False)
    if list(table.columns) != columns:
        raise UserError(
            f"{path}: expected the columns {', '.join(columns)}, found "
            f"{', '.join(table.columns)}; {remedy}"
        )
    return table


def labels_of(scale: Scale, layout: Layout, model: str) -> Labels:
    """The labels of the features of a model's circuits; none if nobody has made any yet.

    Raises:
        UserError: the file is not such a table.
    """
    names = [entry.name for entry in scale.circuit_transcoders(model)]
    return read_labels(layout.labels, names) if layout.labels.exists() else {}


def browser_pages(scale: Scale, layout: Layout, model: str) -> dict[int, Path]:
    """By layer, the pages that hold the features of a model's circuits."""
    return {
        entry.site.layer: layout.features_of(entry.name)
        for entry in scale.circuit_transcoders(model)
    }
