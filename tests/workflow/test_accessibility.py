"""Every page is tried by axe-core, by day and by night: those that are committed, and a run's."""

import pytest

from helpers_browser import NEEDS_CHROMIUM
from helpers_viewers import AXE, NEEDS_NPM, npm_packages
from workflow.running import REPOSITORY as ROOT

pytestmark = [pytest.mark.full, NEEDS_CHROMIUM, NEEDS_NPM]
COMMITTED = sorted([*(ROOT / "docs").glob("*.html"), *(ROOT / "results/overnight").rglob("*.html")])
GRAVE = """
axe.run(document, {resultTypes: ["violations"]}).then(({violations}) => violations
    .filter((each) => ["serious", "critical"].includes(each.impact))
    .map((each) => [each.id, each.help, each.nodes.slice(0, 3).map((node) => node.html)]))
"""


@pytest.fixture(scope="module")
def with_axe(browser):
    """A browser that reads axe before each page."""
    source = (npm_packages("axe", [AXE]) / "axe-core/axe.min.js").read_text()
    browser.command("Page.addScriptToEvaluateOnNewDocument", source=source)
    return browser


def findings(browser, page):
    """What axe calls serious or critical, with some of the elements, by the colour scheme."""
    found = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.command("Emulation.setEmulatedMedia", features=features)
        browser.open(page.as_uri(), width=1200)
        browser.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        how = {"awaitPromise": True, "returnByValue": True}
        answer = browser.command("Runtime.evaluate", expression=GRAVE, **how)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        found[scheme] = answer["result"]["value"]
    return {scheme: violations for scheme, violations in found.items() if violations}


def test_no_page_keeps_anybody_out(with_axe, run):
    pages = sorted((run / "results/smoke").rglob("*.html"))
    kinds = {page.stem for page in pages}
    assert {"circuit", "index", "why", "case_study_first"} <= kinds  # not all are committed
    found = {str(page): findings(with_axe, page) for page in (*COMMITTED, *pages)}
    assert {page: grave for page, grave in found.items() if grave} == {}


def test_axe_finds_what_is_wrong(with_axe, tmp_path):
    page = tmp_path / "bad.html"
    page.write_text('<html lang="en"><title>t</title><main><input style="color: #eee"></main>')
    assert {each[0] for each in findings(with_axe, page)["light"]} == {"label"}
