"""What features are about: examples, measures, blind studies."""

from typing import TYPE_CHECKING, Annotated

import typer

from transcoders.cli.app import ScaleName, Threads, app, open_scale, section
from transcoders.config import Scale
from transcoders.errors import UserError
from transcoders.files import write_table
from transcoders.layout import Layout
from transcoders.process import prepare_process

if TYPE_CHECKING:
    from transcoders.rating.study import Study


@app.command()
def gather_examples(scale: ScaleName, threads: Threads = None) -> None:
    """Look at what the features of all observed dictionaries do on held-out text."""
    from transcoders.corpus import held_out_rows
    from transcoders.dictionaries import SparseDictionary
    from transcoders.interpretability.gather import gather, random_directions
    from transcoders.models import load_model, mlp_activations

    settings, layout = open_scale(scale)
    device = prepare_process(threads, settings.resources.gather_examples, settings.device)
    wanted = section(settings, "interpretability")
    site = wanted.rated_site
    rows = held_out_rows(
        layout.documents,
        settings.corpus,
        settings.model(site.model),
        layout.model(site.model),
        wanted.text_contexts,
        seed=settings.seed,
    )
    dictionaries = {
        entry.name: (
            entry.site,
            SparseDictionary.from_pretrained(layout.dictionary(entry.name)).to(device),
        )
        for entry in settings.observed_dictionaries
    }
    model = load_model(layout.model(site.model), device=device)
    first = settings.corpus.first_train_position
    rated = settings.rated("transcoder")
    sample = mlp_activations(model, rows.tokens[:16].to(device), [site.layer])[site.layer]
    mlp_in = sample.mlp_in[:, first:].flatten(0, 1)
    transcoder = dictionaries[rated.name][1]
    frequencies = (transcoder.encode(mlp_in) > 0).float().mean(dim=0)
    dictionaries[wanted.baseline] = (
        site,
        random_directions(
            transcoder, frequencies, mlp_in, wanted.random_directions, seed=settings.seed
        ),
    )
    gather(
        model,
        rows,
        dictionaries,
        wanted,
        layout.observed,
        first_position=first,
        seed=settings.seed,
        device=device,
    )


@app.command()
def measure_features(scale: ScaleName, threads: Threads = None) -> None:
    """Measure the interpretability of the rated dictionaries' features automatically."""
    import pandas as pd

    from transcoders.interpretability.automatic import measure_features, summarise
    from transcoders.interpretability.gather import load_observed, load_text

    settings, layout = open_scale(scale)
    prepare_process(threads, settings.resources.measure_features)
    wanted = section(settings, "interpretability")
    text = load_text(layout.observed)
    names = [*(settings.rated(kind).name for kind in ("transcoder", "mlp_in_sae")), wanted.baseline]
    measures = pd.concat(
        [
            measure_features(load_observed(layout.observed, name), text, seed=settings.seed).assign(
                dictionary=name
            )
            for name in names
        ]
    )
    columns = ["dictionary", "feature", "measure", "value"]
    write_table(layout.automatic, measures[columns])
    write_table(layout.automatic_summary, summarise(measures))


