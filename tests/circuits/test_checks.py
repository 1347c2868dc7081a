"""Features on texts: what the model makes of them, and a model whose MLPs are transcoders."""

import pytest
import torch

from helpers_circuits import PROMPT, plain, replaced_mlps, without_weight
from transcoders.circuits.checks import activations_with_replaced, check_features
from transcoders.config import FeatureCheck


@torch.no_grad()
def test_replacing_equals_running_a_model_whose_mlps_are_the_transcoders(tracer):
    replacement, tokens = tracer.replacement, tracer.freeze(PROMPT).passed.tokens
    (first, earlier), (last, transcoder) = replacement.transcoders.items()
    hf, blocks, _ = plain(replacement.model)
    norm = blocks[last].norm_2
    with replaced_mlps(replacement.model, {first: lambda read, _: earlier(read)}, 1) as seen:
        hf(tokens[None])
    expected = transcoder.encode(without_weight(norm, seen[norm][0][0]))[1:]
    found = activations_with_replaced(replacement, tokens, last)[1:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def activations(tracer, layer):
    """(token, feature), without those of BOS."""
    local = tracer.freeze(PROMPT)
    z = tracer.replacement.transcoders[layer].encode(local.passed.mlp.mlp_in[layer])
    z[0] = 0
    return z


def test_a_check_reports_the_token_where_the_feature_is_most_active(tracer):
    z = activations(tracer, 2)
    unit = int(z.max(dim=0).values.argmax())
    idle = int((activations(tracer, 0).sum(dim=0) == 0).nonzero()[0])
    names = (f"tc2[{unit}]", "tc2[top]", f"tc0[{idle}]")
    checks = [FeatureCheck(model="tiny", feature=name, text=PROMPT) for name in names]
    table = check_features(tracer, checks)
    assert table["activation"][0] == pytest.approx(z[:, unit].max().item())
    assert table["token"][0] == ["<|endoftext|>", *PROMPT.split()][int(z[:, unit].argmax())]
    assert table["feature"][1] == f"tc2[{int(z[-1].argmax())}]"  # top: at the last token
    assert (table["token"][2], table["activation"][2]) == ("", 0)
