"""Fetching from a hub that fails: on loopback, over real HTTP, with the hub's own library.

Only the library's waits between its attempts are left out.
"""

import errno
import os
import re
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import close_session, constants, file_download
from huggingface_hub.utils import _http

from helpers_hub import add_to_hub, digest
from helpers_hub_server import HubServer, Refusal, connect
from transcoders.config import HubSource
from transcoders.errors import UserError
from transcoders.sources import fetch_from_hub

REPO, REVISION = "org/name", "a" * 40
CONFIG, WEIGHTS = b'{"a": 1}', bytes(range(256)) * 40
FILES = {"config.json": CONFIG, "sub/weights.bin": WEIGHTS, "notes.txt": b"not wanted"}
NAMES = ["config.json", "sub/weights.bin"]
GLOBS = ["*.json", "*.bin"]


def source(**changes: object) -> HubSource:
    values = {"type": "hub", "repo": REPO, "revision": REVISION, "license": "MIT"}
    return HubSource.model_validate(values | changes)


def message_of(patterns: list[str] = NAMES, *, repo_type: str = "model", **changes: object) -> str:
    """What a fetch that must fail says: one line that names the repository and the revision."""
    asked = source(**changes)
    with pytest.raises(UserError) as caught:
        fetch_from_hub(asked, patterns, repo_type=repo_type)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{asked.repo} at {asked.revision}" in message
    assert "expected" in message and "found" in message and "; " in message
    return message


@pytest.fixture
def gone() -> str:
    """The address of a server that has closed."""
    with HubServer(REPO, REVISION, {}).running() as server:
        return server.endpoint


@pytest.fixture
def server(hub, monkeypatch) -> Iterator[HubServer]:  # noqa: ARG001
    """A hub on loopback with ``FILES``, and the library connected to it, its cache empty."""
    waits = SimpleNamespace(sleep=lambda _: None)
    monkeypatch.setattr(file_download, "time", waits)
    monkeypatch.setattr(_http, "time", waits)
    # A part of a file is written, and resumed from, in chunks of this size.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 256)
    with HubServer(REPO, REVISION, dict(FILES)).running() as running:
        connect(monkeypatch, running.endpoint)
        yield running
    close_session()


def blobs(hub: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in hub.glob("*/blobs/*"))


@pytest.mark.parametrize("kind", ["model", "dataset"])
@pytest.mark.parametrize("patterns", [NAMES, GLOBS])
def test_wanted_files_arrive_whole_and_are_fetched_once(server, kind, patterns):
    server.kind = kind
    pinned = source(sha256={"sub/weights.bin": digest(WEIGHTS)})
    snapshot = fetch_from_hub(pinned, patterns, repo_type=kind)
    found = {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()}
    assert found == set(NAMES)
    assert all((snapshot / name).read_bytes() == FILES[name] for name in NAMES)
    asked = len(server.requests)
    assert fetch_from_hub(pinned, patterns, repo_type=kind) == snapshot
    assert len(server.requests) == asked


def test_another_file_than_the_pinned_one_is_refused(server):
    server.files["config.json"] = b'{"a": 2}'
    message = message_of(sha256={"config.json": digest(CONFIG)})
    for part in ("config.json", digest(CONFIG), digest(b'{"a": 2}')):
        assert part in message


@pytest.mark.usefixtures("server")
def test_a_damaged_file_is_refused_and_the_advice_repairs_it():
    pinned = {"config.json": digest(CONFIG)}
    snapshot = fetch_from_hub(source(sha256=pinned), NAMES, repo_type="model")
    (snapshot / "config.json").write_bytes(b"damaged")
    message = message_of(sha256=pinned)
    advised = re.search("; delete (.+) and run again", message)
    Path(advised[1]).unlink()
    fetch_from_hub(source(sha256=pinned), NAMES, repo_type="model")
    assert (snapshot / "config.json").read_bytes() == CONFIG


