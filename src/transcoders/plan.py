"""What a scale takes: time, disk, memory and download, before any of it is paid for.

Sizes follow from the scale file (:mod:`transcoders.sizes`). Time is the number of floating-point
operations over a rate.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch
from torch.utils.benchmark import Timer

from transcoders import sizes
from transcoders.config import HubDataset, HubSource, ModelFolder, Resources, Scale, TextFiles
from transcoders.files import free_bytes
from transcoders.sizes import FLOAT

SHARD_BYTES = 302_848_326
"""Bytes of OpenWebText's first shard on the hub. The other shards are about as large."""


class Work(NamedTuple):
    """All jobs of one rule."""

    rule: str
    jobs: int
    resources: Resources
    flops: float = 0
    """Of all jobs together. It is 0 for a rule that takes minutes, which is not modelled."""
    disk: int = 0
    """Bytes that all jobs together keep."""
    download: int = 0
    """Bytes that come over the network."""


def check_local(scale: Scale) -> None:
    """Check the models and texts that are on this machine, before anything is fetched.

    Raises:
        UserError: a job would refuse one of them.
    """
    from transcoders.circuits.replacement import ReplacementModel
    from transcoders.corpus import check_text_files
    from transcoders.greater_than.units import check_task
    from transcoders.models import check_model_folder

    for source in scale.corpus.source:
        if isinstance(source, TextFiles):
            check_text_files(source)
    in_circuits = {case.model for case in scale.circuits.cases}
    in_circuits |= {check.model for check in scale.circuits.checks}
    for name, model in scale.models.items():
        if isinstance(model.source, ModelFolder):
            found = check_model_folder(model, scale.corpus.context_length)
            if name in in_circuits:
                ReplacementModel(found, {})  # refuses attention that circuits cannot follow
            if scale.greater_than is not None and scale.greater_than.model == name:
                check_task(found)


def make_plan(scale: Scale) -> list[Work]:
    """Count what every rule takes that has jobs at this scale."""
    works = [*_works_that_fetch(scale), *_works_that_train(scale), *_works_that_study(scale)]
    return [work for work in works if work.jobs]


def _works_that_fetch(scale: Scale) -> Iterator[Work]:
    given, models = scale.resources, list(scale.models.values())
    weights = sum(FLOAT * model.n_parameters() for model in models)
    on_hub = [model for model in models if isinstance(model.source, HubSource)]
    download = sum(FLOAT * model.n_parameters() for model in on_hub)
    # What comes from the hub stays in the hub's own cache too.
    disk = download + weights
    yield Work("fetch_model", len(models), given.fetch_model, download=download, disk=disk)
    # Of a dataset without named files, only the hub knows the size.
    texts = [text for text in scale.corpus.source if isinstance(text, HubDataset)]
    shards = SHARD_BYTES * sum(len(text.data_files + text.eval_data_files) for text in texts)
    yield Work("fetch_corpus", 1, given.fetch_corpus, download=shards, disk=2 * shards)
    rows = scale.corpus.train_contexts + scale.corpus.eval_contexts
    row_bytes = (scale.corpus.context_length + 1) * FLOAT
    yield Work("tokenize", len(models), given.tokenize, disk=len(models) * rows * row_bytes)
    imported = scale.imported_transcoders
    download = sum(
        2 * FLOAT * each.n_features * scale.models[each.site.model].d_model for each in imported
    )
    disk = 2 * download
    yield Work("import_transcoder", len(imported), given.fetch_model, download=download, disk=disk)


