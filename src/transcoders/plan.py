"""What a scale takes: time, disk, memory and download, before any of it is paid for.

Sizes follow from the scale file. Time is floating-point operations over a rate. Only the large
matrix products are counted: most of the work at the paper's sizes, and little of it at small ones.

- A forward pass costs 2 operations a parameter and token; attention patterns are left out.
- A training step with all features takes as long as 5.8 products of the encoder's size, and one
  with the active features only takes as long as 2.1: measured on an H100 at the paper's sizes
  (benchmarks/gpu.json; on a CPU, 1.55). That the first fifth of a training is dense was seen at the
  laptop scale, on a CPU.
- Evaluating a dictionary runs the layers after its site again, and two products of its size.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from transcoders.config import (
    Activations,
    Dictionary,
    Group,
    HubDataset,
    HubSource,
    Model,
    Resources,
    Scale,
    Site,
    Training,
)
from transcoders.config.sections import TYPICAL_VOCABULARY
from transcoders.environment import memory_bytes
from transcoders.files import free_bytes
from transcoders.training.memory import buffer_bytes, dictionary_bytes, step_bytes

PRODUCTS_OF_DENSE_STEP = 5.8
PRODUCTS_OF_SPARSE_STEP = 2.1
DENSE_SHARE_OF_STEPS = 0.2
SHARD_BYTES = 302_848_326
"""Of OpenWebText's first shard on the hub; the others are much alike."""
FLOAT = 4
TYPICAL_GPU_GB = 80.0


class Work(NamedTuple):
    """All jobs of one rule."""

    rule: str
    jobs: int
    resources: Resources
    flops: float = 0
    """Of all jobs together; 0 for a rule that takes minutes, which is not modelled."""
    disk: int = 0
    """Bytes kept by all jobs together."""
    gpu_memory: int = 0
    """Bytes, of the largest job, at most."""
    download: int = 0


class Plan(NamedTuple):
    """What a scale takes."""

    works: list[Work]
    does_not_fit: list[str]
    """Sentences; none if everything fits."""
    remarks: list[str]
    has_gpu: bool


def make_plan(
    scale: Scale, *, results: Path, gpu_memory_gb: float | None, memory_gb: float
) -> Plan:
    """Count what every rule takes, and compare it with what there is.

    Args:
        scale: which scale.
        results: the folder whose disk will hold the results.
        gpu_memory_gb: of one GPU; None for none.
        memory_gb: of the machine that runs the largest job.
    """
    works = [work for work in _works(scale) if work.jobs]
    too_much = []
    needed, free = sum(work.disk for work in works), free_bytes(results)
    if needed > free:
        too_much.append(f"disk: {needed / 1e9:.1f} GB, free on {results}: {free / 1e9:.1f} GB")
    for work in works:
        if gpu_memory_gb is not None and work.gpu_memory > gpu_memory_gb * 1e9:
            remedy = "make groups smaller" if work.rule == "train" else "lower its batch_contexts"
            too_much.append(
                f"GPU memory: {work.rule} up to {work.gpu_memory / 1e9:.1f} GB of "
                f"{gpu_memory_gb:.0f}; {remedy}"
            )
        if work.resources.mem_mb > memory_gb * 1000:
            too_much.append(
                f"memory: {work.rule} {work.resources.mem_mb / 1000:g} GB of {memory_gb:.0f}"
            )
    remarks = list(_remarks(scale, gpu_memory_gb))
    return Plan(works, too_much, remarks, gpu_memory_gb is not None)


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


