"""A scale file either loads whole or is refused with a message that names the file and the key."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from transcoders.config import KINDS, TRAITS, Kind, Scale, load_scale
from transcoders.errors import UserError

CONFIG = Path(__file__).resolve().parents[1] / "config"
SCALES = sorted(path for path in CONFIG.glob("*.yaml") if path.name != "claims.yaml")
SMOKE = yaml.safe_load((CONFIG / "smoke.yaml").read_text())
KeyPath = tuple[str | int, ...]


def smoke() -> dict[str, Any]:
    """The smoke scale as plain data in which no two parts are one object, as YAML's aliases are."""
    return json.loads(json.dumps(SMOKE))


def parent_of(scale: Any, path: KeyPath) -> Any:
    for key in path[:-1]:
        scale = scale[key]
    return scale


def with_value(path: str, value: Any) -> dict[str, Any]:
    """The smoke scale with one value replaced; digits in the path are positions in lists."""
    scale = smoke()
    steps: KeyPath = tuple(int(key) if key.isdigit() else key for key in path.split("/"))
    parent_of(scale, steps)[steps[-1]] = value
    return scale


def load(folder: Path, content: Any) -> Scale:
    path = folder / "edited.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_scale(path)


def refusal(folder: Path, content: Any) -> str:
    """The message with which a scale file is refused; it always names the file."""
    with pytest.raises(UserError) as caught:
        load(folder, content)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'edited.yaml'}: ")
    return message


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.stem)
def test_committed_scales_load_under_the_name_of_their_file(path):
    assert load_scale(path).name == path.stem


def test_smoke_has_one_headline_dictionary_of_each_kind_at_three_sites():
    scale = load_scale(CONFIG / "smoke.yaml")
    headlines = {(d.site.name, d.kind) for d in scale.dictionaries if d.headline}
    nine = {(site.name, kind) for site in scale.sites for kind in KINDS}
    assert headlines == nine | {(site.name, "transcoder") for site in scale.circuit_sites}
    assert len(nine) == 9


def test_circuits_use_the_headline_transcoder_of_every_site_of_a_model():
    scale = load_scale(CONFIG / "smoke.yaml")
    found = [(d.site.layer, d.kind, d.headline) for d in scale.circuit_transcoders("tiny-llama")]
    assert found == [(0, "transcoder", True), (1, "transcoder", True)]


def test_a_circuit_site_needs_one_headline_transcoder_and_a_layer_of_its_model(tmp_path):
    scale = smoke()
    del scale["groups"][-1]["dictionaries"][0]["headline"]
    assert "tiny-llama_layer0 has 0 headline dictionaries of kind transcoder" in refusal(
        tmp_path, scale
    )
    scale = smoke()
    scale["circuit_sites"][0]["layer"] = 3
    assert "circuit_sites: layer 3 of tiny-llama" in refusal(tmp_path, scale)


def test_a_site_is_listed_once_among_both_kinds_of_sites(tmp_path):
    scale = smoke()
    scale["circuit_sites"].append(scale["sites"][0])
    assert "circuit_sites and imported: tiny-gpt2_layer1 is listed 2" in refusal(tmp_path, scale)


def test_train_tokens_leave_out_untrained_positions(tmp_path):
    without_bos = load(tmp_path, with_value("corpus/train_positions", "without_bos"))
    with_bos = load(tmp_path, with_value("corpus/train_positions", "all"))
    assert without_bos.corpus.train_tokens == 400 * 31
    assert with_bos.corpus.train_tokens == 400 * 32


@pytest.mark.parametrize("section", ["", "training", "corpus", "evaluation"])
def test_a_loaded_scale_is_frozen(section):
    scale = load_scale(CONFIG / "smoke.yaml")
    part = getattr(scale, section) if section else scale
    with pytest.raises(ValidationError, match="frozen"):
        setattr(part, next(iter(type(part).model_fields)), 1)


OPTIONAL = ("circuit_sites", "extensions", "learning_rates", "greater_than", "interpretability")


@pytest.mark.parametrize("key", [key for key in SMOKE if key not in OPTIONAL])
def test_every_missing_top_level_key_is_named(tmp_path, key):
    scale = smoke()
    del scale[key]
    assert f"{key}: this key is missing" in refusal(tmp_path, scale)


