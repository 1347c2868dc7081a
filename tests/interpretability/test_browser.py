"""The feature browser: complete, shaded by what the model computes, and used as a reader would."""

import html
import json
import re
import shutil

import pytest

from helpers_browser import NEEDS_CHROMIUM, Reader
from helpers_circuits import make_circuit, plain, plain_pass, without_weight
from helpers_features import browser_page
from transcoders.circuits.labels import Label, feature_name
from transcoders.interpretability import browser as browser_module
from transcoders.interpretability import browser_data
from transcoders.interpretability.automatic import live_features
from transcoders.interpretability.browser import write_list, write_text
from transcoders.interpretability.gather import Observed, Subject, load_observed, load_text
from transcoders.models import load_tokenizer
from workflow.running import hashes_below

PER_FILE = 9
EXAMPLES = ("one of", "two of")


def read_shelved(path):
    """What a file of data holds, and nothing else is in it."""
    name, content = re.fullmatch(r'shelve\("([\w-]+)",(.*)\);\n', path.read_text()).groups()
    assert name == path.stem
    return json.loads(content)


def read_index(page):
    text = page.read_text()
    return json.loads(re.search(r'id="index">(.*?)</script>', text).group(1))


@pytest.fixture(scope="module")
def circuit(model, random_dictionary):
    return make_circuit(model, random_dictionary, {0: "transcoder"}, first=1)


@pytest.fixture(scope="module")
def write(circuit, gathered, tiny_models):
    """Write the browser of one dictionary, in small files."""
    text, tokenizer = load_text(gathered), load_tokenizer(tiny_models["llama"])

    def write(folder, subject, features, labels=None):
        with pytest.MonkeyPatch.context() as patch:
            sizes = {"FEATURES_PER_FILE": PER_FILE, "ROWS_PER_FILE": 8, "N_ROWS": 20}
            for name, size in sizes.items():
                patch.setattr(browser_module, name, size)
            page = browser_page(
                circuit, subject, text, tokenizer, folder, features,
                text="some text (a licence).", which="some of them.", labels=labels,
            )  # fmt: skip
            write_text(text.rows, tokenizer, folder / subject.site.model)
        write_list([page], folder, article="../docs/index.html")
        return page

    return write


@pytest.fixture(scope="module")
def subject(gathered, dictionaries):
    return Subject("late", *dictionaries["late"], load_observed(gathered, "late"))


@pytest.fixture(scope="module")
def features(subject):
    """All live features but one, which a link may still ask for."""
    return live_features(subject.observed)["feature"].tolist()[1:]


@pytest.fixture(scope="module")
def labels(features):
    found = [
        Label("“of”", 0.91, "token: words", EXAMPLES),
        Label("digits", 0.62, "token: digits", EXAMPLES),
        Label("years", float("nan"), "", EXAMPLES, "anna", "all are"),
    ]
    return {feature_name(2, at): each for at, each in zip(features, found, strict=False)}


