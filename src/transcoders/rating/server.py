"""The page on which to rate, served to this machine alone (Section 4).

The server knows the items of a study and nothing else about it. It writes one file, the rater's,
after every click. It listens on 127.0.0.1, and no other site that is open in the browser can read
or write. For this, a request must name this host and port (a foreign name might resolve to
127.0.0.1), and a form must come from this site.
"""

import logging
import threading
from pathlib import Path

from flask import Flask, Response, abort, redirect, render_template, request
from jinja2 import StrictUndefined
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Response as BaseResponse

from transcoders.rating.records import Rating, Record, load_record, save_record
from transcoders.rating.study import Study, begin

HOST = "127.0.0.1"
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Texts of examples come from strangers. Whatever they hold, the browser runs the page's own script
only."""


class RatingPages:
    """The answer to each request of one rater."""

    def __init__(self, study: Study, folder: Path, rater: str) -> None:
        """Begin or go on; the arguments are those of :func:`make_app`."""
        begin(study, folder, rater)
        self._items, self._folder, self._rater = study.items, folder, rater
        self._writing = threading.Lock()

    def guard(self) -> None:
        """Refuse what does not come from this page."""
        # The server's own port: a client cannot change it.
        hosts = [f"{name}:{request.environ['SERVER_PORT']}" for name in (HOST, "localhost")]
        host = request.headers.get("Host")
        if host not in hosts:
            abort(403, "This page answers under its own address only.")
        if request.method == "POST" and request.headers.get("Origin") != f"http://{host}":
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
        return _go_to(_next_unrated(self._load(), 0))

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
            return _go_to(_next_unrated(record, number))
        return _go_to(max(number + {"previous": -1, "stay": 0}.get(go, 1), 1))

    def finish(self) -> BaseResponse:
        """Seal the ratings, once all items are rated."""
        with self._writing:
            record = self._load(to_write=True)
            if record.unrated or "sure" not in request.form:
                abort(409, "Nothing was finished: items are not rated, or the box is not ticked.")
            save_record(self._folder, record.model_copy(update={"finished": True}))
        return _go_to(1)

    def _load(self, *, to_write: bool = False) -> Record:
        record = load_record(self._folder, self._rater)
        if to_write and record.finished:
            abort(409, "Nothing was saved: these ratings are finished.")
        return record


def make_app(study: Study, folder: Path, rater: str) -> Flask:
    """The page of one rater, as a WSGI application.

    Args:
        study: what is rated.
        folder: where ratings are kept, a file for each rater.
        rater: a name of letters, digits, _ and -.

    Raises:
        UserError: a bad name, or a file that is damaged or of another study.
    """
    pages = RatingPages(study, folder, rater)
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
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each click helps nobody
    return make_server(HOST, port, app, threaded=True)


def serve(study: Study, folder: Path, rater: str, *, port: int) -> None:
    """Let a rater rate, until Ctrl+C; arguments and errors are those of the functions above."""
    server = listen(make_app(study, folder, rater), port=port)
    print(
        f"Open http://{HOST}:{server.port}/ to rate as {rater}; every click is saved, Ctrl+C stops",
        flush=True,
    )
    server.serve_forever()


def _next_unrated(record: Record, number: int) -> int:
    later = [other for other in record.unrated if other > number]
    return min(later or record.unrated, default=max(number, 1))


def _go_to(number: int) -> BaseResponse:
    return redirect(f"/item/{number}", code=303)
