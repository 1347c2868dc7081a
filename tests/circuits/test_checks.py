"""Features on texts: what the model makes of them, and a model whose MLPs are transcoders."""

from contextlib import ExitStack
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

from helpers_circuits import plain, watched, without_weight
from transcoders.circuits import Tracer
from transcoders.circuits.checks import check_features, feature_activations
from transcoders.config import FeatureCheck
from transcoders.errors import UserError

TEXT = "w1 w2 w3 w4"


def check(feature: str, **values: float) -> FeatureCheck:
    return FeatureCheck(model="tiny", feature=feature, text=TEXT, **values)


@torch.no_grad()
def test_replacing_equals_running_a_model_whose_mlps_are_the_transcoders(tracer: Tracer) -> None:
    replacement = tracer.replacement
    tokens = tracer.freeze(TEXT).passed.tokens
    first, last = replacement.first_position, max(replacement.transcoders)
    hf, blocks, _ = plain(replacement.model)

    def stand_in(layer: int) -> Any:
        transcoder, norm = replacement.transcoders[layer], blocks[layer].norm_2

        def hook(_: Any, __: Any, own: Tensor) -> Tensor:
            z = (without_weight(norm, seen[norm][0]) @ transcoder.W_enc + transcoder.b_enc).relu()
            replaced = z @ transcoder.W_dec + transcoder.b_dec
            return torch.cat([own[:, :first], replaced[:, first:]], dim=1)

        return hook

    with watched([block.norm_2 for block in blocks]) as seen, ExitStack() as hooked:
        for layer in set(replacement.transcoders) - {last}:
            hooked.enter_context(blocks[layer].mlp.register_forward_hook(stand_in(layer)))
        hf(tokens[None])
    norm = blocks[last].norm_2
    expected = replacement.transcoders[last].encode(without_weight(norm, seen[norm][0][0]))[first:]
    found = feature_activations(replacement, tokens, last, replace_earlier=True)[first:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_check_reports_the_token_where_the_feature_is_most_active(tracer: Tracer) -> None:
    local = tracer.freeze(TEXT)
    layer = max(tracer.replacement.transcoders)
    z = feature_activations(tracer.replacement, local.passed.tokens, layer)
    unit = int(z.max(dim=0).values.argmax())
    table = check_features(tracer, [check(f"tc{layer}[{unit}]", published=1.5)])
    row = table.iloc[0]
    assert list(table) == [
        "feature", "text", "token", "activation", "activation_replaced",
        "published", "published_replaced",
    ]  # fmt: skip
    assert row["activation"] == pytest.approx(z[:, unit].max().item())
    best = int(local.passed.tokens[z[:, unit].argmax()])
    assert row["token"] == tracer.tokenizer.decode([best])
    assert row["published"] == 1.5 and pd.isna(row["published_replaced"])


def test_top_is_the_feature_most_active_at_the_last_token(tracer: Tracer) -> None:
    layer = max(tracer.replacement.transcoders)
    z = feature_activations(tracer.replacement, tracer.freeze(TEXT).passed.tokens, layer)
    table = check_features(tracer, [check(f"tc{layer}[top]")])
    assert table["feature"][0] == f"tc{layer}[{int(z[-1].argmax())}]"


def test_a_feature_that_is_nowhere_active_has_no_token(tracer: Tracer) -> None:
    layer = min(tracer.replacement.transcoders)
    z = feature_activations(tracer.replacement, tracer.freeze(TEXT).passed.tokens, layer)
    unit = int((z.sum(dim=0) == 0).nonzero()[0])
    row = check_features(tracer, [check(f"tc{layer}[{unit}]")]).iloc[0]
    assert (row["token"], row["activation"]) == ("", 0)


@pytest.mark.parametrize("feature", ["tc1[3]", "tc9[3]", "tc2[9999]"])
def test_a_feature_that_does_not_exist_is_refused(tracer: Tracer, feature: str) -> None:
    with pytest.raises(UserError, match=r"circuits\.checks: tc.*layers with a transcoder: 0, 2"):
        check_features(tracer, [check(feature)])
