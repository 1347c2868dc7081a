"""How long a training step takes: against its own encoder, SAELens, and dense autograd.

    make benchmark     or     python benchmarks/training.py [--only steps] [--only ...] [--quick]

It times the whole step of an MLP-out SAE: the next batch from the shuffled stream, its conversion
to float32, loss, gradients, Adam, projection, log (our_peer.py). `b_enc` sets L0, which stays the
same because the learning rate is almost zero. Activations are random. There are five parts:

steps   `step_over_encoder`: the step over x @ W_enc alone; `times_dense_autograd`: the step of a
        few lines of dense autograd, below, over ours. In this process, in turn.
peers   `times_saelens`: the step of SAELens's own trainer (saelens_peer.py) over ours;
        `memory_of_saelens`: our peak of resident memory over theirs, each less what was resident
        after the imports. A process each, in turn; the same versions of PyTorch.
widths  the step's time per token by width, relative to n_features = d_model.
l0      the step's time by L0 with active entries only, relative to L0 50, and over the time of our
        own dense step, which is the same at any L0: where it passes 1, dense is faster.
shares  share of the step's time by what it does.

Ratios are medians over rounds. `milliseconds` and `processes` hold the measured numbers, which mean
little by themselves. Writes benchmarks/training.json; `--only` replaces the named parts of it.
`--quick` tries everything at tiny sizes and writes nothing.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import torch
import typer
from our_peer import Ours, prepare
from torch import Tensor
from torch.nn import functional
from training_peers import LEARNING_RATE, Size

from transcoders.dictionaries import SparseDictionary, loss
from transcoders.files import read_json, write_json
from transcoders.training import Trainer
from transcoders.training.adam import DictionaryAdam

HERE = Path(__file__).parent
OUTPUT = HERE / "training.json"
PYTHON_OF = {
    "ours": (sys.executable, HERE / "our_peer.py"),
    "saelens": (HERE.parent / ".venv-saelens/bin/python", HERE / "saelens_peer.py"),
}
SIZES = {
    "gpt2_small": Size(
        d_model=768, n_features=24_576, batch=4096, l0=50, threads=2, warm_up=1, steps=3
    ),
    "laptop": Size(d_model=576, n_features=4608, batch=256, l0=40, threads=1, warm_up=5, steps=60),
}
QUICK_SIZES = {
    "gpt2_small": Size(d_model=16, n_features=512, batch=64, l0=10, threads=1, warm_up=1, steps=2),
    "laptop": Size(d_model=8, n_features=64, batch=32, l0=4, threads=1, warm_up=1, steps=2),
}
ROUNDS = {"gpt2_small": 3, "laptop": 40}  # with dense autograd, which is slow; thrice without
PEER_ROUNDS = 3
TABLE_ROUNDS = 3
EXPANSIONS = (1, 2, 4, 8, 16, 32)
L0S = (10, 25, 50, 100, 200, 400, 800)
QUICK_L0S = (4, 10, 20)

Part = StrEnum("Part", ["steps", "peers", "widths", "l0", "shares"])


def main(only: Annotated[list[Part] | None, typer.Option()] = None, quick: bool = False) -> None:
    parts = only or list(Part)
    saelens = PYTHON_OF["saelens"][0]
    if Part.peers in parts and not saelens.exists():
        sys.exit(f"error: {saelens}: no such file; run `make .venv-saelens/.installed`")
    measured = measure(parts, quick=quick)
    if quick:
        return
    record = read_json(OUTPUT) if OUTPUT.exists() else {}
    for key, value in measured.items():
        record[key] = record.get(key, {}) | value if isinstance(value, dict) else value
    write_json(OUTPUT, record)


def measure(parts: list[Part], *, quick: bool) -> dict[str, Any]:
    """The parts of the record that are asked for; one line is printed for each measurement."""
    sizes = QUICK_SIZES if quick else SIZES
    record: dict[str, Any] = {name: {} for name in sizes}
    if Part.peers in parts:  # first: the machine is as free as it will be
        for name, size in sizes.items():
            record[name] |= _say(f"{name}, against SAELens", against_saelens(size))
    if Part.steps in parts:
        for name, size in sizes.items():
            rounds = 2 if quick else ROUNDS[name]
            record[name] |= _say(f"{name}, in this process", steps_in_turn(size, rounds))
    large, rounds = sizes["gpt2_small"], 1 if quick else TABLE_ROUNDS
    if Part.widths in parts:
        record["by_width"] = by_width(large, rounds)
    if Part.l0 in parts:
        l0s = QUICK_L0S if quick else L0S
        record["by_l0"] = by_l0(large, l0s, rounds)
        record["by_l0_laptop"] = by_l0(sizes["laptop"], l0s, 5 * rounds)
    if Part.shares in parts:
        record["share_of_step"] = {
            name: _say(f"{name}, shares of a step", share_of_step(size))
            for name, size in sizes.items()
        }
    record["threads"] = {name: size.threads for name, size in sizes.items()}
    record["torch"] = torch.__version__
    record["command"] = "python benchmarks/training.py"
    return record


def steps_in_turn(size: Size, rounds: int) -> dict[str, Any]:
    """Our step and the encoder's product alone in turn, then our step and dense autograd's."""
    prepare(size.threads)
    ours = Ours(size)
    ours.step()  # the first is dense, as in a training job
    dense = DenseAutograd(ours.trainer.dictionary)
    x, W_enc = ours.batch().mlp_out, ours.trainer.dictionary.W_enc.detach()
    seconds = _in_turn({"encoder": lambda: x @ W_enc, "ours": ours.step}, 3 * rounds)
    against_dense = _in_turn(
        {"ours": ours.step, "autograd": lambda: dense.step(ours.batch().mlp_out)}, rounds
    )
    seconds["autograd"] = against_dense["autograd"]
    return {
        **{key: getattr(size, key) for key in ("d_model", "n_features", "batch", "threads")},
        "l0": round(ours.l0, 1),
        "step_over_encoder": _ratio(seconds["ours"], seconds["encoder"]),
        "times_dense_autograd": _ratio(against_dense["autograd"], against_dense["ours"]),
        "milliseconds": {what: round(1e3 * statistics.median(s), 1) for what, s in seconds.items()},
        "tokens_per_second": round(size.batch / statistics.median(seconds["ours"])),
    }


class DenseAutograd:
    """The same training by PyTorch's autograd, with all features."""

    def __init__(self, dictionary: SparseDictionary) -> None:
        tensors = (dictionary.W_enc, dictionary.b_enc, dictionary.W_dec, dictionary.b_dec)
        self.parameters = [t.detach().contiguous().clone() for t in tensors]
        for parameter in self.parameters:
            parameter.requires_grad_()
        self.adam = torch.optim.Adam(self.parameters, lr=LEARNING_RATE, fused=True)

    def step(self, x: Tensor) -> None:
        """One step on a batch of inputs."""
        W_enc, b_enc, W_dec, b_dec = self.parameters
        z = torch.relu((x - b_dec) @ W_enc + b_enc)
        error = x - (z @ W_dec + b_dec)
        loss = error.square().sum(dim=1).mean() + z.sum(dim=1).mean()
        self.adam.zero_grad()
        loss.backward()
        with torch.no_grad():
            W_dec.grad -= torch.linalg.vecdot(W_dec.grad, W_dec)[:, None] * W_dec
            self.adam.step()
            functional.normalize(W_dec, dim=1, out=W_dec)


