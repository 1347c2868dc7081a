"""Activations that the model makes while dictionaries train: the cache's bytes, without a cache."""

from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from helpers_training import SITE, entry, saved, settings
from transcoders.activations import (
    ActivationCache,
    ActivationStream,
    cache_activations,
)
from transcoders.config import Activations, Corpus, Site
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.models import LanguageModel, load_model
from transcoders.training import train_group
from workflow.running import hashes_below

ROWS, LENGTH = 22, 8
N_TOKENS = ROWS * (LENGTH - 1)
# Shards of 8, 8 and 6 rows in batches of at most 3, so that passes end at shards.
CACHE = Activations(mode="cache", dtype="float16", batch_contexts=3, shard_contexts=8)
SOURCES = {"tokens": "f00d", "model": "cafe"}


class Both(NamedTuple):
    """One site's activations in both modes."""

    cache: ActivationCache
    stream: ActivationStream
    folder: Path
    """Of the stream."""
    rows: Rows
    model: LanguageModel
    corpus: Corpus


def measure(model, rows, folders, corpus):
    """Write statistics and no shards."""
    none = dict.fromkeys(folders, 0)
    cache_activations(model, rows, folders, CACHE, corpus, sources=SOURCES, cached_rows=none)


@pytest.fixture(scope="module")
def both(tiny_models, random_tokens, scale, tmp_path_factory):
    model = load_model(tiny_models["gpt2"])
    rows = Rows(random_tokens(ROWS, LENGTH), torch.arange(ROWS))
    corpus = scale.corpus.model_copy(update={"train_positions": "without_bos"})
    cached, streamed = (tmp_path_factory.mktemp(name) for name in ("cached", "streamed"))
    cache_activations(model, rows, {SITE: cached}, CACHE, corpus, sources=SOURCES)
    measure(model, rows, {SITE: streamed}, corpus)
    stream = ActivationStream(model, {SITE: streamed}, rows, CACHE, corpus, sources=SOURCES)
    return Both(ActivationCache(cached), stream, streamed, rows, model, corpus)


def reopen(both, **changes):
    arguments = {
        "model": both.model, "rows": both.rows, "folders": {SITE: both.folder},
        "activations": CACHE, "corpus": both.corpus, "sources": SOURCES,
    } | changes  # fmt: skip
    return ActivationStream(**arguments)


@given(ends=st.lists(st.integers(0, N_TOKENS), min_size=2, max_size=8, unique=True))
def test_every_range_has_the_same_bytes_in_any_order_of_reading(both, ends):
    for one, other in pairwise(ends):
        start, stop = sorted((one, other))
        streamed, cached = both.stream.read(start, stop), both.cache.read(start, stop)
        for ours, theirs in zip(streamed, cached, strict=True):
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs)


ENTRIES = [entry(kind) for kind in ("transcoder", "mlp_in_sae")]


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def together(request, tiny_models, both, tmp_path_factory):
    """The caches of three sites, and one stream of all of them, last layer first."""
    model, folder = load_model(tiny_models[request.param]), tmp_path_factory.mktemp("together")
    cached, streamed = (
        {Site(model="tiny", layer=layer): folder / how / str(layer) for layer in (2, 0, 1)}
        for how in ("cached", "streamed")
    )
    cache_activations(model, both.rows, cached, CACHE, both.corpus, sources=SOURCES)
    measure(model, both.rows, streamed, both.corpus)
    stream = ActivationStream(model, streamed, both.rows, CACHE, both.corpus, sources=SOURCES)
    return [ActivationCache(path) for path in cached.values()], stream


def entries_of(sites):
    return [
        one.model_copy(update={"site": Site(model="tiny", layer=layer)})
        for layer in sites
        for one in ENTRIES
    ]


# A buffer of 48 tokens begins and ends within passes of 21.
SHARED = settings(batch_tokens=16, buffer_tokens=48, epochs=2, normalize_activations="mean_norm")


