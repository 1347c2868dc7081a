"""An MLP's output as a sum of units: against plain hooks on the whole model, all cases alike."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers_circuits import Make, centred, hooks_of_ours, plain, watched, without_weight
from helpers_greater_than import (
    TRAP_TEMPLATES,
    Inside,
    Setting,
    hooked,
    metric_by_hand,
    metrics_with,
    neurons_out,
    only,
    probabilities_by_hand,
    trap_tokenizer,
)
from transcoders.dictionaries import SparseDictionary
from transcoders.errors import UserError
from transcoders.greater_than.answers import Answers
from transcoders.greater_than.task import Numbers, make_prompts
from transcoders.greater_than.units import ChosenMLP, UnitKind
from transcoders.models import interventions, mlp_output

LAYER = 1
N_FEATURES = 40
N_NEURONS = 128
FIRST_POSITIONS = [None, 1, 3, 0]
# The metric is from -1 to 1; in fp32 and in another order of summation.
ROUNDING = 2e-5


def some_years(setting: Setting) -> Setting:
    """Fewer prompts of two templates, of different years."""
    first, second = setting.prompts
    prompts = [only(first, range(0, 100, 9)), only(second, range(5, 100, 13))]
    return setting._replace(prompts=prompts)


def trap_setting(settings: dict[str, Setting]) -> Setting:
    """GPT-2 with a tokenizer that makes the prompt of the year 1700 shorter."""
    tokenizer = trap_tokenizer()
    prompts = make_prompts(TRAP_TEMPLATES, tokenizer, 0)
    return settings["gpt2"]._replace(
        tokenizer=tokenizer, numbers=Numbers.of(tokenizer), prompts=prompts
    )


@pytest.fixture(scope="module")
def dictionaries(random_dictionary: Make) -> dict[UnitKind, SparseDictionary]:
    """A third of the features are dead."""
    made: dict[UnitKind, SparseDictionary] = {
        "transcoder": random_dictionary("transcoder", n_features=N_FEATURES, seed=1),
        "mlp_out_sae": random_dictionary("mlp_out_sae", n_features=N_FEATURES, seed=2),
    }
    for dictionary in made.values():
        dictionary.b_enc[::3] = -100
    return made


def chosen(
    setting: Setting, dictionaries: dict[UnitKind, SparseDictionary], first: int | None
) -> ChosenMLP:
    return ChosenMLP(
        setting.model, setting.numbers, setting.prompts, LAYER, dictionaries, first_position=first
    )


def assert_same(found: Tensor, expected: Tensor, tolerance: float = ROUNDING) -> None:
    """Equal where there is a number, and none where there is none."""
    assert found.shape == expected.shape
    assert torch.equal(found.isnan(), expected.isnan())
    assert (found - expected).nan_to_num().abs().max().item() <= tolerance


def with_features(dictionary: SparseDictionary, kept: Tensor) -> Inside:
    """A dictionary in the MLP's place, some features kept."""
    of_input = dictionary.kind == "transcoder"

    def inside(mlp_in: Tensor, mlp_out: Tensor) -> Tensor:
        z = dictionary.encode(mlp_in if of_input else mlp_out)
        outputs = [z[..., unit, None] * dictionary.W_dec[unit] for unit in kept.tolist()]
        return sum(outputs, torch.zeros(())) + dictionary.b_dec.expand_as(mlp_out)

    return inside


def metrics_with_neurons(setting: Setting, kept: Tensor, first: int | None) -> Tensor:
    """The metric with the other neurons set to zero from some position on, whole prompts run."""
    result = torch.full((2, 100), torch.nan)
    for group in setting.prompts:
        start = group.rows.shape[1] - 1 if first is None else first

        def hook(_: nn.Module, arguments: tuple[Tensor], start: int = start) -> tuple[Tensor]:
            changed = arguments[0].clone()
            gone = torch.ones(N_NEURONS, dtype=torch.bool)
            gone[kept] = False
            changed[:, start:, gone] = 0
            return (changed,)

        with hooked(neurons_out(setting, LAYER).register_forward_pre_hook(hook)):
            found = metrics_with(setting._replace(prompts=[group]), LAYER, None, None)
        result[group.template, group.years] = found[group.template, group.years]
    return result