def against_saelens(size: Size) -> dict[str, Any]:
    """Processes of ours and of SAELens's trainer, in turn."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "saelens": []}
    for number in range(PEER_ROUNDS):
        for who in runs if number % 2 else reversed(runs):
            runs[who].append(_run_peer(who, size))
    seconds = {who: [run["seconds"] for run in of_one] for who, of_one in runs.items()}
    memory = {who: [run["memory_training_mb"] for run in of_one] for who, of_one in runs.items()}
    return {
        "times_saelens": _ratio(seconds["saelens"], seconds["ours"]),
        "times_saelens_by_round": [
            round(a / b, 2) for a, b in zip(seconds["saelens"], seconds["ours"], strict=True)
        ],
        "memory_of_saelens": _ratio(memory["ours"], memory["saelens"]),
        "processes": {
            who: {key: statistics.median(run[key] for run in of_one) for key in of_one[0]}
            for who, of_one in runs.items()
        },
    }


def _run_peer(who: str, size: Size) -> dict[str, float]:
    command = [*PYTHON_OF[who], json.dumps(size._asdict())]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    if run.returncode:
        sys.exit(f"error: {command}:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])


def by_width(size: Size, rounds: int) -> list[dict[str, float]]:
    """The step and the encoder's product at every width, in turn."""
    prepare(size.threads)
    jobs = {n: Ours(size._replace(n_features=n * size.d_model)) for n in EXPANSIONS}
    x = next(iter(jobs.values())).batch().mlp_out
    actions: dict[tuple[str, int], Callable[[], Any]] = {}
    for expansion, job in jobs.items():
        job.step()  # the first is dense, as in a training job
        actions["step", expansion] = job.step
        actions["encoder", expansion] = lambda job=job: x @ job.trainer.dictionary.W_enc.detach()
    seconds = _in_turn(actions, rounds)
    return [
        _say(
            f"width × {expansion}",
            {
                "expansion": expansion,
                "n_features": expansion * size.d_model,
                "l0": round(job.l0, 1),
                "path": "sparse" if job.is_sparse else "dense",
                "time_per_token": _ratio(
                    seconds["step", expansion], seconds["step", EXPANSIONS[0]]
                ),
                "step_over_encoder": _ratio(
                    seconds["step", expansion], seconds["encoder", expansion]
                ),
            },
        )
        for expansion, job in jobs.items()
    ]


