"""The server itself: where it listens, and what is left when it is killed."""

import http.client
import multiprocessing
import socket
import threading
import urllib.parse
from pathlib import Path

import pytest

from helpers_rating import files_in, make_study, running
from transcoders.errors import UserError
from transcoders.rating.records import load_record
from transcoders.rating.server import listen, make_app, serve


def test_only_this_machine_is_listened_to(tmp_path: Path) -> None:
    server = listen(make_app(make_study(), tmp_path, "anna"), port=0)
    assert server.socket.family == socket.AF_INET
    assert server.socket.getsockname() == ("127.0.0.1", server.port)
    assert server.port != 0
    with running(server) as port:
        # Another loopback address, which a server of all addresses would answer under.
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("GET", "/item/1")
        assert connection.getresponse().status == 200
        # The port that counts is the server's, whatever the request says.
        for host in ("127.0.0.1:80", "example.org", f"example.org:{port}"):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", "/item/1", headers={"Host": host})
            assert connection.getresponse().status == 403
        for url in (f"http://example.org:{port}/item/1", "http://example.org/item/1"):
            connection = http.client.HTTPConnection("127.0.0.1", port)
            connection.request("GET", url)
            assert connection.getresponse().status == 403


def test_a_body_without_an_end_is_cut_off(tmp_path: Path) -> None:
    server = listen(make_app(make_study(), tmp_path, "anna"), port=0)
    with running(server) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        headers = form | {"Origin": f"http://127.0.0.1:{port}"}
        chunks = (b"note=" + b"x" * 8192 for _ in range(9))
        connection.request("POST", "/item/1", body=chunks, headers=headers, encode_chunked=True)
        assert connection.getresponse().status in (403, 413)
    assert load_record(tmp_path, "anna").ratings == {}


def test_a_taken_port_is_told(tmp_path: Path) -> None:
    app = make_app(make_study(), tmp_path, "anna")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"port: expected {port} .* in use; choose another"):
            serve(make_study(), tmp_path, "anna", port=port)
    # And free again at once.
    listen(app, port=port).server_close()


@pytest.mark.parametrize("port", [-1, 1, 80, 1023, 65536])
def test_ports_that_are_none_are_told(port: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected 0 or 1024 to 65535"):
        listen(make_app(make_study(), tmp_path, "anna"), port=port)


def test_a_killed_program_has_lost_nothing_and_goes_on(tmp_path: Path) -> None:
    study = make_study()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("fork")
    for start in (1, 6):
        process = context.Process(
            target=serve, args=(study, tmp_path, "anna"), kwargs={"port": port}
        )
        process.start()
        try:
            for number in range(start, start + 5):
                _rate(port, number)
        finally:
            process.kill()
            process.join()
        record = load_record(tmp_path, "anna")
        assert sorted(record.ratings) == list(range(1, start + 5))
        assert files_in(tmp_path) == ["anna.json"]


def _rate(port: int, number: int) -> None:
    """As a browser would, with a new connection each time."""
    page = _request(port, "GET", f"/item/{number}")
    token = page.partition('name="token" value="')[2].partition('"')[0]
    form = urllib.parse.urlencode({"token": token, "note": "", "verdict": "maybe"})
    _request(port, "POST", f"/item/{number}", form)


def _request(port: int, method: str, path: str, body: str | None = None) -> str:
    for _ in range(400):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        headers = {
            "Origin": f"http://127.0.0.1:{port}",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        try:
            connection.request(method, path, body=body, headers=headers)
        except ConnectionRefusedError:  # Not yet started.
            threading.Event().wait(0.02)
            continue
        answer = connection.getresponse()
        assert answer.status in (200, 303)
        return answer.read().decode()
    raise AssertionError("the server did not start")