@pytest.mark.parametrize(
    "path",
    ["models/tiny-gpt2/d_model", "training/epochs", "corpus/source/type", "resources/train/mem_mb"],
)
def test_a_missing_inner_key_is_named(tmp_path, path):
    scale = smoke()
    steps = tuple(path.split("/"))
    del parent_of(scale, steps)[steps[-1]]
    message = refusal(tmp_path, scale)
    assert "missing" in message or "Unable to extract tag" in message
    assert steps[-1] in message


@pytest.mark.parametrize(
    ("path", "misspelt", "meant"),
    [
        ("sites/0", "layr", "layer"),
        ("training", "learning_rat", "learning_rate"),
        ("", "modles", "models"),
        ("activations", "batch_context", "batch_contexts"),
        ("groups/1/dictionaries/0", "knd", "kind"),
    ],
)
def test_a_misspelt_key_is_named_with_the_one_that_was_meant(tmp_path, path, misspelt, meant):
    scale = smoke()
    steps: KeyPath = tuple(int(key) if key.isdigit() else key for key in path.split("/") if key)
    part = parent_of(scale, (*steps, meant))
    part[misspelt] = part.pop(meant)
    message = refusal(tmp_path, scale)
    assert f"{misspelt}: no such key; did you mean {meant!r}?" in message
    assert f"{meant}: this key is missing" in message


def test_a_misspelt_l1_coefficient_is_named_with_what_was_meant(tmp_path):
    scale = smoke()
    entry = scale["groups"][1]["dictionaries"][0]
    entry["l1_coeficient"] = entry.pop("l1_coefficient")
    message = refusal(tmp_path, scale)
    assert "groups.1.dictionaries.0.l1_coeficient: no such key; did you mean 'l1_c" in message


@pytest.mark.parametrize(
    ("path", "value", "key"),
    [
        ("training/batch_tokens", "many", "training.batch_tokens"),
        ("training/batch_tokens", True, "training.batch_tokens"),
        ("training/batch_tokens", 256.5, "training.batch_tokens"),
        ("training/batch_tokens", "256", "training.batch_tokens"),
        ("training/learning_rate", True, "training.learning_rate"),
        ("training/learning_rate", "fast", "training.learning_rate"),
        ("training/learning_rate", [], "training.learning_rate"),
        ("training/learning_rate", 0, "training.learning_rate"),
        ("training/learning_rate", float("nan"), "training.learning_rate"),
        ("training/learning_rate", float("inf"), "training.learning_rate"),
        ("training/decay_fraction", float("nan"), "training.decay_fraction"),
        ("training/decay_fraction", 1.0, "training.decay_fraction"),
        ("training/adam_betas", [0.9], "training.adam_betas"),
        ("training/adam_betas", [0.9, 1.0], "training.adam_betas.1"),
        ("training/adam_betas", [0.9, "nan"], "training.adam_betas.1"),
        ("training/loss_normalization", "both", "training.loss_normalization"),
        ("training/precision", "float16", "training.precision"),
        ("training/sparse_below_density", -0.1, "training.sparse_below_density"),
        ("training/sparse_below_density", 1.1, "training.sparse_below_density"),
        ("training/sparse_below_density", float("nan"), "training.sparse_below_density"),
        ("training/sparse_below_density", "half", "training.sparse_below_density"),
        ("training/checkpoint_every_steps", 0, "training.checkpoint_every_steps"),
        ("groups/0/learning_rate", 0, "groups.0.learning_rate"),
        ("extensions", "skip_transcoder", "extensions"),
        ("training/warmup_steps", -1, "training.warmup_steps"),
        ("corpus/context_length", 3, "corpus.context_length"),
        ("corpus/pack_documents", "yes please", "corpus.pack_documents"),
        ("corpus/pack_documents", 1, "corpus.pack_documents"),
        ("corpus/eval_documents", 1, "corpus.eval_documents"),
        ("corpus/source/type", "hubb", "corpus.source"),
        ("models/tiny-gpt2/source/architecture", "bert", "models.tiny-gpt2.source"),
        ("activations/dtype", "float32", "activations.dtype"),
        ("device", "tpu", "device"),
        ("seed", -1, "seed"),
        ("models", {}, "models"),
        ("sites", [], "sites"),
        ("groups/0/name", "../escape", "groups.0.name"),
        ("groups/0/dictionaries", [], "groups.0.dictionaries"),
        ("groups/0/dictionaries/0/kind", "mlp_mid_sae", "groups.0.dictionaries.0.kind"),
        ("groups/0/dictionaries/0/headline", "yes", "groups.0.dictionaries.0.headline"),
        *[
            ("groups/0/dictionaries/0/l1_coefficient", value, "dictionaries.0.l1_coefficient")
            for value in (0, -0.5, float("nan"), float("inf"), "1e999", "nan")
        ],
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_named(tmp_path, path, value, key):
    assert f"{key}" in refusal(tmp_path, with_value(path, value))


@pytest.mark.parametrize("value", [0, 1, "5e-1"])
def test_the_density_below_which_steps_are_sparse_may_be_any_share(tmp_path, value):
    scale = load(tmp_path, with_value("training/sparse_below_density", value))
    assert scale.training.sparse_below_density == float(value)


def test_every_wrong_value_of_a_file_is_named_at_once(tmp_path):
    scale = with_value("training/epochs", "two")
    scale["device"] = "tpu"
    message = refusal(tmp_path, scale)
    assert "training.epochs: " in message
    assert "device: " in message


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("sites/0/layer", 3, "sites: layer 3 of tiny-gpt2, expected a layer from 0 to 2"),
        ("sites/0/model", "gpt5", "sites: no model named 'gpt5'"),
        ("groups/0/site/layer", 2, "groups: tiny-gpt2 names tiny-gpt2_layer2"),
        ("groups/0/name", "tiny-neox", "groups: tiny-neox is listed 2 times"),
        (
            "sites",
            SMOKE["sites"] + SMOKE["sites"][:1],
            "sites and imported: tiny-gpt2_layer1 is listed 2 times",
        ),
        ("corpus/eval_contexts", 4, "eval_contexts is 4, expected at least eval_documents (5)"),
        ("training/batch_tokens", 400 * 31 + 1, "training.batch_tokens is 12401"),
    ],
)
def test_parts_that_disagree_are_named(tmp_path, path, value, expected):
    assert expected in refusal(tmp_path, with_value(path, value))


