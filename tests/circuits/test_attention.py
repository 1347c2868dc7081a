"""The score of a head is the sum over pairs of parts, in every family of models."""

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from transcoders.circuits.attention import attention_score
from transcoders.circuits.replacement import LocalReplacementModel


def plain_scores(folder: str, tokens: Tensor) -> Tensor:
    """What the plain Hugging Face model gives its softmax: (layer, head, query, key)."""
    seen: list[Tensor] = []
    softmax = nn.functional.softmax

    def watched(scores: Tensor, *arguments: object, **options: object) -> Tensor:
        seen.append(scores[0])
        return softmax(scores, *arguments, **options)  # type: ignore[arg-type]

    hf = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(nn.functional, "softmax", watched)
        hf(tokens[None], use_cache=False)
    assert len(seen) == hf.config.num_hidden_layers
    return torch.stack(seen)


def test_pairs_add_up_to_the_score_of_the_plain_model(of_family: LocalReplacementModel) -> None:
    local, model = of_family, of_family.replacement.model
    expected = plain_scores(model.cfg.model_name, local.passed.tokens)
    cap = model.cfg.attn_scores_soft_cap or 0
    for layer in range(local.replacement.n_layers):
        for head in range(local.replacement.n_heads):
            for query, key in ((7, 0), (7, 4), (5, 5)):
                found = attention_score(local, layer, head, query, key)
                total = found.pairs.double().sum().item()
                own = expected[layer, head, query, : query + 1].double()
                own = cap * torch.atanh(own / cap) if cap > 0 else own
                scale = own.abs().max().item()
                assert total == pytest.approx(own[key].item(), abs=1e-5 * scale)
                assert found.score == pytest.approx(own[key].item(), abs=1e-5 * scale)
                above = (own[key] - own.mean()).item()
                assert found.above_mean == pytest.approx(above, abs=2e-5 * scale)
                pattern = expected[layer, head, query].softmax(dim=0)
                assert found.probability == pytest.approx(pattern[key].item(), rel=1e-4)
