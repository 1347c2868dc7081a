"""Tiny models of three architectures with their prompts. Shared between tests: do not change."""

import pytest
import torch

from helpers_greater_than import load_setting, plain_model
from helpers_models import make_tiny_model
from transcoders.greater_than.task import Numbers


@pytest.fixture(scope="session")
def settings(tiny_models):
    """By architecture. GPT-2 and GPT-NeoX write years in pairs, Llama in digits."""
    return {architecture: load_setting(folder) for architecture, folder in tiny_models.items()}


@pytest.fixture(scope="session", params=["gpt2", "gpt_neox", "llama"])
def setting(request, settings):
    """One of them, with the numbers of its own tokenizer."""
    return settings[request.param]


@pytest.fixture(scope="session", params=["pairs", "digits"])
def any_setting(request, setting):
    """Every architecture with both ways to write numbers; the other one's tokens are made up."""
    if request.param == setting.numbers.style:
        return setting
    n_numbers = 100 if request.param == "pairs" else 10
    generator = torch.Generator().manual_seed(4)
    return setting._replace(numbers=Numbers(torch.randperm(250, generator=generator)[:n_numbers]))


@pytest.fixture(scope="session", params=["qwen2", "opt", "gemma2", "phi"])
def other_setting(request, tmp_path_factory):
    """Families that differ where it matters here: biases, positions, norms, capped logits."""
    folder = make_tiny_model(request.param, tmp_path_factory.mktemp("others") / request.param)
    return load_setting(folder, plain_model(folder))
