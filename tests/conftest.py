"""What the tests share: tiny models of three architectures, the smoke scale, random inputs."""

import os
from pathlib import Path

import transcoders.as_a_job  # noqa: F401  # isort: skip  # before PyTorch: tests compute as jobs do
import pytest
import torch
from huggingface_hub import constants
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from helpers_browser import Browser
from helpers_models import TINY_WIDTH, make_tiny_model
from helpers_training import Passes
from transcoders.activations import cache, reading
from transcoders.config import TRAITS, load_scale
from transcoders.dictionaries import SparseDictionary
from transcoders.models import load_model
from transcoders.synthetic import SYNTHETIC_VOCABULARY
from workflow.running import REPOSITORY, snakemake, workspace

# The files whose tests ask for the fixture `run` below.
OF_THE_RUN = [
    "test_smoke.py", "test_golden.py", "test_faults.py", "test_declared.py",
    "test_devices.py", "test_on_a_gpu.py", "test_accessibility.py",
]  # fmt: skip
FIRST = [*OF_THE_RUN, "test_slurm.py", "test_paper.py", "test_published.py"]

torch.set_num_threads(1)
# No deadline: a busy machine is not a bug. The same examples every time, so a failure is news.
settings.register_profile("steady", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("steady")


class ByFileAndRun(LoadScopeScheduling):
    """Tests of a file share what is slow to make, so they go to one process.

    All files that look at the run of the workflow go to one, so that it is made once.
    """

    def _split_scope(self, nodeid):
        name = Path(nodeid.partition("::")[0]).name
        return "the run" if name in OF_THE_RUN else name


def pytest_addoption(parser):
    """Let tests look at a run that was made before, so that they need not wait for one."""
    parser.addoption(
        "--run", type=Path, help="a folder where `snakemake --config scale=smoke` has run"
    )


def pytest_xdist_make_scheduler(config, log):
    """Share the tests out among processes."""
    return ByFileAndRun(config, log)


def pytest_collection_modifyitems(items):
    """Put first what takes longest, so that no process is left with it at the end."""

    def place(item):
        return FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST)

    items.sort(key=place)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium with one tab, for all tests of a file."""
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


@pytest.fixture(scope="session")
def run(pytestconfig, tmp_path_factory):
    """A folder in which ``snakemake --config scale=smoke`` has run."""
    if given := pytestconfig.getoption("--run"):
        if not (given / "results/smoke/claims.csv").exists():
            raise pytest.UsageError(f"--run {given}: no run of the smoke scale has ended there")
        return given.resolve()
    folder = workspace(tmp_path_factory.mktemp("smoke") / "run")
    snakemake(folder, "--config", "scale=smoke")
    return folder


@pytest.fixture
def own_settings():
    """Commands set these for a process of their own; here they must not outlive a test."""
    threads, environment = torch.get_num_threads(), dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")


@pytest.fixture(scope="session")
def scale():
    """The scale that tests run at: ``config/smoke.yaml``."""
    return load_scale(REPOSITORY / "config/smoke.yaml")


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory):
    """The folder of a tiny model with random weights, by architecture."""
    folder = tmp_path_factory.mktemp("models")
    return {name: make_tiny_model(name, folder / name) for name in ("gpt2", "gpt_neox", "llama")}


@pytest.fixture(scope="session", params=["gpt2", "gpt_neox", "llama"])
def tiny_model_folder(request, tiny_models):
    """One tiny model folder; a test that asks for it runs once for every architecture."""
    return tiny_models[request.param]


@pytest.fixture(scope="session")
def tiny_model(tiny_model_folder):
    """The model of ``tiny_model_folder``. Shared between tests: do not change it."""
    return load_model(tiny_model_folder)


@pytest.fixture
def passes(monkeypatch):
    """The passes of models over text, from here on."""
    passes = Passes()
    for module in (cache, reading):
        monkeypatch.setattr(module, "mlp_activations", passes)
    return passes


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub, offline."""
    cache = tmp_path / "hub"
    cache.mkdir()
    # The environment is read when huggingface_hub is imported, which may have happened.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def random_tokens():
    """Make rows of random tokens that begin with BOS (id 0)."""

    def make(rows, length, seed=0):
        generator = torch.Generator().manual_seed(seed)
        text = torch.randint(2, SYNTHETIC_VOCABULARY, (rows, length - 1), generator=generator)
        return torch.cat([torch.zeros(rows, 1, dtype=torch.long), text], dim=1).int()

    return make


@pytest.fixture(scope="session")
def random_dictionary():
    """Make a dictionary with random weights and biases; one with TopK keeps 8 features."""

    def make(kind, *, d_in=TINY_WIDTH, n_features=64, d_out=None, seed=0):
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape):
            return torch.randn(*shape, generator=generator)

        d_out = d_out or d_in
        return SparseDictionary(
            kind,
            W_enc=normal(d_in, n_features) / d_in**0.5,
            b_enc=normal(n_features),
            W_dec=normal(n_features, d_out) / n_features**0.5,
            b_dec=normal(d_out),
            W_skip=normal(d_out, d_in) / d_in**0.5 if TRAITS[kind].has_skip else None,
            k=8 if TRAITS[kind].is_topk else None,
        )

    return make