def test_a_batch_as_large_as_all_training_tokens_is_accepted(tmp_path):
    scale = load(tmp_path, with_value("training/batch_tokens", 400 * 31))
    assert scale.training.batch_tokens == scale.corpus.train_tokens


def test_a_dictionary_listed_twice_is_named(tmp_path):
    scale = smoke()
    dictionaries = scale["groups"][0]["dictionaries"]
    dictionaries.append({**dictionaries[0], "headline": False})
    message = refusal(tmp_path, scale)
    assert "dictionaries: tiny-gpt2_layer1_transcoder_l1-0.5 is listed 2 times" in message


EXTENSION = {
    "name": "extensions",
    "site": SMOKE["groups"][0]["site"],
    "dictionaries": [
        {"kind": "skip_transcoder", "l1_coefficient": 0.5},
        {"kind": "topk_transcoder", "k": 32},
    ],
}


def extended(**changes: Any) -> dict[str, Any]:
    """The smoke scale with a group of extensions."""
    return smoke() | {"extensions": [EXTENSION | changes]}


def test_a_scale_may_have_no_extensions(tmp_path):
    without = smoke()
    without.pop("extensions", None)
    for content in (without, without | {"extensions": []}):
        scale = load(tmp_path, content)
        assert scale.extensions == ()
        assert scale.all_groups == [*scale.groups, *scale.learning_rates]
        assert {dictionary.kind for dictionary in scale.dictionaries} == set(KINDS)


def test_extensions_are_groups_after_those_of_the_paper(tmp_path):
    scale = load(tmp_path, extended())
    names = [dictionary.name for dictionary in scale.dictionaries]
    assert names[-2:] == ["tiny-gpt2_layer1_skip_transcoder_l1-0.5",
                          "tiny-gpt2_layer1_topk_transcoder_k-32"]  # fmt: skip
    assert {d.group for d in scale.dictionaries[:-2]} == {group.name for group in scale.groups}
    assert scale.group("extensions") == scale.all_groups[len(scale.groups)]
    assert [d.name for d in scale.dictionaries_of(scale.sites[0])] == [*names[:3], *names[-2:]]


def test_every_kind_is_declared() -> None:
    assert tuple(TRAITS) == get_args(Kind)


