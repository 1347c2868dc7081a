"""A training job that is killed goes on, and ends with the bytes of one that never was."""

import pytest
import torch

from helpers_training import (
    ALL_KINDS,
    KilledError,
    count_steps,
    entry,
    random_cache,
    saved,
    settings,
    watch_ways,
)
from transcoders.errors import UserError
from transcoders.models import MLPActivations
from transcoders.training import train_group

# Two epochs of 6 batches in buffers of 3. Nothing coincides: checkpoints after steps 5 and
# 10, rows of training.csv after 4, 8 and 12, buffers after 3, 6, 9 and 12.
N_STEPS, EVERY = 12, 5
ENTRIES = [entry(kind, 0.3) for kind in ALL_KINDS]


TRAINING = settings(
    batch_tokens=16,
    buffer_tokens=48,
    epochs=2,
    warmup_steps=4,
    decay_fraction=0.3,
    l1_warmup_fraction=0.5,
    normalize_activations="mean_norm",
    sparse_below_density=0.45,
    log_every_steps=4,
    checkpoint_every_steps=EVERY,
)
SOURCE = random_cache(n_tokens=6 * 16 + 5)


def train(checkpoint=None, *, entries=ENTRIES, inputs="f00d", **changes):
    """Every byte of the job's results; keyword arguments change the job."""
    training, inputs = TRAINING.model_copy(update=changes), {"activations": inputs}
    results = train_group(entries, SOURCE, training, seed=7, checkpoint=checkpoint, inputs=inputs)
    return [saved(result) for result in results]


@pytest.fixture(scope="module")
def uninterrupted():
    return train()


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "checkpoints" / "group.safetensors"


def test_the_job_takes_both_ways_to_the_gradients(monkeypatch):
    ways = watch_ways(monkeypatch)
    train(entries=[entry("transcoder", 0.3)])
    # A new run starts dense; one that resumes must know the density of the batch before.
    assert (ways[0], ways[EVERY], ways[2 * EVERY]) == ("dense", "sparse", "sparse")


@pytest.mark.parametrize("killed_after", [1, 4, 5, 6, 10, 11, N_STEPS])
def test_a_job_killed_after_a_step_ends_with_the_same_bytes(
    checkpoint, uninterrupted, monkeypatch, killed_after
):
    count_steps(monkeypatch, killed_after)
    with pytest.raises(KilledError):
        train(checkpoint)
    done = EVERY * (killed_after // EVERY)
    files = [checkpoint] if done else []
    assert list(checkpoint.parent.glob("*")) == files  # hidden ones included

    steps = count_steps(monkeypatch)
    assert train(checkpoint) == uninterrupted
    assert steps == list(range(done, N_STEPS))


def test_a_checkpoint_of_another_job_is_refused_and_kept(checkpoint, uninterrupted, monkeypatch):
    count_steps(monkeypatch, killed_after=8)
    with pytest.raises(KilledError):
        train(checkpoint)
    before, steps = checkpoint.read_bytes(), count_steps(monkeypatch)
    for key, change in (
        ("learning_rate is 0.01 there, 0.02 here", {"learning_rate": 0.02}),
        ("dictionaries is ", {"entries": [entry("transcoder", 0.4), *ENTRIES[1:]]}),
        ("activations is ", {"inputs": "beef"}),
    ):
        with pytest.raises(UserError, match=f"{checkpoint}: .* other settings: {key}"):
            train(checkpoint, **change)
    assert not steps and checkpoint.read_bytes() == before
    # With the settings restored it goes on; how often checkpoints are saved may change.
    assert train(checkpoint, checkpoint_every_steps=3) == uninterrupted
    assert steps == list(range(EVERY, N_STEPS))


def test_a_loss_that_is_not_finite_names_the_last_checkpoint_and_keeps_it(checkpoint, monkeypatch):
    def read(start, stop):  # the second buffer begins with step 3
        factor = torch.nan if start else 1
        return MLPActivations(SOURCE.mlp_in[start:stop] * factor, SOURCE.mlp_out[start:stop])

    monkeypatch.setattr(SOURCE, "read", read)
    said = rf"transcoder_l1-0\.3: the loss is nan at step 3 .* {checkpoint} after step 2"
    with pytest.raises(UserError, match=said):
        train(checkpoint, checkpoint_every_steps=2)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
