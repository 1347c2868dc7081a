"""A page for each feature: its examples with shaded tokens, its histogram, and its weights.

A dictionary gets an index, and each feature a page. Each page is one file that needs no network and
no script. Only the examples are kept from the pass over the text. The activations around them are
computed again, from the rows of the text that hold the examples.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.invariant import best_products, de_embeddings, direct_logits
from transcoders.circuits.replacement import ReplacementModel
from transcoders.context import one_line
from transcoders.dictionaries import SparseDictionary
from transcoders.files import made_folder
from transcoders.interpretability.examples import bin_edges
from transcoders.interpretability.gather import Subject, Text
from transcoders.models import mlp_activations
from transcoders.progress import progress_bar
from transcoders.templates import render

BEFORE, AFTER = 16, 6
"""How many tokens are shown before and after a peak."""
N_TOKENS = 10
"""How many tokens each list holds."""
N_NEAREST = 8
N_PEAKS = 6
"""How many tokens at peaks the index shows for each feature."""
PER_THIRD = 4
"""How many random examples are shown for each third of activations."""
BATCH = 8


def shown_token(tokenizer: Any, token: int) -> str:
    """The text of a token, on one line."""
    return one_line(str(tokenizer.decode([int(token)])))


def token_in_context(
    tokenizer: Any, tokens: list[int], z: Float[np.ndarray, " position"], peak: int, largest: float
) -> list[tuple[str, float, bool]]:
    """The tokens around a peak, as a page shows them.

    Args:
        tokenizer: the model's tokenizer.
        tokens: a row of the text.
        z: a feature's activations on it.
        peak: the position of the peak.
        largest: the feature's largest activation on any row.

    Returns:
        For each token its text, its share of the largest activation, and whether it is the peak.
    """
    return [
        (shown_token(tokenizer, tokens[at]), round(float(z[at]) / largest, 2), at == peak)
        for at in range(max(peak - BEFORE, 1), min(peak + AFTER + 1, len(tokens)))
    ]


def write_feature_pages(
    replacement: ReplacementModel,
    subject: Subject,
    text: Text,
    tokenizer: Any,
    features: list[int],
    destination: Path,
) -> None:
    """Write ``index.html`` and a page for each of some features.

    Args:
        replacement: the model that the dictionary was trained on.
        subject: the dictionary.
        text: the text on which its features were observed.
        tokenizer: the model's tokenizer.
        features: which features get a page.
        destination: a folder. It is replaced as a whole.
    """
    chosen = torch.tensor(features, dtype=torch.long)
    activations = _activations(replacement, subject, text, chosen)
    lists = _lists(replacement, subject.dictionary, chosen)
    nearest = _nearest(subject.dictionary, chosen)
    known = subject.observed.features.set_index("feature").loc[features].reset_index()
    entries = []
    with made_folder(destination) as folder:
        for place, entry in enumerate(known.to_dict("records")):
            groups = {
                title: [
                    (value, token_in_context(
                        tokenizer, text.rows[row].tolist(), activations[row][:, place], at,
                        entry["largest"],
                    ))
                    for row, at, value in rows.itertuples(index=False, name=None)
                ]
                for title, rows in _examples(subject, entry["feature"])
            }  # fmt: skip
            rendered = render(
                __package__,
                "feature.html.j2",
                subject=subject,
                entry=entry,
                bars=_bars(entry["histogram"]),
                lists={title: rows[place] for title, rows in lists.items()},
                nearest=nearest[place],
                features=features,
                groups=groups,
                shown=partial(shown_token, tokenizer),
            )
            (folder / f"{entry['feature']}.html").write_text(rendered, encoding="utf-8")
            best = [tokens for _, tokens in groups["Most active"][:N_PEAKS]]
            peaks = [word for tokens in best for word, _, is_peak in tokens if is_peak]
            entries.append(entry | {"peaks": peaks})
        rendered = render(__package__, "features.html.j2", subject=subject, entries=entries)
        (folder / "index.html").write_text(rendered, encoding="utf-8")


def _examples(subject: Subject, feature: int) -> list[tuple[str, pd.DataFrame]]:
    """Row, position and activation of the best examples and of some random ones, by title."""
    examples = subject.observed.examples
    own = examples[examples["feature"] == feature]
    top, sampled = (
        own.loc[own["kind"] == kind, ["row", "position", "activation"]]
        for kind in ("top", "sampled")
    )
    thirds = np.array_split(np.arange(len(sampled)), 3)
    return [("Most active", top)] + [
        (f"Random examples: {name} third", sampled.iloc[third[:PER_THIRD]])
        for name, third in zip(("upper", "middle", "lower"), thirds, strict=True)
    ]


def _lists(
    replacement: ReplacementModel, dictionary: SparseDictionary, chosen: Int[Tensor, " feature"]
) -> dict[str, list[list[tuple[int, float]]]]:
    """What weights alone say about each feature: lists of tokens and values, by title."""
    found = {}
    # What is not written to the residual stream moves no logit directly, and what is not read from
    # it has no de-embedding.
    if dictionary.traits.imitates == "mlp_out":
        writes = dictionary.W_dec[chosen]
        for title, largest in (("Logits it raises (DLA)", True), ("Logits it lowers", False)):
            logits = direct_logits(replacement, writes, N_TOKENS, largest=largest)
            found[title] = logits.pairs()
    if dictionary.traits.reads == "mlp_in":
        reads = replacement.centre(dictionary.W_enc[:, chosen].T)
        drivers = de_embeddings(replacement, reads, N_TOKENS)
        found["Embeddings that drive it (de-embedding)"] = drivers.pairs()
    return found


def _nearest(
    dictionary: SparseDictionary, chosen: Int[Tensor, " feature"]
) -> list[list[tuple[int, float]]]:
    """The features that write in the most similar directions, with the cosines."""
    W_dec = dictionary.W_dec
    directions = W_dec / W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)
    found = best_products(directions[chosen], directions, N_NEAREST + 1).pairs()
    return [
        [pair for pair in pairs if pair[0] != feature][:N_NEAREST]
        for feature, pairs in zip(chosen.tolist(), found, strict=True)
    ]


@torch.no_grad()
def _activations(
    replacement: ReplacementModel, subject: Subject, text: Text, chosen: Int[Tensor, " feature"]
) -> dict[int, Float[np.ndarray, "position feature"]]:
    """Activations of the chosen features on the rows that hold their examples, by row."""
    examples = subject.observed.examples
    wanted = examples.loc[examples["feature"].isin(chosen.tolist()), "row"]
    numbers = torch.tensor(sorted(set(wanted)), dtype=torch.long)
    layer, dictionary = subject.site.layer, subject.dictionary
    found: dict[int, np.ndarray] = {}
    with progress_bar(len(numbers), f"activations of {subject.name}", "rows") as bar:
        for rows in numbers.split(BATCH) if len(numbers) else []:
            tokens = text.rows[rows].to(replacement.W_O.device)
            activations = mlp_activations(replacement.model, tokens, [layer])[layer]
            read = getattr(activations, dictionary.traits.reads)
            z = dictionary.encode(read)[:, :, chosen].cpu().numpy()
            z[:, : replacement.first_position] = 0
            found.update(zip(rows.tolist(), z, strict=True))
            bar.update(len(rows))
    return found


def _bars(histogram: Int[np.ndarray, " bin"]) -> list[dict[str, Any]]:
    """Edges, count and height (at most 1) of the bins, from the first to the last with a count."""
    filled = np.flatnonzero(histogram)
    edges, shown = bin_edges(), range(filled[0], filled[-1] + 1) if len(filled) else ()
    return [
        {
            "low": f"{edges[place]:.3g}",
            "high": f"{edges[place + 1]:.3g}",
            "count": int(histogram[place]),
            "height": float(histogram[place] / histogram.max()),
        }
        for place in shown
    ]


def pages_of(live: pd.DataFrame, n: int, *, seed: int) -> list[int]:
    """The numbers of n live features, drawn at random, that get a page."""
    random = np.random.default_rng(seed)
    drawn = random.choice(live["feature"], min(n, len(live)), replace=False)
    return sorted(int(feature) for feature in drawn)
