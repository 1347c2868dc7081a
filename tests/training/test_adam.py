"""The dictionary's Adam is Adam, with decoder rows of unit norm."""

import pytest
import torch
from torch.nn import functional

from helpers_gradients import problem
from helpers_training import ALL_KINDS
from transcoders.training import adam as module
from transcoders.training.adam import DictionaryAdam
from workflow.running import REPOSITORY, python

BETAS = (0.8, 0.99)
BOTH_WAYS = pytest.mark.parametrize("way", ["dense", "rows"])
"""``rows`` is the way that trains on a CPU: gradients that are not added up."""


def unit_rows(kind):
    """Features 0 and 1 are never active, their decoder rows of norm 1 exactly."""
    p = problem(kind, 0.2)
    W_dec, b_enc = p.dictionary.W_dec.data, p.dictionary.b_enc.data
    functional.normalize(W_dec, dim=1, out=W_dec)
    W_dec[:2] = torch.eye(16)[:2]
    b_enc[:2] = -1e3
    return p, DictionaryAdam(p.dictionary, BETAS)


def step(p, optimizer, way, number, rate=1e-2):
    found = p.loss("dense" if way == "dense" else "sparse")
    optimizer.step(number, rate, found.gradients, found.rows)


@BOTH_WAYS
@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_hundred_steps_are_those_of_torchs_plain_adam(kind, way):
    p, optimizer = unit_rows(kind)
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


@BOTH_WAYS
def test_threads_and_blocks_change_no_byte(way, monkeypatch):
    found = []
    for threads, block in ((1, 2**18), (3, 1)):
        p, optimizer = unit_rows("mlp_out_sae")
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setitem(module.BLOCK_ENTRIES, "cpu", block)
        for number in range(10):
            step(p, optimizer, way, number)
        found.append([*optimizer.parameters.values(), *optimizer.second_moment.values()])
    assert all(map(torch.equal, *found))


STEPS = """
import hashlib, sys
sys.path[:0] = ["tests", "tests/training"]
from test_adam import step, unit_rows
p, optimizer = unit_rows("mlp_out_sae")
for number in range(5):
    step(p, optimizer, "rows", number)
tensors = [*optimizer.parameters.values(), *optimizer.second_moment.values()]
print(hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest())
"""


@pytest.mark.full
def test_the_width_of_the_processors_vectors_changes_no_byte(monkeypatch):
    runs = [python(REPOSITORY, "-c", STEPS)]
    for processor in ("x86-64", "haswell"):  # vectors of 4 numbers, of 8
        monkeypatch.setenv("NUMBA_CPU_NAME", processor)
        runs.append(python(REPOSITORY, "-c", STEPS))
    assert not any(run.returncode for run in runs), [run.stderr for run in runs]
    assert len({run.stdout for run in runs}) == 1
