"""What runs on a GPU keeps its tensors there: checked without one."""

import pandas as pd
import pytest
import torch

from helpers_device import COMMANDS, pretended_gpu
from helpers_training import ALL_KINDS, entry, random_cache, settings
from transcoders.activations import (
    ActivationCache,
    ActivationStream,
    cache_activations,
)
from transcoders.config import Activations, Site
from transcoders.corpus import Rows
from transcoders.evaluation import evaluate_site
from transcoders.models import load_model
from transcoders.training import train_group

SITE = Site(model="tiny", layer=1)
CACHE = Activations(mode="cache", dtype="float16", batch_contexts=3, shard_contexts=4)


@pytest.fixture
def rows(random_tokens):
    return Rows(random_tokens(10, 12), torch.arange(10) // 2)


def test_mixing_devices_is_noticed():
    with pretended_gpu() as gpu:
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert (here.device.type, (there * 2 + there[1]).device.type) == ("cpu", "cuda")
        assert (there * torch.tensor(2.0)).device.type == "cuda"  # as on a real one
        numbers = torch.tensor([0, 2, 2], device="cuda")
        for error, message, mistake in (
            (AssertionError, "on the CPU", lambda: here + there),
            (AssertionError, "on the CPU", lambda: there.add_(here)),
            (TypeError, "numpy", there.numpy),
            (AssertionError, "not deterministic", lambda: torch.bincount(numbers, weights=there)),
            (AssertionError, "not deterministic", lambda: there.cumsum(0)),
        ):
            with pytest.raises(error, match=message):
                mistake()
        assert torch.bincount(numbers).cumsum(0).tolist() == [1, 1, 3]
        assert (there.cpu() + here).device.type == "cpu"
        assert here.to("cuda", torch.float64).device.type == "cuda"
        assert there.to("cpu").numpy().sum() == 3
        assert gpu.operations
    assert torch.ones(3).device.type == "cpu"


def test_every_job_of_the_smoke_scale_that_may_use_a_gpu_is_listed(scale):
    listed = {(command.__name__, *given.values()) for command, given in COMMANDS}
    wanted = {
        *(("cache_activations", name) for name in scale.models),
        *(("train", group.name) for group in scale.main_groups),
        *(("evaluate", site.name) for site in scale.all_sites),
        *(("circuit", case.name) for case in scale.circuits.cases),
    }
    assert wanted <= listed


@pytest.mark.parametrize(
    ("sparse_below", "precision"), [(0, "float32"), (1, "float32"), (0, "bf16"), (1, "bf16")]
)
def test_training_stays_on_the_device(sparse_below, precision, tmp_path):
    training = settings(
        sparse_below_density=sparse_below, precision=precision,
        normalize_activations="mean_norm", checkpoint_every_steps=3,
    )  # fmt: skip
    entries = [entry(kind) for kind in ALL_KINDS]
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pretended_gpu() as gpu:
        results, again = (  # the second goes on from the first's last checkpoint
            train_group(
                entries, random_cache(), training, seed=0, device="cuda", checkpoint=checkpoint
            )
            for _ in range(2)
        )
        assert gpu.operations > 1000
        for result in (*results, *again):
            for tensor in result.dictionary.state_dict().values():
                assert tensor.device.type == "cpu"
    expected = train_group(entries, random_cache(), training, seed=0)
    for ours, resumed, theirs in zip(results, again, expected, strict=True):
        for name, tensor in theirs.dictionary.state_dict().items():
            found = ours.dictionary.state_dict()[name]
            if precision == "bf16":  # so coarse that which k are the largest may hang by a hair
                assert (found - tensor).norm() < 0.1 * tensor.norm()
            else:
                torch.testing.assert_close(found, tensor)
            assert torch.equal(resumed.dictionary.state_dict()[name], found)


def test_activations_are_made_on_the_device(tiny_model_folder, rows, scale, tmp_path):
    cached, streamed = tmp_path / "cached", tmp_path / "streamed"
    with pretended_gpu():
        model = load_model(tiny_model_folder, device="cuda")
        for folder, n_rows in ((cached, 10), (streamed, 0)):
            cache_activations(
                model, rows, {SITE: folder}, CACHE, scale.corpus, sources={},
                cached_rows={SITE: n_rows}, device="cuda",
            )  # fmt: skip
        cache = ActivationCache(cached)
        stream = ActivationStream(
            model, {SITE: streamed}, rows, CACHE, scale.corpus, sources={}, device="cuda"
        )
        read = stream.read(5, 40)
        assert {tensor.device.type for tensor in read} == {"cuda"}
        stored = cache.read(5, 40)
        assert {tensor.device.type for tensor in stored} == {"cpu"}
        for ours, theirs in zip(read, stored, strict=True):
            assert torch.equal(ours.cpu(), theirs)
        train_group([entry("transcoder")], stream, settings(), seed=0, device="cuda")


def test_evaluation_stays_on_the_device(tiny_model_folder, rows, scale, random_dictionary):
    evaluation = scale.evaluation
    assert evaluation is not None

    def measure(device):
        record = {"seed": 0, "tokens_trained": 200, "tokens_different": 100}
        dictionaries = [
            (entry(kind), random_dictionary(kind).to(device), record) for kind in ALL_KINDS
        ]
        return list(
            evaluate_site(
                load_model(tiny_model_folder, device=device), rows,
                pd.DataFrame({"id": range(5), "source": "any"}), dictionaries, torch.zeros(32),
                scale.corpus, evaluation, seed=0, device=device,
            )
        )  # fmt: skip

    with pretended_gpu() as gpu:
        on_gpu = measure("cuda")
        assert gpu.operations > 1000
    for ours, theirs in zip(on_gpu, measure("cpu"), strict=True):
        assert ours.equals(theirs)
