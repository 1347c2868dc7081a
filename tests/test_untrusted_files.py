"""Names and tokens of others: none leads elsewhere or becomes markup."""

import json
import re

import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from helpers_circuits import make_circuit, some_targets
from helpers_features import browser_page, subjects
from helpers_rating import Rater, make_study
from transcoders.circuits.labels import Label, feature_name
from transcoders.circuits.page import circuit_page
from transcoders.circuits.paths import Search, find_paths
from transcoders.config import Site
from transcoders.errors import UserError
from transcoders.interpretability.browser import write_text
from transcoders.layout import Layout
from transcoders.models import load_model
from transcoders.notebooks import render_page
from transcoders.rating.server import make_app
from transcoders.tables import (
    describe_circuit,
    greater_than,
    interpretability,
)
from transcoders.tables.html import html_table

# Names that lead elsewhere.


@pytest.mark.parametrize("bad", ["../x", "/x", ".", ""])
def test_no_path_of_a_scale_leads_out_of_its_folder(bad):
    public = {key: getattr(Layout("smoke"), key) for key in vars(Layout) if key[0] != "_"}
    named = [key for key, value in public.items() if callable(value)]
    assert len(named) > 10
    for method in named:
        assert not str(getattr(Layout("smoke"), method)("x")).startswith(("/", ".."))
        with pytest.raises(UserError, match="expected a name of letters"):
            getattr(Layout("smoke"), method)(bad)


# Tokens that are markup.

TOKENS = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</textarea>", "</script>",
    "{{7*7}}", "{% raw %}", "&lt;b&gt;", "'><a href='javascript:alert(1)'>", "<!--", "]]>", "`x`",
    "__x__", "~~x~~", "$x$", "\\(x\\)", "[x](javascript:alert(1))", "![x](http://example.org/x.png)",
    "<http://example.org>", "\n\n# x", " \tx ", "é",
]  # fmt: skip
"""Shown as text, no two are alike. Taken for markup, none would stay as it is."""
ON_ONE_LINE = [token.replace("\n", "⏎") for token in TOKENS]


def checked(page, *, scripts=0):
    """A page on which nothing but its own scripts could run, and that fetches nothing."""
    found = BeautifulSoup(page, "html.parser")
    assert len(found.find_all("script")) == scripts
    assert not found.find_all(["img", "iframe", "object", "embed", "base"])
    for tag in found.find_all(True):
        for key, value in tag.attrs.items():
            assert not key.startswith("on")
            if key in ("src", "href", "action"):
                scheme = value.strip().lower()
                assert not scheme.startswith(("javascript:", "data:", "http:")), value
    return found


def words_in(page, what):
    """The texts of the elements that a CSS selector finds."""
    return [tag.get_text() for tag in page.select(what)]


class Tokenizer:
    """A hostile token for every number."""

    def decode(self, tokens, **_):
        return "".join(TOKENS[int(token) % len(TOKENS)] for token in tokens)


@pytest.fixture(scope="module")
def circuit(tiny_models, random_dictionary):
    model = load_model(tiny_models["llama"])
    return make_circuit(model, random_dictionary, {0: "transcoder"}, first=1)


def test_hostile_tokens_are_texts_and_data_in_the_feature_browser(
    tmp_path, scale, circuit, random_dictionary, random_tokens
):
    site, dictionary = Site(model="m", layer=2), random_dictionary("transcoder", seed=6)
    found, texts = subjects(
        circuit.model, random_tokens(30, 16, seed=2), {"mine": (site, dictionary)},
        scale.interpretability, tmp_path / "observed",
    )  # fmt: skip
    subject = found["mine"]._replace(name="<b>mine")
    labels = {
        feature_name(2, unit): Label(token, 1 - unit % 2, token, tuple(TOKENS[:3]), "rule", token)
        for unit, token in enumerate(TOKENS)
    }
    folder = tmp_path / "features"
    browser_page(
        circuit, subject, texts, Tokenizer(), folder, [*range(12)],
        text=TOKENS[0], which=TOKENS[1], labels=labels,
    )  # fmt: skip
    write_text(texts.rows, Tokenizer(), folder / "m")
    page = checked((folder / subject.name / "index.html").read_text(), scripts=2)
    words = set(words_in(page, "span.word"))
    assert words and words <= set(ON_ONE_LINE)
    assert json.loads(page.find("script", id="index").string)["name"][0] == TOKENS[0]
    assert not page.find_all(["b", "i"])
    seen: set[str] = set()
    for path in folder.glob("*/*.js"):  # a call with data, on one line
        call = re.fullmatch(r'shelve\("[a-z]+-\d+",(.*)\);\n', path.read_text())
        content = json.loads(call.group(1))
        if path.parent.name == "m":
            seen |= {token for row in content for token in row}
    assert seen == set(ON_ONE_LINE)


