"""What our process and SAELens's share: activations, sparsity, clock, and memory.

It runs in both environments, so it imports neither of the two packages. Each process gets a `Size`
as JSON, trains for a few steps, and prints one line of JSON.
"""

import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

BATCHES = 8
"""Batches in memory, which both sides use again and again."""
LEARNING_RATE = 1e-12
"""So small that a step does all its work and leaves the weights, and so L0, as they are."""
CALIBRATION_TOKENS = 256


class Size(NamedTuple):
    """A training job to measure."""

    d_model: int
    n_features: int
    batch: int
    l0: float
    threads: int
    warm_up: int
    steps: int


TINY = Size(d_model=8, n_features=32, batch=16, l0=2, threads=1, warm_up=1, steps=1)


def activations(size: Size) -> Tensor:
    """16-bit activations, (BATCHES · batch, d_model); made batch by batch to save memory."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.empty(BATCHES * size.batch, size.d_model, dtype=torch.float16)
    for part in tokens.split(size.batch):
        part.copy_(torch.randn(part.shape, generator=generator))
    return tokens


def bias_for(products: Tensor, l0: float) -> float:
    """The bias that leaves ``l0`` of each token's products (tokens, features) above 0."""
    return -products.flatten().topk(round(l0 * len(products))).values[-1].item()


def run_peer(train: Callable[[Size, Callable[[], None]], float]) -> None:
    """Call ``train`` and print what it took.

    Args:
        train: trains for ``warm_up + steps`` steps, calls its second argument whenever a batch is
            due and once at the end, and returns the L0 of the last step.
    """
    size = Size(**json.loads(sys.argv[1]))
    torch.set_num_threads(size.threads)
    train(TINY._replace(threads=size.threads), lambda: None)  # for what PyTorch imports late
    before = _memory_mb("VmRSS")
    marks: list[float] = []
    l0 = train(size, lambda: marks.append(time.perf_counter()))
    seconds = [after - start for start, after in itertools.pairwise(marks)]
    peak = _memory_mb("VmHWM")
    record = {
        "seconds": round(statistics.median(seconds[size.warm_up :]), 5),
        "l0": round(l0, 1),
        "memory_before_mb": before,
        "memory_peak_mb": peak,
        "memory_training_mb": max(peak - before, 1),
    }
    print(json.dumps(record))


def _memory_mb(field: str) -> int:
    # Linux's own count, since ru_maxrss of a child starts at what its parent held.
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024)
