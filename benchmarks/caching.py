"""How fast activations are cached, as a share of a bare forward pass of the Hugging Face model.

    make benchmark        or        python benchmarks/caching.py [--scale laptop]

Both run in this process on the same tokens, alternately, and each goes first in every second round.
The bare model is truncated after the deepest site and computes no logits. Caching writes every site
to disk, checksums and statistics included. Writes benchmarks/caching.json; `of_bare_forward` is the
median over rounds of bare time / caching time.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer
from transformers import AutoConfig, AutoModelForCausalLM

from transcoders.activations import cache_activations
from transcoders.config import load_scale
from transcoders.corpus import Rows, load_rows
from transcoders.files import write_json
from transcoders.layout import Layout
from transcoders.models import load_model

ROUNDS = 10


def main(scale: Annotated[str, typer.Option()] = "laptop", contexts: int = 128) -> None:
    layout = Layout(scale)
    settings = load_scale(layout.config)
    name = next(iter(settings.models))
    sites = settings.sites_of(name)
    torch.set_num_threads(settings.resources.cache_activations.threads)
    rows = load_rows(layout.tokens(name), "train")

    model = load_model(layout.model(name))
    config = AutoConfig.from_pretrained(layout.model(name), num_hidden_layers=sites[-1].layer + 1)
    bare = AutoModelForCausalLM.from_pretrained(
        layout.model(name), config=config, dtype=torch.float32
    ).eval()

    def run_bare(chosen: Rows) -> None:
        with torch.inference_mode():
            for batch in chosen.tokens.split(settings.activations.batch_contexts):
                bare.base_model(input_ids=batch, use_cache=False)

    def run_caching(chosen: Rows) -> None:
        folders = {site: Path(tempfile.mkdtemp(dir=scratch)) for site in sites}
        cache_activations(model, chosen, folders, settings.activations, settings.corpus, sources={})

    seconds: dict[str, list[float]] = {"bare": [], "caching": []}
    with tempfile.TemporaryDirectory(dir=layout.results) as scratch:
        for number in range(ROUNDS + 1):
            chosen = Rows(*(tensor[number * contexts :][:contexts] for tensor in rows))
            runs = [("bare", run_bare), ("caching", run_caching)]
            for what, run in runs if number % 2 else reversed(runs):
                start = time.perf_counter()
                run(chosen)
                if number:  # the first round warms up
                    seconds[what].append(time.perf_counter() - start)

    ratios = [a / b for a, b in zip(seconds["bare"], seconds["caching"], strict=True)]
    n_tokens = contexts * settings.corpus.context_length
    record = {
        "of_bare_forward": round(statistics.median(ratios), 3),
        "of_bare_forward_by_round": [round(ratio, 3) for ratio in ratios],
        "tokens_per_second_bare": round(n_tokens / statistics.median(seconds["bare"])),
        "tokens_per_second_caching": round(n_tokens / statistics.median(seconds["caching"])),
        "scale": scale,
        "sites": [site.name for site in sites],
        "threads": settings.resources.cache_activations.threads,
        "command": f"python benchmarks/caching.py --scale {scale}",
    }
    write_json(Path("benchmarks/caching.json"), record)
    print(record)


if __name__ == "__main__":
    typer.run(main)
