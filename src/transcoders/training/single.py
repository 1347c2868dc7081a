"""One dictionary, trained with settings that suit a few hundred thousand tokens."""

from transcoders.config import Dictionary, Kind, Site, Training
from transcoders.dictionaries import SparseDictionary
from transcoders.training.group import train_group
from transcoders.training.trainer import SiteActivations


def train_dictionary(
    activations: SiteActivations,
    kind: Kind,
    *,
    l1_coefficient: float | None = None,
    k: int | None = None,
    expansion: int = 8,
    epochs: int = 1,
    batch_tokens: int = 256,
    learning_rate: float = 4e-3,
    seed: int = 0,
    device: str = "cpu",
) -> SparseDictionary:
    """Train one dictionary, without files or a workflow.

    Inputs and targets are scaled to a mean norm of √d_model in training, which the weights that
    are returned have folded in; λ₁ has its meaning on that scale. Other settings are those of the
    laptop scale, and ``config/README.md`` says how they were chosen.

    Args:
        activations: what the MLP reads and writes.
        kind: ``transcoder``, ``mlp_out_sae``, or another of ``transcoders.config.TRAITS``.
        l1_coefficient: λ₁, for kinds with a ReLU.
        k: active features a token, for kinds with TopK.
        expansion: features for each dimension of the residual stream.
        epochs: passes over the tokens.
        batch_tokens: tokens in a step.
        learning_rate: Adam's.
        seed: of the initial weights and of the order of tokens.
        device: ``cpu`` or ``cuda``.

    Raises:
        UserError: fewer tokens than a batch, or the loss is no longer finite.
        pydantic.ValidationError: a setting is out of range, or the kind takes another sparsity.
    """
    training = Training(
        expansion=expansion,
        batch_tokens=batch_tokens,
        epochs=epochs,
        buffer_tokens=2**17,
        learning_rate=learning_rate,
        warmup_steps=100,
        decay_fraction=0.2,
        l1_warmup_fraction=0.8,
        adam_betas=(0.9, 0.99),
        loss_normalization="none",
        normalize_activations="mean_norm",
        precision="float32",
        sparse_below_density=0.1,
        log_every_steps=100,
        checkpoint_every_steps=1_000_000,
    )
    entry = Dictionary(
        kind=kind,
        l1_coefficient=l1_coefficient,
        k=k,
        site=Site(model="any", layer=0),
        group="single",
    )
    [trained] = train_group([entry], activations, training, seed=seed, device=device)
    return trained.dictionary
