"""Dictionaries: imported, trained, measured."""

from typing import Any

from transcoders.cli.app import Run, job, section
from transcoders.config import Scale
from transcoders.files import read_table, write_table


def _imported(scale: Scale, name: str) -> Any:
    entry = scale.imported_transcoder(name)
    return entry.source, entry.file, entry.n_features, scale.model(entry.site.model).d_model


@job("", resources="fetch_model", part=_imported)
def import_transcoder(run: Run, name: str) -> None:
    """Fetch a transcoder that others trained and save it in this project's format."""
    from transcoders.imported import import_transcoder

    entry = run.scale.imported_transcoder(name)
    import_transcoder(entry, run.scale.model(entry.site.model), run.layout.dictionary(name))


def _trained(scale: Scale, name: str) -> Any:
    group = scale.group(name)
    made = section(scale, "activations").model_dump(exclude={"mode"})
    return {
        "seed": scale.seed_of(group),
        "train_contexts": scale.contexts_of(group),
        "training": scale.training_of(group),
        # The sizes of passes are read where passes are made again.
        "stream": made if scale.streams(group) else None,
        "dictionaries": [
            (entry.kind, entry.l1_coefficient, entry.k, entry.learning_rate)
            for entry in scale.dictionaries_in(group)
        ],
    }


# The means of activations are over all training rows, of which a group may read fewer.
@job(
    "corpus.context_length corpus.train_contexts corpus.train_positions activations.dtype device",
    resources="train",
    part=_trained,
    trains=True,
)
def train(run: Run, group: str) -> None:
    """Train the dictionaries of one group; a killed job goes on from its last checkpoint."""
    from transcoders.training.job import train_group_of

    train_group_of(run.scale, run.layout, run.scale.group(group), device=run.device)


def _measured(scale: Scale, site: str) -> Any:
    entries = scale.dictionaries_of(scale.site(site))
    return [(e.kind, e.l1_coefficient, e.headline) for e in entries]


@job(
    "seed corpus.metric_positions evaluation device",
    resources="evaluate",
    part=_measured,
)
def evaluate(run: Run, site: str) -> None:
    """Measure all dictionaries of one site on the held-out documents."""
    from transcoders.evaluation import evaluate_dictionaries

    scale, layout, device = run
    place = scale.site(site)
    table, by_document = evaluate_dictionaries(
        scale, layout, place, scale.dictionaries_of(place), device=device
    )
    write_table(layout.site_evaluation(site), table)
    write_table(layout.site_evaluation_by_document(site), by_document)


@job("", resources="notebook")
def collect_tables(run: Run) -> None:
    """Join the tables of all sites into evaluation.csv and evaluation_by_document.csv."""
    from transcoders.evaluation import join_tables

    scale, layout, _ = run
    sites = [site.name for site in scale.all_sites]
    write_table(layout.evaluation, join_tables(map(layout.site_evaluation, sites)))
    write_table(
        layout.evaluation_by_document, join_tables(map(layout.site_evaluation_by_document, sites))
    )


@job("seed", resources="notebook")
def compare_gaps(run: Run) -> None:
    """Compare the gaps of dictionaries that differ in data, width or kind."""
    from transcoders.claims import rule_of_gaps
    from transcoders.gaps import Pairs, gap_by_tokens, why

    scale, layout, _ = run
    evaluation, by_document = map(read_table, (layout.evaluation, layout.evaluation_by_document))
    pairs = Pairs(evaluation, by_document, seed=scale.seed)
    rule = rule_of_gaps(layout.listed_claims)
    points, fits = gap_by_tokens(pairs, margin=rule.margin)
    write_table(layout.gap_by_tokens, points)
    write_table(layout.gap_by_tokens_fit, fits)
    write_table(layout.why, why(pairs, margin=rule.margin, needs=rule.needs))
