"""Dictionaries: imported, trained, measured."""

from typing import TYPE_CHECKING, Any

from transcoders.cli.app import ScaleName, Threads, app, open_scale, section
from transcoders.cli.data import sources_of_activations
from transcoders.config import Dictionary, Scale, Site
from transcoders.errors import UserError
from transcoders.files import made_sha256, read_json, read_table, write_table
from transcoders.layout import Layout
from transcoders.process import prepare_process

if TYPE_CHECKING:
    import pandas as pd

    from transcoders.activations import ActivationCache, ActivationStream


@app.command()
def import_transcoder(scale: ScaleName, name: str, threads: Threads = None) -> None:
    """Fetch a transcoder that others trained and save it in this project's format."""
    from transcoders.imported import import_transcoder

    settings, layout = open_scale(scale)
    prepare_process(threads, settings.resources.fetch_model)
    entry = settings.imported_transcoder(name)
    import_transcoder(entry, settings.model(entry.site.model), layout.dictionary(name))


@app.command()
def train(scale: ScaleName, group: str, threads: Threads = None) -> None:
    """Train the dictionaries of one group; a killed job goes on from its last checkpoint."""
    import torch

    from transcoders.environment import device_name, package_versions
    from transcoders.training import steps_per_epoch, train_group

    settings, layout = open_scale(scale)
    device = prepare_process(
        threads, settings.resources.train, settings.device, keep_freed_memory=True
    )
    entries = settings.dictionaries_in(settings.group(group))
    site = settings.group(group).site
    training = settings.training_of(settings.group(group))
    if training.precision == "tf32":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    activations = _open_activations(settings, layout, site, device)
    found = (activations.n_tokens, activations.d_model)
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
        activations,
        training,
        seed=settings.seed,
        device=device,
        checkpoint=checkpoint,
        inputs={
            "activations": {key: activations.record[key] for key in ("sources", "files")},
            "threads": settings.resources.train.threads,
        },
    )
    steps = steps_per_epoch(activations.n_tokens, training) * training.epochs
    shared = {
        "scale": settings.name,
        "seed": settings.seed,
        "tokens_trained": steps * training.batch_tokens,
        **training.model_dump(mode="json", exclude_none=True),
        "train_positions": settings.corpus.train_positions,
        "activations_dtype": section(settings, "activations").dtype,
        "activations_of_sha256": activations.record["sources"],
        "corpus_manifest_sha256": made_sha256(layout.corpus_manifest),
        "threads": settings.resources.train.threads,
        "device": device_name(device),
        "versions": package_versions("torch", "numpy", "numba", "safetensors"),
    }
    for entry, result in zip(entries, trained, strict=True):
        record = {
            "metadata": _metadata(entry, settings.corpus.context_length),
            "training": shared
            | {"l1_coefficient": entry.l1_coefficient, "k": entry.k}
            | entry.model_dump(mode="json", include={"learning_rate"}, exclude_none=True),
        }
        result.dictionary.save_pretrained(
            layout.dictionary(entry.name), record, training_csv=result.training_csv
        )
    checkpoint.unlink(missing_ok=True)


def _metadata(entry: Dictionary, context_length: int) -> dict[str, Any]:
    """Which activations a dictionary reads and imitates, in SAELens's words."""
    points = {"mlp_in": "ln2.hook_normalized", "mlp_out": "hook_mlp_out"}
    layer = f"blocks.{entry.site.layer}"
    return {
        "model_name": entry.site.model,
        "hook_name": f"{layer}.{points[entry.traits.reads]}",
        "hook_name_out": f"{layer}.{points[entry.traits.imitates]}",
        "prepend_bos": True,
        "context_size": context_length,
    }


def _open_activations(
    settings: Scale, layout: Layout, site: Site, device: str
) -> "ActivationCache | ActivationStream":
    from transcoders.activations import ActivationCache, ActivationStream

    folder = layout.activations(site.name)
    activations = section(settings, "activations")
    if activations.mode == "cache":
        return ActivationCache(folder)
    # Only here: the libraries behind it take seconds to import.
    from transcoders.corpus import load_rows
    from transcoders.models import load_model

    return ActivationStream(
        load_model(layout.model(site.model), device=device),
        site,
        load_rows(layout.tokens(site.model), "train"),
        folder,
        activations,
        settings.corpus,
        sources=sources_of_activations(layout, site.model),
        device=device,
    )


@app.command()
def evaluate(scale: ScaleName, site: str, threads: Threads = None) -> None:
    """Measure all dictionaries of one site on the held-out documents."""
    settings, layout = open_scale(scale)
    place = settings.site(site)
    table, by_document = _evaluate(
        settings, layout, place, settings.dictionaries_of(place), threads
    )
    write_table(layout.site_evaluation(site), table)
    write_table(layout.site_evaluation_by_document(site), by_document)


@app.command()
def compare_learning_rates(scale: ScaleName, threads: Threads = None) -> None:
    """Measure the dictionaries that differ in learning rate, as all others are measured."""
    import pandas as pd

    settings, layout = open_scale(scale)
    entries = settings.learning_rate_dictionaries
    tables = [
        _evaluate(
            settings, layout, site, [entry for entry in entries if entry.site == site], threads
        )[0]
        for site in dict.fromkeys(entry.site for entry in entries)
    ]
    rates = {entry.name: entry.learning_rate for entry in entries}
    table = pd.concat(tables, ignore_index=True)
    table.insert(1, "learning_rate", table["dictionary"].map(rates))
    write_table(layout.learning_rates, table)


def _evaluate(
    settings: Scale, layout: Layout, site: Site, entries: list[Dictionary], threads: int | None
) -> "tuple[pd.DataFrame, pd.DataFrame]":

    from transcoders.activations import load_statistics
    from transcoders.corpus import load_rows
    from transcoders.dictionaries import SparseDictionary
    from transcoders.evaluation import evaluate_site
    from transcoders.models import load_model

    device = prepare_process(threads, settings.resources.evaluate, settings.device)
    dictionaries = []
    for entry in entries:
        folder = layout.dictionary(entry.name)
        tokens_trained = read_json(folder / "cfg.json")["training"]["tokens_trained"]
        dictionaries.append(
            (entry, SparseDictionary.from_pretrained(folder).to(device), tokens_trained)
        )
    return evaluate_site(
        load_model(layout.model(site.model), device=device),
        load_rows(layout.tokens(site.model), "eval"),
        list(read_table(layout.documents, columns=["id"])["id"]),
        dictionaries,
        load_statistics(layout.activations(site.name)).mlp_out_mean,
        settings.corpus,
        section(settings, "evaluation"),
        seed=settings.seed,
        device=device,
    )


@app.command()
def collect_tables(scale: ScaleName) -> None:
    """Join the tables of all sites into evaluation.csv and evaluation_by_document.csv."""
    import pandas as pd

    settings, layout = open_scale(scale)
    for part, whole in (
        (layout.site_evaluation, layout.evaluation),
        (layout.site_evaluation_by_document, layout.evaluation_by_document),
    ):
        # As text, so that joining changes no digit.
        tables = [read_table(part(site.name), dtype=str) for site in settings.all_sites]
        write_table(whole, pd.concat(tables))
