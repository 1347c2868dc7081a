"""A long prompt gives what a short one would, and no tensor of it grows with layers and tokens²."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers_circuits import prompt, some_targets
from transcoders.circuits import ablation
from transcoders.circuits.attention import attention_score
from transcoders.circuits.controls import part_sizes
from transcoders.circuits.faithfulness import mean_activations, values_of_sets
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.steering import steering
from transcoders.circuits.verify import TotalAttributions, completeness
from transcoders.models import logits_after, passes

N_TOKENS = 11
"""Unlike any other size of the tiny models, so that a tensor's shape tells what it holds."""


@pytest.fixture
def tokens(random_tokens):
    return prompt(random_tokens, N_TOKENS)


class LargestOfPairs(TorchDispatchMode):
    """Notes the most numbers in a tensor that has one for each pair of tokens."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run an operation and look at what it gives."""
        given = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(given):
            if isinstance(tensor, Tensor) and tensor.shape[-2:] == (N_TOKENS, N_TOKENS):
                self.largest = max(self.largest, tensor.numel())
        return given


@torch.no_grad()
def everything(replacement, tokens):
    """What the command `circuit` computes on a prompt."""
    local, found = replacement.freeze(tokens), {}
    for target in (some_targets(local)[0], some_targets(local)[-1]):
        paths = find_paths(local, target, Search(n_paths=5, iterations=3))
        nodes = {path.node for path in paths[1:] if path.node.kind in ablation.REPLACEABLE}
        nodes = sorted(nodes)[:4]
        totals = TotalAttributions(local, target)
        means = mean_activations(replacement, tokens[None])
        found[target.name] = {
            "paths": [(path.nodes, path.attribution) for path in paths],
            "steering": steering(local, target, totals, nodes).to_csv(),
            "totals": {place: values.tolist() for place, values in totals.items()},
            "sizes": part_sizes(local, target),
            "sets": values_of_sets(local, target, [nodes[:3]], means),
            "completeness": completeness(local, target.vectors).value.tolist(),
            "attention": attention_score(local, 2, 1, -1, 1).table().to_csv(),
        }
    return found


def test_patterns_made_anew_give_the_same_bits_a_layer_at_a_time(mixed, tokens, monkeypatch):
    monkeypatch.setattr(ablation, "BATCH_TOKENS", N_TOKENS)  # one prompt at a time, as if long
    kept = everything(mixed.replacement, tokens)
    monkeypatch.setattr(passes, "PATTERNS_KEPT", 0)
    with LargestOfPairs() as seen:
        anew = everything(mixed.replacement, tokens)
    assert anew == kept
    assert seen.largest == mixed.replacement.n_heads * N_TOKENS**2


def test_logits_of_a_block_of_tokens_are_those_of_the_whole(mixed, tokens, monkeypatch):
    monkeypatch.setattr(passes, "LOGIT_ROWS", 4)
    model, passed = mixed.replacement.model, mixed.replacement.freeze(tokens).passed
    whole = model.unembed(passed.normalized[None])[0]
    for token in (0, 5, N_TOKENS - 1):
        assert torch.allclose(logits_after(model, passed, token), whole[token], atol=1e-5)
