"""Pages of features: complete, linked, escaped, shaded by what the model computes."""

import html
import re
from pathlib import Path

import pytest

from helpers_circuits import Make, make_circuit, plain, plain_pass, without_weight
from transcoders.circuits.labels import Label, feature_name
from transcoders.circuits.replacement import ReplacementModel
from transcoders.config import Site
from transcoders.dictionaries import SparseDictionary
from transcoders.interpretability.automatic import live_features
from transcoders.interpretability.feature_pages import pages_of, write_feature_pages
from transcoders.interpretability.gather import Subject, Text, load_observed, load_text
from transcoders.models import LanguageModel, load_tokenizer

Made = tuple[ReplacementModel, Subject, Text]


@pytest.fixture(scope="module", params=["late", "sae"])
def made(
    request: pytest.FixtureRequest, model: LanguageModel, random_dictionary: Make, gathered: Path,
    dictionaries: dict[str, tuple[Site, SparseDictionary]],
) -> Made:  # fmt: skip
    circuit = make_circuit(model, random_dictionary, {0: "transcoder"}, first=1)
    name = request.param
    subject = Subject(name, *dictionaries[name], load_observed(gathered, name))
    return circuit, subject, load_text(gathered)


@pytest.fixture(scope="module")
def features(made: Made) -> list[int]:
    return pages_of(live_features(made[1].observed), 6, seed=0)


@pytest.fixture(scope="module")
def folder(
    made: Made, features: list[int], tiny_models: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    destination = tmp_path_factory.mktemp("pages") / "pages"
    circuit, subject, text = made
    tokenizer = load_tokenizer(tiny_models["llama"])
    write_feature_pages(circuit, subject, text.rows, tokenizer, features, destination)
    return destination


def test_every_feature_has_a_page_that_needs_no_other_file_and_a_line_in_the_index(
    folder: Path, features: list[int], made: Made
) -> None:
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted(["index.html", *(f"{feature}.html" for feature in features)])
    index = (folder / "index.html").read_text()
    assert [int(n) for n in re.findall(r'href="(\d+)\.html"', index)] == features
    for path in folder.iterdir():
        page = path.read_text()
        assert f"of the {made[1].dictionary.traits.label} at layer 2" in page
        links = re.findall(r'href="([^"]+)"', page)
        assert links and all((folder / link).exists() for link in links)
        assert "<script" not in page and "src=" not in page and "http" not in page


def test_shades_are_activations_over_the_largest(
    folder: Path, features: list[int], made: Made
) -> None:
    circuit, subject, text = made
    for feature in features:
        page = (folder / f"{feature}.html").read_text()
        line = re.search(r"<h2>Most active</h2>.*?<tr>(.*?)</tr>", page, re.DOTALL)
        assert line
        found = [float(x) for x in re.findall(r'title="([\d.]+) of its largest"', line.group(1))]
        examples = subject.observed.examples
        best = examples[(examples["feature"] == feature) & (examples["kind"] == "top")].iloc[0]
        stream = plain_pass(circuit.model, text.rows[best["row"]].long()).before_mlp[2]
        read = without_weight(plain(circuit.model).blocks[2].norm_2, stream)
        z = subject.dictionary.encode(read)[:, feature]
        z[0] = 0
        start, end = max(best["position"] - 16, 1), best["position"] + 7
        shown = [round(float(x / z.max()), 2) for x in z[start:end]]
        assert found == pytest.approx([x for x in shown if x > 0], abs=0.011)
        assert max(found) == 1.0
        assert line.group(1).count('class="tok peak"') == 1


def test_a_page_and_its_line_in_the_index_say_what_a_feature_is_called(
    made: Made, features: list[int], tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    circuit, subject, text = made
    good, bad, by_hand, bare = features[:4]
    texts = ("one of", "two of")
    found = {
        good: Label("“of”", 0.91, "token: words", texts),
        bad: Label("digits", 0.62, "token: digits", texts),
        by_hand: Label("years", float("nan"), "", texts, "anna", "all are"),
    }
    labels = {
        feature_name(2, unit, of_sae=subject.name == "sae"): label for unit, label in found.items()
    }
    write_feature_pages(
        circuit, subject, text.rows, load_tokenizer(tiny_models["llama"]), features[:4],
        tmp_path / "pages", labels=labels,
    )  # fmt: skip
    page = {unit: (tmp_path / f"pages/{unit}.html").read_text() for unit in features[:4]}
    index = (tmp_path / "pages/index.html").read_text()
    assert "<strong>“of”</strong> (score 0.91)" in page[good] and "“of”" in index
    assert "digits" not in page[bad] + index and "0.62" in page[bad]
    assert all(text in page[bad] for text in texts)
    assert "<strong>years</strong> (by anna: all are)" in page[by_hand] and "by anna" in index
    assert "Name" not in page[bare] and "has no name" not in page[bare]


def test_what_weights_say_is_there(
    folder: Path, features: list[int], made: Made,
    tiny_models: dict[str, Path],
) -> None:  # fmt: skip
    circuit, subject, _ = made
    tokenizer = load_tokenizer(tiny_models["llama"])
    vector = subject.dictionary.W_enc[:, features[0]]
    scores = plain(circuit.model).hf.get_input_embeddings().weight @ vector
    page = html.unescape((folder / f"{features[0]}.html").read_text())
    section = page[page.index("Embeddings that drive it") :]
    words = re.findall(r'<span class="word">([^<]*|<unk>|<\|endoftext\|>)</span>', section)[:3]
    assert words == [tokenizer.decode([int(t)]) for t in scores.topk(3).indices]
    # An SAE on the MLP's input writes back to that input: its features move no logit directly.
    assert ("Logits it raises" in page) == (subject.name == "late")


def test_a_feature_that_is_never_active_has_a_page_too(
    made: Made, tmp_path: Path, tiny_models: dict[str, Path]
) -> None:
    circuit, subject, text = made
    observed, tokenizer = subject.observed, load_tokenizer(tiny_models["llama"])
    zeros = [0 * histogram for histogram in observed.features["histogram"]]
    observed = observed._replace(
        features=observed.features.assign(histogram=zeros, largest=0.0),
        examples=observed.examples[observed.examples["feature"] != 5],
    )
    subject = subject._replace(observed=observed)
    write_feature_pages(circuit, subject, text.rows, tokenizer, [5], tmp_path / "pages")
    assert "never active" in (tmp_path / "pages/5.html").read_text()
