"""The kinds of dictionary: what each reads, what it imitates, and how its features activate."""

from typing import Literal, NamedTuple

Kind = Literal[
    "transcoder", "mlp_out_sae", "mlp_in_sae", "skip_transcoder", "skip_sae", "topk_transcoder",
    "topk_sae",
]  # fmt: skip
Tensors = Literal["mlp_in", "mlp_out"]


class Traits(NamedTuple):
    """What sets a kind apart."""

    label: str
    """For figures and pages."""
    reads: Tensors
    imitates: Tensors
    has_skip: bool = False
    """Whether an affine map of the MLP's input is added to what the features write."""
    is_topk: bool = False
    """Whether the k largest pre-activations are kept, in place of an L1 penalty."""

    @property
    def is_transcoder(self) -> bool:
        """Whether input and target differ. If not, ``b_dec`` is subtracted from the input."""
        return self.reads != self.imitates


TRAITS: dict[Kind, Traits] = {
    "transcoder": Traits("transcoder", "mlp_in", "mlp_out"),
    "mlp_out_sae": Traits("SAE on MLP output", "mlp_out", "mlp_out"),
    "mlp_in_sae": Traits("SAE on MLP input", "mlp_in", "mlp_in"),
    "skip_transcoder": Traits("skip transcoder", "mlp_in", "mlp_out", has_skip=True),
    "skip_sae": Traits("skip SAE on MLP output", "mlp_out", "mlp_out", has_skip=True),
    "topk_transcoder": Traits("TopK transcoder", "mlp_in", "mlp_out", is_topk=True),
    "topk_sae": Traits("TopK SAE on MLP output", "mlp_out", "mlp_out", is_topk=True),
}
KINDS: tuple[Kind, ...] = ("transcoder", "mlp_out_sae", "mlp_in_sae")
"""The kinds that the paper compares; the others are extensions."""
RATED_KINDS: tuple[Kind, Kind] = ("transcoder", "mlp_in_sae")
"""The kinds whose features are compared in interpretability, by raters and by measures."""
