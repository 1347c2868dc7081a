"""Command line: one subcommand per workflow rule.

Every subcommand takes the scale by name and finds all its paths through :mod:`transcoders.layout`,
so each can also be run by hand from the root of the repository.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
import yaml

from transcoders.config import Scale, load_scale
from transcoders.errors import UserError
from transcoders.files import write_table
from transcoders.layout import Layout
from transcoders.process import prepare_process

app = typer.Typer(
    help="Transcoders find interpretable LLM feature circuits: the steps of the reproduction.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

ScaleName = Annotated[str, typer.Option("--scale", help="Name of a file in config/.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="Cores that were granted; must be what the scale file fixes."),
]


@app.command()
def fetch_model(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Fetch a model and write it as a plain Hugging Face folder in fp32."""
    from transcoders.models import fetch_model

    settings, layout = _open(scale)
    prepare_process(threads, settings.resources.fetch_model)
    fetch_model(settings.model(model), layout.model(model), seed=settings.seed)


@app.command()
def fetch_corpus(scale: ScaleName, threads: Threads = None) -> None:
    """Fetch the text, clean it and split it by document."""
    from transcoders.corpus import fetch_corpus

    settings, layout = _open(scale)
    prepare_process(threads, settings.resources.fetch_corpus)
    fetch_corpus(settings.corpus, layout.documents, seed=settings.seed)


