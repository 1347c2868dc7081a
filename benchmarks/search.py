"""A search for the settings that each kind of dictionary trains best with.

    python benchmarks/search.py             after caching; about four hours on two cores

For every kind: learning rate × length of λ₁'s warm-up × λ₁, at two sites and with two amounts of
data, one pass each. The larger amount is tried only with the warm-up that did better with the
smaller one, on average over learning rates and sites; and, at three sites, also with a learning
rate that decays over nearly all of training instead of the last fifth. The best of all these are
tried once more on about a million tokens, at one site, and wider dictionaries on half of that. All
dictionaries of a site and amount of data see the same batches. They are measured on training
documents, on rows after those that they were trained on. The held-out documents of the evaluation
are not touched.

The two or three λ₁ of a setting trace a front on the plane of L0 and FVU. Settings are compared by
the mean FVU of their fronts over one range of L0, interpolated in log L0. A front that does not
cover the range is continued in a straight line. Writes one row for each dictionary to
benchmarks/search.csv, at once, so that a search that was stopped goes on; and one row for each
setting to benchmarks/settings.csv.
"""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
import torch
import typer

from transcoders.activations import ActivationCache
from transcoders.config import Dictionary, Kind, Training, load_scale
from transcoders.files import atomic_path
from transcoders.fronts import interpolate
from transcoders.layout import Layout
from transcoders.training import train_group

LAYERS = (12, 20)
MORE_LAYERS = (12, 20, 24)
CONTEXTS = (1032, 2580)
"""Rows to train on: 131 and 328 thousand tokens."""
MOST_CONTEXTS, MOST_LAYER = 8256, 20
"""Rows and site for the best settings: 1.05 million tokens."""
WIDE_CONTEXTS = 4128
"""Rows for wider dictionaries, at the same site: 524 thousand tokens."""
MEASURED_CONTEXTS = 224
L0 = (20.0, 60.0)
"""The range over which fronts are compared."""
LEARNING_RATES: dict[Kind, tuple[float, ...]] = {
    "transcoder": (1.5e-3, 3e-3, 6e-3, 12e-3, 24e-3),
    "mlp_out_sae": (1.5e-3, 3e-3, 6e-3),
    "mlp_in_sae": (1.5e-3, 3e-3, 6e-3),
}
"""Transcoders have two more, because they did best with the largest of the first three."""
L1_WARMUPS = (0.1, 0.8)
L1_COEFFICIENTS: dict[Kind, tuple[float, ...]] = {
    "transcoder": (1.5, 3.0, 6.0),
    "mlp_out_sae": (1.5, 3.0, 6.0),
    "mlp_in_sae": (0.8, 1.6, 3.2),
}
DECAYS = (0.2, 0.9)
"""Shares of training over which the learning rate decays."""
SLOWLY_DECAYING: dict[Kind, dict[float, tuple[float, ...]]] = {
    "transcoder": {
        3e-3: (3.0, 6.0), 6e-3: (3.0, 6.0),
        12e-3: (1.5, 3.0), 24e-3: (0.75, 1.5), 48e-3: (0.4, 0.8),
    },
    "mlp_out_sae": {1.5e-3: (3.0, 6.0), 3e-3: (1.5, 3.0, 6.0), 6e-3: (1.5, 3.0)},
    "mlp_in_sae": {1.5e-3: (1.6, 3.2), 3e-3: (1.6, 3.2), 6e-3: (0.8, 1.6)},
}  # fmt: skip
"""The λ₁ that were tried with each learning rate and the longer decay. L0 is larger with it."""
Settings = dict[Kind, dict[tuple[float, float, float], tuple[float, ...]]]
"""The λ₁ that are tried with a learning rate, warm-up and decay."""
BEST: Settings = {
    "transcoder": {
        (6e-3, 0.8, 0.9): (1.5, 3.0), (8e-3, 0.8, 0.9): (1.1, 2.2),
        (12e-3, 0.8, 0.9): (0.75, 1.5), (24e-3, 0.8, 0.9): (0.4, 0.8),
    },
    "mlp_out_sae": {
        (1.5e-3, 0.1, 0.2): (1.5, 3.0), (1.5e-3, 0.1, 0.9): (1.5, 3.0),
        (3e-3, 0.1, 0.2): (1.0, 2.0),
    },
}  # fmt: skip
"""What is tried with most data."""
WIDE_SAES: Settings = {
    "mlp_out_sae": {(1.5e-3, 0.1, 0.2): (1.8, 2.5), (3e-3, 0.1, 0.2): (1.8, 2.5)}
}
WIDE: dict[int, Settings] = {
    32: WIDE_SAES | {
        "transcoder": {
            (3e-3, 0.8, 0.9): (3.0, 6.0), (6e-3, 0.8, 0.9): (2.0, 4.0),
            (12e-3, 0.8, 0.9): (1.0, 2.0), (24e-3, 0.8, 0.9): (1.2, 2.4),
        },
    },
    16: WIDE_SAES | {
        "transcoder": {
            (6e-3, 0.8, 0.9): (2.0, 4.0), (12e-3, 0.8, 0.9): (1.0, 2.0),
            (24e-3, 0.8, 0.9): (0.6, 1.2),
        },
    },
    8: {"transcoder": {(12e-3, 0.8, 0.9): (1.0, 2.0), (24e-3, 0.8, 0.9): (0.6, 1.2)}},
}  # fmt: skip
"""What is tried with wider dictionaries, by their expansion, and with narrow ones beside them."""
EXPANSION = 8
"""That of all others."""
SETTING = ["learning_rate", "l1_warmup_fraction", "decay_fraction"]
FRONT = ["kind", "layer", "contexts", "expansion", *SETTING]
"""What the points of a front have in common."""
COLUMNS = [*FRONT, "l1_coefficient"]
SEARCH, SETTINGS = Path("benchmarks/search.csv"), Path("benchmarks/settings.csv")


