"""Prompts, numbers as tokenizers write them, and the metric: all of it worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from helpers_greater_than import TEMPLATES, TRAP_TEMPLATES, metric_by_hand, sign, trap_tokenizer
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


def characters(*texts):
    """A tokenizer without merges; what it does not know, it drops."""
    vocabulary = {text: number for number, text in enumerate(texts)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE(vocabulary, [])))


def test_a_space_that_a_tokenizer_puts_before_the_first_word_is_no_digit():
    # Like Llama's.
    tokenizer = characters("▁", *"0123456789")
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.backend_tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    assert tokenizer("5")["input_ids"] == tokenizer.convert_tokens_to_ids(["▁", "5"])
    numbers = Numbers.of(tokenizer)
    assert numbers.style == "digits"
    assert numbers.ids.tolist() == [tokenizer.convert_tokens_to_ids(d) for d in "0123456789"]


@pytest.mark.parametrize("known", ["ab", "012345678"])
def test_a_tokenizer_with_neither_pairs_nor_digits_is_refused(known):
    with pytest.raises(UserError, match=r"greater_than: expected a tok.*choose another model"):
        Numbers.of(characters(*known))


@given(st.sampled_from([PAIRS, DIGITS]), st.integers(0, 99))
def test_contrast_is_a_mean_less_a_mean(numbers, year):
    signs = [sign(numbers, year, candidate) for candidate in range(len(numbers.ids))]
    weights = numbers.contrast(year)
    if weights is None:
        assert 1 not in signs or -1 not in signs
        return
    expected = {7 + c: s / signs.count(s) for c, s in enumerate(signs) if s}
    assert weights == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module", params=["gpt2", "llama", "trap"])
def made(request, settings):
    if request.param == "trap":
        tokenizer = trap_tokenizer()
        return tokenizer, TRAP_TEMPLATES, make_prompts(TRAP_TEMPLATES, tokenizer, 0)
    setting = settings[request.param]
    return setting.tokenizer, TEMPLATES, setting.prompts


def test_rows_are_bos_and_the_prompts_text_and_the_year_token_is_the_first_that_tells_it(made):
    tokenizer, templates, prompts = made
    # A round year that is one token is alone in a shorter prompt.
    sizes = [len(group.years) for group in prompts]
    assert sizes == ([1, 99] * 2 if templates is TRAP_TEMPLATES else [100, 100])
    for group in prompts:
        for row, year in zip(group.rows.tolist(), group.years.tolist(), strict=True):
            text = templates[group.template].replace("{YY}", f"{year:02d}")
            assert row == [0, *tokenizer(text, add_special_tokens=False)["input_ids"]]
            token = tokenizer.decode([row[group.year_token]]).strip()
            assert token in (f"{year:02d}", str(year // 10), "1700")
            # All before it is the same for all years of the group.
            assert row[: group.year_token] == group.rows[0, : group.year_token].tolist()
