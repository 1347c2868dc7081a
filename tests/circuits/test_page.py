"""The page of a circuit: its data add up, and a reader can do with it what it promises."""

import json
import re
from math import nan

import pytest

from helpers_browser import NEEDS_CHROMIUM, Reader
from helpers_circuits import PROMPT, TARGETS
from transcoders.circuits import page as page_module
from transcoders.circuits.graph import build_graph, influence, prune_graph, without_remainders
from transcoders.circuits.labels import Label
from transcoders.circuits.notation import CONTRIBUTORS, REMAINDERS
from transcoders.circuits.page import circuit_page
from transcoders.circuits.paths import Search, strongest

TOKENS = ["<b>", '"', "\n{a|b}", "& ", " é"]
TEXT = ("Text", [("</b> & some", "1.00")])


def label(text, score, *by):
    return Label(text, score, "one token", ("one or", "</b> some & or", "each or"), *by)


@pytest.fixture(scope="module")
def paths(tracer):
    search = Search(40, 4, components=CONTRIBUTORS, sign="both")
    return tracer.trace(PROMPT, TARGETS["difference"], search).paths


@pytest.fixture(scope="module")
def graph(paths):
    return build_graph(paths)


def features_of(graph):
    """The names of its features, the most influential first."""
    return list(dict.fromkeys(node.name for node in influence(graph) if node.kind == "feature"))


def made(paths, labels=None, pages=None):
    notes = {name: [TEXT] for name in features_of(build_graph(paths))}
    record = {
        "name": "A page", "tokens": TOKENS, "target": {"name": "target", "value": 1.0},
        "transcoders": [0, 2], "rank_correlation": None, "notes": notes,
    }  # fmt: skip
    return circuit_page(record, paths, labels or {}, pages=pages or {})


def data_of(page):
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_holds_the_whole_graph(graph, paths):
    data, shares = data_of(made(paths)), influence(graph)
    assert data["target"] == graph.graph["target"].key
    written = {
        node["id"]: (node["influence"], node["token"], node["row"], node["attribution"])
        for node in data["nodes"]
    }
    nodes = graph.nodes(data="attribution")
    assert written == {n.key: (shares[n], n.token, n.row, value) for n, value in nodes}
    ids = [node["id"] for node in data["nodes"]]
    edges = {(ids[start], ids[end]): weight for start, end, weight in data["edges"]}
    flows = graph.edges(data="path_attribution")
    assert edges == {(start.key, end.key): weight for start, end, weight in flows}


