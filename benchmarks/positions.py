"""Two checks of the cached tensors, before anything is trained on them.

    python benchmarks/positions.py [--scale laptop]

1. The mean norm of each site's MLP input and output by position. Position 0 always holds the BOS
   token; whether it belongs in training and metrics is decided in the scale file, on these numbers.
2. What rounding to the cache's 16 bits costs: the MLP's output is rounded, spliced back, and the
   logits are compared with those of the unmodified model.

Writes benchmarks/positions.json.
"""

from pathlib import Path
from typing import Annotated

import torch
import typer

from transcoders.activations import DTYPES
from transcoders.config import load_scale
from transcoders.corpus import load_rows
from transcoders.files import write_json
from transcoders.layout import Layout
from transcoders.models import continue_with_mlp_out, load_model, run_through_site, unembed

SHOWN = [0, 1, 2, 4, 8, 16, 32, 64, 127]


def main(scale: Annotated[str, typer.Option()] = "laptop", contexts: int = 32) -> None:
    layout = Layout(scale)
    settings = load_scale(layout.config)
    sites: dict[str, object] = {}
    for site in settings.all_sites:
        model = load_model(layout.model(site.model))
        tokens = load_rows(layout.tokens(site.model), "eval").tokens[:contexts]
        passed = run_through_site(model, tokens, site.layer)
        rounded = passed.activations.mlp_out.to(DTYPES[settings.activations.dtype]).float()
        logits, found = (
            unembed(model, normalized)
            for normalized in (
                passed.normalized,
                continue_with_mlp_out(model, passed, site.layer, rounded),
            )
        )
        change, same_top = found - logits, found.argmax(-1) == logits.argmax(-1)
        shown = [position for position in SHOWN if position < tokens.shape[1]]
        norms = {
            name: {
                str(position): round(tensor[:, position].norm(dim=-1).mean().item(), 3)
                for position in shown
            }
            for name, tensor in passed.activations._asdict().items()
        }
        sites[site.name] = {
            "mean_norm_by_position": norms,
            "logits_after_rounding": {
                "largest_change": round(change.abs().max().item(), 6),
                "of_their_standard_deviation": round((change.abs().max() / logits.std()).item(), 6),
                "top_token_unchanged": round(same_top.double().mean().item(), 6),
            },
        }
        print(site.name, sites[site.name])
    command = f"python benchmarks/positions.py --scale {scale}"
    record = {"command": command, "contexts": contexts, "sites": sites}
    write_json(Path("benchmarks/positions.json"), record)


if __name__ == "__main__":
    torch.set_num_threads(2)
    typer.run(main)
