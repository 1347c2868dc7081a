"""Names and tokens of others: none leads elsewhere or becomes markup."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import networkx as nx
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

from helpers_circuits import Make, make_circuit, some_targets
from helpers_rating import Rater, make_study
from transcoders.circuits.graph import build_graph
from transcoders.circuits.page import circuit_page
from transcoders.circuits.paths import Search, find_paths
from transcoders.config import Scale, Site, load_scale
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.interpretability.feature_pages import write_feature_pages
from transcoders.interpretability.gather import Subject, gather, load_observed, load_text
from transcoders.layout import Layout
from transcoders.models import load_model
from transcoders.notebooks import render_page
from transcoders.rating.server import make_app
from transcoders.tables import checks_table, describe_circuit, greater_than, interpretability
from transcoders.tables.html import html_table

SMOKE = yaml.safe_load((Path(__file__).parents[1] / "config/smoke.yaml").read_text())

# Names that lead elsewhere.


@pytest.mark.parametrize("bad", ["../x", "/x", "a/b", "x/", "..", ".x", "", "a\nb", "a\0b", "a\\b"])
@pytest.mark.parametrize(
    "place", ["models", "groups", "extensions", "learning_rates", "circuits.cases"]
)
def test_a_name_in_a_scale_file_is_the_name_of_a_file(tmp_path: Path, place: str, bad: str) -> None:
    content = copy.deepcopy(SMOKE)
    if place == "models":
        content["models"][bad] = content["models"]["tiny-gpt2"]
    else:
        section = content
        for key in place.split("."):
            section = section[key]
        section[-1]["name"] = bad
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=rf"\n  {place}\..*: expected a string to match pattern"):
        load_scale(path)


@pytest.mark.parametrize("bad", ["../x", "tiny-gpt2/../../x"])
def test_whatever_else_names_a_model_names_one_that_there_is(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "mine.yaml"
    for place in (
        ("sites", 0), ("circuit_sites", 0), ("groups", 0, "site"), ("circuits", "cases", 0),
        ("circuits", "checks", 0), ("greater_than",), ("interpretability", "rated_site"),
    ):  # fmt: skip
        content = section = copy.deepcopy(SMOKE)
        for key in place:
            section = section[key]
        section["model"] = bad
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=r"no model named|not among the sites|one of sites"):
            load_scale(path)


@pytest.mark.parametrize("bad", ["../x", "a/b", "/x", "..", ".", ""])
def test_no_path_of_a_scale_leads_out_of_its_folder(bad: str) -> None:
    public = {key: getattr(Layout("smoke"), key) for key in vars(Layout) if key[0] != "_"}
    named = [key for key, value in public.items() if callable(value)]
    assert len(named) > 10
    for method in named:
        assert not str(getattr(Layout("smoke"), method)("x")).startswith(("/", ".."))
        with pytest.raises(UserError, match="expected a name, found a path"):
            getattr(Layout("smoke"), method)(bad)
    for part in (key for key, value in public.items() if isinstance(value, Path)):
        if part not in ("listed_claims", "landing_page"):
            with pytest.raises(UserError, match="expected a name, found a path"):
                getattr(Layout(bad), part)


# Tokens that are markup.

TOKENS = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</textarea>", "</script>",
    "{{7*7}}", "{% raw %}", "&lt;b&gt;", "'><a href='javascript:alert(1)'>", "<!--", "]]>", "`x`",
    "__x__", "~~x~~", "$x$", "\\(x\\)", "[x](javascript:alert(1))", "![x](http://example.org/x.png)",
    "<http://example.org>", "\n\n# x", " \t ", "é",
]  # fmt: skip
"""No two are alike when all is taken for text, and none is left as it is when it is not."""
ON_ONE_LINE = [token.replace("\n", "⏎") for token in TOKENS]
VOID = {"meta", "link", "input", "br", "img", "hr", "col"}


class Page(HTMLParser):
    """What a browser makes of a page: its tags, attributes, and texts by the class around them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attributes]
        if tag not in VOID:
            self._open.append((tag, dict(attributes).get("class") or ""))
            self.texts.append((f"{tag}.{self._open[-1][1]}", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in {opened for opened, _ in self._open}:
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open:
            where = ".".join(self._open[-1])
            place = max(i for i, (what, _) in enumerate(self.texts) if what == where)
            self.texts[place] = (where, self.texts[place][1] + data)

    def of(self, what: str) -> list[str]:
        """The texts in one kind of element: ``span.word``."""
        return [words for where, words in self.texts if where == what]


def checked(page: str, *, scripts: int = 0) -> Page:
    """A page on which nothing but its own scripts could run, and that fetches nothing."""
    found = Page(page)
    assert found.tags.count("script") == scripts
    assert not {"img", "svg/onload", "iframe", "object", "embed", "base"} & set(found.tags)
    assert not [key for key, _ in found.attributes if key.startswith("on")]
    for key, value in found.attributes:
        if key in ("src", "href", "action"):
            assert not value.strip().lower().startswith(("javascript:", "data:", "http:")), value
    return found


class Tokenizer:
    """A hostile token for every number."""

    def decode(self, tokens: list[int], **_: Any) -> str:
        return "".join(TOKENS[int(token) % len(TOKENS)] for token in tokens)


def test_hostile_tokens_are_texts_on_feature_pages(
    tmp_path: Path, scale: Scale, tiny_models: dict[str, Path], random_dictionary: Make,
    random_tokens: Callable[..., Tensor],
) -> None:  # fmt: skip
    circuit = make_circuit(
        load_model(tiny_models["llama"]), random_dictionary, {0: "transcoder"}, first=1
    )
    site, dictionary = Site(model="m", layer=2), random_dictionary("transcoder", seed=6)
    rows = Rows(random_tokens(30, 16, seed=2), torch.zeros(30))
    gather(
        circuit.model, rows, {"mine": (site, dictionary)}, scale.interpretability,
        tmp_path / "observed", first_position=1, seed=0,
    )  # fmt: skip
    observed = load_observed(tmp_path / "observed", "mine")
    subject = Subject("<b>mine</b>", site, dictionary, observed)
    texts = load_text(tmp_path / "observed")
    write_feature_pages(circuit, subject, texts, Tokenizer(), [*range(12)], tmp_path / "p")
    seen = set()
    for path in (tmp_path / "p").glob("*.html"):
        page = checked(path.read_text())
        words = {word for of in ("span.word", "span.tok", "span.tok peak") for word in page.of(of)}
        assert words and words <= set(ON_ONE_LINE)
        assert "b" not in page.tags
        seen |= words
    assert seen == set(ON_ONE_LINE)


@pytest.mark.parametrize("note", ["</textarea><script>alert(1)</script>", *TOKENS[2:6], "\nx"])
def test_a_hostile_note_stays_in_its_field_of_the_rating_page(tmp_path: Path, note: str) -> None:
    rater = Rater(make_app(make_study(), tmp_path, "anna").test_client())
    rater.rate(1, "maybe", note=note)
    page = checked(rater.page("/item/1"), scripts=1)
    assert page.of("textarea.") == [f"\n{note.strip()}"]
    assert page.tags.count("form") == 1 and page.tags.count("textarea") == 1


@pytest.fixture(scope="module")
def graph(
    tiny_models: dict[str, Path], random_dictionary: Make, random_tokens: Callable[..., Tensor]
) -> nx.DiGraph:
    circuit = make_circuit(
        load_model(tiny_models["llama"]),
        random_dictionary,
        {0: "transcoder", 2: "transcoder"},
        first=1,
    )
    run = circuit.freeze(random_tokens(1, len(TOKENS))[0].long())
    return build_graph(find_paths(run, some_targets(run)[-1], Search(30, 4, sign="both")))


def test_hostile_tokens_are_texts_and_data_on_the_page_of_a_circuit(graph: nx.DiGraph) -> None:
    features = [str(node).partition("@")[0] for node in graph if node.kind == "feature"]
    lists = [(token, [(other, "1.00") for other in TOKENS]) for token in TOKENS]
    for title in TOKENS:
        source = circuit_page(
            graph, title=title, tokens=TOKENS, summary=title, notes=dict.fromkeys(features, lists)
        )
        page = checked(source, scripts=2)
        assert page.of("h1.") == page.of("title.") == [title]
        assert page.of("span.tok") == ON_ONE_LINE
        data = json.loads(page.of("script.")[0])
        assert data["tokens"] == ON_ONE_LINE
        found = [node["lists"] for node in data["nodes"] if node["lists"]]
        assert found and found[0] == json.loads(json.dumps(lists))
        # The page's own script puts texts into elements, never markup.
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", source)


def cells(table: str) -> list[str]:
    page = checked(table)
    assert set(page.tags) <= {"style", "table", "thead", "tbody", "tr", "th", "td"}
    return [words for where, words in page.texts if where.startswith("td.")]


def tables() -> Iterator[tuple[str, list[str]]]:
    """Every table of a notebook that shows tokens or texts of others, and what it must show."""
    one = {"attribution": 1.0, "value": 1.0}
    frame = pd.DataFrame({"token": TOKENS})
    yield html_table(frame, {}, name="tokens"), TOKENS
    checks = frame.assign(feature="tc1[2]", text=TOKENS, activation=1.0)
    yield checks_table(checks), TOKENS
    studies = pd.DataFrame(
        {
            "dictionary": "m_transcoder", "feature": range(len(TOKENS)), "predicted": TOKENS,
            "method": "layer 0", "precision": 0.5, "correlation": 0.5, "frequency": 0.1,
        }
    )  # fmt: skip
    yield interpretability.studies_table(studies, n=len(TOKENS)), TOKENS
    worked = dict.fromkeys(("top_matched", "sampled_matched", "silent_matched"), 0.5)
    table4 = pd.DataFrame(
        [worked | {"study": t, "feature": t, "hypothesis": t, "outcome": t,
                   "balanced_accuracy": 0.5} for t in TOKENS]
    )  # fmt: skip
    yield interpretability.case_studies_table(table4), TOKENS
    recurring = frame.assign(part=TOKENS, share=0.5, **one)
    yield greater_than.recurring_table(recurring, n=len(TOKENS)), TOKENS
    paths = frame.assign(rank=1, prompt=TOKENS, path=TOKENS, attribution=1.0)
    yield greater_than.example_table(paths), TOKENS


def test_hostile_tokens_are_texts_in_every_table_of_a_notebook() -> None:
    for table, shown in tables():
        assert set(shown) <= set(cells(table))


@pytest.mark.parametrize("token", [*TOKENS, "".join(TOKENS)])
def test_hostile_tokens_are_texts_in_the_sentences_of_a_notebook(token: str) -> None:
    record = {
        "name": "case", "model": "tiny", "tokens": ["<|endoftext|>", token, " b"],
        "transcoders": [0], "target": {"name": f"logit[{token}]-logit[b]@-1", "value": 1.5},
        "completeness_error": 2e-8, "rank_correlation": None,
    }  # fmt: skip
    summary = {
        "model": "m", "numbers": "pairs", "templates": [f"{token} 17{{YY}}"],
        "metric": {"original": {"value": 0.5, "low": 0.4, "high": 0.6}},
    }  # fmt: skip
    cell = nbformat.v4.new_code_cell("shown")
    cell.outputs = [
        nbformat.v4.new_output("display_data", {"text/markdown": sentence})
        for sentence in (describe_circuit(record), greater_than.describe_task(summary))
    ]
    title = nbformat.v4.new_markdown_cell("# Title")
    page = checked(render_page(nbformat.v4.new_notebook(cells=[title, cell])))
    shown = "".join(words for where, words in page.texts if where.startswith(("h3.", "p.")))
    squeezed = " ".join(token.replace("\n", "⏎").split())
    for text_around in (f"<|endoftext|>{squeezed} b", f"logit[{squeezed}]", f"“{squeezed} 17"):
        assert "".join(text_around.split()) in "".join(shown.split())
    assert not {"em", "del", "code"} & set(page.tags)
