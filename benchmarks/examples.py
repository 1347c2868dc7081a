"""How much longer a forward pass takes when every feature's examples are collected.

    make benchmark        or        python benchmarks/examples.py [--scale laptop]

Both run in this process on the same held-out rows, alternately, and each goes first in every second
round. One is the model up to the rated site with its transcoder's encoder. The other also collects
the examples. Writes benchmarks/examples.json: `over_forward_and_encode` is the ratio of the total
times, `kept_bytes` the size of what is kept at the end.
"""

import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from transcoders.config import load_scale
from transcoders.corpus import held_out_rows
from transcoders.dictionaries import SparseDictionary
from transcoders.files import write_json
from transcoders.interpretability.examples import FeatureExamples
from transcoders.layout import Layout
from transcoders.models import load_model, mlp_activations

ROUNDS = 8


def main(
    scale: Annotated[str, typer.Option()] = "laptop", contexts: int = 504, out: Path | None = None
) -> None:
    layout = Layout(scale)
    settings = load_scale(layout.config)
    wanted = settings.interpretability
    assert wanted is not None
    site, entry = wanted.rated_site, settings.rated("transcoder")
    threads = settings.resources.gather_examples.threads
    torch.set_num_threads(threads)
    rows = held_out_rows(
        layout.documents, settings.corpus, settings.model(site.model), layout.model(site.model),
        contexts, seed=settings.seed,
    ).tokens  # fmt: skip
    model = load_model(layout.model(site.model))
    dictionary = SparseDictionary.from_pretrained(layout.dictionary(entry.name))
    first = settings.corpus.first_train_position
    found = FeatureExamples(
        dictionary.n_features,
        n_top=wanted.top_examples,
        n_sampled=wanted.sampled_examples,
        seed=settings.seed,
    )

    def look(numbers: torch.Tensor, *, keep: bool) -> float:
        start = time.perf_counter()
        for batch in numbers.split(wanted.batch_contexts):
            read = mlp_activations(model, rows[batch], [site.layer])[site.layer].mlp_in[:, first:]
            z = dictionary.encode(read)
            if keep:
                found.add(z, batch, first_position=first)
        return time.perf_counter() - start

    look(torch.arange(wanted.batch_contexts), keep=False)  # warms up
    bare, kept = [], []
    for number, chosen in enumerate(torch.arange(len(rows)).chunk(ROUNDS)):
        for keep in (False, True) if number % 2 else (True, False):
            (kept if keep else bare).append(look(chosen, keep=keep))
    start = time.perf_counter()
    found.examples(), found.features()
    kept[-1] += time.perf_counter() - start
    record = {
        "over_forward_and_encode": round(sum(kept) / sum(bare), 3),
        "by_round": [round(a / b, 3) for a, b in zip(kept, bare, strict=True)],
        "tokens": rows.numel(),
        "features": dictionary.n_features,
        "kept_bytes": found.n_bytes,
        "scale": scale,
        "threads": threads,
        "command": f"python benchmarks/examples.py --scale {scale}",
    }
    write_json(out or Path("benchmarks/examples.json"), record)
    print(record)


if __name__ == "__main__":
    typer.run(main)
