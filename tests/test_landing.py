"""The article to begin with: everything it leads to is there."""

import re
from pathlib import Path

import pandas as pd
import pytest

from transcoders.config import load_scale
from transcoders.contents import PAGES, STORY
from transcoders.documents import document_page, page_beside
from transcoders.landing import documents_of, landing_page
from transcoders.layout import Layout

ROOT = Path(__file__).parents[1]
HEAVIEST = 3_000_000
"""Bytes of the page with its pictures."""


@pytest.fixture
def shown(monkeypatch):
    """The scale that the article is about."""
    monkeypatch.chdir(ROOT)
    return Layout("overnight")


@pytest.mark.parametrize("scale", ["laptop", "overnight"])
def test_the_committed_page_is_the_one_that_the_tables_give(monkeypatch, scale):
    monkeypatch.chdir(ROOT)
    layout = Layout(scale)
    page = layout.landing_page
    assert page.read_text() == landing_page(load_scale(layout.config), layout, page)


def test_documents_have_pages_whose_links_lead_to_pages(shown):
    documents = documents_of(shown)
    assert Path("docs/findings.md") in documents
    for document in documents:
        page = document_page(document, documents)
        assert page_beside(document).read_text() == page
        assert not re.search(r'href="\w+/?(findings|running)\.md', page)
    assert 'href="your_own_questions.html#rate-features"' in Path("docs/findings.html").read_text()


FOLDERS = "docs", "results/overnight/notebooks", "results/overnight/interpretability/features"
PAGES_WITH_LINKS = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.html"))]


@pytest.mark.parametrize("path", PAGES_WITH_LINKS, ids=str)
def test_every_link_of_a_page_leads_to_a_file_or_a_heading(path):
    text = path.read_text()
    links = set(re.findall(r'<(?:a|img) [^>]*?(?:href|src)="([^"]+)"', text))
    local = {link for link in links if not link.startswith(("https://", "#", "data:"))}
    assert {link for link in local if not (path.parent / link.partition("#")[0]).exists()} == set()
    assert {link for link in links if link[0] == "#" and f'id="{link[1:]}"' not in text} == set()


def test_every_page_and_document_and_a_light_picture_for_each_chapter_is_shown(shown):
    page = shown.landing_page.read_text()
    documents = [page_beside(Path(name)).name for name in STORY["documents"]]
    for name in (*(f"{name}.html" for name in PAGES), *documents):
        assert name in page
    chapters = page.split("<section")[1 : 1 + len(STORY["chapters"])]
    assert all("<figure>" in chapter for chapter in chapters)
    pictures = set(re.findall(r'<img src="([^"]+)"', page))
    sizes = [(shown.landing_page.parent / picture).stat().st_size for picture in pictures]
    assert len(page.encode()) + sum(sizes) <= HEAVIEST


def test_what_a_scale_does_not_have_is_left_out(tmp_path, monkeypatch, shown):
    layout = Layout("smoke")
    (tmp_path / layout.results).mkdir(parents=True)
    (tmp_path / layout.claims).write_text(shown.claims.read_text())
    (tmp_path / layout.notebook("claims")).parent.mkdir()
    (tmp_path / layout.notebook("claims")).with_suffix(".html").write_text("claims")
    scale = load_scale(ROOT / "config/smoke.yaml")
    monkeypatch.chdir(tmp_path)
    page = landing_page(scale, layout, layout.landing_page)
    assert "<img" not in page and "training.html" not in page
    assert '<li><a href="notebooks/claims.html">All claims</a>: ' in page


def test_every_scale_with_verdicts_has_a_column_but_a_rehearsal(tmp_path, monkeypatch, shown):
    scale, claims = load_scale(shown.config), pd.read_csv(shown.claims)
    monkeypatch.chdir(tmp_path)
    for name, verdict in [("overnight", "inconclusive"), ("far", "reproduced"), ("smoke", "x")]:
        Path("results", name).mkdir(parents=True)
        claims.assign(verdict=verdict).to_csv(Layout(name).claims, index=False)
    page = landing_page(scale, shown, shown.landing_page)
    headings = re.findall(r'<th scope="col">(.*?)</th>', page)
    assert headings == ["claim (section)", "overnight", "far", "the paper"]
    assert set(re.findall(r'<tr data-verdicts="(.*?)">', page)) == {"inconclusive|reproduced"}
