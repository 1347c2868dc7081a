"""The order in which training sees the activations, and what is read when."""

import threading
import weakref
from itertools import chain

import pytest
import torch

from helpers_training import numbered_cache, settings
from transcoders.models import MLPActivations
from transcoders.training import batches


def small(**changes):
    """Batches of 10 tokens, 4 in a buffer, in 3 epochs."""
    return settings(**{"batch_tokens": 10, "buffer_tokens": 40, "epochs": 3} | changes)


def token_numbers(source, *, seed=0, first_step=0, **changes):
    """The positions in the cache of the tokens of every batch."""
    numbers = []
    for batch in batches(source, small(**changes), seed=seed, first_step=first_step):
        assert torch.equal(batch.mlp_in, -batch.mlp_out)  # inputs stay with their outputs
        numbers.append(batch.mlp_in[:, 0].int().tolist())
    return numbers


@pytest.mark.parametrize("n_tokens", [10, 107])
@pytest.mark.parametrize("buffer_tokens", [1, 35, 1000])
def test_every_epoch_is_a_permutation_of_all_full_batches(n_tokens, buffer_tokens):
    numbers = token_numbers(numbered_cache(n_tokens), buffer_tokens=buffer_tokens)
    per_epoch = n_tokens // 10
    assert [len(batch) for batch in numbers] == [10] * 3 * per_epoch
    for epoch in range(3):
        of_epoch = list(chain(*numbers[epoch * per_epoch : (epoch + 1) * per_epoch]))
        assert sorted(of_epoch) == list(range(per_epoch * 10))


def test_tokens_mix_within_a_buffer_and_not_beyond():
    numbers, others = (token_numbers(numbered_cache(100), epochs=1, seed=seed) for seed in (0, 1))
    assert numbers != others
    for start, stop in ((0, 4), (4, 8), (8, 10)):  # buffers of 4 batches: 0-39, 40-79, 80-99
        of_buffer = list(chain(*numbers[start:stop]))
        assert sorted(of_buffer) == list(range(start * 10, stop * 10))
        assert of_buffer != sorted(of_buffer)
        assert all(max(batch) - min(batch) >= 10 for batch in numbers[start:stop])


class WatchedSource:
    """Records what is read and when, and how many buffers read before are still in memory."""

    def __init__(self, n_tokens, *, read_ahead=True):
        self.n_tokens, self.read_ahead = n_tokens, read_ahead
        self.reads: list[tuple[int, int]] = []
        self.in_memory: list[int] = []
        self.has_read = threading.Condition()
        self._given: list[weakref.ref[torch.Tensor]] = []

    def read(self, start, stop):
        self.in_memory.append(sum(given() is not None for given in self._given))
        read = numbered_cache(self.n_tokens).read(start, stop)
        tokens = MLPActivations(*(tensor.clone() for tensor in read))
        self._given.append(weakref.ref(tokens.mlp_in))
        with self.has_read:
            self.reads.append((start, stop))
            self.has_read.notify_all()
        return tokens

    def wait_for(self, n_reads):
        with self.has_read:
            # 20 seconds for another thread to do what takes it microseconds
            return self.has_read.wait_for(lambda: len(self.reads) >= n_reads, 20)


@pytest.mark.parametrize(("read_ahead", "ahead"), [(True, 1), (False, 0)])
def test_a_disk_is_read_one_buffer_ahead_and_what_is_computed_when_it_is_needed(read_ahead, ahead):
    source = WatchedSource(100, read_ahead=read_ahead)
    stream = batches(source, small(epochs=2), seed=0)
    for buffers_used, n_batches in enumerate((4, 4, 2, 4, 4, 2), start=1):
        next(stream)
        n_expected = min(buffers_used + ahead, 6)
        assert source.wait_for(n_expected)  # though only one batch of the buffer was taken
        for _ in range(n_batches - 1):
            next(stream)
        assert len(source.reads) == n_expected  # and no buffer further
    assert list(stream) == []
    assert source.reads == [(0, 40), (40, 80), (80, 100)] * 2
    assert max(source.in_memory) <= ahead  # beside the one that is read


@pytest.mark.parametrize("n_tokens", [10, 107])
@pytest.mark.parametrize("buffer_batches", [1, 3, 100])
def test_starting_at_any_step_gives_the_tail_of_the_whole_and_reads_no_more(
    n_tokens, buffer_batches
):
    source = WatchedSource(n_tokens)
    whole = token_numbers(source, buffer_tokens=10 * buffer_batches)
    per_epoch, reads = n_tokens // 10, source.reads
    for first_step in range(len(whole) + 1):
        source = WatchedSource(n_tokens)
        tail = token_numbers(source, buffer_tokens=10 * buffer_batches, first_step=first_step)
        assert tail == whole[first_step:]
        epoch, in_epoch = divmod(first_step, per_epoch)
        assert source.reads == reads[epoch * len(reads) // 3 + in_epoch // buffer_batches :]
