"""The jobs of a scale that look at features: what to load, and where results go."""

import pandas as pd

from transcoders.circuits import Tracer
from transcoders.config import Dictionary, Scale
from transcoders.corpus import held_out_rows
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.interpretability import automatic
from transcoders.interpretability.feature_pages import Subject, pages_of, write_feature_pages
from transcoders.interpretability.gather import (
    gather,
    load_observed,
    load_text,
    random_directions,
)
from transcoders.layout import Layout
from transcoders.models import load_model, mlp_activations

ROWS_OF_BASELINE = 16
"""Held-out rows on which random directions get the frequencies of the transcoder's features."""


def gather_examples(scale: Scale, layout: Layout, *, device: str = "cpu") -> None:
    """Look at the features of all observed dictionaries, and at random directions.

    Raises:
        UserError: a file is missing or damaged.
    """
    wanted = scale.interpretability
    assert wanted is not None
    site = wanted.rated_site
    rows = held_out_rows(
        layout.documents,
        scale.corpus,
        scale.model(site.model),
        layout.model(site.model),
        wanted.text_contexts,
        seed=scale.seed,
    )
    dictionaries = {
        entry.name: (
            entry.site,
            SparseDictionary.from_pretrained(layout.dictionary(entry.name)).to(device),
        )
        for entry in scale.observed_dictionaries
    }
    model = load_model(layout.model(site.model), device=device)
    first = scale.corpus.first_train_position
    sample = rows.tokens[:ROWS_OF_BASELINE].to(device)
    mlp_in = mlp_activations(model, sample, [site.layer])[site.layer].mlp_in[:, first:]
    mlp_in = mlp_in.flatten(0, 1)
    transcoder = dictionaries[scale.rated("transcoder").name][1]
    frequencies = (transcoder.encode(mlp_in) > 0).float().mean(dim=0)
    baseline = random_directions(
        transcoder, frequencies, mlp_in, wanted.random_directions, seed=scale.seed
    )
    dictionaries[wanted.baseline] = (site, baseline)
    gather(
        model,
        rows,
        dictionaries,
        wanted,
        layout.observed,
        first_position=first,
        seed=scale.seed,
        device=device,
    )


def measure_features(scale: Scale, layout: Layout) -> pd.DataFrame:
    """Measure the features of both rated dictionaries and of the baseline.

    Returns:
        The columns of :func:`transcoders.interpretability.automatic.measure_features`, and
        ``dictionary``.
    """
    assert scale.interpretability is not None
    text = load_text(layout.observed)
    names = [scale.rated(kind).name for kind in ("transcoder", "mlp_in_sae")]
    return pd.concat(
        automatic.measure_features(
            load_observed(layout.observed, name), text, seed=scale.seed
        ).assign(dictionary=name)
        for name in (*names, scale.interpretability.baseline)
    )


def write_pages_of(
    scale: Scale,
    layout: Layout,
    entry: Dictionary,
    features: list[int] | None = None,
    *,
    device: str = "cpu",
) -> None:
    """Write the pages of an observed dictionary's features.

    Args:
        scale: the scale.
        layout: its paths.
        entry: which dictionary.
        features: whose pages; None for as many as the scale says, drawn at random.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: there is no such feature, or a file is missing or damaged.
    """
    assert scale.interpretability is not None
    observed = load_observed(layout.observed, entry.name)
    for feature in features or []:
        if not 0 <= feature < len(observed.features):
            raise UserError(
                f"feature {feature}: expected one from 0 to {len(observed.features) - 1} of "
                f"{entry.name}"
            )
    live = automatic.live_features(observed)
    chosen = features or pages_of(live, scale.interpretability.paged_features, seed=scale.seed)
    tracer = Tracer.load(scale.name, entry.site.model, device=device)
    weights = SparseDictionary.from_pretrained(layout.dictionary(entry.name)).to(device)
    write_feature_pages(
        tracer.replacement,
        Subject(entry.name, entry.traits.label, entry.site, weights, observed),
        load_text(layout.observed),
        tracer.tokenizer,
        sorted(chosen),
        layout.feature_pages(entry.name),
    )
