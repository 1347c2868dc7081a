"""Other families than the smoke scale's run the whole workflow from a copied scale file."""

import pandas as pd
import pytest

from workflow.running import snakemake, workspace

OTHERS = {
    "tiny-gpt2": ("tiny-opt", "gpt2", "opt"),
    "tiny-neox": ("tiny-gemma", "gpt_neox", "gemma2"),
    "tiny-llama": ("tiny-qwen", "llama", "qwen2"),
}


@pytest.mark.full
def test_a_qwen_a_gemma_and_an_opt_run_end_to_end(tmp_path):
    folder = workspace(tmp_path / "families")
    scale = (folder / "config/smoke.yaml").read_text()
    for old, (new, old_family, new_family) in OTHERS.items():
        scale = scale.replace(old, new)
        scale = scale.replace(f"architecture: {old_family},", f"architecture: {new_family},")
    (folder / "config/families.yaml").write_text(scale)
    snakemake(folder, "--config", "scale=families")
    table = pd.read_csv(folder / "results/families/evaluation.csv")
    assert {"tiny-opt", "tiny-gemma", "tiny-qwen"} == set(table["model"])
    assert table[["l0", "ce", "kl", "fvu", "l2_ratio"]].notna().all().all()
    assert (folder / "results/families/claims.csv").exists()
