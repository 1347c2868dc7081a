"""What a run ran on: versions, hardware, threads, and hashes of its settings and its corpus."""

import os
import platform
import re
import shutil
import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transcoders.config import Scale
from transcoders.files import made_sha256, read_json
from transcoders.layout import Layout

LOCK = Path("requirements.lock")
CODE = ("src", "workflow", "Snakefile", "config", str(LOCK))
"""What decides a result. Results and documents may change during a run."""
SHOWN = ("numpy", "pandas", "scikit-learn", "scipy", "snakemake", "tokenizers", "torch",
         "transformers")  # fmt: skip


def environment_record(scale: Scale, layout: Layout) -> dict[str, Any]:
    """Describe this machine and this checkout, without anything of the moment.

    The same machine and checkout give the same record: no time, no path, no name of host or user.
    ``trained_on`` is collected from the dictionaries, which other machines may have trained on a
    cluster.

    Raises:
        UserError: a dictionary or the corpus has not been made yet.
    """
    hashed, trained = (layout.config, layout.corpus_manifest), scale.dictionaries
    records = [read_json(layout.dictionary(entry.name) / "cfg.json") for entry in trained]
    return {
        "scale": scale.name,
        "commit": commit(Path.cwd()),
        "sha256": {str(path): made_sha256(path) for path in hashed},
        "python": platform.python_version(),
        "versions": package_versions(*SHOWN),
        "not_as_locked": differing(LOCK),
        "hardware": hardware(),
        "instruction_set": scale.instruction_set,
        "threads": {rule: each["threads"] for rule, each in scale.resources.model_dump().items()},
        "trained_on": dict(Counter(record["training"]["device"] for record in records)),
    }


def commit(folder: Path) -> str:
    """The Git commit that is checked out in ``folder``, and whether the code differs from it.

    A copy without its history, such as a downloaded archive, has none, even if another repository
    is around it.
    """

    def git(*arguments: str) -> str:
        # Of this folder, whoever owns it and wherever the user's variables point.
        command = ["git", "-c", "safe.directory=*", *arguments]
        own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, env=own
        )
        return done.stdout.strip()

    has_history = (folder / ".git").exists() and shutil.which("git") is not None
    head = git("rev-parse", "HEAD") if has_history else ""
    if not head:
        return "unknown: not a Git checkout"
    changed = git("status", "--porcelain", "--untracked-files=normal", "--", *CODE)
    return f"{head} with uncommitted changes" if changed else head


def package_versions(*packages: str) -> dict[str, str]:
    """Installed versions, without the local part (+cpu, +cu130) that names a build."""
    return {package: version(package).split("+")[0] for package in packages}


def differing(lock: Path) -> dict[str, str]:
    """The installed version, or ``missing``, of each package that is not as in the lock file."""
    found = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        package, pinned, locked = line.partition("==")
        try:
            installed = package_versions(package)[package] if pinned else locked
        except PackageNotFoundError:
            installed = "missing"
        if installed != locked:
            found[package] = installed
    return found


def hardware() -> dict[str, Any]:
    """The processor, those of its instructions that PyTorch uses, memory, and GPUs."""
    import torch

    described = Path("/proc/cpuinfo")  # Linux alone has one
    model = re.search(r"model name\s*: (.*)", described.read_text() if described.exists() else "")
    return {
        "system": platform.platform(),
        "processor": model[1] if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes() / 2**30),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "gpus": [device_name(f"cuda:{number}") for number in range(torch.cuda.device_count())],
    }


def memory_bytes() -> int:
    """The memory of this machine, whether it is in use or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_name(device: str) -> str:
    """``cpu``, or ``cuda`` with the maker's name for the GPU."""
    import torch

    return device if device == "cpu" else f"cuda ({torch.cuda.get_device_name(device)})"
