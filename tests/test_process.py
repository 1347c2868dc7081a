"""What a job sets for its process: environment, threads, device."""

import getpass
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from transcoders import process
from transcoders.config import Resources
from transcoders.errors import UserError
from transcoders.process import ALWAYS, AVX2, NEVER, prepare_process, set_environment

ROOT = Path(__file__).parents[1]
ONE = Resources(threads=1, mem_mb=1000, runtime=5)
WITH_GPU = ONE.model_copy(update={"gpus": 1})


pytestmark = pytest.mark.usefixtures("own_settings")


USERS = {
    "ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2", "OPENBLAS_CORETYPE": "Nehalem", "OMP_THREAD_LIMIT": "1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4", "MPLBACKEND": "TkAgg", "PYTHONOPTIMIZE": "2",
    "NVIDIA_TF32_OVERRIDE": "1", "PYTHONWARNINGS": "default", "PYTHONIOENCODING": "ascii",
    "JUPYTER_PATH": "/nonexistent",
}  # fmt: skip
"""Settings of a user that change bytes."""
A_JOB = """
import hashlib, json, os
from transcoders.cli import app
from transcoders.cli.app import Run, job

@job("", resources="notebook")
def show(run: Run) -> None:
    import numpy, torch
    numbers = numpy.random.default_rng(0).standard_normal((256, 576))
    single = torch.from_numpy(numbers).float()
    encoder = torch.from_numpy(numpy.random.default_rng(1).standard_normal((576, 4608))).float()
    computed = [single.softmax(1).numpy(), (single @ encoder).numpy()]
    computed += [numpy.exp(numbers), numbers @ numbers.T]
    print(json.dumps({
        "capability": torch.backends.cpu.get_cpu_capability(),
        "digest": hashlib.sha256(b"".join(part.tobytes() for part in computed)).hexdigest(),
        "environment": dict(os.environ),
    }))

app(["show", "--scale", "smoke", "--threads", "1"])
"""

DIGEST = "84ec9c1a52ad4cee6dd7638d918a5d7f81fa4e5558d1804dee59921de7a9b37b"
"""What the job computed on an AMD EPYC. On Intel's processors with AVX2 it must be the same."""


def python(code, environment):
    """What Python prints, with these of a user's settings and no others."""
    cleared = {key: value for key, value in os.environ.items() if key not in USERS}
    return subprocess.check_output(
        [sys.executable, "-c", code], text=True, cwd=ROOT,
        env=cleared | {"PYTHONPATH": str(ROOT / "src")} | environment,
    )  # fmt: skip


def test_a_job_computes_the_same_whatever_the_users_environment_says():
    plain, other = (json.loads(python(A_JOB, settings)) for settings in ({}, USERS))
    assert plain["digest"] == other["digest"]
    if platform.machine() == "x86_64" and plain["capability"] == "AVX2":
        assert plain["digest"] == DIGEST
    for job in (plain, other):
        assert job["capability"] != "AVX512"
        assert job["environment"].items() >= (AVX2 | ALWAYS).items()
        assert not set(NEVER) & job["environment"].keys()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="MKL is for x86-64")
def test_mkl_is_told_that_the_processor_is_intels():
    asked = "import ctypes; print(ctypes.CDLL(None).mkl_serv_intel_cpu_true())"
    prepared = "from transcoders.process import set_environment; set_environment('avx2')"
    assert python(f"{prepared}; {asked}", {}) == "1\n"


def test_auto_is_whatever_the_processor_has_and_not_what_the_user_says(monkeypatch):
    for name, value in USERS.items():
        monkeypatch.setenv(name, value)
    set_environment("auto")
    assert not {*NEVER, *AVX2} & os.environ.keys()
    assert os.environ.items() >= ALWAYS.items()


def test_a_user_without_a_name_and_a_home_gets_both(tmp_path, monkeypatch):
    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process.pwd, "getpwuid", unknown)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    set_environment("avx2")
    assert getpass.getuser() == f"user{os.getuid()}"
    assert os.access(Path.home(), os.W_OK) and Path.home().is_relative_to(tmp_path)


def test_commands_can_be_listed_before_anything_that_reads_the_environment_is_loaded():
    listed = "import sys, transcoders.cli; print({'numpy', 'torch', 'numba'} & sys.modules.keys())"
    assert python(listed, {}) == "set()\n"


def test_a_job_uses_a_gpu_if_the_machine_has_one_and_it_may(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    assert prepare_process(1, ONE, "cuda") == "cpu"
    assert prepare_process(1, WITH_GPU, "cuda") == prepare_process(1, ONE, "auto") == "cuda"
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert prepare_process(1, WITH_GPU, "auto", keep_freed_memory=True) == "cpu"
    with pytest.raises(UserError, match="expected a GPU"):
        prepare_process(1, WITH_GPU, "cuda")
    with pytest.raises(UserError, match="must run on 1 threads, 2 were granted"):
        prepare_process(2, ONE)
