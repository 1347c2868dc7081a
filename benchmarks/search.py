"""One training variant on one site's cached activations: how the values of a scale file were found.

    python benchmarks/search.py --kind transcoder --l1 4 --change learning_rate=2e-3

Trains one dictionary with the scale's settings and the changes given, measures L0 and FVU on the
held-out rows, and appends a line to benchmarks/search.csv. `python benchmarks/search.py --all` runs
the variants that benchmarks/README.md reports, two at a time.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import torch
import typer
import yaml

from transcoders.activations import ActivationCache
from transcoders.config import Dictionary, Kind, Training, load_scale
from transcoders.corpus import load_rows
from transcoders.files import atomic_path
from transcoders.layout import Layout
from transcoders.models import LanguageModel
from transcoders.training import train_group

TABLE = Path("benchmarks/search.csv")
VARIANTS = [
    ("transcoder", 12, "2.5", []),
    ("transcoder", 12, "2.5", ["batch_tokens=1024"]),
    ("transcoder", 12, "2.5", ["learning_rate=1e-3"]),
    ("transcoder", 12, "2.5", ["l1_warmup_fraction=0.1"]),
    ("mlp_out_sae", 12, "2.5", []),
    ("mlp_out_sae", 12, "2.5", ["learning_rate=2.5e-3"]),
    ("mlp_out_sae", 12, "2.5", ["learning_rate=2.5e-3", "adam_betas=[0.9, 0.999]"]),
]


def main(
    kind: str = "transcoder",
    layer: int = 12,
    l1: str = "2.5",
    change: Annotated[list[str] | None, typer.Option()] = None,
    scale: str = "laptop",
    all: bool = False,
) -> None:
    if all:
        _run_all(scale)
        return
    layout = Layout(scale)
    settings = load_scale(layout.config)
    torch.set_num_threads(settings.resources.train.threads)
    changes = {key: yaml.safe_load(value) for key, value in (c.split("=") for c in change or [])}
    training = Training.model_validate({**settings.training.model_dump(), **changes})
    site = next(site for site in settings.sites if site.layer == layer)
    chosen: Kind = kind  # type: ignore[assignment]
    entry = Dictionary(
        site=site, kind=chosen, l1_coefficient=float(l1), headline=False, group="search"
    )
    cache = ActivationCache(layout.activations(site.name), verify=False)
    dictionary = train_group([entry], cache, training, seed=settings.seed)[0].dictionary

    rows = load_rows(layout.tokens(site.model), "eval")
    model = LanguageModel.load(layout.model(site.model), n_layers=layer + 1)
    first = settings.corpus.first_metric_position
    mlp_in, mlp_out = (
        torch.cat(batches).flatten(0, 1)
        for batches in zip(
            *(
                [tensor[:, first:] for tensor in model.mlp_activations(batch, [layer])[layer]]
                for batch in rows.tokens.split(settings.activations.batch_contexts)
            ),
            strict=True,
        )
    )
    target = mlp_in if kind == "mlp_in_sae" else mlp_out
    z = dictionary.encode(mlp_out if kind == "mlp_out_sae" else mlp_in)
    error = target - dictionary.decode(z)
    result = {
        "kind": kind,
        "layer": layer,
        "l1_coefficient": float(l1),
        "change": "; ".join(change or []) or "none",
        "l0": round((z > 0).sum(dim=1).double().mean().item(), 1),
        "fvu": round((error.square().sum() / (target - target.mean(0)).square().sum()).item(), 3),
        "never_active": round(1 - (z > 0).any(dim=0).double().mean().item(), 3),
    }
    print(result)
    known = pd.read_csv(TABLE).to_dict("records") if TABLE.exists() else []
    with atomic_path(TABLE) as temporary:
        pd.DataFrame([*known, result]).to_csv(temporary, index=False, lineterminator="\n")


def _run_all(scale: str) -> None:
    TABLE.unlink(missing_ok=True)
    running: list[subprocess.Popen[bytes]] = []
    for kind, layer, l1, changes in VARIANTS:
        if len(running) == 2:
            running.pop(0).wait()
        flags = [flag for change in changes for flag in ("--change", change)]
        command = [sys.executable, __file__, "--scale", scale, "--kind", kind]
        command += ["--layer", str(layer), "--l1", l1, *flags]
        running.append(subprocess.Popen(command))
    for process in running:
        process.wait()


if __name__ == "__main__":
    typer.run(main)
