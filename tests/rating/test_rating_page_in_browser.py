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
    return make_study()


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


@pytest.mark.parametrize("width", [1200, 400])
def test_everything_fits_and_can_be_told_apart(width, browser, site, study, tmp_path):
    # The item with the longest word, rated, with a long note.
    number = max(
        range(1, len(study.items) + 1),
        key=lambda at: max(
            len(word) for example in study.items[at - 1].top for word in example.after.split(" ")
        ),
    )
    browser.open(f"{site}/item/{number}", width=width)
    browser.run(f"document.querySelector('textarea').value = '{'long ' * 40}{'x' * 300}'")
    browser.run("document.querySelector('[name=context_free]').click()")
    browser.wait(lambda: load_record(tmp_path, "anna").ratings.get(number))
    browser.open(f"{site}/item/{number}", width=width)
    across = browser.run("[document.documentElement.scrollWidth, innerWidth]")
    assert across[0] <= across[1], "the page is wider than the window"
    hidden = browser.run(
        "[...document.querySelectorAll('main *, header *')].filter((element) =>"
        " !element.closest('.unseen') && element.getClientRects().length &&"
        " (element.getBoundingClientRect().right > innerWidth + 0.5 ||"
        "  element.getBoundingClientRect().left < 0)).map((element) => element.outerHTML)"
    )
    assert hidden == []
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
    assert len(names) == 9
    assert all(names)
    assert browser.said() == []


def test_keys_rate_move_and_write(browser, site, tmp_path):
    def ratings():
        return load_record(tmp_path, "anna").ratings

    browser.open(f"{site}/item/1", width=1200)
    settle(browser)
    browser.press("2")
    arrive(browser, 2)
    assert ratings() == {1: Rating(verdict="maybe")}
    browser.run("window.before = true")
    browser.press("c")
    browser.wait(lambda: browser.run(f"!window.before && {LOADED}"))
    assert ratings()[2] == Rating(context_free=True)
    assert browser.run("document.querySelector('[name=context_free]').checked")
    # Keys that write are no shortcuts.
    browser.press("n")
    for key in "1c":
        browser.press(key)
    browser.press("Escape")
    settle(browser)
    browser.press("3")
    arrive(browser, 3)
    expected = Rating(verdict="uninterpretable", context_free=True, note="1c")
    assert ratings()[2] == expected
    browser.press("ArrowLeft")
    arrive(browser, 2)
    browser.press("ArrowRight")
    arrive(browser, 3)
    browser.press("ArrowLeft")
    arrive(browser, 2)
    browser.press("u")
    arrive(browser, 3)
    assert browser.said() == []


def test_a_second_click_or_a_held_key_rates_nothing_more(browser, site, tmp_path):
    browser.open(f"{site}/item/1", width=1200)
    settle(browser)
    browser.run(
        "document.addEventListener('submit',"
        " (event) => { window.pressed = true; event.preventDefault(); })"
    )
    browser.press("1", held=True)
    assert browser.run("window.pressed") is None
    browser.press("1")
    assert browser.run("window.pressed")
    browser.open(f"{site}/item/1", width=1200)
    settle(browser)
    browser.press("1")
    arrive(browser, 2)
    # Whatever time has passed, the page is as if it had just appeared.
    browser.run("performance.now = () => 100")
    browser.run("document.querySelector('[value=interpretable]').click()")
    browser.run("document.querySelector('[name=go][value=next]').click()")
    arrive(browser, 3)
    assert load_record(tmp_path, "anna").ratings == {1: Rating(verdict="interpretable")}


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
        record = load_record(tmp_path, "anna")
        assert record.unrated == []
        assert record.ratings[2] == Rating(verdict="maybe", context_free=True, note="of")
        # The box must be ticked first.
        browser.run("document.querySelector('[action=\"../finish\"] button').click()")
        assert not load_record(tmp_path, "anna").finished
        browser.run("document.querySelector('[name=sure]').click()")
        browser.run("document.querySelector('[action=\"../finish\"] button').click()")
        browser.wait(lambda: load_record(tmp_path, "anna").finished)
        arrive(browser, 1)
        browser.run("document.querySelector('a').click()")
        arrive(browser, 2)
