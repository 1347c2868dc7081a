"""Tokenizers with traps, the task done the long way, and a model with a circuit planted in it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from helpers_circuits import plain, replaced_mlps
from transcoders.circuits.replacement import ReplacementModel
from transcoders.dictionaries import SparseDictionary
from transcoders.greater_than.task import Numbers, Prompts, make_prompts
from transcoders.models import LanguageModel, load_model, load_tokenizer, to_bridge

TEMPLATES = ["w1 w2 17{YY} w3 17", "w4 17{YY} w5 w6 17"]
"""For the synthetic tokenizers. In both the year comes before the end; they are equally long."""
TRAP_TEMPLATES = ["from 17{YY} to 17", "it was 17{YY} or 17"]
"""For :func:`trap_tokenizer`."""


class Setting(NamedTuple):
    """A tiny model with the prompts of its tokenizer."""

    model: LanguageModel
    hf: Any
    """The plain Hugging Face model as it is on disk."""
    tokenizer: Any
    numbers: Numbers
    prompts: list[Prompts]


def load_setting(folder: Path, hf: Any = None) -> Setting:
    """The model of a folder, handed over and as it is; ``hf`` for a family without plain blocks."""
    model = load_model(folder)
    hf = plain(model).hf if hf is None else hf
    return Setting(model, hf, load_tokenizer(folder), *prompts_of(folder))


def plain_model(folder: Path) -> Any:
    """The Hugging Face model of a folder, to be run or overwritten."""
    hf = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return hf.requires_grad_(False).eval()


def prompts_of(folder: Path, templates: Sequence[str] = TEMPLATES) -> tuple[Numbers, list[Prompts]]:
    """What the tokenizer of a tiny model makes of the templates. Its BOS is token 0."""
    tokenizer = load_tokenizer(folder)
    return Numbers.of(tokenizer), make_prompts(list(templates), tokenizer, 0)


def only(prompts: Prompts, years: Sequence[int]) -> Prompts:
    """The prompts of some years."""
    chosen = torch.tensor([prompts.years.tolist().index(year) for year in years])
    return prompts._replace(years=prompts.years[chosen], rows=prompts.rows[chosen])


def trap_tokenizer() -> PreTrainedTokenizerFast:
    """Like GPT-2's: byte pairs, in which " 17", " 1700" and all pairs of digits are tokens."""
    pairs = [f"{number:02d}" for number in range(100)]
    # The earliest merge wins: of " 1732" first 17, then " 17", then 32, and never 73.
    merges = [("1", "7"), ("Ġ", "17")]
    merges += [(pair[0], pair[1]) for pair in pairs if pair != "17"]
    merges += [("Ġ17", "00")]
    characters = [*"0123456789abcdefghijklmnopqrstuvwxyz", "Ġ"]
    tokens = dict.fromkeys(["<|endoftext|>", *characters, *(a + b for a, b in merges)])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>")


