"""How active a feature is on a text, in the model and with earlier MLPs replaced.

The paper checks what it believes of a feature on a few texts, and whether that survives when all
earlier MLPs with a transcoder are replaced by it: what a circuit says of the feature is about that
model, not quite the real one.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from transcoders.circuits.model import CircuitModel, Run
from transcoders.circuits.notation import FeatureName, parse_target
from transcoders.circuits.trace import Tracer
from transcoders.config import FeatureCheck
from transcoders.errors import UserError
from transcoders.models.language_model import removed_after
from transcoders.splice import replace_from


def check_features(tracer: Tracer, checks: Sequence[FeatureCheck]) -> pd.DataFrame:
    """Measure each feature on its text, at the token where it is most active.

    Returns:
        Columns ``feature, text, token`` (where it is most active, if anywhere), ``activation``,
        ``activation_replaced`` (at that token, with earlier MLPs replaced), and the paper's values
        ``published`` and ``published_replaced``, if any.

    Raises:
        UserError: there is no such transcoder or feature.
    """
    rows = []
    for check in checks:
        run = tracer.run(check.text)
        tokens = run.passed.tokens
        layer, unit = _find(tracer, run, check)
        z = feature_activations(tracer.circuit, tokens, layer)[:, unit]
        replaced = feature_activations(tracer.circuit, tokens, layer, replace_earlier=True)[:, unit]
        best = int(z.argmax())
        rows.append(
            {
                "feature": f"tc{layer}[{unit}]",
                "text": check.text,
                "token": tracer.tokenizer.decode([int(tokens[best])]) if z[best] > 0 else "",
                "activation": z[best].item(),
                "activation_replaced": replaced[best].item(),
                "published": check.published,
                "published_replaced": check.published_replaced,
            }
        )
    return pd.DataFrame(rows)


def _find(tracer: Tracer, run: Run, check: FeatureCheck) -> tuple[int, int]:
    """Layer and number of the feature that a check is about."""
    name = parse_target(f"{check.feature}@-1")
    assert isinstance(name, FeatureName)  # the scale file allows nothing else
    if name.unit is None:
        node = tracer.target(run, f"{check.feature}@-1").node
        return node.layer, node.unit
    transcoder = tracer.circuit.transcoders.get(name.layer)
    if transcoder is None or name.unit >= transcoder.n_features:
        known = ", ".join(f"{at}" for at in tracer.circuit.transcoders)
        found = "no transcoder" if transcoder is None else f"{transcoder.n_features} features"
        raise UserError(
            f"circuits.checks: {check.feature}: layer {name.layer} has {found}; layers with a "
            f"transcoder: {known}"
        )
    return name.layer, name.unit


@torch.no_grad()
def feature_activations(
    circuit: CircuitModel,
    tokens: Int[Tensor, " token"],
    layer: int,
    *,
    replace_earlier: bool = False,
) -> Float[Tensor, "token n_features"]:
    """Activations of a layer's transcoder on one prompt; 0 before its first position.

    Args:
        circuit: the model with its transcoders.
        tokens: of the prompt, BOS first.
        layer: of the transcoder.
        replace_earlier: put the transcoders of all earlier layers in place of their MLPs.
    """
    first = circuit.first_position
    earlier = [each for each in circuit.transcoders if each < layer] if replace_earlier else []

    def replace(at: int) -> Any:
        transcoder = circuit.transcoders[at]

        def hook(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
            imitation = transcoder.decode(transcoder.encode(arguments[0][:, first:]))
            return replace_from(output, imitation, first)

        return hook

    model = circuit.model
    with removed_after([model.mlp(at).register_forward_hook(replace(at)) for at in earlier]):
        read = model.mlp_activations(tokens[None], [layer])[layer].mlp_in[0]
    z = circuit.transcoders[layer].encode(read)
    z[:first] = 0
    return z
