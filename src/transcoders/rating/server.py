"""The page on which to rate, served to this machine alone (Section 4).

The server knows the items of a study and nothing else about it. It writes one file, the rater's,
after every click. It listens on 127.0.0.1, and no other site that is open in the browser can read
or write. For this, a request must name this machine, or the proxy that the rater names: any other
name might resolve to 127.0.0.1. Also, a form must come from the page's own site. Ports may differ:
a tunnel has another one. All links are relative, since a proxy may put a folder before them.
"""

import logging
import re
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from flask import Flask, Response, abort, redirect, render_template, request
from jinja2 import StrictUndefined
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Response as BaseResponse

from transcoders.errors import UserError
from transcoders.rating.records import Rating, Record, load_record, save_record
from transcoders.rating.study import Item, Study, begin

HOST = "127.0.0.1"
THIS_MACHINE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d{1,5})?")
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
"""Texts of examples come from strangers. Whatever they hold, the browser runs the page's own script
only."""


def make_app(
    study: Study,
    folder: Path,
    rater: str,
    address: str | None = None,
    language_model: str | None = None,
) -> Flask:
    """The page of one rater, as a WSGI application.

    Args:
        study: what is rated.
        folder: where ratings are kept, a file for each rater.
        rater: a name of letters, digits, _ and -.
        address: of the page in the browser, where a proxy gives it another.
        language_model: its name, if no person rates.

    Raises:
        UserError: a bad name or address, or a file that is damaged or of another study.
    """
    proxy = urlsplit(address or "")
    if address and not (proxy.scheme in ("http", "https") and proxy.netloc):
        raise UserError(
            f"--address: expected an address such as https://hub.example.org/proxy/8765/, "
            f"found {address!r}; copy it from the browser"
        )
    begin(study, folder, rater, language_model)
    app = Flask(__name__, template_folder=".")
    app.jinja_options = {"autoescape": True, "undefined": StrictUndefined}
    app.before_request(partial(_refuse_other_sites, proxy))
    app.after_request(_protect)
    _add_pages(app, study.items, folder, rater)
    return app


def listen(app: Flask, *, port: int) -> BaseWSGIServer:
    """A server of this machine alone, ready to run; port 0 is any free one.

    Browsers open connections that they do not use, so each request has a thread.

    Raises:
        UserError: the port is taken.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each click helps nobody
    try:
        return make_server(HOST, port, app, threaded=True)
    except SystemExit:  # the library has printed why, and would end the process
        raise UserError(
            f"--port {port}: could not be opened; another page may be open there: give another "
            "port, or 0 for any that is free"
        ) from None


def _refuse_other_sites(proxy: SplitResult) -> None:
    """Refuse what does not come from this page, at its own address or its proxy's."""
    host, origin = request.headers.get("Host", ""), request.headers.get("Origin")
    if not THIS_MACHINE.fullmatch(host) and (not host or host != proxy.netloc):
        abort(
            403,
            f"This page answers under its own address only, and this request was for {host}. "
            f"If that is your own proxy, start again with --address https://{host}/",
        )
    # A proxy may rewrite the host. What a browser says of the site cannot be forged by a page.
    is_own = request.headers.get("Sec-Fetch-Site") == "same-origin"
    of_proxy = f"{proxy.scheme}://{proxy.netloc}"
    if request.method == "POST" and not is_own and origin not in (f"http://{host}", of_proxy):
        abort(403, "Nothing was saved: this came from another site.")


def _protect(response: Response) -> Response:
    response.headers.update({"Content-Security-Policy": POLICY, "Cache-Control": "no-store"})
    return response


def _add_pages(app: Flask, items: Sequence[Item], folder: Path, rater: str) -> None:
    """The page of each item, and what its buttons do."""
    writing = threading.Lock()
    go_to = partial(redirect, code=303)  # to a page as seen from this one

    def load(number: int = 1) -> Record:
        record = load_record(folder, rater)
        if number not in range(1, len(items) + 1):
            abort(404)
        if request.method == "POST" and record.finished:
            abort(409, "Nothing was saved: these ratings are finished.")
        return record

    @app.get("/")
    def start() -> BaseResponse:
        return go_to(f"item/{_next_unrated(load(), 0)}")

    @app.get("/item/<int:number>")
    def show(number: int) -> str:
        record = load(number)
        return render_template(
            "page.html.j2", number=number, item=items[number - 1], record=record,
            rating=record.rating(number), previous=record.rating(number - 1),
        )  # fmt: skip

    @app.post("/item/<int:number>")
    def rate(number: int) -> BaseResponse:
        form = request.form
        with writing:
            record = load(number)
            old = record.rating(number)
            if form.get("seen", old.model_dump_json()) != old.model_dump_json():
                abort(409, "Nothing was saved: this item was changed in another tab. Reload it.")
            said = {
                "verdict": form.get("verdict", old.verdict),
                "context_free": "context_free" in form,
                "note": "\n".join(form["note"].splitlines()).strip(),
            }
            if (new := Rating.model_validate(said)) != old:
                record = record.model_copy(update={"ratings": record.ratings | {number: new}})
                save_record(folder, record)
        unrated = _next_unrated(record, number)
        after = number + 1 if number < len(items) else unrated
        pages = {"previous": max(number - 1, 1), "stay": number, "unrated": unrated}
        return go_to(str(pages.get(form.get("go", "next"), after)))

    @app.post("/finish")
    def finish() -> BaseResponse:
        with writing:
            record = load()
            if record.unrated or "sure" not in request.form:
                abort(409, "Nothing was finished: items are not rated, or the box is not ticked.")
            save_record(folder, record.model_copy(update={"finished": True}))
        return go_to("item/1")


def _next_unrated(record: Record, number: int) -> int:
    later = [other for other in record.unrated if other > number]
    return min(later or record.unrated, default=max(number, 1))
