"""What a sparse step holds in memory."""

import weakref

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers_gradients import WAYS, problem
from helpers_training import ONE_OF_EACH
from transcoders.config import TRAITS
from transcoders.dictionaries.entries import CHUNK_ENTRIES


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


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("kind", ONE_OF_EACH)
def test_the_sparse_way_never_holds_all_features_of_a_batch(kind, way, monkeypatch):
    monkeypatch.setitem(CHUNK_ENTRIES, "cpu", 1024)
    p = problem(kind, 0.02, n_tokens=256, d_in=4, d_out=4, n_features=512)
    p.dictionary.k = 8 if TRAITS[kind].is_topk else None
    with LiveBytes() as live:
        p.gradients(way)
    assert live.peak < 256 * 512 * 4 / 2