class Run(NamedTuple):
    """One dictionary of the search: the first columns of its row."""

    kind: Kind
    layer: int
    contexts: int
    expansion: int
    learning_rate: float
    l1_warmup_fraction: float
    decay_fraction: float
    l1_coefficient: float


def main(
    scale: Annotated[str, typer.Option(help="Whose caches are read.")] = "overnight",
    caches: Annotated[Path | None, typer.Option(help="Their folder, if elsewhere.")] = None,
) -> None:
    """Train what is missing, one dictionary a process and thread, then compare the settings."""
    folder = caches or Layout(scale).activations("any").parent
    few, many = CONTEXTS
    found = _train_missing(_runs(few), scale, folder)
    better = compare(found[found["contexts"] == few]).groupby(["kind", "l1_warmup_fraction"])
    warmups = better["fvu_above_best"].mean().unstack().idxmin(axis=1)
    later = [*_runs(many), *_slowly_decaying(many)]
    later = [run for run in later if run.l1_warmup_fraction == warmups[run.kind]]
    _train_missing(later, scale, folder)
    last = [*_at_one_site(MOST_CONTEXTS, EXPANSION, BEST)]
    for expansion, wide in WIDE.items():
        last += _at_one_site(WIDE_CONTEXTS, expansion, wide)
    settings = compare(_train_missing(last, scale, folder))
    _write(SETTINGS, settings)
    print(settings.to_string(index=False))


def _runs(contexts: int) -> Iterator[Run]:
    """All dictionaries with the shorter decay that might be trained on so many rows."""
    for layer, kind in product(LAYERS, L1_COEFFICIENTS):
        for rate, warmup, l1 in product(LEARNING_RATES[kind], L1_WARMUPS, L1_COEFFICIENTS[kind]):
            # The larger the rate, the smaller is L0 at the same λ₁.
            suited = l1 / 2 if rate > 6e-3 else l1
            yield Run(kind, layer, contexts, EXPANSION, rate, warmup, DECAYS[0], suited)


def _slowly_decaying(contexts: int) -> Iterator[Run]:
    """All dictionaries with the longer decay that might be trained on so many rows."""
    for (kind, rates), layer, warmup in product(SLOWLY_DECAYING.items(), MORE_LAYERS, L1_WARMUPS):
        for rate, coefficients in rates.items():
            for l1 in coefficients:
                yield Run(kind, layer, contexts, EXPANSION, rate, warmup, DECAYS[1], l1)


