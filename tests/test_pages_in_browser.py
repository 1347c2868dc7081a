"""Pages in a real browser, at a desk's width and a telephone's."""

import json
import re
from pathlib import Path

import pytest

from helpers_browser import NEEDS_CHROMIUM
from transcoders.config import load_scale

pytestmark = NEEDS_CHROMIUM
ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results/overnight"
BROWSER = sorted((RESULTS / "interpretability/features").glob("**/index.html"))
DOCUMENTS = sorted((ROOT / "docs").glob("*.html"))
# Of the pages of features, which one template makes, the first and a few more.
PAGES = [*BROWSER[::10], *sorted((RESULTS / "notebooks").glob("*.html")), *DOCUMENTS]
TOO_WIDE = """
[...document.querySelectorAll("main *, body > *")]
    .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
    .filter((each) => {
        for (let at = each; at; at = at.parentElement)
            if (["auto", "scroll", "hidden"].includes(getComputedStyle(at).overflowX)) return false;
        return true;
    }).length
"""


def test_all_dictionaries_with_names_are_in_the_feature_browser_which_is_small():
    scale = load_scale(ROOT / "config/overnight.yaml")
    named = {e.name for model in scale.labelled_models for e in scale.labelled_dictionaries(model)}
    folder = RESULTS / "interpretability/features"
    assert {page.parent.name for page in BROWSER} == {*named, "features"}
    assert all(page.stat().st_size < 1e6 for page in BROWSER)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 6e6


@pytest.mark.parametrize("width", [400, 1200])
@pytest.mark.parametrize("page", PAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_page_fits_and_loads_without_a_word(browser, page, width):
    browser.events.clear()
    browser.open(page.as_uri(), width=width)
    assert browser.run("document.body.innerText.length") > 500
    assert browser.said() == []
    loaded = browser.run("performance.getEntriesByType('resource').map((each) => each.name)")
    if page in DOCUMENTS:  # their pictures are files beside them
        assert all(name.startswith(ROOT.as_uri()) for name in loaded)
    else:
        assert loaded == []
    assert_fits(browser, width)
    browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert_fits(browser, width)
    pictures = "[...document.querySelectorAll('main img')]"
    is_good = "(each) => each.alt.length > 10 && each.naturalWidth > 100"
    assert browser.run(f"{pictures}.every({is_good})")


def assert_fits(browser, width):
    """Nothing reaches beyond the page but what can be scrolled."""
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(TOO_WIDE) == 0


def test_every_feature_that_a_circuit_links_to_is_in_the_browser():
    pages = sorted((RESULTS / "circuits").glob("*/circuit.html"))
    links = {
        ((page.parent / address).resolve(), int(unit))
        for page in pages
        for address, unit in re.findall(r'"link": *"([^"#]+)#(\d+)"', page.read_text())
    }
    assert len(pages) == 9 and len(links) > 50
    for target in {target for target, _ in links}:
        index = re.search(r'id="index">(.*?)</script>', target.read_text(), re.DOTALL)
        assert index is not None
        linked = {unit for at, unit in links if at == target}
        assert linked <= set(json.loads(index[1])["feature"]), target


# What a reader can do. Other tests say that these pages are what their sources give.

ARTICLE = ROOT / "docs/index.html"
FIGURE3, STUDY = (RESULTS / f"notebooks/{name}.html" for name in ("figure3", "case_studies"))


@pytest.mark.parametrize("page", [ARTICLE, FIGURE3, STUDY], ids=lambda path: path.stem)
def test_a_page_can_be_read_without_a_script(browser, page):
    with browser.without_scripts():
        browser.open(page.as_uri(), width=400)
        assert_fits(browser, 400)
        assert browser.run("document.querySelectorAll('th button').length") == 0  # it did not run
        shown = "[...document.querySelectorAll('main table, main img, main p')]"
        unseen = f"{shown}.filter((each) => each.closest('details') === null)"
        assert browser.run(f"{unseen}.every((each) => each.getClientRects().length > 0)")
        idle = "[...document.querySelectorAll('main button')]"  # buttons that would do nothing
        assert browser.run(f"{idle}.every((each) => each.getClientRects().length === 0)")


def test_a_click_on_a_heading_sorts_numbers_as_numbers(browser):
    browser.open(FIGURE3.as_uri(), width=1200)
    headings = "[...document.querySelector('main table').tHead.rows[0].cells]"
    l0 = browser.run(f"{headings}.findIndex((each) => each.textContent.includes('L0'))")
    rows = "[...document.querySelector('main table').tBodies[0].rows]"
    values = f"{rows}.map((row) => Number(row.cells[{l0}].textContent))"
    rising = sorted(browser.run(values))
    assert len(set(rising)) > 3
    for order, expected in (("ascending", rising), ("descending", rising[::-1])):
        browser.run(f"{headings}[{l0}].querySelector('button').focus()")
        browser.press("\r")  # a button answers to the keyboard
        assert browser.run(f"{headings}.map((each) => each.ariaSort).filter(Boolean)") == [order]
        assert browser.run(values) == expected


def test_claims_can_be_filtered_by_verdict(browser):
    browser.open(ARTICLE.as_uri(), width=400)
    shown = "[...document.querySelectorAll('#verdicts tbody tr')].filter((row) => !row.hidden)"
    verdicts = f"{shown}.map((row) => row.dataset.verdicts.split('|'))"
    button, wanted = "document.querySelector('[data-verdict=\"{}\"]')", "not reproduced"
    every = browser.run(verdicts)
    browser.run(button.format(wanted) + ".click()")
    chosen = browser.run(verdicts)
    assert 0 < len(chosen) < len(every)
    assert chosen == [each for each in every if wanted in each]
    said = browser.run("document.querySelector('output').textContent")
    assert said.startswith(f"{len(chosen)} of {len(every)}")
    browser.run(button.format("") + ".click()")
    assert browser.run(verdicts) == every


@pytest.mark.parametrize("page", [ARTICLE, FIGURE3], ids=lambda path: path.stem)
def test_a_picture_opens_large_and_escape_closes_it(browser, page):
    browser.open(page.as_uri(), width=400)
    browser.run("document.querySelector('a.zoom').focus()")
    browser.press("\r")
    assert browser.run("document.querySelector('dialog').open")
    assert browser.run("document.querySelector('dialog img').clientWidth") > 1000
    assert browser.run("document.documentElement.scrollWidth") <= 400
    browser.press("Escape")
    browser.wait(lambda: not browser.run("document.querySelector('dialog').open"))
    assert browser.run("document.activeElement.className") == "zoom"


def test_one_control_shows_all_code(browser):
    browser.open(FIGURE3.as_uri(), width=1200)
    codes = "[...document.querySelectorAll('details.code')]"
    assert browser.run(f"{codes}.length > 2 && {codes}.every((each) => !each.open)")
    for opened in (True, False):
        browser.run("document.getElementById('all-code').click()")
        assert browser.run(f"{codes}.every((each) => each.open === {str(opened).lower()})")
