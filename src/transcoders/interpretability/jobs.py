"""The jobs of a scale that look at features: what each loads, and where results go."""

from collections.abc import Sequence

import pandas as pd

from transcoders.circuits import Tracer
from transcoders.circuits.labels import Labels, feature_name, labels_in, with_edits, write_labels
from transcoders.config import RATED_KINDS, Dictionary, ImportedTranscoder, Scale, Site
from transcoders.corpus import Rows, held_out_rows
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.files import write_table
from transcoders.interpretability import automatic
from transcoders.interpretability.activity import (
    chosen_features,
    gather_activity,
    load_activity,
    observed_of,
    tokens_as_texts,
)
from transcoders.interpretability.feature_pages import write_feature_pages
from transcoders.interpretability.gather import (
    Subject,
    gather,
    load_observed,
    load_subject,
    load_text,
    random_directions,
)
from transcoders.interpretability.grammar import Text as LabelledText
from transcoders.interpretability.labelling import label_of
from transcoders.interpretability.predictions import read_vocabulary
from transcoders.interpretability.systematic import study_features, summarise_studies
from transcoders.layout import Layout
from transcoders.models import load_model, load_tokenizer, mlp_activations

Labelled = Dictionary | ImportedTranscoder
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
    rows = _held_out_text(scale, layout, site.model)
    dictionaries = _with_sites(layout, scale.observed_dictionaries, device)
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


def gather_activity_of(scale: Scale, layout: Layout, model: str, *, device: str) -> None:
    """Look at the features of a model that get labels, on held-out text.

    Raises:
        UserError: a file is missing or damaged.
    """
    wanted = scale.interpretability
    assert wanted is not None
    chosen = chosen_features(scale, layout, model)
    text = _held_out_text(scale, layout, model)
    dictionaries = _with_sites(layout, scale.labelled_dictionaries(model), device)
    gather_activity(
        load_model(layout.model(model), device=device), text, dictionaries, chosen,
        layout.activity(model), first_position=scale.corpus.first_train_position,
        batch_contexts=wanted.batch_contexts, device=device,
    )  # fmt: skip


def _held_out_text(scale: Scale, layout: Layout, model: str) -> Rows:
    """The rows on which the features of a model are looked at."""
    assert scale.interpretability is not None
    return held_out_rows(
        layout.documents, scale.corpus, scale.model(model), layout.model(model),
        scale.interpretability.text_contexts, seed=scale.seed,
    )  # fmt: skip


def _with_sites(
    layout: Layout, entries: Sequence[Labelled], device: str
) -> dict[str, tuple[Site, SparseDictionary]]:
    """Dictionaries and their sites, by name."""
    return {
        entry.name: (
            entry.site,
            SparseDictionary.from_pretrained(layout.dictionary(entry.name)).to(device),
        )
        for entry in entries
    }


def label_features_of(scale: Scale, layout: Layout) -> None:
    """Find a label for every chosen feature, and apply what people wrote by hand.

    Raises:
        UserError: a file is missing or damaged, or an edit is not as expected.
    """
    labels: dict[str, Labels] = {}
    for model in scale.labelled_models:
        activity = load_activity(layout.activity(model))
        tokenizer = load_tokenizer(layout.model(model))
        text = LabelledText(tokens_as_texts(tokenizer, activity.text.tokens))
        for entry in scale.labelled_dictionaries(model):
            z, units = activity.of(entry.name), activity.chosen[entry.name]
            named = [
                feature_name(
                    entry.site.layer, unit, of_sae=getattr(entry, "kind", "") == "mlp_in_sae"
                )
                for unit in units
            ]
            labels[entry.name] = {
                name: label_of(
                    tokenizer, activity.text, text, its,
                    first_position=scale.corpus.first_train_position, seed=scale.seed,
                )
                for name, its in zip(named, z, strict=True)
            }  # fmt: skip
    write_labels(layout.labels, with_edits(labels, layout.edited_labels))


def write_pages_of(
    scale: Scale, layout: Layout, entry: Labelled, features: list[int] | None, *, device: str
) -> None:
    """Write the pages of a dictionary's features.

    Args:
        scale: the scale.
        layout: its paths.
        entry: which dictionary.
        features: which features of an observed dictionary; None for all that have labels.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: there is no such feature, or a file is missing or damaged.
    """
    wanted, first = scale.interpretability, scale.corpus.first_train_position
    assert wanted is not None
    kept, labels = None, labels_in(layout, entry)
    if features is None:
        activity = load_activity(layout.activity(entry.site.model))
        z, features = activity.of(entry.name), activity.chosen[entry.name]
        dictionary = SparseDictionary.from_pretrained(layout.dictionary(entry.name)).to(device)
        observed = observed_of(z, features, wanted, first_position=first, seed=scale.seed)
        subject, text = Subject(entry.name, entry.site, dictionary, observed), activity.text.tokens
        kept = dict(enumerate(z.transpose(1, 2, 0)))
    else:
        subject = load_subject(layout, scale.observed_dictionary(entry.name), device)
        text = load_text(layout.observed).rows
    n_features = subject.dictionary.n_features
    if unknown := [feature for feature in features if not 0 <= feature < n_features]:
        raise UserError(
            f"feature {unknown[0]}: expected one from 0 to {n_features - 1} of {entry.name}"
        )
    tracer = Tracer.load(scale.name, entry.site.model, device=device)
    write_feature_pages(
        tracer.replacement, subject, text, tracer.tokenizer, sorted(features),
        layout.feature_pages(entry.name), activations=kept, labels=labels,
    )  # fmt: skip
