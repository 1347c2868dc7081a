"""The jobs of a scale that look at features: what each loads, and where results go."""

import pandas as pd

from transcoders.circuits import Tracer, labels
from transcoders.config import RATED_KINDS, Scale
from transcoders.contents import relative
from transcoders.corpus import Rows, held_out_rows
from transcoders.files import made_folder, write_table
from transcoders.interpretability import (
    activity,
    automatic,
    browser,
    gather,
    grammar,
    labelling,
    predictions,
    systematic,
)
from transcoders.interpretability.browser_data import Examples, look_again
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
    placed = gather.load_placed(layout, scale.observed_dictionaries, device)
    model = load_model(layout.model(site.model), device=device)
    sample = rows.spread(ROWS_OF_BASELINE).tokens.to(device)
    activations = mlp_activations(model, sample, [site.layer])[site.layer]
    mlp_in = activations.mlp_in[:, first:].flatten(0, 1)
    transcoder = placed[scale.rated("transcoder").name][1]
    frequencies = (transcoder.encode(mlp_in) > 0).float().mean(dim=0)
    baseline = gather.random_directions(
        transcoder, frequencies, mlp_in, wanted.random_directions, seed=scale.seed
    )
    placed[wanted.baseline] = (site, baseline)
    gather.gather(
        model, rows, placed, wanted, layout.observed,
        first_position=first, seed=scale.seed, device=device,
    )  # fmt: skip


def measure_features_of(scale: Scale, layout: Layout) -> None:
    """Measure the features of both rated dictionaries and of the baseline, without people.

    Raises:
        UserError: a file is missing or damaged.
    """
    text = gather.load_text(layout.observed)
    names = [scale.rated(kind).name for kind in RATED_KINDS]
    measures = pd.concat(
        automatic.measure_features(
            gather.load_observed(layout.observed, name), text, seed=scale.seed
        ).assign(dictionary=name)
        for name in (*names, scale.studied.baseline)
    )
    write_table(layout.automatic, measures[["dictionary", "feature", "measure", "value"]])
    write_table(layout.automatic_summary, automatic.summarise(measures, seed=scale.seed))


def study_features_of(scale: Scale, layout: Layout, *, device: str) -> None:
    """Make blind studies of every observed transcoder above layer 0, and score the predictions.

    Raises:
        UserError: a file is missing or damaged.
    """
    wanted = scale.studied
    tracer = Tracer.load(scale.name, wanted.rated_site.model, device=device)
    vocabulary = predictions.read_vocabulary(tracer.replacement)
    text = gather.load_text(layout.observed)
    entries = [
        entry
        for entry in scale.observed_dictionaries
        if entry.kind == "transcoder" and entry.site.layer > 0
    ]
    # The same number for each dictionary, rounded up.
    n_features = -(-wanted.studied_features // len(entries))
    studies = pd.concat(
        systematic.study_features(
            tracer.replacement, vocabulary, gather.load_subject(layout, entry, device), text,
            tracer.tokenizer, n_features=n_features, seed=scale.seed,
        )
        for entry in entries
    )  # fmt: skip
    write_table(layout.systematic, studies)
    write_table(layout.systematic_summary, systematic.summarise_studies(studies, seed=scale.seed))


def gather_activity_of(scale: Scale, layout: Layout, model: str, *, device: str) -> None:
    """Look at the features of a model that get labels, on held-out text.

    Raises:
        UserError: a file is missing or damaged.
    """
    wanted = scale.studied
    chosen = activity.chosen_features(scale, layout, model)
    text = _held_out_text(scale, layout, model)
    placed = gather.load_placed(layout, scale.labelled_dictionaries(model), device)
    activity.gather_activity(
        load_model(layout.model(model), device=device), text, placed, chosen,
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
    found: dict[str, labels.Labels] = {}
    for model in scale.labelled_models:
        known = activity.load_activity(layout.activity(model))
        tokenizer = load_tokenizer(layout.model(model))
        text = grammar.Text(activity.tokens_as_texts(tokenizer, known.text.tokens))
        for entry in scale.labelled_dictionaries(model):
            layer, of_sae = entry.site.layer, getattr(entry, "kind", "") == "mlp_in_sae"
            units = zip(known.chosen[entry.name], known.of(entry.name), strict=True)
            found[entry.name] = {
                labels.feature_name(layer, unit, of_sae=of_sae): labelling.label_of(
                    tokenizer, known.text, text, z,
                    first_position=scale.corpus.first_train_position, seed=scale.seed,
                )
                for unit, z in units
            }  # fmt: skip
    labels.write_labels(layout.labels, labels.with_edits(found, layout.edited_labels))


def write_browser_of(scale: Scale, layout: Layout, *, device: str) -> None:
    """Write the feature browser: every dictionary whose features get labels.

    Raises:
        UserError: a file is missing or damaged.
    """
    pages = []
    with made_folder(layout.features) as folder:
        for model in scale.labelled_models:
            known = activity.load_activity(layout.activity(model))
            tracer = Tracer.load(scale.name, model, device=device)
            rows = known.text.tokens
            browser.write_text(rows, tracer.tokenizer, folder / model)
            looks = [
                _examples_of(scale, layout, entry, known, device)
                for entry in scale.labelled_dictionaries(model)
            ]
            look_again(tracer.replacement, [examples for examples, _ in looks], rows)
            for examples, which in looks:
                pages.append(
                    browser.write_browser_page(
                        tracer.replacement, examples, rows, tracer.tokenizer, folder,
                        text=_described(scale, len(rows)), which=which,
                        labels=labels.read_labels(layout.labels, [examples.subject.name]),
                    )
                )  # fmt: skip
        browser.write_list(pages, folder, article=relative(ARTICLE, layout.features))


def _examples_of(
    scale: Scale, layout: Layout, entry: gather.Entry, known: activity.Activity, device: str
) -> tuple[Examples, str]:
    """The examples of a dictionary's features, and words that say which features these are.

    They are shaded if the dictionary's activations were kept: those of a rated one were not.
    """
    wanted = scale.studied
    features = known.chosen[entry.name]
    if entry.name in [scale.rated(kind).name for kind in RATED_KINDS]:
        subject = gather.load_subject(layout, entry, device)
        live = automatic.live_features(subject.observed)["feature"].tolist()
        which = (
            f"all that are live on the text (active on more than {automatic.LIVE_FREQUENCY:.2%} of "
            f"its tokens, and in {automatic.LIVE_EXAMPLES} rows or more), and those that occur in "
            "a circuit."
        )
        return Examples(subject, sorted({*live, *features})), which
    z = known.of(entry.name)
    observed = activity.observed_of(
        z, features, wanted, first_position=scale.corpus.first_train_position, seed=scale.seed
    )
    placed = gather.load_placed(layout, [entry], device)[entry.name]
    subject = gather.Subject(entry.name, *placed, observed)
    examples = Examples(subject, features)
    for row, its in enumerate(z.transpose(1, 2, 0)):
        examples.add(row, its)
    return examples, "those that occur in a circuit of this scale."


def _described(scale: Scale, n_rows: int) -> str:
    """What text the features were looked at on, and its licence."""
    sources = ", ".join(f"{source.name} ({source.license})" for source in scale.corpus.source)
    return f"{n_rows} rows of documents that training never saw. Sources: {sources}."
