"""What an analyst saw: each answer in a sentence, and the whole of it folded away."""

import re
from typing import Any

import pandas as pd
from markupsafe import Markup, escape

from transcoders.case_studies.harness import BlindCircuit
from transcoders.tables.html import html_table

FIRST = 6
"""How many tokens, features or examples are shown before the fold."""
HEADINGS = {
    "examples": "Where is it active?",
    "activations": "How active is it along row {row}?",
    "circuit": "Why is it active in row {row}, at position {position}?",
    "pull_back": "What does {through} read to move {vector}?",
    "de_embedding": "Which tokens drive {vector} {end}?",
    "direct_logits": "Which next tokens does {feature} raise {end}?",
    "connections": "Which features of layer {layer} move {vector} {end}?",
}
EXAMPLE = Markup(
    '<li><b>{:.2f} {}</b> <bdi>{}<mark style="background: rgba(0, 114, 178, {:.2f})">{}</mark>{}'
    "</bdi></li>"
)
"""Activation, tick, and the text with its peak shaded."""


def heading(question: str, arguments: dict[str, Any]) -> str:
    """A question in plain words."""
    words = arguments | {"end": "most" if arguments.get("largest", True) else "least"}
    try:
        return HEADINGS[question].format(**words)
    except KeyError:  # no such question, or an argument is missing: it was refused
        return question


def seen(answer: Any) -> str:
    """An answer as HTML: a sentence, and where that leaves something out, a fold with all of it."""
    match answer:
        case BlindCircuit(paths=[]):
            return "<p><b>Seen:</b> no path.</p>"
        case BlindCircuit():
            first, whole = (f"<pre>{escape(answer.table(n))}</pre>" for n in (3, 2 * FIRST))
            found = f"the strongest of {len(answer.paths)} paths, with attributions:{first}"
            title = "more paths"
        case pd.Series():
            active = answer[answer > 0].rename_axis("position")
            found = f"active at {len(active)} of {len(answer)} positions"
            if len(active):
                found += f", most at position {active.idxmax()} ({active.max():.2f})"
            found += "."
            title = "all of them"
            whole = html_table(active.reset_index(), {"activation": "{:.2f}"}, name="seen")
        case pd.DataFrame() if "kind" in answer:
            top = answer[answer["kind"] == "top"]
            found = (
                f"the {len(top)} strongest places are in {top['row'].nunique()} rows of text, with "
                f"activations from {top['activation'].max():.2f} to {top['activation'].min():.2f}."
            )
            title = f"row numbers of {len(answer)} places"
            formats = dict.fromkeys(("rank", "row", "position"), "{}") | {"activation": "{:.2f}"}
            whole = html_table(answer, formats, name="seen")
        case pd.DataFrame():
            names = answer.iloc[:FIRST, 0].str.replace("\n", "⏎")
            found = ", ".join(f"<code>{escape(name)}</code>" for name in names)
            title = f"all {len(answer)}, with numbers"
            whole = html_table(answer, {"value": "{:+.3f}"}, name="seen")
        case _:
            return f"<p><b>Seen:</b> <code>{escape(answer)}</code>.</p>"
    return f"<div><b>Seen:</b> {found}</div>\n{_fold(title, whole)}"


def shaded(examples: pd.DataFrame, pattern: str) -> str:
    """What is written where a feature is active, as HTML: the stronger a peak, the darker it is.

    Args:
        examples: of :class:`~transcoders.case_studies.harness.Revealed`.
        pattern: the hypothesis. An example that it matches has a tick.
    """
    largest = examples["activation"].max()
    items = []
    for text, activation in zip(examples["text"], examples["activation"], strict=True):
        before, _, rest = text.replace("\n", "⏎").partition("⟦")
        peak, _, after = rest.partition("⟧")
        tick = "✓" if re.search(pattern, text) else "✗"
        shade = 0.1 + 0.5 * max(activation / largest, 0.0)
        items.append(EXAMPLE.format(activation, tick, before, shade, peak, after))
    first, rest = ("".join(part) for part in (items[:FIRST], items[FIRST:]))
    return f'<ul class="examples">{first}</ul>\n' + _fold(
        f"the other {len(items[FIRST:])}, those drawn at random among them",
        f'<ul class="examples">{rest}</ul>',
    )


def _fold(title: str, whole: str) -> str:
    scroll = f'<div class="scroll" role="group" aria-label="Answer" tabindex="0">{whole}</div>'
    return f"<details><summary>{escape(title)}</summary>\n{scroll}\n</details>\n"