def test_the_page_fetches_nothing(paths):
    page = made(paths)
    assert set(re.findall(r"https?://[^\s\"'<>]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", page)


def test_a_large_graph_is_pruned_and_says_how_much_was_found(graph, paths, monkeypatch):
    monkeypatch.setattr(page_module, "LIGHT", 10)
    monkeypatch.setattr(page_module, "HELD", 0.5)
    data, parts, shares = data_of(made(paths)), without_remainders(graph), influence(graph)
    held = prune_graph(graph, 0.5)
    assert {node["id"] for node in data["nodes"]} == {node.key for node in held}
    assert data["found"] == len(parts) > len(without_remainders(held))
    assert data["influence"] == sum(shares[n] for n in parts if n != graph.graph["target"])


def test_without_a_script_there_are_tables(graph, paths):
    name = features_of(graph)[0]
    page = made(paths, labels={name: label("a label & more", 0.8)})
    tables = page[page.index('<details id="tables" open>') : page.index("</details>\n<noscript>")]
    for path in strongest(paths, page_module.N_ROWS):
        assert str(path).replace("<", "&lt;") in tables
    best = next(n for n in influence(graph) if n.kind not in REMAINDERS)
    assert str(best) in tables
    assert f"{name}@" in tables and "a label &amp; more" in tables


# In a browser.


class CircuitReader(Reader):
    """Scripts are its own names, and clicks are real events."""

    def run(self, script):
        return self.browser.run(f"(() => {{ {script} }})()")

    def get(self, expression):
        return self.run(f"return {expression};")

    def drawn(self, kind="node"):
        return self.get(f"grid.querySelectorAll('.{kind}').length")

    def focused(self):
        return self.get("document.activeElement.dataset.id")

    def keep(self, share):
        moved = "new Event('input', { bubbles: true })"
        self.run(f"control('keep').value = {share}; control('keep').dispatchEvent({moved});")

    def click(self, selector):
        self.run(f"document.querySelector('{selector}').click();")

    def make_group(self, name, kind):
        """Select all nodes of a kind, and name them."""
        ids = self.get(f"[...grid.querySelectorAll('.node.{kind}')].map((each) => each.dataset.id)")
        click = "new MouseEvent('click', { bubbles: true, shiftKey: true })"
        for each in ids:
            self.run(f"elementOf.get('{each}').dispatchEvent({click});")
        self.run(f"control('name').value = '{name}'; control('make').click();")
        return ids


@pytest.fixture
def reader(browser, graph, paths, tmp_path):
    features = features_of(graph)
    labels = {
        features[0]: label("or after “one”", 0.91),
        features[1]: label("worthless", 0.6),
        features[2]: label("mine", nan, "Anna", "she knows"),
    }
    page = made(paths, labels=labels, pages=dict.fromkeys(range(3), "../x/1.html"))
    path = tmp_path / "circuit.html"
    path.write_text(page, encoding="utf-8")
    reader = CircuitReader(browser, path)
    reader.open()
    return reader


OVERLAPS = """
const boxes = [...grid.querySelectorAll("button")].map((each) => each.getBoundingClientRect());
return boxes.filter((a, i) => boxes.some((b, j) => j > i && a.left < b.right - 1
    && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1)).length;
"""
MISPLACED = """
return [...grid.querySelectorAll(".node")].filter((each) => {
    const box = each.getBoundingClientRect(), { token } = boxById(each.dataset.id);
    const heading = grid.querySelector(`[data-token="${token}"]`).getBoundingClientRect();
    return box.left < heading.left - 1 || box.right > heading.right + 1;
}).length;
"""


@NEEDS_CHROMIUM
@pytest.mark.parametrize("width", [400, 1200])
def test_everything_fits_and_stands_below_its_token(reader, width):
    """Many nodes of a cell stand behind a count, which opens."""
    reader.open("#keep=100&kinds=feature,head,mlp,embed,rest", width=width)
    cells = reader.get("[...grid.querySelectorAll('.count')].map((each) => each.dataset.cell)")
    assert cells or width > 400
    for cell in set(cells):
        reader.click(f'.count[data-cell="{cell}"]')
    assert reader.drawn() == reader.get("nodes.length") > 30
    assert reader.run(OVERLAPS) == reader.run(MISPLACED) == 0
    assert reader.get("document.documentElement.scrollWidth") <= width
    labels = "[...grid.querySelectorAll('.node.head .label, .node.mlp .label')]"
    assert reader.get(f"{labels}.every((each) => each.scrollWidth <= each.clientWidth)")
    assert reader.browser.said() == []


@NEEDS_CHROMIUM
def test_the_slider_prunes_as_the_graph_does(reader, graph):
    assert any(node.kind == "error" and node.row >= 0 for node in graph)  # they are no parts
    target = graph.graph["target"]
    flows = graph.in_edges(target, data="path_attribution")
    raising = {start: weight for start, _, weight in flows if weight > 0}
    for share in (5, 80, 100):
        reader.keep(share)
        shown = set(reader.get("[...drawing.shown].map((node) => node.id)"))
        expected = without_remainders(prune_graph(graph, share / 100))
        assert shown == {node.key for node in expected}
        count = f"{share}%: {len(shown)} of {len(without_remainders(graph))} nodes"
        assert reader.get("control('count').textContent") == count
        drawn = sum(weight for start, weight in raising.items() if start in expected)
        percent = round(100 * drawn / sum(raising.values()))
        assert f"{percent}% shown" in reader.get("control('shares').textContent")


@NEEDS_CHROMIUM
def test_filters_hide_kinds_and_signs(reader):
    reader.keep(100)
    assert reader.drawn("head") > 0 and reader.drawn("rest") == 0
    reader.click("[data-kind=head]")
    assert reader.drawn("head") == 0 < reader.drawn("feature")
    reader.click("[data-kind=rest]")
    assert reader.drawn("rest") > 0 and reader.drawn("edge.lowers") > 0
    reader.click("[data-sign=lowers]")
    assert reader.drawn("node.lowers:not(.target)") == reader.drawn("edge.lowers") == 0
    assert reader.drawn("edge.raises") > 0


@NEEDS_CHROMIUM
def test_a_panel_says_what_is_known_of_a_feature(reader, graph):
    reader.keep(100)
    features = features_of(graph)
    shown = [
        ("or after “one”", ["0.91", "each or", features[0]]),
        (features[1], ["“worthless” predicts", "0.60", "one or"]),
        ("mine", ["written by Anna: she knows"]),
        (features[3], []),
    ]
    for name, (title, said) in zip(features, shown, strict=False):
        reader.run(f"pick(drawing.boxes.find((box) => box.node.feature === '{name}'));")
        text = reader.get("panel.innerText")
        for part in (*said, "</b> & some", "Is read by", "influence"):
            assert part in text
        assert reader.get("panel.querySelector('h2').textContent") == title
        link = reader.get("panel.querySelector('a[href]')?.getAttribute('href')")
        unit = name.partition("[")[2].removesuffix("]")
        assert link == (f"../x/1.html#{unit}" if said else None)  # the browser has named ones
    reader.click(".node.head")
    near = "grid.querySelectorAll('.edge.near').length"
    assert reader.get(f"{near} > 0 && {near} < drawing.edges.length")


@NEEDS_CHROMIUM
def test_what_a_panel_lists_adds_up_to_the_attribution(reader):
    sums = """
    const readers = drawing.boxes.filter((box) => box.members.some((node) => node.into.length));
    return readers.map((box) => {
        const { rest, hidden } = readBy(box);
        const others = [...rest.flatMap(([, some]) => some), ...hidden];
        const missing = sum(others.map((edge) => edge.weight));
        return [sum(box.into.map((edge) => edge.weight)) + missing, box.attribution];
    });
    """
    reader.keep(90)
    singles = reader.run(sums)
    reader.make_group("all features", "feature")
    grouped = reader.run(sums)
    assert len(singles) > len(grouped) > 3
    for total, attribution in [*singles, *grouped]:
        assert total == pytest.approx(attribution, rel=1e-4, abs=1e-6)


@NEEDS_CHROMIUM
def test_keys_walk_the_graph(reader, graph):
    target = graph.graph["target"].key
    reader.run("focusBox(target.id);")
    for key, links, end in (("ArrowDown", "into", "from"), ("ArrowUp", "out", "to")):
        expected = reader.get(f"boxById(document.activeElement.dataset.id).{links}[0].{end}.id")
        reader.browser.press(key)
        assert reader.focused() == expected
    assert reader.drawn('node[tabindex="0"]') == 1
    reader.browser.press("Home")
    assert reader.focused() == target
    reader.browser.press("\r")
    assert reader.get("panel.hidden") is False
    reader.browser.press("ArrowDown")
    assert reader.get("view.picked") == reader.focused() != target
    reader.browser.press("Escape")
    assert reader.focused() != target and reader.get("panel.hidden") is True
    for key in "sg":  # select it, and name a group
        reader.browser.press(key)
    assert reader.get("document.activeElement.id") == "name"


@NEEDS_CHROMIUM
def test_a_group_is_one_box_and_survives_a_reload(reader):
    reader.keep(90)
    ids = reader.make_group("all heads, & more", "head")
    assert reader.drawn("group") == 1
    out = "boxById('group/all heads, & more').out"
    summed = reader.get(f"{out}.find((edge) => edge.to.node === target).weight")
    heads = f"target.into.filter((edge) => {json.dumps(ids)}.includes(edge.from.id))"
    assert summed == pytest.approx(reader.get(f"sum({heads}.map((e) => e.weight))"), rel=1e-6) != 0

    reader.browser.wait(lambda: "group=" in reader.get("location.hash"))
    address, groups = reader.get("location.hash"), reader.get("view.groups")
    assert sorted(groups[0]["nodes"]) == sorted(ids)
    reader.open(address)
    assert reader.get("view.groups") == groups and reader.get("view.keep") == 90
    assert reader.drawn("group") == 1

    reader.click("#groups button")  # open
    assert reader.drawn("group") == 0 < reader.drawn("member")
    reader.click("#groups button:nth-of-type(2)")  # delete
    assert reader.drawn("member") == reader.get("view.groups.length") == 0
    assert reader.browser.said() == []


@NEEDS_CHROMIUM
def test_groups_from_a_file_or_an_address_are_not_taken_on_trust(reader):
    head = reader.get("nodes.find((node) => node.kind === 'head').id")
    given = [
        {"name": "<b>one</b>", "nodes": [head, "nothing", head]},
        {"name": "<b>one</b>", "nodes": [head]},
        {"nodes": "no list"},
        None,
    ]
    load = "loadGroups(new File([{}], 'groups.json'));"
    for text, said in ((json.dumps({"groups": given}), "left out"), ("no JSON", "holds no groups")):
        reader.run(load.format(json.dumps(text)))
        reader.browser.wait(lambda said=said: said in reader.get("control('said').textContent"))
        assert reader.get("view.groups") == [{"name": "<b>one</b>", "open": False, "nodes": [head]}]
    reader.run("location.hash = 'keep=1000&kinds=,nothing&group=%7B&group=3&node=nothing';")
    reader.browser.wait(lambda: reader.get("view.groups.length") == 0)
    assert reader.get("[view.keep, view.kinds.size, view.picked]") == [80, 0, None]
    assert reader.browser.said() == []
