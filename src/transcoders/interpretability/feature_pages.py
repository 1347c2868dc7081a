"""A page for each feature: its examples with tokens shaded, its histogram, what weights say of it.

A dictionary gets an index and a page a feature, each one file that needs neither network nor
script. Activations around the examples are computed again, from the rows of the text that the
examples are in, so nothing but the examples has to be kept between.
"""

from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from jinja2 import Environment
from torch import Tensor

from transcoders.circuits.invariant import Best, best_products, de_embeddings, direct_logits
from transcoders.circuits.replacement import ReplacementModel
from transcoders.config import Site
from transcoders.dictionaries import SparseDictionary
from transcoders.files import made_folder
from transcoders.interpretability.examples import bin_edges
from transcoders.interpretability.gather import Observed, Text
from transcoders.models import mlp_activations
from transcoders.progress import progress_bar

BEFORE, AFTER = 16, 6
"""Tokens shown on either side of a peak."""
N_TOKENS = 10
"""Entries of each list of tokens."""
N_NEAREST = 8
PER_THIRD = 4
"""Examples drawn at random that are shown of each third."""
BATCH = 8


class Subject(NamedTuple):
    """A dictionary with what is known of its features."""

    name: str
    label: str
    """Of its kind."""
    site: Site
    dictionary: SparseDictionary
    observed: Observed


def write_feature_pages(
    circuit: ReplacementModel,
    subject: Subject,
    text: Text,
    tokenizer: Any,
    features: list[int],
    destination: Path,
) -> None:
    """Write ``index.html`` and a page for each of some features.

    Args:
        circuit: the model that the dictionary was trained on.
        subject: the dictionary.
        text: that its features were observed on.
        tokenizer: of the model.
        features: whose pages are wanted.
        destination: a folder; it is replaced as a whole.
    """
    chosen = torch.tensor(features)
    activations = _activations(circuit, subject, text, chosen)
    lists = _lists(circuit, subject.dictionary, chosen)
    nearest = _nearest(subject.dictionary, chosen)
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page, index = (
        environment.from_string(
            files("transcoders.interpretability").joinpath(name).read_text(encoding="utf-8")
        )
        for name in ("feature.html.j2", "features.html.j2")
    )
    described = subject.observed.features.set_index("feature")
    examples = subject.observed.examples
    entries = []
    with made_folder(destination) as folder:
        for place, feature in enumerate(features):
            known: dict[str, Any] = dict(described.loc[feature])
            shown = _Shown(text, activations[place], known["largest"], tokenizer)
            own = examples[examples["feature"] == feature]
            top = own[own["kind"] == "top"]
            rendered = page.render(
                title=f"Feature {feature}",
                subject=subject,
                facts=[
                    ("active on", f"{known['frequency']:.3%} of the tokens of the text"),
                    ("mean activation where active", f"{known['mean']:.2f}"),
                    ("largest activation", f"{known['largest']:.2f}"),
                ],
                bars=_bars(known["histogram"]),
                lists=[
                    (title, [(shown.word(token), f"{value:+.2f}") for token, value in rows[place]])
                    for title, rows in lists.items()
                ],
                nearest=[
                    (other, f"{cosine:.2f}", other in features) for other, cosine in nearest[place]
                ],
                groups=[("Most active", [shown.example(row) for row in top.itertuples()])]
                + [
                    (f"Drawn at random: {third}", [shown.example(row) for row in part.itertuples()])
                    for third, part in _thirds(own[own["kind"] == "sampled"])
                ],
            )
            (folder / f"{feature}.html").write_text(rendered, encoding="utf-8")
            entries.append(
                {
                    "feature": feature,
                    "frequency": f"{known['frequency']:.3%}",
                    "largest": f"{known['largest']:.1f}",
                    "peaks": [shown.peak(row) for row in top.head(6).itertuples()],
                }
            )
        (folder / "index.html").write_text(
            index.render(subject=subject, entries=entries), encoding="utf-8"
        )


def _lists(
    circuit: ReplacementModel, dictionary: SparseDictionary, chosen: Int[Tensor, " feature"]
) -> dict[str, list[list[tuple[int, float]]]]:
    """What weights say of each feature: tokens and values, by title."""
    reads = circuit.centre(dictionary.W_enc[:, chosen].T)
    writes = dictionary.W_dec[chosen]
    best = {
        "Logits it raises (DLA)": direct_logits(circuit, writes, N_TOKENS),
        "Logits it lowers": direct_logits(circuit, writes, N_TOKENS, largest=False),
        "Embeddings that drive it (de-embedding)": de_embeddings(circuit, reads, N_TOKENS),
    }
    return {title: _pairs(found) for title, found in best.items()}