def _at_one_site(contexts: int, expansion: int, settings: Settings) -> Iterator[Run]:
    """Dictionaries of the kinds that are compared, on more rows."""
    for kind, of_kind in settings.items():
        for setting, coefficients in of_kind.items():
            for l1 in coefficients:
                yield Run(kind, MOST_LAYER, contexts, expansion, *setting, l1)


def _train_missing(runs: Iterable[Run], scale: str, folder: Path) -> pd.DataFrame:
    """Train those that are not in the table yet, and return the whole table."""
    table = pd.read_csv(SEARCH) if SEARCH.exists() else pd.DataFrame(columns=COLUMNS)
    finished = set(table[COLUMNS].itertuples(index=False, name=None))
    tasks = [(run, scale, folder) for run in runs if tuple(run) not in finished]
    with get_context("spawn").Pool(2, maxtasksperchild=8) as pool:
        for number, row in enumerate(pool.imap_unordered(_train, tasks), start=1):
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
            _write(SEARCH, table.sort_values(COLUMNS))
            print(f"{number}/{len(tasks)}", row, flush=True)
    return table


def _train(task: tuple[Run, str, Path]) -> dict[str, object]:
    run, scale, folder = task
    torch.set_num_threads(1)
    settings = load_scale(Layout(scale).config)
    assert settings.training is not None
    site = next(site for site in settings.sites if site.layer == run.layer)
    row = settings.corpus.trained_positions
    activations = _opened(folder / site.name)
    seen = max(run.contexts, CONTEXTS[-1])
    measured = activations.read(seen * row, (seen + MEASURED_CONTEXTS) * row)
    activations.n_tokens = run.contexts * row  # what training reads, from the first

    entry = Dictionary(site=site, kind=run.kind, l1_coefficient=run.l1_coefficient, group="search")
    changes = {key: getattr(run, key) for key in ("expansion", *SETTING)} | {"epochs": 1}
    training = Training.model_validate({**settings.training.model_dump(), **changes})
    dictionary = train_group([entry], activations, training, seed=settings.seed)[0].dictionary
    x = getattr(measured, entry.traits.reads).float()
    y = getattr(measured, entry.traits.imitates).float()
    z = dictionary.encode(x)
    error, deviation = y - dictionary.decode(z, x), y - y.mean(dim=0)
    fired = (z > 0).sum(dim=0)
    return {
        **run._asdict(),
        "l0": round(fired.sum().item() / len(x), 2),
        "fvu": round((error.square().sum() / deviation.square().sum()).item(), 5),
        "never_active": round((fired == 0).double().mean().item(), 4),
    }


_opened = cache(ActivationCache)
"""Opened once by each process: every file is hashed then."""


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """One row a setting: FVU and dead features at equal L0, and its rank within its kind.

    The rank is that of the mean FVU, relative to the best setting of the same site, over the sites
    at which all were tried, with the larger amount of data. Settings not tried with it have none.
    """
    rows = []
    grid = np.linspace(*np.log(L0), 21)[None]
    for key, points in runs.groupby(FRONT):
        front = points.sort_values("l0")
        log_l0 = np.log(front["l0"].clip(lower=0.1).to_numpy())[None]
        means = {
            column: float(interpolate(grid, log_l0, front[column].to_numpy()[None]).mean())
            for column in ("fvu", "never_active")
        }
        ends = {"l0_low": front["l0"].min(), "l0_high": front["l0"].max()}
        rows.append(dict(zip(FRONT, key, strict=True)) | ends | means)
    table = pd.DataFrame(rows)
    best = table.groupby(["kind", "layer", "contexts", "expansion"])["fvu"].transform("min")
    table["fvu_above_best"] = table["fvu"] / best - 1
    ranked = table[table["layer"].isin(LAYERS) & (table["contexts"] == CONTEXTS[-1])]
    mean = ranked.groupby(["kind", *SETTING])["fvu_above_best"].mean()
    rank = mean.groupby("kind").rank(method="dense").astype("Int64").rename("rank")
    table = table.join(rank, on=["kind", *SETTING])
    return table.sort_values(["kind", "rank", "layer", "contexts", "expansion"]).round(4)


def _write(path: Path, table: pd.DataFrame) -> None:
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


if __name__ == "__main__":
    typer.run(main)
