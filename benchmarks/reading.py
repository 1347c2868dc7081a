"""How fast training jobs can read cached activations, and how fast they need them.

    make benchmark        or        python benchmarks/reading.py

The cache has the laptop scale's width and random contents. Its files are in the system's page
cache, so this measures the code and not the disk. Batches are drawn as in training and turned into
float32, first alone, then with the steps of the given number of dictionaries. Writes
benchmarks/reading.json; `needed_mb_per_second` is the rate that one job on one thread needs.
"""

import tempfile
import time
from pathlib import Path

import torch
import typer
from safetensors.torch import save_file

from transcoders.activations import ActivationCache, Statistics
from transcoders.checksums import sha256
from transcoders.config import Dictionary, Site, load_scale
from transcoders.files import write_json
from transcoders.layout import Layout
from transcoders.training import Trainer, batches, steps_per_epoch

N_SHARDS, DICTIONARIES, ROUNDS = 4, (1, 3), 3


def main(steps: int = 300) -> None:
    scale = load_scale(Layout("laptop").config)
    site = scale.sites[1]
    d_model = scale.models[site.model].d_model
    training = scale.training_of(scale.all_groups[0]).model_copy(update={"epochs": ROUNDS + 1})
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        cache = _random_cache(Path(scratch), site, d_model, training.buffer_tokens)
        bytes_a_token = 2 * d_model * 2
        n_steps = steps_per_epoch(cache.n_tokens, training)
        best = 0.0
        stream = batches(cache, training, seed=0)
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for _ in range(n_steps):
                _as_float32(next(stream))
            n_tokens = n_steps * training.batch_tokens
            best = max(best, n_tokens / (time.perf_counter() - began))
        stream.close()
        record = {
            "read_mb_per_second": round(best * bytes_a_token / 1e6),
            "by_dictionaries": {},
            "d_model": d_model,
            "threads": 1,
            "command": "python benchmarks/reading.py",
        }
        for n in DICTIONARIES:
            entries = [
                Dictionary(site=site, kind="transcoder", l1_coefficient=2.0 + i, group="benchmark")
                for i in range(n)
            ]
            trainers = [
                Trainer(e, cache.statistics, training, steps, scale.seed, "cpu") for e in entries
            ]
            stream = batches(cache, training, seed=0)
            for trainer in trainers:
                trainer.density = 0.01  # as in most of training: with active features only
                trainer.dictionary.b_enc.data.fill_(-0.2)
            began = time.perf_counter()
            for step in range(steps):
                batch = _as_float32(next(stream))
                for trainer in trainers:
                    trainer.step(step, batch)
            rate = steps * training.batch_tokens / (time.perf_counter() - began)
            stream.close()
            record["by_dictionaries"][n] = {
                "tokens_per_second": round(rate),
                "needed_mb_per_second": round(rate * bytes_a_token / 1e6, 1),
            }
    write_json(Path("benchmarks/reading.json"), record)
    print(record)


def _as_float32(batch: tuple[torch.Tensor, torch.Tensor]) -> object:
    return type(batch)(*(tensor.float() for tensor in batch))


def _random_cache(folder: Path, site: Site, d_model: int, n_tokens: int) -> ActivationCache:
    generator = torch.Generator().manual_seed(0)
    for number in range(N_SHARDS):
        shard = {
            name: torch.randn(n_tokens // N_SHARDS, d_model, generator=generator).half()
            for name in ("mlp_in", "mlp_out")
        }
        save_file(shard, folder / f"shard-{number:05d}.safetensors")
    zeros, norms = torch.zeros(2, d_model), torch.full((2,), d_model**0.5)
    statistics = Statistics(*(t.clone() for t in (*zeros, *norms)))
    save_file(statistics._asdict(), folder / "statistics.safetensors")
    record = {
        "site": site.name,
        "dtype": "float16",
        "tokens": n_tokens // N_SHARDS * N_SHARDS,
        "d_model": d_model,
        "files": {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))},
    }
    write_json(folder / "activations.json", record)
    return ActivationCache(folder)


if __name__ == "__main__":
    typer.run(main)
