"""The examples run from a plain ``python``, without the workflow; here with a tiny model."""

import json
from pathlib import Path

import nbformat
import pytest

from helpers_rating import make_study
from helpers_serving import serving
from transcoders.notebooks import execute_notebook
from transcoders.rating.records import load_record
from transcoders.rating.server import listen, make_app
from workflow.running import python

ROOT = Path(__file__).resolve().parents[1]


def run(script, *arguments, status=0):
    """What an example prints, or says when it fails."""
    done = python(ROOT, f"examples/{script}", *arguments)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Where the first example has run."""
    folder = tmp_path_factory.mktemp("examples") / "out"
    smoke = ("--scale", "smoke", "--rows", "64", "--layer", "1")
    printed = run("train_a_transcoder.py", *smoke, "--out", str(folder))
    assert [line.split()[0] for line in printed.splitlines()[:3]] == ["L0", "FVU", "CE"]
    return folder


def test_a_circuit_of_a_new_transcoder_is_found_printed_and_drawn(out):
    asked = ("--prompt", "w1 w2 w3 w4", "--target", "tc1[top]@-1", "--layer", "1")
    printed = run("find_a_circuit.py", *asked, "--out", str(out))
    assert printed.count("tc1[") > 5 and " <- " in printed
    assert all((out / f"circuit.{end}").stat().st_size > 1000 for end in ("pdf", "png"))


def test_the_second_example_names_the_first_if_that_has_not_run(tmp_path):
    said = run("find_a_circuit.py", "--out", str(tmp_path), status=1)
    assert "run train_a_transcoder.py first" in said and "Traceback" not in said


def test_the_tour_runs(out, tmp_path, monkeypatch):
    notebook = nbformat.read(ROOT / "examples/tour.ipynb", as_version=4)
    first = next(cell for cell in notebook.cells if "SCALE, LAYER, ROWS" in cell.source)
    settings = {
        'SCALE, LAYER, ROWS = "laptop", 3, 240': 'SCALE, LAYER, ROWS = "smoke", 1, 64',
        "He was born in Germany and studied at the University of": "w1 w2 w3 w4",
        'OUT = Path("out")': f"OUT = Path({str(out)!r})",
        'ROOT = Path("..")': f"ROOT = Path({str(ROOT)!r})",
    }
    for old, new in settings.items():
        assert old in first.source
        first.source = first.source.replace(old, new)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))
    execute_notebook(notebook, "tour", tmp_path / "tour.ipynb")
    done = nbformat.read(tmp_path / "tour.ipynb", as_version=4)
    assert "is the sum of" in str(done.cells)


def test_a_rater_without_a_browser_rates_on_the_page(tmp_path):
    said = [{"item": item, "verdict": "maybe", "context_free": item == 2} for item in range(1, 41)]
    said[0]["note"] = "names of [rivers] & <lakes>"
    (tmp_path / "said.json").write_text(json.dumps(said))
    app = make_app(make_study(), tmp_path, "parrot", language_model="a parrot")
    with serving(listen(app, port=0)) as port:
        page = ("--page", f"http://127.0.0.1:{port}")
        shown = run("rate_as_text.py", "show", "1", "3", *page)
        assert shown.index("What to do") < shown.index("Strongest examples")
        assert shown.count("Strongest examples") == 3 and "Item 3" in shown and "<bdi" not in shown
        run("rate_as_text.py", "rate", str(tmp_path / "said.json"), *page)
        run("rate_as_text.py", "finish", *page)
    record = load_record(tmp_path, "parrot")
    assert record.finished and record.language_model == "a parrot"
    assert len(record.ratings) == 40 and record.ratings[1].note == said[0]["note"]
    assert [item for item, each in record.ratings.items() if each.context_free] == [2]
