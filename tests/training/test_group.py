"""A group of dictionaries on one pass: each as if it were alone, the same every time."""

import pytest

from helpers_training import ALL_KINDS, entry, random_cache, saved, settings
from transcoders.errors import UserError
from transcoders.training import train_group


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"learning_rate": 1e30, "epochs": 5}, r"tiny_layer1_transcoder_l1-0\.1: the loss is"),
        ({"batch_tokens": 33}, r"training\.batch_tokens is 33, .* at most the 32 tokens"),
    ],
)
def test_what_cannot_be_trained_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        train_group([entry("transcoder")], random_cache(n_tokens=32), settings(**changes), seed=0)


def test_a_group_trains_each_dictionary_as_if_it_were_alone():
    cache = random_cache()
    training = settings(normalize_activations="mean_norm", epochs=2, warmup_steps=3)
    entries = [entry(kind, 0.3) for kind in ALL_KINDS] + [entry("transcoder", 0.1)]
    together = train_group(entries, cache, training, seed=5)
    for one, result in zip(entries, together, strict=True):
        assert saved(train_group([one], cache, training, seed=5)[0]) == saved(result)
        assert (result.dictionary.kind, result.dictionary.k) == (one.kind, one.k)
