"""An MLP's output as a sum of units: against plain hooks on the whole model, all cases alike."""

import pytest
import torch

from helpers_circuits import plain, watched, without_weight
from helpers_greater_than import TRAP_TEMPLATES, metrics_with, only, trap_tokenizer
from transcoders.errors import UserError
from transcoders.greater_than.task import Numbers, make_prompts
from transcoders.greater_than.units import ChosenMLP

LAYER = 1
N_NEURONS = 128
# The metric is from -1 to 1; in fp32 and in another order of summation.
ROUNDING = 2e-5


def some_years(setting):
    """Fewer prompts of two templates, of different years."""
    first, second = setting.prompts
    prompts = [only(first, range(0, 100, 9)), only(second, range(5, 100, 13))]
    return setting._replace(prompts=prompts)


@pytest.fixture(scope="module")
def dictionaries(random_dictionary):
    """A third of the features are dead."""
    kinds = enumerate(("transcoder", "mlp_out_sae"), start=1)
    made = {kind: random_dictionary(kind, n_features=40, seed=seed) for seed, kind in kinds}
    for dictionary in made.values():
        dictionary.b_enc[::3] = -100
    return made


def chosen(setting, dictionaries, first):
    return ChosenMLP(
        setting.model, setting.numbers, setting.prompts, LAYER, dictionaries, first_position=first
    )


def assert_same(found, expected, tolerance=ROUNDING):
    """Equal where there is a number, and none where there is none."""
    assert found.shape == expected.shape
    assert torch.equal(found.isnan(), expected.isnan())
    assert (found - expected).nan_to_num().abs().max().item() <= tolerance


def with_features(dictionary, kept):
    """A dictionary in the MLP's place, some features kept."""
    of_input = dictionary.kind == "transcoder"

    def inside(mlp_in, mlp_out):
        z = dictionary.encode(mlp_in if of_input else mlp_out)
        outputs = [z[..., unit, None] * dictionary.W_dec[unit] for unit in kept.tolist()]
        return sum(outputs, torch.zeros(())) + dictionary.b_dec.expand_as(mlp_out)

    return inside


def metrics_with_neurons(setting, kept, first):
    """The metric with the other neurons set to zero from some position on, whole prompts run."""
    # All prompts are equally long.
    start = setting.prompts[0].rows.shape[1] - 1 if first is None else first
    gone = torch.ones(N_NEURONS, dtype=torch.bool)
    gone[kept] = False

    def hook(_, arguments):
        changed = arguments[0].clone()
        changed[:, start:, gone] = 0
        return (changed,)

    mlp = plain(setting.model).blocks[LAYER].mlp
    names = {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h", "llama": "down_proj"}
    with getattr(mlp, names[setting.hf.config.model_type]).register_forward_pre_hook(hook):
        return metrics_with(setting, LAYER, None, None)


@pytest.mark.parametrize("first", [None, 3])
def test_some_units_are_kept_and_the_others_set_to_zero(any_setting, dictionaries, first):
    setting = some_years(any_setting)
    mlp = chosen(setting, dictionaries, first)
    for kind, dictionary in dictionaries.items():
        for kept in (mlp.ranking(kind)[:3], torch.tensor([1, 0, 17, 25])):
            expected = metrics_with(setting, LAYER, with_features(dictionary, kept), first)
            assert_same(mlp.metrics(kind, kept), expected)
    for kept in (mlp.ranking("neurons")[:9], torch.tensor([127, 5, 64])):
        expected = metrics_with_neurons(setting, kept, first)
        assert_same(mlp.metrics("neurons", kept), expected)
    assert_same(mlp.metrics("neurons", torch.arange(N_NEURONS)), mlp.metrics())


@torch.no_grad()
def at_last_by_hand(setting, dictionary):
    """(template, 100, feature) of a transcoder, from the MLP's input at each prompt's end."""
    result = torch.zeros(2, 100, dictionary.n_features)
    block = plain(setting.model).blocks[LAYER]
    for group in setting.prompts:
        with watched([block.norm_2]) as seen:
            setting.hf(input_ids=group.rows, use_cache=False)
        read = without_weight(block.norm_2, seen[block.norm_2][0])
        result[group.template, group.years] = dictionary.encode(read[:, -1])
    return result


@pytest.mark.parametrize("first", [None, 2])
def test_prompts_of_unequal_length_are_all_measured(settings, dictionaries, first):
    tokenizer = trap_tokenizer()  # makes the prompt of the year 1700 shorter
    setting = settings["gpt2"]._replace(
        numbers=Numbers.of(tokenizer), prompts=make_prompts(TRAP_TEMPLATES, tokenizer, 0)
    )
    assert len({group.rows.shape[1] for group in setting.prompts}) > 1
    mlp = chosen(setting, dictionaries, first)
    assert not mlp.metrics().isnan().any()
    assert_same(mlp.metrics(), metrics_with(setting, LAYER, None, first))
    transcoder, ranking = dictionaries["transcoder"], mlp.ranking("transcoder")
    expected = metrics_with(setting, LAYER, with_features(transcoder, ranking[:5]), first)
    assert_same(mlp.metrics("transcoder", ranking[:5]), expected)
    at_last = mlp.at_last("transcoder")
    assert_same(at_last, at_last_by_hand(setting, transcoder), 1e-4)
    # By variance within templates, averaged; equal ones stay in order.
    variances = [sum(of.var().item() for of in unit) for unit in at_last.permute(2, 0, 1)]
    assert ranking.tolist() == sorted(range(40), key=lambda unit: -variances[unit])


def test_neurons_of_other_families_make_up_the_mlp_or_are_refused(other_setting):
    if other_setting.hf.config.model_type == "gemma2":
        with pytest.raises(UserError, match="found a norm after the MLP"):
            chosen(other_setting, {}, None)
        return
    for first in (None, 1):
        mlp = chosen(other_setting, {}, first)
        assert_same(mlp.metrics("neurons", torch.arange(N_NEURONS)), mlp.metrics())
        without = mlp.metrics("neurons", torch.arange(0))
        assert (without - mlp.metrics()).abs().max() > 1e-3
