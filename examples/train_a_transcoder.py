"""Train one transcoder on one MLP of a real language model, and see what it costs the model.

    .venv/bin/python examples/train_a_transcoder.py        about 4 minutes on 2 cores

Everything comes out of two PyPI wheels; nothing else is downloaded, and no workflow is needed. The
transcoder is saved in examples/out/transcoder, which `examples/find_a_circuit.py` and SAELens load.
"""

from pathlib import Path

import torch
import typer
from torch.nn.functional import cross_entropy

from transcoders import (
    ActivationsInMemory,
    continue_with_mlp_out,
    fetch_corpus,
    fetch_model,
    load_model,
    load_rows,
    load_scale,
    run_through_site,
    splice,
    tokenize_corpus,
    train_dictionary,
    unembed,
)

LAYER = 3
FIRST = 1  # the first position with text; position 0 always holds the same token
OUT = Path("examples/out")


def main(scale: str = "laptop", rows: int = 2000, layer: int = LAYER, out: Path = OUT) -> None:
    # 1. A model and text. The scale file says which, and pins both by SHA-256.
    settings = load_scale(Path(f"config/{scale}.yaml"))
    name, source = next(iter(settings.models.items()))
    if not (out / "model").exists():
        fetch_model(source, out / "model", seed=0)
    if not (out / "tokens").exists():
        fetch_corpus(settings.corpus, out / "documents.parquet", seed=0)
        tokenize_corpus(
            out / "documents.parquet", settings.corpus, source, out / "model", out / "tokens",
            seed=0,
        )  # fmt: skip
    model = load_model(out / "model")  # a TransformerLens TransformerBridge

    # 2. What enters and leaves the MLP.
    train_rows = load_rows(out / "tokens", "train").tokens[:rows]
    activations = ActivationsInMemory.of(model, train_rows, layer, first_position=FIRST)

    # 3. Train: ||MLP(x) - TC(x)||² + λ₁ ||z||₁.
    transcoder = train_dictionary(activations, "transcoder", l1_coefficient=1.0, seed=0)
    record = {"metadata": {"model_name": name, "layer": layer}}
    transcoder.save_pretrained(out / "transcoder", record)

    # 4. Put it in the MLP's place on text it has not seen.
    tokens = load_rows(out / "tokens", "eval").tokens[:16].long()
    site = run_through_site(model, tokens, layer)
    spliced = splice(transcoder, site, model, layer, first_position=FIRST)
    mean = activations.statistics.mlp_out_mean.expand_as(site.activations.mlp_out)

    def ce(normalized: torch.Tensor) -> float:
        logits = unembed(model, normalized[:, FIRST:-1])
        return cross_entropy(logits.flatten(0, 1), tokens[:, FIRST + 1 :].flatten()).item()

    error = (spliced.target - spliced.reconstruction).square().sum()
    variance = (spliced.target - spliced.target.mean(dim=(0, 1))).square().sum()
    replaced = continue_with_mlp_out(model, site, layer, spliced.mlp_out)
    ablated = continue_with_mlp_out(model, site, layer, mean)
    print(f"L0   {(spliced.z > 0).sum(dim=-1).float().mean():.1f} active features a token")
    print(f"FVU  {error / variance:.3f} of the MLP's output is left unexplained")
    print(f"CE   {ce(site.normalized):.4f} nats, the model as it is")
    print(f"     {ce(replaced):.4f} with the transcoder in place of the MLP")
    print(f"     {ce(ablated):.4f} with the MLP's mean output")


if __name__ == "__main__":
    typer.run(main)
