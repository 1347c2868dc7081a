"""The smoke run's computations on a real GPU: the CPU's numbers, and the same bytes every time.

Skipped on machines without one.
"""

import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from itertools import product

import pandas as pd
import pytest
import torch

from helpers_device import COMMANDS, SMOKE, call, copy_for_a_gpu
from helpers_training import KilledError, count_steps
from transcoders.checksums import sha256
from transcoders.files import read_json
from workflow.running import hashes_below
from workflow.test_golden import GOLDEN, RESULTS, TABLES, drift

pytestmark = [
    pytest.mark.full,
    pytest.mark.usefixtures("own_settings"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
COMPUTED = ("activations", "dictionaries", "evaluation", "circuits", "greater_than",
            "interpretability", "case_studies")  # fmt: skip
NOT_COMPUTED = {
    "claims.csv", "labels.csv", "why.csv", "gap_by_tokens.csv", "gap_by_tokens_fit.csv",
    "case_studies/table4.csv", "interpretability/automatic.csv", "interpretability/ratings.csv",
    "interpretability/automatic_summary.csv", "interpretability/table1.csv",
}  # fmt: skip
"""Tables made by commands that may not use a GPU."""


@pytest.fixture(scope="module")
def on_gpu(run, tmp_path_factory):
    """Two folders in which everything after the tokens was computed on the GPU."""
    root = tmp_path_factory.mktemp("gpu")
    folders = [copy_for_a_gpu(run, root / name, ".checksums") for name in ("first", "second")]
    for folder, name in product(folders, COMPUTED):
        shutil.rmtree(folder / RESULTS / name)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(compute, folders))
    return folders


def compute(folder):
    """Run all commands that may use a GPU, and join what they measured."""
    os.chdir(folder)
    for command in (*COMMANDS, "collect-tables"):
        call(command)


def made(folder):
    """SHA-256 of what the commands made, by path: tables, records, weights."""
    found = hashes_below(folder / RESULTS, ".csv", ".json", ".safetensors", ".parquet")
    return {n: sha for n, sha in found.items() if n.startswith(COMPUTED)}


def test_the_numbers_are_those_of_the_cpu_and_a_gpu_was_used(on_gpu):
    """Within the tolerances of the kept tables."""
    results = on_gpu[0] / RESULTS
    kept = [name for name in made(on_gpu[0]) if name in TABLES]
    assert set(TABLES) - set(kept) == NOT_COMPUTED
    tables = [(name, pd.read_csv(GOLDEN / name), pd.read_csv(results / name)) for name in kept]
    assert [problem for each in tables for problem in drift(*each)] == []
    records = [read_json(path)["training"] for path in results.rglob("cfg.json")]
    assert [record["device"].split()[0] for record in records] == ["cuda"] * len(SMOKE.dictionaries)


def test_two_runs_are_the_same_bytes(on_gpu):
    first, second = map(made, on_gpu)
    assert len(first) > 50
    assert first == second


def test_a_killed_training_job_goes_on_to_the_same_bytes(on_gpu, monkeypatch):
    monkeypatch.chdir(on_gpu[0])
    folders = sorted((RESULTS / "dictionaries").glob("tiny-gpt2_layer1_*_l1-0.5"))
    before = {path: sha256(path) for folder in folders for path in folder.iterdir()}
    count_steps(monkeypatch, killed_after=76)
    with pytest.raises(KilledError):
        call("train tiny-gpt2")
    steps = count_steps(monkeypatch)
    call("train tiny-gpt2")
    assert steps[0] == 70  # where the last checkpoint was
    assert {path: sha256(path) for path in before} == before
