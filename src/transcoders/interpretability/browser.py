"""A browser of features: a page for each dictionary, which opens at once and loads on demand.

A page holds a table of its features. What is known of a feature lies in files beside the page, many
features in each, and the text in files that all dictionaries of a model share::

    index.html                    the dictionaries
    <dictionary>/index.html       one of them; #12 at the end of the address opens feature 12
    <dictionary>/data-00.js       what is known of its first features
    <model>/text-00.js            the first rows of the text

The files are scripts that call ``shelve``, so that a page opened from a folder can load them.
"""

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Int
from markupsafe import Markup
from torch import Tensor

from transcoders.circuits.labels import TRUSTED, Labels
from transcoders.circuits.replacement import ReplacementModel
from transcoders.context import one_line
from transcoders.interpretability import browser_data as data
from transcoders.interpretability.examples import bin_edges
from transcoders.interpretability.gather import Subject
from transcoders.templates import render, script, stylesheet, template

FEATURES_PER_FILE, ROWS_PER_FILE = 128, 32
N_ROWS = 300
"""Features of the table for readers without a script."""


class Page(NamedTuple):
    """What the list of dictionaries says of one."""

    dictionary: str
    title: str
    n: int
    n_named: int


def write_browser_page(
    replacement: ReplacementModel,
    examples: data.Examples,
    rows: Int[Tensor, "row position"],
    tokenizer: Any,
    folder: Path,
    *,
    text: str,
    which: str,
    labels: Labels | None = None,
) -> Page:
    """Write the page of a dictionary and its data.

    Args:
        replacement: the model that the dictionary was trained on.
        examples: of the features that the page holds, shaded.
        rows: the text on which they were observed, which :func:`write_text` writes.
        tokenizer: the model's tokenizer.
        folder: of the browser. The page gets a folder of its own in it.
        text: what the text is.
        which: a sentence that says which features these are.
        labels: what features are called, by their names.
    """
    shown = cache(lambda token: shown_token(tokenizer, token))
    subject, features = examples.subject, examples.features
    traits, layer = subject.dictionary.traits, subject.site.layer
    prefix = f"{'sae' if traits.imitates == 'mlp_in' else 'tc'}{layer}"
    found = [(labels or {}).get(f"{prefix}[{unit}]") for unit in features]
    table = data.overview(examples, rows, found, shown)
    known = data.details(replacement, examples, found, shown)
    own = folder / subject.name
    parts = (
        {name: its[start : start + FEATURES_PER_FILE] for name, its in known.items()}
        for start in range(0, len(features), FEATURES_PER_FILE)
    )
    _shelve(own, "data", parts)
    title = f"{traits.label} at layer {layer} of {subject.site.model}"
    page = render(
        __package__,
        "browser.html.j2",
        title=title,
        dictionary=subject.name,
        which=which,
        text=text,
        n=len(features),
        held=bool(features),
        trusted=TRUSTED,
        rows=_best_rows(table),
        style=Markup(stylesheet() + template(__package__, "browser.css")),
        script=Markup(script() + template(__package__, "browser.js")),
        index=_index(subject, prefix, table, known),
    )
    (own / "index.html").write_text(page, encoding="utf-8")
    return Page(subject.name, title, len(features), sum(name != "" for name in table["name"]))


def _index(subject: Subject, prefix: str, table: data.Columns, known: data.Columns) -> Markup:
    """What the page itself holds: the table, and how to read the files beside it."""
    index = table | {
        "prefix": prefix,
        "features_per_file": FEATURES_PER_FILE,
        "rows_per_file": ROWS_PER_FILE,
        "text_folder": f"../{subject.site.model}/",
        "before": data.BEFORE,
        "after": data.AFTER,
        "groups": data.GROUPS,
        "lists": {name: title for name, title in data.LISTS.items() if name in known},
        "absent": data.absent(subject.dictionary),
        "edges": bin_edges().tolist(),
    }
    # Only "<" could end the script element.
    return Markup(_as_json(index).replace("<", "\\u003c"))


def write_text(rows: Int[Tensor, "row position"], tokenizer: Any, folder: Path) -> None:
    """Write the text that examples refer to, as the texts of its tokens.

    Args:
        rows: the text.
        tokenizer: the model's tokenizer.
        folder: to make.
    """
    shown = cache(lambda token: shown_token(tokenizer, token))
    parts = ([[*map(shown, row)] for row in part.tolist()] for part in rows.split(ROWS_PER_FILE))
    _shelve(folder, "text", parts)


def write_list(pages: list[Page], folder: Path, *, article: str) -> None:
    """Write the page that leads to all dictionaries, and back to the article at an address."""
    page = render(
        __package__, "browsers.html.j2", pages=pages, article=article,
        style=Markup(stylesheet()), script=Markup(script()),
    )  # fmt: skip
    (folder / "index.html").write_text(page, encoding="utf-8")


def shown_token(tokenizer: Any, token: int) -> str:
    """The text of a token, on one line."""
    return one_line(str(tokenizer.decode([int(token)])))


def _best_rows(table: data.Columns) -> list[dict[str, Any]]:
    """The features whose names have the best scores, in the order that the page begins with."""
    rows = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]

    def order(row: dict[str, Any]) -> tuple[float, int]:
        return (1.0 if row["score"] is None else -row["score"], row["feature"])

    return sorted(rows, key=order)[:N_ROWS]


def _as_json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _shelve(folder: Path, kind: str, parts: Iterable[Any]) -> None:
    folder.mkdir(parents=True)
    for number, part in enumerate(parts):
        name = f"{kind}-{number:02}"
        call = f'shelve("{name}",{_as_json(part)});\n'
        (folder / f"{name}.js").write_text(call, encoding="utf-8")
