"""Dense and sparse training to the same loss: a real dictionary, trained both ways.

    python benchmarks/training_curves.py        after a run; some minutes at laptop scale

It trains the headline transcoder of a site on the site's cached activations. Both ways use the same
code and settings but one: `sparse_below_density` is 0 (every step is dense), or the scale's value.
The two take turns at every step, on the same batch, so that a busy machine slows both. The time of
each includes its own steps and every fetch of a batch. Writes benchmarks/training_curves.csv, with
the means over a few steps in each row, and draws it as benchmarks/training_curves.png.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import pandas as pd
import torch
import typer
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from transcoders.activations import ActivationCache
from transcoders.config import Dictionary, Training, load_scale
from transcoders.files import atomic_path
from transcoders.layout import Layout
from transcoders.models import MLPActivations
from transcoders.plots import STYLE
from transcoders.process import prepare_process
from transcoders.progress import progress_bar
from transcoders.training import Trainer, batches, steps_per_epoch
from transcoders.training.batches import SiteActivations

LOG_EVERY_STEPS = 25
LOOKS: dict[str, dict[str, Any]] = {  # Okabe and Ito's colours; one curve shows under the other
    "dense": {"color": "#E69F00", "linewidth": 4.0, "label": "all features (dense)"},
    "sparse": {"color": "#0072B2", "linewidth": 1.3, "label": "active features only (sparse)"},
}


def main(
    scale: Annotated[str, typer.Option()] = "laptop",
    layer: int = 12,
    steps: Annotated[int | None, typer.Option(help="Stop after so many; all by default.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the table and the figure go.")] = Path(
        __file__
    ).parent,
) -> None:
    layout = Layout(scale)
    settings = load_scale(layout.config)
    resources = settings.resources.train
    prepare_process(resources.threads, resources, keep_freed_memory=True)
    entry = next(
        entry
        for entry in settings.dictionaries
        if entry.kind == "transcoder" and entry.headline and entry.site.layer == layer
    )
    cache = ActivationCache(layout.activations(entry.site.name))
    training = settings.training_of(settings.group(entry.group))
    curves = train_both(entry, cache, training, seed=settings.seed, steps=steps)
    with atomic_path(folder / "training_curves.csv") as temporary:
        curves.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")
    with atomic_path(folder / "training_curves.png") as temporary, plt.style.context(STYLE):
        curves_figure(curves).savefig(temporary, metadata={"Software": None})
    last = curves.groupby("run").tail(1).set_index("run")
    print(last.to_string())
    ratio = last.loc["dense", "seconds"] / last.loc["sparse", "seconds"]
    print(f"{entry.name}: dense takes {ratio:.2f} times as long")


def train_both(
    entry: Dictionary,
    source: SiteActivations,
    training: Training,
    *,
    seed: int,
    steps: int | None = None,
) -> pd.DataFrame:
    """Both curves: columns run, step, tokens, seconds, loss, l0."""
    n_steps = steps_per_epoch(source.n_tokens, training) * training.epochs
    trainers, seconds = {}, {}
    for run, below in (("dense", 0.0), ("sparse", training.sparse_below_density)):
        changes = {"sparse_below_density": below, "log_every_steps": LOG_EVERY_STEPS}
        changed = training.model_copy(update=changes)
        trainers[run] = Trainer(entry, source.statistics, changed, n_steps, seed, "cpu")
        seconds[run] = 0.0
    rows = []
    stream = _timed(batches(source, training, seed=seed))
    n_steps = min(steps or n_steps, n_steps)
    with progress_bar(n_steps * training.batch_tokens, "training") as bar:
        for step, (batch, fetching) in zip(range(n_steps), stream, strict=False):
            for run in list(trainers) if step % 2 else reversed(trainers):
                start = time.perf_counter()
                trainers[run].step(step, batch)
                seconds[run] += fetching + time.perf_counter() - start
            if trainers["dense"].log and trainers["dense"].log[-1]["step"] == step + 1:
                for run, trainer in trainers.items():
                    row = {key: trainer.log[-1][key] for key in ("step", "tokens", "loss", "l0")}
                    rows.append({"run": run, **row, "seconds": seconds[run]})
            bar.update(training.batch_tokens)
    columns = ["run", "step", "tokens", "seconds", "loss", "l0"]
    return pd.DataFrame(rows, columns=columns).sort_values(["run", "step"], ignore_index=True)


def _timed(stream: Iterator[MLPActivations]) -> Iterator[tuple[MLPActivations, float]]:
    """Batches in float32, each with the seconds that it took to get."""
    start = time.perf_counter()
    for batch in stream:
        converted = MLPActivations(*(tensor.to(torch.float32) for tensor in batch))
        yield converted, time.perf_counter() - start
        start = time.perf_counter()


def curves_figure(curves: pd.DataFrame) -> Figure:
    """Loss against tokens seen, and against the time that training took."""
    with plt.style.context(STYLE):
        figure, panels = plt.subplots(1, 2, figsize=(7.2, 3.2), sharey=True)
        for panel, column, label in (
            (panels[0], "tokens", "tokens seen"),
            (panels[1], "seconds", "time of training (s)"),
        ):
            for run, look in LOOKS.items():
                rows = curves[curves["run"] == run]
                panel.plot(rows[column], rows["loss"], **look)
            panel.set_xlabel(label)
            panel.set_xlim(left=0)
        panels[0].xaxis.set_major_formatter(EngFormatter(sep=""))
        panels[0].set_ylabel("training loss (mean per token)")
        panels[1].legend()
    return figure


if __name__ == "__main__":
    typer.run(main)
