"""A group of dictionaries on one pass: each as if it were alone, the same every time."""

import pytest

from helpers_training import ALL_KINDS, entry, random_cache, saved, settings
from transcoders.errors import UserError
from transcoders.training import train_group


def test_a_learning_rate_that_diverges_is_refused():
    training = settings(learning_rate=1e30, epochs=5)
    with pytest.raises(UserError, match=r"tiny_layer1_transcoder_l1-0\.1: the loss is"):
        train_group([entry("transcoder")], random_cache(), training, seed=0)


def test_a_batch_larger_than_the_source_is_refused():
    training = settings(batch_tokens=33)
    with pytest.raises(UserError, match=r"training\.batch_tokens is 33, .* at most the 32 tokens"):
        train_group([entry("transcoder")], random_cache(n_tokens=32), training, seed=0)


def test_a_group_trains_each_dictionary_as_if_it_were_alone():
    cache = random_cache()
    training = settings(normalize_activations="mean_norm", epochs=2, warmup_steps=3)
    entries = [entry(kind, 0.3) for kind in ALL_KINDS] + [entry("transcoder", 0.1)]
    together = train_group(entries, cache, training, seed=5)
    for one, result in zip(entries, together, strict=True):
        assert saved(train_group([one], cache, training, seed=5)[0]) == saved(result)
        assert (result.dictionary.kind, result.dictionary.k) == (one.kind, one.k)


def test_training_twice_gives_the_same_bytes_and_another_seed_does_not():
    cache = random_cache()
    first, again, other = (
        saved(train_group([entry("transcoder")], cache, settings(), seed=seed)[0])
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first[0]["W_enc"] != other[0]["W_enc"]
