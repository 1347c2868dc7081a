"""The page on which to rate, served to this machine alone (Section 4).

It is given the items of a study and nothing else of it, and writes one file, the rater's: after
every click, all or nothing. It listens on 127.0.0.1, and lets no other site that the browser has
open read or write: requests must name this host and port (or a name that resolves to 127.0.0.1
would do), and what is posted must come from this site and carry a token that is new at every start.
"""

import base64
import fcntl
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from flask import Flask, Response, abort, redirect, request
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from werkzeug.exceptions import HTTPException
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server
from werkzeug.wrappers import Response as BaseResponse

from transcoders.errors import UserError
from transcoders.rating.records import VERDICTS, Rating, Record, load_record, save_record
from transcoders.rating.study import Item, Study, begin

HOST = "127.0.0.1"
PORT = 8765
MAX_BODY_BYTES = 64 * 1024
MAX_NOTE_CHARACTERS = 2000


class RatingPages:
    """What is answered to each request."""

    def __init__(self, items: tuple[Item, ...], folder: Path, rater: str) -> None:
        """Serve items to one rater.

        Args:
            items: what is shown.
            folder: where the rater's file is.
            rater: whose ratings are read and written.
        """
        self._items, self._folder, self._rater = items, folder, rater
        self._token = secrets.token_urlsafe()
        here = files("transcoders.rating")
        source = here.joinpath("page.html.j2").read_text(encoding="utf-8")
        self._style = here.joinpath("page.css").read_text(encoding="utf-8")
        self._template = Environment(autoescape=True, undefined=StrictUndefined).from_string(source)
        script = source.partition("<script>")[2].partition("</script>")[0]
        self._policy = "; ".join(
            [
                "default-src 'none'",
                f"style-src '{_digest(self._style)}'",
                f"script-src '{_digest(script)}'",
                "form-action 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
            ]
        )

    def start(self) -> BaseResponse:
        """Lead to where the rater left off."""
        return _go_to(_next_unrated(self._load(), 0))

    def show(self, number: int) -> str:
        """The page of one item."""
        self._check_number(number)
        record = self._load()
        return self._template.render(
            style=Markup(self._style),
            token=self._token,
            number=number,
            item=self._items[number - 1],
            rating=record.ratings.get(number, Rating()),
            previous=record.ratings.get(number - 1, Rating()),
            record=record,
            max_note=MAX_NOTE_CHARACTERS,
        )

    def rate(self, number: int) -> BaseResponse:
        """Save what was said of one item, and lead on."""
        self._check_number(number)
        form = request.form
        note = "\n".join(form["note"].splitlines()).strip()
        verdict = form.get("verdict")
        if (verdict is not None and verdict not in VERDICTS) or len(note) > MAX_NOTE_CHARACTERS:
            abort(400)
        with self._alone():
            record = self._load_open()
            old = record.ratings.get(number, Rating())
            new = Rating(
                verdict=verdict or old.verdict,
                context_free="context_free" in form,
                note=note,
            )
            if new != old:
                ratings = record.ratings | {number: new}
                record = record.model_copy(update={"ratings": ratings})
                save_record(self._folder, record)
        match form.get("go", "next"):
            case "previous":
                return _go_to(max(number - 1, 1))
            case "stay":
                return _go_to(number)
            case "unrated":
                return _go_to(_next_unrated(record, number))
        if number < len(self._items):
            return _go_to(number + 1)
        return _go_to(min(record.unrated, default=number))

    def finish(self) -> BaseResponse:
        """Seal the ratings, once all items are rated."""
        with self._alone():
            record = self._load_open()
            if record.unrated or "sure" not in request.form:
                abort(409, "Nothing was finished: items are not rated, or the box is not ticked.")
            save_record(self._folder, record.model_copy(update={"finished": True}))
        return _go_to(1)

    def guard(self) -> None:
        """Refuse what does not come from this page."""
        # The server's own port: the client has no part in it.
        port = request.environ["SERVER_PORT"]
        host = request.headers.get("Host")
        if host not in (f"{HOST}:{port}", f"localhost:{port}"):
            abort(403, "This page answers under its own address only.")
        if request.method in ("GET", "HEAD", "OPTIONS"):
            return
        origin = request.headers.get("Origin")
        site = f"http://{host}"
        if origin is None:
            from_here = request.headers.get("Referer", "").startswith(f"{site}/")
        else:
            from_here = origin == site
        if not from_here:
            abort(403, "Nothing was saved: this came from another site.")
        token = request.form.get("token", "")
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            abort(
                403,
                "Nothing was saved: this page is from before the program was started anew. "
                "Go back, copy your note if there is one, and load the page again.",
            )

    def protect(self, response: Response) -> Response:
        """Headers for every answer."""
        response.headers["Content-Security-Policy"] = self._policy
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "same-origin"
        response.headers["Cache-Control"] = "no-store"
        return response

    def _load(self) -> Record:
        return load_record(self._folder, self._rater)

    def _load_open(self) -> Record:
        record = self._load()
        if record.finished:
            abort(409, "Nothing was saved: these ratings are finished.")
        return record

    def _check_number(self, number: int) -> None:
        if not 1 <= number <= len(self._items):
            abort(404)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other requests, and other processes of the same rater, from writing in between."""
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)


def make_app(study: Study, folder: Path, rater: str) -> Flask:
    """The page of one rater, as a WSGI application.

    Args:
        study: what is rated.
        folder: where ratings are kept, a file for each rater.
        rater: a name of letters, digits, _ and -.

    Raises:
        UserError: a bad name, or a file that is damaged or of another study.
    """
    begin(study, folder, rater)
    pages = RatingPages(study.items, folder, rater)
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    app.before_request(pages.guard)
    app.after_request(pages.protect)
    app.add_url_rule("/", view_func=pages.start)
    app.add_url_rule("/item/<int:number>", view_func=pages.show)
    app.add_url_rule("/item/<int:number>", view_func=pages.rate, methods=["POST"])
    app.add_url_rule("/finish", view_func=pages.finish, methods=["POST"])

    def plain(error: HTTPException) -> BaseResponse:
        response = error.get_response()
        response.content_type = "text/plain; charset=utf-8"
        response.set_data(f"{error.code}: {error.description}\n")
        return response

    def failed(error: UserError) -> BaseResponse:
        app.logger.error("error: %s", error)  # It names paths, which are not for the page.
        return Response(
            "500: Nothing was saved: the terminal says why.\n", 500, mimetype="text/plain"
        )

    app.register_error_handler(HTTPException, plain)
    app.register_error_handler(UserError, failed)
    return app


def listen(app: Flask, *, port: int = PORT) -> BaseWSGIServer:
    """A server of this machine alone, ready to be run.

    Args:
        app: what it serves.
        port: to listen on; 0 is any free one.

    Raises:
        UserError: the port cannot be had.
    """
    if port != 0 and not 1024 <= port <= 65535:
        raise UserError(f"port: expected 0 or 1024 to 65535, found {port}; choose another")
    with socket.socket() as listener:
        # A port is free at once after the program has ended; one in use is refused all the same.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
            listener.listen()
        except OSError as error:
            raise UserError(
                f"port: expected {port} of {HOST} to be free, found {error.strerror}; "
                "choose another, or 0 for any"
            ) from None
        # Werkzeug would end the process at a taken port, so it is given a socket that listens. A
        # thread for each request, since browsers open connections that they do not use.
        return make_server(
            HOST, port, app, threaded=True, request_handler=_Silent, fd=listener.fileno()
        )


def serve(study: Study, folder: Path, rater: str, *, port: int = PORT) -> None:
    """Let a rater rate, until Ctrl+C.

    Args:
        study: what is rated.
        folder: where ratings are kept.
        rater: whose ratings are read and written.
        port: to listen on; 0 is any free one.

    Raises:
        UserError: as :func:`make_app` and :func:`listen`.
    """
    server = listen(make_app(study, folder, rater), port=port)
    print(
        f"Open http://{HOST}:{server.port}/ to rate as {rater}; every click is saved, Ctrl+C stops",
        flush=True,
    )
    server.serve_forever()


class _Silent(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing of what went well."""


def _next_unrated(record: Record, number: int) -> int:
    later = [other for other in record.unrated if other > number]
    return min(later or record.unrated, default=max(number, 1))


def _go_to(number: int) -> BaseResponse:
    return redirect(f"/item/{number}", code=303)


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
