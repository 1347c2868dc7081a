"""The page to begin with: everything it leads to is there."""

import re
from pathlib import Path

import pytest

from transcoders.config import load_scale
from transcoders.landing import DOCUMENTS, FIGURES, PAGES, landing_page
from transcoders.layout import Layout

ROOT = Path(__file__).parents[1]


@pytest.fixture
def laptop(monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.chdir(ROOT)
    return Layout("laptop")


def test_every_link_of_the_committed_page_leads_to_a_file(laptop):
    page = laptop.landing_page.read_text()
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    local = [link for link in links if not link.startswith("https://")]
    assert len(local) > 40
    assert [link for link in local if not (laptop.landing_page.parent / link).exists()] == []
    assert [link for link in links if link not in local] == ["https://arxiv.org/abs/2406.11944"]


def test_the_committed_page_is_the_one_that_the_tables_give(laptop):
    scale = load_scale(laptop.config)
    assert laptop.landing_page.read_text() == landing_page(scale, laptop, laptop.landing_page)


def test_every_figure_page_and_document_is_shown(laptop):
    page = laptop.landing_page.read_text()
    shown = [f"{name}.png" for name, of, _ in FIGURES if of != "why"]  # laptop sweeps no data
    shown += [f"{name}.html" for name in PAGES if name != "why"]
    for name in (*shown, *DOCUMENTS):
        assert name in page


def test_what_a_scale_does_not_have_is_left_out(tmp_path, monkeypatch, laptop):
    layout = Layout("smoke")
    (tmp_path / layout.results).mkdir(parents=True)
    (tmp_path / layout.claims).write_text(laptop.claims.read_text())
    (tmp_path / layout.notebook("claims")).parent.mkdir()
    (tmp_path / layout.notebook("claims")).with_suffix(".html").write_text("claims")
    scale = load_scale(ROOT / "config/smoke.yaml")
    monkeypatch.chdir(tmp_path)
    page = landing_page(scale, layout, layout.landing_page)
    assert "<img" not in page
    assert 'href="notebooks/claims.html">claims</a>: ' in page
    assert "training</a>" not in page