@pytest.mark.parametrize("first", FIRST_POSITIONS)
def test_all_units_of_a_dictionary_are_the_dictionary_in_the_mlps_place(
    any_setting: Setting, dictionaries: dict[UnitKind, SparseDictionary], first: int | None
) -> None:
    setting = some_years(any_setting)
    mlp = chosen(setting, dictionaries, first)
    original = mlp.metrics()
    for kind, dictionary in dictionaries.items():

        def spliced(mlp_in: Tensor, mlp_out: Tensor, it: SparseDictionary = dictionary) -> Tensor:
            return it.decode(it.encode(mlp_in if it.kind == "transcoder" else mlp_out))

        found = mlp.with_kept(kind, torch.arange(N_FEATURES))
        assert_same(found, metrics_with(setting, LAYER, spliced, first))
        assert (found - original).nan_to_num().abs().max() > 1e-3


@pytest.mark.parametrize("first", [None, 3])
def test_some_units_are_kept_and_the_others_set_to_zero(
    any_setting: Setting, dictionaries: dict[UnitKind, SparseDictionary], first: int | None
) -> None:
    setting = some_years(any_setting)
    mlp = chosen(setting, dictionaries, first)
    for kind, dictionary in dictionaries.items():
        for kept in (mlp.ranking(kind)[:3], torch.tensor([1, 0, 17, 25])):
            expected = metrics_with(setting, LAYER, with_features(dictionary, kept), first)
            assert_same(mlp.with_kept(kind, kept), expected)
    for kept in (mlp.ranking("neurons")[:9], torch.tensor([127, 5, 64])):
        expected = metrics_with_neurons(setting, kept, first)
        assert_same(mlp.with_kept("neurons", kept), expected)


@pytest.mark.parametrize("first", [None, 3])
def test_with_no_units_the_constant_stays(
    any_setting: Setting, dictionaries: dict[UnitKind, SparseDictionary], first: int | None
) -> None:
    setting = some_years(any_setting)
    mlp = chosen(setting, dictionaries, first)
    nothing = torch.arange(0)
    for kind, dictionary in dictionaries.items():
        expected = metrics_with(setting, LAYER, with_features(dictionary, nothing), first)
        assert_same(mlp.with_kept(kind, nothing), expected)
    output = neurons_out(setting, LAYER)
    bias = torch.zeros(32) if output.bias is None else output.bias
    assert bias.any() == (setting.architecture != "llama")
    expected = metrics_with(setting, LAYER, lambda _, out: bias.expand_as(out), first)
    assert_same(mlp.with_kept("neurons", nothing), expected)


@pytest.mark.parametrize("first", FIRST_POSITIONS)
def test_all_neurons_are_the_model_as_it_is(any_setting: Setting, first: int | None) -> None:
    mlp = chosen(any_setting, {}, first)
    assert list(mlp.units) == ["neurons"]
    assert mlp.units["neurons"].n_units == N_NEURONS
    assert_same(mlp.with_kept("neurons", torch.arange(N_NEURONS)), mlp.metrics())


def test_the_metric_of_the_model_as_it_is(any_setting: Setting) -> None:
    found = chosen(any_setting, {}, None).metrics()
    for group in any_setting.prompts:
        p = probabilities_by_hand(any_setting.hf, any_setting.numbers, group.rows)
        years = group.years.tolist()
        expected = [metric_by_hand(row, year) for row, year in zip(p, years, strict=True)]
        assert_same(found[group.template, years], torch.tensor(expected))


