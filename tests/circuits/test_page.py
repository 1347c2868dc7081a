"""The page of a circuit: its data add up, and a reader can do with it what it promises."""

import json
import re
from math import nan

import pytest

from helpers_browser import NEEDS_CHROMIUM, Reader
from helpers_circuits import prompt, some_targets
from transcoders.circuits import page as page_module
from transcoders.circuits.graph import build_graph, influence, prune_graph, without_remainders
from transcoders.circuits.labels import Label
from transcoders.circuits.notation import REMAINDERS
from transcoders.circuits.page import circuit_page
from transcoders.circuits.paths import Search, find_paths, strongest

TOKENS = ["<|endoftext|>", "<b>", '"', "\n", "{a|b}", "&", " ", " é"]
TEXT = ("Text", [("</b> & some", "1.00")])


def label(text, score, *by):
    return Label(text, score, "one token", ("one or", "</b> some & or", "each or"), *by)


@pytest.fixture(scope="module")
def paths(gpt2_replacement, random_tokens):
    local = gpt2_replacement.freeze(prompt(random_tokens))
    return find_paths(local, some_targets(local)[0], Search(30, 4, sign="both"))


@pytest.fixture(scope="module")
def graph(paths):
    return build_graph(paths)


def features_of(graph):
    """The names of its features, the most influential first."""
    shares = influence(graph)
    found = sorted((n for n in graph if n.kind == "feature"), key=lambda n: (-shares[n], n))
    return list(dict.fromkeys(str(node).partition("@")[0] for node in found))


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
    nodes = {node["id"]: node for node in data["nodes"]}
    assert data["target"] == graph.graph["target"].key
    assert set(nodes) == {node.key for node in graph}
    for node in graph:
        written = nodes[node.key]
        assert written["influence"] == shares[node]
        assert (written["token"], written["row"]) == (node.token, node.row)
        assert written["attribution"] == graph.nodes[node]["attribution"]
    edges = {
        (data["nodes"][start]["id"], data["nodes"][end]["id"]): weight
        for start, end, weight in data["edges"]
    }
    flows = graph.edges(data="path_attribution")
    assert edges == {(start.key, end.key): weight for start, end, weight in flows}


