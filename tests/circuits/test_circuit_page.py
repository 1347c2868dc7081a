"""The page of a circuit needs nothing but itself, whatever its tokens are."""

import json
import re
from html.parser import HTMLParser
from typing import Any

import networkx as nx
import pytest

from helpers_circuits import some_targets
from transcoders.circuits.graph import build_graph, influence
from transcoders.circuits.notation import REMAINDERS, Node
from transcoders.circuits.page import circuit_page
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.replacement import LocalReplacementModel

NASTY = ["<|endoftext|>", "</script>", "<b>", "&amp;", '"', "'", "\n", "<!-- é"]


@pytest.fixture(scope="module", params=["logits", "feature"])
def graph(request: pytest.FixtureRequest, mixed: LocalReplacementModel) -> nx.DiGraph:
    target = some_targets(mixed)[0 if request.param == "logits" else -1]
    return build_graph(find_paths(mixed, target, Search(30, 4, sign="both")))


def shown(graph: nx.DiGraph) -> list[Node]:
    """The nodes of a graph but its remainders."""
    return [node for node in graph if node.kind not in REMAINDERS]


def page_of(graph: nx.DiGraph, **settings: Any) -> str:
    """The page, with tokens that are markup."""
    defaults: dict[str, Any] = {
        "title": "why <this> & that?",
        "tokens": NASTY,
        "summary": "It's </p> so.",
        "notes": {},
    }
    return circuit_page(graph, **{**defaults, **settings})


def data_of(page: str) -> dict[str, Any]:
    """The numbers that the page's script reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


class Tags(HTMLParser):
    """The tags of a page and the text outside of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        self.closed.append(tag)

    def handle_data(self, data: str) -> None:
        if not self.opened or self.opened[-1] not in ("script", "style"):
            self.text += data


def parsed(page: str) -> Tags:
    tags = Tags()
    tags.feed(page)
    return tags


def test_the_page_reads_nothing_from_elsewhere(graph: nx.DiGraph) -> None:
    page = page_of(graph)
    addresses = set(re.findall(r"https?://[^\s\"'<>]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    tags = parsed(page)
    assert not {"link", "img", "iframe", "object", "embed"} & set(tags.opened)
    assert not {"src", "href"} & {name for name, _ in tags.attributes}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", page)


def test_tokens_titles_and_summaries_that_are_markup_are_shown_as_text(graph: nx.DiGraph) -> None:
    page = page_of(graph)
    tags = parsed(page)
    assert page.count("</script>") == 2
    assert tags.opened.count("script") == tags.closed.count("script") == 2
    assert not {"b", "this"} & set(tags.opened)
    assert "why <this> & that?" in tags.text
    assert "It's </p> so." in tags.text
    for token in NASTY:
        assert token.replace("\n", "⏎") in tags.text


def test_the_numbers_of_the_page_are_those_of_the_graph(graph: nx.DiGraph) -> None:
    data = data_of(page_of(graph))
    assert data["target"] == graph.graph["target"].key
    assert data["tokens"] == [token.replace("\n", "⏎") for token in NASTY]
    assert sorted(node["id"] for node in data["nodes"]) == sorted(n.key for n in shown(graph))
    edges = {(edge["source"], edge["target"]): edge["weight"] for edge in data["edges"]}
    assert edges == {
        (start.key, end.key): weight
        for start, end, weight in graph.edges(data="path_attribution")
        if start.kind not in REMAINDERS
    }
    shares = influence(graph)
    by_id = {node["id"]: node for node in data["nodes"]}
    for node in shown(graph):
        assert by_id[node.key]["name"] == str(node)
        assert by_id[node.key]["influence"] == shares[node]
        assert (by_id[node.key]["token"], by_id[node.key]["row"]) == (node.token, node.row)


def test_nodes_say_what_remainders_give_them(graph: nx.DiGraph) -> None:
    by_id = {node["id"]: node for node in data_of(page_of(graph))["nodes"]}
    for node in shown(graph):
        given = [value for name, value in by_id[node.key]["facts"] if name.startswith("…")]
        remainders = [
            weight
            for start, _, weight in graph.in_edges(node, data="path_attribution")
            if start.kind in REMAINDERS
        ]
        assert [float(value) for value in given] == pytest.approx(remainders, rel=1e-2)


def test_notes_are_shown_with_every_node_of_their_feature(graph: nx.DiGraph) -> None:
    feature = next(node for node in graph if node.kind == "feature")
    lists = [["Text </script>", [["a token", "1.00"]]]]
    page = page_of(graph, notes={str(feature).partition("@")[0]: lists})
    nodes = data_of(page)["nodes"]
    with_notes = [node["name"].partition("@")[0] for node in nodes if node["lists"]]
    assert set(with_notes) == {str(feature).partition("@")[0]}
    assert next(n for n in nodes if n["name"] == str(feature))["lists"] == lists
