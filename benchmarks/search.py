"""Training variants on one site's cached activations: how the values of a scale file were found.

    python benchmarks/search.py             after a run; about six minutes at laptop scale

Every variant changes one or two settings of the scale, trains one dictionary on all but the last
part of the site's cache, and is measured on that last part: training documents, but tokens it
never saw. The held-out documents of the evaluation are not touched. Two variants run at a time, on
one thread each. Writes benchmarks/search.csv.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer

from transcoders.activations import ActivationCache
from transcoders.config import Dictionary, Kind, Training, load_scale
from transcoders.files import atomic_path
from transcoders.layout import Layout
from transcoders.training import train_group

MEASURED_TOKENS = 16_384
VARIANTS: list[tuple[Kind, int, float, dict[str, Any]]] = [
    ("transcoder", 12, 2.5, {}),
    ("transcoder", 12, 2.5, {"batch_tokens": 1024}),
    ("transcoder", 12, 2.5, {"learning_rate": 1e-3}),
    ("transcoder", 12, 2.5, {"l1_warmup_fraction": 0.1}),
    ("transcoder", 12, 2.5, {"l1_warmup_fraction": 0.4}),
    ("mlp_out_sae", 12, 2.5, {}),
    ("mlp_out_sae", 12, 2.5, {"learning_rate": 2.5e-3}),
    ("mlp_out_sae", 12, 2.5, {"learning_rate": 1.5e-3}),
    ("mlp_out_sae", 12, 2.5, {"learning_rate": 2.5e-3, "adam_betas": (0.9, 0.999)}),
]


def main(scale: Annotated[str, typer.Option()] = "laptop") -> None:
    with ProcessPoolExecutor(max_workers=2) as pool:
        rows = list(pool.map(_run, [scale] * len(VARIANTS), VARIANTS))
    table = pd.DataFrame(rows)
    with atomic_path(Path("benchmarks/search.csv")) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
    print(table.to_string(index=False))


def _run(scale: str, variant: tuple[Kind, int, float, dict[str, Any]]) -> dict[str, Any]:
    kind, layer, l1_coefficient, changes = variant
    torch.set_num_threads(1)
    settings = load_scale(Layout(scale).config)
    site = next(site for site in settings.all_sites if site.layer == layer)
    cache = ActivationCache(Layout(scale).activations(site.name))
    measured = cache.read(cache.n_tokens - MEASURED_TOKENS, cache.n_tokens)
    cache.n_tokens -= MEASURED_TOKENS

    entry = Dictionary(site=site, kind=kind, l1_coefficient=l1_coefficient, group="search")
    training = Training.model_validate({**settings.training.model_dump(), **changes})
    dictionary = train_group([entry], cache, training, seed=settings.seed)[0].dictionary
    x = getattr(measured, entry.traits.reads).float()
    y = getattr(measured, entry.traits.imitates).float()
    z = dictionary.encode(x)
    error, deviation = y - dictionary.decode(z, x), y - y.mean(dim=0)
    return {
        "kind": kind,
        "layer": layer,
        "l1_coefficient": l1_coefficient,
        "change": "; ".join(f"{key} {value}" for key, value in changes.items()) or "none",
        "l0": round((z > 0).sum(dim=1).double().mean().item(), 1),
        "fvu": round((error.square().sum() / deviation.square().sum()).item(), 3),
        "never_active": round(1 - (z > 0).any(dim=0).double().mean().item(), 3),
    }


if __name__ == "__main__":
    typer.run(main)
