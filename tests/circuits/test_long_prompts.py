"""A long prompt gives what a short one would, and no tensor of it grows with layers and tokens²."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers_circuits import MIXES, make_circuit, prompt, some_targets
from transcoders.circuits import ablation
from transcoders.circuits.attention import attention_score
from transcoders.circuits.controls import part_sizes
from transcoders.circuits.faithfulness import mean_activations, values_of_sets
from transcoders.circuits.paths import Search, find_paths
from transcoders.circuits.steering import steering
from transcoders.circuits.verify import TotalAttributions, completeness
from transcoders.models import interventions, logits_after, passes

N_TOKENS = 11
"""Unlike any other size of the tiny models, so that a tensor's shape tells what it holds."""
SEARCH = Search(n_paths=5, iterations=3)


@pytest.fixture(scope="module")
def replacement(tiny_model, random_dictionary):
    """Transcoders at layers 0 and 2 after BOS, for every architecture."""
    return make_circuit(tiny_model, random_dictionary, MIXES["layers 0 and 2"], first=1)


@pytest.fixture
def tokens(random_tokens):
    """A prompt."""
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
        paths = find_paths(local, target, SEARCH)
        nodes = list(dict.fromkeys(path.node for path in paths[1:]))
        nodes = [node for node in nodes if node.kind in ("feature", "head", "mlp")]
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


def test_patterns_made_anew_give_the_same_bits_a_layer_at_a_time(replacement, tokens, monkeypatch):
    monkeypatch.setattr(ablation, "BATCH_TOKENS", N_TOKENS)  # one prompt at a time, as if long
    kept = everything(replacement, tokens)
    monkeypatch.setattr(passes, "PATTERNS_KEPT", 0)
    with LargestOfPairs() as seen:
        anew = everything(replacement, tokens)
    assert anew == kept
    assert seen.largest == replacement.n_heads * N_TOKENS**2


def test_logits_are_made_of_a_block_of_tokens_at_most(replacement, tokens, monkeypatch):
    model, passed = replacement.model, replacement.freeze(tokens).passed
    whole = model.unembed(passed.normalized[None])[0]
    for token in (0, 5, N_TOKENS - 1):
        assert torch.equal(logits_after(model, passed, token), whole[token])
    monkeypatch.setattr(passes, "LOGIT_ROWS", 4)
    rows: list[int] = []
    watching = {"unembed.hook_in": lambda tensor: rows.append(tensor.shape[1])}
    with interventions(model, watching, (1, N_TOKENS)):
        for token in (0, 5, N_TOKENS - 1):
            assert torch.allclose(logits_after(model, passed, token), whole[token], atol=1e-5)
    assert rows == [4, 4, 3]
