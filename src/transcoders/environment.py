"""What a run ran on: versions, hardware, threads, and hashes of what it was asked to do."""

import os
import platform
import subprocess
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transcoders.checksums import made_sha256
from transcoders.config import Scale
from transcoders.files import read_json
from transcoders.layout import Layout

LOCK = Path("requirements.lock")
CODE = ("src", "workflow", "Snakefile", "config", str(LOCK))
"""What decides a result. Results and documents may change during a run."""
SHOWN = ("numpy", "pandas", "scikit-learn", "scipy", "snakemake", "tokenizers", "torch",
         "transformers")  # fmt: skip


def environment_record(scale: Scale, layout: Layout) -> dict[str, Any]:
    """What this machine and this checkout are, without anything of the moment.

    The same machine and checkout give the same record: no time, no path, no name of host or user.
    ``trained_on`` is collected from the dictionaries, which on a cluster other machines trained.

    Raises:
        UserError: a dictionary or the corpus has not been made yet.
    """
    return {
        "scale": scale.name,
        "commit": commit(Path.cwd()),
        "sha256": {
            str(path): made_sha256(path) for path in (layout.config, layout.corpus_manifest)
        },
        "python": platform.python_version(),
        "versions": package_versions(*SHOWN),
        "not_as_locked": differing(LOCK),
        "hardware": hardware(),
        "threads": {
            rule: resources["threads"] for rule, resources in scale.resources.model_dump().items()
        },
        "trained_on": dict(
            Counter(
                read_json(layout.dictionary(entry.name) / "cfg.json")["training"]["device"]
                for entry in scale.dictionaries
            )
        ),
    }


def commit(folder: Path) -> str:
    """The Git commit that is checked out in ``folder``, and whether the code differs from it.

    A copy without its history, as from a downloaded archive, has none.
    """
    if _git(folder, "rev-parse", "--show-cdup") != "":  # also if another repository is around it
        return "unknown: not a Git checkout"
    changed = _git(folder, "status", "--porcelain", "--", *CODE)
    return f"{_git(folder, 'rev-parse', 'HEAD')}{' with uncommitted changes' if changed else ''}"


def _git(folder: Path, *arguments: str) -> str | None:
    """What a Git command prints, or None if it fails."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # Git is not installed
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def package_versions(*packages: str) -> dict[str, str]:
    """Installed versions, without the local part (+cpu, +cu130) that names a build."""
    return {package: version(package).split("+")[0] for package in packages}


def differing(lock: Path) -> dict[str, str]:
    """Packages whose installed version is not the locked one: the installed one, or ``missing``."""
    found = {}
    for line in lock.read_text(encoding="utf-8").splitlines():
        package, pinned, locked = line.partition("==")
        if not pinned:
            continue
        try:
            installed = package_versions(package)[package]
        except PackageNotFoundError:
            installed = "missing"
        if installed != locked:
            found[package] = installed
    return found


def hardware() -> dict[str, Any]:
    """The processor, what of it PyTorch uses, memory, and GPUs."""
    import torch

    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_bytes() / 2**30),
        "vector_instructions": torch.backends.cpu.get_cpu_capability(),
        "gpus": [device_name(f"cuda:{number}") for number in range(torch.cuda.device_count())],
    }


def memory_bytes() -> int:
    """Of this machine, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def device_name(device: str) -> str:
    """``cpu``, or ``cuda`` with what the GPU is called by its maker."""
    import torch

    return device if device == "cpu" else f"cuda ({torch.cuda.get_device_name(device)})"


def _processor() -> str:
    """What the maker calls it; Linux alone says it in a file."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
