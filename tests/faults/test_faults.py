"""Some of the campaign's faults, one of every sort; `make faults` tries them all."""

import os
import shutil

import pytest

from faults import injection
from faults.catalogue import all_faults
from faults.injection import Prepared, WrongResultError, judged

EVERYDAY = (
    "killed: train tiny-gpt2: half a file",
    "killed: collect-tables: end",
    "damaged: results/smoke/models/tiny-gpt2/model.safetensors: one bit",
    "damaged: results/smoke/corpus/tiny-gpt2/train.safetensors: exchanged",
    "damaged: results/smoke/corpus/manifest.json: half",
    "damaged: results/smoke/evaluation/tiny-gpt2_layer1.csv: one bit",
    "damaged, all done: results/smoke/claims.csv",
    "disk full: collect-tables: 4 kB left",
)


@pytest.fixture(scope="session")
def prepared(run):
    return Prepared(run)


@pytest.mark.parametrize("name", EVERYDAY)
def test_a_fault_is_resumed_from_or_refused(prepared, tmp_path, name):
    if name.startswith("disk full") and os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    ending = all_faults()[name](prepared, tmp_path / "run")
    assert ending == ("resumed" if name.startswith("killed") else "refused")


def test_a_result_that_is_wrong_is_called_wrong(prepared, tmp_path):
    """The judge itself: a change that nobody notices, and one that is not explained."""
    folder = prepared.copy(tmp_path / "run")
    ended = injection.run(folder, ("collect-tables",))
    assert judged(prepared, folder, ended, names=[]) == "resumed"
    page = folder / "results/smoke/notebooks/figure3.html"
    page.write_text(page.read_text().replace("0", "1", 1))
    with pytest.raises(WrongResultError, match=r"these differ: .*figure3\.html"):
        judged(prepared, folder, ended, names=[])
    shutil.rmtree(folder / "results/smoke/evaluation")
    refused = injection.run(folder, ("collect-tables",))
    with pytest.raises(WrongResultError, match="is named"):
        judged(prepared, folder, refused, names=["another file"])
    with pytest.raises(WrongResultError, match="something was made"):
        judged(prepared, folder, refused, names=["tiny-gpt2_layer1.csv"])