@app.command()
def study_features(scale: ScaleName, threads: Threads = None) -> None:
    """Predict from weights alone which tokens make features active, then look, and score."""
    import pandas as pd

    from transcoders.circuits import Tracer
    from transcoders.dictionaries import SparseDictionary
    from transcoders.interpretability.gather import load_observed, load_text
    from transcoders.interpretability.predictions import read_vocabulary
    from transcoders.interpretability.systematic import study_features, summarise_studies

    settings, layout = open_scale(scale)
    device = prepare_process(threads, settings.resources.study_features, settings.device)
    wanted = section(settings, "interpretability")
    tracer = Tracer.load(scale, wanted.rated_site.model, device=device)
    vocabulary = read_vocabulary(tracer.replacement)
    text = load_text(layout.observed)
    entries = [
        entry
        for entry in settings.observed_dictionaries
        if entry.kind == "transcoder" and entry.site.layer > 0
    ]
    studies = pd.concat(
        [
            study_features(
                tracer.replacement,
                entry.name,
                entry.site.layer,
                SparseDictionary.from_pretrained(layout.dictionary(entry.name)).to(device),
                load_observed(layout.observed, entry.name),
                text,
                tracer.tokenizer,
                # The same number for each dictionary, rounded up.
                n_features=-(-wanted.studied_features // len(entries)),
                seed=settings.seed,
                vocabulary=vocabulary,
            )
            for entry in entries
        ]
    )
    write_table(layout.systematic, studies)
    write_table(layout.systematic_summary, summarise_studies(studies))


@app.command()
def feature_pages(
    scale: ScaleName,
    dictionary: str,
    features: Annotated[
        list[int] | None, typer.Option("--feature", help="Whose pages; else some drawn at random.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Write a page for each feature of an observed dictionary, and an index."""
    from transcoders.circuits import Tracer
    from transcoders.dictionaries import SparseDictionary
    from transcoders.interpretability.automatic import live_features
    from transcoders.interpretability.feature_pages import Subject, pages_of, write_feature_pages
    from transcoders.interpretability.gather import load_observed, load_text

    settings, layout = open_scale(scale)
    device = prepare_process(threads, settings.resources.study_features, settings.device)
    wanted = section(settings, "interpretability")
    entry = settings.observed_dictionary(dictionary)
    observed = load_observed(layout.observed, dictionary)
    known = live_features(observed)
    for feature in features or []:
        if not 0 <= feature < len(observed.features):
            raise UserError(
                f"feature {feature}: expected one from 0 to {len(observed.features) - 1} of "
                f"{dictionary}"
            )
    tracer = Tracer.load(scale, entry.site.model, device=device)
    write_feature_pages(
        tracer.replacement,
        Subject(
            entry.name,
            entry.traits.label,
            entry.site,
            SparseDictionary.from_pretrained(layout.dictionary(entry.name)).to(device),
            observed,
        ),
        load_text(layout.observed),
        tracer.tokenizer,
        sorted(features or pages_of(known, wanted.paged_features, seed=settings.seed)),
        layout.feature_pages(entry.name),
    )


@app.command()
def rate(
    scale: ScaleName,
    rater: Annotated[str, typer.Option(help="Whose ratings; a name of letters and digits.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the page; 0 for any that is free.")
    ] = 8765,
) -> None:
    """Rate features blind, in a browser on this machine; go on where the rater stopped."""
    from transcoders.rating.server import serve

    settings, layout = open_scale(scale)
    serve(_rating_study(settings, layout), layout.ratings, rater, port=port)


@app.command()
def table1(scale: ScaleName) -> None:
    """Count the ratings of all raters who have finished, beside the paper's Table 1."""
    from transcoders.rating.table1 import write_table1

    settings, layout = open_scale(scale)
    write_table1(
        _rating_study(settings, layout),
        layout.ratings,
        table=layout.table1,
        record=layout.table1.with_suffix(".json"),
    )


def _rating_study(settings: Scale, layout: Layout) -> "Study":
    """The blind study of the rated site's transcoder and MLP-in SAE."""
    from transcoders.interpretability.gather import load_observed, load_text
    from transcoders.models import load_tokenizer
    from transcoders.rating.study import RatedDictionary, create_study

    wanted = section(settings, "interpretability")
    entries = [settings.rated("transcoder"), settings.rated("mlp_in_sae")]
    return create_study(
        [
            RatedDictionary(entry.name, entry.kind, load_observed(layout.observed, entry.name))
            for entry in entries
        ],
        load_text(layout.observed),
        load_tokenizer(layout.model(wanted.rated_site.model)),
        n_features=wanted.rated_features,
        seed=settings.seed,
    )