def _nearest(
    dictionary: SparseDictionary, chosen: Int[Tensor, " feature"]
) -> list[list[tuple[int, float]]]:
    """For each feature, those that write in the most similar directions, with the cosines."""
    W_dec = dictionary.W_dec
    directions = W_dec / W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)
    found = _pairs(best_products(directions[chosen], directions, N_NEAREST + 1))
    return [
        [pair for pair in pairs if pair[0] != feature][:N_NEAREST]
        for feature, pairs in zip(chosen.tolist(), found, strict=True)
    ]


def _pairs(best: Best) -> list[list[tuple[int, float]]]:
    return [
        list(zip(indices, values, strict=True))
        for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _thirds(sampled: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Some of the examples drawn at random, from the upper third of activations to the lower."""
    ordered = sampled.sort_values("activation", ascending=False)
    parts = np.array_split(np.arange(len(ordered)), 3)
    names = ("upper third", "middle third", "lower third")
    return [(name, ordered.iloc[part[:PER_THIRD]]) for name, part in zip(names, parts, strict=True)]


@torch.no_grad()
def _activations(
    circuit: ReplacementModel, subject: Subject, text: Text, chosen: Int[Tensor, " feature"]
) -> list[dict[int, Float[np.ndarray, " position"]]]:
    """Activations of each chosen feature in the rows that its examples are in, by row."""
    examples = subject.observed.examples
    wanted = examples[examples["feature"].isin(chosen.tolist())]
    found: list[dict[int, np.ndarray]] = [{} for _ in chosen]
    numbers = torch.tensor(sorted(set(wanted["row"].tolist())), dtype=torch.long)
    features_of = {row: set(group["feature"]) for row, group in wanted.groupby("row")}
    layer, dictionary = subject.site.layer, subject.dictionary
    with progress_bar(len(numbers), f"activations of {subject.name}", "rows") as bar:
        for rows in numbers.split(BATCH) if len(numbers) else []:
            tokens = text.rows[rows].to(circuit.W_O.device)
            activations = mlp_activations(circuit.model, tokens, [layer])[layer]
            read = getattr(activations, dictionary.traits.reads)
            z = dictionary.encode(read)[:, :, chosen].cpu().numpy()
            z[:, : circuit.first_position] = 0
            for row, values in zip(rows.tolist(), z, strict=True):
                for place, feature in enumerate(chosen.tolist()):
                    if feature in features_of[row]:
                        found[place][row] = values[:, place]
            bar.update(len(rows))
    return found


class _Shown:
    """A feature's examples as texts with shades."""

    def __init__(
        self,
        text: Text,
        activations: dict[int, Float[np.ndarray, " position"]],
        largest: float,
        tokenizer: Any,
    ) -> None:
        self._rows, self._activations = text.rows.numpy(), activations
        self._largest, self._tokenizer = largest, tokenizer

    def word(self, token: int) -> str:
        """A token as a text on one line."""
        return str(self._tokenizer.decode([int(token)])).replace("\n", "⏎")

    def peak(self, example: Any) -> str:
        """The token at the peak."""
        return self.word(self._rows[example.row, example.position])

    def example(self, example: Any) -> dict[str, Any]:
        """Its activation, and tokens, each with its share of the largest activation."""
        row, z = self._rows[example.row], self._activations[example.row]
        start = max(example.position - BEFORE, 1)
        tokens = [
            (
                self.word(row[position]),
                round(float(z[position]) / self._largest, 2),
                position == example.position,
            )
            for position in range(start, min(example.position + AFTER + 1, len(row)))
        ]
        return {"activation": f"{example.activation:.2f}", "tokens": tokens}


def _bars(histogram: Int[np.ndarray, " bin"]) -> list[dict[str, Any]]:
    """The bins from the first to the last that holds anything: edges, count, height up to 1."""
    filled = np.flatnonzero(histogram)
    if not len(filled):
        return []
    edges = bin_edges()
    return [
        {
            "low": f"{edges[place]:.3g}",
            "high": f"{edges[place + 1]:.3g}",
            "count": int(histogram[place]),
            "height": float(histogram[place] / histogram.max()),
        }
        for place in range(filled[0], filled[-1] + 1)
    ]


def pages_of(live: pd.DataFrame, n: int, *, seed: int) -> list[int]:
    """Features that get a page: some live ones, drawn at random, by number."""
    random = np.random.default_rng(seed)
    drawn = random.choice(live["feature"], min(n, len(live)), replace=False)
    return sorted(int(feature) for feature in drawn)