@pytest.mark.parametrize("kind", TRAITS)
def test_a_kind_has_its_place_among_groups_or_among_extensions(tmp_path, kind):
    entry = {"kind": kind, **({"k": 8} if TRAITS[kind].is_topk else {"l1_coefficient": 0.25})}
    as_extension = extended(dictionaries=[entry])
    among_groups = smoke()
    among_groups["groups"][0]["dictionaries"].append(entry)
    (right, wrong), place = ((among_groups, as_extension), "extensions: extensions")
    if kind not in KINDS:
        (right, wrong), place = ((as_extension, among_groups), "groups: tiny-gpt2")
    assert kind in {dictionary.kind for dictionary in load(tmp_path, right).dictionaries}
    assert f"{place} has a {kind}; groups hold the paper's kinds (" in refusal(tmp_path, wrong)


@pytest.mark.parametrize("kind", TRAITS)
@pytest.mark.parametrize(
    "sparsity",
    [{}, {"k": 8}, {"l1_coefficient": 0.25}, {"k": 8, "l1_coefficient": 0.25}, {"k": None}],
    ids=str,
)
def test_topk_takes_k_and_every_other_kind_an_l1_coefficient(tmp_path, kind, sparsity):
    key, other = ("k", "l1_coefficient") if TRAITS[kind].is_topk else ("l1_coefficient", "k")
    scale, place = extended(), "extensions.0.dictionaries.0"
    dictionaries = scale["extensions"][0]["dictionaries"] = []
    if kind in KINDS:
        dictionaries, place = scale["groups"][0]["dictionaries"], "groups.0.dictionaries.0"
        scale["extensions"] = []
    dictionaries.insert(0, {"kind": kind, **sparsity})
    if set(sparsity) == {key} and sparsity[key] is not None:
        assert (
            getattr(next(d for d in load(tmp_path, scale).dictionaries if d.kind == kind), key)
            == sparsity[key]
        )
    else:
        assert f"{place}: a {kind} takes {key} and no {other}" in refusal(tmp_path, scale)


@pytest.mark.parametrize("k", [0, -1, 2.0, "8", True])
def test_k_is_a_number_of_features(tmp_path, k):
    scale = extended(dictionaries=[{"kind": "topk_transcoder", "k": k}])
    assert "extensions.0.dictionaries.0.k: expected " in refusal(tmp_path, scale)


def test_k_is_at_most_all_features(tmp_path):
    scale = extended(dictionaries=[{"kind": "topk_transcoder", "k": 128}])
    assert load(tmp_path, scale).dictionaries[-1].k == 128
    scale["extensions"][0]["dictionaries"][0]["k"] = 129
    message = "extensions: extensions has a topk_transcoder with k = 129, expected at most its 128"
    assert message in refusal(tmp_path, scale)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "tiny-gpt2"}, "groups: tiny-gpt2 is listed 2 times"),
        ({"dictionaries": EXTENSION["dictionaries"] * 2},
         "dictionaries: tiny-gpt2_layer1_skip_transcoder_l1-0.5 is listed 2 times"),
        ({"site": {"model": "tiny-gpt2", "layer": 2}}, "extensions: extensions names tiny-gpt2_la"),
        ({"site": {"model": "gpt5", "layer": 1}}, "extensions: extensions names gpt5_layer1"),
        ({"dictionaries": []}, "extensions.0.dictionaries: "),
        ({"name": "a/b"}, "extensions.0.name: "),
    ],
)  # fmt: skip
def test_extensions_that_disagree_with_the_scale_are_named(tmp_path, changes, message):
    assert message in refusal(tmp_path, extended(**changes))


def test_extensions_need_no_headline_and_take_none_from_the_papers_kinds(tmp_path):
    entries = [entry | {"headline": True} for entry in EXTENSION["dictionaries"]]
    headlines = {d.name for d in load_scale(CONFIG / "smoke.yaml").dictionaries if d.headline}
    for dictionaries, n_more in ((EXTENSION["dictionaries"], 0), (entries, 2)):
        scale = load(tmp_path, extended(dictionaries=dictionaries))
        assert len({d.name for d in scale.dictionaries if d.headline} - headlines) == n_more


@pytest.mark.parametrize(
    ("precision", "device", "accepted"),
    [
        ("tf32", "cpu", False),
        ("tf32", "cuda", True),
        ("tf32", "auto", True),
        ("bf16", "cpu", True),
        ("float32", "cuda", True),
    ],
)
def test_tf32_is_refused_where_only_a_cpu_computes(tmp_path, precision, device, accepted):
    scale = with_value("training/precision", precision) | {"device": device}
    if accepted:
        assert load(tmp_path, scale).training.precision == precision
    else:
        assert "training.precision is tf32, which only a GPU has" in refusal(tmp_path, scale)


