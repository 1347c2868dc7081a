"""The dictionary's Adam is Adam, with decoder rows of unit norm."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from helpers_gradients import problem
from helpers_training import ALL_KINDS
from transcoders.training import adam as module
from transcoders.training.adam import DictionaryAdam

ROOT = Path(__file__).parents[2]
BETAS = (0.8, 0.99)
OF_ALL_KINDS = pytest.mark.parametrize("kind", ALL_KINDS)


def unit_rows(kind):
    """Features 0 and 1 are never active, their decoder rows of norm 1 exactly."""
    p = problem(kind, 0.2)
    W_dec, b_enc = p.dictionary.W_dec.data, p.dictionary.b_enc.data
    functional.normalize(W_dec, dim=1, out=W_dec)
    W_dec[:2] = torch.eye(16)[:2]
    b_enc[:2] = -1e3
    return p


def step(p, optimizer, way, number, rate=1e-2):
    """``rows`` is the way that trains on a CPU: gradients that are not added up."""
    if way == "rows":
        found = p.loss("sparse")
        optimizer.step(number, rate, found.gradients, found.rows)
    else:
        optimizer.step(number, rate, p.gradients(way))


@pytest.mark.parametrize("way", ["dense", "sparse", "rows"])
@OF_ALL_KINDS
def test_a_hundred_steps_are_those_of_torchs_plain_adam(kind, way):
    p = unit_rows(kind)
    optimizer = DictionaryAdam(p.dictionary, BETAS)
    book = {name: tensor.double() for name, tensor in p.dictionary.state_dict().items()}
    plain = torch.optim.Adam(book.values(), betas=BETAS, foreach=False, fused=False)
    for number in range(100):
        gradients = p.gradients("dense" if way == "dense" else "sparse")
        for name, tensor in book.items():
            tensor.grad = gradients[name].double()
        book["W_dec"].grad -= (book["W_dec"].grad * book["W_dec"]).sum(1, True) * book["W_dec"]
        rate = 1e-2 * min((number + 1) / 10, (100 - number) / 30, 1)
        plain.param_groups[0]["lr"] = rate
        plain.step()
        functional.normalize(book["W_dec"], dim=1, out=book["W_dec"])
        step(p, optimizer, way, number, rate)
    for name, parameter in p.dictionary.named_parameters():
        # Each step rounds to float32, 6e-8 of entries of order 1, a hundred times.
        torch.testing.assert_close(parameter.double(), book[name], rtol=0, atol=1e-5)
    assert torch.equal(p.dictionary.W_dec[:2], torch.eye(16)[:2])


@pytest.mark.parametrize("way", ["dense", "rows"])
def test_threads_and_blocks_change_no_byte(way):
    found = []
    for threads, block in ((1, 2**18), (3, 1)):
        p = unit_rows("mlp_out_sae")
        optimizer = DictionaryAdam(p.dictionary, BETAS)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
            patch.setitem(module.BLOCK_ENTRIES, "cpu", block)
            for number in range(10):
                step(p, optimizer, way, number)
        found.append([*optimizer.parameters.values(), *optimizer.second_moment.values()])
    assert all(map(torch.equal, *found))


STEPS = """
import hashlib, sys
sys.path[:0] = ["src", "tests", "tests/training"]
from test_adam import BETAS, DictionaryAdam, step, unit_rows
p = unit_rows("mlp_out_sae")
optimizer = DictionaryAdam(p.dictionary, BETAS)
for number in range(5):
    step(p, optimizer, "rows", number)
tensors = [*optimizer.parameters.values(), *optimizer.second_moment.values()]
print(hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest())
"""


@pytest.mark.full
def test_the_width_of_the_processors_vectors_changes_no_byte():
    found = set()
    for processor in ("", "x86-64", "haswell"):  # this one, vectors of 4 numbers, of 8
        environment = os.environ | {"NUMBA_CPU_NAME": processor} if processor else os.environ
        command = [sys.executable, "-c", STEPS]
        run = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr
        found.add(run.stdout)
    assert len(found) == 1
