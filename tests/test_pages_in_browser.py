"""Committed pages in a real browser, at a desk's width and a telephone's."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers_browser import NEEDS_CHROMIUM, Browser

pytestmark = NEEDS_CHROMIUM
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results/laptop"
LANDING = ROOT / "docs/index.html"
FOLDERS = sorted((RESULTS / "interpretability/features").iterdir())
PAGES = [
    path
    for folder in FOLDERS
    for path in (folder / "index.html", *sorted(folder.glob("[0-9]*.html"))[:3])
] + [*sorted((RESULTS / "notebooks").glob("*.html")), LANDING]
TOO_WIDE = """
[...document.querySelectorAll("main *, body > *")]
    .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
    .filter((each) => {
        for (let at = each; at; at = at.parentElement)
            if (["auto", "scroll", "hidden"].includes(getComputedStyle(at).overflowX)) return false;
        return true;
    }).length
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    started = Browser(tmp_path_factory.mktemp("browser"))
    yield started
    started.close()


def test_both_rated_dictionaries_have_pages() -> None:
    assert len(FOLDERS) == 2 and len(PAGES) >= 8


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_page_fits_and_loads_without_a_word(browser: Browser, page: Path, width: int) -> None:
    browser.events.clear()
    browser.open(page.as_uri(), width=width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(TOO_WIDE) == 0
    assert browser.run("document.body.innerText.length") > 500
    said = [each for each in browser.events if each["method"] in ("Log.entryAdded",
            "Runtime.exceptionThrown", "Runtime.consoleAPICalled")]  # fmt: skip
    assert said == []
    loaded = "performance.getEntriesByType('resource').map((each) => each.name)"
    if page == LANDING:  # its pictures are files beside it
        assert all(name.startswith(ROOT.as_uri()) for name in browser.run(loaded))
        assert browser.run("[...document.images].every((each) => each.naturalWidth > 100)")
    else:
        assert browser.run(loaded) == []
