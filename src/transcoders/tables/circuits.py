"""Circuits, and checks of features."""

from typing import Any
from urllib.parse import quote

import pandas as pd

from transcoders.circuits.labels import RULE, Labels
from transcoders.circuits.paths import ComputationalPath, strongest
from transcoders.tables.html import html_table, in_markdown


def describe_circuit(record: dict[str, Any]) -> str:
    """A heading and a paragraph of Markdown: the question, and how well the answer holds.

    The link to the circuit's page starts in the folder of notebooks.
    """
    prompt = in_markdown("".join(record["tokens"]))
    layers = ", ".join(str(layer) for layer in record["transcoders"])
    correlation = record["rank_correlation"]
    ranks = "undefined" if correlation is None else f"{correlation:.2f}"
    return (
        f"### {record['name']}: why {in_markdown(record['target']['name'])}?\n\n"
        f"Prompt: “{prompt}” ({record['model']}, {len(record['tokens'])} tokens with BOS; "
        f"transcoders at layers {layers}). The target is {record['target']['value']:.3f}; "
        f"completeness error {record['completeness_error']:.0e}; rank correlation of attribution "
        f"and ablation {ranks}. "
        f"[Explore it on its own page](../circuits/{quote(record['name'], safe='')}/circuit.html). "
        "The strongest paths:"
    )


def paths_table(paths: list[ComputationalPath], n: int = 12) -> str:
    """The strongest paths of a circuit as an HTML table."""
    best = strongest(paths, n)
    rows = pd.DataFrame(
        {
            "attribution": [path.attribution for path in best],
            "path, from the target back": [str(path) for path in best],
        }
    )
    return html_table(rows, {"attribution": "{:+.3f}"}, name="paths")


def labels_table(paths: list[ComputationalPath], labels: Labels, n: int = 12) -> str:
    """The features on the strongest paths as an HTML table: their names, or what they fire on."""
    features = dict.fromkeys(node.name for path in strongest(paths, n) for node in path.nodes)
    known = {feature: labels[feature] for feature in features if feature in labels}
    rows = pd.DataFrame(
        {
            "feature": [*known],
            "name": [label.text if label.is_trusted else "" for label in known.values()],
            "score": [
                f"{label.score:.3f}" if label.by == RULE else f"by {label.by}: {label.why}"
                for label in known.values()
            ],
            "clearest contexts": [" | ".join(label.examples) for label in known.values()],
        }
    )
    return html_table(rows, {}, name="labels")


def checks_table(checks: pd.DataFrame) -> str:
    """How active features are on texts, as an HTML table without empty columns."""
    shown = checks.dropna(axis="columns", how="all")
    numbers = shown.columns.difference(["feature", "text", "token"])
    headings = {
        "activation_replaced": "earlier MLPs replaced",
        "published": "paper",
        "published_replaced": "paper, replaced",
    }
    return html_table(shown, dict.fromkeys(numbers, "{:.2f}"), headings=headings, name="checks")
