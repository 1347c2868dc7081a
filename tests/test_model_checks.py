"""What users bring as a model: it works as it is, or one sentence says why not, at fetch."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from helpers_hub import add_to_hub
from helpers_models import TINY_WIDTH, make_tiny_model, tiny_section
from transcoders.circuits.invariant import de_embeddings, direct_logits
from transcoders.circuits.replacement import ReplacementModel
from transcoders.errors import UserError
from transcoders.interpretability.predictions import read_vocabulary
from transcoders.models import (
    check_context,
    check_model_folder,
    fetch_model,
    load_model,
    load_tokenizer,
    mlp_activations,
)

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 1234\n"
REPO, REVISION = "somebody/old", "0" * 40
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


def settings(file, **values):
    """Change keys of a JSON file of the folder."""

    def change(folder):
        record = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(record | values))

    return change


def tensors(change):
    """Change the tensors of the weights."""

    def changed(folder):
        kept = load_file(folder / "model.safetensors")
        change(kept)
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def together(*changes):
    return lambda folder: [change(folder) for change in changes]


def resized(rows):
    """An embedding and unembedding with another number of rows."""

    def change(kept):
        for name in EMBEDDINGS:
            filling = 100 * torch.ones(max(rows - len(kept[name]), 0), TINY_WIDTH)
            kept[name] = torch.cat([kept[name], filling])[:rows].clone()

    return together(settings("config.json", vocab_size=rows), tensors(change))


def into_bin(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def tied(kept):
    del kept["lm_head.weight"]


def in_bf16(kept):
    kept.update({name: tensor.bfloat16() for name, tensor in kept.items()})


def more_layers(kept):
    of_last = [name for name in kept if "layers.2." in name]
    kept.update({name.replace("layers.2.", "layers.3."): kept[name].clone() for name in of_last})


def no_number(kept):
    kept["model.layers.1.mlp.up_proj.weight"][0, 0] = torch.nan


def with_code_of_its_own(folder):
    settings("config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})(folder)
    (folder / "mine.py").write_text("raise SystemExit('this code ran')")


@pytest.fixture
def given(tiny_models, tmp_path):
    """A Llama of one's own: a folder that nothing here has made."""
    folder = Path(shutil.copytree(tiny_models["llama"], tmp_path / "my model"))
    (folder / "source.json").unlink()
    return folder


def model_in(folder):
    return tiny_section(type="files", path=str(folder))


REFUSED = {
    "a pointer": (
        lambda folder: (folder / "tokenizer.json").write_text(POINTER),
        r"tokenizer\.json: .* a pointer of Git LFS; run",
    ),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}"), "found an adapter",
    ),
    "other shapes": (
        settings("config.json", intermediate_size=64),
        r"down_proj\.weight of shape \(32, 64\), as config\.json says, found \(32, 128\)",
    ),
    "more layers than config.json": (
        tensors(more_layers), r"none for model\.layers\.3\..* and 6 more; correct config\.json",
    ),
    "NaN": (tensors(no_number), r"found NaN or infinity in model\.layers\.1\.mlp\.up_proj"),
    "untied without a head": (tensors(tied), r"the weights lack lm_head\.weight"),
    "an id without a row": (resized(200), "for each of the tokenizer's 266 ids, found 200 rows"),
    "BOS in every text": (
        settings("tokenizer.json", normalizer={"type": "Prepend", "prepend": "<|endoftext|> "}),
        "the tokenizer writes it into texts by itself",
    ),
    "code of its own": (with_code_of_its_own, "contains custom code"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_would_become_another_is_refused_by_fetch_and_by_plan(given, tmp_path, kind):
    change, message = REFUSED[kind]
    change(given)
    for refusing in (
        lambda: fetch_model(model_in(given), tmp_path / "fetched", seed=0),
        lambda: check_model_folder(model_in(given), 16),
    ):
        with pytest.raises(UserError, match=message) as caught:
            refusing()
        assert str(given) in str(caught.value)
        assert len(str(caught.value)) < 500
    assert not (tmp_path / "fetched").exists()


WORKS = {
    "bf16": together(tensors(in_bf16), settings("config.json", dtype="bfloat16")),
    "tied": together(tensors(tied), settings("config.json", tie_word_embeddings=True)),
    "a tokenizer that cuts": settings(
        "tokenizer.json",
        truncation={"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    ),
}


@pytest.mark.parametrize("kind", WORKS)
@torch.inference_mode()
def test_a_checkpoint_of_any_form_becomes_the_same_model(
    given, tmp_path, monkeypatch, random_tokens, kind
):
    WORKS[kind](given)
    check_model_folder(model_in(given), 256)
    monkeypatch.setenv("HOME", str(tmp_path))
    fetch_model(model_in("~/my model"), tmp_path / "fetched", seed=0)
    plain = AutoModelForCausalLM.from_pretrained(given, dtype=torch.float32)
    found = load_model(tmp_path / "fetched")
    tokens = random_tokens(2, 8)
    torch.testing.assert_close(found(tokens), plain(tokens).logits, rtol=1e-4, atol=1e-4)
    assert len(load_tokenizer(tmp_path / "fetched")("w1 w2 w3 w4 w5").input_ids) == 5


def test_the_file_of_a_tokenizer_counts_and_not_the_class_that_is_named_beside_it(
    given, tmp_path, capsys
):
    # transformers alone reads digits, spaces and words by the class's rules.
    settings("tokenizer_config.json", tokenizer_class="GPT2Tokenizer")(given)
    fetch_model(model_in(given), tmp_path / "fetched", seed=0)
    said = "tokenizer.json: GPT2Tokenizer tokenizes text differently; the file is used"
    assert said in capsys.readouterr().err
    text = "w1 1732 w5"
    expected = PreTrainedTokenizerFast(tokenizer_file=str(given / "tokenizer.json"))(text).input_ids
    for folder in (given, tmp_path / "fetched"):
        assert load_tokenizer(folder)(text, add_special_tokens=False).input_ids == expected
    assert len(expected) == 6


def test_rows_that_fill_the_embedding_up_are_no_tokens(given, random_dictionary):
    resized(272)(given)
    model = load_model(given)
    assert len(model.W_E) == 272
    replacement = ReplacementModel(model, {0: random_dictionary("transcoder")})
    upwards = torch.ones(1, TINY_WIDTH)
    for best in (de_embeddings, direct_logits):
        for vectors in (upwards, -upwards):
            assert best(replacement, vectors, 5).indices.max() < 266
    assert len(read_vocabulary(replacement).embedding) == 266


def test_a_text_beyond_the_models_positions_is_refused(random_tokens, tiny_model_folder):
    model, longest = load_model(tiny_model_folder), 256
    mlp_activations(model, random_tokens(1, longest), [0])
    message = "at most the model's 256 positions, found 257 tokens with BOS"
    with pytest.raises(UserError, match=message):
        mlp_activations(model, random_tokens(1, longest + 1), [0])
    message = r"corpus\.context_length is 257, expected at most the 256 positions"
    for check in (check_context, lambda folder, n: check_model_folder(model_in(folder), n)):
        with pytest.raises(UserError, match=message):
            check(tiny_model_folder, longest + 1)


def test_a_repository_with_old_weights_only_is_fetched(hub, tmp_path):
    folder = make_tiny_model("opt", tmp_path / "opt")  # as facebook/opt-125m is
    into_bin(folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    add_to_hub(hub, REPO, REVISION, files, "model")
    model = tiny_section(type="hub", repo=REPO, revision=REVISION)
    fetch_model(model, tmp_path / "fetched", seed=0)
    assert (tmp_path / "fetched/model.safetensors").exists()
