"""Features on texts: what the model makes of them, and a model whose MLPs are transcoders."""

import pandas as pd
import pytest
import torch

from helpers_circuits import plain, replaced_mlps, without_weight
from transcoders.circuits.checks import activations_with_replaced, check_features
from transcoders.config import FeatureCheck
from transcoders.errors import UserError

TEXT = "w1 w2 w3 w4"


def check(feature, **values):
    return FeatureCheck(model="tiny", feature=feature, text=TEXT, **values)


@torch.no_grad()
def test_replacing_equals_running_a_model_whose_mlps_are_the_transcoders(tracer):
    replacement, tokens = tracer.replacement, tracer.freeze(TEXT).passed.tokens
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
    local = tracer.freeze(TEXT)
    z = tracer.replacement.transcoders[layer].encode(local.passed.mlp.mlp_in[layer])
    z[0] = 0
    return z


def test_a_check_reports_the_token_where_the_feature_is_most_active(tracer):
    z = activations(tracer, 2)
    unit = int(z.max(dim=0).values.argmax())
    table = check_features(tracer, [check(f"tc2[{unit}]", published=1.5), check("tc2[top]")])
    row = table.iloc[0]
    assert list(table) == [
        "feature", "text", "token", "activation", "activation_replaced",
        "published", "published_replaced",
    ]  # fmt: skip
    assert row["activation"] == pytest.approx(z[:, unit].max().item())
    assert row["token"] == ["<|endoftext|>", *TEXT.split()][int(z[:, unit].argmax())]
    assert row["published"] == 1.5 and pd.isna(row["published_replaced"])
    assert table["feature"][1] == f"tc2[{int(z[-1].argmax())}]"  # top: at the last token


def test_a_feature_that_is_active_nowhere_has_no_token(tracer):
    unit = int((activations(tracer, 0).sum(dim=0) == 0).nonzero()[0])
    row = check_features(tracer, [check(f"tc0[{unit}]")]).iloc[0]
    assert (row["token"], row["activation"]) == ("", 0)


def test_a_feature_that_does_not_exist_is_refused(tracer):
    with pytest.raises(UserError, match=r"circuits\.checks: tc.*layers with a transcoder: 0, 2"):
        check_features(tracer, [check("tc1[3]")])
