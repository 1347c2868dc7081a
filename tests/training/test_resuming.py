"""A training job that is killed goes on, and ends with the bytes of one that never was."""

import pytest
import torch

from helpers_training import (
    ALL_KINDS,
    CacheInMemory,
    KilledError,
    count_steps,
    entry,
    random_cache,
    saved,
    settings,
    watch_ways,
)
from transcoders.activations import Statistics
from transcoders.errors import UserError
from transcoders.models import MLPActivations
from transcoders.training import train_group

# Two epochs of 6 batches in buffers of 3. Nothing coincides: checkpoints after steps 5 and
# 10, rows of training.csv after 4, 8 and 12, buffers after 3, 6, 9 and 12.
N_STEPS, EVERY = 12, 5
ENTRIES = [entry(kind, 0.3) for kind in ALL_KINDS]


def job():
    training = settings(
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
    return random_cache(n_tokens=6 * 16 + 5), training


def train(checkpoint=None, *, entries=ENTRIES, source=None, seed=7, inputs=None, **changes):
    """Every byte of the job's results; keyword arguments change the job."""
    cache, training = job()
    results = train_group(
        entries,
        source or cache,
        training.model_copy(update=changes),
        seed=seed,
        checkpoint=checkpoint,
        inputs=inputs or {"activations": {"shard-00000.safetensors": "f00d"}},
    )
    return [saved(result) for result in results]


@pytest.fixture(scope="module")
def uninterrupted():
    return train()


@pytest.fixture
def checkpoint(tmp_path):
    return tmp_path / "checkpoints" / "group.safetensors"


@pytest.fixture
def killed(checkpoint, monkeypatch):
    """The checkpoint after step 5 of a job that was killed after step 8."""
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        count_steps(patch, killed_after=8)
        train(checkpoint)
    return checkpoint


def test_the_job_takes_both_ways_to_the_gradients(monkeypatch):
    ways = watch_ways(monkeypatch)
    train(entries=[entry("transcoder", 0.3)])
    # A new run starts dense; one that resumes must know the density of the batch before.
    assert (ways[0], ways[EVERY], ways[2 * EVERY]) == ("dense", "sparse", "sparse")


@pytest.mark.parametrize("killed_after", [1, 4, 5, 6, 10, 11, N_STEPS])
def test_a_job_killed_after_any_step_ends_with_the_same_bytes(
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


def test_how_often_checkpoints_are_saved_may_change(killed, uninterrupted, monkeypatch):
    steps = count_steps(monkeypatch)
    assert train(killed, checkpoint_every_steps=3) == uninterrupted
    assert steps == list(range(EVERY, N_STEPS))


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"learning_rate": 0.02}, "learning_rate is 0.01 there, 0.02 here"),
        ({"entries": [entry("transcoder", 0.4), *ENTRIES[1:]]}, "dictionaries is "),
        ({"inputs": {"activations": {"shard-00000.safetensors": "beef"}}}, "activations is "),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_job_is_refused_and_kept(
    killed, uninterrupted, monkeypatch, change, differs
):
    before = killed.read_bytes()
    steps = count_steps(monkeypatch)
    with pytest.raises(UserError) as caught:
        train(killed, **change)
    assert str(caught.value).startswith(f"{killed}: the checkpoint belongs to other settings: ")
    assert differs in str(caught.value)
    assert not steps
    assert killed.read_bytes() == before
    assert list(killed.parent.iterdir()) == [killed]
    assert train(killed) == uninterrupted  # with the settings restored, it goes on


def test_a_loss_that_is_not_finite_names_the_last_checkpoint_and_keeps_it(checkpoint):
    class Broken(CacheInMemory):
        statistics: Statistics = job()[0].statistics

        def read(self, start, stop):
            tokens = super().read(start, stop)
            return tokens if start == 0 else MLPActivations(*(t * torch.nan for t in tokens))

    broken = Broken(*vars(job()[0]).values())
    with pytest.raises(UserError, match=r"is nan at step 3 .*; last good checkpoint: none$"):
        train(checkpoint, source=broken)
    with pytest.raises(UserError) as caught:
        train(checkpoint, source=broken, checkpoint_every_steps=2)
    # The fourth step of six in which λ₁ rises to 0.3, and of four for the learning rate.
    numbers = "is nan at step 3 (L1 coefficient 0.2, learning rate 0.01)"
    for part in (f"transcoder_l1-0.3: the loss {numbers}", f"{checkpoint} after step 2"):
        assert part in str(caught.value)
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