def test_a_group_may_have_a_learning_rate_of_its_own(tmp_path):
    scale = load(tmp_path, with_value("groups/0/learning_rate", "2e-2"))
    first, second = (scale.training_of(group) for group in scale.groups[:2])
    assert (first.learning_rate, second.learning_rate) == (0.02, 0.005)
    assert first.model_copy(update={"learning_rate": 0.005}) == second == scale.training


@pytest.mark.parametrize("n_headlines", [0, 2])
def test_a_site_has_exactly_one_headline_of_each_kind(tmp_path, n_headlines):
    scale = smoke()
    dictionaries = scale["groups"][2]["dictionaries"]
    dictionaries[1]["headline"] = False
    for index in range(n_headlines):
        dictionaries.append(
            {"kind": "mlp_out_sae", "l1_coefficient": 1.0 + index, "headline": True}
        )
    message = refusal(tmp_path, scale)
    assert f"groups: tiny-llama_layer1 has {n_headlines} headline" in message
    assert "kind mlp_out_sae" in message


@pytest.mark.parametrize("written", ["4e-3", "4E-3", "0.004", "4.0e-3"])
def test_a_number_is_read_however_it_is_written(tmp_path, written):
    text = yaml.safe_dump(with_value("groups/0/dictionaries/0/l1_coefficient", "NUMBER"))
    scale = load(tmp_path, text.replace("NUMBER", written))
    assert scale.dictionaries[0].l1_coefficient == 0.004
    assert scale.dictionaries[0].name == "tiny-gpt2_layer1_transcoder_l1-0.004"


def test_the_name_of_a_scale_is_that_of_its_file(tmp_path):
    # Paths come from the file's name, notebooks from Scale.name: they must not come apart.
    try:
        scale = load(tmp_path, {**smoke(), "name": "paper"})
    except UserError as error:
        assert "name" in str(error)
    else:
        assert scale.name == "edited"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "- a list\n",
        "just text",
        "a: [1, 2",
        "a: b: c",
        "\tseed: 1",
        "seed: \x00",
        "a: !!python/object:os.system x",
        "seed: 2024-13-45",  # YAML takes it for a date, which it is not
        "seed: 0x_",  # ... and this for a number
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_refused(tmp_path, text):
    assert "expected" in refusal(tmp_path, text)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"seed: \xff\xfe")
    with pytest.raises(UserError, match=r"binary\.yaml: expected YAML in UTF-8"):
        load_scale(path)


def test_a_missing_file_is_refused_with_the_scales_that_exist(tmp_path):
    for name in ("laptop", "smoke"):
        (tmp_path / f"{name}.yaml").touch()
    with pytest.raises(UserError, match=r"papre\.yaml: no such scale file.* laptop, smoke"):
        load_scale(tmp_path / "papre.yaml")


@pytest.mark.parametrize("what", ["model", "site", "group"])
def test_asking_for_something_that_is_not_in_the_scale_lists_what_is(what):
    scale = load_scale(CONFIG / "smoke.yaml")
    with pytest.raises(UserError, match=f"no {what} named 'nothing'; expected one of tiny-gpt2"):
        getattr(scale, what)("nothing")


def test_sites_of_a_model_go_from_the_first_layer_to_the_last(tmp_path):
    scale = smoke()
    scale["sites"] = [{"model": "tiny-gpt2", "layer": layer} for layer in (2, 0, 1)]
    scale["circuit_sites"] = []
    del scale["greater_than"], scale["interpretability"]
    scale["groups"] = [
        {
            "name": f"group{layer}",
            "site": {"model": "tiny-gpt2", "layer": layer},
            "dictionaries": scale["groups"][0]["dictionaries"],
        }
        for layer in (2, 0, 1)
    ]
    assert [site.layer for site in load(tmp_path, scale).sites_of("tiny-gpt2")] == [0, 1, 2]


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (
            "greater_than/model",
            "tiny-gpt2",
            "expected headline transcoders of tiny-gpt2 at layer 0",
        ),
        ("greater_than/model", "other", "greater_than.model: no model named 'other'"),
        ("greater_than/templates", ["no place"], "expected {YY} once in 'no place'"),
        ("greater_than/templates", ["{YY} and {YY}"], "expected {YY} once"),
        ("greater_than/kept", [0, 4, 2], "kept: expected ascending numbers"),
        ("greater_than/positions", "some", "greater_than.positions: expected"),
        ("circuits/checks/0/feature", "tc1", "circuits.checks.0.feature"),
        ("circuits/checks/0/model", "other", "no model named 'other'"),
        ("interpretability/rated_site/layer", 0, "expected one of sites, where all kinds"),
        (
            "interpretability/rated_site/model",
            "tiny-gpt2",
            "expected a transcoder at layer 0 of tiny",
        ),
    ],
)
def test_studies_that_cannot_be_made_are_refused(tmp_path, path, value, expected):
    assert expected in refusal(tmp_path, with_value(path, value))