def test_a_cut_download_resumes_where_it_broke_off(server):
    server.cut(len(WEIGHTS) // 2)
    snapshot = fetch_from_hub(source(), ["sub/weights.bin"], repo_type="model")
    assert (snapshot / "sub/weights.bin").read_bytes() == WEIGHTS
    first, second = server.gets()
    assert first.range is None
    assert second.range == f"bytes={first.sent}-"
    assert first.sent + second.sent == len(WEIGHTS)


@pytest.mark.parametrize("patterns", [NAMES, GLOBS])
def test_a_download_that_stays_cut_is_no_file_and_the_next_call_ends_it(
    server, hub, monkeypatch, patterns
):
    fetch_from_hub(source(), ["config.json"], repo_type="model")
    server.cuts = iter([len(WEIGHTS) // 2, *repeat(0, 20)])
    message = message_of(patterns)
    assert "expected sub/weights.bin, found no working connection" in message
    assert "then run again" in message
    assert blobs(hub) == [CONFIG]
    # Neither does a run without a network take it for complete.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "expected sub/weights.bin, found no copy" in message_of(patterns)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server.cut()
    server.requests.clear()
    snapshot = fetch_from_hub(source(), patterns, repo_type="model")
    assert all((snapshot / name).read_bytes() == FILES[name] for name in NAMES)
    # Of the file that is complete, nothing more; of the other, all: the library kept no part.
    assert [(r.what, r.range, r.sent) for r in server.gets()] == [
        ("sub/weights.bin", None, len(WEIGHTS))
    ]


@pytest.mark.parametrize(
    ("refusal", "repo_type"),
    [(Refusal(404, "RepoNotFound"), "model"), (Refusal(401), "dataset")],
)
def test_a_repository_that_is_missing_or_private(server, refusal, repo_type):
    server.refusals["list"] = refusal
    message = message_of(repo="org/absent", repo_type=repo_type)
    assert f"found no {repo_type} of that name on {server.endpoint}, or a private one" in message
    assert "correct `repo` in the scale file" in message
    assert "HF_TOKEN" in message


@pytest.mark.usefixtures("server")
def test_a_model_of_the_name_of_a_dataset_is_another_repository():
    assert "found no dataset of that name" in message_of(repo_type="dataset")


def test_a_commit_that_is_gone(server):
    message = message_of(revision="b" * 40)
    assert "found no such revision in the repository" in message
    assert "correct `revision` in the scale file" in message
    assert f"{server.endpoint}/{REPO}" in message


@pytest.mark.parametrize(("status", "step"), [(401, "list"), (401, "HEAD"), (403, "HEAD")])
@pytest.mark.parametrize(("kind", "page"), [("model", REPO), ("dataset", f"datasets/{REPO}")])
def test_a_gated_repository(server, status, step, kind, page):
    server.kind = kind
    server.refusals[step] = Refusal(status, "GatedRepo")
    message = message_of(repo_type=kind)
    assert "found a gated repository" in message
    assert f"accept its terms on {server.endpoint}/{page} and set HF_TOKEN" in message


@pytest.mark.parametrize("status", [500, 504])
@pytest.mark.parametrize("step", ["list", "HEAD", "GET"])
def test_a_server_error_outlasts_the_attempts_of_the_library(server, status, step):
    server.refusals[step] = Refusal(status)
    message = message_of(["config.json"])
    assert "expected config.json, found a server error" in message
    assert str(status) in message
    assert f"wait until {server.endpoint} works, then run again" in message
    assert "network" not in message
    if step != "GET":
        assert sum((r.method, r.what)[step == "list"] == step for r in server.requests) > 1


@pytest.mark.parametrize("status", [403, 429])
@pytest.mark.parametrize("step", ["list", "HEAD", "GET"])
def test_another_refusal_is_told_as_it_came(server, status, step):
    server.refusals[step] = Refusal(status)
    message = message_of(["config.json"])
    assert "found an error (" in message
    assert str(status) in message
    assert "check the network, HF_HUB_OFFLINE and HF_TOKEN" in message


def test_a_token_that_is_wrong(server, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    server.refusals["HEAD"] = Refusal(401)
    message = message_of()
    assert "401" in message
    assert "HF_TOKEN" in message


@pytest.mark.usefixtures("server")
def test_a_server_that_is_gone(gone, monkeypatch):
    connect(monkeypatch, gone)
    message = message_of()
    assert f"expected {', '.join(NAMES)}, found no working connection to {gone} (" in message
    assert "refused" in message
    assert "check the network, the proxy and HF_ENDPOINT, then run again" in message


def test_a_server_that_does_not_answer(server, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    server.stalls = True
    message = message_of(["config.json"])
    assert "found no working connection" in message
    assert "timed out" in message


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("error", [ConnectionResetError, TimeoutError])
def test_a_connection_that_fails_without_a_word(monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(file_download, "http_get", fail)
    assert f"found no working connection to {constants.ENDPOINT} ({error.__name__})" in message_of()


@pytest.mark.usefixtures("server")
def test_a_server_that_is_no_hub(monkeypatch):
    monkeypatch.setattr(constants, "HUGGINGFACE_HEADER_X_REPO_COMMIT", "X-Of-Another-Kind")
    message = message_of()
    assert "found an error (" in message
    assert "HF_ENDPOINT" in message


@pytest.mark.parametrize("failure", ["disk", "quota", "rust"])
@pytest.mark.usefixtures("server")
def test_a_disk_that_is_full(hub, monkeypatch, failure):
    def write_to_a_full_disk(url, _, **options):
        if failure == "quota":
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        if failure == "rust":
            raise RuntimeError("Data processing error: No space left on device (os error 28)")
        with Path("/dev/full").open("wb") as full:  # the kernel says that there is no room
            http_get(url, full, **options)

    http_get = file_download.http_get
    monkeypatch.setattr(file_download, "http_get", write_to_a_full_disk)
    message = message_of()
    assert f"found no room left in {hub} (" in message
    assert "free some space, then run again" in message
    assert blobs(hub) == []


@pytest.mark.usefixtures("server")
def test_a_name_that_no_repository_can_have():
    assert "found an error (" in message_of(repo="org/na--me")


@pytest.mark.parametrize("failure", ["offline", "gone", "500", "404"])
def test_what_the_cache_holds_whole_needs_no_hub(hub, server, gone, monkeypatch, failure):
    snapshot = add_to_hub(hub, REPO, REVISION, {name: FILES[name] for name in NAMES}, "model")
    if failure == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    elif failure == "gone":
        connect(monkeypatch, gone)
    else:
        server.refusals["list"] = Refusal(int(failure), {"404": "RepoNotFound"}.get(failure, ""))
    assert fetch_from_hub(source(), NAMES, repo_type="model") == snapshot
    assert fetch_from_hub(source(), GLOBS, repo_type="model") == snapshot


def test_offline_with_an_empty_cache(hub):
    message = message_of()
    assert f"expected {', '.join(NAMES)}, found no copy in the hub's cache ({hub})" in message
    assert "unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE, then run again" in message


@pytest.mark.parametrize("kind", ["model", "dataset"])
def test_offline_with_a_part_of_the_files(server, monkeypatch, kind):
    server.kind = kind
    fetch_from_hub(source(), ["config.json"], repo_type=kind)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    message = message_of(repo_type=kind)
    assert "expected sub/weights.bin, found no copy in the hub's cache" in message
    assert "unset HF_HUB_OFFLINE" in message


@pytest.mark.parametrize("offline", [True, False])
@pytest.mark.usefixtures("server")
def test_a_part_of_the_files_without_a_list_of_them(hub, gone, monkeypatch, offline):
    # What a version of the library leaves that keeps no list of a repository's files.
    add_to_hub(hub, REPO, REVISION, {"config.json": CONFIG}, "model")
    connect(monkeypatch, gone)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    message = message_of()
    assert "expected a file sub/weights.bin, found none in the hub's cache" in message
    assert "unset HF_HUB_OFFLINE or check the network" in message


@pytest.mark.usefixtures("server")
def test_a_name_that_the_repository_lacks():
    message = message_of([*NAMES, "more.bin"])
    assert "expected a file more.bin, found none among the files to fetch" in message
    assert "correct its name in the scale file" in message


@pytest.mark.usefixtures("server")
def test_a_name_beside_a_glob_pattern_may_be_absent():
    snapshot = fetch_from_hub(source(), ["*.json", "merges.txt"], repo_type="model")
    assert [path.name for path in snapshot.iterdir()] == ["config.json"]


def test_a_link_to_a_content_that_was_deleted_is_no_file(hub):
    add_to_hub(hub, REPO, REVISION, {"config.json": CONFIG}, "model")
    for blob in hub.glob("*/blobs/*"):
        blob.unlink()
    assert "expected a file config.json, found none" in message_of(["config.json"])


@pytest.mark.parametrize("name", ["{}.incomplete", "{}.0123abcd.incomplete"])
def test_a_killed_download_is_seen_offline(hub, name):
    snapshot = add_to_hub(hub, REPO, REVISION, {"config.json": CONFIG}, "model")
    part = snapshot.parent.parent / "blobs" / name.format(digest(WEIGHTS))
    part.write_bytes(WEIGHTS[:100])
    message = message_of(GLOBS)
    assert f"found a download that was cut short ({part})" in message
    # By name, what is wanted is known to be there.
    assert fetch_from_hub(source(), ["config.json"], repo_type="model") == snapshot


def test_a_killed_download_that_a_later_one_made_good_is_no_obstacle(hub):
    snapshot = add_to_hub(hub, REPO, REVISION, {"config.json": CONFIG}, "model")
    part = snapshot.parent.parent / "blobs" / f"{digest(CONFIG)}.0123abcd.incomplete"
    part.write_bytes(CONFIG[:3])
    assert fetch_from_hub(source(), GLOBS, repo_type="model") == snapshot


@pytest.mark.usefixtures("server")
def test_a_killed_download_of_another_file_is_no_obstacle_where_the_list_is_known(monkeypatch):
    snapshot = fetch_from_hub(source(), NAMES, repo_type="model")
    part = snapshot.parent.parent / "blobs" / f"{digest(b'notes')}.0123abcd.incomplete"
    part.write_bytes(b"no")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch_from_hub(source(), GLOBS, repo_type="model") == snapshot


@pytest.mark.usefixtures("hub")
def test_many_files_are_told_in_few_words():
    message = message_of([f"{number}.bin" for number in range(80)])
    assert "expected 0.bin, 1.bin, 2.bin and 77 more, found" in message
