"""What a job sets for its whole process before it computes."""

import ctypes
import fcntl
import os
import sys
import tempfile
from pathlib import Path
from typing import IO

from transcoders.config import Resources
from transcoders.errors import UserError

ELEMENTWISE = ("cos", "erf", "exp", "log", "sin", "sqrt", "tanh")
_claims: list[IO[str]] = []
"""Files that this process has locked. The system unlocks them when it ends, however it ends."""


def prepare_process(
    granted: int | None,
    resources: Resources,
    device: str = "cpu",
    *,
    keep_freed_memory: bool = False,
    tf32: bool = False,
) -> str:
    """Fix what may change a byte: the number of threads, the device, the choice of algorithms.

    Sums split over another number of threads round differently, so fewer cores than the scale file
    fixes are refused rather than used.

    Args:
        granted: cores that the caller has; None if nobody counted.
        resources: what the scale file allots to the job.
        device: ``cpu``, ``auto`` for a GPU if there is one, or ``cuda`` for one where the job is
            allotted it: all others use the CPU.
        keep_freed_memory: whether large blocks are reused rather than returned to the system:
            faster where the same sizes come again and again, as in training, and wasteful
            where sizes vary, as in evaluation.
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
    if not resources.gpus and device == "cuda":
        device = "cpu"
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
    if tf32:
        torch.backends.cuda.matmul.fp32_precision = "tf32"
    # A help for debugging that writes to every new tensor; nothing here reads what it did not set.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        # Without a workspace of its own, cuBLAS may add up in another order from call to call.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        if granted is not None and resources.gpus:
            gpus = range(torch.cuda.device_count())
            torch.cuda.set_device(
                claim_gpu([str(torch.cuda.get_device_properties(n).uuid) for n in gpus])
            )
    return device


def claim_gpu(uuids: list[str]) -> int:
    """The number of a GPU that no other job on this machine has, now claimed by this process.

    A scheduler such as Slurm shows each job its own GPU only, as number 0. On a machine without
    one, jobs find out among themselves.

    Args:
        uuids: what the GPUs that this process sees are called by their makers, by number.

    Raises:
        UserError: all are taken.
    """
    for number, uuid in enumerate(uuids):
        path = Path(tempfile.gettempdir()) / f"transcoders-{os.getuid()}-gpu-{uuid}.lock"
        claim = path.open("w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            claim.close()
            continue
        _claims.append(claim)
        return number
    raise UserError(
        f"resources: all {len(uuids)} GPUs that this job can see are in use by other jobs; run "
        f"snakemake with --resources gpu={len(uuids)}, so that it starts no more of them at a time"
    )


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
