"""Benchmarks run, at tiny sizes; times are not looked at."""

import importlib.util
from pathlib import Path

import pytest
import torch

from transcoders.dictionaries.loss import loss_and_gradients
from transcoders.files import read_json

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _load(name, monkeypatch):
    # Under a name of its own: there may be another module `training`.
    monkeypatch.syspath_prepend(BENCHMARKS)
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def training(monkeypatch):
    """benchmarks/training.py, kept from settings of the whole process."""
    module = _load("training", monkeypatch)
    monkeypatch.setattr(module, "prepare", lambda _: None)
    return module


def test_parts_in_this_process(training, capsys):
    record = training.measure(["steps", "widths", "l0", "shares"], quick=True)
    for size in ("gpt2_small", "laptop"):
        assert record[size]["step_over_encoder"] > 0 < record[size]["times_dense_autograd"]
    assert [row["expansion"] for row in record["by_width"]] == list(training.EXPANSIONS)
    assert record["by_l0"][0]["time"] == record["by_l0_laptop"][0]["time"] == 1
    for shares in record["share_of_step"].values():
        # Every part is found, so every function that the stopwatch is put around is called.
        assert len(shares) == 8 and sum(shares.values()) == pytest.approx(1, abs=0.01)
    assert len(capsys.readouterr().out.splitlines()) == 2 + 6 + 2 * 3 + 2


def test_dense_autograd_has_the_gradients_of_our_step(training):
    """Both do the same work, so their times can be compared."""
    ours = training.Ours(training.QUICK_SIZES["gpt2_small"])
    dictionary = ours.trainer.dictionary
    dense = training.DenseAutograd(dictionary)
    x = ours.batch().mlp_out  # of a norm that training leaves as it is
    gradients = loss_and_gradients(dictionary, x, x, l1_coefficient=1.0).gradients
    W_dec = dictionary.W_dec
    gradients["W_dec"] -= torch.linalg.vecdot(gradients["W_dec"], W_dec.detach())[:, None] * W_dec
    dense.step(x)
    for parameter, name in zip(dense.parameters, ("W_enc", "b_enc", "W_dec", "b_dec"), strict=True):
        # float32 sums in another order
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-4)


def test_the_search_for_paths(monkeypatch, tmp_path):
    circuits = _load("circuits", monkeypatch)
    monkeypatch.setattr(circuits, "ROUNDS", 1)
    monkeypatch.setattr(circuits, "TARGETS", {})  # they hold for whole models
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    circuits.main(layers=2, width=256, out=tmp_path / "circuits.json")
    record = read_json(tmp_path / "circuits.json")
    for size in circuits.SIZES:
        assert record[size]["l0"] == pytest.approx(50, rel=0.05)
        assert 25 < record[size]["paths"] <= 25 * 5


@pytest.mark.full
def test_the_parts_of_the_paper_scale(monkeypatch, capsys):
    gpu = _load("gpu", monkeypatch)
    monkeypatch.setattr(gpu, "prepare_process", lambda *_: "cpu")
    gpu.main(quick=True)
    printed = capsys.readouterr().out
    for expected in ("gpt2-small_layer8", "pythia-1.4b_layer15", "'train_dense'", "'evaluate'"):
        assert expected in printed


def test_the_long_run_is_told_as_it_was():
    record = read_json(BENCHMARKS / "long_run.json")
    assert record["different"] == []
    told = f"{record['kills']} kills in {round(record['seconds'] / 60)} minutes"
    page = (BENCHMARKS.parent / "docs/faults.md").read_text()
    assert told in page and f"none of the {record['files_compared']} files differed" in page
