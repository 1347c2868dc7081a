"""How active a feature is on a text, in the model and with earlier MLPs replaced.

The paper checks what it believes of a feature on a few texts, and whether that survives when all
earlier MLPs with a transcoder are replaced by it: what a circuit says of the feature is about that
model, not quite the real one.
"""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.notation import FeatureName, parse_target
from transcoders.circuits.replacement import LocalReplacementModel, ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.config import FeatureCheck, Scale
from transcoders.errors import UserError
from transcoders.models import mlp_activations, mlp_interventions
from transcoders.splicing import replace_from


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
        local = tracer.freeze(check.text)
        tokens = local.passed.tokens
        layer, unit = _find(tracer, local, check)
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


def _find(tracer: Tracer, local: LocalReplacementModel, check: FeatureCheck) -> tuple[int, int]:
    """Layer and number of the feature that a check is about."""
    name = parse_target(f"{check.feature}@-1")
    assert isinstance(name, FeatureName)  # the scale file allows nothing else
    if name.unit is None:
        node = tracer.target(local, f"{check.feature}@-1").node
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
    circuit: ReplacementModel,
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

    def imitation(at: int) -> Callable[[Tensor, Tensor], Tensor]:
        def change(mlp_in: Tensor, mlp_out: Tensor) -> Tensor:
            return replace_from(mlp_out, circuit.transcoders[at](mlp_in[:, first:]), first)

        return change

    model = circuit.model
    with mlp_interventions(model, {at: imitation(at) for at in earlier}, (1, len(tokens))):
        read = mlp_activations(model, tokens[None], [layer])[layer].mlp_in[0]
    z = circuit.transcoders[layer].encode(read)
    z[:first] = 0
    return z


def check_features_of(scale: Scale, *, device: str = "cpu") -> pd.DataFrame:
    """Make all checks that a scale lists, model by model."""
    checks = scale.circuits.checks
    return pd.concat(
        check_features(
            Tracer.load(scale.name, model, device=device), [c for c in checks if c.model == model]
        )
        for model in dict.fromkeys(check.model for check in checks)
    )