def _works(scale: Scale) -> Iterator[Work]:
    given = scale.resources
    models = list(scale.models.values())
    weights = [FLOAT * model.n_parameters() for model in models]
    from_hub = sum(
        size for size, m in zip(weights, models, strict=True) if isinstance(m.source, HubSource)
    )
    # What comes from the hub stays in the hub's own cache too.
    yield Work(
        "fetch_model", len(models), given.fetch_model,
        download=from_hub, disk=from_hub + sum(weights),
    )  # fmt: skip
    text = scale.corpus.source
    # Of a dataset without named files, only the hub knows the size.
    files = [*text.data_files, *text.eval_data_files] if isinstance(text, HubDataset) else []
    shards = SHARD_BYTES * len(files)
    yield Work("fetch_corpus", 1, given.fetch_corpus, download=shards, disk=2 * shards)
    rows = scale.corpus.train_contexts + scale.corpus.eval_contexts
    row_bytes = (scale.corpus.context_length + 1) * FLOAT
    yield Work("tokenize", len(models), given.tokenize, disk=len(models) * rows * row_bytes)
    imported = [
        2 * FLOAT * entry.n_features * scale.models[entry.site.model].d_model
        for entry in scale.imported_transcoders
    ]
    yield Work(
        "import_transcoder", len(imported), given.fetch_model,
        download=sum(imported), disk=2 * sum(imported),
    )  # fmt: skip
    if scale.groups:
        yield from (_caching(scale), _training(scale), _evaluating(scale))
    yield Work("circuit", len(scale.circuits.cases), given.circuit)
    if scale.greater_than is not None:
        yield Work("study_greater_than", 1, given.greater_than)
    if scale.interpretability is not None:
        yield from (_gathering(scale), Work("study_features", 1, given.study_features))


def _caching(scale: Scale) -> Work:
    depths = {name: sites[-1].layer + 1 for name in scale.models if (sites := scale.sites_of(name))}
    activations = _activations(scale)
    return Work(
        "cache_activations", len(depths), scale.resources.cache_activations,
        flops=scale.corpus.train_tokens
        * sum(_through_blocks(scale.models[name], depth) for name, depth in depths.items()),
        disk=scale.cache_bytes if activations.mode == "cache" else 0,
        gpu_memory=max(
            FLOAT * scale.models[name].n_parameters()
            + _one_pass(scale, activations.batch_contexts, scale.models[name])
            for name in depths
        ),
    )  # fmt: skip


def _training(scale: Scale) -> Work:
    groups = [*scale.groups, *scale.extensions]
    return Work(
        "train", len(groups), scale.resources.train,
        flops=sum(_flops_of_group(scale, group) for group in groups),
        # Every dictionary, and the largest checkpoint while its job runs.
        disk=sum(
            _dictionary_file(scale, entry)
            for group in groups
            for entry in scale.dictionaries_in(group)
        )
        + max(_kept_by_group(scale, group) for group in groups),
        gpu_memory=max(memory_of_group(scale, group) for group in groups),
    )  # fmt: skip


def _evaluating(scale: Scale) -> Work:
    sites = scale.all_sites
    return Work(
        "evaluate", len(sites), scale.resources.evaluate,
        flops=sum(flops_of_evaluation(scale, site) for site in sites),
        gpu_memory=max(memory_of_evaluation(scale, site) for site in sites),
    )  # fmt: skip


def flops_of_evaluation(scale: Scale, site: Site) -> int:
    """Operations that it takes to evaluate all dictionaries of a site."""
    model, entries = scale.models[site.model], scale.dictionaries_of(site)
    whole = _through_blocks(model) + 2 * TYPICAL_VOCABULARY * model.d_model
    after = whole - _through_blocks(model, site.layer + 1)
    products = sum(_dictionary_file(scale, entry) for entry in entries) // 2
    tokens = scale.corpus.eval_contexts * scale.corpus.context_length
    return tokens * (whole + (2 + len(entries)) * after + products)


def memory_of_evaluation(scale: Scale, site: Site) -> int:
    """Bytes of GPU memory that evaluating all dictionaries of a site needs, at most."""
    assert scale.evaluation is not None
    model, entries = scale.models[site.model], scale.dictionaries_of(site)
    rows = scale.evaluation.batch_contexts
    batch = rows * scale.corpus.context_length
    return (
        FLOAT * model.n_parameters()
        + sum(_dictionary_file(scale, entry) for entry in entries)
        + FLOAT * batch * (6 * TYPICAL_VOCABULARY + 2 * _n_features(scale, model))
        + _one_pass(scale, rows, model)
    )