def sign(numbers: Numbers, year: int, candidate: int) -> int:
    """Whether a next token makes a later year (1), does not (-1) or leaves it open (0)."""
    if numbers.style == "pairs":
        return 1 if candidate > year else -1
    return (candidate > year // 10) - (candidate < year // 10)


def metric_by_hand(probabilities: Tensor, year: int) -> float:
    """The metric of one prompt, a sum over continuations."""
    return sum(p if other > year else -p for other, p in enumerate(probabilities.tolist()))


@torch.no_grad()
def probabilities_by_hand(hf: Any, numbers: Numbers, rows: Tensor) -> Tensor:
    """(prompt, 100): every continuation run on its own, through the whole model."""
    ids = numbers.ids
    first = hf(input_ids=rows, use_cache=False).logits[:, -1, ids].softmax(dim=-1)
    if len(ids) == 100:
        return first
    parts = []
    for tens, token in enumerate(ids.tolist()):
        longer = torch.cat([rows, rows.new_full((len(rows), 1), token)], dim=1)
        second = hf(input_ids=longer, use_cache=False).logits[:, -1, ids].softmax(dim=-1)
        parts.append(first[:, tens, None] * second)
    return torch.cat(parts, dim=1)


def metrics_with(setting, layer, inside, first_position):
    """(template, 100): the metric in the whole plain model, an MLP's output changed by a hook.

    Args:
        setting: the model and its prompts.
        layer: of the MLP.
        inside: gives its output from what a dictionary reads there, the MLP's input and its output;
            None leaves it as it is.
        first_position: from which on; None for the last of the prompt and what follows.
    """
    result = torch.full((1 + max(group.template for group in setting.prompts), 100), torch.nan)
    stand_ins = {} if inside is None else {layer: inside}
    for group in setting.prompts:
        first = group.rows.shape[1] - 1 if first_position is None else first_position
        with replaced_mlps(setting.model, stand_ins, first):
            p = probabilities_by_hand(setting.hf, setting.numbers, group.rows)
        for row, year in zip(p, group.years.tolist(), strict=True):
            result[group.template, year] = metric_by_hand(row, year)
    return result


class Plant(NamedTuple):
    """Where a circuit is planted."""

    layer: int
    """Of the MLP whose features raise the logits of later years."""
    head: tuple[int, int]
    """Layer and number of the head that takes the year to the last token."""
    from_elsewhere: tuple[int, int] | None = None
    """A decoy: a head that drives the same features more, but reads the first word."""
    to_logits: tuple[int, int] | None = None
    """A decoy: a head that reads the year and moves the logits itself, past all MLPs."""


WIDTH = 32
WIDTH_OF_HEAD = 16
THRESHOLDS = (-12, 0, 12, 24, 36, 48, 60, 72)
AHEAD = 24
"""Each feature is active from its threshold on, and raises the years this far beyond it."""
# Directions of the residual stream in the planted model, and what is written there.
CONSTANT, AT_YEAR, AT_END, YEAR, COPIED, AT_WORD, WORD, DIRECT = range(8)
LATER = 8


def direction(number: int) -> Tensor:
    """One of 16 orthonormal directions that sum to zero, so that LayerNorm leaves them."""
    vector = torch.zeros(WIDTH)
    vector[2 * number], vector[2 * number + 1] = 0.5**0.5, -(0.5**0.5)
    return vector


@torch.no_grad()
def plant_circuit(folder: Path, plant: Plant) -> tuple[ReplacementModel, Numbers, Prompts]:
    """Overwrite a tiny GPT-2 so that what computes greater-than in it is known.

    The head attends from the last token to the year's and copies it; features of the MLP (a ReLU,
    so that its transcoder is exact) are active from one year on each, and write what the
    unembedding of all later years reads. All other weights are small and random.
    """
    hf = plain_model(folder)
    numbers, [prompts, *_] = prompts_of(folder)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in hf.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator) * 0.01
        mean = 1.0 if ".ln_" in name and name.endswith("weight") else 0.0
        # A norm before an MLP is exact, so that a threshold below is where a feature begins.
        parameter.copy_(torch.tensor(mean) + (0 if ".ln_2" in name else noise))
    body = hf.transformer
    # So large that every token is normalised by about 1.
    body.wte.weight += direction(CONSTANT) * WIDTH**0.5
    body.wte.weight[numbers.ids] += torch.arange(100)[:, None] / 100 * direction(YEAR)
    body.wpe.weight[prompts.year_token] += direction(AT_YEAR)
    body.wpe.weight[prompts.rows.shape[1] - 1] += direction(AT_END)
    body.wpe.weight[1] += direction(AT_WORD) + 2 * direction(WORD)
    _plant_head(body.h, plant.head, AT_YEAR, YEAR, COPIED)
    if plant.from_elsewhere is not None:
        _plant_head(body.h, plant.from_elsewhere, AT_WORD, WORD, COPIED)
    shift = 1.75 if plant.from_elsewhere else 0.0  # about what it adds
    if plant.to_logits is not None:
        _plant_head(body.h, plant.to_logits, AT_YEAR, YEAR, DIRECT, strength=2)
    for block in body.h:
        block.mlp.act = nn.ReLU()
    mlp = body.h[plant.layer].mlp
    for neuron, threshold in enumerate(THRESHOLDS):
        mlp.c_fc.weight[:, neuron] += 5 * direction(COPIED)
        mlp.c_fc.bias[neuron] -= 5 * (0.92 * threshold / 100 + shift)
        mlp.c_proj.weight[neuron] += direction(LATER + neuron)
    unembedding = torch.randn(hf.lm_head.weight.shape, generator=generator) * 0.01
    for year, token in enumerate(numbers.ids.tolist()):
        # Else the last year of all would be an answer to every prompt.
        unembedding[token] -= 0.05 * (year - 49.5) * direction(CONSTANT)
        unembedding[token] += 6 * (year - 49.5) * direction(DIRECT)
        for neuron, threshold in enumerate(THRESHOLDS):
            strength = 8 if year > threshold + AHEAD else -8
            unembedding[token] += strength * direction(LATER + neuron)
    # The unembedding is no longer the embedding.
    hf.config.tie_word_embeddings = False
    hf.lm_head.weight = nn.Parameter(unembedding, requires_grad=False)
    model = to_bridge(hf, folder)
    parts = {"W_enc": model.W_in, "b_enc": model.b_in, "W_dec": model.W_out, "b_dec": model.b_out}
    transcoders = {
        layer: SparseDictionary(
            "transcoder", **{name: of[layer].clone() for name, of in parts.items()}
        )
        for layer in range(len(body.h))
    }
    return ReplacementModel(model, transcoders, first_position=1), numbers, prompts


def _plant_head(blocks, head, key, read, written, strength=1.0):
    """Attend from the last token to where ``key`` is, and take what is in one direction."""
    attention = blocks[head[0]].attn
    first = head[1] * WIDTH_OF_HEAD
    attention.c_attn.weight[:, first] += 9 * direction(AT_END)
    attention.c_attn.weight[:, WIDTH + first] += 9 * direction(key)
    attention.c_attn.weight[:, 2 * WIDTH + first] += direction(read)
    attention.c_proj.weight[first] += strength * direction(written)
