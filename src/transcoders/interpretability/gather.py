"""One pass of a model over held-out text, for the features of all dictionaries at once.

The text is the rows of every held-out document, spread evenly over the documents, up to the number
in the scale file. That is more text than the evaluation uses, because rare features need it.
Memory is bounded for each dictionary (:mod:`~transcoders.interpretability.examples`). The pass also
keeps the activations at a few hundred **background** tokens, drawn at random; they show where
features are silent.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.config import Dictionary, ImportedTranscoder, Interpretability, Site
from transcoders.corpus import Rows
from transcoders.dictionaries import SparseDictionary
from transcoders.files import made_folder, read_table, read_tensors, save_tensors
from transcoders.interpretability.examples import FeatureExamples
from transcoders.layout import Layout
from transcoders.models import LanguageModel, mlp_activations
from transcoders.progress import progress_bar

TEXT, BACKGROUND = "text.safetensors", "background.safetensors"
FEATURES, EXAMPLES = "features.parquet", "examples.parquet"
Entry = Dictionary | ImportedTranscoder
Placed = dict[str, tuple[Site, SparseDictionary]]
"""Dictionaries and their sites, by name."""


class Observed(NamedTuple):
    """What is known about one dictionary's features on the text."""

    features: pd.DataFrame
    """One row per feature: ``feature, n_active, frequency, mean, largest, histogram``."""
    examples: pd.DataFrame
    """One row per example: ``feature, kind, rank, row, position, activation``."""
    background: Float[Tensor, "token n_features"]
    """Activations at the background tokens of the text."""


class Text(NamedTuple):
    """The rows of tokens that examples refer to."""

    rows: Int[Tensor, "row position"]
    background: Int[Tensor, "token 2"]
    """Row and position of each background token."""


class Subject(NamedTuple):
    """A dictionary, and what is known about its features."""

    name: str
    site: Site
    dictionary: SparseDictionary
    observed: Observed


def gather(
    model: LanguageModel,
    rows: Rows,
    dictionaries: Placed,
    settings: Interpretability,
    destination: Path,
    *,
    first_position: int,
    seed: int,
    device: str = "cpu",
) -> None:
    """Run the model over the text and write what the features of every dictionary do on it.

    Args:
        model: the model whose MLPs the dictionaries were trained on.
        rows: the text.
        dictionaries: the dictionaries and their sites, by name.
        settings: batch size and numbers of examples.
        destination: the folder to write, with one folder in it for each dictionary.
        first_position: dictionaries were not trained on earlier positions, so these are left out.
        seed: the seed of everything that is drawn at random.
        device: the model's device.
    """
    tokens = rows.tokens
    background = _background(tokens, settings.background_tokens, first_position, seed)
    n_kept = {"n_top": settings.top_examples, "n_sampled": settings.sampled_examples}
    gathered = {
        name: FeatureExamples(dictionary.n_features, **n_kept, seed=seed, device=device)
        for name, (_, dictionary) in dictionaries.items()
    }
    at_background: dict[str, list[Tensor]] = {name: [] for name in dictionaries}
    layers = sorted({site.layer for site, _ in dictionaries.values()})
    with progress_bar(tokens.numel(), "looking at features") as bar:
        for numbers in torch.arange(len(tokens)).split(settings.batch_contexts):
            activations = mlp_activations(model, tokens[numbers].to(device), layers)
            here = background[(background[:, 0] >= numbers[0]) & (background[:, 0] <= numbers[-1])]
            for name, (site, dictionary) in dictionaries.items():
                read = getattr(activations[site.layer], dictionary.traits.reads)
                z = dictionary.encode(read[:, first_position:])
                gathered[name].add(z, numbers, first_position=first_position)
                at = z[here[:, 0] - numbers[0], here[:, 1] - first_position]
                at_background[name].append(at.half().cpu())
            bar.update(len(numbers) * tokens.shape[1])
    with made_folder(destination) as folder:
        save_tensors(folder / TEXT, {"rows": tokens, "background": background})
        for name, found in gathered.items():
            (folder / name).mkdir()
            found.features().to_parquet(folder / name / FEATURES, index=False)
            found.examples().to_parquet(folder / name / EXAMPLES, index=False)
            kept = {"background": torch.cat(at_background[name])}
            save_tensors(folder / name / BACKGROUND, kept)


def _background(
    tokens: Int[Tensor, "row position"], n: int, first_position: int, seed: int
) -> Int[Tensor, "token 2"]:
    """Rows and positions of n tokens drawn at random, in the order of the text."""
    n_positions = tokens.shape[1] - first_position
    random = np.random.default_rng(seed)
    places = random.choice(len(tokens) * n_positions, n, replace=False)
    row, position = np.divmod(np.sort(places), n_positions)
    return torch.from_numpy(np.stack([row, position + first_position], axis=1))


def load_text(folder: Path) -> Text:
    """The text that :func:`gather` wrote.

    Raises:
        UserError: it is not there.
    """
    return Text(**read_tensors(folder / TEXT))


def load_observed(folder: Path, dictionary: str) -> Observed:
    """What :func:`gather` wrote about one dictionary.

    Raises:
        UserError: it is not there.
    """
    background = read_tensors(folder / dictionary / BACKGROUND)["background"]
    features, examples = (read_table(folder / dictionary / name) for name in (FEATURES, EXAMPLES))
    return Observed(features, examples, background.float())


def load_placed(layout: Layout, entries: Iterable[Entry], device: str) -> Placed:
    """Dictionaries and their sites, by name.

    Raises:
        UserError: a file is missing or damaged.
    """
    placed = {}
    for entry in entries:
        dictionary = SparseDictionary.from_pretrained(layout.dictionary(entry.name))
        placed[entry.name] = (entry.site, dictionary.to(device))
    return placed


def load_subject(layout: Layout, entry: Entry, device: str) -> Subject:
    """A dictionary, and what :func:`gather` wrote about it.

    Raises:
        UserError: a file is missing or damaged.
    """
    placed = load_placed(layout, [entry], device)[entry.name]
    return Subject(entry.name, *placed, load_observed(layout.observed, entry.name))


def random_directions(
    like: SparseDictionary,
    frequencies: Float[Tensor, " feature"],
    mlp_in: Float[Tensor, "token d_model"],
    n_directions: int,
    *,
    seed: int,
) -> SparseDictionary:
    """A baseline: features that read random directions and are as rare as a transcoder's.

    Args:
        like: the transcoder.
        frequencies: how often each of its features is active. The frequency of each direction is
            drawn from these.
        mlp_in: the MLP's inputs on which thresholds are set.
        n_directions: how many directions to draw.
        seed: the seed of the directions and frequencies.
    """
    generator = torch.Generator().manual_seed(seed)
    d_model = like.W_enc.shape[0]
    directions = torch.randn(d_model, n_directions, generator=generator).to(mlp_in)
    directions /= directions.norm(dim=0)
    live = frequencies[frequencies > 0].cpu()
    live = live if len(live) else torch.zeros(1)  # then no direction is active either
    drawn = live[torch.randint(len(live), (n_directions,), generator=generator)]
    projected = (mlp_in @ directions).sort(dim=0, descending=True).values
    rank = (drawn * len(mlp_in)).long().clamp(max=len(mlp_in) - 1).to(mlp_in.device)
    threshold = projected.gather(0, rank[None])[0]
    nothing = directions.new_zeros(n_directions, like.W_dec.shape[1])
    return SparseDictionary(
        "transcoder",
        W_enc=directions,
        b_enc=-threshold,
        W_dec=nothing,
        b_dec=nothing.new_zeros(nothing.shape[1]),
    )
