"""What the page gives away (nothing), what it keeps (every click), and whom it answers."""

import html
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urljoin
from urllib.request import urlopen

import pytest
from bs4 import BeautifulSoup

from helpers_rating import PORT, SAE, SITE, TRANSCODER, Rater, disguise, make_study
from helpers_serving import serving
from transcoders.errors import UserError
from transcoders.rating.records import Rating, load_record
from transcoders.rating.server import listen, make_app

N_ITEMS = 40


@pytest.fixture(scope="module")
def study():
    return make_study()


@pytest.fixture
def anna(study, tmp_path):
    return Rater(make_app(study, tmp_path, "anna").test_client())


def everything(study, folder):
    """All answers to a rater who looks at all, rates all, errs in every way and finishes."""
    rater = Rater(make_app(study, folder, "anna").test_client())
    pages = ["/", *(f"/item/{number}" for number in range(len(study.items) + 2))]

    def look(when):
        for path in pages:
            yield f"{when} {path}", rater.client.get(path, base_url=SITE)

    yield from look("before")
    for number in range(1, len(study.items) + 1):
        yield "rating", rater.rate(number, "maybe", note=f"note {number}", context_free="yes")
    yield from look("rated")
    yield "nonsense", rater.post("/item/1", verdict="good")
    for path in ("/item/99", "/nothing", "/", "/finish", "/item/1"):
        yield f"post {path}", rater.post(path, sure="yes")
    yield from look("finished")
    for path in ("/static/page.css", "/static/page.js", "/static/../study.py", "/anna.json"):
        yield path, rater.client.get(path, base_url=SITE)
    yield "host", rater.client.get("/item/1", base_url="http://example.org")


def whole(response):
    """An answer without what changes with time."""
    headers = [header for header in response.headers if header[0] != "Date"]
    return f"{response.status} {headers} {response.get_data(as_text=True)}"


# Blindness.


def test_what_is_sent_names_no_source_and_is_the_same_wherever_examples_come_from(study, tmp_path):
    hidden = ("transcoder", "sae", "dictionar", "layer", "kind", "mlp", "frequency", "data-",
              "set-cookie")  # fmt: skip
    another = make_study(disguise(SAE), disguise(TRANSCODER))
    first, second = everything(study, tmp_path / "one"), everything(another, tmp_path / "other")
    for (what, answer), (same, its) in zip(first, second, strict=True):
        sent = whole(answer)
        assert (what, sent) == (same, whole(its))
        words = [word for word in hidden if word in sent.lower()]
        assert words == [] or "/static/" in what, what
        assert answer.headers["Cache-Control"] == "no-store", what
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; "), what
        assert "unsafe" not in policy and "*" not in policy


def test_all_examples_are_on_the_page_and_tokens_are_only_text(study, anna):
    seen = ""
    for number, item in enumerate(study.items, 1):
        page = BeautifulSoup(anna.page(f"/item/{number}"), "html.parser")
        examples = [*item.top, *item.sampled]
        assert [mark.text for mark in page("mark")] == [f"[{each.token}]" for each in examples]
        shown = [text.text for text in page.select("li bdi")]
        assert shown == [f"{before}[{peak}]{after}" for before, peak, after in examples]
        assert len(page("script")) == 1 and not page("img")
        seen += "".join(shown)
    for token in ("<script>alert(1)</script>", "&amp;", "'\"><img src=x", "⏎", "{{ 7*7 }}", "⇥",
                  "[␣]", "⟨U+202E⟩"):  # fmt: skip
        assert token in seen
    assert "\u202e" not in seen


# Rating.


def test_a_rating_is_saved_at_once_leads_on_and_can_be_changed(anna, tmp_path):
    answer = anna.rate(3, "maybe", context_free="yes", note=" after <b>\r\na comma \r\n")
    assert answer.location == "4"
    saved = load_record(tmp_path, "anna").ratings
    assert saved == {3: Rating(verdict="maybe", context_free=True, note="after <b>\na comma")}
    page = anna.page("/item/3").partition("<body>")[2]
    assert "1 of 40 rated" in page and 'value="maybe" aria-pressed="true"' in page
    assert re.search(r'name="context_free"[^>]* checked>', page)
    assert ">\nafter &lt;b&gt;\na comma</textarea>" in page
    assert "Item 3 is rated maybe, context-free." in anna.page("/item/4")
    anna.post("/item/3", go="stay", note="y")  # saving and moving keep the verdict
    assert load_record(tmp_path, "anna").ratings == {3: Rating(verdict="maybe", note="y")}


def test_buttons_lead_where_they_say_and_a_later_program_goes_on_there(study, anna, tmp_path):
    anna.rate(1, "maybe")
    anna.rate(4, "maybe")
    for number, go, to in ((3, "next", 4), (1, "previous", 1), (3, "stay", 3), (3, "unrated", 5),
                           (N_ITEMS, "next", 2)):  # fmt: skip
        assert anna.post(f"/item/{number}", go=go).location == str(to)
    later = Rater(make_app(study, tmp_path, "anna").test_client())
    assert later.client.get("/", base_url=SITE).location == "item/2"


