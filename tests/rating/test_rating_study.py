"""What is shown says nothing of where it comes from, and the key stays shut until all is done."""

import hashlib
import json
import shutil
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
from transcoders.rating.records import Rating, load_record, save_record
from transcoders.rating.study import Study, begin, create_study, visible


def item_of(rows, places, tokenizer):
    """An item of a study whose dictionaries have one feature each, with these examples."""
    examples = pd.DataFrame(
        [
            (0, kind, rank, *place, 1.0)
            for kind, chosen in places.items()
            for rank, place in enumerate(chosen, 1)
        ],
        columns=["feature", "kind", "rank", "row", "position", "activation"],
    )
    features = pd.DataFrame({"feature": [0], "frequency": [0.1]})
    observed = Observed(features, examples, torch.zeros(0, 0))
    text = Text(rows, torch.zeros(0, 2))
    both = dict.fromkeys(RATED_KINDS, observed)
    first, second = create_study(both, text, tokenizer, weights=[], n_features=1, seed=0).items
    assert first == second
    return first


# What is drawn.


def test_as_many_live_features_of_either_kind_none_twice(tmp_path):
    study = make_study()
    key = study.open(finished(study, tmp_path))
    assert key["item"].tolist() == list(range(1, 41))
    assert dict(key.groupby("kind").size()) == {"transcoder": 20, "mlp_in_sae": 20}
    assert not key.duplicated(["kind", "feature"]).any()
    assert key["feature"].between(FIRST_FEATURE, FIRST_FEATURE + N_LIVE - 1).all()
    with pytest.raises(UserError, match=r"transcoder: expected at least 61 live .* found 60"):
        make_study(n_features=61)


def test_the_key_says_whose_examples_an_item_shows(tmp_path):
    study = make_study()
    rows, decode = make_text().rows.numpy(), Tokenizer().decode
    for entry in study.open(finished(study, tmp_path)).itertuples():
        observed = TRANSCODER if entry.kind == "transcoder" else SAE
        examples = observed.examples[observed.examples["feature"] == entry.feature]
        item = study.items[entry.item - 1]
        top = examples[examples["kind"] == "top"].sort_values("rank")
        for shown, place in zip(item.top, top.itertuples(), strict=False):
            window = rows[place.row, max(place.position - 10, 0) : place.position + 11]
            whole = visible(decode(window.tolist()))
            if set(shown.token) != {"␣"}:
                assert "".join(shown) == whole.lstrip()
                assert shown.token == visible(decode([rows[place.row, place.position]])).lstrip()


def test_sampled_examples_are_of_other_rows_and_go_down_to_the_weakest():
    # Each word of the text is there once, so that a peak says where it is.
    rows = torch.arange(15, 195).reshape(90, 2).int()
    top, sampled = ([(row, 1) for row in numbers] for numbers in (range(12), range(8, 32)))
    item = item_of(rows, {"top": top, "sampled": sampled}, Tokenizer())

    def words(numbers):
        return [Tokenizer().decode([int(rows[row, 1])]).strip() for row in numbers]

    # Rows 12 to 31 are left, 20 of them: the first, the last, and four evenly between.
    assert [example.token for example in item.sampled] == words((12, 16, 20, 23, 27, 31))
    assert [example.token for example in item.top] == words(range(12))


def test_how_many_examples_are_shown_says_nothing_of_the_kind(tmp_path):
    study = make_study()
    kinds = study.open(finished(study, tmp_path))["kind"]
    shown: dict[str, Counter[tuple[int, int]]] = {kind: Counter() for kind in RATED_KINDS}
    for item, kind in zip(study.items, kinds, strict=True):
        shown[kind][len(item.top), len(item.sampled)] += 1
    assert shown["transcoder"] == shown["mlp_in_sae"]
    assert len(shown["transcoder"]) > 3, "the SAE's features were to be rarer"
    assert max(shown["transcoder"]) == (12, 6)


def test_where_an_item_stands_says_nothing_of_the_kind(tmp_path):
    places, first_of_alike = [], 0
    for seed in range(20):
        study = make_study(seed=seed)
        key = study.open(finished(study, tmp_path, f"rater{seed}"))
        places.append(key.loc[key["kind"] == "transcoder", "item"].mean())
        # Two dictionaries with the same features: every item is there twice.
        alike = make_study(TRANSCODER, TRANSCODER, seed=seed, n_features=10)
        assert alike.items[::2] == alike.items[1::2]
        kinds = alike.open(finished(alike, tmp_path, f"alike{seed}"))["kind"]
        first_of_alike += int((kinds[::2] == "transcoder").sum())
    # Of 40 items the mean place is 20.5; that of 20 drawn at random has a deviation of 1.85.
    assert abs(np.mean(places) - 20.5) < 3 * 1.85 / 20**0.5
    assert np.std(places) > 1
    assert abs(first_of_alike - 100) < 3 * 50**0.5


def test_every_live_feature_is_drawn_equally_often(tmp_path):
    drawn: Counter[int] = Counter()
    for seed in range(40):
        study = make_study(seed=seed)
        key = study.open(finished(study, tmp_path, f"rater{seed}"))
        drawn.update(key.loc[key["kind"] == "mlp_in_sae", "feature"])
    assert len(drawn) == N_LIVE
    # A third of 40, within four standard deviations.
    assert all(abs(count - 40 / 3) < 4 * (40 * 2 / 9) ** 0.5 for count in drawn.values())


