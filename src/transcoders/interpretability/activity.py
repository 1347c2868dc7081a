"""How active chosen features are on every token of held-out text: what labels are made from.

The features are all that circuits go through, at every layer, and some of the rated dictionaries,
drawn at random. One pass of the model looks at all of them and keeps where they are active.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from transcoders.circuits.export import load_circuit
from transcoders.config import RATED_KINDS, Interpretability, Scale
from transcoders.corpus import Rows
from transcoders.files import (
    made_folder,
    read_json,
    read_table,
    read_tensors,
    save_tensors,
    write_json,
)
from transcoders.interpretability.automatic import live_features
from transcoders.interpretability.examples import FeatureExamples
from transcoders.interpretability.gather import Observed, Placed, load_observed
from transcoders.layout import Layout
from transcoders.models import LanguageModel, mlp_activations
from transcoders.progress import progress_bar

TEXT, CHOSEN, ACTIVE = "text.safetensors", "chosen.json", "active.parquet"


class Activity(NamedTuple):
    """What chosen features of one model do on a text."""

    text: Rows
    chosen: dict[str, list[int]]
    """The features of each dictionary, ascending."""
    active: pd.DataFrame
    """One row per token where a feature is active: ``dictionary, feature, row, position,
    activation``."""

    def of(self, dictionary: str) -> Float[np.ndarray, "feature row position"]:
        """Activations of a dictionary's chosen features, in their order."""
        own = self.active[self.active["dictionary"] == dictionary]
        units = self.chosen[dictionary]
        z = np.zeros((len(units), *self.text.tokens.shape), np.float32)
        place = np.searchsorted(units, own["feature"])
        z[place, own["row"], own["position"]] = own["activation"]
        return z


def chosen_features(scale: Scale, layout: Layout, model: str) -> dict[str, list[int]]:
    """The features of a model that get labels, by dictionary.

    Raises:
        UserError: a circuit, or what was observed of a rated dictionary, is missing or damaged.
    """
    wanted = scale.studied
    chosen: dict[str, set[int]] = {e.name: set() for e in scale.labelled_dictionaries(model)}
    by_layer = {entry.site.layer: entry.name for entry in scale.circuit_transcoders(model)}
    for case in scale.circuits.cases:
        if case.model == model:
            for path in load_circuit(layout.circuit(case.name))[1]:
                if path.node.kind == "feature":
                    chosen[by_layer[path.node.layer]].add(path.node.unit)
    if wanted.rated_site.model == model:
        for name in (scale.rated(kind).name for kind in RATED_KINDS):
            live = live_features(load_observed(layout.observed, name))
            chosen[name] |= set(drawn(live, wanted.rated_features, seed=scale.seed))
    return {name: sorted(units) for name, units in chosen.items()}


def drawn(live: pd.DataFrame, n: int, *, seed: int) -> list[int]:
    """The numbers of n live features, drawn at random."""
    random = np.random.default_rng(seed)
    chosen = random.choice(live["feature"], min(n, len(live)), replace=False)
    return sorted(int(feature) for feature in chosen)


def gather_activity(
    model: LanguageModel,
    text: Rows,
    dictionaries: Placed,
    chosen: Mapping[str, Sequence[int]],
    destination: Path,
    *,
    first_position: int,
    batch_contexts: int,
    device: str = "cpu",
) -> None:
    """Run the model over the text and write where the chosen features are active.

    Args:
        model: the model whose MLPs the dictionaries were trained on.
        text: rows of tokens.
        dictionaries: the dictionaries and their sites, by name.
        chosen: the features of each.
        destination: the folder to write.
        first_position: dictionaries were not trained on earlier positions, so these are left out.
        batch_contexts: rows run together.
        device: the model's device.
    """
    looked_at = {name: placed for name, placed in dictionaries.items() if chosen[name]}
    layers = sorted({site.layer for site, _ in looked_at.values()})
    found = [pd.DataFrame(columns=["dictionary", "feature", "row", "position", "activation"])]
    with progress_bar(text.tokens.numel(), "looking at chosen features") as bar:
        for numbers in torch.arange(len(text.tokens)).split(batch_contexts) if layers else []:
            activations = mlp_activations(model, text.tokens[numbers].to(device), layers)
            for name, (site, dictionary) in looked_at.items():
                read = getattr(activations[site.layer], dictionary.traits.reads)
                z = dictionary.encode(read[:, first_position:])[:, :, list(chosen[name])].cpu()
                row, position, unit = z.nonzero(as_tuple=True)
                table = {
                    "feature": np.array(chosen[name])[unit],
                    "row": numbers[row].numpy(),
                    "position": (position + first_position).numpy(),
                    "activation": z[row, position, unit].numpy(),
                }
                found.append(pd.DataFrame({"dictionary": name, **table}))
            bar.update(len(numbers) * text.tokens.shape[1])
    with made_folder(destination) as folder:
        save_tensors(folder / TEXT, text._asdict())
        write_json(folder / CHOSEN, chosen)
        pd.concat(found).to_parquet(folder / ACTIVE, index=False)


def load_activity(folder: Path) -> Activity:
    """What :func:`gather_activity` wrote.

    Raises:
        UserError: it is not there.
    """
    text = Rows(**read_tensors(folder / TEXT))
    return Activity(text, read_json(folder / CHOSEN), read_table(folder / ACTIVE))


def observed_of(
    z: Float[np.ndarray, "feature row position"],
    units: Sequence[int],
    settings: Interpretability,
    *,
    first_position: int,
    seed: int,
) -> Observed:
    """What is known of chosen features, in the form that pages take, as if there were no others.

    Args:
        z: their activations.
        units: their numbers.
        settings: numbers of examples.
        first_position: where the dictionaries begin.
        seed: of the draw of examples.
    """
    examples = FeatureExamples(
        len(units), n_top=settings.top_examples, n_sampled=settings.sampled_examples, seed=seed
    )
    by_row = torch.from_numpy(z).permute(1, 2, 0)[:, first_position:]
    examples.add(by_row, torch.arange(z.shape[1]), first_position=first_position)
    features, rows = (
        table.assign(feature=np.array(units)[table["feature"]])
        for table in (examples.features(), examples.examples())
    )
    return Observed(features, rows, torch.zeros(0, len(units)))


def tokens_as_texts(tokenizer: Any, tokens: Int[Tensor, "row position"]) -> list[list[str]]:
    """Every token with the blank before it, which some tokenizers leave out at the start."""
    known: dict[int, str] = {}
    for token in tokens.unique().tolist():
        text = tokenizer.decode([token], clean_up_tokenization_spaces=False)
        sign = tokenizer.convert_ids_to_tokens(token)
        known[token] = " " + text if sign[:1] in "▁Ġ" and text[:1] != " " else text
    return [[known[token] for token in row] for row in tokens.tolist()]
