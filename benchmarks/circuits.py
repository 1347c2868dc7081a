"""Time and memory of the search for paths, against forward passes of the model.

    python benchmarks/circuits.py           about two minutes

Models of two sizes with random weights, each with a transcoder at every layer of which about 50
features are active: GPT2-small's with 24,576 features and a prompt of 64 tokens, and the laptop
scale's with 4,608 features (8 for each dimension) and a prompt of 14, as long as its own. 25 paths
of both signs, 5 rounds. The search is timed against forward passes of the model on the same prompt,
in turns; the pass that fills the cache and the encoding of its features come before and are not
counted. So is splitting the score of a head of the last layer. Memory is what the process holds at
its peak beyond model and transcoders, with those two counted.

Random weights do as well as trained ones: time depends on sizes and on how many features are
active, which is set. The laptop scale itself has transcoders at nine of its 30 layers; here, all
have one.

Writes benchmarks/circuits.json, and fails if the median of a ratio is above its target.
"""

import itertools
import json
import statistics
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from random_models import random_model
from transformers import AutoConfig

from transcoders.circuits import Search, attention_score
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
SIZES: dict[str, tuple[str, dict[str, int], int, int]] = {
    "gpt2_small": ("gpt2", {}, 24576, 64),
    "laptop": (
        "llama",
        {
            "num_hidden_layers": 30, "hidden_size": 576, "intermediate_size": 1536,
            "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49152,
        },
        4608,
        14,
    ),
}  # fmt: skip
"""Family, sizes, features of each transcoder, tokens of the prompt."""
TARGETS = {"forwards": 3.0, "attention_forwards": 1.0}
"""The most forward passes that a search for paths, and splitting the score of a head, may take."""


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


def measure(config: Any, width: int, n_tokens: int) -> dict[str, Any]:
    """Time and memory at one size."""
    torch.manual_seed(0)
    model = random_model(config)
    layers = config.num_hidden_layers
    tokens = torch.randint(1, config.vocab_size, (n_tokens,))
    tokens[0] = 0
    transcoders = {i: transcoder(model, i, tokens[None], width) for i in range(layers)}
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory_mb("VmRSS")
    replacement = ReplacementModel(model, transcoders)
    local = replacement.freeze(tokens)
    target = logit_target(local, {5: 1.0, 7: -1.0}, -1, name="difference of two logits")
    search = Search(n_paths=25, iterations=5, sign="both")
    paths = find_paths(local, target, search)
    attention_score(local, layers - 1, 0, -1, 3)
    peak = memory_mb("VmHWM")
    forwards, searches, scores = [], [], []
    for _ in range(ROUNDS):
        times = [time.perf_counter()]
        with torch.inference_mode():
            model.unembed(run_blocks(model, tokens=tokens[None]))
        times.append(time.perf_counter())
        find_paths(local, target, search)
        times.append(time.perf_counter())
        attention_score(local, layers - 1, 0, -1, 3).table()
        times.append(time.perf_counter())
        laps = itertools.pairwise(times)
        for durations, (start, end) in zip((forwards, searches, scores), laps, strict=True):
            durations.append(end - start)
    ratios = [s / f for s, f in zip(searches, forwards, strict=True)]
    return {
        "forwards": round(statistics.median(ratios), 3),
        "forwards_by_round": [round(ratio, 2) for ratio in ratios],
        "attention_forwards": round(
            statistics.median(s / f for s, f in zip(scores, forwards, strict=True)), 3
        ),
        "extra_memory_mb": round(peak - before),
        "milliseconds": {
            "search": round(1000 * statistics.median(searches), 1),
            "attention": round(1000 * statistics.median(scores), 1),
            "forward": round(1000 * statistics.median(forwards), 1),
        },
        "paths": len(paths) - 1,
        "rounds": search.iterations,
        "layers": layers,
        "l0": round(len(local.active.z) / (layers * len(tokens)), 1),
        "tokens": len(tokens),
    }


def missed(record: dict[str, Any]) -> list[str]:
    """The measures that are above their targets, in words."""
    return [
        f"{size}: {measure} is {record[size][measure]}, expected at most {most}"
        for size in SIZES
        for measure, most in TARGETS.items()
        if record[size][measure] > most
    ]


def main(
    layers: Annotated[int | None, typer.Option(help="In place of the models'.")] = None,
    width: Annotated[int | None, typer.Option(help="In place of the transcoders'.")] = None,
    out: Annotated[Path, typer.Option()] = OUT,
) -> None:
    torch.set_num_threads(THREADS)
    record = {}
    for name, (family, sizes, features, n_tokens) in SIZES.items():
        config = AutoConfig.for_model(family, bos_token_id=0, eos_token_id=0, **sizes)
        config.num_hidden_layers = layers or config.num_hidden_layers
        record[name] = measure(config, width or features, n_tokens)
    record |= {"targets": TARGETS, "threads": THREADS, "command": "python benchmarks/circuits.py"}
    write_json(out, record)
    print(json.dumps(record))
    if lines := missed(record):
        raise SystemExit("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