def test_sources_change_the_key_and_nothing_that_is_shown(tmp_path):
    study, swapped = make_study(), make_study(SAE, TRANSCODER)
    assert swapped.items == study.items
    key = study.open(finished(study, tmp_path))
    other = swapped.open(finished(swapped, tmp_path, "swapped"))
    assert (key["kind"] != other["kind"]).all()
    assert (key["feature"] == other["feature"]).all()
    # Nor do other numbers of features, activations and frequencies.
    assert make_study(disguise(TRANSCODER), SAE).items == study.items
    assert make_study(TRANSCODER, disguise(SAE)).items == study.items
    assert make_study(seed=6).items != study.items


# The key.


def test_the_key_is_refused_until_everything_is_rated_and_finished(tmp_path):
    study = make_study()
    record = finished(study, tmp_path)
    # A note without a verdict is no rating.
    almost = record.model_copy(update={"ratings": record.ratings | {7: Rating(note="of?")}})
    with pytest.raises(UserError, match=r"all 40 items.* 1 are missing"):
        study.open(almost)
    with pytest.raises(UserError, match="press Finish"):
        study.open(record.model_copy(update={"finished": False}))
    assert len(study.open(record)) == 40


def test_neither_key_nor_items_can_be_exchanged(tmp_path):
    study = make_study()
    record = finished(study, tmp_path)
    save_record(tmp_path, record)
    for other in (
        make_study(seed=6),
        make_study(SAE, TRANSCODER),
        make_study(disguise(TRANSCODER), SAE),
        make_study(n_features=19),
        Study((*study.items[:-1], study.items[0]), study.weights, study._key),
    ):
        with pytest.raises(UserError, match="commitment"):
            other.open(record)
        with pytest.raises(UserError, match="commitment"):
            begin(other, tmp_path, "anna")
    make_study().check(record)
    with pytest.raises(UserError, match=r"anna.json: .* other weights; rate under another name"):
        begin(Study(study.items, ["a", "c"], study._key), tmp_path, "anna")


def test_the_key_is_committed_to_and_neither_printed_nor_on_disk(tmp_path):
    study = make_study()
    one, other = begin(study, tmp_path, "anna"), begin(study, tmp_path, "bob")
    assert one.commitment != other.commitment
    sealed = json.dumps([one.nonce, study._key, study.items])
    assert one.commitment == hashlib.sha256(sealed.encode()).hexdigest()
    assert len(one.nonce) == 64
    assert begin(study, tmp_path, "anna") == one
    on_disk = json.loads((tmp_path / "anna.json").read_text())
    del on_disk["nonce"], on_disk["commitment"]
    for text in (repr(study), json.dumps(on_disk)):
        assert "transcoder" not in text
        assert str(FIRST_FEATURE)[:3] not in text


# An example.


def test_an_example_reaches_ten_tokens_to_each_side_and_not_beyond_the_row():
    rows = torch.arange(15, 65).reshape(2, 25).int()
    decode = Tokenizer().decode
    for position, first, last in ((12, 2, 22), (0, 0, 10), (24, 14, 24)):
        example = item_of(rows, {"top": [(1, position)] * 4}, Tokenizer()).top[0]
        space = " " if position > first else ""
        assert example.before == decode(rows[1, first:position].tolist()).lstrip() + space
        assert example.token == decode([int(rows[1, position])]).strip()
        assert example.after == decode(rows[1, position + 1 : last + 1].tolist())


def test_an_example_marks_what_would_not_show():
    words = [" a", "\n", "   ", "", "\u202e", "\xa0", " b"]

    class Words:
        def decode(self, tokens, **_):
            return "".join(words[token] for token in tokens)

    rows = torch.tensor([[0, token, 6] for token in range(1, 6)])
    shown = item_of(rows, {"top": [(row, 1) for row in range(5)]}, Words()).top
    assert [each.token for each in shown] == ["⏎", "␣␣␣", "⟨nothing⟩", "⟨U+202E⟩", "␣"]
    assert {(each.before.strip(), each.after) for each in shown} == {("a", " b")}


# A rater's file.


def test_names_that_cannot_be_a_files_and_damaged_files_are_refused(tmp_path):
    for rater in ("", "../anna", "a" * 41, "anna\n"):
        with pytest.raises(UserError, match="rater: expected 1 to 40"):
            begin(make_study(), tmp_path / "ratings", rater)
    for model in ("", "person"):
        with pytest.raises(UserError, match="--language-model: expected a name"):
            begin(make_study(), tmp_path / "ratings", "anna", model)
    assert not (tmp_path / "ratings").exists()
    damaged = json.dumps(begin(make_study(), tmp_path, "anna").model_dump() | {"finished": "so"})
    (tmp_path / "anna.json").write_text(damaged)
    with pytest.raises(UserError, match=r"anna\.json: expected ratings"):
        begin(make_study(), tmp_path, "anna")
    assert (tmp_path / "anna.json").read_text() == damaged
    begin(make_study(), tmp_path, "bob")
    shutil.copy(tmp_path / "bob.json", tmp_path / "eve.json")
    with pytest.raises(UserError, match=r"eve\.json: expected ratings by eve, found some by bob"):
        load_record(tmp_path, "eve")


def test_what_is_written_is_read_and_is_in_the_order_of_items(tmp_path):
    record = begin(make_study(), tmp_path, "anna")
    said = {30: Rating(verdict="maybe", context_free=True, note='é "<b>"\n⏎'), 4: Rating()}
    save_record(tmp_path, record.model_copy(update={"ratings": said}))
    assert load_record(tmp_path, "anna").ratings == said
    assert list(json.loads((tmp_path / "anna.json").read_text())["ratings"]) == ["4", "30"]
