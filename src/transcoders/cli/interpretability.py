"""What features are about: examples, measures, blind studies, ratings."""

from pathlib import Path
from typing import Annotated, Any

import typer

from transcoders.cli.app import Run, ScaleName, app, job, open_scale, section
from transcoders.config import Scale
from transcoders.contents import pages_of
from transcoders.layout import plain
from transcoders.process import set_environment

study = typer.Typer(help="Blind studies of features.", no_args_is_help=True)
app.add_typer(study, name="study")


def _bos_token(scale: Scale, _: str) -> Any:
    """The token before each row of the model whose features are observed."""
    return scale.model(scale.studied.rated_site.model).bos_token


@job(
    "seed device corpus.context_length corpus.pack_documents corpus.train_positions "
    "interpretability.text_contexts interpretability.batch_contexts "
    "interpretability.top_examples interpretability.sampled_examples "
    "interpretability.background_tokens interpretability.random_directions",
    resources="gather_examples",
    part=_bos_token,
)
def gather_examples(run: Run) -> None:
    """Look at what the features of all observed dictionaries do on held-out text."""
    from transcoders.interpretability.jobs import gather_examples_of

    gather_examples_of(run.scale, run.layout, device=run.device)


@job("seed", resources="measure_features")
def measure_features(run: Run) -> None:
    """Measure the interpretability of the rated dictionaries' features automatically."""
    from transcoders.interpretability.jobs import measure_features_of

    section(run.scale, "interpretability")
    measure_features_of(run.scale, run.layout)


@job(
    "seed device corpus.train_positions interpretability.studied_features",
    resources="study_features",
    part=_bos_token,
)
def study_features(run: Run) -> None:
    """Predict from weights alone which tokens make features active, then look, and score."""
    from transcoders.interpretability.jobs import study_features_of

    study_features_of(run.scale, run.layout, device=run.device)


def _looked_at(scale: Scale, model: str) -> Any:
    """The token before each row, and how many features are drawn if the model has rated ones."""
    wanted = scale.studied
    n_drawn = wanted.rated_features if wanted.rated_site.model == model else 0
    return scale.model(model).bos_token, n_drawn


@job(
    "seed device corpus.context_length corpus.pack_documents corpus.train_positions "
    "interpretability.text_contexts interpretability.batch_contexts",
    resources="gather_examples",
    part=_looked_at,
)
def gather_activity(run: Run, model: str) -> None:
    """Look at what the features of a model's circuits do on held-out text."""
    from transcoders.interpretability.jobs import gather_activity_of

    gather_activity_of(run.scale, run.layout, model, device=run.device)


@job("seed corpus.train_positions", resources="measure_features")
def label_features(run: Run) -> None:
    """Give names to the features of circuits, and to some of the rated dictionaries."""
    from transcoders.interpretability.jobs import label_features_of

    section(run.scale, "interpretability")
    label_features_of(run.scale, run.layout)


def _browsed(scale: Scale, _: str) -> Any:
    """The token before each row of every model, and what the pages say of the text."""
    bos_tokens = [scale.model(name).bos_token for name in scale.labelled_models]
    return bos_tokens, [(source.name, source.license) for source in scale.corpus.source]


@job(
    "seed device corpus.train_positions interpretability.top_examples "
    "interpretability.sampled_examples",
    resources="study_features",
    part=_browsed,
)
def feature_browser(run: Run) -> None:
    """Write a page for each dictionary on which its features can be searched and looked at."""
    from transcoders.interpretability.jobs import write_browser_of

    write_browser_of(run.scale, run.layout, device=run.device)


@app.command()
def rate(
    scale: ScaleName,
    rater: Annotated[str, typer.Option(help="Whose ratings; a name of letters and digits.")],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="The page's port; 0 for any that is free.")
    ] = 8765,
    address: Annotated[
        str | None,
        typer.Option(help="The page's address in the browser, where a proxy (Jupyter) serves it."),
    ] = None,
    language_model: Annotated[
        str | None, typer.Option(help="Which language model rates, if no person does.")
    ] = None,
) -> None:
    """Rate features blind, in a browser on this machine; go on where the rater stopped."""
    from transcoders.rating.server import HOST, listen, make_app
    from transcoders.rating.study import load_study

    settings, layout = open_scale(scale)
    section(settings, "interpretability")
    rated = load_study(settings, layout)
    server = listen(make_app(rated, layout.ratings, rater, address, language_model), port=port)
    page = address or f"http://{HOST}:{server.port}/"
    typer.echo(f"Open {page} to rate as {rater}; every click is saved, Ctrl+C stops")
    server.serve_forever()


@job("seed interpretability.rated_features", resources="measure_features")
def table1(run: Run) -> None:
    """Count the ratings of all raters who have finished, beside the paper's Table 1."""
    from transcoders.rating.study import load_study
    from transcoders.rating.table1 import write_table1

    write_table1(lambda: load_study(run.scale, run.layout), run.layout)


@job("device corpus.train_positions", resources="study_features", part=_bos_token)
def case_studies(run: Run) -> None:
    """Carry out the case studies of a scale again, and score their hypotheses: Table 4."""
    from transcoders.case_studies.scripts import write_table4

    write_table4(run.scale.name, run.layout, device=run.device)


@job("", resources="notebook", part=lambda scale, _: pages_of(scale))
def case_study_page(run: Run, study: str) -> None:
    """Render a case study, as it was carried out, as a notebook and a page."""
    from transcoders.case_studies.page import write_study_page

    write_study_page(study, run.scale, run.layout)


@study.command()
def new(
    scale: ScaleName,
    feature: Annotated[str, typer.Argument(help="As tc20\\[665].")],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; else one named after the feature.")
    ] = None,
    drawn: Annotated[
        bool, typer.Option("--drawn", help="The feature was drawn at random, not picked.")
    ] = False,
    restricted: Annotated[
        bool, typer.Option("--restricted", help="Hide what prompts make of layer 0, too.")
    ] = False,
) -> None:
    """Write the draft of a blind study: all but the analyst's own words is filled in."""
    set_environment(open_scale(scale)[0].instruction_set)
    from transcoders.case_studies.scripts import write_draft

    name = feature.replace("[", "-").removesuffix("]")
    path = out or Path(f"{plain(name)}.yaml")
    write_draft(path, scale, feature, drawn=drawn, restricted=restricted)
    typer.echo(f"Wrote {path}: open it; its first lines say what to do.")
