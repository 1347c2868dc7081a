"""A feature that follows a rule gets that rule as its label; one that follows none gets no name."""

import numpy as np
import pytest
import torch

from transcoders.circuits.labels import Label
from transcoders.corpus import Rows
from transcoders.interpretability.activity import tokens_as_texts
from transcoders.interpretability.grammar import Text
from transcoders.interpretability.labelling import NONE, find_label, label_of, split_examples
from transcoders.models import load_tokenizer

WORDS = [
    " the", " of", " in", " one", " each", " University", " cat", " dog", " house", " born",
    " running", " singing", " walking", " reading", " king", " ran", " sang", " Paris", " Rome",
    " un", "seen", "told", " pre", " NATO", " 1", "7", "3", ",", ".", "\n", " a", " it", " was",
]  # fmt: skip
N_ROWS, LENGTH = 120, 40


OFTEN = [*WORDS, *4 * [" of", " one", " 1", "7", "3", " born"]]
DRAWN = np.random.default_rng(0).choice(OFTEN, (N_ROWS, LENGTH - 1)).tolist()
ROWS = [["<s>", *words] for words in DRAWN]
TEXT = Text(ROWS)
DOCUMENT = np.arange(N_ROWS) // 3


def activations(rule):
    """Of a feature that is active, more or less, wherever a rule holds."""
    holds = np.array([[at > 0 and rule(row, at) for at in range(LENGTH)] for row in ROWS])
    return holds * np.random.default_rng(1).uniform(1, 2, holds.shape)


def label(z):
    found = find_label(TEXT, DOCUMENT, z, first_position=1, seed=3)
    return found.text, found.score


def is_second_digit(row, at):
    first, before = row[at - 1], row[at - 2].strip()
    goes_on = row[at] in ("7", "3") and first.strip().isdigit()
    return goes_on and (first.startswith(" ") or not before.isdigit())


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (lambda row, at: row[at] == " University", "“University”"),
        (lambda row, at: row[at - 1] == " one", "what follows “one”"),
        (lambda row, at: at + 1 < LENGTH and row[at + 1] == " of", "what comes before “of”"),
        (lambda row, at: row[at] == " of" and row[at - 1] == " one", "“of” after “one”"),
        (lambda row, at: row[at].strip().isdigit(), "digits"),
        (lambda row, at: row[at].endswith("ing"), "words ending in “-ing”"),
        (lambda row, at: row[at].strip().istitle(), "a capitalised word"),
        (lambda row, at: row[at] == "\n", "a line break"),
        (lambda row, at: row[at] == "seen" and row[at - 1][-1].isalpha(), "“-seen”"),
        (lambda row, at: "." in row[max(at - 4, 1) : at], "up to 4 tokens after “.”"),
        (lambda row, at: row[at] == "7" and row[at - 1].strip().isdigit(), "“7” after digits"),
        (is_second_digit, "digits after a number’s first digit"),
        (lambda row, at: row[at] == " cat" and " born" in row[max(at - 16, 1) : at],
         "“cat” up to 16 tokens after “born”"),
    ],
)  # fmt: skip
def test_a_rule_of_the_grammar_is_found_and_said_in_english(rule, text):
    found, score = label(activations(rule))
    assert found == text
    assert score > 0.95


@pytest.mark.parametrize(
    ("own", "before"), [([" singing", " king", " house"], []), ([" one", " of"], [" born", " of"])]
)
def test_a_small_set_of_words_and_of_words_before_it_is_found(own, before):
    text, score = label(
        activations(lambda row, at: row[at] in own and (not before or row[at - 1] in before))
    )
    assert score > 0.8
    assert all(f"“{word.strip()}”" in text for word in own + before)


@pytest.mark.parametrize("share", [0.02, 0.2])
def test_random_activity_is_not_predicted_and_has_no_name(share):
    scores = []
    for seed in range(5):
        random = np.random.default_rng(seed)
        z = random.uniform(1, 2, (N_ROWS, LENGTH)) * (random.random((N_ROWS, LENGTH)) < share)
        text, score = label(z)
        assert not Label(text, score, "", ()).is_trusted
        scores.append(score)
    assert abs(np.mean(scores) - 0.5) < 0.08


@pytest.mark.parametrize(("share", "trusted"), [(0.2, False), (0.9, True)])
def test_naming_a_token_is_not_enough_where_the_feature_is_mostly_silent_on_it(share, trusted):
    luck = np.random.default_rng(4).random((N_ROWS, LENGTH)) < share
    z = activations(lambda row, at: row[at] == " of") * luck
    text, score = label(z)
    assert ("“of”" in text) or not trusted
    assert (score >= 0.75) == trusted


def test_with_too_few_examples_there_is_no_label():
    in_one_document, always = np.zeros((N_ROWS, LENGTH)), np.ones((N_ROWS, LENGTH))
    in_one_document[:3, 5] = 1
    for z in (in_one_document, always):
        assert find_label(TEXT, DOCUMENT, z, first_position=1, seed=0) == NONE


def test_halves_share_no_document_and_hold_what_they_say():
    z = activations(lambda row, at: row[at] == " of")
    z[:, 0] = 9.0  # BOS, which no dictionary saw
    halves = split_examples(TEXT, DOCUMENT, z, 1, 0)
    assert not set.intersection(*(set(DOCUMENT[half.places[:, 0]]) for half in halves))
    active = z[:, 1:][z[:, 1:] > 0]
    n_positives = sum(half.positive.sum() for half in halves)
    assert n_positives == max(40, len(active) // 10)
    for half in halves:
        values = z[tuple(half.places.T)]
        assert (half.places[:, 1] > 0).all()
        assert (values[half.positive] >= np.sort(active)[-n_positives]).all()
        assert (values[~half.positive] == 0).all()
        # Balanced accuracy in plain words, for a rule that holds at even positions.
        holds = half.places[:, 1] % 2 == 0
        sensitivity = holds[half.positive].mean()
        specificity = [1 - holds[half.weights[:, k] > 0].mean() for k in range(1, 7)]
        assert half.scores(holds[None])[0] == pytest.approx((sensitivity + min(specificity)) / 2)


def test_examples_end_at_the_largest_peaks_of_different_rows_and_never_at_bos(tiny_models):
    tokenizer = load_tokenizer(tiny_models["llama"])
    tokens = torch.tensor([[0, 7, 8, 9, 10], [0, 11, 12, 13, 14], [0, 15, 16, 17, 18]])
    rows, text = Rows(tokens, torch.zeros(3)), Text(tokens_as_texts(tokenizer, tokens))
    z = np.array([[9.0, 0, 1, 0, 0], [0, 2, 4, 5, 0], [0, 0, 0, 0, 0]])
    found = label_of(tokenizer, rows, text, z, first_position=0, seed=0)
    assert found.examples == (tokenizer.decode([11, 12, 13]), tokenizer.decode([7, 8]))
