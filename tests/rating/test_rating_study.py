"""What is shown says nothing of where it comes from, and the key stays shut until all is done."""

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from helpers_rating import (
    FIRST_FEATURE,
    N_LIVE,
    NAMES,
    SAE,
    TRANSCODER,
    Tokenizer,
    disguise,
    make_observed,
    make_study,
    make_text,
)
from transcoders.errors import UserError
from transcoders.interpretability.gather import Observed, Text
from transcoders.rating.records import Rating, Record, load_record, save_record
from transcoders.rating.study import RatedDictionary, Study, begin, create_study, visible


def finished(study: Study, folder: Path, rater: str = "anna") -> Record:
    ratings = {number: Rating(verdict="maybe") for number in range(1, len(study.items) + 1)}
    begun = begin(study, folder, rater)
    return begun.model_copy(update={"ratings": ratings, "finished": True})


def test_as_many_live_features_of_either_kind_none_twice(tmp_path: Path) -> None:
    study = make_study()
    key = study.open(finished(study, tmp_path))
    assert key["item"].tolist() == list(range(1, 41))
    assert dict(key.groupby(["dictionary", "kind"]).size()) == {
        (NAMES[0], "transcoder"): 20,
        (NAMES[1], "mlp_in_sae"): 20,
    }
    assert not key.duplicated(["dictionary", "feature"]).any()
    assert key["feature"].between(FIRST_FEATURE, FIRST_FEATURE + N_LIVE - 1).all()


def test_the_key_says_whose_examples_an_item_shows(tmp_path: Path) -> None:
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
            if set(shown.peak) != {"␣"}:
                assert shown.before + shown.peak + shown.after == whole.lstrip()
                assert shown.peak == visible(decode([rows[place.row, place.position]])).lstrip()


def test_sampled_examples_are_of_other_rows_and_go_down_to_the_weakest() -> None:
    # One feature a dictionary, each word of the text once, so that a peak says where it is.
    rows = torch.arange(15, 195).reshape(90, 2).int()
    top = [(row, 1) for row in range(12)]
    sampled = [(row, 1) for row in range(8, 32)]
    examples = pd.DataFrame(
        [(3, "top", rank, *place, 1.0) for rank, place in enumerate(top, 1)]
        + [(3, "sampled", rank, *place, 1.0) for rank, place in enumerate(sampled, 1)],
        columns=["feature", "kind", "rank", "row", "position", "activation"],
    )
    features = pd.DataFrame({"feature": [3], "frequency": [0.1]})
    observed = Observed(features, examples, torch.zeros(0, 0))
    dictionaries = [
        RatedDictionary("a", "transcoder", observed), RatedDictionary("b", "mlp_in_sae", observed)
    ]  # fmt: skip
    text = Text(rows, torch.zeros(0, 2))
    study = create_study(dictionaries, text, Tokenizer(), n_features=1, seed=0)
    decode = Tokenizer().decode
    # Rows 12 to 31 are left, 20 of them: the first, the last, and four evenly between.
    expected = [decode([int(rows[row, 1])]).strip() for row in (12, 16, 20, 23, 27, 31)]
    for item in study.items:
        assert [example.peak for example in item.sampled] == expected
        assert [example.peak for example in item.top] == [
            decode([int(rows[row, 1])]).strip() for row, _ in top
        ]


def test_how_many_examples_are_shown_says_nothing_of_the_kind(tmp_path: Path) -> None:
    study = make_study()
    kinds = study.open(finished(study, tmp_path))["kind"]
    shown = {
        kind: Counter(
            (len(item.top), len(item.sampled))
            for item, of in zip(study.items, kinds, strict=True)
            if of == kind
        )
        for kind in ("transcoder", "mlp_in_sae")
    }
    assert shown["transcoder"] == shown["mlp_in_sae"]
    assert len(shown["transcoder"]) > 3, "the SAE's features were to be rarer"
    assert max(shown["transcoder"]) == (12, 6)


def test_where_an_item_stands_says_nothing_of_the_kind(tmp_path: Path) -> None:
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


def test_every_live_feature_is_drawn_equally_often(tmp_path: Path) -> None:
    drawn: Counter[int] = Counter()
    for seed in range(40):
        study = make_study(seed=seed)
        key = study.open(finished(study, tmp_path, f"rater{seed}"))
        drawn.update(key.loc[key["kind"] == "mlp_in_sae", "feature"])
    assert len(drawn) == N_LIVE
    # A third of 40, within four standard deviations.
    assert all(abs(count - 40 / 3) < 4 * (40 * 2 / 9) ** 0.5 for count in drawn.values())


