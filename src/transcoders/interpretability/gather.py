"""One pass of a model over held-out text, for the features of all dictionaries at once.

The text is every held-out document's rows, spread evenly over the documents, up to the number that
the scale file asks for: more than the evaluation measures, since rare features need it. What is
kept of each dictionary is bounded (:mod:`~transcoders.interpretability.examples`), and besides, its
activations at a few hundred **background** tokens drawn at random, so that it is known where
features are silent.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from transcoders.checksums import check_made
from transcoders.config import Interpretability, Site
from transcoders.corpus import Rows
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.files import made_folder, read_table, save_tensors
from transcoders.interpretability.examples import FeatureExamples
from transcoders.models import LanguageModel, mlp_activations
from transcoders.progress import progress_bar


class Observed(NamedTuple):
    """What is known of one dictionary's features on the text."""

    features: pd.DataFrame
    """A row a feature: ``feature, n_active, frequency, mean, largest, histogram``."""
    examples: pd.DataFrame
    """A row an example: ``feature, kind, rank, row, position, activation``."""
    background: Float[Tensor, "token n_features"]
    """Activations at the background tokens of the text."""


class Text(NamedTuple):
    """The rows of tokens that examples refer to."""

    rows: Int[Tensor, "row position"]
    background: Int[Tensor, "token 2"]
    """Row and position of the background tokens."""


def gather(
    model: LanguageModel,
    rows: Rows,
    dictionaries: Mapping[str, tuple[Site, SparseDictionary]],
    settings: Interpretability,
    destination: Path,
    *,
    first_position: int,
    seed: int,
    device: str = "cpu",
) -> None:
    """Run the model over the text and write what every dictionary's features do on it.

    Args:
        model: whose MLPs the dictionaries were trained on.
        rows: the text.
        dictionaries: by name, with their sites.
        settings: batch size, numbers of examples.
        destination: a folder; one below it for each dictionary.
        first_position: earlier positions are left out: dictionaries were not trained on them.
        seed: of what is drawn at random.
        device: where the model is.
    """
    tokens = rows.tokens
    random = np.random.default_rng(seed)
    places = random.choice(
        len(tokens) * (tokens.shape[1] - first_position), settings.background_tokens, replace=False
    )
    row, position = np.divmod(np.sort(places), tokens.shape[1] - first_position)
    background = torch.from_numpy(np.stack([row, position + first_position], axis=1))
    gathered = {
        name: FeatureExamples(
            dictionary.n_features,
            n_top=settings.top_examples,
            n_sampled=settings.sampled_examples,
            seed=seed,
            device=device,
        )
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
        save_tensors(folder / "text.safetensors", {"rows": tokens, "background": background})
        for name, found in gathered.items():
            (folder / name).mkdir()
            found.features().to_parquet(folder / name / "features.parquet", index=False)
            found.examples().to_parquet(folder / name / "examples.parquet", index=False)
            save_tensors(
                folder / name / "background.safetensors",
                {"background": torch.cat(at_background[name])},
            )


def load_text(folder: Path) -> Text:
    """The text that :func:`gather` wrote.

    Raises:
        UserError: it is not there.
    """
    return Text(**_tensors(folder / "text.safetensors"))


def load_observed(folder: Path, dictionary: str) -> Observed:
    """What :func:`gather` wrote of one dictionary.

    Raises:
        UserError: it is not there.
    """
    background = _tensors(folder / dictionary / "background.safetensors")["background"]
    return Observed(
        read_table(folder / dictionary / "features.parquet"),
        read_table(folder / dictionary / "examples.parquet"),
        background.float(),
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    check_made(path)
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run snakemake to make it") from None
    except SafetensorError as error:
        remedy = "delete it and run again"
        raise UserError(f"{path}: expected tensors, found {error}; {remedy}") from None


def random_directions(
    like: SparseDictionary,
    frequencies: Float[Tensor, " feature"],
    mlp_in: Float[Tensor, "token d_model"],
    n_directions: int,
    *,
    seed: int,
) -> SparseDictionary:
    """Features that read random directions, as rare as those of a dictionary: a baseline.

    Args:
        like: a transcoder, which says what is read.
        frequencies: of its features; those of the directions are drawn from them.
        mlp_in: inputs on which thresholds are set.
        n_directions: how many.
        seed: of directions and frequencies.
    """
    generator = torch.Generator().manual_seed(seed)
    d_model = like.W_enc.shape[0]
    directions = torch.randn(d_model, n_directions, generator=generator).to(mlp_in)
    directions /= directions.norm(dim=0)
    live = frequencies[frequencies > 0].cpu()
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
