"""One run of the whole workflow, shared by the tests that look at what came out."""

from pathlib import Path

import pytest

from workflow.running import snakemake, workspace


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``snakemake --config scale=smoke`` has run."""
    folder = workspace(tmp_path_factory.mktemp("smoke") / "run")
    snakemake(folder, "--config", "scale=smoke")
    return folder