def imported_only() -> dict[str, Any]:
    """A scale that trains nothing: GPT-2's shape with transcoders of others."""
    scale = smoke()
    for key in ("sites", "circuit_sites", "groups", "extensions", "activations", "training",
                "learning_rates", "evaluation", "interpretability"):  # fmt: skip
        del scale[key]
    source = {"type": "hub", "repo": "org/name", "revision": "a" * 40, "license": "MIT"}
    scale["imported"] = [
        {"model": "tiny-llama", "layers": [0, 2], "n_features": 64, "source": source,
         "file": "layer.{layer}.pt"}
    ]  # fmt: skip
    return scale


def test_a_scale_may_train_nothing_and_use_transcoders_of_others(tmp_path):
    scale = load(tmp_path, imported_only())
    assert scale.dictionaries == [] and scale.all_sites == []
    found = scale.circuit_transcoders("tiny-llama")
    assert [(entry.name, entry.file) for entry in found] == [
        ("tiny-llama_layer0_transcoder_imported", "layer.0.pt"),
        ("tiny-llama_layer2_transcoder_imported", "layer.2.pt"),
    ]
    assert scale.imported_transcoder(found[1].name) == found[1]
    with pytest.raises(UserError, match="no imported transcoder named 'x'"):
        scale.imported_transcoder("x")


def test_imported_transcoders_are_checked_like_sites(tmp_path):
    content = imported_only()
    content["imported"][0]["layers"] = [0, 9]
    assert "imported: layer 9 of tiny-llama, expected a layer from 0 to 2" in refusal(
        tmp_path, content
    )
    content["imported"][0]["layers"] = [0, 2, 2]
    assert "tiny-llama_layer2 is listed 2 times" in refusal(tmp_path, content)
    del content["imported"]
    assert "groups: this key is missing" in refusal(tmp_path, content)


def test_imported_and_trained_transcoders_stand_side_by_side_but_not_at_one_site(tmp_path):
    content = smoke() | {"imported": imported_only()["imported"]}
    content["imported"][0]["layers"] = [2]
    layers = [t.site.layer for t in load(tmp_path, content).circuit_transcoders("tiny-llama")]
    assert layers == [0, 1, 2]
    content["imported"][0]["layers"] = [1]
    assert "tiny-llama_layer1 is listed 2 times" in refusal(tmp_path, content)


def test_the_published_scale_is_pinned_and_trains_nothing():
    scale = load_scale(CONFIG / "published.yaml")
    assert scale.groups == () and len(scale.imported_transcoders) == 12
    revisions = [scale.models["gpt2-small"].source.revision, scale.corpus.source.revision]
    revisions += [entry.source.revision for entry in scale.imported_transcoders]
    assert all(len(revision) == 40 for revision in revisions)
    assert scale.greater_than.published.original == 0.88294


def test_the_papers_scale_is_what_the_paper_says():
    scale = load_scale(CONFIG / "paper.yaml")
    assert [site.name for site in scale.sites] == [
        "gpt2-small_layer8", "pythia-410m_layer15", "pythia-1.4b_layer15",
    ]  # fmt: skip
    sources = [*(model.source for model in scale.models.values()), scale.corpus.source]
    assert all(len(source.revision) == 40 for source in sources)
    assert scale.corpus.train_tokens == 60_000_000
    assert scale.corpus.eval_contexts * scale.corpus.context_length == 3_276_800
    assert not set(scale.corpus.source.data_files) & set(scale.corpus.source.eval_data_files)
    assert (scale.seed, scale.training.batch_tokens, scale.training.expansion) == (42, 4096, 32)
    assert (scale.training.learning_rate, scale.training.loss_normalization) == (2e-5, "released")
    rated = [scale.rated(kind).l1_coefficient for kind in ("transcoder", "mlp_in_sae")]
    assert rated == [5.5e-5, 7e-5]
    of_410m = scale.dictionaries_of(scale.sites[1])
    published = {
        "transcoder": {2.5e-5, 3e-5, 4e-5, 5.5e-5, 7e-5},
        "mlp_out_sae": {4e-5, 7e-5, 8.5e-5, 1e-4},
    }
    for kind, coefficients in published.items():
        assert coefficients <= {e.l1_coefficient for e in of_410m if e.kind == kind}
    layers = [entry.site.layer for entry in scale.circuit_transcoders("gpt2-small")]
    assert layers == list(range(12))
    used = [getattr(scale.resources, rule) for rule in ("train", "evaluate", "cache_activations")]
    assert all(resources.gpus == 1 for resources in used)


