"""The cache holds what the model gives, survives being killed, and notices any damage."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from helpers_damage import EVERY_DAMAGE
from transcoders.activations import ActivationCache, cache_activations
from transcoders.config import Activations, Site, cache_bytes
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.models import load_model, mlp_activations
from workflow.running import hashes_below

ROWS, LENGTH = 10, 8
LAYERS = [0, 2]
CACHED = {0: ROWS, 1: 0, 2: ROWS}
"""Rows that are cached, by layer: of layer 1, only the statistics are wanted."""
# Shards of 4, 4 and 2 rows in batches of at most 3: 2 + 2 + 1 passes of the model.
SETTINGS = Activations(mode="cache", dtype="float16", batch_contexts=3, shard_contexts=4)
PASSES_BY_SHARD = [2, 2, 1]


@pytest.fixture(scope="module")
def model(tiny_models):
    return load_model(tiny_models["gpt_neox"])


@pytest.fixture(scope="module")
def rows(random_tokens):
    return Rows(random_tokens(ROWS, LENGTH), torch.arange(ROWS))


@pytest.fixture(scope="module")
def write(model, rows, scale):
    """Write caches under a folder; keyword arguments change how."""

    def run(folder, *, positions="without_bos", tokens_hash="f00d", **changes):
        folders = {Site(model="tiny", layer=n): folder / f"layer{n}" for n in CACHED}
        cache_activations(
            model,
            rows,
            folders,
            SETTINGS.model_copy(update=changes),
            scale.corpus.model_copy(update={"train_positions": positions}),
            sources={"tokens": tokens_hash},
            cached_rows={site: CACHED[site.layer] for site in folders},
        )
        return {site.layer: folder for site, folder in folders.items()}

    return run


@pytest.fixture(scope="module")
def written(write, tmp_path_factory):
    """The caches that an undisturbed run writes."""
    return write(tmp_path_factory.mktemp("activations"))


def same_files(caches, expected):
    return all(hashes_below(caches[layer]) == hashes_below(expected[layer]) for layer in CACHED)


@pytest.mark.parametrize(
    ("positions", "first", "dtype"), [("all", 0, "float16"), ("without_bos", 1, "bfloat16")]
)
def test_cache_holds_the_models_activations_rounded_in_the_order_of_the_rows(
    write, model, rows, tmp_path, *, positions, first, dtype
):
    # The same batches as the cache's: another batch size may round the last bit differently.
    batches = [part for shard in rows.tokens.split(4) for part in shard.split(3)]
    passes = [mlp_activations(model, batch, LAYERS) for batch in batches]
    caches = write(tmp_path, positions=positions, dtype=dtype)
    for layer in LAYERS:
        cache = ActivationCache(caches[layer])
        for name, found in cache.read(0, cache.n_tokens)._asdict().items():
            expected = torch.cat([getattr(passed[layer], name) for passed in passes])
            expected = expected[:, first:].flatten(0, 1).to(getattr(torch, dtype))
            assert torch.equal(found, expected)


def test_statistics_are_those_of_the_cached_tensors(written):
    cache = ActivationCache(written[2])
    both = [tensor.double() for tensor in cache.read(0, cache.n_tokens)]
    means = [t.mean(dim=0) for t in both] + [t.norm(dim=1).mean() for t in both]
    for found, expected in zip(cache.statistics, means, strict=True):
        # Summed in float64 and stored in float32: one rounding of at most 6e-8, relative, and
        # for norms as much again where each is computed.
        torch.testing.assert_close(found.double(), expected, rtol=2e-7, atol=2e-8)


@pytest.mark.parametrize("killed_at", range(1, sum(PASSES_BY_SHARD) + 1))
def test_a_killed_run_continues_after_the_last_complete_shard(
    write, written, passes, tmp_path, killed_at
):
    with passes.killed_at(killed_at):
        write(tmp_path)
    kept = sum(sum(PASSES_BY_SHARD[: n + 1]) < killed_at for n in range(3))
    for layer in LAYERS:
        with pytest.raises(UserError):  # what is unfinished cannot be opened
            ActivationCache(tmp_path / f"layer{layer}")

    caches = write(tmp_path)
    assert passes.done == sum(PASSES_BY_SHARD[kept:])
    assert same_files(caches, written)


def test_a_killed_run_that_lacks_a_shard_starts_over(write, written, passes, tmp_path):
    with passes.killed_at(5):
        write(tmp_path)
    (tmp_path / "layer2/shard-00001.safetensors").unlink()
    (tmp_path / "layer2/.shard-00001.partial.safetensors").write_bytes(b"half")
    assert same_files(write(tmp_path), written)
    assert passes.done == sum(PASSES_BY_SHARD)


@pytest.mark.parametrize(
    "change",
    [{"tokens_hash": "beef"}, {"shard_contexts": ROWS}],  # one shard: the second on disk must go
    ids=str,
)
def test_an_unfinished_cache_of_something_else_is_not_continued(write, passes, tmp_path, change):
    with passes.killed_at(5):  # after two shards
        write(tmp_path / "killed")
    after_kill = write(tmp_path / "killed", **change)
    assert same_files(after_kill, write(tmp_path / "fresh", **change))


@EVERY_DAMAGE
@pytest.mark.parametrize("name", ["shard-00002.safetensors", "statistics.safetensors"])
def test_a_damaged_file_is_named(written, tmp_path, name, damage):
    copied = shutil.copytree(written[2], tmp_path / "copied")
    damage(copied / name)
    with pytest.raises(UserError, match=str(copied / name)):
        ActivationCache(copied)


def test_an_activation_too_large_for_float16_is_refused(write, passes, tmp_path):
    passes.factor = 1e6
    with pytest.raises(UserError, match="bfloat16"):
        write(tmp_path)
    assert not list(tmp_path.rglob("shard-*"))


def test_only_the_disk_that_is_left_to_fill_must_be_free(write, passes, tmp_path, monkeypatch):
    with passes.killed_at(5):  # two shards of three are there
        write(tmp_path)
    left = cache_bytes(2 * (LENGTH - 1), 32, len(LAYERS))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=left // 4))
    with pytest.raises(UserError, match="disk"):
        write(tmp_path)
    assert passes.done == 0
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2 * left))
    write(tmp_path)


@given(data=st.data())
def test_reading_across_shards_equals_reading_their_concatenation(written, data):
    cache = ActivationCache(written[2])
    start = data.draw(st.integers(0, cache.n_tokens - 1))
    stop = data.draw(st.integers(start + 1, cache.n_tokens))
    shards = [load_file(path) for path in sorted(written[2].glob("shard-*"))]
    for name, found in cache.read(start, stop)._asdict().items():
        assert torch.equal(found, torch.cat([shard[name] for shard in shards])[start:stop])
