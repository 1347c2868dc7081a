"""A group of dictionaries on one pass: each as if it were alone, the same every time."""

import pytest

from helpers_training import ALL_KINDS, entry, random_cache, saved, settings
from transcoders.errors import UserError
from transcoders.training import train_group


def test_fewer_tokens_than_a_batch_are_refused():
    said = r"training\.batch_tokens is 33, .* at most the 32 tokens"
    with pytest.raises(UserError, match=said):
        train_group([entry("transcoder")], random_cache(32), settings(batch_tokens=33), seed=0)


def test_a_group_trains_each_dictionary_as_if_it_were_alone():
    cache = random_cache()
    training = settings(normalize_activations="mean_norm", epochs=2, warmup_steps=3)
    entries = [entry(kind, 0.3) for kind in ALL_KINDS] + [entry("transcoder", 0.1)]
    together = train_group(entries, cache, training, seed=5)
    for one, result in zip(entries, together, strict=True):
        assert saved(train_group([one], cache, training, seed=5)[0]) == saved(result)
        assert (result.dictionary.kind, result.dictionary.k) == (one.kind, one.k)
