"""What a scale takes: time, disk, memory and download, before any of it is paid for.

Sizes follow from the scale file (:mod:`transcoders.sizes`). Time is the number of floating-point
operations over a rate.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from transcoders.config import (
    HubDataset,
    HubSource,
    ModelFolder,
    Resources,
    Scale,
    TextFiles,
)
from transcoders.environment import memory_bytes
from transcoders.files import free_bytes
from transcoders.sizes import Sizes
from transcoders.training.memory import FLOAT

SHARD_BYTES = 302_848_326
"""Of OpenWebText's first shard on the hub. The other shards are about as large."""
TYPICAL_GPU_GB = 80.0


class Work(NamedTuple):
    """All jobs of one rule."""

    rule: str
    jobs: int
    resources: Resources
    flops: float = 0
    """Of all jobs together. It is 0 for a rule that takes minutes, which is not modelled."""
    disk: int = 0
    """Bytes that all jobs together keep."""
    gpu_memory: int = 0
    """Bytes that the largest job needs, at most."""
    download: int = 0
    """Bytes that come over the network."""


class Plan(NamedTuple):
    """What a scale takes."""

    works: list[Work]
    does_not_fit: list[str]
    """One sentence for each thing that does not fit."""
    remarks: list[str]
    has_gpu: bool


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


def make_plan(
    scale: Scale, *, results: Path, gpu_memory_gb: float | None, memory_gb: float
) -> Plan:
    """Count what every rule takes, and compare it with what there is.

    Args:
        scale: which scale.
        results: the folder whose disk will hold the results.
        gpu_memory_gb: of one GPU; None if there is no GPU.
        memory_gb: of the machine that runs the largest job.
    """
    works = [work for work in _works(scale) if work.jobs]
    too_much, remarks = [], []
    needed, free = sum(work.disk for work in works), free_bytes(results)
    if needed > free:
        too_much.append(f"disk: {needed / 1e9:.1f} GB, free on {results}: {free / 1e9:.1f} GB")
    for work in works:
        if gpu_memory_gb is not None and work.gpu_memory > gpu_memory_gb * 1e9:
            lower = "its groups or batch_tokens" if work.rule == "train" else "its batch_contexts"
            too_much.append(
                f"GPU memory: {work.rule} up to {work.gpu_memory / 1e9:.1f} GB of "
                f"{gpu_memory_gb:.0f}; lower {lower}"
            )
        if work.resources.mem_mb > memory_gb * 1000:
            too_much.append(
                f"memory: {work.rule} {work.resources.mem_mb / 1000:g} GB of {memory_gb:.0f}"
            )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    most = max(works, key=lambda work: work.resources.threads)
    if cores and most.resources.threads > cores:
        remarks.append(
            f"This machine has {cores} cores and {most.rule} must run on {most.resources.threads} "
            "threads, so it would refuse here; lower `threads` under resources (results then "
            "differ by rounding), or run on another machine."
        )
    if scale.groups:
        sizes = Sizes(scale)
        remarks.append(
            f"Cached activations take {sizes.cache_bytes() / 1e9:,.1f} GB of disk; all would take "
            f"{sizes.all_cached_bytes() / 1e9:,.1f} GB."
        )
    return Plan(works, too_much, remarks, gpu_memory_gb is not None)


def _works(scale: Scale) -> Iterator[Work]:
    given, models = scale.resources, list(scale.models.values())
    weights = sum(FLOAT * model.n_parameters() for model in models)
    on_hub = [model for model in models if isinstance(model.source, HubSource)]
    download = sum(FLOAT * model.n_parameters() for model in on_hub)
    # What comes from the hub stays in the hub's own cache too.
    disk = download + weights
    yield Work("fetch_model", len(models), given.fetch_model, download=download, disk=disk)
    # Of a dataset without named files, only the hub knows the size.
    texts = [text for text in scale.corpus.source if isinstance(text, HubDataset)]
    files = [file for text in texts for file in (*text.data_files, *text.eval_data_files)]
    shards = SHARD_BYTES * len(files)
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
    if scale.groups:
        yield from _works_that_train(scale)
    asked = len({case.model for case in scale.circuits.cases})
    yield Work("find_circuits", asked, given.circuit)
    yield Work("measure_replacement", min(asked, 1), given.circuit)
    if scale.greater_than is not None:
        yield Work("study_greater_than", 1, given.greater_than)
    if scale.interpretability is not None:
        memory = Sizes(scale).memory_of_gathering() if scale.groups else 0
        yield Work("gather_examples", 1, given.gather_examples, gpu_memory=memory)
        yield Work("study_features", 1, given.study_features)