def test_exchanging_the_dictionaries_changes_the_key_and_nothing_else(tmp_path: Path) -> None:
    study, swapped = make_study(), make_study(SAE, TRANSCODER)
    assert swapped.items == study.items
    key = study.open(finished(study, tmp_path))
    other = swapped.open(finished(swapped, tmp_path, "swapped"))
    assert (key["kind"] != other["kind"]).all()
    assert (key["feature"] == other["feature"]).all()


def test_other_numbers_change_nothing_that_is_shown() -> None:
    study = make_study()
    assert make_study(disguise(TRANSCODER), SAE).items == study.items
    assert make_study(TRANSCODER, disguise(SAE)).items == study.items
    assert make_study(names=("other", "names")).items == study.items
    assert make_study(seed=6).items != study.items


def test_dictionaries_that_cannot_be_compared_are_refused() -> None:
    few = make_observed(1, rarest=20)
    with pytest.raises(UserError, match=r"l1-0.47: expected at least 61 live .* found 60"):
        make_study(n_features=61, transcoder=_more(few))


def _more(observed: Observed) -> Observed:
    """Twice as many features, so that only the other dictionary has too few."""
    again = observed.features.assign(feature=observed.features["feature"] + 500)
    examples = observed.examples.assign(feature=observed.examples["feature"] + 500)
    return Observed(
        pd.concat([observed.features, again], ignore_index=True),
        pd.concat([observed.examples, examples], ignore_index=True),
        observed.background,
    )


class TestKey:
    def test_is_refused_until_everything_is_rated(self, tmp_path: Path) -> None:
        study = make_study()
        record = finished(study, tmp_path)
        some = record.model_copy(update={"ratings": {1: Rating(verdict="maybe")}})
        with pytest.raises(UserError, match=r"all 40 items.* 39 are missing"):
            study.open(some)
        # A note without a verdict is no rating.
        almost = record.model_copy(update={"ratings": record.ratings | {7: Rating(note="of?")}})
        with pytest.raises(UserError, match="1 are missing"):
            study.open(almost)
        with pytest.raises(UserError, match="press Finish"):
            study.open(record.model_copy(update={"finished": False}))
        assert len(study.open(record)) == 40

    def test_cannot_be_exchanged(self, tmp_path: Path) -> None:
        study = make_study()
        record = finished(study, tmp_path)
        others = {
            "seed": make_study(seed=6),
            "exchanged": make_study(SAE, TRANSCODER),
            "renumbered": make_study(disguise(TRANSCODER), SAE),
            "another number": make_study(n_features=19),
            "another item": Study((*study.items[:-1], study.items[0]), study._key),
        }
        for what, other in others.items():
            with pytest.raises(UserError, match="commitment"):
                other.open(record)
                pytest.fail(what)
            with pytest.raises(UserError, match="commitment"):
                save_record(tmp_path, record)
                begin(other, tmp_path, "anna")
                pytest.fail(what)
        make_study().check(record)

    def test_is_committed_to_with_a_nonce(self, tmp_path: Path) -> None:
        study = make_study()
        one, other = begin(study, tmp_path, "anna"), begin(study, tmp_path, "bob")
        assert one.commitment != other.commitment
        sealed = json.dumps([one.nonce, study._key, study.items])
        assert one.commitment == hashlib.sha256(sealed.encode()).hexdigest()
        assert len(one.nonce) == 64
        assert begin(study, tmp_path, "anna") == one

    def test_is_neither_printed_nor_on_disk(self, tmp_path: Path) -> None:
        study = make_study()
        save_record(tmp_path, finished(study, tmp_path))
        on_disk = json.loads((tmp_path / "anna.json").read_text())
        del on_disk["nonce"], on_disk["commitment"]
        for text in (repr(study), json.dumps(on_disk)):
            assert "transcoder" not in text
            assert str(FIRST_FEATURE)[:3] not in text