@pytest.mark.parametrize("n_tokens", [N_TOKENS, 75])
def test_sites_trained_together_end_with_the_bytes_of_each_alone(together, monkeypatch, n_tokens):
    caches, stream = together
    for source in (*caches, stream):
        monkeypatch.setattr(source, "n_tokens", n_tokens)
    alone = [
        saved(one)
        for layer, cache in zip((2, 0, 1), caches, strict=True)
        for one in train_group(entries_of((layer,)), cache, SHARED, seed=3)
    ]
    joint = train_group(entries_of((2, 0, 1)), stream, SHARED, seed=3)
    assert [saved(one) for one in joint] == alone
    assert len({str(bytes_of) for bytes_of in alone}) == 6  # each site has its own


def test_one_pass_of_the_model_serves_all_sites_and_is_not_repeated_when_reading_on(
    both, passes, tmp_path
):
    folders = {Site(model="tiny", layer=layer): tmp_path / str(layer) for layer in (0, 2)}
    measure(both.model, both.rows, folders, both.corpus)
    stream, passes.done = reopen(both, folders=folders), 0
    for start in range(0, N_TOKENS, 7):
        found = stream.read(start, start + 7)
        assert {tensor.shape for tensor in found} == {(7, 2 * 32)}
    assert passes.done == 3 + 3 + 2  # batches of each shard


def test_a_prefix_has_the_bytes_of_the_whole_and_its_statistics(both, tmp_path):
    # 9 rows end within the second pass of the second shard, so two shards of three are needed.
    n_tokens = 9 * (LENGTH - 1)
    cache_activations(
        both.model, both.rows, {SITE: tmp_path}, CACHE, both.corpus, sources=SOURCES,
        cached_rows={SITE: 9},
    )  # fmt: skip
    assert len(list(tmp_path.glob("shard-*"))) == 2
    prefix, streamed = ActivationCache(tmp_path, n_tokens), reopen(both, n_tokens=n_tokens)
    training = settings(batch_tokens=16, buffer_tokens=48)
    trained = []
    for source in (prefix, streamed):
        assert source.n_tokens == n_tokens
        for found, whole in zip(source.statistics, both.cache.statistics, strict=True):
            assert torch.equal(found, whole)
        for found, whole in zip(
            source.read(0, n_tokens), both.cache.read(0, n_tokens), strict=True
        ):
            assert torch.equal(found, whole)
        trained.append([saved(one) for one in train_group(ENTRIES, source, training, seed=3)])
    assert trained[0] == trained[1]
    with pytest.raises(UserError, match=f"expected a cache of {N_TOKENS} tokens, as the scale"):
        ActivationCache(tmp_path, N_TOKENS)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sources": SOURCES | {"model": "other"}}, "expected sources"),
        ({"activations": CACHE.model_copy(update={"batch_contexts": 4})}, "batch_contexts 4"),
    ],
)
def test_statistics_of_something_else_are_refused(both, changes, expected):
    with pytest.raises(UserError) as caught:
        reopen(both, **changes)
    assert expected in str(caught.value)
    assert str(both.folder) in str(caught.value)


def test_a_stream_is_not_taken_for_a_cache(both):
    with pytest.raises(
        UserError, match="expected a cache of some tokens, as the scale file says, found 0"
    ):
        ActivationCache(both.folder)


def test_a_killed_measuring_goes_on_where_it_was(both, passes, tmp_path):
    # One site is cached in part and one not at all. The pass is killed in the third shard.
    def write(folder):
        folders = {Site(model="tiny", layer=layer): folder / str(layer) for layer in (0, 1)}
        cache_activations(
            both.model, both.rows, folders, CACHE, both.corpus, sources=SOURCES,
            cached_rows=dict(zip(folders, (0, 9), strict=True)),
        )  # fmt: skip

    with passes.killed_at(3 + 3 + 1):
        write(tmp_path / "killed")
    write(tmp_path / "killed")
    assert passes.done == 2
    write(tmp_path / "whole")
    assert hashes_below(tmp_path / "killed") == hashes_below(tmp_path / "whole")


def test_measuring_clears_away_the_shards_of_an_earlier_cache(both, tmp_path):
    cache_activations(both.model, both.rows, {SITE: tmp_path}, CACHE, both.corpus, sources=SOURCES)
    measure(both.model, both.rows, {SITE: tmp_path}, both.corpus)
    assert not list(tmp_path.glob("shard-*"))
    reopen(both, folders={SITE: tmp_path})
