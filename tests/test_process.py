"""What a job sets for its process: threads, device, and a GPU that no other job has."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from transcoders import process
from transcoders.config import Resources
from transcoders.errors import UserError
from transcoders.process import claim_gpu, prepare_process

THREE = ["first", "second", "third"]
ONE = Resources(threads=1, mem_mb=1000, runtime=5)
WITH_GPU = ONE.model_copy(update={"gpus": 1})


pytestmark = pytest.mark.usefixtures("own_settings")


@pytest.fixture(autouse=True)
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Claims of these tests only, given back at the end of each."""
    monkeypatch.setattr(process, "_claims", [])
    monkeypatch.setattr(process.tempfile, "gettempdir", lambda: str(tmp_path))
    yield
    for claim in process._claims:
        claim.release()


def test_each_claim_gets_another_gpu_until_there_is_none():
    assert claim_gpu(["third"]) == 0  # as a scheduler shows it
    assert [claim_gpu(THREE) for _ in range(2)] == [0, 1]
    with pytest.raises(UserError, match=r"all 3 GPUs .* --resources gpu=3"):
        claim_gpu(THREE)


def test_a_claim_ends_with_its_process():
    context = multiprocessing.get_context("fork")
    claimed, killed = context.Event(), None

    def claim_and_wait() -> None:
        claim_gpu(THREE[:2])
        claimed.set()
        multiprocessing.Event().wait()

    killed = context.Process(target=claim_and_wait)
    killed.start()
    assert claimed.wait(60)
    assert claim_gpu(THREE[:2]) == 1
    killed.kill()
    killed.join()
    assert claim_gpu(THREE[:2]) == 0


@pytest.mark.parametrize(("granted", "gpus", "claimed"), [(1, 1, [0]), (1, 0, []), (None, 1, [])])
def test_a_job_of_the_workflow_claims_a_gpu_if_it_is_given_one(monkeypatch, granted, gpus, claimed):
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda n: SimpleNamespace(uuid=THREE[n])
    )
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    resources = ONE.model_copy(update={"gpus": gpus})
    assert prepare_process(granted, resources, "auto") == "cuda"
    assert chosen == claimed
    assert process.os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"


def test_a_job_without_a_gpu_uses_the_cpu_or_misses_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for resources, device in ((WITH_GPU, "cpu"), (ONE, "cuda"), (WITH_GPU, "auto")):
        assert prepare_process(1, resources, device, keep_freed_memory=True) == "cpu"
    assert process._claims == []
    with pytest.raises(UserError, match="expected a GPU"):
        prepare_process(1, WITH_GPU, "cuda")
    with pytest.raises(UserError, match="must run on 1 threads, 2 were granted"):
        prepare_process(2, ONE)
