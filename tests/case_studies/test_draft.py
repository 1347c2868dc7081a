"""The draft of a study: what a machine can fill in is there, and right; only words are missing."""

import pytest
import yaml

from transcoders.case_studies.draft import write_draft
from transcoders.case_studies.scripts import MOSTLY, SUCCESS, RecordedStudy, carry_out, load_script
from transcoders.checksums import sha256
from transcoders.errors import UserError
from transcoders.layout import Layout
from workflow.running import python

SCALE, FEATURE = "llama", "tc1[41]"


@pytest.fixture(scope="module")
def draft(repository):
    """What the command writes, as a user gives it."""
    command = ("study", "new", FEATURE, "--scale", SCALE, "--drawn")
    done = python(repository, "-m", "transcoders", *command)
    assert done.returncode == 0, done.stderr
    assert "Wrote tc1-41.yaml" in done.stdout
    path = repository / "tc1-41.yaml"
    assert list(repository.rglob(path.name)) == [path]  # no record that an edit would break
    return path.read_text(encoding="utf-8")


def finished(draft, path):
    fields = {
        "analyst": "I.", "hypothesis": "Words.", "pattern": "⟦", "afterwards": "So it was.",
    }  # fmt: skip
    for key, words in fields.items():
        draft = draft.replace(f"{key}:\n", f"{key}: {words}\n")
    path.write_text(draft, encoding="utf-8")
    return path


def test_with_words_in_it_a_draft_is_a_study_that_can_be_carried_out(draft, tmp_path):
    script = load_script(finished(draft, tmp_path / "mine.yaml"))
    row = carry_out("mine", script, SCALE, tmp_path / "study", "cpu")
    assert row["outcome"] != "other weights" and row["drawn"]
    record = RecordedStudy(tmp_path / "study")
    for step in script.steps:  # a question that was refused would raise here
        record.ask(step.question[0], **step.question[1])
    names = [step.question[0] for step in script.steps]
    assert names == ["examples", "de_embedding", "direct_logits", "connections", "circuit"]
    best = record.examples().iloc[0]
    assert script.steps[-1].question[1] == {"row": best["row"], "position": best["position"]}


def test_the_draft_names_what_is_studied_and_how_it_is_scored(draft):
    weights = Layout(SCALE).dictionary("tiny-llama_layer1_transcoder_l1-0.5")
    assert yaml.safe_load(draft)["weights_sha256"] == sha256(weights / "sae_weights.safetensors")
    head = " ".join(line.lstrip("# ") for line in draft.splitlines() if line.startswith("#"))
    assert weights.name in head and f"at the scale {SCALE}" in head
    assert f"BlindStudy('{SCALE}', feature='{FEATURE}', restricted=False, transcript=" in head
    assert f"{SUCCESS} or more is a success, {MOSTLY} or more is mostly right" in head


def test_a_draft_without_a_hypothesis_is_no_study(draft, tmp_path):
    (tmp_path / "mine.yaml").write_text(draft, encoding="utf-8")
    with pytest.raises(UserError, match=r"analyst: .*hypothesis: .*pattern: .*afterwards: "):
        load_script(tmp_path / "mine.yaml")


def test_a_file_is_not_written_over_and_an_unknown_feature_is_named(tmp_path):
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"there.yaml: this file exists already"):
        write_draft(tmp_path / "there.yaml", SCALE, FEATURE, drawn=False, restricted=False)
    assert (tmp_path / "there.yaml").read_text() == "mine"
    with pytest.raises(UserError, match=r"tc1\[9999\]"):
        write_draft(tmp_path / "new.yaml", SCALE, "tc1[9999]", drawn=False, restricted=False)
    assert not (tmp_path / "new.yaml").exists()
