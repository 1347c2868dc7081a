"""What a job sets for its whole process before it computes."""

import ctypes
import sys

from transcoders.config import Resources
from transcoders.errors import UserError

ELEMENTWISE = ("cos", "erf", "exp", "log", "sin", "sqrt", "tanh")


def prepare_process(
    granted: int | None,
    resources: Resources,
    device: str = "cpu",
    *,
    keep_freed_memory: bool = False,
) -> str:
    """Fix what may change a byte: the number of threads, the device, the choice of algorithms.

    Sums split over another number of threads round differently, so fewer cores than the scale file
    fixes are refused rather than used.

    Args:
        granted: cores that the caller has; None if nobody counted.
        resources: what the scale file allots to the job.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU if there is one.
        keep_freed_memory: whether large blocks are reused rather than returned to the system:
            faster where the same sizes come again and again, as in training, and wasteful
            where sizes vary, as in evaluation.

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
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError(
            "device: expected a GPU that PyTorch can use, found none; set `device: cpu` in the "
            "scale file, or install PyTorch's CUDA build of the version in requirements.lock"
        )
    if keep_freed_memory:
        _keep_freed_memory()
    torch.set_num_threads(resources.threads)
    settle_elementwise_functions()
    torch.use_deterministic_algorithms(True)
    # A help for debugging that writes to every new tensor; nothing here reads what it did not set.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def settle_elementwise_functions() -> None:
    """Call the functions that models apply to numbers one by one, on a single thread.

    The mathematical library underneath settles at the first call of such a function how to compute
    it. If several threads make that call together, one of them may get a coarser way, and the first
    batch of the process other digits.
    """
    import torch

    for name in ELEMENTWISE:
        getattr(torch, name)(torch.ones(1))


def _keep_freed_memory() -> None:
    """Ask the C library to reuse large blocks instead of returning them to the system.

    Tensors of some ten megabytes come and go at every step; getting them page by page from the
    system each time costs more than the arithmetic on them.
    """
    if sys.platform == "linux":
        trim_threshold, mmap_threshold, largest = -1, -3, 2**31 - 1
        try:
            mallopt = ctypes.CDLL(None).mallopt
        except AttributeError:  # another C library than glibc
            return
        mallopt(trim_threshold, largest)
        mallopt(mmap_threshold, 2**30)