def _gathering(scale: Scale) -> Work:
    study = scale.interpretability
    assert study is not None
    model = scale.models[study.rated_site.model]
    length = scale.corpus.context_length
    weights = sum(_dictionary_file(scale, entry) for entry in scale.observed_dictionaries)
    return Work(
        "gather_examples", 1, scale.resources.gather_examples,
        flops=study.text_contexts * length * (_through_blocks(model) + weights // 4),
        gpu_memory=FLOAT * model.n_parameters() + weights
        + 2 * FLOAT * study.batch_contexts * length * _n_features(scale, model)
        + _one_pass(scale, study.batch_contexts, model),
    )  # fmt: skip


def _through_blocks(model: Model, n_layers: int | None = None) -> int:
    """Operations a token in the first layers, or in all."""
    return 2 * 12 * (model.n_layers if n_layers is None else n_layers) * model.d_model**2


def _activations(scale: Scale) -> Activations:
    assert scale.activations is not None  # there are groups
    return scale.activations


def _settings(scale: Scale) -> Training:
    assert scale.training is not None  # there are groups
    return scale.training


def _n_features(scale: Scale, model: Model) -> int:
    return _settings(scale).expansion * model.d_model


def _dictionary_file(scale: Scale, entry: Dictionary) -> int:
    model = scale.models[entry.site.model]
    return 2 * FLOAT * model.d_model * _n_features(scale, model)


def _kept_by_group(scale: Scale, group: Group) -> int:
    model = scale.models[group.site.model]
    return len(group.dictionaries) * dictionary_bytes(model.d_model, _n_features(scale, model))


def _flops_of_group(scale: Scale, group: Group) -> float:
    training, model = _settings(scale), scale.models[group.site.model]
    tokens = training.epochs * scale.corpus.train_tokens
    product = 2 * model.d_model * _n_features(scale, model)
    dense = DENSE_SHARE_OF_STEPS if training.sparse_below_density else 1.0
    products = dense * PRODUCTS_OF_DENSE_STEP + (1 - dense) * PRODUCTS_OF_SPARSE_STEP
    streamed = _activations(scale).mode == "stream"
    model_passes = _through_blocks(model, group.site.layer + 1) if streamed else 0
    return tokens * (model_passes + len(group.dictionaries) * products * product)


def memory_of_group(scale: Scale, group: Group) -> int:
    """Bytes of GPU memory that the training job of a group needs, at most."""
    return _kept_by_group(scale, group) + _memory_of_job(scale, scale.models[group.site.model])


def _memory_of_job(scale: Scale, model: Model) -> int:
    """Of a training job, besides what its dictionaries keep."""
    training = _settings(scale)
    memory = step_bytes(model.d_model, _n_features(scale, model), training)
    if _activations(scale).mode == "stream":
        # The whole model stays in memory, and so does the buffer, which is full before a step.
        passing = _one_pass(scale, _activations(scale).batch_contexts, model)
        memory = max(memory, passing) + FLOAT * model.n_parameters()
        memory += buffer_bytes(model.d_model, training)
    return memory


def _one_pass(scale: Scale, rows: int, model: Model) -> int:
    """What one layer makes: an MLP four times as wide, patterns of heads that are 64 wide."""
    length = scale.corpus.context_length
    patterns = 2 * (model.d_model // 64 + 1) * length
    return FLOAT * rows * length * (3 * 4 * model.d_model + 8 * model.d_model + patterns)


def _remarks(scale: Scale, gpu_memory_gb: float | None) -> Iterator[str]:
    if not scale.groups:
        return
    cached = _activations(scale).mode == "cache"
    took = "take" if cached else "are streamed; cached, they would take"
    yield f"Activations {took} {scale.cache_bytes / 1e9:,.1f} GB of disk."
    if gpu_memory_gb is None:
        return
    for site in scale.sites:
        model = scale.models[site.model]
        each = dictionary_bytes(model.d_model, _n_features(scale, model))
        left = gpu_memory_gb * 1e9 - _memory_of_job(scale, model)
        yield (
            f"{site.name}: {max(int(left // each), 0)} dictionaries of {each / 1e9:.1f} GB "
            f"fit one group in {gpu_memory_gb:.0f} GB of GPU memory."
        )