def streaming(**changes: Any) -> dict[str, Any]:
    content = smoke()
    content["activations"] |= changes
    return content


def test_a_cache_above_the_disk_limit_is_refused_and_a_stream_is_not(tmp_path):
    # 400 rows of 31 tokens, at 4 sites, two vectors of 32 numbers of 2 bytes.
    needed = 400 * 31 * 4 * 2 * 32 * 2 / 1e9
    message = refusal(tmp_path, streaming(disk_limit_gb=needed * 0.99))
    assert "activations.mode is cache, which would take" in message
    assert "set mode to stream" in message
    assert load(tmp_path, streaming(disk_limit_gb=needed * 1.01)).activations.mode == "cache"
    scale = load(tmp_path, streaming(mode="stream", disk_limit_gb=needed * 0.01))
    assert scale.activations.mode == "stream"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"learning_rate": None}, "without a learning_rate of its own"),
        ({"headline": True}, "or a headline one"),
        ({"kind": "mlp_in_sae"}, ""),
        ({"learning_rate": 5e-3}, "listed 2 times"),
    ],
)
def test_learning_rates_are_compared_by_dictionaries_that_have_one_each(
    tmp_path, changes, expected
):
    content = smoke()
    content["learning_rates"][0]["dictionaries"][0] |= changes
    if expected:
        assert expected in refusal(tmp_path, content)
    else:
        load(tmp_path, content)


def test_dictionaries_that_compare_learning_rates_are_not_among_the_others(tmp_path):
    scale = load(tmp_path, smoke())
    names = [entry.name for entry in scale.learning_rate_dictionaries]
    assert names == [
        "tiny-gpt2_layer1_transcoder_l1-0.5_lr-0.001",
        "tiny-gpt2_layer1_transcoder_l1-0.5_lr-0.005",
    ]
    assert not set(names) & {entry.name for entry in scale.dictionaries}
    assert scale.group("tiny-gpt2-learning-rates") in scale.all_groups


def test_a_job_has_one_gpu_at_most(tmp_path):
    assert "resources.train.gpus" in refusal(
        tmp_path, with_value("resources/train", SMOKE["resources"]["train"] | {"gpus": 2})
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"data_files": ["a.parquet", "b.parquet"], "eval_data_files": ["b.parquet"]},
            "eval_data_files: b.parquet is among data_files too",
        ),
        ({"eval_data_files": ["b.parquet"]}, "eval_data_files: name the files to train on too"),
        ({"data_files": ["a.parquet"], "split": "test"}, "data_files: leave it out, or config and"),
        ({"revision": "main"}, "corpus.source.hub.revision: expected"),
        ({"data_files": ["a.parquet"], "eval_data_files": ["c.parquet"]}, ""),
        ({"config": "plain_text", "documents": 1000}, ""),
    ],
)
def test_a_dataset_of_the_hub_is_one_split_or_files_for_training_and_for_evaluation(
    tmp_path, keys, expected
):
    source = {"type": "hub", "repo": "org/name", "revision": "a" * 40, "license": "none", **keys}
    content = with_value("corpus/source", source)
    if expected:
        assert expected in refusal(tmp_path, content)
    else:
        load(tmp_path, content)


def test_parameters_are_about_those_of_the_models():
    scale = load_scale(CONFIG / "paper.yaml")
    # From the models' cards, in millions; embeddings are counted twice, GPT-2 has them once.
    for name, expected in (("gpt2-small", 124 + 39), ("pythia-410m", 405), ("pythia-1.4b", 1415)):
        assert scale.models[name].n_parameters() / 1e6 == pytest.approx(expected, rel=0.03)
