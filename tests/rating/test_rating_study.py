"""What is shown says nothing of where it comes from, and the key stays shut until all is done."""

import hashlib
import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from helpers_rating import (
    FIRST_FEATURE,
    N_LIVE,
    SAE,
    TRANSCODER,
    Tokenizer,
    disguise,
    finished,
    make_study,
    make_text,
)
from transcoders.config import RATED_KINDS
from transcoders.errors import UserError
from transcoders.interpretability.gather import Observed, Text
from transcoders.rating.records import Rating, load_record
from transcoders.rating.study import Study, begin, create_study, visible


@pytest.fixture(scope="module")
def study():
    return make_study()


@pytest.fixture(scope="module")
def key(study, tmp_path_factory):
    return study.open(finished(study, tmp_path_factory.mktemp("ratings")))


# What is drawn.


def test_as_many_live_features_of_either_kind_none_twice(key):
    assert dict(key.groupby("kind")["feature"].nunique()) == {"transcoder": 20, "mlp_in_sae": 20}
    assert len(key) == 40 and (key["feature"] < FIRST_FEATURE + N_LIVE).all()
    with pytest.raises(UserError, match=r"transcoder: expected at least 61 live .* found 60"):
        make_study(n_features=61)


def test_the_key_says_whose_examples_an_item_shows_with_ten_tokens_to_each_side(study, key):
    rows, decode = make_text().rows.numpy(), Tokenizer().decode
    for item, entry in zip(study.items, key.itertuples(), strict=True):
        observed = TRANSCODER if entry.kind == "transcoder" else SAE
        top = observed.examples.query("feature == @entry.feature and kind == 'top'")
        for shown, place in zip(item.top, top.sort_values("rank").itertuples(), strict=False):
            window = rows[place.row, max(place.position - 10, 0) : place.position + 11]
            if set(shown.token) != {"␣"}:
                assert "".join(shown) == visible(decode(window.tolist())).lstrip()
                assert shown.token == visible(decode([rows[place.row, place.position]])).lstrip()


def test_sampled_examples_are_of_other_rows_and_go_down_to_the_weakest():
    # Each word of the text is there once, so that a peak says where it is.
    rows = torch.arange(15, 195).reshape(90, 2).int()
    examples = pd.DataFrame(
        {"feature": 0, "kind": kind, "rank": rank, "row": row, "position": 1}
        for kind, chosen in (("top", range(12)), ("sampled", range(8, 32)))
        for rank, row in enumerate(chosen, 1)
    )
    features = pd.DataFrame({"feature": [0], "frequency": [0.1]})
    both = dict.fromkeys(RATED_KINDS, Observed(features, examples, torch.zeros(0, 0)))
    text = Text(rows, torch.zeros(0, 2))
    item, _ = create_study(both, text, Tokenizer(), weights=[], n_features=1, seed=0).items
    # Rows 12 to 31 are left, 20 of them: the first, the last, and four evenly between.
    expected = [*range(12), 12, 16, 20, 23, 27, 31]
    shown = [f" {example.token}" for example in item.top + item.sampled]
    assert shown == [Tokenizer().decode([int(rows[row, 1])]) for row in expected]


def test_how_many_examples_are_shown_says_nothing_of_the_kind(study, key):
    sizes = pd.Series([(len(item.top), len(item.sampled)) for item in study.items])
    of_transcoder, of_sae = (sorted(sizes[key["kind"] == kind]) for kind in RATED_KINDS)
    assert of_transcoder == of_sae and max(of_sae) == (12, 6)
    assert len(set(of_sae)) > 3, "the SAE's features were to be rarer"


