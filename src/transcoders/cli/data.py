"""From sources to activations: models, text, tokens, caches."""

from transcoders.cli.app import Run, job, section
from transcoders.errors import UserError


@job("seed", resources="fetch_model", part=lambda scale, model: scale.model(model))
def fetch_model(run: Run, model: str) -> None:
    """Fetch a model and write it as a plain Hugging Face folder in fp32."""
    from transcoders.models import fetch_model

    fetch_model(run.scale.model(model), run.layout.model(model), seed=run.scale.seed)


@job(
    "seed corpus.context_length corpus.eval_documents corpus.eval_contexts",
    resources="fetch_corpus",
    part=lambda scale, _: [one.model_dump(exclude={"license"}) for one in scale.corpus.source],
)
def fetch_corpus(run: Run) -> None:
    """Fetch the text, clean it and split it by document."""
    from transcoders.corpus import fetch_corpus

    fetch_corpus(run.scale.corpus, run.layout.documents, seed=run.scale.seed)


@job(
    "seed corpus.context_length corpus.pack_documents corpus.train_contexts corpus.eval_contexts",
    resources="tokenize",
    part=lambda scale, model: scale.model(model).bos_token,
)
def tokenize(run: Run, model: str) -> None:
    """Turn the documents into rows of tokens for one model."""
    from transcoders.corpus import tokenize_corpus

    scale, layout, _ = run
    tokenize_corpus(
        layout.documents,
        scale.corpus,
        scale.model(model),
        layout.model(model),
        layout.tokens(model),
        seed=scale.seed,
    )


@job("corpus.source", resources="tokenize")
def manifest(run: Run) -> None:
    """Record every document with its split, and every token file with its hash."""
    from transcoders.corpus import write_manifest

    scale, layout, _ = run
    write_manifest(
        layout.documents,
        scale.corpus,
        {model: layout.tokens(model) for model in scale.models},
        layout.corpus_manifest,
    )


@job(
    "corpus.train_positions activations.dtype activations.batch_contexts "
    "activations.shard_contexts device",
    resources="cache_activations",
    part=lambda scale, model: [scale.cached_contexts(site) for site in scale.sites_of(model)],
)
def cache_activations(run: Run, model: str) -> None:
    """Measure the inputs and outputs of the MLPs at all sites of one model, and cache them.

    Training starts from their means. Sites that are only streamed are not cached.
    """
    from transcoders.activations import cache_activations, sources_of_activations
    from transcoders.corpus import load_rows
    from transcoders.models import load_model

    scale, layout, device = run
    scale.model(model)  # refuses a name that is not there
    sites = scale.sites_of(model)
    if not sites:
        raise UserError(
            f"{layout.config}: sites: expected a site of {model}, found none; "
            "it needs no activations"
        )
    cache_activations(
        load_model(layout.model(model), device=device),
        load_rows(layout.tokens(model), "train"),
        {site: layout.activations(site.name) for site in sites},
        section(scale, "activations"),
        scale.corpus,
        sources=sources_of_activations(layout, model),
        cached_rows={site: scale.cached_contexts(site) for site in sites},
    )
