"""Tiny models with random transcoders and what was gathered of them, as folders."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from transcoders.case_studies.study_server import StudyFiles
from transcoders.config import Interpretability, Site
from transcoders.corpus import Rows
from transcoders.dictionaries import SparseDictionary
from transcoders.interpretability.gather import gather
from transcoders.models import load_model

N_ROWS, ROW_LENGTH = 16, 10
LAYERS = (0, 2)


@pytest.fixture(scope="session")
def make_files(
    tiny_models: dict[str, Path],
    random_dictionary: Callable[..., SparseDictionary],
    random_tokens: Callable[..., Tensor],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str], StudyFiles]:
    """The files of a study of an architecture: transcoders at layers 0 and 2, after BOS."""
    made: dict[str, StudyFiles] = {}

    def make(architecture: str) -> StudyFiles:
        if architecture not in made:
            root = tmp_path_factory.mktemp(architecture)
            folders = {layer: root / f"layer{layer}_transcoder" for layer in LAYERS}
            for layer, folder in folders.items():
                dictionary = random_dictionary("transcoder", seed=10 + layer)
                dictionary.save_pretrained(folder, {"metadata": {}})
            model = tiny_models[architecture]
            observe(model, folders, random_tokens(N_ROWS, ROW_LENGTH, seed=6), root / "observed")
            made[architecture] = StudyFiles(
                model=model, transcoders=folders, observed=root / "observed", first_position=1
            )
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def files(make_files: Callable[[str], StudyFiles]) -> StudyFiles:
    """Of a single architecture, for what does not depend on it."""
    return make_files("gpt2")


@pytest.fixture(scope="session")
def observe_text() -> Callable[[Path, dict[int, Path], Tensor, Path], None]:
    """To gather what transcoders do on some rows."""
    return observe


def observe(model: Path, folders: dict[int, Path], rows: Tensor, destination: Path) -> None:
    gather(
        load_model(model),
        Rows(rows, torch.zeros(len(rows), dtype=torch.long)),
        {
            folder.name: (Site(model="tiny", layer=layer), SparseDictionary.from_pretrained(folder))
            for layer, folder in folders.items()
        },
        Interpretability.model_construct(
            batch_contexts=8, top_examples=4, sampled_examples=5, background_tokens=20
        ),
        destination,
        first_position=1,
        seed=0,
    )
