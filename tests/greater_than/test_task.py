"""Prompts, numbers as tokenizers write them, and the metric: all of it worked out by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from helpers_greater_than import (
    TEMPLATES,
    TRAP_TEMPLATES,
    Setting,
    dummy_prefix_tokenizer,
    metric_by_hand,
    prompts_of,
    sign,
    trap_tokenizer,
    word_tokenizer,
)
from transcoders.errors import UserError
from transcoders.greater_than.task import (
    AVERAGED_YEARS,
    PLACEHOLDER,
    Numbers,
    Prompts,
    make_prompts,
    metric,
)

PAIRS = Numbers(torch.arange(100) + 7)
DIGITS = Numbers(torch.arange(10) + 7)
Made = tuple[Any, list[str], list[Prompts]]
"""A tokenizer, templates and their prompts."""
ALL_YEARS = torch.arange(100)
SEEDS = st.integers(0, 2**31)
YEAR = st.integers(0, 99)


def distributions(seed: int, rows: int = 1) -> Tensor:
    """Probabilities of 100 continuations, some of them large."""
    logits = torch.randn(rows, 100, generator=torch.Generator().manual_seed(seed)) * 3
    return logits.double().softmax(dim=1)


def one(probabilities: Tensor, year: int) -> float:
    return metric(probabilities, torch.tensor([year])).item()


@pytest.mark.parametrize("year", [0, 1, 49, 97, 98])
def test_certainty_of_the_next_year_is_one_and_of_the_same_year_minus_one(year: int) -> None:
    certain = torch.eye(100)
    assert one(certain[year + 1][None], year) == 1
    assert one(certain[year][None], year) == -1


def test_of_a_uniform_guess_the_metric_counts_years() -> None:
    # Later than YY are 99 - YY years, the other YY + 1 are not.
    found = metric(torch.full((100, 100), 0.01), ALL_YEARS)
    assert found.tolist() == pytest.approx([(98 - 2 * year) / 100 for year in range(100)], abs=1e-6)


def test_a_metric_worked_by_hand() -> None:
    p = torch.zeros(3, 100)
    p[:, 31], p[:, 32], p[:, 33], p[:, 99] = 0.1, 0.2, 0.3, 0.4
    found = metric(p, torch.tensor([31, 32, 33]))
    assert found.tolist() == pytest.approx([0.9 - 0.1, 0.7 - 0.3, 0.4 - 0.6])


@given(SEEDS)
def test_the_metric_is_a_sum_over_continuations(seed: int) -> None:
    p = distributions(seed, 100)
    expected = [metric_by_hand(row, year) for year, row in enumerate(p)]
    assert metric(p, ALL_YEARS).tolist() == pytest.approx(expected)


@given(SEEDS, YEAR)
def test_what_happens_among_later_or_among_other_years_does_not_matter(
    seed: int, year: int
) -> None:
    p = distributions(seed)
    generator = torch.Generator().manual_seed(seed)
    other = torch.randperm(year + 1, generator=generator)
    later = year + 1 + torch.randperm(99 - year, generator=generator)
    shuffled = p[:, torch.cat([other, later])]
    assert one(shuffled, year) == pytest.approx(one(p, year), abs=1e-12)


@given(SEEDS, st.integers(0, 98))
def test_read_backwards_the_metric_changes_sign(seed: int, year: int) -> None:
    p = distributions(seed)
    assert one(p.flip(1), 98 - year) == pytest.approx(-one(p, year), abs=1e-12)


@given(SEEDS)
def test_a_later_year_is_harder_to_exceed(seed: int) -> None:
    p = distributions(seed).expand(100, -1)
    found = metric(p, ALL_YEARS)
    assert (found.diff() <= 0).all()
    assert found[99].item() == pytest.approx(-1)


def test_the_mean_leaves_out_the_first_and_the_last_year() -> None:
    assert ALL_YEARS[AVERAGED_YEARS].tolist() == list(range(1, 99))


@pytest.mark.parametrize(
    ("architecture", "style", "n_alternatives"),
    [("gpt2", "pairs", 0), ("gpt_neox", "pairs", 0), ("llama", "digits", 10)],
)
def test_a_tokenizers_numbers_are_found(
    settings: dict[str, Setting], architecture: str, style: str, n_alternatives: int
) -> None:
    setting = settings[architecture]
    assert setting.numbers.style == style
    assert setting.numbers.n_alternatives == n_alternatives
    texts = [setting.tokenizer.decode([token]) for token in setting.numbers.ids.tolist()]
    width = 2 if style == "pairs" else 1
    assert texts == [f"{number:0{width}d}" for number in range(10**width)]


def test_pairs_of_digits_are_found_where_single_digits_are_tokens_too() -> None:
    tokenizer = trap_tokenizer()
    numbers = Numbers.of(tokenizer)
    assert numbers.style == "pairs"
    assert numbers.ids.tolist() == [
        tokenizer.convert_tokens_to_ids(f"{number:02d}") for number in range(100)
    ]


def test_a_space_that_a_tokenizer_puts_before_the_first_word_is_no_digit() -> None:
    tokenizer = dummy_prefix_tokenizer()
    assert tokenizer("5")["input_ids"] == tokenizer.convert_tokens_to_ids(["▁", "5"])
    numbers = Numbers.of(tokenizer)
    assert numbers.style == "digits"
    assert numbers.ids.tolist() == [tokenizer.convert_tokens_to_ids(d) for d in "0123456789"]


@pytest.mark.parametrize(
    "tokens",
    [
        [f"w{number}" for number in range(100)],
        [str(digit) for digit in range(9)],  # one is missing
        [f"{number:03d}" for number in range(1000)],
    ],
    ids=["words", "nine digits", "threes"],
)
def test_a_tokenizer_with_neither_pairs_nor_digits_is_refused(tokens: list[str]) -> None:
    with pytest.raises(UserError, match=r"greater_than.*choose another model"):
        Numbers.of(word_tokenizer(tokens))


def test_what_a_year_says_about_the_next_token_is_itself_or_its_tens() -> None:
    years = torch.tensor([0, 9, 10, 47, 99])
    assert PAIRS.read(years).tolist() == [0, 9, 10, 47, 99]
    assert DIGITS.read(years).tolist() == [0, 0, 1, 4, 9]


def test_signs_of_pairs_are_later_or_not() -> None:
    signs = PAIRS.signs(torch.tensor([0, 47, 99]))
    assert signs.tolist() == [[-1.0] + [1.0] * 99, [-1.0] * 48 + [1.0] * 52, [-1.0] * 100]


def test_signs_of_digits_leave_the_years_own_tens_open() -> None:
    signs = DIGITS.signs(torch.tensor([3, 47, 40, 99]))
    assert signs.tolist() == [
        [0.0] + [1.0] * 9,
        [-1.0] * 4 + [0.0] + [1.0] * 5,
        [-1.0] * 4 + [0.0] + [1.0] * 5,
        [-1.0] * 9 + [0.0],
    ]


@pytest.mark.parametrize("numbers", [PAIRS, DIGITS], ids=["pairs", "digits"])
def test_signs_are_those_of_every_year_and_candidate(numbers: Numbers) -> None:
    expected = [
        [sign(numbers, year, candidate) for candidate in range(len(numbers.ids))]
        for year in range(100)
    ]
    assert numbers.signs(ALL_YEARS).tolist() == expected


def test_contrasts_worked_by_hand() -> None:
    # Token of the number n is n + 7.
    pairs = PAIRS.contrast(97)
    assert pairs is not None
    expected = {number + 7: -1 / 98 for number in range(98)} | {98 + 7: 1 / 2, 99 + 7: 1 / 2}
    assert pairs == pytest.approx(expected)
    digits = DIGITS.contrast(72)
    assert digits is not None
    expected = {number + 7: -1 / 7 for number in range(7)} | {8 + 7: 1 / 2, 9 + 7: 1 / 2}
    assert digits == pytest.approx(expected)


@given(st.sampled_from([PAIRS, DIGITS]), YEAR)
def test_contrast_is_a_mean_less_a_mean(numbers: Numbers, year: int) -> None:
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


def test_years_without_a_later_or_an_earlier_token_have_no_contrast() -> None:
    assert [year for year in range(100) if PAIRS.contrast(year) is None] == [99]
    none = [year for year in range(100) if DIGITS.contrast(year) is None]
    assert none == [*range(10), *range(90, 100)]


@pytest.fixture(scope="module", params=["gpt2", "llama", "trap"])
def made(request: pytest.FixtureRequest, settings: dict[str, Setting]) -> Made:
    if request.param == "trap":
        tokenizer = trap_tokenizer()
        return tokenizer, TRAP_TEMPLATES, make_prompts(TRAP_TEMPLATES, tokenizer, 0)
    setting = settings[request.param]
    return setting.tokenizer, TEMPLATES, setting.prompts


def test_every_template_has_every_year_once(made: Made) -> None:
    _, templates, prompts = made
    found = [(group.template, year) for group in prompts for year in group.years.tolist()]
    assert sorted(found) == [(t, year) for t in range(len(templates)) for year in range(100)]


def test_rows_are_bos_and_the_prompts_text(made: Made) -> None:
    tokenizer, templates, prompts = made
    for group in prompts:
        for row, year in zip(group.rows.tolist(), group.years.tolist(), strict=True):
            text = templates[group.template].replace("{YY}", f"{year:02d}")
            assert row == [0, *tokenizer(text, add_special_tokens=False)["input_ids"]]


def test_a_prompts_last_token_is_the_century_to_be_completed(
    made: Made,
) -> None:
    tokenizer, _, prompts = made
    for group in prompts:
        ends = {tokenizer.decode(row[-2:]).replace(" ", "")[-2:] for row in group.rows.tolist()}
        assert ends == {"17"}


def test_the_year_token_is_the_first_that_tells_the_year(
    made: Made,
) -> None:
    tokenizer, _, prompts = made
    for group in prompts:
        for row, year in zip(group.rows.tolist(), group.years.tolist(), strict=True):
            text = tokenizer.decode([row[group.year_token]]).strip()
            assert text in (f"{year:02d}", str(year // 10), "1700")
            # All before it is the same for all years of the group.
            assert row[: group.year_token] == group.rows[0, : group.year_token].tolist()
        columns = [len(set(group.rows[:, at].tolist())) for at in range(group.rows.shape[1])]
        if len(group.years) == 100:
            assert columns[group.year_token] > 1


def test_a_round_year_that_is_one_token_is_alone_in_a_shorter_prompt() -> None:
    tokenizer = trap_tokenizer()
    alone, others = make_prompts(TRAP_TEMPLATES[:1], tokenizer, 0)
    assert alone.years.tolist() == [0]
    assert others.years.tolist() == list(range(1, 100))
    assert alone.rows.shape[1] == others.rows.shape[1] - 1
    assert tokenizer.decode([alone.rows[0, alone.year_token]]) == " 1700"
    texts = [tokenizer.decode([token]) for token in others.rows[:, others.year_token].tolist()]
    assert texts == [f"{year:02d}" for year in range(1, 100)]


def test_templates_of_equal_length_stay_apart(tiny_models: dict[str, Path]) -> None:
    _, prompts = prompts_of(tiny_models["gpt2"], ["w1 17{YY} w2 17", "w3 17{YY} w4 17"])
    assert [group.template for group in prompts] == [0, 1]
    assert not torch.equal(prompts[0].rows, prompts[1].rows)
    assert prompts[0].year_token == prompts[1].year_token == 3


def test_the_first_of_two_digits_is_the_year_token(settings: dict[str, Setting]) -> None:
    setting = settings["llama"]
    for group in setting.prompts:
        tens = [setting.tokenizer.decode([i]) for i in group.rows[:, group.year_token].tolist()]
        units = [setting.tokenizer.decode([i]) for i in group.rows[:, group.year_token + 1]]
        assert [a + b for a, b in zip(tens, units, strict=True)] == [
            f"{year:02d}" for year in range(100)
        ]


def test_a_template_that_begins_with_the_year_is_read_from_its_first_token() -> None:
    tokenizer = word_tokenizer([f"{number:02d}" for number in range(100)], r"^\d\d")
    [group] = make_prompts([f"{PLACEHOLDER} 17"], tokenizer, 0)
    assert group.year_token == 1
    assert group.rows[:, 1].tolist() == Numbers.of(tokenizer).ids.tolist()


def test_a_tokenizer_that_drops_digits_is_refused_like_one_without_them() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    )
    assert tokenizer("3", add_special_tokens=False)["input_ids"] == []
    with pytest.raises(UserError, match="greater_than: expected a tokenizer with a token for"):
        Numbers.of(tokenizer)