def test_the_page_fetches_nothing(paths):
    page = made(paths)
    assert set(re.findall(r"https?://[^\s\"'<>]+", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", page)


def test_a_large_graph_is_pruned_and_says_how_much_was_found(graph, paths, monkeypatch):
    monkeypatch.setattr(page_module, "LIGHT", 10)
    monkeypatch.setattr(page_module, "HELD", 0.5)
    data, parts = data_of(made(paths)), without_remainders(graph)
    shares, target = influence(graph), graph.graph["target"]
    assert {node["id"] for node in data["nodes"]} == {n.key for n in prune_graph(graph, 0.5)}
    assert data["found"] == len(parts) > len(without_remainders(prune_graph(graph, 0.5)))
    assert data["influence"] == sum(shares[node] for node in parts if node != target)
    held = {node["id"]: node["influence"] for node in data["nodes"] if node["row"] >= 0}
    assert held == {node.key: shares[node] for node in parts if node.key in held}


def test_without_a_script_there_are_tables(graph, paths):
    name = features_of(graph)[0]
    page = made(paths, labels={name: label("a label & more", 0.8)})
    tables = page[page.index('<details id="tables" open>') : page.index("</details>\n<noscript>")]
    for path in strongest(paths, page_module.N_ROWS):
        assert str(path).replace("<", "&lt;") in tables
    shares = influence(graph)
    best = max((n for n in shares if n.kind not in REMAINDERS), key=lambda n: shares[n])
    assert str(best) in tables
    assert f"{name}@" in tables and "a label &amp; more" in tables


def test_links_lead_from_features_with_a_label_to_the_browser(graph, paths):
    names = features_of(graph)
    labels = {name: label("a label", 0.8) for name in names[1:]}
    features = data_of(made(paths, labels=labels, pages={2: "../x/2.html"}))["features"]
    units = {name: re.fullmatch(r"tc2\[(\d+)\]", name) for name in labels}
    links = {name: f"../x/2.html#{unit[1]}" for name, unit in units.items() if unit}
    assert {name: its["link"] for name, its in features.items() if "link" in its} == links != {}


# In a browser.


class CircuitReader(Reader):
    """Scripts are its own names, and clicks are real events."""

    def run(self, script):
        return self.browser.run(f"(() => {{ {script} }})()")

    def drawn(self, kind="node"):
        return self.browser.run(f"grid.querySelectorAll('.{kind}').length")

    def focused(self):
        return self.browser.run("document.activeElement.dataset.id")

    def keep(self, share):
        self.run(f"control('keep').value = {share}; control('keep').dispatchEvent("
                 "new Event('input', { bubbles: true }));")  # fmt: skip

    def tick(self, box):
        self.run(f"document.querySelector('[data-{box}]').click();")

    def select(self, kind, count):
        self.run(f"for (const id of [...grid.querySelectorAll('.node.{kind}')].slice(0, {count})"
                 ".map((each) => each.dataset.id)) elementOf.get(id).dispatchEvent("
                 "new MouseEvent('click', { bubbles: true, shiftKey: true }));")  # fmt: skip

    def make_group(self, name):
        self.run(f"control('name').value = {json.dumps(name)}; control('make').click();")


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
    reader.open("#keep=100&kinds=feature,head,mlp,embed,rest", width=width)
    reader.run("for (const key of new Set([...grid.querySelectorAll('.count')]"
               ".map((each) => each.dataset.cell))) toggleCell(key);")  # fmt: skip
    assert reader.drawn() == reader.run("return nodes.length;") > 30
    assert reader.run(OVERLAPS) == reader.run(MISPLACED) == 0
    assert reader.run("return document.documentElement.scrollWidth;") <= width
    clipped = "[...grid.querySelectorAll('.node.head .label, .node.mlp .label')]"
    assert reader.run(f"return {clipped}.every((each) => each.scrollWidth <= each.clientWidth);")
    assert reader.browser.said() == []


@NEEDS_CHROMIUM
@pytest.mark.parametrize("share", [5, 80, 100])
def test_the_slider_prunes_as_the_graph_does(reader, graph, share):
    reader.keep(share)
    shown = set(reader.run("return [...drawing.shown].map((node) => node.id);"))
    expected = without_remainders(prune_graph(graph, share / 100))
    assert shown == {node.key for node in expected}
    count = reader.run("return control('count').textContent;")
    assert count == f"{share}%: {len(shown)} of {len(without_remainders(graph))} nodes"
    target = graph.graph["target"]
    flows = graph.in_edges(target, data="path_attribution")
    raising = [(start, weight) for start, _, weight in flows if weight > 0]
    drawn = sum(weight for start, weight in raising if start in expected)
    percent = round(100 * drawn / sum(weight for _, weight in raising))
    assert f"{percent}% shown" in reader.run("return control('shares').textContent;")


@NEEDS_CHROMIUM
def test_filters_hide_kinds_and_signs(reader):
    reader.keep(100)
    assert reader.drawn("head") > 0 and reader.drawn("rest") == 0
    reader.tick("kind=head")
    assert reader.drawn("head") == 0 < reader.drawn("feature")
    reader.tick("kind=rest")
    assert reader.drawn("rest") > 0
    assert reader.drawn("edge.lowers") > 0
    reader.tick("sign=lowers")
    assert reader.drawn("node.lowers:not(.target)") == reader.drawn("edge.lowers") == 0
    assert reader.drawn("edge.raises") > 0


@NEEDS_CHROMIUM
def test_a_click_opens_the_panel_and_escape_closes_it(reader, graph):
    reader.keep(100)
    features = features_of(graph)
    for name in features[:3]:
        reader.run(f"pick(drawing.boxes.find((box) => box.node.feature === '{name}'));")
        text = reader.run("return panel.innerText;")
        assert reader.run("return panel.hidden;") is False
        assert "</b> & some" in text and "Is read by" in text and "influence" in text
        title, link = "panel.querySelector('h2').textContent", "panel.querySelector('a[href]')"
        address = reader.run(f"return {link}.getAttribute('href');")
        assert address == f"../x/1.html#{name.partition('[')[2].removesuffix(']')}"
        if name == features[0]:
            assert reader.run(f"return {title};") == "or after “one”"
            assert "0.91" in text and "each or" in text and name in text
        elif name == features[2]:
            assert reader.run(f"return {title};") == "mine"
            assert "written by Anna: she knows" in text
        else:
            assert reader.run(f"return {title};") == name
            assert "“worthless” predicts" in text and "0.60" in text
            assert "one or" in text and "each or" not in text
    reader.browser.press("Escape")
    assert reader.run("return panel.hidden;") is True
    reader.run("grid.querySelector('.node.head').click();")
    assert reader.run("return panel.hidden;") is False
    near = "grid.querySelectorAll('.edge.near').length"
    assert reader.run(f"return {near} > 0 && {near} < drawing.edges.length;")


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
    reader.select("feature", 3)
    reader.make_group("some features")
    grouped = reader.run(sums)
    assert len(singles) > len(grouped) > 3
    for total, attribution in [*singles, *grouped]:
        assert total == pytest.approx(attribution, rel=1e-4, abs=1e-6)


@NEEDS_CHROMIUM
def test_keys_walk_the_graph(reader, graph):
    target = graph.graph["target"].key
    reader.run("focusBox(target.id);")
    for key, links, end in (("ArrowDown", "into", "from"), ("ArrowUp", "out", "to")):
        expected = reader.run(
            f"return boxById(document.activeElement.dataset.id).{links}[0].{end}.id;"
        )
        reader.browser.press(key)
        assert reader.focused() == expected
    assert reader.run("return grid.querySelectorAll('[tabindex=\"0\"]').length;") == 1
    reader.run("focusBox(drawing.boxes.find((box) => drawing.boxes.some("
               "(other) => other !== box && other.row === box.row)).id);")  # fmt: skip
    keys = ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft")
    assert len({reader.browser.press(key) or reader.focused() for key in keys}) > 1
    reader.browser.press("Home")
    assert reader.focused() == target
    reader.browser.press("\r")
    assert reader.run("return panel.hidden;") is False
    reader.browser.press("ArrowDown")
    assert reader.run("return view.picked;") == reader.focused() != target
    reader.browser.press("Escape")
    assert reader.focused() != target and reader.run("return panel.hidden;") is True
    reader.browser.press("s")
    reader.browser.press("g")
    assert reader.run("return document.activeElement.id;") == "name"
    assert reader.run("return control('name').value;") == ""


@NEEDS_CHROMIUM
def test_a_group_is_one_box_and_survives_a_reload(reader):
    reader.keep(90)
    before = reader.drawn()
    flow = reader.run("return sum(target.into.filter((e) => e.from.kind === 'head')"
                      ".map((e) => e.weight));")  # fmt: skip
    assert flow != 0
    ids = reader.run("return drawing.boxes.filter((box) => box.node.kind === 'head')"
                     ".map((box) => box.id);")  # fmt: skip
    reader.run(f"for (const id of {json.dumps(ids)}) toggleSelected(boxById(id));")
    reader.make_group("all heads, & more")
    assert reader.drawn("group") == 1
    assert reader.drawn() <= before
    summed = reader.run("return boxById('group/all heads, & more').out"
                        ".find((edge) => edge.to.node === target).weight;")  # fmt: skip
    inner = reader.run(f"return sum(target.into.filter((e) => {json.dumps(ids)}"
                       ".includes(e.from.id)).map((e) => e.weight));")  # fmt: skip
    assert summed == pytest.approx(inner, rel=1e-6)

    reader.browser.wait(lambda: "group=" in reader.run("return location.hash;"))
    address, groups = reader.run("return location.hash;"), reader.run("return view.groups;")
    assert sorted(groups[0]["nodes"]) == sorted(ids)
    reader.open(address)
    assert reader.run("return view.groups;") == groups
    assert reader.run("return view.keep;") == 90
    assert reader.drawn("group") == 1

    reader.run("document.querySelector('#groups button').click();")  # open
    assert reader.drawn("group") == 0 and reader.drawn("member") > 0
    reader.run("document.querySelectorAll('#groups button')[1].click();")  # delete
    assert reader.drawn("member") == reader.run("return view.groups.length;") == 0
    reader.browser.wait(lambda: "group" not in reader.run("return location.hash;"))
    assert reader.browser.said() == []


@NEEDS_CHROMIUM
def test_groups_from_a_file_or_an_address_are_not_taken_on_trust(reader):
    head = reader.run("return nodes.find((node) => node.kind === 'head').id;")
    given = [
        {"name": "<b>one</b>", "nodes": [head, "nothing", head]},
        {"name": "<b>one</b>", "nodes": [head]},
        {"name": "empty", "nodes": []},
        {"nodes": "no list"},
        None,
    ]
    clean = [{"name": "<b>one</b>", "open": False, "nodes": [head]}]
    assert reader.run(f"return cleanGroups({json.dumps(given)});") == clean
    text = json.dumps({"groups": given})
    load = "loadGroups(new File([{}], 'groups.json'));"
    reader.run(load.format(json.dumps(text)))
    reader.browser.wait(lambda: reader.run("return view.groups.length === 1;"))
    assert "left out" in reader.run("return control('said').textContent;")
    reader.run(load.format(json.dumps("not JSON")))
    reader.browser.wait(
        lambda: "holds no groups" in reader.run("return control('said').textContent;")
    )
    assert reader.run("return view.groups.length;") == 1
    reader.run("location.hash = 'keep=1000&kinds=,nothing&group=%7B&group=3&node=nothing';")
    reader.browser.wait(lambda: reader.run("return view.groups.length === 0;"))
    assert reader.run("return [view.keep, view.kinds.size, view.picked];") == [80, 0, None]
    assert reader.browser.said() == []


@NEEDS_CHROMIUM
def test_many_nodes_of_a_cell_stand_behind_a_count_that_opens(reader):
    reader.open("#keep=100", width=400)
    assert reader.drawn("count") > 0
    before = reader.drawn()
    reader.run("grid.querySelector('.count').click();")
    assert reader.drawn() > before