def test_any_live_feature_may_be_drawn_and_stands_anywhere(tmp_path):
    places, first_of_alike, drawn = [], 0, Counter[int]()
    for seed in range(20):
        study = make_study(seed=seed)
        key = study.open(finished(study, tmp_path, f"rater{seed}"))
        places.append(key.loc[key["kind"] == "transcoder", "item"].mean())
        drawn.update(key.loc[key["kind"] == "mlp_in_sae", "feature"])
        # Two dictionaries with the same features: every item is there twice.
        alike = make_study(TRANSCODER, TRANSCODER, seed=seed, n_features=10)
        assert alike.items[::2] == alike.items[1::2]
        kinds = alike.open(finished(alike, tmp_path, f"alike{seed}"))["kind"]
        first_of_alike += int((kinds[::2] == "transcoder").sum())
    # Of 40 items the mean place is 20.5; that of 20 drawn at random has a deviation of 1.85.
    assert abs(np.mean(places) - 20.5) < 3 * 1.85 / 20**0.5
    assert np.std(places) > 1
    assert abs(first_of_alike - 100) < 3 * 50**0.5
    # Equally often: a third of 20 draws each. Squared deviations have a mean of 40 / 9 then.
    assert len(drawn) == N_LIVE
    assert 2 < np.mean([(count - 20 / 3) ** 2 for count in drawn.values()]) < 8


def test_sources_change_the_key_and_nothing_that_is_shown(study, key, tmp_path):
    swapped = make_study(SAE, TRANSCODER)
    assert swapped.items == study.items
    other = swapped.open(finished(swapped, tmp_path, "swapped"))
    assert (key["kind"] != other["kind"]).all() and (key["feature"] == other["feature"]).all()
    # Nor do other numbers of features, activations and frequencies.
    assert make_study(disguise(TRANSCODER), SAE).items == study.items
    assert make_study(seed=6).items != study.items


# The key.


def test_the_key_is_refused_until_everything_is_rated_and_finished(study, tmp_path):
    record = finished(study, tmp_path)
    # A note without a verdict is no rating.
    almost = record.model_copy(update={"ratings": record.ratings | {7: Rating(note="of?")}})
    with pytest.raises(UserError, match=r"all 40 items.* 1 are missing"):
        study.open(almost)
    with pytest.raises(UserError, match="press Finish"):
        study.open(record.model_copy(update={"finished": False}))


def test_neither_key_nor_items_can_be_exchanged(study, tmp_path):
    record = finished(study, tmp_path)
    other_items = Study((*study.items[:-1], study.items[0]), study.weights, study._key)
    for other in (make_study(SAE, TRANSCODER), make_study(disguise(TRANSCODER), SAE), other_items):
        with pytest.raises(UserError, match="commitment"):
            other.open(record)
        with pytest.raises(UserError, match="commitment"):
            begin(other, tmp_path, "anna")
    with pytest.raises(UserError, match=r"anna.json: .* other weights; rate under another name"):
        begin(Study(study.items, ["a", "c"], study._key), tmp_path, "anna")


def test_the_key_is_committed_to_and_neither_printed_nor_on_disk(study, tmp_path):
    one, other = begin(study, tmp_path, "anna"), begin(study, tmp_path, "bob")
    assert one.commitment != other.commitment
    sealed = json.dumps([one.nonce, study._key, study.items])
    assert one.commitment == hashlib.sha256(sealed.encode()).hexdigest()
    assert begin(study, tmp_path, "anna") == one
    on_disk = json.loads((tmp_path / "anna.json").read_text())
    del on_disk["nonce"], on_disk["commitment"]
    for text in (repr(study), json.dumps(on_disk)):
        assert "transcoder" not in text
        assert str(FIRST_FEATURE)[:3] not in text


# A rater's file.


def test_names_that_cannot_be_a_files_and_damaged_files_are_refused(study, tmp_path):
    for rater in ("../anna", "a" * 41):
        with pytest.raises(UserError, match="rater: expected 1 to 40"):
            begin(study, tmp_path / "ratings", rater)
    with pytest.raises(UserError, match="--language-model: expected a name"):
        begin(study, tmp_path / "ratings", "anna", "person")
    assert not (tmp_path / "ratings").exists()
    damaged = json.dumps(begin(study, tmp_path, "anna").model_dump() | {"finished": "so"})
    (tmp_path / "anna.json").write_text(damaged)
    with pytest.raises(UserError, match=r"anna\.json: expected ratings"):
        begin(study, tmp_path, "anna")
    assert (tmp_path / "anna.json").read_text() == damaged
    begin(study, tmp_path, "bob")
    (tmp_path / "bob.json").rename(tmp_path / "eve.json")
    with pytest.raises(UserError, match=r"eve\.json: expected ratings by eve, found some by bob"):
        load_record(tmp_path, "eve")