@pytest.mark.parametrize("note", ["</textarea><script>alert(1)</script>", *TOKENS[2:6], "\nx"])
def test_a_hostile_note_stays_in_its_field_of_the_rating_page(tmp_path, note):
    rater = Rater(make_app(make_study(), tmp_path, "anna").test_client())
    rater.rate(1, "maybe", note=note)
    page = checked(rater.page("/item/1"), scripts=1)
    assert words_in(page, "textarea") == [f"\n{note.strip()}"]
    assert len(page.find_all("form")) == 1


def test_hostile_tokens_are_texts_and_data_on_the_page_of_a_circuit(circuit, random_tokens):
    run = circuit.freeze(random_tokens(1, len(TOKENS))[0].long())
    paths = find_paths(run, some_targets(run)[-1], Search(30, 4, sign="both"))
    features = [path.node.name for path in paths if path.node.kind == "feature"]
    lists = [[token, [[other, "1.00"] for other in TOKENS]] for token in TOKENS]
    for title in TOKENS:
        record = {
            "name": title, "tokens": TOKENS, "target": {"name": title, "value": 1.0},
            "transcoders": [0], "rank_correlation": None, "notes": dict.fromkeys(features, lists),
        }  # fmt: skip
        labels = dict.fromkeys(features, Label(title, 0.5, title, tuple(TOKENS[:3])))
        source = circuit_page(record, paths, labels, pages={})
        page = checked(source, scripts=2)
        assert words_in(page, "h1") == words_in(page, "title") == [f"{title}: why {title}?"]
        assert words_in(page, "span.tok") == ON_ONE_LINE
        data = json.loads(page.find("script").string)
        assert data["tokens"] == ON_ONE_LINE
        assert next(iter(data["features"].values()))["lists"] == lists
        # The page's own script puts texts into elements, never markup.
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", source)


def test_hostile_tokens_are_texts_in_the_tables_of_a_notebook():
    frame = pd.DataFrame({"token": TOKENS})  # tables not listed here are one `html_table`, too
    numbers = ("top_matched", "sampled_matched", "silent_matched", "balanced_accuracy")
    studies = frame.assign(**dict.fromkeys(("study", "feature", "hypothesis", "outcome"), TOKENS))
    recurring = frame.assign(part=TOKENS, share=0.5, attribution=1.0, value=1.0)
    example = frame.assign(rank=1, prompt=TOKENS, path=TOKENS, attribution=1.0)
    for table in (
        html_table(frame, {}, name="tokens"),
        interpretability.case_studies_table(studies.assign(**dict.fromkeys(numbers, 0.5))),
        greater_than.recurring_table(recurring, n=len(TOKENS)),
        greater_than.example_table(example),
    ):
        page = checked(table)
        tags = {tag.name for tag in page.find_all(True)}
        assert tags <= {"table", "thead", "tbody", "tr", "th", "td", "a"}
        assert all(link["href"].startswith("case_study_") for link in page.find_all("a"))
        assert set(TOKENS) <= set(words_in(page, "td"))


def sentences(token):
    record = {
        "name": "case", "model": "tiny", "tokens": ["<|endoftext|>", token, " b"],
        "transcoders": [0], "target": {"name": f"logit[{token}]-logit[b]@-1", "value": 1.5},
        "completeness_error": 2e-8, "rank_correlation": None,
    }  # fmt: skip
    metric = {"original": {"value": 0.5, "low": 0.4, "high": 0.6}}
    summary = {"model": "m", "numbers": "pairs", "templates": [f"{token} 17{{YY}}"]}
    return describe_circuit(record), greater_than.describe_task(summary | {"metric": metric})


def test_hostile_tokens_are_texts_in_the_sentences_of_a_notebook():
    cell = nbformat.v4.new_code_cell("shown")
    cell.outputs = [
        nbformat.v4.new_output("display_data", {"text/markdown": sentence})
        for token in TOKENS
        for sentence in sentences(token)
    ]
    title = nbformat.v4.new_markdown_cell("# Title")
    page = checked(render_page(nbformat.v4.new_notebook(cells=[title, cell])), scripts=1)
    shown = "".join(" ".join(words_in(page, "h3, p")).split())
    for token in TOKENS:
        squeezed = "".join(token.replace("\n", "⏎").split())
        for text in (f"<|endoftext|>{squeezed}b", f"logit[{squeezed}]", f"“{squeezed}17"):
            assert text in shown
    assert not page.find_all(["em", "del", "code"])
