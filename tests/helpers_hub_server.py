"""A hub of one repository at one revision on loopback, which fails in every way asked of it."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from typing import NamedTuple
from urllib.parse import urlsplit

from helpers_hub import digest


class Refusal(NamedTuple):
    """An answer other than the one asked for."""

    status: int
    code: str = ""
    """What the hub writes into ``X-Error-Code``."""


class Request(NamedTuple):
    """What a client asked for, and how much of a file it was sent."""

    method: str
    what: str
    """``list`` for the list of files, otherwise a file's name."""
    range: str | None
    sent: int


@dataclass
class HubServer:
    """What is on the hub, how it fails, and what was asked of it."""

    repo: str
    revision: str
    files: dict[str, bytes]
    kind: str = "model"
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """By what is asked for: ``list``, ``HEAD`` or ``GET``."""
    cuts: Iterator[int | None] = field(default_factory=lambda: repeat(None))
    """After how many bytes each answer to GET breaks off; None for one that is whole."""
    stalls: bool = False
    """Whether GET is left without an answer until the server closes."""
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def cut(self, *sizes: int | None) -> None:
        """Break the next answers to GET off after so many bytes each."""
        self.cuts = chain(sizes, repeat(None))

    def gets(self) -> list[Request]:
        """The requests for the contents of files."""
        return [
            request
            for request in self.requests
            if request.method == "GET" and request.what != "list"
        ]

    @contextmanager
    def running(self) -> Iterator["HubServer"]:
        """Serve for as long as the block lasts."""
        handler = type("Handler", (_Handler,), {"hub": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            self.endpoint = f"http://127.0.0.1:{server.server_port}"
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            try:
                yield self
            finally:
                self.closing.set()
                server.shutdown()
                thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Enough of the hub's protocol to list a repository's files and to fetch them."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass  # what was asked is in `requests`; standard error is for the tests' own output

    def _answer(self) -> None:
        hub = self.hub
        path = urlsplit(self.path).path
        prefix = "" if hub.kind == "model" else f"{hub.kind}s/"
        api, resolve = f"/api/{hub.kind}s/{hub.repo}/tree/", f"/{prefix}{hub.repo}/resolve/"
        start = next((start for start in (api, resolve) if path.startswith(start)), None)
        revision, _, name = path.removeprefix(start or "").partition("/")
        what = "list" if start == api else name
        refusal = hub.refusals.get("list" if start == api else self.command)
        if start is None:
            refusal = Refusal(404, "RepoNotFound")
        elif refusal is None and revision != hub.revision:
            refusal = Refusal(404, "RevisionNotFound")
        elif refusal is None and start == resolve and name not in hub.files:
            refusal = Refusal(404, "EntryNotFound")
        if refusal:
            hub.requests.append(Request(self.command, what, self.headers["Range"], 0))
            self._send(refusal.status, {"X-Error-Code": refusal.code} if refusal.code else {}, b"")
        elif start == api:
            hub.requests.append(Request(self.command, what, None, 0))
            listing = [
                {"type": "file", "path": path, "size": len(content), "oid": digest(content)[:40]}
                for path, content in hub.files.items()
            ]
            self._send(200, {"Content-Type": "application/json"}, json.dumps(listing).encode())
        else:
            self._send_file(name, hub.files[name])

    def _send_file(self, name: str, content: bytes) -> None:
        hub, asked = self.hub, self.headers["Range"]
        first = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        headers = {
            "ETag": f'"{digest(content)}"',
            "X-Repo-Commit": hub.revision,
            "Accept-Ranges": "bytes",
        }
        if asked:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        body = content[first:]
        cut = next(hub.cuts) if self.command == "GET" else None
        sent = 0 if self.command == "HEAD" else len(body[:cut])
        hub.requests.append(Request(self.command, name, asked, sent))
        if hub.stalls and self.command == "GET":
            hub.closing.wait(10)
            self.close_connection = True
        else:
            self._send(206 if asked else 200, headers, body, cut)

    def _send(
        self, status: int, headers: dict[str, str], body: bytes, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
