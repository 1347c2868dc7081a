"""Activations that the model makes while dictionaries train: the cache's bytes, without a cache."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers_training import entry, saved, settings
from transcoders.activations import ActivationCache, ActivationStream, cache_activations
from transcoders.config import Activations, Site
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.models import load_model
from transcoders.training import train_group

ROWS, LENGTH, LAYERS = 22, 8, (2, 0, 1)
N_TOKENS = ROWS * (LENGTH - 1)
# Shards of 8, 8 and 6 rows in batches of at most 3, so that passes end at shards.
CACHE = Activations(mode="cache", dtype="float16", batch_contexts=3, shard_contexts=8)
SOURCES = {"tokens": "f00d", "model": "cafe"}


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def made(request, tiny_models, random_tokens, scale, tmp_path_factory):
    """Three sites of a model, last layer first: their caches, and one stream of all of them."""
    model, folder = load_model(tiny_models[request.param]), tmp_path_factory.mktemp("made")
    rows = Rows(random_tokens(ROWS, LENGTH), torch.arange(ROWS))
    corpus = scale.corpus.model_copy(update={"train_positions": "without_bos"})
    sites = [Site(model="tiny", layer=layer) for layer in LAYERS]
    cached, streamed = ({s: folder / how / s.name for s in sites} for how in ("cached", "streamed"))
    cache_activations(model, rows, cached, CACHE, corpus, sources=SOURCES)
    none = dict.fromkeys(streamed, 0)  # statistics and no shards
    cache_activations(model, rows, streamed, CACHE, corpus, sources=SOURCES, cached_rows=none)
    caches = [ActivationCache(path) for path in cached.values()]
    opened = {"model": model, "rows": rows, "folders": streamed, "activations": CACHE}
    opened |= {"corpus": corpus, "sources": SOURCES}  # what a stream is opened with
    return SimpleNamespace(caches=caches, opened=opened, stream=ActivationStream(**opened))


def reopen(made, **changes):
    return ActivationStream(**made.opened | changes)


@given(ends=st.lists(st.integers(0, N_TOKENS), min_size=2, max_size=8, unique=True))
def test_every_range_has_the_same_bytes_in_any_order_of_reading(made, ends):
    for one, other in pairwise(ends):
        start, stop = sorted((one, other))
        cached = (cache.read(start, stop) for cache in made.caches)
        for ours, *theirs in zip(made.stream.read(start, stop), *cached, strict=True):
            assert torch.equal(ours, torch.cat(theirs, dim=1))


def entries_of(*layers):
    return [
        entry(kind).model_copy(update={"site": Site(model="tiny", layer=layer)})
        for layer in layers
        for kind in ("transcoder", "mlp_in_sae")
    ]


# A buffer of 48 tokens begins and ends within passes of 21.
TRAINING = settings(batch_tokens=16, buffer_tokens=48, epochs=2, normalize_activations="mean_norm")


@pytest.mark.parametrize("n_tokens", [N_TOKENS, 75])
def test_sites_trained_together_end_with_the_bytes_of_each_alone(made, monkeypatch, n_tokens):
    for source in (*made.caches, made.stream):
        monkeypatch.setattr(source, "n_tokens", n_tokens)
    alone = [
        saved(one)
        for layer, cache in zip(LAYERS, made.caches, strict=True)
        for one in train_group(entries_of(layer), cache, TRAINING, seed=3)
    ]
    joint = train_group(entries_of(*LAYERS), made.stream, TRAINING, seed=3)
    assert [saved(one) for one in joint] == alone
    assert len({str(bytes_of) for bytes_of in alone}) == 6  # each site has its own


def test_one_pass_of_the_model_serves_all_sites_and_is_not_repeated_when_reading_on(made, passes):
    stream = reopen(made)
    for start in range(0, N_TOKENS, 7):
        stream.read(start, start + 7)
    assert passes.done == 3 + 3 + 2  # batches of each shard


def test_a_prefix_has_the_bytes_of_the_whole_and_its_statistics(made, tmp_path):
    # 9 rows end within the second pass of the second shard, so two shards of three are needed.
    folders, n_tokens = made.opened["folders"], 9 * (LENGTH - 1)
    site = next(iter(folders))
    cache_activations(**made.opened | {"folders": {site: tmp_path}}, cached_rows={site: 9})
    assert len(list(tmp_path.glob("shard-*"))) == 2
    streamed = reopen(made, folders={site: folders[site]}, n_tokens=n_tokens)
    for source in (ActivationCache(tmp_path, n_tokens), streamed):
        found = (*source.statistics, *source.read(0, n_tokens))
        whole = (*made.caches[0].statistics, *made.caches[0].read(0, n_tokens))
        assert all(map(torch.equal, found, whole))
    with pytest.raises(UserError, match=f"a cache of {N_TOKENS} tokens, as the scale file says"):
        ActivationCache(tmp_path, N_TOKENS)
    with pytest.raises(UserError, match="a cache of some tokens, as the scale file says, found 0"):
        ActivationCache(folders[site])  # statistics of a stream are no cache


def test_statistics_of_something_else_are_refused(made):
    folder = next(iter(made.opened["folders"].values()))
    with pytest.raises(UserError, match=f"{folder}.*expected sources"):
        reopen(made, sources=SOURCES | {"model": "other"})
    with pytest.raises(UserError, match=f"{folder}.*batch_contexts 4"):
        reopen(made, activations=CACHE.model_copy(update={"batch_contexts": 4}))
