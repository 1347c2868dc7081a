"""What a job sets for its whole process before it computes."""

import ctypes
import os
import pwd
from pathlib import Path

from transcoders.config import Resources
from transcoders.errors import UserError
from transcoders.mkl import answer_as_intel

ELEMENTWISE = ("cos", "erf", "exp", "log", "sin", "sqrt", "tanh")
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's loops
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # PyTorch's GELU
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",  # PyTorch's products, with `answer_as_intel`
    "OPENBLAS_CORETYPE": "Haswell",  # NumPy's and SciPy's products
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # NumPy's loops
}
"""What keeps libraries to AVX2 where a processor has more."""
ALWAYS = {
    "OPENBLAS_NUM_THREADS": "1",  # it splits sums by the cores of the machine; its products are few
    "GOMP_SPINCOUNT": "10000",  # then a waiting thread sleeps: benchmarks/README.md
    "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this environment
    "MATPLOTLIBRC": os.devnull,  # figures have the style of `plots/`, and pages no warnings
    "MPLBACKEND": "agg",
    "PYTHONUTF8": "1",  # whatever the locale
}
NEVER = (
    "MKL_CBWR",  # any value makes MKL round differently
    "MKL_DYNAMIC", "OMP_DYNAMIC", "OMP_THREAD_LIMIT",  # fewer threads than the scale file says
    "NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",  # some containers set it
    "JUPYTER_PATH",  # kernels of another environment
    "PYTHONIOENCODING", "PYTHONOPTIMIZE", "PYTHONWARNINGS",
)  # fmt: skip
HOME = Path(".snakemake/home")
"""For users without a home that they can write to. Libraries keep caches and settings there."""


def set_environment(instruction_set: str) -> None:
    """Set what libraries read in the environment when they are loaded, so call it before.

    A user's settings that would change results are dropped: only the scale file may do that.
    A user without a name or a home, as in a container, gets both. Processes that are started from
    this one inherit it all; Snakemake calls this for its jobs, so that Python starts with it.

    Args:
        instruction_set: ``avx2``, or ``auto`` for whatever the processor has.
    """
    for name in (*AVX2, *NEVER):
        os.environ.pop(name, None)
    os.environ.update(ALWAYS)
    if instruction_set == "avx2":
        os.environ.update(AVX2)
        answer_as_intel()
    _name_and_home()


def _name_and_home() -> None:
    home = ""
    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        os.environ.setdefault("USER", f"user{os.getuid()}")
    if not os.access(os.environ.get("HOME", home), os.W_OK):
        HOME.mkdir(parents=True, exist_ok=True)
        os.environ["HOME"] = str(HOME.absolute())


def prepare_process(
    granted: int | None,
    resources: Resources,
    device: str = "cpu",
    *,
    keep_freed_memory: bool = False,
    tf32: bool = False,
) -> str:
    """Fix what may change results: the number of threads, the device, the choice of algorithms.

    Sums that are split over another number of threads round differently. So a job refuses to run
    on another number of cores than the scale file fixes.

    Args:
        granted: cores that the caller has; None if nobody counted.
        resources: what the scale file allots to the job.
        device: ``cpu``; ``cuda`` for a GPU if the job is allotted one, and the CPU otherwise; or
            ``auto`` for a GPU if the machine has one, allotted or not. The GPU is the first that
            this process sees: a scheduler shows each job its own.
        keep_freed_memory: whether to reuse large blocks. This is faster in training, where the
            same sizes come again and again, and wasteful where sizes vary.
        tf32: whether a GPU may round what it multiplies to TF32.

    Returns:
        ``cpu`` or ``cuda``.

    Raises:
        UserError: another number of cores was granted, or there is no GPU where one is asked for.
    """
    import torch  # here, so that commands that compute nothing start at once

    if granted is not None and granted != resources.threads:
        raise UserError(
            f"resources: this job must run on {resources.threads} threads, {granted} were granted; "
            f"give snakemake at least --cores {resources.threads}, or lower `threads` in the scale "
            "file (results then differ by rounding)"
        )
    if keep_freed_memory:
        _keep_freed_memory()
    torch.set_num_threads(resources.threads)
    _settle_elementwise_functions()
    # Like `use_deterministic_algorithms(True)`, which would also import a compiler: a second a job.
    torch.set_deterministic_debug_mode("error")
    if tf32:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    # An aid to debugging that writes to every new tensor; nothing here reads what it did not set.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # not in stubs
    wants_gpu = (resources.gpus > 0 and device == "cuda") or device == "auto"
    if not (wants_gpu and torch.cuda.is_available()):
        if wants_gpu and device == "cuda":
            raise UserError(
                "device: expected a GPU that PyTorch can use, found none; set `device: cpu` in the "
                "scale file, or install PyTorch's CUDA build of the version in requirements.lock"
            )
        return "cpu"
    # Without a workspace of its own, cuBLAS may add up in another order from call to call.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return "cuda"


def _settle_elementwise_functions() -> None:
    """Call the functions that models apply to numbers one by one, on a single thread.

    The mathematical library decides at the first call of such a function how to compute it. If
    several threads made that call together, one of them might get a less exact one.
    """
    import torch

    for name in ELEMENTWISE:
        getattr(torch, name)(torch.ones(1))


def _keep_freed_memory() -> None:
    """Ask the C library to reuse large blocks instead of returning them to the system.

    Tensors of some ten megabytes come and go at every step. Getting them page by page from the
    system each time costs more than the arithmetic on them.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # of glibc
        trim_threshold, mmap_threshold = -1, -3
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)