def by_l0(size: Size, l0s: tuple[int, ...], rounds: int) -> list[dict[str, float]]:
    """The step with active entries only, at every L0, and the dense one, in turn."""
    prepare(size.threads)
    ours = Ours(size)
    found: dict[int, float] = {}

    def run(path: str, l0: int) -> None:
        ours.choose(path)
        ours.step()
        found[l0] = ours.l0

    actions = {l0: lambda l0=l0: run("sparse", l0) for l0 in l0s}
    actions[0] = lambda: run("dense", 0)
    # Setting L0 takes time that is not the step's.
    seconds = _in_turn(actions, rounds, before=lambda l0: ours.set_l0(l0 or size.l0))
    reference = 50 if 50 in l0s else l0s[0]
    return [
        _say(
            f"{size.n_features} features, L0 {l0}",
            {
                "l0": round(found[l0], 1),
                "density": round(found[l0] / size.n_features, 5),
                "time": _ratio(seconds[l0], seconds[reference]),
                "of_dense_step": _ratio(seconds[l0], seconds[0]),
            },
        )
        for l0 in l0s
    ]


def share_of_step(size: Size) -> dict[str, float]:
    """Time our step part by part, with a stopwatch around the functions that it calls."""
    prepare(size.threads)
    ours, watch = Ours(size), Stopwatch()
    for _ in range(size.warm_up + 1):
        ours.step()

    with ExitStack() as patches:
        for owner, name, part in (
            (ours, "step", "loss, the rest"),
            (ours, "batch", "data"),
            (Trainer, "_scaled", "data"),
            (loss, "active_entries", "finding active entries"),
            (Tensor, "__matmul__", "encoder's product"),  # the only one of such a step
            (loss, "decode", "decoder"),
            (loss, "gradient_of_z", "gradient of z"),
            (DictionaryAdam, "_update_matrices_from", "gradients of weights, projection, Adam"),
            (Trainer, "_record", "telemetry"),
        ):
            patches.enter_context(
                mock.patch.object(owner, name, watch.around(getattr(owner, name), part))
            )
        for _ in range(max(size.steps, 3)):
            ours.step()
    total = sum(watch.seconds.values())
    return {part: round(seconds / total, 4) for part, seconds in watch.seconds.items()}


class Stopwatch:
    """Time by part. The time of an inner part does not count for the outer one."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._inner = [0.0]

    def around(self, function: Callable[..., Any], part: str | Callable[..., str]) -> Any:
        """The function, with its time counted for ``part``, which may depend on the call."""

        def timed(*arguments: Any, **keywords: Any) -> Any:
            name = part if isinstance(part, str) else part(*arguments)
            self._inner.append(0.0)
            start = time.perf_counter()
            outcome = function(*arguments, **keywords)
            took = time.perf_counter() - start
            self.seconds[name] += took - self._inner.pop()
            self._inner[-1] += took
            return outcome

        return timed


def _in_turn(
    actions: dict[Any, Callable[[], Any]],
    rounds: int,
    before: Callable[[Any], None] = lambda _: None,
) -> dict[Any, list[float]]:
    """Seconds of every action in every round; each round starts with another."""
    seconds: dict[Any, list[float]] = {key: [] for key in actions}
    keys = list(actions)
    for number in range(rounds + 1):
        first = number % len(keys)
        for key in keys[first:] + keys[:first]:
            before(key)
            start = time.perf_counter()
            actions[key]()
            if number:  # the first round warms up
                seconds[key].append(time.perf_counter() - start)
    return seconds


def _ratio(numerators: list[float], denominators: list[float]) -> float:
    """The median over rounds."""
    return round(statistics.median(a / b for a, b in zip(numerators, denominators, strict=True)), 3)


def _say(what: str, found: dict[str, Any]) -> dict[str, Any]:
    print(f"{what}: {json.dumps(found)}", flush=True)
    return found


if __name__ == "__main__":
    typer.run(main)
