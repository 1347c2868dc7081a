"""From sources to activations: models, text, tokens, caches."""

from transcoders.cli.app import ScaleName, Threads, app, open_scale, section
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.process import prepare_process


@app.command()
def fetch_model(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Fetch a model and write it as a plain Hugging Face folder in fp32."""
    from transcoders.models import fetch_model

    settings, layout = open_scale(scale)
    prepare_process(threads, settings.resources.fetch_model)
    fetch_model(settings.model(model), layout.model(model), seed=settings.seed)


@app.command()
def fetch_corpus(scale: ScaleName, threads: Threads = None) -> None:
    """Fetch the text, clean it and split it by document."""
    from transcoders.corpus import fetch_corpus

    settings, layout = open_scale(scale)
    prepare_process(threads, settings.resources.fetch_corpus)
    fetch_corpus(settings.corpus, layout.documents, seed=settings.seed)


@app.command()
def tokenize(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Turn the documents into rows of tokens for one model."""
    from transcoders.corpus import tokenize_corpus

    settings, layout = open_scale(scale)
    prepare_process(threads, settings.resources.tokenize)
    tokenize_corpus(
        layout.documents,
        settings.corpus,
        settings.model(model),
        layout.model(model),
        layout.tokens(model),
        seed=settings.seed,
    )


@app.command()
def manifest(scale: ScaleName) -> None:
    """Record every document with its split, and every token file with its hash."""
    from transcoders.corpus import write_manifest

    settings, layout = open_scale(scale)
    write_manifest(
        layout.documents,
        settings.corpus,
        {model: layout.tokens(model) for model in settings.models},
        layout.corpus_manifest,
    )


@app.command()
def cache_activations(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Cache the inputs and outputs of the MLPs at all sites of one model.

    Where they are streamed: their means, which training starts from.
    """
    from transcoders.activations import cache_activations
    from transcoders.corpus import load_rows
    from transcoders.models import load_model

    settings, layout = open_scale(scale)
    device = prepare_process(threads, settings.resources.cache_activations, settings.device)
    settings.model(model)  # refuses a name that is none
    sites = settings.sites_of(model)
    if not sites:
        raise UserError(f"{layout.config}: sites: none is of {model}, so it needs no activations")
    cache_activations(
        load_model(layout.model(model), device=device),
        load_rows(layout.tokens(model), "train"),
        {site: layout.activations(site.name) for site in sites},
        section(settings, "activations"),
        settings.corpus,
        sources=sources_of_activations(layout, model),
        device=device,
    )


def sources_of_activations(layout: Layout, model: str) -> dict[str, str]:
    """SHA-256 of what a model's activations are made from."""
    from transcoders.files import read_json

    return {
        "tokens": read_json(layout.tokens(model) / "tokens.json")["train"]["sha256"],
        "model": read_json(layout.model(model) / "source.json")["files"]["model.safetensors"],
    }
