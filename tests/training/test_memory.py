"""The bound on memory: no step takes more, and it is not far above."""

import weakref

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers_gradients import using
from helpers_training import ONE_OF_EACH, random_cache, settings, trainer_of
from transcoders.dictionaries import SparseDictionary
from transcoders.dictionaries.entries import CHUNK_ENTRIES
from transcoders.dictionaries.loss import loss_and_gradients
from transcoders.training import memory
from transcoders.training.adam import BLOCK_ENTRIES


class LiveBytes(TorchDispatchMode):
    """Adds up the memory of all tensors that operations have made and that are still there."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for given in tree_leaves((args, kwargs)):  # views of what was there before are no news
            if isinstance(given, Tensor):
                self._known.add(given.untyped_storage()._cdata)
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage):
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self._known.discard(key)
        self.now -= size


@pytest.mark.parametrize("kind", [*ONE_OF_EACH, "skip_transcoder"])
@pytest.mark.parametrize("sparse_below", [0, 0.5])
def test_no_step_takes_more_than_the_bound(kind, sparse_below, monkeypatch):
    # Blocks small beside the rest, as a GPU's are at the paper's sizes; and its way to gradients.
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 2**14)
    monkeypatch.setitem(BLOCK_ENTRIES, "cpu", 2**12)
    training = settings(expansion=16, batch_tokens=256, sparse_below_density=sparse_below)
    cache = random_cache(n_tokens=1024, d_model=32)
    trainer = trainer_of(kind, cache, training, l1_coefficient=2.0)
    bound = memory.step_bytes(32, 512, training, "cpu")
    skip = 8 * 32 * 32 * 4 if kind == "skip_transcoder" else 0
    for way in ("sparse", "sparse in PyTorch"):
        trainer.density = 0.0
        for step in range(2):
            with using(way), LiveBytes() as live:
                trainer.step(step, cache.read(256 * step, 256 * step + 256))
            assert live.peak <= bound + skip


def test_the_bound_holds_at_the_size_of_the_papers_largest_dictionaries(monkeypatch):
    # Tensors that have sizes and no numbers, so that 2,048 -> 65,536 costs no memory here.
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", CHUNK_ENTRIES["cuda"])
    d_model, n_features, n_tokens = 2048, 65_536, 4096
    training = settings(expansion=32, batch_tokens=n_tokens, sparse_below_density=0.0175)
    with FakeTensorMode():
        dictionary = SparseDictionary(
            "transcoder",
            W_enc=torch.empty(n_features, d_model).T,
            b_enc=torch.empty(n_features),
            W_dec=torch.empty(n_features, d_model),
            b_dec=torch.empty(d_model),
        )
        batch = torch.empty(n_tokens, d_model)
        with LiveBytes() as live:
            loss_and_gradients(dictionary, batch, batch)
    # All features of the batch are held, and the gradients of both matrices: 1.07 GB each.
    assert 2 * 1.07e9 < live.peak <= memory.step_bytes(d_model, n_features, training) < 5e9
    kept = memory.dictionary_bytes(d_model, n_features)
    assert kept == 3 * 4 * sum(parameter.numel() for parameter in dictionary.parameters())
