"""The page in a real browser: at two widths, with its keys, and without its script."""

import pytest

from helpers_browser import LOADED, NEEDS_CHROMIUM
from helpers_rating import make_study
from helpers_serving import serving
from transcoders.rating.records import Rating, load_record
from transcoders.rating.server import listen, make_app

pytestmark = NEEDS_CHROMIUM


@pytest.fixture(scope="module")
def study():
    return make_study(n_features=4)


@pytest.fixture
def site(study, tmp_path, browser):
    browser.events.clear()
    with serving(listen(make_app(study, tmp_path, "anna"), port=0)) as port:
        yield f"http://127.0.0.1:{port}"
        browser.command("Page.navigate", url="about:blank")


def settle(browser):
    """Wait until a rating is taken: not at once, since it could be a second click."""
    browser.wait(lambda: browser.run("performance.now() > 450"))


def arrive(browser, number):
    browser.wait(lambda: browser.run(f"location.pathname === '/item/{number}' && {LOADED}"))


def rated(folder):
    return load_record(folder, "anna").ratings


def test_everything_fits_and_can_be_told_apart(browser, site, study, tmp_path):
    # An item with a word that is wider than a telephone, rated, with a long note.
    number = next(at for at, item in enumerate(study.items, 1) if "w" * 90 in str(item.top))
    browser.open(f"{site}/item/{number}", width=1200)
    browser.run(f"document.querySelector('textarea').value = '{'long ' * 40}{'x' * 300}'")
    browser.run("document.querySelector('[name=context_free]').click()")
    browser.wait(lambda: rated(tmp_path).get(number))
    browser.open(f"{site}/item/{number}", width=400)
    across = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    assert across[0] <= across[1], "the page is wider than the window"
    # What is marked differs from the rest by more than its colour.
    weights = browser.run(
        "[...document.querySelectorAll('li bdi, li mark')].map((element) =>"
        " [element.localName, getComputedStyle(element).fontWeight,"
        "  getComputedStyle(element).borderBottomStyle].join())"
    )
    assert set(weights) == {"bdi,400,none", "mark,700,solid"}
    # Everything that can be pressed or filled in has a name.
    names = browser.run(
        "[...document.querySelectorAll('button:not(.unseen), input:not([type=hidden]), textarea')]"
        ".map((element) => (element.labels && element.labels[0] || element).textContent.trim())"
    )
    assert len(names) == 9 and all(names)
    assert browser.said() == []


def test_keys_rate_move_and_write(browser, site, tmp_path):
    browser.open(f"{site}/item/1", width=1200)
    settle(browser)
    browser.press("2")
    arrive(browser, 2)
    assert rated(tmp_path) == {1: Rating(verdict="maybe")}
    browser.run("window.before = true")
    browser.press("c")
    browser.wait(lambda: browser.run(f"!window.before && {LOADED}"))
    assert rated(tmp_path)[2] == Rating(context_free=True)
    # Keys that write are no shortcuts.
    browser.press("n")
    for key in "1c":
        browser.press(key)
    browser.press("Escape")
    settle(browser)
    browser.press("3")
    arrive(browser, 3)
    said = Rating(verdict="uninterpretable", context_free=True, note="1c")
    assert rated(tmp_path)[2] == said
    for key, number in (("ArrowLeft", 2), ("ArrowRight", 3), ("ArrowLeft", 2), ("u", 3)):
        browser.press(key)
        arrive(browser, number)
    assert browser.said() == []


def test_a_second_click_or_a_held_key_rates_nothing_more(browser, site, tmp_path):
    browser.open(f"{site}/item/1", width=1200)
    settle(browser)
    browser.run("addEventListener('submit', () => { window.pressed = true; })")
    browser.press("2", held=True)
    assert not browser.run("window.pressed")
    browser.press("1")
    arrive(browser, 2)
    # Whatever time has passed, the page is as if it had just appeared.
    browser.run("performance.now = () => 100")
    browser.run("document.querySelector('[value=interpretable]').click()")
    browser.run("document.querySelector('[name=go][value=next]').click()")
    arrive(browser, 3)
    assert rated(tmp_path) == {1: Rating(verdict="interpretable")}


def test_the_essential_works_without_javascript(browser, site, study, tmp_path):
    with browser.without_scripts():
        browser.open(f"{site}/item/1", width=400)
        for number in range(1, len(study.items) + 1):
            arrive(browser, number)
            if number == 2:
                browser.run("document.querySelector('[name=context_free]').click()")
                browser.run("document.querySelector('textarea').value = 'of'")
            browser.run("document.querySelector('[value=maybe]').click()")
        arrive(browser, len(study.items))
        browser.wait(lambda: browser.run("document.querySelectorAll('[name=sure]').length"))
        assert load_record(tmp_path, "anna").unrated == []
        assert rated(tmp_path)[2] == Rating(verdict="maybe", context_free=True, note="of")
        for ticked in ("", "document.querySelector('[name=sure]').click();"):  # it must be first
            assert not load_record(tmp_path, "anna").finished
            browser.run(f"{ticked} document.querySelector('[action=\"../finish\"] button').click()")
        browser.wait(lambda: load_record(tmp_path, "anna").finished)
