"""A scale file either loads whole or is refused with a message that names the file and the key."""

import json
from pathlib import Path

import pytest
import yaml

from transcoders.config import load_scale
from transcoders.errors import UserError
from transcoders.layout import Layout

CONFIG = Path(__file__).resolve().parents[1] / "config"
SCALES = sorted(path for path in CONFIG.glob("*.yaml") if path.name != "claims.yaml")
SMOKE = yaml.safe_load((CONFIG / "smoke.yaml").read_text())
FIRST = "groups/0/dictionaries/0"
MISSING = object()
"""Stands for a key that is left out."""


def smoke(**changes):
    """The smoke scale with other values, by path; digits in a path are positions in lists."""
    # YAML's aliases are one object in several places. Here each place has its own.
    scale = json.loads(json.dumps(SMOKE))
    for path, value in changes.items():
        *steps, last = (int(key) if key.isdigit() else key for key in path.split("/"))
        parent = scale
        for step in steps:
            parent = parent[step]
        if value is MISSING:
            del parent[last]
        else:
            parent[last] = value
    return scale


def load(folder, content):
    path = folder / "edited.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return load_scale(path)


def refusal(folder, content):
    """The message with which a scale file is refused; it always names the file."""
    with pytest.raises(UserError) as caught:
        load(folder, content)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'edited.yaml'}: ")
    return message


@pytest.mark.parametrize("path", SCALES, ids=lambda path: path.stem)
def test_committed_scales_load_under_the_name_of_their_file(path):
    assert load_scale(path).name == path.stem


def test_a_misspelt_key_is_named_with_the_one_that_was_meant(tmp_path):
    message = refusal(tmp_path, smoke(**{"sites/0/layr": 1, "sites/0/layer": MISSING, "zzz": 1}))
    assert "sites.0.layr: no such key; did you mean 'layer'?" in message
    assert "zzz: no such key; config/README.md lists the keys" in message


HUB = {"type": "hub", "repo": "org/name", "revision": "a" * 40, "license": "MIT"}
WHEEL = {"type": "wheel", "package": "p", "version": "1", "file": "f", "sha256": "0" * 64,
         "license": "MIT"}  # fmt: skip
FILES = {"type": "files", "path": ".", "license": "MIT"}
HEADLINE = SMOKE["groups"][2]
SITE, OTHER = {"model": "tiny-llama", "layer": 0}, {"model": "tiny-llama", "layer": 1}


def more(**keys):
    """One more entry of ``groups``: a transcoder unlike all others."""
    entry = {"name": "more", "dictionaries": [{"kind": "transcoder", "l1_coefficient": 9.0}]}
    return {"groups": [*SMOKE["groups"], entry | keys]}


TWO_ERRORS = {"training/epochs": "two", "device": "tpu"}
REFUSED = [
    ({"groups": MISSING}, "groups: this key is missing"),
    # Every wrong value of a file is named at once.
    (TWO_ERRORS, "training.epochs: expected a valid integer, found 'two'"),
    (TWO_ERRORS, "device: expected 'auto', 'cpu' or 'cuda', found 'tpu'"),
    ({"training/learning_rate": "nan"}, "learning_rate: expected a finite number, found nan"),
    ({"training/adam_betas": [0.9, 1.0]}, "adam_betas.1: expected less than 1, found 1.0"),
    ({"sites/0/layer": 3}, "sites: layer 3 of tiny-gpt2, expected one from 0 to 2"),
    ({"sites/0/model": "gpt5"}, "sites: no model named 'gpt5'"),
    ({"groups/0/site/layer": 2}, "groups: tiny-gpt2 names tiny-gpt2_layer2"),
    ({f"{FIRST}/headline": False}, "groups: tiny-gpt2_layer1 has 0 headline dictionaries of"),
    ({"corpus/source": [FILES, FILES]}, "a name of its own for every source"),
    ({"training/batch_tokens": 10**6}, "training.batch_tokens is 1000000, expected at most"),
    ({"greater_than/templates": ["from 17 to 17"]}, "templates: expected {YY} once, found 'fr"),
    ({"greater_than/kept": [0, 8, 2]}, "greater_than: kept: expected different numbers, ascen"),
    ({"corpus/source": HUB | {"eval_data_files": ["b.parquet"]}},
     "eval_data_files: name the files to train on too"),
    ({"extensions/0/dictionaries/0/kind": "transcoder"}, "extensions: "),
    ({"training/precision": "tf32"}, "training.precision: only a GPU has tf32"),
    ({"greater_than/model": "tiny-gpt2"}, "expected transcoders of tiny-gpt2 at layer 0 and"),
    ({"interpretability/rated_site/layer": 0}, "expected one of sites (tiny-gpt2_layer1, "),
    ({"extensions/0/dictionaries": [{"kind": "topk_sae", "k": 129}]}, "expected at most its 128"),
    ({f"{FIRST}/k": 9}, "a transcoder takes l1_coefficient and no "),
    (more(), "groups.6: expected either site or sites"),
    (more(sites=[SITE, SMOKE["sites"][0]], together=True),
     "together: expected sites of one model, found tiny-gpt2, tiny-llama"),
    (more(sites=[SITE, SITE]), "groups: more-layer0 is listed 2 times"),
    (more(site=SITE, train_contexts=[401]), "train_contexts 401, expected at most the 400 of"),
    ({"groups/2": HEADLINE | {"expansion": 8}}, "tiny-llama has a headline dictionary, expected"),
    ({"models/tiny-gpt2/source": WHEEL | {"sha256": None}}, "expected sha256 (of the file) or"),
    # A name is that of a file or folder.
    ({"groups/0/name": "../x"}, "groups.0.name: expected a string to match pattern"),
    ({"models": {"../x": SMOKE["models"]["tiny-gpt2"]}},
     "models.../x.[key]: expected a string to match pattern"),
    # What pip is asked for is a package and no option.
    ({"models/tiny-gpt2/source": WHEEL | {"package": "--index-url=http://x"}},
     "source.wheel.package: expected a string to match pattern"),
    ({"models/tiny-gpt2/source": WHEEL | {"version": "a @ http://x/y.zip"}},
     "source.wheel.version: expected a string to match pattern"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "expected"), REFUSED)
