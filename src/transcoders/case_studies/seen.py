"""What an analyst saw: each answer in a sentence, and the whole of it folded away."""

import re
from functools import singledispatch
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from transcoders.case_studies.harness import BlindCircuit
from transcoders.tables.html import html_table

FIRST = 6
"""So many tokens, features or examples are shown before the fold."""
HEADINGS = {
    "examples": "Where is it active?",
    "activations": "How active is it along row {row}?",
    "circuit": "Why is it active in row {row}, at position {position}?",
    "pull_back": "What does {through} read to move {vector}?",
    "de_embedding": "Which tokens drive {vector} {end}?",
    "direct_logits": "Which next tokens does {feature} raise {end}?",
    "connections": "Which features of layer {layer} move {vector} {end}?",
}


def heading(question: str, arguments: dict[str, Any]) -> str:
    """A question in plain words."""
    words = arguments | {"end": "most" if arguments.get("largest", True) else "least"}
    try:
        return HEADINGS[question].format(**words)
    except KeyError:  # a question that there is not, or one without what it needs: it was refused
        return question


@singledispatch
def seen(answer: Any) -> str:
    """An answer as HTML: a sentence, and where that leaves something out, a fold with all of it."""
    return Markup("<p><b>Seen:</b> <code>{}</code>.</p>").format(answer)


@seen.register
def _(answer: BlindCircuit) -> str:
    if not answer.paths:
        return "<p><b>Seen:</b> no path.</p>"
    first, more = (Markup("<pre>{}</pre>").format(answer.table(n)) for n in (3, 2 * FIRST))
    found = Markup("the strongest of {} paths, with attributions:{}").format(
        len(answer.paths), first
    )
    return _folded(found, "more paths", more)


@seen.register
def _(answer: pd.Series) -> str:
    active = answer[answer > 0]
    table = html_table(
        active.rename_axis("position").reset_index(), {"activation": "{:.2f}"}, name="seen"
    )
    most = f", most at position {active.idxmax()} ({active.max():.2f})" if len(active) else ""
    found = f"active at {len(active)} of {len(answer)} positions{most}."
    return _folded(found, "all of them", table)


@seen.register
def _(answer: pd.DataFrame) -> str:
    if "kind" in answer:
        top = answer[answer["kind"] == "top"]
        ends = f"{top['activation'].max():.2f} to {top['activation'].min():.2f}"
        found = (
            f"the {len(top)} strongest places are in {top['row'].nunique()} rows of text, with "
            f"activations from {ends}."
        )
        formats = dict.fromkeys(("rank", "row", "position"), "{}") | {"activation": "{:.2f}"}
        return _folded(
            found, f"row numbers of {len(answer)} places", html_table(answer, formats, name="seen")
        )
    names = Markup(", ").join(
        Markup("<code>{}</code>").format(name.replace("\n", "⏎"))
        for name in answer.iloc[:FIRST, 0].astype(str)
    )
    table = html_table(answer, {"value": "{:+.3f}"}, name="seen")
    return _folded(names, f"all {len(answer)}, with numbers", table)


def shaded(examples: pd.DataFrame, pattern: str) -> str:
    """What is written where a feature is active, as HTML: peaks are the darker, the stronger.

    Args:
        examples: of :class:`~transcoders.case_studies.harness.Revealed`.
        pattern: the hypothesis. An example that it matches has a tick.
    """
    matches = examples["text"].map(re.compile(pattern).search).notna()
    shares = examples["activation"] / examples["activation"].max()
    items = [
        _example(str(text), float(activation), float(share), matched=bool(match))
        for text, activation, share, match in zip(
            examples["text"], examples["activation"], shares, matches, strict=True
        )
    ]
    first, rest = ("".join(part) for part in (items[:FIRST], items[FIRST:]))
    return f'<ul class="examples">{first}</ul>\n' + _fold(
        f"the other {len(items[FIRST:])}, those drawn at random among them",
        f'<ul class="examples">{rest}</ul>',
    )


def _example(text: str, activation: float, share: float, *, matched: bool) -> Markup:
    before, _, rest = text.replace("\n", "⏎").partition("⟦")
    peak, _, after = rest.partition("⟧")
    return Markup(
        '<li><b>{:.2f} {}</b> <bdi>{}<mark style="background: rgba(0, 114, 178, {:.2f})">{}</mark>'
        "{}</bdi></li>"
    ).format(activation, "✓" if matched else "✗", before, 0.1 + 0.5 * max(share, 0.0), peak, after)


def _folded(found: str, title: str, whole: str) -> str:
    return f"<div><b>Seen:</b> {escape(found)}</div>\n{_fold(title, whole)}"


def _fold(title: str, whole: str) -> str:
    scroll = f'<div class="scroll" role="group" aria-label="Answer" tabindex="0">{whole}</div>'
    return f"<details><summary>{escape(title)}</summary>\n{scroll}\n</details>\n"
