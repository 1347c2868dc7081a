"""From sources to activations: models, text, tokens, caches."""

from transcoders.cli.app import ScaleName, Threads, job, section, start
from transcoders.errors import UserError


@job("seed", resources="fetch_model", part=lambda scale, model: scale.model(model))
def fetch_model(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Fetch a model and write it as a plain Hugging Face folder in fp32."""
    from transcoders.models import fetch_model

    settings, layout, _ = start("fetch-model", scale, threads)
    fetch_model(settings.model(model), layout.model(model), seed=settings.seed)


@job(
    "seed corpus.context_length corpus.eval_documents corpus.eval_contexts",
    resources="fetch_corpus",
    part=lambda scale, _: [one.model_dump(exclude={"license"}) for one in scale.corpus.source],
)
def fetch_corpus(scale: ScaleName, threads: Threads = None) -> None:
    """Fetch the text, clean it and split it by document."""
    from transcoders.corpus import fetch_corpus

    settings, layout, _ = start("fetch-corpus", scale, threads)
    fetch_corpus(settings.corpus, layout.documents, seed=settings.seed)


@job(
    "seed corpus.context_length corpus.pack_documents corpus.train_contexts corpus.eval_contexts",
    resources="tokenize",
    part=lambda scale, model: scale.model(model).bos_token,
)
def tokenize(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Turn the documents into rows of tokens for one model."""
    from transcoders.corpus import tokenize_corpus

    settings, layout, _ = start("tokenize", scale, threads)
    tokenize_corpus(
        layout.documents,
        settings.corpus,
        settings.model(model),
        layout.model(model),
        layout.tokens(model),
        seed=settings.seed,
    )


@job("corpus.source", resources="tokenize")
def manifest(scale: ScaleName, threads: Threads = None) -> None:
    """Record every document with its split, and every token file with its hash."""
    from transcoders.corpus import write_manifest

    settings, layout, _ = start("manifest", scale, threads)
    write_manifest(
        layout.documents,
        settings.corpus,
        {model: layout.tokens(model) for model in settings.models},
        layout.corpus_manifest,
    )


@job(
    "corpus.train_positions activations.dtype activations.batch_contexts "
    "activations.shard_contexts device",
    resources="cache_activations",
    part=lambda scale, model: [scale.cached_contexts(site) for site in scale.sites_of(model)],
)
def cache_activations(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Measure the inputs and outputs of the MLPs at all sites of one model, and cache them.

    Training starts from their means. Those of sites that are only streamed are not cached.
    """
    from transcoders.activations import cache_activations
    from transcoders.activations.of_scale import sources_of_activations
    from transcoders.corpus import load_rows
    from transcoders.models import load_model

    settings, layout, device = start("cache-activations", scale, threads)
    settings.model(model)  # refuses a name that is not there
    sites = settings.sites_of(model)
    if not sites:
        raise UserError(
            f"{layout.config}: sites: expected one of {model}, found none; it needs no activations"
        )
    cache_activations(
        load_model(layout.model(model), device=device),
        load_rows(layout.tokens(model), "train"),
        {site: layout.activations(site.name) for site in sites},
        section(settings, "activations"),
        settings.corpus,
        sources=sources_of_activations(layout, model),
        cached_rows={site: settings.cached_contexts(site) for site in sites},
        device=device,
    )
