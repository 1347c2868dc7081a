"""A hub of one repository at one revision on loopback, which fails in every way asked of it."""

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import urlsplit

from huggingface_hub import close_session, constants

from helpers_hub import digest
from helpers_serving import serving


def connect(monkeypatch, endpoint):
    """Point the hub's library at a server, without the account or proxy of whoever runs this."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", constants.HF_HUB_CACHE + "/token")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("HF_TOKEN", raising=False)
    close_session()


class Refusal(NamedTuple):
    """An answer other than the one asked for."""

    status: int
    code: str = ""
    """What the hub writes into ``X-Error-Code``."""


@dataclass
class HubServer:
    """What is on the hub, how it fails, and what was asked of it."""

    repo: str
    revision: str
    files: dict[str, bytes]
    kind: str = "model"
    refusals: dict[str, Refusal] = field(default_factory=dict)
    """By what is asked for: ``list``, ``HEAD`` or ``GET``."""
    cuts: list[int] = field(default_factory=list)
    """After how many bytes the next answers to GET break off."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """Method and name of a file; in place of a name, ``list`` for the list of files."""
    endpoint: str = ""

    @contextmanager
    def running(self):
        """Serve for as long as the block lasts."""
        handler = type("Handler", (_Handler,), {"hub": self})
        with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, serving(server) as port:
            self.endpoint = f"http://127.0.0.1:{port}"
            yield self


class _Handler(BaseHTTPRequestHandler):
    """Enough of the hub's protocol to list a repository's files and to fetch them."""

    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_POST(self):  # only the files of a dataset that is streamed are asked about so
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send_json([])

    def log_message(self, *_):
        pass  # what was asked is in `requests`; standard error is for the tests' own output

    def do_GET(self):
        hub = self.hub
        path = urlsplit(self.path).path
        prefix = "" if hub.kind == "model" else f"{hub.kind}s/"
        api, resolve = f"/api/{hub.kind}s/{hub.repo}/", f"/{prefix}{hub.repo}/resolve/"
        places = {f"{api}tree/": "list", f"{api}revision/": "info", resolve: ""}
        start = next((start for start in places if path.startswith(start)), None)
        revision, _, name = path.removeprefix(start or "").partition("/")
        what = places.get(start, "") or name
        refusal = hub.refusals.get("list" if start != resolve else self.command)
        if start is None:
            refusal = Refusal(404, "RepoNotFound")
        elif refusal is None and revision != hub.revision:
            refusal = Refusal(404, "RevisionNotFound")
        elif refusal is None and start == resolve and name not in hub.files:
            refusal = Refusal(404, "EntryNotFound")
        hub.requests.append((self.command, what))
        if refusal:
            self._send(refusal.status, {"X-Error-Code": refusal.code} if refusal.code else {}, b"")
        elif what == "info":
            self._send_json({"id": hub.repo, "sha": hub.revision})
        elif what == "list":
            self._send_json(self._listing(name))
        else:
            self._send_file(hub.files[name])

    do_HEAD = do_GET  # noqa: N815  (http.server looks for this name)

    def _listing(self, folder):
        """Files and folders in a folder, and in those below it if that was asked for."""
        start, files = f"{folder}/" if folder else "", self.hub.files
        folders = {str(parent) for path in files for parent in PurePosixPath(path).parents} - {"."}
        below = "recursive=true" in self.path.lower()
        return [
            {
                "type": "file" if path in files else "directory",
                "path": path,
                "size": len(files.get(path, b"")),
                "oid": digest(files.get(path, path.encode()))[:40],
            }
            for path in [*files, *sorted(folders)]
            if path.startswith(start) and (below or "/" not in path.removeprefix(start))
        ]

    def _send_file(self, content):
        hub, asked = self.hub, self.headers["Range"]
        first, _, last = (asked or "bytes=0-").removeprefix("bytes=").partition("-")
        body = content[int(first) : int(last) + 1 if last else None]
        headers = {
            "ETag": f'"{digest(content)}"',
            "X-Repo-Commit": hub.revision,
            "Accept-Ranges": "bytes",
        }
        if asked:
            end = int(first) + len(body) - 1
            headers["Content-Range"] = f"bytes {first}-{end}/{len(content)}"
        cut = hub.cuts.pop(0) if hub.cuts and self.command == "GET" else None
        self._send(206 if asked else 200, headers, body, cut)

    def _send_json(self, content):
        self._send(200, {"Content-Type": "application/json"}, json.dumps(content).encode())

    def _send(self, status, headers, body, cut=None):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[:cut])
        if cut is not None:
            self.close_connection = True
