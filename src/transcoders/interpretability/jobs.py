"""The jobs of a scale that look at features: what each loads, and where results go."""

import pandas as pd

from transcoders.circuits import Tracer
from transcoders.circuits.labels import (
    Labels,
    feature_name,
    read_labels,
    with_edits,
    write_labels,
)
from transcoders.config import RATED_KINDS, Scale
from transcoders.contents import relative
from transcoders.corpus import Rows, held_out_rows
from transcoders.files import made_folder, write_table
from transcoders.interpretability import automatic
from transcoders.interpretability.activity import (
    Activity,
    chosen_features,
    gather_activity,
    load_activity,
    observed_of,
    tokens_as_texts,
)
from transcoders.interpretability.automatic import LIVE_EXAMPLES, LIVE_FREQUENCY, live_features
from transcoders.interpretability.browser import write_browser_page, write_list, write_text
from transcoders.interpretability.browser_data import Examples, look_again
from transcoders.interpretability.gather import (
    Entry,
    Subject,
    gather,
    load_observed,
    load_placed,
    load_subject,
    load_text,
    random_directions,
)
from transcoders.interpretability.grammar import Text as LabelledText
from transcoders.interpretability.labelling import label_of
from transcoders.interpretability.predictions import read_vocabulary
from transcoders.interpretability.systematic import study_features, summarise_studies
from transcoders.layout import ARTICLE, Layout
from transcoders.models import load_model, load_tokenizer, mlp_activations

ROWS_OF_BASELINE = 16
"""Held-out rows on which random directions get the frequencies of the transcoder's features."""


def gather_examples_of(scale: Scale, layout: Layout, *, device: str) -> None:
    """Look at the features of all observed dictionaries, and at random directions.

    Raises:
        UserError: a file is missing or damaged.
    """
    wanted = scale.studied
    site, first = wanted.rated_site, scale.corpus.first_train_position
    rows = _held_out_text(scale, layout, site.model)
    dictionaries = {
        entry.name: load_placed(layout, entry, device) for entry in scale.observed_dictionaries
    }
    model = load_model(layout.model(site.model), device=device)
    sample = rows.spread(ROWS_OF_BASELINE).tokens.to(device)
    activations = mlp_activations(model, sample, [site.layer])[site.layer]
    mlp_in = activations.mlp_in[:, first:].flatten(0, 1)
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


def measure_features_of(scale: Scale, layout: Layout) -> None:
    """Measure the features of both rated dictionaries and of the baseline, without people.

    Raises:
        UserError: a file is missing or damaged.
    """
    text = load_text(layout.observed)
    names = [scale.rated(kind).name for kind in RATED_KINDS]
    measures = pd.concat(
        automatic.measure_features(
            load_observed(layout.observed, name), text, seed=scale.seed
        ).assign(dictionary=name)
        for name in (*names, scale.studied.baseline)
    )
    write_table(layout.automatic, measures[["dictionary", "feature", "measure", "value"]])
    write_table(layout.automatic_summary, automatic.summarise(measures, seed=scale.seed))


def study_features_of(scale: Scale, layout: Layout, *, device: str) -> None:
    """Study features of every observed transcoder above layer 0 blind, and score the predictions.

    Raises:
        UserError: a file is missing or damaged.
    """
    wanted = scale.studied
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
    wanted = scale.studied
    chosen = chosen_features(scale, layout, model)
    text = _held_out_text(scale, layout, model)
    dictionaries = {
        entry.name: load_placed(layout, entry, device)
        for entry in scale.labelled_dictionaries(model)
    }
    gather_activity(
        load_model(layout.model(model), device=device), text, dictionaries, chosen,
        layout.activity(model), first_position=scale.corpus.first_train_position,
        batch_contexts=wanted.batch_contexts, device=device,
    )  # fmt: skip


def _held_out_text(scale: Scale, layout: Layout, model: str) -> Rows:
    """The rows on which the features of a model are looked at."""
    return held_out_rows(
        layout.documents, scale.corpus, scale.model(model), layout.model(model),
        scale.studied.text_contexts, seed=scale.seed,
    )  # fmt: skip


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
            layer, of_sae = entry.site.layer, getattr(entry, "kind", "") == "mlp_in_sae"
            units = zip(activity.chosen[entry.name], activity.of(entry.name), strict=True)
            labels[entry.name] = {
                feature_name(layer, unit, of_sae=of_sae): label_of(
                    tokenizer, activity.text, text, z,
                    first_position=scale.corpus.first_train_position, seed=scale.seed,
                )
                for unit, z in units
            }  # fmt: skip
    write_labels(layout.labels, with_edits(labels, layout.edited_labels))


def write_browser_of(scale: Scale, layout: Layout, *, device: str) -> None:
    """Write the feature browser: every dictionary whose features get labels.

    Raises:
        UserError: a file is missing or damaged.
    """
    pages = []
    with made_folder(layout.features) as folder:
        for model in scale.labelled_models:
            activity = load_activity(layout.activity(model))
            tracer = Tracer.load(scale.name, model, device=device)
            rows = activity.text.tokens
            write_text(rows, tracer.tokenizer, folder / model)
            looks = [
                _examples_of(scale, layout, entry, activity, device)
                for entry in scale.labelled_dictionaries(model)
            ]
            look_again(tracer.replacement, [examples for examples, _ in looks], rows)
            for examples, which in looks:
                pages.append(
                    write_browser_page(
                        tracer.replacement, examples, rows, tracer.tokenizer, folder,
                        text=_described(scale, len(rows)), which=which,
                        labels=read_labels(layout.labels, [examples.subject.name]),
                    )
                )  # fmt: skip
        write_list(pages, folder, article=relative(ARTICLE, layout.features))


def _examples_of(
    scale: Scale, layout: Layout, entry: Entry, activity: Activity, device: str
) -> tuple[Examples, str]:
    """The examples of a dictionary's features, and a word on which features these are.

    They are shaded if the dictionary's activations were kept: those of a rated one were not.
    """
    wanted = scale.studied
    features = activity.chosen[entry.name]
    if entry.name in [scale.rated(kind).name for kind in RATED_KINDS]:
        subject = load_subject(layout, entry, device)
        live = live_features(subject.observed)["feature"].tolist()
        which = (
            f"all that are live on the text (active on more than {LIVE_FREQUENCY:.2%} of its "
            f"tokens, and in {LIVE_EXAMPLES} rows or more), and those that occur in a circuit."
        )
        return Examples(subject, sorted({*live, *features})), which
    z = activity.of(entry.name)
    observed = observed_of(
        z, features, wanted, first_position=scale.corpus.first_train_position, seed=scale.seed
    )
    subject = Subject(entry.name, *load_placed(layout, entry, device), observed)
    examples = Examples(subject, features)
    for row, its in enumerate(z.transpose(1, 2, 0)):
        examples.add(row, its)
    return examples, "those that occur in a circuit of this scale."


def _described(scale: Scale, n_rows: int) -> str:
    """What the text is that features were looked at on, and its licence."""
    sources = ", ".join(f"{source.name} ({source.license})" for source in scale.corpus.source)
    return f"{n_rows} rows of documents that training never saw. Sources: {sources}."
