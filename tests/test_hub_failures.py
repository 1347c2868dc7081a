"""Fetching from a hub that fails: on loopback, over real HTTP, with the hub's own library.

Only the library's waits between its attempts are left out.
"""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import close_session, constants, file_download
from huggingface_hub.utils import _http

from helpers_hub import add_to_hub, digest
from helpers_hub_server import HubServer, Refusal, connect
from transcoders.config import HubDataset, HubSource
from transcoders.errors import UserError
from transcoders.sources import fetch_from_hub

REPO, REVISION = "org/name", "a" * 40
CONFIG, WEIGHTS = b'{"a": 1}', bytes(range(256)) * 40
FILES = {"config.json": CONFIG, "sub/weights.bin": WEIGHTS, "notes.txt": b"not wanted"}
NAMES = ["config.json", "sub/weights.bin"]
GLOBS = ["*.json", "*.bin"]


def source(kind=HubSource, **changes):
    values = {"type": "hub", "repo": REPO, "revision": REVISION, "license": "MIT"}
    return kind.model_validate(values | changes)


def message_of(patterns=NAMES, **changes):
    """What a fetch that must fail says: one line that names the repository and the revision."""
    asked = source(**changes)
    with pytest.raises(UserError) as caught:
        fetch_from_hub(asked, patterns)
    message = str(caught.value)
    assert "\n" not in message and f"{asked.repo} at {asked.revision}" in message
    assert "expected" in message and "found" in message and "; " in message
    return message


@pytest.fixture
def server(hub, monkeypatch):  # noqa: ARG001  (hub is set up first)
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


@pytest.mark.parametrize(
    ("kind", "patterns"), [(HubSource, NAMES), (HubDataset, [*GLOBS, "merges*"])]
)
def test_wanted_files_arrive_whole_and_are_fetched_once(server, kind, patterns):
    server.kind = "model" if kind is HubSource else "dataset"
    server.cuts = [len(WEIGHTS) // 2]
    pinned = source(kind, sha256={"sub/weights.bin": digest(WEIGHTS)})
    snapshot = fetch_from_hub(pinned, patterns)
    found = {str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file()}
    assert found == set(NAMES)
    assert all((snapshot / name).read_bytes() == FILES[name] for name in NAMES)
    asked = len(server.requests)
    assert fetch_from_hub(pinned, patterns) == snapshot
    assert len(server.requests) == asked


def test_a_damaged_or_other_file_is_refused_and_the_advice_repairs_it(server):
    server.files["config.json"] = b'{"a": 2}'
    pinned = {"config.json": digest(CONFIG)}
    message = message_of(sha256=pinned)
    assert digest(CONFIG) in message and digest(b'{"a": 2}') in message
    server.files["config.json"] = CONFIG
    Path(re.search("; delete (.+) and run again", message)[1]).unlink()
    snapshot = fetch_from_hub(source(sha256=pinned), NAMES)
    assert (snapshot / "config.json").read_bytes() == CONFIG


@pytest.mark.parametrize(
    ("step", "refusal", "expected"),
    [
        ("list", Refusal(404, "RepoNotFound"), "no model of that name on .* correct `repo` in"),
        ("list", Refusal(200), "an answer that is not from http.*; log in to the network, or"),
        ("HEAD", Refusal(401, "GatedRepo"), f"gated .* accept its terms on http.*/{REPO} and set"),
        ("list", Refusal(500), r"found an error \(.*500.*; check the network, HF_HUB_OF"),
        ("GET", Refusal(403), r"found an error \(.*403.*; check the network, HF_HUB_OF"),
    ],
)
def test_what_the_hub_refuses_is_said_with_what_to_do(server, step, refusal, expected):
    server.refusals[step] = refusal
    assert re.search(expected, message_of())


@pytest.mark.usefixtures("server")
def test_what_the_hub_does_not_have_is_said():
    assert "found no dataset of that name" in message_of(kind=HubDataset)
    assert "found no such revision in the repository; correct" in message_of(revision="b" * 40)
    assert "expected a file more.bin, found none; correct its name" in message_of(["more.bin"])


@pytest.mark.usefixtures("server")
def test_a_disk_that_is_full(hub, monkeypatch):
    def write_to_a_full_disk(url, _, **options):
        with Path("/dev/full").open("wb") as full:  # the kernel says that there is no room
            http_get(url, full, **options)

    http_get = file_download.http_get
    monkeypatch.setattr(file_download, "http_get", write_to_a_full_disk)
    assert re.search(rf"found no room left in {hub} \(.*; free some space, then", message_of())


@pytest.mark.usefixtures("server")
def test_without_a_hub_the_cache_is_used_and_what_is_missing_is_named(hub, monkeypatch):
    with HubServer(REPO, REVISION, {}).running() as gone:
        connect(monkeypatch, gone.endpoint)
    assert f"{', '.join(NAMES)}, found no working connection to {gone.endpoint} (" in message_of()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    expected = f"found no copy in the hub's cache ({hub}) while offline mode is on; unset"
    assert expected in message_of()
    snapshot = add_to_hub(hub, REPO, REVISION, {"config.json": CONFIG}, "model")
    assert "expected a file sub/weights.bin, found none" in message_of()
    (snapshot / "sub").mkdir()
    (snapshot / "sub/weights.bin").write_bytes(WEIGHTS)
    for offline in (True, False):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        assert fetch_from_hub(source(), NAMES) == fetch_from_hub(source(), GLOBS) == snapshot
