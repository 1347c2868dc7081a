"""How active a feature is on a text, in the model and with earlier MLPs replaced.

The paper checks what it believes of a feature on a few texts. It also asks whether that survives
when transcoders replace all earlier MLPs that they can: a circuit describes that model, which is
not quite the real one.
"""

from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.notation import FeatureName, parse_target
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.config import FeatureCheck, Scale
from transcoders.models import mlp_activations, mlp_interventions


@torch.no_grad()
def check_features(tracer: Tracer, checks: Sequence[FeatureCheck]) -> pd.DataFrame:
    """Measure each feature on its text, at the token where it is most active.

    Returns:
        Columns ``feature``, ``text``, ``token`` (empty if the feature is active nowhere),
        ``activation``, ``activation_replaced`` (at that token, with earlier MLPs replaced), and the
        paper's values ``published`` and ``published_replaced``, if any.

    Raises:
        UserError: there is no such transcoder or feature.
    """
    replacement, rows = tracer.replacement, []
    for check in checks:
        local = tracer.freeze(check.text)
        name = parse_target(f"{check.feature}@-1")
        assert isinstance(name, FeatureName)  # the scale file allows nothing else
        layer, unit = name.layer, name.unit
        if unit is None:
            unit = tracer.target(local, f"{check.feature}@-1").node.unit
        transcoder = replacement.transcoder_of(layer, unit, f"circuits.checks: {check.feature}")
        tokens = local.passed.tokens
        z = transcoder.encode(local.passed.mlp.mlp_in[layer])[:, unit]
        replaced = activations_with_replaced(replacement, tokens, layer)[:, unit]
        z[: replacement.first_position] = replaced[: replacement.first_position] = 0
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


@torch.no_grad()
def activations_with_replaced(
    replacement: ReplacementModel, tokens: Int[Tensor, " token"], layer: int
) -> Float[Tensor, "token n_features"]:
    """Activations of a layer's transcoder, with those of earlier layers in place of their MLPs."""
    earlier = {at: replacement.imitation(at) for at in replacement.transcoders if at < layer}
    with mlp_interventions(replacement.model, earlier, (1, len(tokens))):
        read = mlp_activations(replacement.model, tokens[None], [layer])[layer].mlp_in[0]
    return replacement.transcoders[layer].encode(read)


def check_features_of(scale: Scale, *, device: str = "cpu") -> pd.DataFrame:
    """Make all checks that a scale lists, model by model."""
    checks = scale.circuits.checks
    return pd.concat(
        check_features(
            Tracer.load(scale.name, model, device=device), [c for c in checks if c.model == model]
        )
        for model in dict.fromkeys(check.model for check in checks)
    )