def _works_that_train(scale: Scale) -> Iterator[Work]:
    if not scale.groups:
        return
    given, groups, sites = scale.resources, scale.all_groups, scale.all_sites
    deepest = [found[-1] for name in scale.models if (found := scale.sites_of(name))]
    yield Work(
        "cache_activations",
        len(deepest),
        given.cache_activations,
        flops=sum(sizes.flops_of_caching(scale, site) for site in deepest),
        disk=sizes.bytes_of_caches(scale),
    )
    weights = [sizes.bytes_of_group(scale, group) for group in groups]
    yield Work(
        "train",
        len(groups),
        given.train,
        flops=sum(sizes.flops_of_group(scale, group) for group in groups),
        # Every dictionary, and the largest checkpoint while its job runs: with Adam's two moments.
        disk=sum(weights) + 3 * max(weights),
    )
    flops = sum(sizes.flops_of_evaluation(scale, site) for site in sites)
    yield Work("evaluate", len(sites), given.evaluate, flops=flops)


def _works_that_study(scale: Scale) -> Iterator[Work]:
    given, asked = scale.resources, len({case.model for case in scale.circuits.cases})
    yield Work("find_circuits", asked, given.circuit)
    yield Work("measure_replacement", min(asked, 1), given.circuit)
    yield Work("study_greater_than", int(scale.greater_than is not None), given.greater_than)
    studied = int(scale.interpretability is not None)
    yield Work("gather_examples", studied, given.gather_examples)
    yield Work("study_features", studied, given.study_features)


def does_not_fit(works: list[Work], results: Path, memory_gb: float) -> list[str]:
    """One sentence for each thing that does not fit.

    Args:
        works: what the scale takes.
        results: the folder whose disk will hold the results.
        memory_gb: of the machine that runs the largest job.
    """
    needed, free = sum(work.disk for work in works), free_bytes(results)
    problems = [
        f"memory: {work.rule} {work.resources.mem_mb / 1000:g} GB of {memory_gb:.0f}; use a larger "
        "machine, or smaller batches or fewer dictionaries a group in the scale file"
        for work in works
        if work.resources.mem_mb > memory_gb * 1000
    ]
    if needed > free:
        problems.append(
            f"disk: {needed / 1e9:.1f} GB, free on {results}: {free / 1e9:.1f} GB; free some, or "
            "clone the project on a larger disk"
        )
    return problems


def describe(scale: Scale, works: list[Work], rate: float, source: str) -> str:
    """What a scale takes, as text: a line for each rule, and the sums.

    Args:
        scale: which scale.
        works: what it takes.
        rate: operations a second.
        source: where the rate comes from.
    """
    takes = pd.DataFrame(
        {
            "rule": work.rule,
            "jobs": work.jobs,
            "hours": work.flops / rate / 3600,
            "RAM GB": work.resources.mem_mb / 1000,
            "disk GB": work.disk / 1e9,
            "download GB": work.download / 1e9,
        }
        for work in works
    )
    modelled = ["hours", "disk GB", "download GB"]
    hours, disk, download = takes[modelled].sum()
    shown = dict.fromkeys(modelled, lambda value: f"{value:.2f}" if value else "")
    lines = [
        takes.to_string(index=False, formatters=shown | {"RAM GB": "{:g}".format}),
        f"\nIn all: {hours:.1f} hours on one device, {disk:.1f} GB of disk, {download:.1f} GB "
        "of download. RAM is what the scale file allots to one job.",
        f"Hours are a prediction: operations of the large products at {rate / 1e12:.3g}e12 a "
        f"second, {source}. Rules without hours take minutes.",
    ]
    if scale.groups:
        lines.append(
            f"Cached activations take {sizes.bytes_of_caches(scale) / 1e9:,.1f} GB of disk; all "
            f"would take {sizes.bytes_of_all_caches(scale) / 1e9:,.1f} GB."
        )
    return "\n".join(lines)


def measured_rate(device: str) -> float:
    """Operations a second in a large float32 product, measured on ``cpu`` or ``cuda``."""
    size = 8192 if device == "cuda" else 2048
    product = Timer(
        "a @ a",
        globals={"a": torch.randn(size, size, device=device)},
        num_threads=torch.get_num_threads(),
    )
    return 2 * size**3 / product.timeit(3).mean
