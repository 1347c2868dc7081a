"""The smoke run's computations on a real GPU: the CPU's numbers, and the same bytes every time.

Skipped on machines without one.
"""

import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import pytest
import torch

from helpers_device import COMMANDS, call, copy_for_a_gpu
from helpers_training import KilledError, count_steps
from transcoders.checksums import sha256
from transcoders.cli import dictionaries
from transcoders.files import read_json
from workflow.test_golden import GOLDEN, RESULTS, TABLES, drift

pytestmark = [
    pytest.mark.full,
    pytest.mark.usefixtures("own_settings"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
COMPUTED = ("activations", "dictionaries", "evaluation", "circuits", "greater_than",
            "interpretability", "case_studies")  # fmt: skip
EVALUATIONS = ("evaluation.csv", "evaluation_by_document.csv")
NOT_COMPUTED = {
    "claims.csv", "case_studies/table4.csv", "interpretability/automatic.csv",
    "interpretability/automatic_summary.csv", "interpretability/table1.csv",
}  # fmt: skip
"""Tables made by commands that may not use a GPU."""


@pytest.fixture(scope="module")
def on_gpu(run, tmp_path_factory):
    """Two folders in which everything after the tokens was computed on the GPU."""
    folders = []
    for name in ("first", "second"):
        folder = copy_for_a_gpu(run, tmp_path_factory.mktemp("gpu") / name, ".checksums")
        for made in COMPUTED:
            shutil.rmtree(folder / RESULTS / made)
        folders.append(folder)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
        list(processes.map(compute, folders))
    return folders


def compute(folder):
    """Run all commands that may use a GPU, and join what they measured."""
    os.chdir(folder)
    for command, arguments in COMMANDS:
        call(command, arguments)
    call(dictionaries.collect_tables, {})


def made(folder):
    """What the commands made: tables, records, weights."""
    return [
        *EVALUATIONS,
        *sorted(
            str(path.relative_to(folder / RESULTS))
            for name in COMPUTED
            for path in (folder / RESULTS / name).rglob("*")
            if path.suffix in (".csv", ".json", ".safetensors", ".parquet")
        ),
    ]


def test_a_gpu_was_used(on_gpu):
    records = [path for folder in on_gpu for path in (folder / RESULTS).rglob("cfg.json")]
    assert len(records) == 2 * 12
    devices = {read_json(path)["training"]["device"].split()[0] for path in records}
    assert devices == {"cuda"}


def test_the_numbers_are_those_of_the_cpu(on_gpu):
    """Within the tolerances of the kept tables."""
    kept = [name for name in made(on_gpu[0]) if (GOLDEN / name).exists()]
    assert set(TABLES) - set(kept) == NOT_COMPUTED
    problems = [
        problem
        for name in kept
        for problem in drift(
            name, pd.read_csv(GOLDEN / name), pd.read_csv(on_gpu[0] / RESULTS / name)
        )
    ]
    assert problems == []


def test_two_runs_are_the_same_bytes(on_gpu):
    first, second = ({n: sha256(f / RESULTS / n) for n in made(f)} for f in on_gpu)
    assert len(first) > 50
    assert {n for n in first | second if first.get(n) != second.get(n)} == set()


def test_a_killed_training_job_goes_on_to_the_same_bytes(on_gpu, monkeypatch):
    monkeypatch.chdir(on_gpu[0])
    folders = sorted((RESULTS / "dictionaries").glob("tiny-gpt2_layer1_*_l1-0.5"))
    before = {path: sha256(path) for folder in folders for path in folder.iterdir()}
    count_steps(monkeypatch, killed_after=76)
    with pytest.raises(KilledError):
        call(dictionaries.train, {"group": "tiny-gpt2"})
    steps = count_steps(monkeypatch)
    call(dictionaries.train, {"group": "tiny-gpt2"})
    assert steps[0] == 70  # where the last checkpoint was
    assert {path: sha256(path) for path in before} == before
