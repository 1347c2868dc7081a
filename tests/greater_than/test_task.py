"""Prompts, numbers as tokenizers write them, and the metric: all of it worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from helpers_greater_than import (
    TEMPLATES,
    TRAP_TEMPLATES,
    dummy_prefix_tokenizer,
    metric_by_hand,
    sign,
    trap_tokenizer,
    word_tokenizer,
)
from transcoders.errors import UserError
from transcoders.greater_than.task import Numbers, make_prompts, metric

PAIRS = Numbers(torch.arange(100) + 7)
DIGITS = Numbers(torch.arange(10) + 7)


@given(st.integers(0, 2**31))
def test_the_metric_is_a_sum_over_continuations(seed):
    logits = torch.randn(100, 100, generator=torch.Generator().manual_seed(seed)) * 3
    p = logits.double().softmax(dim=1)
    expected = [metric_by_hand(row, year) for year, row in enumerate(p)]
    assert metric(p, torch.arange(100)).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("architecture", "style"), [("gpt2", "pairs"), ("llama", "digits")])
def test_a_tokenizers_numbers_are_found(settings, architecture, style):
    setting = settings[architecture]
    assert setting.numbers.style == style
    texts = [setting.tokenizer.decode([token]) for token in setting.numbers.ids.tolist()]
    width = 2 if style == "pairs" else 1
    assert texts == [f"{number:0{width}d}" for number in range(10**width)]


def test_a_space_that_a_tokenizer_puts_before_the_first_word_is_no_digit():
    tokenizer = dummy_prefix_tokenizer()
    assert tokenizer("5")["input_ids"] == tokenizer.convert_tokens_to_ids(["▁", "5"])
    numbers = Numbers.of(tokenizer)
    assert numbers.style == "digits"
    assert numbers.ids.tolist() == [tokenizer.convert_tokens_to_ids(d) for d in "0123456789"]


@pytest.mark.parametrize(
    "tokenizer",
    [
        word_tokenizer([f"w{number}" for number in range(100)]),
        word_tokenizer([str(digit) for digit in range(9)]),  # one is missing
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, []))),
    ],
    ids=["words", "nine digits", "drops digits"],
)
def test_a_tokenizer_with_neither_pairs_nor_digits_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"greater_than: expected a tok.*choose another model"):
        Numbers.of(tokenizer)


@given(st.sampled_from([PAIRS, DIGITS]), st.integers(0, 99))
def test_contrast_is_a_mean_less_a_mean(numbers, year):
    signs = [sign(numbers, year, candidate) for candidate in range(len(numbers.ids))]
    weights = numbers.contrast(year)
    if weights is None:
        assert 1 not in signs or -1 not in signs
        return
    later = [weights[7 + c] for c, s in enumerate(signs) if s == 1]
    other = [weights[7 + c] for c, s in enumerate(signs) if s == -1]
    assert sum(later) == pytest.approx(1, abs=1e-6)
    assert sum(other) == pytest.approx(-1, abs=1e-6)
    assert later == pytest.approx([later[0]] * len(later))
    assert other == pytest.approx([other[0]] * len(other))
    assert len(weights) == len(later) + len(other)


@pytest.fixture(scope="module", params=["gpt2", "llama", "trap"])
def made(request, settings):
    if request.param == "trap":
        tokenizer = trap_tokenizer()
        return tokenizer, TRAP_TEMPLATES, make_prompts(TRAP_TEMPLATES, tokenizer, 0)
    setting = settings[request.param]
    return setting.tokenizer, TEMPLATES, setting.prompts


def test_rows_are_bos_and_the_prompts_text_and_the_year_token_is_the_first_that_tells_it(made):
    tokenizer, templates, prompts = made
    for group in prompts:
        for row, year in zip(group.rows.tolist(), group.years.tolist(), strict=True):
            text = templates[group.template].replace("{YY}", f"{year:02d}")
            assert row == [0, *tokenizer(text, add_special_tokens=False)["input_ids"]]
            token = tokenizer.decode([row[group.year_token]]).strip()
            assert token in (f"{year:02d}", str(year // 10), "1700")
            # All before it is the same for all years of the group.
            assert row[: group.year_token] == group.rows[0, : group.year_token].tolist()


def test_a_round_year_that_is_one_token_is_alone_in_a_shorter_prompt():
    tokenizer = trap_tokenizer()
    alone, others = make_prompts(TRAP_TEMPLATES[:1], tokenizer, 0)
    assert alone.years.tolist() == [0]
    assert others.years.tolist() == list(range(1, 100))
    assert alone.rows.shape[1] == others.rows.shape[1] - 1
    assert tokenizer.decode([alone.rows[0, alone.year_token]]) == " 1700"
    texts = [tokenizer.decode([token]) for token in others.rows[:, others.year_token].tolist()]
    assert texts == [f"{year:02d}" for year in range(1, 100)]
