"""The page on which to rate, served to this machine alone (Section 4).

The server knows the items of a study and nothing else about it. It writes one file, the rater's,
after every click. It listens on 127.0.0.1, and no other site that is open in the browser can read
or write. For this, a request must name this machine, or the proxy that the rater names (any other
name might resolve to 127.0.0.1), and a form must come from the page's own site. Ports may differ: a
tunnel has another one. All links are relative, since a proxy may put a folder before them.
"""

import logging
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Response, abort, redirect, render_template, request
from jinja2 import StrictUndefined
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Response as BaseResponse

from transcoders.errors import UserError
from transcoders.rating.records import Rating, Record, load_record, save_record
from transcoders.rating.study import Study, begin

HOST = "127.0.0.1"
THIS_MACHINE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Texts of examples come from strangers. Whatever they hold, the browser runs the page's own script
only."""


class RatingPages:
    """The answer to each request of one rater."""

    def __init__(self, study: Study, folder: Path, rater: str, address: str | None) -> None:
        """Begin or go on; the arguments are those of :func:`make_app`."""
        proxy = urlsplit(address or "")
        if address and not (proxy.scheme in ("http", "https") and proxy.netloc):
            raise UserError(
                f"--address: expected an address such as https://hub.example.org/proxy/8765/, "
                f"found {address!r}; copy it from the browser"
            )
        begin(study, folder, rater)
        self._items, self._folder, self._rater = study.items, folder, rater
        self._proxy = proxy
        self._writing = threading.Lock()

    def guard(self) -> None:
        """Refuse what does not come from this page."""
        host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
        of_proxy = f"{self._proxy.scheme}://{self._proxy.netloc}"
        if not THIS_MACHINE.fullmatch(host) and (not host or host != self._proxy.netloc):
            abort(
                403,
                f"This page answers under its own address only, and this request was for {host}. "
                f"If that is your own proxy, start again with --address https://{host}/",
            )
        # A proxy may rewrite the host. What a browser says of the site cannot be forged by a page.
        is_own = request.headers.get("Sec-Fetch-Site") == "same-origin"
        if request.method == "POST" and not is_own and origin not in (f"http://{host}", of_proxy):
            abort(403, "Nothing was saved: this came from another site.")
        if (request.view_args or {}).get("number", 1) not in range(1, len(self._items) + 1):
            abort(404)

    def protect(self, response: Response) -> Response:
        """Set the headers of every answer."""
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["Cache-Control"] = "no-store"
        return response

    def start(self) -> BaseResponse:
        """Lead to where the rater left off."""
        return _go_to(f"item/{_next_unrated(self._load(), 0)}")

    def show(self, number: int) -> str:
        """Show the page of one item."""
        record = self._load()
        return render_template(
            "page.html.j2",
            number=number,
            item=self._items[number - 1],
            rating=record.ratings.get(number, Rating()),
            previous=record.ratings.get(number - 1, Rating()),
            record=record,
        )

    def rate(self, number: int) -> BaseResponse:
        """Save what was said of one item, and lead on."""
        form = request.form
        with self._writing:
            record = self._load(to_write=True)
            old = record.ratings.get(number, Rating())
            if form.get("seen", old.model_dump_json()) != old.model_dump_json():
                abort(409, "Nothing was saved: this item was changed in another tab. Reload it.")
            new = Rating.model_validate(
                {
                    "verdict": form.get("verdict", old.verdict),
                    "context_free": "context_free" in form,
                    "note": "\n".join(form["note"].splitlines()).strip(),
                }
            )
            if new != old:
                record = record.model_copy(update={"ratings": record.ratings | {number: new}})
                save_record(self._folder, record)
        go = form.get("go", "next")
        if go == "unrated" or (go == "next" and number == len(self._items)):
            return _go_to(str(_next_unrated(record, number)))
        return _go_to(str(max(number + {"previous": -1, "stay": 0}.get(go, 1), 1)))

    def finish(self) -> BaseResponse:
        """Seal the ratings, once all items are rated."""
        with self._writing:
            record = self._load(to_write=True)
            if record.unrated or "sure" not in request.form:
                abort(409, "Nothing was finished: items are not rated, or the box is not ticked.")
            save_record(self._folder, record.model_copy(update={"finished": True}))
        return _go_to("item/1")

    def _load(self, *, to_write: bool = False) -> Record:
        record = load_record(self._folder, self._rater)
        if to_write and record.finished:
            abort(409, "Nothing was saved: these ratings are finished.")
        return record


def make_app(study: Study, folder: Path, rater: str, address: str | None = None) -> Flask:
    """The page of one rater, as a WSGI application.

    Args:
        study: what is rated.
        folder: where ratings are kept, a file for each rater.
        rater: a name of letters, digits, _ and -.
        address: of the page in the browser, where a proxy gives it another.

    Raises:
        UserError: a bad name or address, or a file that is damaged or of another study.
    """
    pages = RatingPages(study, folder, rater, address)
    app = Flask(__name__, template_folder=".")
    app.jinja_options = {"autoescape": True, "undefined": StrictUndefined}
    app.before_request(pages.guard)
    app.after_request(pages.protect)
    app.add_url_rule("/", view_func=pages.start)
    app.add_url_rule("/item/<int:number>", view_func=pages.show)
    app.add_url_rule("/item/<int:number>", view_func=pages.rate, methods=["POST"])
    app.add_url_rule("/finish", view_func=pages.finish, methods=["POST"])
    return app


def listen(app: Flask, *, port: int) -> BaseWSGIServer:
    """A server of this machine alone, ready to run; port 0 is any free one.

    Browsers open connections that they do not use, so each request has a thread.

    Raises:
        UserError: the port is taken.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each click helps nobody
    try:
        with socket.socket() as free:  # the library would end the process
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind((HOST, port))
    except OSError as error:
        raise UserError(
            f"--port {port}: could not be opened ({error.strerror}); another page may be open "
            "there: give another port, or 0 for any that is free"
        ) from None
    return make_server(HOST, port, app, threaded=True)


def serve(study: Study, folder: Path, rater: str, *, port: int, address: str | None = None) -> None:
    """Let a rater rate, until Ctrl+C; arguments and errors are those of the functions above."""
    server = listen(make_app(study, folder, rater, address), port=port)
    print(
        f"Open {address or f'http://{HOST}:{server.port}/'} to rate as {rater}; every click is "
        "saved, Ctrl+C stops",
        flush=True,
    )
    server.serve_forever()


def _next_unrated(record: Record, number: int) -> int:
    later = [other for other in record.unrated if other > number]
    return min(later or record.unrated, default=max(number, 1))


def _go_to(page: str) -> BaseResponse:
    """Lead to a page, seen from this one."""
    return redirect(page, code=303)
