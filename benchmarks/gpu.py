"""How long the paper's scale takes on this machine's GPU, and how much of its memory.

    .venv/bin/python benchmarks/gpu.py [--quick]

It measures the first site of each model of config/paper.yaml, with the model's sizes, random
weights and random tokens, and the largest group that trains there:

pass      tokens per second of the truncated model, when activations are measured and when a
          training job fills its buffer
step      time of one dictionary's step: with all features; with the active ones only, at several
          L0 (one bias for all features sets it); with products in TF32; the encoder's product
          alone; dense autograd with a fused Adam
evaluate  tokens per second with all dictionaries of the site
memory    the most that PyTorch held in tensors at a time in such a job

`hours` adds these up for all of the scale's groups and sites, with the share of dense steps that
`plan` assumes. Writes benchmarks/gpu.json. `--quick` tries everything at tiny sizes, on any device,
and writes nothing.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import typer
from random_models import random_model
from torch import Tensor
from training_peers import CALIBRATION_TOKENS, bias_for
from transformers import AutoConfig

from training import DenseAutograd
from transcoders.activations import ActivationStream, cache_activations
from transcoders.config import Group, Model, Resources, Scale, Site, load_scale
from transcoders.corpus import Rows
from transcoders.dictionaries import SparseDictionary
from transcoders.environment import device_name
from transcoders.evaluation import evaluate_site
from transcoders.files import write_json
from transcoders.layout import Layout
from transcoders.models import LanguageModel, MLPActivations, mlp_activations
from transcoders.plan import measured_rate
from transcoders.process import prepare_process
from transcoders.sizes import DENSE_SHARE_OF_STEPS, flops_of_evaluation
from transcoders.training import Trainer, batches, steps_per_epoch

OUTPUT = Path(__file__).parent / "gpu.json"
HEADS = {"gpt2-small": 12, "pythia-410m": 16, "pythia-1.4b": 16}
VOCABULARY = 50_304
L0S = (10, 25, 50, 100, 200, 400, 800, 1600)
L0 = 50
WARM_UP, STEPS = 2, 5
EVALUATED_BATCHES = 4


def main(quick: bool = False) -> None:
    settings = load_scale(Path(__file__).parents[1] / Layout("paper").config)
    if quick:
        settings = _tiny(settings)
    device = prepare_process(
        None, Resources(threads=torch.get_num_threads(), mem_mb=1, runtime=1, gpus=1),
        "auto" if quick else "cuda",
    )  # fmt: skip
    sites = {site.name: measure(settings, site, device) for site in settings.sites}
    record = {
        "command": "python benchmarks/gpu.py",
        "device": device_name(device),
        "torch": torch.__version__,
        "float32_tflops": round(measured_rate(device) / 1e12, 1),
        "sites": sites,
        "hours": hours(settings, sites),
    }
    print(record["hours"])
    if not quick:
        write_json(OUTPUT, record)


def measure(settings: Scale, site: Site, device: str) -> dict[str, Any]:
    """Everything of one site."""
    model = model_of_size(site.model, settings.models[site.model], device)
    groups = [group for group in settings.all_groups if group.sites == [site]]
    group = max(groups, key=lambda group: len(group.entry.dictionaries))
    record: dict[str, Any] = {"evaluate": evaluation(settings, model, site, device)}
    _start_counting(device)
    with tempfile.TemporaryDirectory() as folder:
        stream, record["pass"] = streamed(settings, model, site, device, Path(folder))
        record |= training(settings, group, stream, device)
    print(site.name, record)
    return record


def model_of_size(name: str, model: Model, device: str) -> LanguageModel:
    """A model of the sizes of a real one."""
    gpt2 = name.startswith("gpt2")
    config = AutoConfig.for_model(
        "gpt2" if gpt2 else "gpt_neox",
        hidden_size=model.d_model,
        num_hidden_layers=model.n_layers,
        num_attention_heads=HEADS[name],
        vocab_size=VOCABULARY,
        **({} if gpt2 else {"intermediate_size": 4 * model.d_model}),
    )
    torch.manual_seed(0)
    return random_model(config, device)


def streamed(
    settings: Scale, model: LanguageModel, site: Site, device: str, folder: Path
) -> tuple[ActivationStream, dict[str, int]]:
    """A stream of one buffer's tokens, and the rates of both passes over them."""
    assert settings.activations is not None and settings.training is not None
    length = settings.corpus.context_length
    rows = Rows(
        torch.randint(VOCABULARY, (settings.training.buffer_tokens // length, length)).int(),
        torch.zeros(settings.training.buffer_tokens // length, dtype=torch.int32),
    )
    shared: Any = (settings.activations, settings.corpus)
    mlp_activations(model, rows.tokens[:2].to(device), [site.layer])
    measuring = _seconds(
        lambda: cache_activations(
            model, rows, {site: folder}, *shared, sources={}, cached_rows={site: 0}
        ),
        device,
    )
    stream = ActivationStream(model, {site: folder}, rows, *shared, sources={})
    filling = _seconds(lambda: stream.read(0, stream.n_tokens), device)
    return stream, {
        "measuring_tokens_per_second": round(stream.n_tokens / measuring),
        "filling_tokens_per_second": round(stream.n_tokens / filling),
    }


def training(
    settings: Scale, group: Group, stream: ActivationStream, device: str
) -> dict[str, Any]:
    """Steps of the group's first dictionary, with all of the group in memory."""
    options = settings.training_of(group)
    n_steps = steps_per_epoch(settings.corpus.train_tokens, options)
    trainers = [
        Trainer(entry, stream.statistics, options, n_steps, settings.seed, device)
        for entry in settings.dictionaries_in(group)
    ]
    coming = batches(stream, options, seed=settings.seed)
    batch = MLPActivations(*(tensor.to(device, torch.float32) for tensor in next(coming)))
    for trainer in trainers:  # in memory, with Adam's moments and the buffer
        trainer.step(0, batch)
    memory = {"group": group.name, **_memory(device)}
    trainer = trainers[0]
    del trainers[1:]

    def step(below: float, precision: str = "float32") -> float:
        trainer.training = options.model_copy(
            update={"sparse_below_density": below, "precision": precision}
        )
        trainer.density = 0.0
        if device == "cuda":
            torch.backends.cuda.matmul.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        return _milliseconds(lambda: trainer.step(0, batch), device)

    x, n_features = batch.mlp_in, trainer.dictionary.n_features
    W_enc, b_enc = trainer.dictionary.W_enc.detach(), trainer.dictionary.b_enc.detach()
    products = x[:CALIBRATION_TOKENS] @ W_enc
    by_l0 = {}
    for l0 in L0S:
        b_enc.fill_(bias_for(products, min(l0, n_features // 2)))
        by_l0[l0] = step(1.0)
    b_enc.fill_(bias_for(products, min(L0, n_features // 2)))
    milliseconds = {"encoder": _milliseconds(lambda: x @ W_enc, device)}
    for precision in ("tf32", "float32"):  # the last stays
        milliseconds[f"dense_{precision}"] = step(0.0, precision)
        milliseconds[f"sparse_{precision}"] = step(1.0, precision)
    autograd = DenseAutograd(trainer.dictionary)
    milliseconds["autograd"] = _milliseconds(lambda: autograd.step(x), device)
    evens = np.interp(milliseconds["dense_float32"], list(by_l0.values()), list(by_l0))
    return {
        "memory": memory,
        "milliseconds": milliseconds,
        "sparse_milliseconds_by_l0": by_l0,
        "sparse_is_faster_below_density": round(evens / n_features, 4),
    }


def evaluation(settings: Scale, model: LanguageModel, site: Site, device: str) -> dict[str, Any]:
    """All dictionaries of a site on a few batches. Intervals are the CPU's work, and left out."""
    assert settings.evaluation is not None and settings.training is not None
    width = settings.models[site.model].d_model
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, device=device) / width**0.5

    wide = settings.training.expansion * width
    entries = settings.dictionaries_of(site)
    dictionaries = [
        SparseDictionary(
            entry.kind,
            W_enc=normal(width, wide),
            b_enc=normal(wide),
            W_dec=normal(wide, width),
            b_dec=normal(width),
            W_skip=normal(width, width) if entry.traits.has_skip else None,
            k=entry.k,
        )
        for entry in entries
    ]
    n_rows = EVALUATED_BATCHES * settings.evaluation.batch_contexts
    rows = Rows(
        torch.randint(VOCABULARY, (n_rows, settings.corpus.context_length)).int(),
        torch.arange(n_rows).int(),
    )
    documents = pd.DataFrame({"id": map(str, range(n_rows)), "source": "random"})
    trained = {"seed": settings.seed, "tokens_trained": 0, "tokens_different": 0}
    measured = [(e, d, trained) for e, d in zip(entries, dictionaries, strict=True)]

    def evaluate() -> None:
        evaluate_site(
            model, rows, documents, measured,
            torch.zeros(width), settings.corpus, settings.evaluation, seed=0, device=device,
        )  # fmt: skip

    evaluate()
    _start_counting(device)
    seconds = _seconds(evaluate, device)
    return {
        "dictionaries": len(entries),
        "tokens_per_second": round(rows.tokens.numel() / seconds),
        "memory": _memory(device),
    }


def hours(settings: Scale, sites: dict[str, Any]) -> dict[str, float]:
    """Of the whole scale: other sites of a model take as much, by depth and by operations."""
    assert settings.training is not None
    tokens = settings.corpus.train_tokens
    held_out = settings.corpus.eval_contexts * settings.corpus.context_length
    measured = {site.model: sites[site.name] for site in settings.sites}
    depth = {site.model: site.layer + 1 for site in settings.sites}
    total = {"measure_activations": 0.0, "train": 0.0, "train_dense": 0.0, "evaluate": 0.0}
    for model, of_site in measured.items():
        deepest = max(site.layer for site in settings.sites_of(model)) + 1
        seconds = tokens / of_site["pass"]["measuring_tokens_per_second"]
        total["measure_activations"] += seconds * deepest / depth[model]
    for group in settings.all_groups:
        model = group.model
        took = measured[model]["milliseconds"]
        passes = settings.training.epochs * (group.deepest.layer + 1) / depth[model]
        filling = passes * tokens / measured[model]["pass"]["filling_tokens_per_second"]
        n_steps = steps_per_epoch(tokens, settings.training) * settings.training.epochs
        n_steps *= len(settings.dictionaries_in(group))
        dense, sparse = (took[f"{way}_float32"] / 1e3 for way in ("dense", "sparse"))
        mixed = DENSE_SHARE_OF_STEPS * dense + (1 - DENSE_SHARE_OF_STEPS) * sparse
        total["train"] += filling + n_steps * mixed
        total["train_dense"] += filling + n_steps * dense
    flops = {site.model: flops_of_evaluation(settings, site) for site in settings.sites}
    for site in settings.all_sites:
        seconds = held_out / measured[site.model]["evaluate"]["tokens_per_second"]
        total["evaluate"] += seconds * flops_of_evaluation(settings, site) / flops[site.model]
    return {rule: round(seconds / 3600, 3) for rule, seconds in total.items()}


def _tiny(settings: Scale) -> Scale:
    assert settings.training is not None
    return settings.model_copy(
        update={
            "models": {
                name: model.model_copy(update={"d_model": 4 * HEADS[name]})
                for name, model in settings.models.items()
            },
            "training": settings.training.model_copy(
                update={"expansion": 2, "batch_tokens": 256, "buffer_tokens": 2048}
            ),
            "corpus": settings.corpus.model_copy(update={"context_length": 8}),
        }
    )


def _milliseconds(action: Callable[[], Any], device: str) -> float:
    for _ in range(WARM_UP):
        action()
    return round(1e3 * statistics.median(_seconds(action, device) for _ in range(STEPS)), 2)


def _seconds(action: Callable[[], Any], device: str) -> float:
    _wait_for(device)
    began = time.perf_counter()
    action()
    _wait_for(device)
    return time.perf_counter() - began


def _wait_for(device: str) -> None:
    """Until a GPU has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def _start_counting(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _memory(device: str) -> dict[str, float]:
    held = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"gb": round(held / 1e9, 2)}


if __name__ == "__main__":
    typer.run(main)