def _works_that_train(scale: Scale) -> Iterator[Work]:
    sizes, given = Sizes(scale), scale.resources
    deepest = [sites[-1] for name in scale.models if (sites := scale.sites_of(name))]
    yield Work(
        "cache_activations",
        len(deepest),
        given.cache_activations,
        flops=sum(map(sizes.flops_of_caching, deepest)),
        disk=sizes.cache_bytes(),
        gpu_memory=max(map(sizes.memory_of_caching, deepest)),
    )
    groups = scale.all_groups
    entries = [entry for group in groups for entry in scale.dictionaries_in(group)]
    yield Work(
        "train",
        len(groups),
        given.train,
        flops=sum(map(sizes.flops_of_group, groups)),
        # Every dictionary, and the largest checkpoint while its job runs.
        disk=sum(map(sizes.dictionary_file, entries)) + max(map(sizes.kept_by_group, groups)),
        gpu_memory=max(map(sizes.memory_of_group, groups)),
    )
    yield Work(
        "evaluate",
        len(scale.all_sites),
        given.evaluate,
        flops=sum(map(sizes.flops_of_evaluation, scale.all_sites)),
        gpu_memory=max(map(sizes.memory_of_evaluation, scale.all_sites)),
    )


def describe(plan: Plan, rate: float, source: str) -> str:
    """A plan as text: a line a rule, the sums, remarks, and what does not fit.

    Args:
        plan: what the scale takes.
        rate: operations a second.
        source: where the rate comes from.
    """
    table = pd.DataFrame(
        {
            "rule": work.rule,
            "jobs": work.jobs,
            "hours": f"{work.flops / rate / 3600:.2f}" if work.flops else "",
            "GPU GB": f"{work.gpu_memory / 1e9:.1f}" if plan.has_gpu and work.gpu_memory else "",
            "RAM GB": f"{work.resources.mem_mb / 1000:g}",
            "disk GB": f"{work.disk / 1e9:.2f}" if work.disk else "",
            "download GB": f"{work.download / 1e9:.2f}" if work.download else "",
        }
        for work in plan.works
    )
    hours = sum(work.flops for work in plan.works) / rate / 3600
    disk = sum(work.disk for work in plan.works) / 1e9
    download = sum(work.download for work in plan.works) / 1e9
    return "\n".join(
        [
            table.to_string(index=False),
            f"\nIn all: {hours:.1f} hours on one device, {disk:.1f} GB of disk, {download:.1f} GB "
            "of download. RAM is what the scale file allots to one job; GPU memory is a bound on "
            "the largest job.",
            f"Hours are a prediction: operations of the large products at {rate / 1e12:.3g}e12 a "
            f"second, {source}. Rules without hours take minutes.",
            *plan.remarks,
            *(f"DOES NOT FIT: {sentence}" for sentence in plan.does_not_fit),
        ]
    )


def this_machine(scale: Scale) -> tuple[str, float | None, float]:
    """Where the scale would compute here, and how much memory there is.

    Returns:
        ``cpu`` or ``cuda``; GB of one GPU, or None without one; GB of the machine. Where the scale
        insists on a GPU and there is none here, the GPU is a typical one.
    """
    memory_gb = memory_bytes() / 1e9
    if scale.device != "cpu" and torch.cuda.is_available():
        return "cuda", torch.cuda.get_device_properties(0).total_memory / 1e9, memory_gb
    return "cpu", TYPICAL_GPU_GB if scale.device == "cuda" else None, memory_gb


def measured_rate(device: str) -> float:
    """Operations a second in a large float32 product, measured on ``cpu`` or ``cuda``."""
    size = 8192 if device == "cuda" else 2048
    a = torch.randn(size, size, device=device)
    times = []
    for _ in range(4):  # the first warms up
        wait_for(device)
        began = time.perf_counter()
        a @ a
        wait_for(device)
        times.append(time.perf_counter() - began)
    return 2 * size**3 / min(times[1:])


def wait_for(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
