"""What features are about: examples, measures, blind studies."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from transcoders.cli.app import ScaleName, Threads, app, job, open_scale, section, start
from transcoders.config import Scale
from transcoders.files import write_table
from transcoders.layout import Layout

if TYPE_CHECKING:
    from transcoders.rating.study import Study


def bos_token(scale: Scale, _: str) -> Any:
    """The token before each row of the model whose features are observed."""
    assert scale.interpretability is not None
    return scale.model(scale.interpretability.rated_site.model).bos_token


@job(
    "seed device corpus.context_length corpus.pack_documents corpus.train_positions "
    "interpretability.text_contexts interpretability.batch_contexts "
    "interpretability.top_examples interpretability.sampled_examples "
    "interpretability.background_tokens interpretability.random_directions",
    resources="gather_examples",
    part=bos_token,
)
def gather_examples(scale: ScaleName, threads: Threads = None) -> None:
    """Look at what the features of all observed dictionaries do on held-out text."""
    from transcoders.interpretability.jobs import gather_examples

    settings, layout, device = start("gather-examples", scale, threads)
    section(settings, "interpretability")
    gather_examples(settings, layout, device=device)


@job("seed", resources="measure_features")
def measure_features(scale: ScaleName, threads: Threads = None) -> None:
    """Measure the interpretability of the rated dictionaries' features automatically."""
    from transcoders.interpretability.automatic import summarise
    from transcoders.interpretability.jobs import measure_features

    settings, layout, _ = start("measure-features", scale, threads)
    section(settings, "interpretability")
    measures = measure_features(settings, layout)
    write_table(layout.automatic, measures[["dictionary", "feature", "measure", "value"]])
    write_table(layout.automatic_summary, summarise(measures))


@job(
    "seed device corpus.train_positions interpretability.studied_features",
    resources="study_features",
    part=bos_token,
)
def study_features(scale: ScaleName, threads: Threads = None) -> None:
    """Predict from weights alone which tokens make features active, then look, and score."""
    import pandas as pd

    from transcoders.circuits import Tracer
    from transcoders.dictionaries import SparseDictionary
    from transcoders.interpretability.gather import load_observed, load_text
    from transcoders.interpretability.predictions import read_vocabulary
    from transcoders.interpretability.systematic import study_features, summarise_studies

    settings, layout, device = start("study-features", scale, threads)
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


@job(
    "seed device corpus.train_positions interpretability.paged_features",
    resources="study_features",
    part=bos_token,
)
def feature_pages(
    scale: ScaleName,
    dictionary: str,
    features: Annotated[
        list[int] | None, typer.Option("--feature", help="Whose pages; else some drawn at random.")
    ] = None,
    threads: Threads = None,
) -> None:
    """Write a page for each feature of an observed dictionary, and an index."""
    from transcoders.interpretability.jobs import write_pages_of

    settings, layout, device = start("feature-pages", scale, threads)
    section(settings, "interpretability")
    entry = settings.observed_dictionary(dictionary)
    write_pages_of(settings, layout, entry, features, device=device)


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


@job(
    "seed interpretability.rated_features",
    resources="measure_features")  # fmt: skip
def table1(scale: ScaleName, threads: Threads = None) -> None:
    """Count the ratings of all raters who have finished, beside the paper's Table 1."""
    from transcoders.rating.table1 import write_table1

    settings, layout, _ = start("table1", scale, threads)
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