@app.command()
def tokenize(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Turn the documents into rows of tokens for one model."""
    from transcoders.corpus import tokenize_corpus

    settings, layout = _open(scale)
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

    settings, layout = _open(scale)
    write_manifest(
        layout.documents,
        settings.corpus,
        {model: layout.tokens(model) for model in settings.models},
        layout.corpus_manifest,
    )


@app.command()
def cache_activations(scale: ScaleName, model: str, threads: Threads = None) -> None:
    """Cache the inputs and outputs of the MLPs at all sites of one model."""
    from transcoders.activations import cache_activations
    from transcoders.corpus import load_rows
    from transcoders.files import read_json
    from transcoders.models import LanguageModel

    settings, layout = _open(scale)
    device = prepare_process(threads, settings.resources.cache_activations, settings.device)
    sites = settings.sites_of(model)
    tokens = layout.tokens(model)
    cache_activations(
        LanguageModel.load(layout.model(model), n_layers=sites[-1].layer + 1, device=device),
        load_rows(tokens, "train"),
        {site: layout.activations(site.name) for site in sites},
        settings.activations,
        settings.corpus,
        sources={
            "tokens": read_json(tokens / "tokens.json")["train"]["sha256"],
            "model": read_json(layout.model(model) / "source.json")["files"]["model.safetensors"],
        },
        device=device,
    )


@app.command()
def train(scale: ScaleName, group: str, threads: Threads = None) -> None:
    """Train the dictionaries of one group; a killed job goes on from its last checkpoint."""
    import torch

    from transcoders.activations import ActivationCache
    from transcoders.dictionaries import save_dictionary
    from transcoders.files import sha256
    from transcoders.training import steps_per_epoch, train_group

    settings, layout = _open(scale)
    device = prepare_process(
        threads, settings.resources.train, settings.device, keep_freed_memory=True
    )
    entries = [entry for entry in settings.dictionaries if entry.group == group]
    site = settings.group(group).site
    training = settings.training_of(settings.group(group))
    if training.precision == "tf32":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    cache = ActivationCache(layout.activations(site.name))
    found = (cache.n_tokens, cache.d_model)
    expected = (settings.corpus.train_tokens, settings.model(site.model).d_model)
    if found != expected:
        raise UserError(
            f"{layout.activations(site.name)}: expected {expected[0]} tokens of width "
            f"{expected[1]}, as the scale file says, found {found[0]} of width {found[1]}; delete "
            "the folder and run again"
        )
    checkpoint = layout.checkpoint(group)
    trained = train_group(
        entries,
        cache,
        training,
        seed=settings.seed,
        device=device,
        checkpoint=checkpoint,
        inputs={"activations": cache.record["files"], "threads": settings.resources.train.threads},
    )
    steps = steps_per_epoch(cache.n_tokens, training) * training.epochs
    tokens_trained = steps * training.batch_tokens
    manifest_hash = sha256(layout.corpus_manifest)
    versions = _versions("torch", "numpy", "safetensors")
    for entry, result in zip(entries, trained, strict=True):
        points = {"mlp_in": "ln2.hook_normalized", "mlp_out": "hook_mlp_out"}
        record = {
            "metadata": {
                "model_name": site.model,
                "hook_name": f"blocks.{site.layer}.{points[entry.traits.reads]}",
                "hook_name_out": f"blocks.{site.layer}.{points[entry.traits.imitates]}",
                "prepend_bos": True,
                "context_size": settings.corpus.context_length,
            },
            "training": {
                "scale": settings.name,
                "seed": settings.seed,
                "l1_coefficient": entry.l1_coefficient,
                "k": entry.k,
                "tokens_trained": tokens_trained,
                **training.model_dump(mode="json"),
                "train_positions": settings.corpus.train_positions,
                "activations_dtype": settings.activations.dtype,
                "activations_of_sha256": cache.record["sources"],
                "corpus_manifest_sha256": manifest_hash,
                "threads": settings.resources.train.threads,
                "device": device,
                "versions": versions,
            },
        }
        save_dictionary(
            result.dictionary, layout.dictionary(entry.name), record, result.training_csv
        )
    checkpoint.unlink(missing_ok=True)


@app.command()
def evaluate(scale: ScaleName, site: str, threads: Threads = None) -> None:
    """Measure all dictionaries of one site on the held-out documents."""
    import pandas as pd

    from transcoders.activations import load_statistics
    from transcoders.corpus import load_rows
    from transcoders.dictionaries import load_dictionary
    from transcoders.evaluation import evaluate_site
    from transcoders.files import read_json
    from transcoders.models import LanguageModel

    settings, layout = _open(scale)
    device = prepare_process(threads, settings.resources.evaluate, settings.device)
    place = settings.site(site)
    dictionaries = []
    for entry in settings.dictionaries_of(place):
        folder = layout.dictionary(entry.name)
        tokens_trained = read_json(folder / "cfg.json")["training"]["tokens_trained"]
        dictionaries.append((entry, load_dictionary(folder).to(device), tokens_trained))
    table, by_document = evaluate_site(
        LanguageModel.load(layout.model(place.model), device=device),
        load_rows(layout.tokens(place.model), "eval"),
        list(pd.read_parquet(layout.documents, columns=["id"])["id"]),
        dictionaries,
        load_statistics(layout.activations(site)).mlp_out_mean,
        settings.corpus,
        settings.evaluation,
        seed=settings.seed,
        device=device,
    )
    write_table(layout.site_evaluation(site), table)
    write_table(layout.site_evaluation_by_document(site), by_document)


@app.command()
def collect_tables(scale: ScaleName) -> None:
    """Join the tables of all sites into evaluation.csv and evaluation_by_document.csv."""
    import pandas as pd

    settings, layout = _open(scale)
    for part, whole in (
        (layout.site_evaluation, layout.evaluation),
        (layout.site_evaluation_by_document, layout.evaluation_by_document),
    ):
        # As text, so that joining changes no digit.
        tables = [pd.read_csv(part(site.name), dtype=str) for site in settings.all_sites]
        write_table(whole, pd.concat(tables))


@app.command()
def circuit(
    scale: ScaleName,
    case: Annotated[
        str | None, typer.Option(help="A circuit of the scale file; its files go to results/.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Any text, in place of a case.")] = None,
    target: Annotated[
        str | None, typer.Option(help="tc24\\[123]@-1, tc24\\[top]@-1 or logit\\[a]-logit\\[b]@-1.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A model of the scale; else the first.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the files of the circuit.")] = None,
    paths: Annotated[int | None, typer.Option(help="Paths kept in each round.")] = None,
    iterations: Annotated[int | None, typer.Option(help="Rounds of the search.")] = None,
    components: Annotated[
        list[str] | None, typer.Option("--component", help="feature, head, mlp, embed or error.")
    ] = None,
    layers: Annotated[
        list[int] | None, typer.Option("--layer", help="Layers that paths run through.")
    ] = None,
    heads: Annotated[list[str] | None, typer.Option("--head", help="As attn9[1].")] = None,
    tokens: Annotated[list[int] | None, typer.Option("--token", help="Position.")] = None,
    exclude_bos: Annotated[bool, typer.Option("--exclude-bos", help="Leave out token 0.")] = False,
    sign: Annotated[str, typer.Option(help="positive, negative or both.")] = "positive",
    threads: Threads = None,
) -> None:
    """Find the circuit of a feature or logit on a prompt, and print its strongest paths."""
    settings, layout = _open(scale)
    device = prepare_process(threads, settings.resources.circuit, settings.device)
    if case is not None:
        entry = settings.circuit_case(case)
        prompt, target, model = entry.prompt, entry.target, entry.model
        components = components or list(entry.components)
        out = out or layout.circuit(case)
    if prompt is None or target is None:
        raise UserError("circuit: expected --case, or --prompt and --target; see --help")

    from transcoders.circuits import Search, Tracer, parse_head
    from transcoders.circuits.report import write_circuit
    from transcoders.corpus import load_rows

    model = model or next(iter(settings.models))
    search = Search(
        n_paths=paths or settings.circuits.n_paths,
        iterations=iterations or settings.circuits.iterations,
        components=tuple(components or Search.components),
        layers=layers,
        heads=None if heads is None else [parse_head(head) for head in heads],
        tokens=tokens,
        exclude_bos=exclude_bos,
        sign=sign,  # type: ignore[arg-type]  # Search refuses what is none
    )
    tracer = Tracer.load(scale, model, device=device)
    found = tracer.trace(prompt, target, search)
    typer.echo(f"{found.target.name} = {found.target.value:.3f} on {found.tokens}")
    typer.echo(found.table())
    if out is not None:
        rows = load_rows(layout.tokens(model), "train").tokens
        write_circuit(
            tracer,
            found,
            rows[: settings.circuits.text_contexts].to(device),
            out,
            name=case or out.name,
            model=model,
            prompt=prompt,
            settings=vars(search),
        )


@app.command()
def notebook(scale: ScaleName, name: str, threads: Threads = None) -> None:
    """Execute a notebook for a scale and render it as a page."""
    from transcoders.notebooks import run_notebook

    settings, layout = _open(scale)
    prepare_process(threads, settings.resources.notebook)
    run_notebook(name, settings.name, layout.notebook(name))


@app.command()
def schema() -> None:
    """Print the JSON schema of scale files, as YAML."""
    generated = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Scale.model_json_schema(),
    }
    generated["required"] = [key for key in generated["required"] if key != "name"]
    typer.echo("# Generated by `python -m transcoders schema`; change src/transcoders/config/.")
    typer.echo(yaml.safe_dump(generated, sort_keys=False, width=100, allow_unicode=True), nl=False)


def main() -> None:
    """Run the command line; a :class:`UserError` becomes one message and exit status 1."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # a log holds our progress only
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products
    try:
        app()
    except UserError as error:
        sys.exit(f"error: {error}")


def _open(scale: str) -> tuple[Scale, Layout]:
    layout = Layout(scale)
    return load_scale(layout.config), layout


def _versions(*packages: str) -> dict[str, str]:
    from importlib.metadata import version

    # Without the local part (+cpu, +cu130): the device is recorded beside it.
    return {package: version(package).split("+")[0] for package in packages}
