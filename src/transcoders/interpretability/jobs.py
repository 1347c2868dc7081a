"""The jobs of a scale that look at features: what each loads, and where results go."""

import pandas as pd

from transcoders.circuits import Tracer
from transcoders.config import RATED_KINDS, Dictionary, Scale
from transcoders.corpus import held_out_rows
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.files import write_table
from transcoders.interpretability import automatic
from transcoders.interpretability.feature_pages import pages_of, write_feature_pages
from transcoders.interpretability.gather import (
    gather,
    load_observed,
    load_subject,
    load_text,
    random_directions,
)
from transcoders.interpretability.predictions import read_vocabulary
from transcoders.interpretability.systematic import study_features, summarise_studies
from transcoders.layout import Layout
from transcoders.models import load_model, mlp_activations

ROWS_OF_BASELINE = 16
"""Held-out rows on which random directions get the frequencies of the transcoder's features."""


def gather_examples_of(scale: Scale, layout: Layout, *, device: str) -> None:
    """Look at the features of all observed dictionaries, and at random directions.

    Raises:
        UserError: a file is missing or damaged.
    """
    wanted = scale.interpretability
    assert wanted is not None
    site, first = wanted.rated_site, scale.corpus.first_train_position
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
    sample = rows.tokens[spread(len(rows.tokens), ROWS_OF_BASELINE)].to(device)
    mlp_in = mlp_activations(model, sample, [site.layer])[site.layer].mlp_in[:, first:]
    mlp_in = mlp_in.flatten(0, 1)
    transcoder = dictionaries[scale.rated("transcoder").name][1]
    frequencies = (transcoder.encode(mlp_in) > 0).float().mean(dim=0)
    baseline = random_directions(
        transcoder, frequencies, mlp_in, wanted.random_directions, seed=scale.seed
    )
    dictionaries[wanted.baseline] = (site, baseline)
    gather(
        model, rows, dictionaries, wanted, layout.observed,
        first_position=first, seed=scale.seed, device=device,
    )  # fmt: skip


def spread(n_rows: int, wanted: int) -> list[int]:
    """Numbers of rows from the whole text. Rows of one document follow each other in it."""
    n = min(wanted, n_rows)
    return [place * n_rows // n for place in range(n)]


def measure_features_of(scale: Scale, layout: Layout) -> None:
    """Measure the features of both rated dictionaries and of the baseline, without people.

    Raises:
        UserError: a file is missing or damaged.
    """
    assert scale.interpretability is not None
    text = load_text(layout.observed)
    names = [scale.rated(kind).name for kind in RATED_KINDS]
    measures = pd.concat(
        automatic.measure_features(
            load_observed(layout.observed, name), text, seed=scale.seed
        ).assign(dictionary=name)
        for name in (*names, scale.interpretability.baseline)
    )
    write_table(layout.automatic, measures[["dictionary", "feature", "measure", "value"]])
    write_table(layout.automatic_summary, automatic.summarise(measures, seed=scale.seed))


def study_features_of(scale: Scale, layout: Layout, *, device: str) -> None:
    """Study features of every observed transcoder above layer 0 blind, and score the predictions.

    Raises:
        UserError: a file is missing or damaged.
    """
    wanted = scale.interpretability
    assert wanted is not None
    tracer = Tracer.load(scale.name, wanted.rated_site.model, device=device)
    vocabulary, text = read_vocabulary(tracer.replacement), load_text(layout.observed)
    entries = [
        entry
        for entry in scale.observed_dictionaries
        if entry.kind == "transcoder" and entry.site.layer > 0
    ]
    # The same number for each dictionary, rounded up.
    n_features = -(-wanted.studied_features // len(entries))
    studies = pd.concat(
        study_features(
            tracer.replacement, vocabulary, load_subject(layout, entry, device), text,
            tracer.tokenizer, n_features=n_features, seed=scale.seed,
        )
        for entry in entries
    )  # fmt: skip
    write_table(layout.systematic, studies)
    write_table(layout.systematic_summary, summarise_studies(studies, seed=scale.seed))


def write_pages_of(
    scale: Scale, layout: Layout, entry: Dictionary, features: list[int] | None, *, device: str
) -> None:
    """Write the pages of an observed dictionary's features.

    Args:
        scale: the scale.
        layout: its paths.
        entry: which dictionary.
        features: which features; None for as many as the scale says, drawn at random.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: there is no such feature, or a file is missing or damaged.
    """
    assert scale.interpretability is not None
    subject = load_subject(layout, entry, device)
    live = automatic.live_features(subject.observed)
    chosen = features or pages_of(live, scale.interpretability.paged_features, seed=scale.seed)
    n_features = subject.dictionary.n_features
    if unknown := [feature for feature in chosen if not 0 <= feature < n_features]:
        raise UserError(
            f"feature {unknown[0]}: expected one from 0 to {n_features - 1} of {entry.name}"
        )
    tracer = Tracer.load(scale.name, entry.site.model, device=device)
    text = load_text(layout.observed)
    destination = layout.feature_pages(entry.name)
    write_feature_pages(
        tracer.replacement, subject, text, tracer.tokenizer, sorted(chosen), destination
    )