class TestExample:
    def test_reaches_ten_tokens_to_each_side_and_not_beyond_the_row(self) -> None:
        rows = torch.arange(15, 65).reshape(2, 25).int()
        decode = Tokenizer().decode
        for position, first, last in ((12, 2, 22), (0, 0, 10), (24, 14, 24)):
            example = _only_example(rows, (1, position), Tokenizer())
            assert example.before == decode(rows[1, first:position].tolist()).lstrip() + (
                " " if position > first else ""
            )
            assert example.peak == decode([int(rows[1, position])]).strip()
            assert example.after == decode(rows[1, position + 1 : last + 1].tolist())

    @pytest.mark.parametrize(
        ("token", "peak"),
        [("\n", "⏎"), (" ", "␣"), ("   ", "␣␣␣"), ("", "⟨nothing⟩"), ("\n\n", "⏎⏎"),
         ("\u202e", "⟨U+202E⟩"), ("<b>", "<b>"), (" \t", "⇥"), ("\xa0", "␣")],
    )  # fmt: skip
    def test_marks_what_would_not_show(self, token: str, peak: str) -> None:
        class OneToken(Tokenizer):
            def decode(self, tokens: list[int], **_: object) -> str:
                return "".join([" a", token, " b"][t] for t in tokens)

        example = _only_example(torch.tensor([[0, 1, 2], [0, 1, 2]]), (0, 1), OneToken())
        assert example.peak == peak
        assert (example.before.strip(), example.after) == ("a", " b")

    def test_of_a_part_of_a_character(self) -> None:
        class Bytes(Tokenizer):
            def decode(self, tokens: list[int], **_: object) -> str:
                parts = [b"a", "é".encode()[:1], "é".encode()[1:], b"b"]
                return b"".join(parts[t] for t in tokens).decode(errors="replace")

        rows = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
        assert tuple(_only_example(rows, (0, 1), Bytes())) == ("a", "�", "�b")
        assert tuple(_only_example(rows, (0, 2), Bytes())) == ("a�", "�", "b")
        assert tuple(_only_example(rows, (0, 3), Bytes())) == ("aé", "b", "")


def _only_example(rows: torch.Tensor, place: tuple[int, int], tokenizer: Tokenizer) -> object:
    examples = pd.DataFrame(
        [(0, "top", rank, *place, 1.0) for rank in range(1, 5)],
        columns=["feature", "kind", "rank", "row", "position", "activation"],
    )
    features = pd.DataFrame({"feature": [0], "frequency": [0.1]})
    observed = Observed(features, examples, torch.zeros(0, 0))
    study = create_study(
        [
            RatedDictionary("a", "transcoder", observed),
            RatedDictionary("b", "mlp_in_sae", observed),
        ],
        Text(rows, torch.zeros(0, 2)),
        tokenizer,
        n_features=1,
        seed=0,
    )
    return study.items[0].top[0]


class TestRecord:
    @pytest.mark.parametrize(
        "rater",
        ["", "../anna", "a/b", "..", "a.b", "a" * 41, "anna\n", "anna\0", "änna", "/etc/x", "a b"],
    )
    def test_names_that_are_no_names_are_refused(self, rater: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="rater: expected 1 to 40"):
            begin(make_study(), tmp_path / "ratings", rater)
        assert not (tmp_path / "ratings").exists()

    def test_what_is_written_is_read(self, tmp_path: Path) -> None:
        record = begin(make_study(), tmp_path, "anna")
        rating = Rating(verdict="maybe", context_free=True, note='é "<b>"\n⏎')
        record = record.model_copy(update={"ratings": {30: rating, 4: rating, 11: Rating()}})
        save_record(tmp_path, record)
        assert load_record(tmp_path, "anna") == record
        on_disk = json.loads((tmp_path / "anna.json").read_text())
        assert list(on_disk["ratings"]) == ["4", "11", "30"]
        assert list(on_disk) == [
            "rater", "n_items", "nonce", "commitment", "finished", "ratings"
        ]  # fmt: skip

    def test_damaged_files_are_refused(self, tmp_path: Path) -> None:
        good = begin(make_study(), tmp_path, "anna").model_dump()
        bad = [
            json.dumps(good | {"ratings": {"3": {"verdict": "good"}}}),
            json.dumps(good | {"ratings": {"3": {"feature": 1}}}),
            json.dumps(good | {"finished": "perhaps"}),
        ]
        for text in bad:
            (tmp_path / "anna.json").write_text(text)
            with pytest.raises(UserError, match=r"anna\.json: expected ratings"):
                begin(make_study(), tmp_path, "anna")
            assert (tmp_path / "anna.json").read_text() == text
        with pytest.raises(UserError, match="no such file"):
            load_record(tmp_path, "bob")
