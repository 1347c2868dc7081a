"""The order in which training sees the activations, and what is read when."""

import threading
import weakref
from itertools import chain

import pytest
import torch

from helpers_training import numbered_cache, settings
from transcoders.models import MLPActivations
from transcoders.training import batches, steps_per_epoch

SECONDS = 20  # for another thread to do what takes it microseconds


def small(**changes):
    """Batches of 10 tokens, 4 in a buffer, in 3 epochs."""
    return settings(**{"batch_tokens": 10, "buffer_tokens": 40, "epochs": 3} | changes)


def token_numbers(n_tokens, *, seed=0, first_step=0, **changes):
    """The positions in the cache of the tokens of every batch."""
    numbers = []
    cache = numbered_cache(n_tokens)
    for batch in batches(cache, small(**changes), seed=seed, first_step=first_step):
        assert torch.equal(batch.mlp_in, -batch.mlp_out)  # inputs stay with their outputs
        numbers.append(batch.mlp_in[:, 0].int().tolist())
    return numbers


@pytest.mark.parametrize("n_tokens", [10, 100, 107])
@pytest.mark.parametrize("buffer_tokens", [1, 35, 1000])
def test_every_epoch_is_a_permutation_of_all_full_batches(n_tokens, buffer_tokens):
    numbers = token_numbers(n_tokens, buffer_tokens=buffer_tokens)
    per_epoch = n_tokens // 10
    assert per_epoch == steps_per_epoch(n_tokens, small())
    assert len(numbers) == 3 * per_epoch
    assert all(len(batch) == 10 for batch in numbers)
    for epoch in range(3):
        of_epoch = list(chain(*numbers[epoch * per_epoch : (epoch + 1) * per_epoch]))
        assert sorted(of_epoch) == list(range(per_epoch * 10))


def test_another_seed_gives_another_order():
    assert token_numbers(100, seed=1) != token_numbers(100, seed=2)


def test_tokens_mix_within_a_buffer_and_not_beyond():
    numbers = token_numbers(100, epochs=1)  # buffers of 4 batches: 0-39, 40-79, 80-99
    for start, stop in ((0, 4), (4, 8), (8, 10)):
        of_buffer = list(chain(*numbers[start:stop]))
        assert sorted(of_buffer) == list(range(start * 10, stop * 10))
        assert of_buffer != sorted(of_buffer)
        assert all(max(batch) - min(batch) >= 10 for batch in numbers[start:stop])


@pytest.mark.parametrize("n_tokens", [10, 107])
@pytest.mark.parametrize("buffer_tokens", [1, 35, 1000])
def test_starting_at_any_step_gives_the_tail_of_the_whole(n_tokens, buffer_tokens):
    whole = token_numbers(n_tokens, buffer_tokens=buffer_tokens)
    for first_step in range(len(whole) + 1):
        tail = token_numbers(n_tokens, buffer_tokens=buffer_tokens, first_step=first_step)
        assert tail == whole[first_step:]


class WatchedSource:
    """Records what is read and when, and how many buffers read before are still in memory."""

    def __init__(self, cache, *, read_ahead=True):
        self.n_tokens = cache.n_tokens
        self.cache, self.read_ahead = cache, read_ahead
        self.reads: list[tuple[int, int]] = []
        self.in_memory: list[int] = []
        self.has_read = threading.Condition()
        self._given: list[weakref.ref[torch.Tensor]] = []

    def read(self, start, stop):
        self.in_memory.append(sum(given() is not None for given in self._given))
        tokens = MLPActivations(*(t.clone() for t in self.cache.read(start, stop)))
        self._given.append(weakref.ref(tokens.mlp_in))
        with self.has_read:
            self.reads.append((start, stop))
            self.has_read.notify_all()
        return tokens

    def wait_for(self, n_reads):
        with self.has_read:
            return self.has_read.wait_for(lambda: len(self.reads) >= n_reads, SECONDS)


def test_the_next_buffer_is_read_while_the_present_one_is_used():
    source = WatchedSource(numbered_cache(100))
    stream = batches(source, small(epochs=2), seed=0)
    for buffers_used, n_batches in enumerate((4, 4, 2, 4, 4, 2), start=1):
        next(stream)
        n_expected = min(buffers_used + 1, 6)
        assert source.wait_for(n_expected)  # though only one batch of the buffer was taken
        for _ in range(n_batches - 1):
            next(stream)
        assert len(source.reads) == n_expected  # and no buffer further
    assert list(stream) == []
    assert source.reads == [(0, 40), (40, 80), (80, 100)] * 2
    assert max(source.in_memory) <= 1  # while one is read, there is the one in use, and no other


def test_a_source_that_computes_is_read_when_it_is_needed_one_buffer_at_a_time():
    source = WatchedSource(numbered_cache(100), read_ahead=False)
    stream = batches(source, small(epochs=2), seed=0)
    for buffers_used, n_batches in enumerate((4, 4, 2, 4, 4, 2), start=1):
        for _ in range(n_batches):
            next(stream)
            assert len(source.reads) == buffers_used
    assert list(stream) == []
    assert max(source.in_memory) == 0
    ahead = batches(numbered_cache(100), small(epochs=2), seed=0)
    again = batches(WatchedSource(numbered_cache(100), read_ahead=False), small(epochs=2), seed=0)
    assert all(torch.equal(a.mlp_in, b.mlp_in) for a, b in zip(ahead, again, strict=True))


@pytest.mark.parametrize("first_step", [0, 3, 4, 9, 10, 25])
def test_buffers_before_the_first_step_are_not_read(first_step):
    source = WatchedSource(numbered_cache(100))
    list(batches(source, small(), seed=0, first_step=first_step))
    in_epoch = [(0, 40), (40, 80), (80, 100)]
    skipped = 3 * (first_step // 10) + first_step % 10 // 4
    assert source.reads == (in_epoch * 3)[skipped:]