def test_the_order_of_units_does_not_matter(
    setting: Setting, dictionaries: dict[UnitKind, SparseDictionary]
) -> None:
    mlp = chosen(some_years(setting), dictionaries, None)
    kept = torch.tensor([1, 4, 5, 8, 10])
    assert_same(mlp.with_kept("transcoder", kept.flip(0)), mlp.with_kept("transcoder", kept))


def test_units_write_their_activations_times_their_vectors(
    setting: Setting, dictionaries: dict[UnitKind, SparseDictionary]
) -> None:
    mlp = chosen(some_years(setting), dictionaries, None)
    for units in mlp.units.values():
        for group, z in enumerate(units.activations):
            whole = units.output(group, torch.arange(units.n_units))
            expected = torch.einsum("pnu,ud->pnd", z, units.W_dec) + units.bias
            assert_same(whole, expected, 1e-4)
            for kept in (torch.tensor([1]), torch.tensor([4, 1])):
                part = sum(z[..., [u]] * units.W_dec[u] for u in kept.tolist())
                assert_same(units.output(group, kept), part + units.bias, 1e-4)


@torch.no_grad()
def at_last_by_hand(setting: Setting, dictionary: SparseDictionary) -> Tensor:
    """(template, 100, feature) from the MLP's input and output at the end of whole prompts."""
    result = torch.zeros(2, 100, dictionary.n_features)
    block = plain(setting.model).blocks[LAYER]
    for group in setting.prompts:
        with watched([block.norm_2, block.mlp]) as seen:
            setting.hf(input_ids=group.rows, use_cache=False)
        if dictionary.kind == "transcoder":
            read = without_weight(block.norm_2, seen[block.norm_2][0])
        else:
            read = centred(block.norm_2, seen[block.mlp][1])
        result[group.template, group.years] = dictionary.encode(read[:, -1])
    return result


def ranked_by_hand(at_last: Tensor) -> list[int]:
    """By variance within templates, averaged; of equal ones the first first."""
    variances = [
        sum(column.var(dim=0).item() for column in at_last[:, :, unit]) / len(at_last)
        for unit in range(at_last.shape[2])
    ]
    return sorted(range(len(variances)), key=lambda unit: -variances[unit])


@pytest.mark.parametrize("first", FIRST_POSITIONS)
def test_activations_at_the_last_position(
    any_setting: Setting, dictionaries: dict[UnitKind, SparseDictionary], first: int | None
) -> None:
    mlp = chosen(any_setting, dictionaries, first)
    for kind, dictionary in dictionaries.items():
        assert_same(mlp.at_last(kind), at_last_by_hand(any_setting, dictionary), 1e-4)


@pytest.mark.parametrize("first", [None, 1])
def test_units_are_ranked_by_variance_over_years_within_templates(
    any_setting: Setting, dictionaries: dict[UnitKind, SparseDictionary], first: int | None
) -> None:
    mlp = chosen(any_setting, dictionaries, first)
    for kind in dictionaries:
        ranking = mlp.ranking(kind).tolist()
        assert ranking == ranked_by_hand(mlp.at_last(kind))
        # Others would rank otherwise: by variance over all prompts, by mean.
        at_last = mlp.at_last(kind)
        assert ranking != at_last.flatten(0, 1).var(dim=0).argsort(descending=True).tolist()
        assert ranking != at_last.mean(dim=(0, 1)).argsort(descending=True).tolist()


def test_units_that_never_vary_come_last_in_their_order(
    setting: Setting, dictionaries: dict[UnitKind, SparseDictionary]
) -> None:
    mlp = chosen(setting, dictionaries, None)
    for kind in dictionaries:
        varies = mlp.at_last(kind).var(dim=1).mean(dim=0) > 0
        constant = [unit for unit in range(N_FEATURES) if not varies[unit]]
        assert set(range(0, N_FEATURES, 3)) <= set(constant)
        assert mlp.ranking(kind)[-len(constant) :].tolist() == constant


