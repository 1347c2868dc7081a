"""How active a feature is on a text, in the model and with earlier MLPs replaced.

The paper checks what it believes of a feature on a few texts. It also asks whether that survives
when transcoders replace all earlier MLPs that they can: a circuit describes that model, which is
not quite the real one.
"""

from collections.abc import Callable, Sequence

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.notation import FeatureName, parse_target
from transcoders.circuits.replacement import ReplacementModel
from transcoders.circuits.trace import Tracer
from transcoders.config import FeatureCheck, Scale
from transcoders.models import mlp_activations, mlp_interventions
from transcoders.splicing import replace_from


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
        replacement.transcoder_of(layer, unit, f"circuits.checks: {check.feature}")
        tokens = local.passed.tokens
        z = feature_activations(replacement, tokens, layer)[:, unit]
        replaced = feature_activations(replacement, tokens, layer, replace_earlier=True)[:, unit]
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
def feature_activations(
    replacement: ReplacementModel,
    tokens: Int[Tensor, " token"],
    layer: int,
    *,
    replace_earlier: bool = False,
) -> Float[Tensor, "token n_features"]:
    """Activations of a layer's transcoder on one prompt; 0 before its first position.

    Args:
        replacement: the model with its transcoders.
        tokens: of the prompt, BOS first.
        layer: of the transcoder.
        replace_earlier: put the transcoders of all earlier layers in place of their MLPs.
    """
    model, first = replacement.model, replacement.first_position
    earlier = [each for each in replacement.transcoders if each < layer] if replace_earlier else []

    def imitation(at: int) -> Callable[[Tensor, Tensor], Tensor]:
        transcoder = replacement.transcoders[at]
        return lambda mlp_in, mlp_out: replace_from(mlp_out, transcoder(mlp_in[:, first:]), first)

    with mlp_interventions(model, {at: imitation(at) for at in earlier}, (1, len(tokens))):
        read = mlp_activations(model, tokens[None], [layer])[layer].mlp_in[0]
    z = replacement.transcoders[layer].encode(read)
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