@pytest.fixture(scope="module")
def folder(write, subject, features, labels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser") / "features"
    page = write(folder, subject, features, labels)
    assert (page.n, page.n_named) == (len(features), 2)
    return folder


def test_every_feature_and_row_is_in_a_file_and_the_same_bytes_come_again(
    folder, write, subject, features, labels, tmp_path
):
    own = folder / "late"
    assert 'href="../docs/index.html"' in (folder / "index.html").read_text(encoding="utf-8")
    assert read_index(own / "index.html")["feature"] == features
    parts = [read_shelved(path) for path in sorted(own.glob("data-*.js"))]
    assert len(parts) == -(-len(features) // PER_FILE) > 2
    for part in parts[:-1]:
        assert {len(column) for column in part.values()} == {PER_FILE}
    texts = [read_shelved(path) for path in sorted((folder / "m").glob("text-*.js"))]
    assert [len(rows) for rows in texts] == [8, 8, 8, 6]
    write(tmp_path, subject, features, labels)
    written = hashes_below(folder)
    assert hashes_below(tmp_path) == written and len(written) == 2 + len(parts) + len(texts)


def test_shades_are_shares_of_the_largest_and_drives_are_what_weights_say(
    folder, features, subject, circuit, rows, tiny_models
):
    decode = load_tokenizer(tiny_models["llama"]).decode
    scores = plain(circuit.model).hf.get_input_embeddings().weight @ subject.dictionary.W_enc
    data = read_shelved(folder / "late/data-00.js")
    top = subject.observed.examples.query("kind == 'top'").groupby("feature")
    for feature, drives, examples in zip(features, data["drives"], data["examples"], strict=False):
        wanted = [decode([int(token)]) for token in scores[:, feature].topk(3).indices]
        assert [token for token, _ in drives[:3]] == wanted
        best = top.get_group(feature).iloc[0]
        group, row, position, before, digits = examples[0]
        assert (group, row, position) == (0, best["row"], best["position"])
        stream = plain_pass(circuit.model, rows.tokens[row].long()).before_mlp[2]
        read = without_weight(plain(circuit.model).blocks[2].norm_2, stream)
        z = subject.dictionary.encode(read)[:, feature]
        z[0] = 0
        shares = [0.0] * len(z)
        for at, digit in enumerate(digits, start=position - before):
            shares[at] = int(digit, 36) / 35
        for at in range(max(position - 16, 1), min(position + 7, len(z))):
            assert shares[at] == pytest.approx(float(z[at] / z.max()), abs=1 / 35 + 1e-4)
            assert (shares[at] > 0) == bool(z[at] > 0)
        assert shares[position] == max(shares) == 1.0


def test_the_table_says_what_features_are_called(folder, features, subject):
    own = folder / "late"
    index, data = read_index(own / "index.html"), read_shelved(own / "data-00.js")
    assert index["name"][:4] == ["“of”", "", "years", ""]
    assert index["score"][:4] == [0.91, 0.62, None, None]
    assert data["why"][:4] == ["", "", "anna: all are", ""]
    assert "raises" in data and index["absent"] == []
    page = (own / "index.html").read_text()
    table = re.search(r"<tbody>(.*?)</tbody>", page, re.DOTALL).group(1)
    assert [int(n) for n in re.findall(r'<tr id="(\d+)">', table)] == features[:20]
    assert "“of”" in table and "digits" not in table and "0.62" in table
    known = subject.observed.features.set_index("feature").loc[features]
    assert index["frequency"] == pytest.approx(known["frequency"].tolist(), rel=0.01)


def test_an_sae_has_labels_of_its_own_and_what_is_never_active_is_there_too(
    write, gathered, dictionaries, tmp_path
):
    """Features 4 and 5 of an SAE on the MLP's input; it writes back to that input."""
    known, examples, background = load_observed(gathered, "sae")
    known = known.set_index("feature")
    known.loc[5, ["n_active", "frequency", "mean", "largest"]] = [0, 0.0, float("nan"), 0.0]
    known.at[5, "histogram"] = 0 * known.at[5, "histogram"]
    observed = Observed(known.reset_index(), examples[examples["feature"] != 5], background)
    label = Label("“of”", 0.91, "token: words", EXAMPLES)
    sae = Subject("sae", *dictionaries["sae"], observed)
    write(tmp_path, sae, [4, 5], {feature_name(2, 5, of_sae=True): label})
    page, data = tmp_path / "sae/index.html", read_shelved(tmp_path / "sae/data-00.js")
    assert data["mean"][1] is None and data["bars"][1] == [] and data["examples"][1] == []
    assert data["examples"][0] and "nan" not in page.read_text() and "raises" not in data
    index = read_index(page)
    assert index["name"] == ["", "“of”"] and index["absent"] == [browser_data.NO_LOGITS]


# In a browser.


class FeatureReader(Reader):
    """Someone who looks at the page of a dictionary, opened from its folder."""

    def rows(self, cell=0):
        rows = "[...document.querySelector('#features').tBodies[0].rows]"
        return self.run(f"{rows}.map((row) => row.cells[{cell}].textContent)")

    def seek(self, text):
        self.run(f"query.value = {json.dumps(text)}; query.dispatchEvent(new Event('input'))")
        return self.rows()

    def loaded(self):
        sources = "[...document.scripts].map((each) => each.getAttribute('src')).filter(Boolean)"
        return self.run(sources)

    def wait_for(self, text):
        self.browser.wait(lambda: text in self.run("document.querySelector('#feature').innerText"))


@pytest.fixture
def reader(browser, folder):
    return FeatureReader(browser, folder / "late/index.html")


@NEEDS_CHROMIUM
def test_a_search_is_for_a_part_or_in_quotes_for_a_whole_token(reader, features):
    reader.open()
    index = read_index(reader.page)
    assert len(reader.seek("")) == len(features)
    tokens = {token.strip().lower() for own in index["peaks"] for token in own}
    wanted = min(filter(str.isalnum, tokens))
    for text, holds in ((wanted, str.__contains__), (f'"{wanted}"', str.__eq__)):
        expected = {
            feature
            for feature, name, own in zip(features, index["name"], index["peaks"], strict=True)
            if any(holds(each.strip().lower(), wanted) for each in (str(feature), name, *own))
        }
        assert {int(row) for row in reader.seek(text)} == expected
        assert reader.run("said.textContent") == f"{len(expected)} of {len(features)} features"
    assert reader.seek("YEARS") == [str(features[2])]
    assert reader.seek("no such thing") == []


@NEEDS_CHROMIUM
def test_headings_sort_and_what_is_not_known_comes_last(reader, features):
    reader.open()
    assert reader.rows(2)[:3] == ["0.910", "0.620", ""]  # as the page begins
    index = read_index(reader.page)
    for column, name in enumerate(["feature", "name", "score", "frequency", "largest"]):
        heading = f"document.querySelector('#features').tHead.rows[0].cells[{column}]"
        orders = set()
        for _ in range(2):
            reader.run(f"{heading}.querySelector('button').click()")
            orders.add(order := reader.run(f"{heading}.ariaSort"))
            values = [index[name][features.index(int(row))] for row in reader.rows()]
            known = [value for value in values if value not in (None, "")]
            keys = [its.strip("“”") if isinstance(its, str) else its for its in known]
            assert keys == sorted(keys, reverse=order == "descending")
            assert values == known + values[len(known) :] and len(values) == len(features)
        assert orders == {"ascending", "descending"}


@NEEDS_CHROMIUM
def test_a_feature_has_an_address_and_its_files_come_when_it_is_asked_for(
    reader, features, tiny_models, rows, tmp_path
):
    """A page without its files says so."""
    reader.open()
    assert reader.loaded() == [] and reader.run("panel.hidden")
    at = PER_FILE + 1
    reader.open(f"#{features[at]}", width=400)
    reader.wait_for("Nearest features")
    assert reader.run("document.documentElement.scrollWidth") <= 400
    files = reader.loaded()
    assert files.count("data-01.js") == 1 and "data-00.js" not in files
    assert all(name == "data-01.js" or name.startswith("../m/text-") for name in files)
    assert f"tc2[{features[at]}]" in reader.run("panel.querySelector('h2').textContent")
    _, row, position, *_ = read_shelved(reader.page.parent / "data-01.js")["examples"][1][0]
    peak = load_tokenizer(tiny_models["llama"]).decode([int(rows.tokens[row, position])])
    first = "document.querySelector('#feature li')"
    assert reader.run(f"{first}.querySelector('.peak').textContent") == peak
    assert reader.run(f"{first}.querySelector('.share').textContent") == "100%"
    reader.run(f"{first}.querySelector('button').click()")
    assert reader.run(f"{first}.querySelectorAll('.tok').length") == rows.tokens.shape[1] - 1
    # Its neighbour is in the same file, which is not loaded again.
    reader.run(f"location.hash = '{features[at + 1]}'")
    reader.wait_for(f"tc2[{features[at + 1]}]")
    reader.wait_for("Most active")
    assert reader.loaded().count("data-01.js") == 1
    reader.run("location.hash = '99999'")
    reader.wait_for("This feature is not here")
    assert reader.browser.said() == []
    reader.page = shutil.copy(reader.page, tmp_path / "alone.html")
    reader.open(f"#{features[0]}")
    reader.wait_for("Download the whole folder of features")


@NEEDS_CHROMIUM
def test_keys_lead_through_features_and_back(reader):
    reader.open()
    reader.seek("")
    order = [int(row) for row in reader.rows()]
    reader.run("document.querySelector('#features tbody a').focus()")
    reader.browser.press("\r")
    reader.wait_for(f"tc2[{order[0]}]")
    for key, place in (("Right", 1), ("Right", 2), ("Left", 1)):
        reader.browser.press(f"Arrow{key}")
        reader.wait_for(f"tc2[{order[place]}]")
    reader.browser.press("Escape")
    reader.browser.wait(lambda: reader.run("panel.hidden && !location.hash"))
    assert reader.run("document.activeElement.textContent") == str(order[1])


@NEEDS_CHROMIUM
def test_without_a_script_there_is_the_table(reader):
    with reader.browser.without_scripts():
        reader.browser.open(reader.page.as_uri(), width=400)
        assert len(reader.rows()) == 20
        text = html.unescape(reader.run("document.querySelector('main').innerText"))
        assert "need JavaScript" in text and "some text (a licence)" in text
        idle = "[...document.querySelectorAll('main button, main input')]"
        assert reader.run(f"{idle}.every((each) => each.getClientRects().length === 0)")
