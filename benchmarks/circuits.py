"""Time and memory of the search for paths, against forward passes of the model.

    python benchmarks/circuits.py           about a minute

GPT2-small's sizes, with random weights: 12 layers, each with a transcoder of 24,576 features of
which about 50 are active, a prompt of 64 tokens, 25 paths, 5 rounds. The search is timed against
forward passes of the model on the same prompt, in turns; the pass that fills the cache and the
encoding of its features come before and are not counted. Memory is what the process holds at its
peak beyond model and transcoders, with those two counted. Writes benchmarks/circuits.json.
"""

import json
import statistics
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from random_models import random_model
from transformers import AutoConfig

from transcoders.circuits import Search
from transcoders.circuits.paths import find_paths
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.vectors import logit_target
from transcoders.dictionaries import SparseDictionary
from transcoders.files import write_json
from transcoders.models import LanguageModel, mlp_activations, run_blocks

OUT = Path(__file__).with_name("circuits.json")
THREADS = 2
L0 = 50
ROUNDS = 15


def transcoder(
    model: LanguageModel, layer: int, prompts: torch.Tensor, width: int
) -> SparseDictionary:
    """Random, with a bias for all features that leaves :data:`L0` of them active."""
    generator = torch.Generator().manual_seed(layer)
    d_model = model.cfg.d_model
    W_enc = torch.randn(d_model, width, generator=generator) / d_model**0.5
    W_dec = torch.randn(width, d_model, generator=generator)
    W_dec /= W_dec.norm(dim=1, keepdim=True)
    products = mlp_activations(model, prompts, [layer])[layer].mlp_in.flatten(0, 1) @ W_enc
    bias = -products.flatten().topk(L0 * len(products)).values[-1]
    return SparseDictionary(
        "transcoder",
        W_enc=W_enc,
        b_enc=torch.full((width,), bias.item()),
        W_dec=W_dec,
        b_dec=torch.zeros(d_model),
    )


def memory_mb(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def main(
    layers: Annotated[int, typer.Option()] = 12,
    width: Annotated[int, typer.Option()] = 24576,
    out: Annotated[Path, typer.Option()] = OUT,
) -> None:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", n_layer=layers, bos_token_id=0, eos_token_id=0)
    model = random_model(config)
    tokens = torch.randint(1, config.vocab_size, (64,))
    tokens[0] = 0
    transcoders = {i: transcoder(model, i, tokens[None], width) for i in range(layers)}
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory_mb("VmRSS")
    replacement = ReplacementModel(model, transcoders)
    local = replacement.freeze(tokens)
    target = logit_target(local, {5: 1.0, 7: -1.0}, -1, name="difference of two logits")
    search = Search(n_paths=25, iterations=5)
    paths = find_paths(local, target, search)
    peak = memory_mb("VmHWM")
    forwards, searches = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with torch.inference_mode():
            model.unembed(run_blocks(model, tokens=tokens[None]))
        middle = time.perf_counter()
        find_paths(local, target, search)
        searches.append(time.perf_counter() - middle)
        forwards.append(middle - start)
    ratios = [s / f for s, f in zip(searches, forwards, strict=True)]
    record = {
        "forwards": round(statistics.median(ratios), 3),
        "forwards_by_round": [round(ratio, 2) for ratio in ratios],
        "extra_memory_mb": round(peak - before),
        "milliseconds": {
            "search": round(1000 * statistics.median(searches), 1),
            "forward": round(1000 * statistics.median(forwards), 1),
        },
        "paths": len(paths) - 1,
        "rounds": search.iterations,
        "l0": round(len(local.active.z) / (layers * len(tokens)), 1),
        "tokens": len(tokens),
        "threads": THREADS,
        "command": "python benchmarks/circuits.py",
    }
    write_json(out, record)
    print(json.dumps(record))


if __name__ == "__main__":
    typer.run(main)