def test_what_cannot_be_is_refused_by_key(tmp_path, changes, expected):
    assert expected in refusal(tmp_path, smoke(**changes))


@pytest.mark.parametrize("written", ["4e-3", "0.004"])  # to YAML, a string and a number
def test_a_dictionary_is_named_by_its_own_numbers_however_they_are_written(tmp_path, written):
    changes = {f"{FIRST}/l1_coefficient": "NUMBER", f"{FIRST}/learning_rate": 2.5e-3}
    text = yaml.safe_dump(smoke(**changes)).replace("NUMBER", written)
    entry = load(tmp_path, text).dictionaries[0]
    assert entry.name == "tiny-gpt2_layer1_transcoder_l1-0.004_lr-0.0025"


def test_the_name_of_a_scale_is_that_of_its_file(tmp_path):
    # Paths come from the file's name, notebooks from Scale.name: they must not come apart.
    assert load(tmp_path, smoke()).name == "edited"
    assert "name: no such key; a scale is named by its file" in refusal(tmp_path, smoke(name="x"))


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    assert "expected a mapping of keys, found" in refusal(tmp_path, "- a list\n")


def test_a_missing_file_is_refused_with_the_scales_that_exist(tmp_path):
    for name in ("laptop", "smoke", "claims"):
        (tmp_path / f"{name}.yaml").touch()
    with pytest.raises(UserError, match=r"papre\.yaml: no such scale file.* are laptop, smoke$"):
        load_scale(tmp_path / "papre.yaml")


def imported_only(*layers):
    """A scale that trains nothing and uses transcoders of others."""
    trained = ("sites", "circuit_sites", "groups", "extensions", "activations", "training",
               "evaluation", "interpretability")  # fmt: skip
    entry = {"model": "tiny-llama", "layers": list(layers), "n_features": 64, "source": HUB,
             "file": "layer.{layer}.pt"}  # fmt: skip
    return smoke(**dict.fromkeys(trained, MISSING)) | {"imported": [entry]}


def test_a_scale_may_train_nothing_and_use_transcoders_of_others(tmp_path):
    scale = load(tmp_path, imported_only(0, 2))
    assert scale.dictionaries == [] and scale.all_sites == []
    found = scale.circuit_transcoders("tiny-llama")
    assert [(entry.name, entry.file) for entry in found] == [
        ("tiny-llama_layer0_transcoder_imported", "layer.0.pt"),
        ("tiny-llama_layer2_transcoder_imported", "layer.2.pt"),
    ]
    assert scale.imported_transcoder(found[1].name) == found[1]
    twice = smoke(imported=imported_only(1)["imported"])  # where one is trained
    assert "tiny-llama_layer1 is listed 2 times" in refusal(tmp_path, twice)


