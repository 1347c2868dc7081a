"""What a scale takes: time, disk, memory and download, before any of it is paid for.

Sizes follow from the scale file. Time is floating-point operations over a rate: of the large matrix
products only, which is most of the work at the paper's sizes and little of it at small ones.

- A forward pass costs 2 operations a parameter and token, attention patterns left out.
- A training step with all features takes as long as 5.8 products of the encoder's size, one with
  the active features only as long as 2.1: measured on an H100 at the paper's sizes
  (benchmarks/gpu.json; on a CPU, 1.55). That the first fifth of a training is dense was seen at the
  laptop's scale, on a CPU.
- Evaluating a dictionary runs the layers after its site again, and two products of its size.
"""

import time
from pathlib import Path
from typing import NamedTuple

import torch

from transcoders.config import (
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
from transcoders.files import free_bytes
from transcoders.training.memory import buffer_bytes, dictionary_bytes, step_bytes

PRODUCTS_OF_DENSE_STEP = 5.8
PRODUCTS_OF_SPARSE_STEP = 2.1
DENSE_SHARE_OF_STEPS = 0.2
SHARD_BYTES = 302_848_326
"""Of OpenWebText's first shard on the hub; the others are much alike."""
FLOAT = 4


class Work(NamedTuple):
    """All jobs of one rule."""

    rule: str
    jobs: int
    resources: Resources
    flops: float | None = None
    """Of all jobs together; None where it is not worth modelling: minutes."""
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
            too_much.append(
                f"GPU memory: {work.rule} up to {work.gpu_memory / 1e9:.1f} GB of "
                f"{gpu_memory_gb:.0f}; "
                + (
                    "make groups smaller, or set training.micro_batch_tokens"
                    if work.rule == "train"
                    else "lower its batch_contexts"
                )
            )
        if work.resources.mem_mb > memory_gb * 1000:
            too_much.append(
                f"memory: {work.rule} {work.resources.mem_mb / 1000:g} GB of {memory_gb:.0f}"
            )
    return Plan(works, too_much, list(_remarks(scale, gpu_memory_gb)))


def measured_rate(device: str) -> float:
    """Operations a second in a large float32 product, as they come out on this machine."""
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
    """Until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def _works(scale: Scale) -> list[Work]:
    given = scale.resources
    models = list(scale.models.values())
    from_hub = [model for model in models if isinstance(model.source, HubSource)]
    text = scale.corpus.source
    # Of a dataset without named files, only the hub knows the size.
    files = [*text.data_files, *text.eval_data_files] if isinstance(text, HubDataset) else []
    rows = scale.corpus.train_contexts + scale.corpus.eval_contexts
    row_bytes = (scale.corpus.context_length + 1) * FLOAT
    imported = [
        2 * FLOAT * entry.n_features * scale.models[entry.site.model].d_model
        for entry in scale.imported_transcoders
    ]
    download = sum(FLOAT * model.n_parameters() for model in from_hub)
    works = [
        # What comes from the hub stays in the hub's own cache too.
        Work(
            "fetch_model", len(models), given.fetch_model, download=download,
            disk=download + sum(FLOAT * model.n_parameters() for model in models),
        ),
        Work(
            "fetch_corpus", 1, given.fetch_corpus, download=SHARD_BYTES * len(files),
            disk=2 * SHARD_BYTES * len(files),
        ),
        Work("tokenize", len(models), given.tokenize, disk=len(models) * rows * row_bytes),
        Work(
            "import_transcoder", len(imported), given.fetch_model,
            download=sum(imported), disk=2 * sum(imported),
        ),
    ]  # fmt: skip
    if scale.groups:
        works += [_caching(scale), _training(scale), _evaluating(scale)]
    works.append(Work("circuit", len(scale.circuits.cases), given.circuit))
    if scale.greater_than is not None:
        works.append(Work("study_greater_than", 1, given.greater_than))
    if scale.interpretability is not None:
        works += [_looking(scale), Work("study_features", 1, given.study_features)]
    return works


def _caching(scale: Scale) -> Work:
    assert scale.activations is not None
    cached = {name for name in scale.models if scale.sites_of(name)}
    flops = memory = 0
    for name in cached:
        flops += scale.corpus.train_tokens * _through_blocks(
            scale.models[name], _depth(scale, name)
        )
        memory = max(memory, _pass_memory(scale, scale.models[name], _depth(scale, name)))
    return Work(
        "cache_activations", len(cached), scale.resources.cache_activations, flops,
        disk=scale.cache_bytes if scale.activations.mode == "cache" else 0,
        gpu_memory=memory,
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
    batch = scale.evaluation.batch_contexts * scale.corpus.context_length
    return (
        FLOAT * model.n_parameters()
        + sum(_dictionary_file(scale, entry) for entry in entries)
        + FLOAT * batch * (6 * TYPICAL_VOCABULARY + 2 * _n_features(scale, model))
        + _one_pass(scale.corpus.context_length, batch, model)
    )


def _looking(scale: Scale) -> Work:
    study = scale.interpretability
    assert study is not None
    model = scale.models[study.rated_site.model]
    tokens = study.text_contexts * scale.corpus.context_length
    batch = study.batch_contexts * scale.corpus.context_length
    weights = [_dictionary_file(scale, entry) for entry in scale.observed_dictionaries]
    return Work(
        "gather_examples", 1, scale.resources.gather_examples,
        flops=tokens * (_through_blocks(model) + sum(weights) // 4),
        gpu_memory=FLOAT * model.n_parameters() + sum(weights)
        + 2 * FLOAT * batch * _n_features(scale, model)
        + _one_pass(scale.corpus.context_length, batch, model),
    )  # fmt: skip


def _through_blocks(model: Model, n_layers: int | None = None) -> int:
    """Operations a token in the first layers, or in all."""
    return 2 * 12 * (model.n_layers if n_layers is None else n_layers) * model.d_model**2


def _depth(scale: Scale, model: str) -> int:
    return scale.sites_of(model)[-1].layer + 1


def _n_features(scale: Scale, model: Model) -> int:
    assert scale.training is not None
    return scale.training.expansion * model.d_model


def _dictionary_file(scale: Scale, entry: Dictionary) -> int:
    model = scale.models[entry.site.model]
    return 2 * FLOAT * model.d_model * _n_features(scale, model)


def _kept_by_group(scale: Scale, group: Group) -> int:
    model = scale.models[group.site.model]
    return len(group.dictionaries) * dictionary_bytes(model.d_model, _n_features(scale, model))


def _flops_of_group(scale: Scale, group: Group) -> float:
    assert scale.training is not None and scale.activations is not None
    training, model = scale.training, scale.models[group.site.model]
    tokens = training.epochs * scale.corpus.train_tokens
    product = 2 * model.d_model * _n_features(scale, model)
    dense = DENSE_SHARE_OF_STEPS if training.sparse_below_density else 1.0
    products = dense * PRODUCTS_OF_DENSE_STEP + (1 - dense) * PRODUCTS_OF_SPARSE_STEP
    streamed = scale.activations.mode == "stream"
    model_passes = _through_blocks(model, group.site.layer + 1) if streamed else 0
    return tokens * (model_passes + len(group.dictionaries) * products * product)


def memory_of_group(scale: Scale, group: Group) -> int:
    """Bytes of GPU memory that the training job of a group needs, at most."""
    model = scale.models[group.site.model]
    return _kept_by_group(scale, group) + _memory_of_job(scale, model, group.site.layer + 1)


def _memory_of_job(scale: Scale, model: Model, n_layers: int) -> int:
    """Of a training job, besides what its dictionaries keep."""
    assert scale.training is not None and scale.activations is not None
    training: Training = scale.training
    memory = step_bytes(model.d_model, _n_features(scale, model), training)
    if scale.activations.mode == "stream":
        # The buffer is filled before a step is taken, and stays.
        passing = _pass_memory(scale, model, n_layers)
        weights = FLOAT * model.n_parameters(n_layers)
        memory = weights + buffer_bytes(model.d_model, training) + max(memory, passing - weights)
    return memory


def _pass_memory(scale: Scale, model: Model, n_layers: int) -> int:
    """Of a forward pass through the first layers."""
    assert scale.activations is not None
    length = scale.corpus.context_length
    tokens = scale.activations.batch_contexts * length
    return FLOAT * model.n_parameters(n_layers) + _one_pass(length, tokens, model)


def _one_pass(context_length: int, tokens: int, model: Model) -> int:
    """What one layer makes: an MLP four times as wide, patterns of heads that are 64 wide."""
    patterns = 2 * (model.d_model // 64 + 1) * context_length
    return FLOAT * tokens * (3 * 4 * model.d_model + 8 * model.d_model + patterns)


def _remarks(scale: Scale, gpu_memory_gb: float | None) -> list[str]:
    remarks = []
    if scale.activations is not None and scale.groups:
        mode = scale.activations.mode
        took = "take" if mode == "cache" else "are streamed; cached, they would take"
        remarks.append(f"Activations {took} {scale.cache_bytes / 1e9:,.1f} GB of disk.")
        if gpu_memory_gb is not None:
            for site in scale.sites:
                model = scale.models[site.model]
                each = dictionary_bytes(model.d_model, _n_features(scale, model))
                left = gpu_memory_gb * 1e9 - _memory_of_job(scale, model, site.layer + 1)
                remarks.append(
                    f"{site.name}: {max(int(left // each), 0)} dictionaries of {each / 1e9:.1f} GB "
                    f"fit one group in {gpu_memory_gb:.0f} GB of GPU memory."
                )
    return remarks
