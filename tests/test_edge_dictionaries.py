"""Dictionaries at the edge: dead, alone, or of an MLP that does not vary.

Pages say so, training says which key to change, and no NaN reaches a table.
"""

import io

import numpy as np
import pandas as pd
import pytest
import torch

from helpers_circuits import make_circuit
from helpers_features import browser_page, subjects
from helpers_training import entry, random_cache, settings
from transcoders.activations.statistics import check_varies
from transcoders.config import Site
from transcoders.errors import UserError
from transcoders.interpretability.automatic import live_features, measure_features, summarise
from transcoders.interpretability.predictions import read_vocabulary
from transcoders.interpretability.systematic import study_features, summarise_studies
from transcoders.models import load_model, load_tokenizer
from transcoders.plots.interpretability import measures_figure, studies_figure
from transcoders.tables.interpretability import describe_studies, measures_table, studies_table
from transcoders.training.group import train_group


@pytest.fixture(scope="module")
def model(tiny_models):
    return load_model(tiny_models["llama"])


@pytest.fixture(scope="module")
def observe(model, random_dictionary, random_tokens, scale, tmp_path_factory):
    """Dictionaries in which no feature, one feature or every feature is active on every token."""
    rows, folder = random_tokens(30, 12, seed=5), tmp_path_factory.mktemp("edge") / "observed"
    placed = {}
    for kind, first, others in (("dead", -1e6, -1e6), ("one", 1e3, -1e6), ("all", 1e3, 1e3)):
        dictionary = random_dictionary("transcoder", seed=2)
        with torch.no_grad():
            dictionary.b_enc.fill_(others)
            dictionary.b_enc[0] = first
        placed[kind] = (Site(model="m", layer=2), dictionary)
    found, text = subjects(model, rows, placed, scale.interpretability, folder, seed=3)
    return lambda kind: (found[kind], text)


def no_gaps(table):
    return bool(np.isfinite(table.select_dtypes("number")).all().all())


@pytest.mark.parametrize(
    ("kind", "n_live", "n_studied"), [("dead", 0, 0), ("one", 1, 0), ("all", 64, 3)]
)
def test_pages_studies_and_measures_have_no_gaps_and_say_how_many_features_are_live(
    observe, model, random_dictionary, tmp_path, tiny_models, kind, n_live, n_studied
):
    subject, text = observe(kind)
    circuit = make_circuit(model, random_dictionary, {0: "transcoder"}, first=1)
    live = live_features(subject.observed)["feature"].tolist()
    tokenizer = load_tokenizer(tiny_models["llama"])
    page = browser_page(
        circuit, subject, text, tokenizer, tmp_path, live, text="text.", which="all."
    )
    assert page.n == n_live
    written = (tmp_path / kind / "index.html").read_text()
    assert ("There are none: no feature is live" in written) == (n_live == 0)
    assert "a lower <code>l1_coefficient" in written or n_live
    assert "nan" not in written.partition('"use strict"')[0].lower()

    vocabulary = read_vocabulary(circuit)
    found = study_features(circuit, vocabulary, subject, text, tokenizer, n_features=3, seed=0)
    assert found["feature"].nunique() == n_studied
    summary = summarise_studies(found, seed=0)
    assert studies_figure(summary).axes
    said = describe_studies(summary)
    assert ("No transcoder has two live features" in said) == (n_studied == 0)
    assert "<table" in studies_table(found)
    measures = measure_features(subject.observed, text, seed=0)
    assert no_gaps(measures)
    other = pd.DataFrame({"measure": ["token_entropy"] * 2, "value": [1.0, 2.0]})
    both = [measures.assign(dictionary=kind), other.assign(dictionary="other")]
    summary = summarise(pd.concat(both), seed=0)
    assert (kind in set(summary["dictionary"])) == (kind != "dead")
    table = measures_table(summary, {kind: "a transcoder", "other": "another"})
    assert "no feature measured" in table or kind != "dead"
    assert "nan" not in table
    assert measures_figure(summary, {kind: "transcoder", "other": "mlp_in_sae"}).axes


def test_an_mlp_that_does_not_vary_is_refused_when_it_is_measured():
    cache = random_cache()
    check_varies(cache.statistics, "m_layer1", "float16")
    for constant in (0.0, 1.0):
        cache.mlp_out.fill_(constant)
        with pytest.raises(UserError, match=r"m_layer1: expected an MLP that .*float16"):
            check_varies(cache.statistics, "m_layer1", "float16")


def test_a_target_of_norm_0_under_the_released_loss_names_the_key():
    cache = random_cache()
    cache.mlp_out[40] = 0
    training = settings(loss_normalization="released")
    with pytest.raises(UserError, match=r"set training\.loss_normalization to none"):
        train_group([entry("transcoder")], cache, training, seed=0)


def test_training_says_which_key_leaves_every_feature_dead(capsys):
    training = settings(learning_rate=0.05, log_every_steps=2, epochs=8)
    dead, alive = entry("transcoder", 1e6), entry("transcoder", 1e-3)
    trained = train_group([dead, alive], random_cache(), training, seed=0)
    said = capsys.readouterr().err
    assert f"{dead.name}: at the end, only 0" in said and "lower its l1_coefficient" in said
    assert alive.name not in said
    table = pd.read_csv(io.StringIO(trained[0].training_csv))
    assert no_gaps(table) and table["l0"].iloc[-1] < 1