def test_what_makes_no_sense_is_refused_and_changes_nothing(anna, tmp_path):
    anna.rate(1, "maybe", note="x")
    before = (tmp_path / "anna.json").read_bytes()
    for path, verdict, status in (
        ("/item/1", "good", 500),
        ("/item/41", "maybe", 404),
        ("/item/1/../../bob", "maybe", 404),
        ("/finish", "maybe", 409),
    ):
        assert anna.post(path, verdict=verdict, sure="yes").status_code == status, path
    assert (tmp_path / "anna.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["anna.json"]


def test_a_tab_that_is_out_of_date_overwrites_nothing(anna, tmp_path):
    [old] = re.findall(r'name="seen" value="([^"]*)"', anna.page("/item/1"))
    anna.rate(1, "maybe", note="said in the other tab", seen=html.unescape(old))
    answer = anna.post("/item/1", verdict="uninterpretable", seen=html.unescape(old))
    assert answer.status_code == 409 and "changed in another tab" in answer.text
    assert load_record(tmp_path, "anna").ratings[1].note == "said in the other tab"


def test_clicks_at_the_same_time_are_all_kept(study, tmp_path):
    app = make_app(study, tmp_path, "anna")

    def rate(number):
        Rater(app.test_client()).rate(number, "maybe")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(rate, range(1, N_ITEMS + 1)))
    assert load_record(tmp_path, "anna").unrated == []


def test_finishing_takes_everything_and_is_final(study, anna, tmp_path):
    anna.rate_all(N_ITEMS)
    assert 'action="../finish"' in anna.page("/item/1")
    assert anna.post("/finish").status_code == 409
    assert anna.post("/finish", sure="yes").status_code == 303
    assert len(study.open(load_record(tmp_path, "anna"))) == N_ITEMS
    before = (tmp_path / "anna.json").read_bytes()
    page = anna.page("/item/2")
    assert "<form" not in page and "This item: uninterpretable" in page
    for path in ("/item/2", "/finish"):
        assert anna.post(path, verdict="maybe", sure="yes").status_code == 409
    assert (tmp_path / "anna.json").read_bytes() == before


# Who is answered.


LOCAL, TUNNEL = f"localhost:{PORT}", "https://x-8765.tunnels.example.org"
HUB = "https://hub.example.org"
ADDRESS = f"{HUB}/user/anna/proxy/8765/"


@pytest.mark.parametrize(
    ("address", "headers", "status"),
    [
        ("", {"Host": "localhost:9000", "Origin": "http://localhost:9000"}, 303),
        ("", {"Host": "[::1]", "Origin": "http://[::1]"}, 303),
        *(
            ("", {"Host": host, "Origin": f"http://{host}"}, 403)
            for host in ("example.org:8765", "localhost.example.org", "127.0.0.1:8765.example.org")
        ),
        # A page of another site, or of another server on this machine.
        ("", {"Origin": "http://example.org", "Referer": f"{SITE}/item/1"}, 403),
        ("", {"Origin": f"{SITE}0"}, 403),
        ("", {}, 403),
        # The proxy that is named, and no other.
        (ADDRESS, {"Host": "hub.example.org", "Origin": HUB}, 303),
        (ADDRESS, {"Host": "hub.example.org", "Origin": "https://example.org"}, 403),
        # Tunnels of editors rewrite the host. No page can write what browsers say of its site.
        ("", {"Host": LOCAL, "Origin": TUNNEL, "Sec-Fetch-Site": "cross-site"}, 403),
        ("", {"Host": LOCAL, "Origin": TUNNEL, "Sec-Fetch-Site": "same-origin"}, 303),
    ],
)  # fmt: skip
def test_a_rating_is_taken_from_its_own_page_alone(study, tmp_path, address, headers, status):
    rater = Rater(make_app(study, tmp_path, "anna", address).test_client())
    assert rater.post("/item/1", headers=headers, verdict="maybe").status_code == status
    assert len(load_record(tmp_path, "anna").ratings) == (status == 303)


def test_another_host_is_told_how_to_start_again_and_nothing_else(study, tmp_path):
    client = make_app(study, tmp_path, "anna", ADDRESS).test_client()
    for path in ("/", "/item/1", "/nothing"):
        refused = client.get(path, headers={"Host": "example.org"})
        assert refused.status_code == 403 and "token" not in refused.text
        assert "start again with --address https://example.org/" in refused.text
    with pytest.raises(UserError, match="--address: expected an address such as"):
        make_app(study, tmp_path, "anna", "hub.example.org")


def test_all_links_stay_below_the_folder_that_a_proxy_puts_before_them(anna):
    assert anna.client.get("/", base_url=SITE).location == "item/1"
    anna.rate_all(N_ITEMS)
    unfinished = anna.page("/item/2")
    assert anna.post("/finish", sure="yes").location == "item/1"
    for page in (unfinished, anna.page("/item/2")):
        links = re.findall(r'(?:href|src|action)="([^"]*)"', page)
        found = {urljoin(f"{ADDRESS}item/2", link).removeprefix(ADDRESS) for link in links}
        assert {"static/page.css", "static/page.js"} < found
        assert all(re.fullmatch(r"static/page\.(css|js)|finish|item/[123]", link) for link in found)


def test_only_this_machine_is_listened_to_and_a_port_that_is_taken_is_named(study, tmp_path):
    app = make_app(study, tmp_path, "anna")
    with serving(listen(app, port=0)) as port:
        # Another loopback address, which a server of all addresses would answer under.
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect(("127.0.0.2", port))
        assert urlopen(f"http://127.0.0.1:{port}/item/1", timeout=20).status == 200
        with pytest.raises(UserError, match=r"--port \d+: could not be opened.* give another"):
            listen(app, port=port)
