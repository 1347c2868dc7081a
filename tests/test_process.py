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


@pytest.fixture(autouse=True)
def own_claims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Claims of these tests only, given back at the end of each."""
    monkeypatch.setattr(process, "_claims", [])
    monkeypatch.setattr(process.tempfile, "gettempdir", lambda: str(tmp_path))
    yield
    for claim in process._claims:
        claim.close()


def test_each_claim_gets_another_gpu_until_there_is_none():
    assert [claim_gpu(THREE) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match=r"all 3 GPUs .* --resources gpu=3"):
        claim_gpu(THREE)


def test_a_claim_ends_with_its_process():
    killed = multiprocessing.get_context("fork").Process(target=claim_and_wait)
    killed.start()
    # The child has GPU 0 as soon as this process cannot have it.
    for _ in range(1000):
        if claim_gpu(THREE[:2]) == 1:
            break
        process._claims.pop().close()
        killed.join(0.01)
    else:
        pytest.fail("the child claimed nothing")
    killed.kill()
    killed.join()
    assert claim_gpu(THREE[:2]) == 0


def claim_and_wait() -> None:
    claim_gpu(THREE[:2])
    multiprocessing.Event().wait()


def test_gpus_that_a_scheduler_shows_as_number_0_are_told_apart():
    assert claim_gpu(["third"]) == 0
    assert claim_gpu(["second"]) == 0
    assert claim_gpu(["third", "fourth"]) == 1


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


def test_a_cpu_job_claims_nothing():
    assert prepare_process(1, ONE.model_copy(update={"gpus": 1}), "cpu") == "cpu"
    assert process._claims == []


def test_a_gpu_that_is_not_there_is_missed():
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="expected a GPU"):
        prepare_process(1, ONE.model_copy(update={"gpus": 1}), "cuda")


def test_a_job_that_is_allotted_no_gpu_uses_the_cpu():
    assert prepare_process(1, ONE, "cuda") == "cpu"
