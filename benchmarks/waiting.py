"""How OpenMP's threads should wait for each other, on a machine that has other work or none.

    make benchmark        or        python benchmarks/waiting.py

A thread that has done its part of an operation waits for the others. It may sleep, and then takes
time to wake up. Or it may spin, and then keeps a core from all others, which may include the thread
that it waits for. PyTorch's OpenMP is libgomp, which spins GOMP_SPINCOUNT times and then sleeps.

Each setting has a process with a model of the laptop's width. They take turns at a forward pass on
two cores, alone, then beside a process that keeps both cores busy. Writes benchmarks/waiting.json
with medians over rounds: `speed_alone` is relative to the best setting's of the same round, and
`share` is the speed beside the busy process, relative to half of that, which would be fair.
"""

import hashlib
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from threading import Thread

import torch
import typer
from transformers import LlamaConfig, LlamaForCausalLM

from transcoders.files import write_json

OUT = Path("benchmarks/waiting.json")
THREADS = 2
SPINS = (100, 300, 1_000, 3_000, 10_000, 30_000)
SETTINGS = {
    "default": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    **{f"spin {spins}": {"GOMP_SPINCOUNT": str(spins)} for spins in SPINS},
}
CONTEXT = multiprocessing.get_context("spawn")  # OpenMP reads its settings when it is loaded


def time_forward_passes(requests: Connection, layers: int, shape: tuple[int, int]) -> None:
    """Time a forward pass on (rows, positions) tokens for each request."""
    torch.set_num_threads(THREADS)
    config = LlamaConfig(
        num_hidden_layers=layers, hidden_size=576, intermediate_size=1536, vocab_size=1024,
        num_attention_heads=9, num_key_value_heads=3,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    tokens = torch.randint(1024, shape)
    while requests.recv():
        start = time.perf_counter()
        with torch.inference_mode():
            model(tokens, use_cache=False)
        requests.send(time.perf_counter() - start)


def keep_busy() -> None:
    """Compute on all threads and never wait."""

    def hash_for_ever() -> None:
        while True:
            hashlib.sha256(bytes(2**20))

    for _ in range(THREADS):
        Thread(target=hash_for_ever).start()


def start_processes(layers: int, shape: tuple[int, int]) -> dict[str, Connection]:
    """A process for each setting, ready to be asked."""
    ours = {}
    for name, setting in SETTINGS.items():
        for variable in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
            os.environ.pop(variable, None)
        os.environ.update(setting)
        ours[name], theirs = CONTEXT.Pipe()
        CONTEXT.Process(
            target=time_forward_passes, args=(theirs, layers, shape), daemon=True
        ).start()
    return ours


def seconds_by_setting(processes: dict[str, Connection], *, backwards: bool) -> dict[str, float]:
    """One turn each."""
    found = {}
    for name in reversed(processes) if backwards else processes:
        processes[name].send(True)
        found[name] = processes[name].recv()
    return found


def rounds_of(
    processes: dict[str, Connection], rounds: int
) -> Iterator[tuple[dict[str, float], dict[str, float]]]:
    """Seconds alone and beside the busy process, by setting, for each round."""
    busy = CONTEXT.Process(target=keep_busy, daemon=True)
    busy.start()
    for number in range(rounds + 1):
        os.kill(busy.pid, signal.SIGSTOP)
        alone = seconds_by_setting(processes, backwards=number % 2 == 1)
        os.kill(busy.pid, signal.SIGCONT)
        beside = seconds_by_setting(processes, backwards=number % 2 == 1)
        if number:  # the first round warms up
            yield alone, beside
    busy.kill()


def main(rounds: int = 30, layers: int = 10, rows: int = 4, out: Path = OUT) -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:THREADS])
    processes = start_processes(layers, (rows, 128))
    found = list(rounds_of(processes, rounds))
    for process in processes.values():
        process.send(False)
    record = {
        "settings": {
            name: {
                "speed_alone": round(median(min(a.values()) / a[name] for a, _ in found), 3),
                "share": round(median(2 * min(a.values()) / b[name] for a, b in found), 3),
            }
            for name in SETTINGS
        },
        "milliseconds_alone": round(1000 * median(min(a.values()) for a, _ in found)),
        "rounds": rounds,
        "threads": THREADS,
        "command": "python benchmarks/waiting.py",
    }
    write_json(out, record)
    print(record)


if __name__ == "__main__":
    typer.run(main)
