"""Notebooks run to the same bytes everywhere, and their pages need neither network nor scripts."""

import re
from pathlib import Path

import nbformat
import pytest

from transcoders import notebooks
from transcoders.config import load_scale
from transcoders.contents import PAGES, pages_of, place_of
from transcoders.errors import UserError
from transcoders.layout import Layout
from transcoders.notebooks import maths_to_mathml, render_page, run_notebook
from transcoders.templates import script

ROOT = Path(__file__).parents[1]

PICTURE = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJg"
)


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A folder that stands for workflow/notebooks."""
    folder = tmp_path / "sources"
    folder.mkdir()
    monkeypatch.setattr(notebooks, "SOURCES", folder)
    monkeypatch.chdir(tmp_path)
    return folder


def write_notebook(path, *code):
    cells = [nbformat.v4.new_code_cell(source) for source in ('SCALE = "laptop"', *code)]
    cells[0].metadata["tags"] = ["parameters"]
    for number, cell in enumerate(cells):
        cell["id"] = f"cell{number}"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def executed_notebook():
    """A notebook with the outputs that a figure's notebook has."""
    code = nbformat.v4.new_code_cell("table")
    shown = (
        {"text/html": "<table><td>3.5</td></table>"}, {"image/png": PICTURE},
        {"text/html": '<SCRIPT src="https://cdn.example/x.js"></SCRIPT>'},
    )  # fmt: skip
    code.outputs = [nbformat.v4.new_output("display_data", each) for each in shown]
    markdown = nbformat.v4.new_markdown_cell("# Figure 3 <of> 5")
    return nbformat.v4.new_notebook(cells=[markdown, code])


def test_maths_becomes_mathml_and_prices_and_code_stay_as_they_are():
    for maths, display in (("inline $x^2$ maths", "inline"), ("over\n$$\nx^2\n$$\n", "block")):
        converted = maths_to_mathml(maths)
        assert converted.count("<math") == converted.count(f'display="{display}"') == 1
        assert "$" not in converted
    other = "It costs $5 and not $6.\nA \\$5 fee and \\$6. `echo $HOME$PATH`\n```\n$x$\n```"
    assert maths_to_mathml(other) == other


def test_a_page_shows_its_notebook_and_runs_no_script_but_its_own_without_a_network():
    notebook = executed_notebook()
    before = nbformat.writes(notebook)
    page = render_page(notebook)
    assert nbformat.writes(notebook) == before
    for part in ("3.5", PICTURE, "<title>Figure 3 &lt;of&gt; 5</title>", "<details class"):
        assert part in page
    assert re.findall(r"<script.*?>", page, re.IGNORECASE) == ["<script>"]
    assert f"<script>\n{script()}\n</script>" in page
    assert not re.search(r"""(?:src|srcset|data)\s*=\s*["']?(?:https?:)?//""", page, re.IGNORECASE)
    assert not re.search(r"<link\b|@import|url\(\s*[\"']?(?:https?:)?//", page, re.IGNORECASE)


def test_every_notebook_that_a_scale_has_is_among_its_pages():
    layout = Layout("laptop")
    settings = load_scale(ROOT / layout.config)
    rules = re.findall(r'notebook="(\w+)"', (ROOT / "workflow/rules/notebooks.smk").read_text())
    assert set(pages_of(settings)) <= set(PAGES) == set(rules)


@pytest.mark.parametrize("name", ["figure3", "case_studies", "case_study_tc12-532"])
def test_a_committed_page_is_the_one_that_its_notebook_gives(monkeypatch, name):
    monkeypatch.chdir(ROOT)
    layout = Layout("overnight")
    notebook = nbformat.read(layout.notebook(name), as_version=4)
    page = render_page(notebook, place_of(name, load_scale(layout.config), layout))
    assert layout.notebook(name).with_suffix(".html").read_text() == page


def test_a_missing_notebook_is_refused_with_those_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"figure9\.ipynb: no such notebook.* figure3"):
        run_notebook("figure9", "smoke", tmp_path / "out" / "figure9.ipynb")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("1 / 0", r"a cell failed\n(.|\n)*ZeroDivisionError"),
        ("import os; os._exit(9)", r"a cell failed\n.*died"),
        # What a user can put right is a sentence without the cell.
        ("raise PermissionError(13, 'Denied', 'a.csv')", "[^\n]*'a.csv'; see whether[^\n]*$"),
    ],
)
def test_a_failing_cell_is_shown_and_nothing_is_written(sources, tmp_path, code, said):
    write_notebook(sources / "broken.ipynb", code)
    with pytest.raises(UserError, match=rf"broken\.ipynb: {said}"):
        run_notebook("broken", "smoke", tmp_path / "out" / "broken.ipynb")
    assert not (tmp_path / "out").exists()


def test_a_notebook_runs_for_the_scale_asked_for_and_leaves_no_trace_of_machine_or_time(
    sources, tmp_path, monkeypatch
):
    startup = tmp_path / "ipython/profile_default/startup/00.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("def print(*_): display('a trace of somebody')")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    write_notebook(
        sources / "shows.ipynb",
        "print('scale:', SCALE)",
        "6 * 7",
        "from ipykernel.connect import get_connection_info\n"
        "print('over', get_connection_info(unpack=True)['transport'])",
    )
    written = []
    for run in ("first", "second"):
        destination = tmp_path / run / "shows.ipynb"
        run_notebook("shows", "smoke", destination)
        written.append([p.read_bytes() for p in (destination, destination.with_suffix(".html"))])
        made = sorted(path.name for path in destination.parent.iterdir())
        assert made == ["shows.html", "shows.ipynb"]
    assert written[0] == written[1]
    notebook, page = (content.decode() for content in written[0])
    assert "over ipc" in notebook  # two kernels could be given the same network port
    assert "scale: smoke" in page and "42" in page
    for trace in (str(tmp_path), "somebody", "iopub"):  # iopub: where nbclient records times
        assert trace not in notebook + page