def test_the_papers_scale_is_what_the_paper_says():
    scale = load_scale(CONFIG / "paper.yaml")
    assert [site.name for site in scale.sites] == [
        "gpt2-small_layer8", "pythia-410m_layer15", "pythia-1.4b_layer15",
    ]  # fmt: skip
    assert scale.corpus.train_tokens == 60_000_000
    assert scale.corpus.eval_contexts * scale.corpus.context_length == 3_276_800
    assert not set(scale.corpus.source[0].data_files) & set(scale.corpus.source[0].eval_data_files)
    assert (scale.seed, scale.training.batch_tokens, scale.training.expansion) == (42, 4096, 32)
    assert (scale.training.learning_rate, scale.training.loss_normalization) == (2e-5, "released")
    rated = [scale.rated(kind).l1_coefficient for kind in ("transcoder", "mlp_in_sae")]
    assert rated == [5.5e-5, 7e-5]
    of_410m = scale.dictionaries_of(scale.sites[1])
    published = {2.5e-5, 3e-5, 4e-5, 5.5e-5, 7e-5}
    assert published <= {e.l1_coefficient for e in of_410m if e.kind == "transcoder"}
    layers = [entry.site.layer for entry in scale.circuit_transcoders("gpt2-small")]
    assert layers == list(range(12))  # the file lists layer 8 first
    # From the models' cards, in millions; embeddings are counted twice, GPT-2 has them once.
    for name, expected in (("gpt2-small", 124 + 39), ("pythia-410m", 405), ("pythia-1.4b", 1415)):
        assert scale.models[name].n_parameters() / 1e6 == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("keys", "groups", "endings"),
    [
        ({"sites": [SITE, OTHER]}, ["-layer0", "-layer1"], ["0 ", "1 "]),
        (
            {"site": SITE, "seeds": [42, 7], "train_contexts": [9, 400]},
            [f"-seed-{seed}-contexts-{rows}" for rows in (9, 400) for seed in (42, 7)],
            ["0 _contexts-9", "0 _contexts-9_seed-7", "0 ", "0 _seed-7"],
        ),
        (
            {"sites": [SITE, OTHER], "seeds": [1, 2], "train_contexts": [9], "epochs": 3,
             "expansion": 8, "together": True},
            ["-seed-1-contexts-9", "-seed-2-contexts-9"],
            [f"{layer} _contexts-9_epochs-3_x8_seed-{seed}" for seed in (1, 2) for layer in (0, 1)],
        ),
    ],
)  # fmt: skip
def test_an_entry_is_one_job_for_each_site_seed_and_number_of_rows(tmp_path, keys, groups, endings):
    names = [f"tiny-llama_layer{ending.replace(' ', '_transcoder_l1-9')}" for ending in endings]
    scale = load(tmp_path, smoke(**more(**keys)))
    found = scale.groups[-1].groups
    assert [group.name for group in found] == [f"more{group}" for group in groups]
    assert [entry.name for group in found for entry in scale.dictionaries_in(group)] == names


def test_a_group_has_its_own_settings_seed_and_rows_or_the_scales(tmp_path):
    own = {"epochs": 3, "expansion": 8, "warmup_steps": 1, "learning_rate": 0.1}
    changes = more(site=SITE, seeds=[42, 7], train_contexts=[9], **own)
    scale = load(tmp_path, smoke(**changes))
    for group, seed in zip(scale.groups[-1].groups, (42, 7), strict=True):
        assert scale.training_of(group) == scale.training.model_copy(update=own)
        assert (scale.seed_of(group), scale.contexts_of(group)) == (seed, 9)
    first = scale.all_groups[0]
    assert scale.training_of(first) == scale.training
    assert (scale.seed_of(first), scale.contexts_of(first)) == (42, 400)


def test_a_headline_is_trained_as_the_scale_says_and_so_is_what_is_observed(tmp_path):
    entry = HEADLINE | {"seeds": [7, 42], "train_contexts": [9, 400]}
    scale = load(tmp_path, smoke(**{"groups/2": entry}))
    observed = load_scale(CONFIG / "smoke.yaml").observed_dictionaries
    assert [e.name for e in scale.observed_dictionaries] == [e.name for e in observed]
    assert scale.rated("transcoder").group == "tiny-llama-seed-42-contexts-400"


def test_sites_for_circuits_alone_are_evaluated_on_fewer_rows_if_asked(tmp_path):
    scale = load(tmp_path, smoke(**{"evaluation/circuit_contexts": 6}))
    assert [scale.rows_of_evaluation(site) for site in scale.all_sites] == [None, None, None, 6]


def test_only_what_a_job_reads_is_cached(tmp_path):
    scale = load_scale(CONFIG / "smoke.yaml")
    sites = {site.name: scale.cached_contexts(site) for site in scale.all_sites}
    assert sites.pop("tiny-llama_layer0") == 0  # both of its groups stream
    assert set(sites.values()) == {400}
    wider = load(tmp_path, smoke(**more(site=SITE, train_contexts=[100, 200])))
    assert wider.cached_contexts(wider.circuit_sites[0]) == 200
    streaming = load(tmp_path, smoke(**{"activations/mode": "stream"}))
    assert {streaming.cached_contexts(site) for site in streaming.all_sites} == {0}


def test_a_scale_may_be_named_by_a_number_and_by_no_path_or_command():
    assert Layout(135).config == Path("config/135.yaml")  # what Snakemake makes of scale=135
    assert Layout("größe_2.b").results == Path("results/größe_2.b")
    for name in ("config/mine.yaml", "x;ls", "-n"):
        with pytest.raises(UserError, match=r"expected a name of letters.* or rename the file"):
            Layout(name)