@torch.no_grad()
def test_neurons_are_what_the_output_map_reads(setting: Setting) -> None:
    mlp = chosen(setting, {}, None)
    output = neurons_out(setting, LAYER)
    for group in setting.prompts:
        with watched([output]) as seen:
            setting.hf(input_ids=group.rows, use_cache=False)
        found = mlp.at_last("neurons")[group.template, group.years]
        assert_same(found, seen[output][0][:, -1], 1e-4)
    W_dec = output.weight if setting.architecture == "gpt2" else output.weight.T
    norm = plain(setting.model).blocks[LAYER].norm_2
    assert_same(mlp.units["neurons"].W_dec, centred(norm, W_dec), 1e-6)


@pytest.mark.parametrize("first", [None, 2])
def test_prompts_of_unequal_length_are_all_measured(
    settings: dict[str, Setting],
    dictionaries: dict[UnitKind, SparseDictionary],
    first: int | None,
) -> None:
    setting = trap_setting(settings)
    assert len({group.rows.shape[1] for group in setting.prompts}) > 1
    mlp = chosen(setting, dictionaries, first)
    assert not mlp.metrics().isnan().any()
    assert_same(mlp.metrics(), metrics_with(setting, LAYER, None, first))
    kept = mlp.ranking("transcoder")[:5]
    inside = with_features(dictionaries["transcoder"], kept)
    expected = metrics_with(setting, LAYER, inside, first)
    assert_same(mlp.with_kept("transcoder", kept), expected)
    by_hand = at_last_by_hand(setting, dictionaries["transcoder"])
    assert_same(mlp.at_last("transcoder"), by_hand, 1e-4)
    assert mlp.ranking("transcoder").tolist() == ranked_by_hand(mlp.at_last("transcoder"))


def test_measuring_leaves_no_hooks_and_changes_nothing(
    any_setting: Setting, dictionaries: dict[UnitKind, SparseDictionary]
) -> None:
    mlp = chosen(some_years(any_setting), dictionaries, None)
    before = mlp.metrics()
    first = mlp.with_kept("transcoder", torch.arange(3))
    mlp.with_kept("neurons", torch.arange(0))
    assert hooks_of_ours(any_setting.model) == []
    assert_same(mlp.metrics(), before, 0)
    assert_same(mlp.with_kept("transcoder", torch.arange(3)), first, 0)


class PlannedError(Exception):
    pass


def test_no_hooks_are_left_when_something_fails_inside(
    settings: dict[str, Setting],
    dictionaries: dict[UnitKind, SparseDictionary],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = some_years(settings["llama"])
    mlp = chosen(setting, dictionaries, None)

    def fail(*_: Any) -> None:
        raise PlannedError

    with monkeypatch.context() as patched:
        patched.setattr(Answers, "next_logits", fail)
        with pytest.raises(PlannedError):
            mlp.with_kept("transcoder", torch.arange(3))
        with pytest.raises(PlannedError):
            chosen(setting, dictionaries, None)
    assert hooks_of_ours(setting.model) == []
    with interventions(setting.model, {mlp_output(2): fail}, (1, 1)):
        with pytest.raises(PlannedError):
            mlp.with_kept("transcoder", torch.arange(3))
        with pytest.raises(PlannedError):
            chosen(setting, dictionaries, None)
    assert hooks_of_ours(setting.model) == []


def test_neurons_of_other_families_make_up_the_mlp_or_are_refused(other_setting: Setting) -> None:
    if other_setting.architecture == "gemma2":
        with pytest.raises(UserError, match="found a norm after the MLP"):
            chosen(other_setting, {}, None)
        return
    for first in (None, 1):
        mlp = chosen(other_setting, {}, first)
        assert_same(mlp.with_kept("neurons", torch.arange(N_NEURONS)), mlp.metrics())
        without = mlp.with_kept("neurons", torch.arange(0))
        assert (without - mlp.metrics()).abs().max() > 1e-3
