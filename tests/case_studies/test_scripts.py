"""Case studies: written down, carried out again, read from their record, scored."""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from markupsafe import escape

from transcoders.case_studies.harness import RefusedError
from transcoders.case_studies.page import study_notebook
from transcoders.case_studies.scripts import (
    RecordedStudy,
    StudyScript,
    carry_out,
    load_script,
    score,
    write_draft,
)
from transcoders.case_studies.seen import seen, shaded
from transcoders.errors import UserError
from transcoders.files import read_json, write_table
from workflow.running import python

SCALE, FEATURE = "smoke", "tc1[41]"
REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = [
    {"thought": "Where?", "ask": {"examples": {}}},
    {"thought": "What?", "ask": {"connections": {"vector": FEATURE, "layer": 0, "k": 2}}},
    {"thought": "Why?", "ask": {"circuit": {"row": 0, "position": 5, "n_paths": 3}}},
    {"thought": "Which token?", "ask": {"tokens": {"row": 0}}},
    {"thought": "And?", "ask": {"pull_back": {"vector": FEATURE, "through": "attn0[1]"}}},
    {"thought": "And?", "ask": {"de_embedding": {"vector": FEATURE, "k": 9}}},
    {"thought": "And?", "ask": {"direct_logits": {"feature": FEATURE}}},
    {"thought": "And?", "ask": {"activations": {"row": 0}}},
]  # fmt: skip


def study_script(**changes):
    content = {
        "title": "A feature", "analyst": "I, who knew nothing.",
        "feature": FEATURE, "drawn": True, "weights_sha256": "none", "steps": STEPS,
        "hypothesis": "Words.", "pattern": "⟦.*⟧", "afterwards": "So it was.",
    }  # fmt: skip
    return StudyScript.model_validate(content | changes)


@pytest.fixture(scope="module")
def worked(repository, tmp_path_factory):
    """Where :func:`study_script` has been carried out, and its row of Table 4."""
    place = tmp_path_factory.mktemp("worked") / "study"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository)
        return place, carry_out("mine", study_script(), SCALE, place, "cpu")


@pytest.fixture
def folder(worked):
    return worked[0]


def test_a_record_answers_what_was_asked_and_nothing_else(folder):
    study = RecordedStudy(folder)
    assert [study.facts, study.ask("examples")] == read_json(folder / "answers.json")[:2]
    revealed = study.reveal("Words.")
    assert revealed.seal == study.seal and revealed.examples["text"].str.contains("⟦").all()
    with pytest.raises(RefusedError, match="was not asked"):
        study.connections(FEATURE, 0, k=3)
    with pytest.raises(RefusedError, match="was not asked"):
        study.reveal("Other words.")
    with pytest.raises(RefusedError, match="does not answer this"):
        study.ask("tokens", row=0)


def test_the_same_study_gives_the_same_bytes(worked, tmp_path):
    row = carry_out("mine", study_script(), SCALE, tmp_path / "again", "cpu")
    assert row == worked[1]
    assert row["outcome"] == "other weights" and row["silent_matched"] == 1
    for name in ("transcript.json", "answers.json"):
        assert (tmp_path / "again" / name).read_bytes() == (worked[0] / name).read_bytes()


def test_an_answer_that_was_not_given_is_refused(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "study"))
    answers = read_json(copied / "answers.json")
    for changed in (answers[:-1], [*answers[:4], ["w5"], *answers[5:]]):  # this was refused
        (copied / "answers.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match="whose digests are in"):
            RecordedStudy(copied)


def test_a_hypothesis_is_scored_as_a_rule(folder):
    study = RecordedStudy(folder)
    texts = study.reveal("Words.").examples.groupby("kind")["text"]
    # The best text is matched wherever it is active, and once in four where it is silent.
    best = texts.get_group("top").iloc[0]
    script, silent = study_script(pattern=f"^{re.escape(best)}$"), ["a⟦b⟧c", best, "a⟦b⟧", "⟦⟧"]
    row = score("mine", script, study, silent, "none")
    for kind in ("top", "sampled"):
        assert row[f"{kind}_matched"] == (texts.get_group(kind) == best).mean()
    assert row["silent_matched"] == 0.25
    assert row["balanced_accuracy"] == (row["sampled_matched"] + 0.75) / 2
    # Every place where the feature is active matches, and so do some where it is silent.
    for matched, outcome in ((2, "success"), (3, "mostly"), (4, "failure")):  # 0.8, 0.7 and 0.6
        silent = ["⟦a⟧"] * matched + ["a"] * (5 - matched)
        assert score("mine", study_script(), study, silent, "none")["outcome"] == outcome


def test_a_file_that_is_missing_or_not_valid_says_so(tmp_path):
    path = tmp_path / "mine.yaml"
    (tmp_path / "other.yaml").touch()
    with pytest.raises(UserError, match=r"mine.yaml: no such case study; there are other"):
        load_script(path)
    wrong = {"feature": "tc1[41]@4", "pattern": "(", "hypotheses": "Two"}
    path.write_text(yaml.safe_dump(study_script().model_dump(mode="json") | wrong))
    with pytest.raises(UserError, match=f"{path}: .* not valid: feature: .*pattern: .*hypotheses"):
        load_script(path)


def test_a_notebook_asks_what_the_study_asked(worked, tmp_path):
    (folder, row), table, source = worked, tmp_path / "table4.csv", tmp_path / "mine.yaml"
    write_table(table, pd.DataFrame([row | {"outcome": "success"}]))
    source.write_text(yaml.safe_dump(study_script().model_dump(mode="json")))
    notebook = study_notebook(source, study_script(), folder, table)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert code[1:4] == [
        "HTML(seen(study.examples()))",
        'HTML(seen(study.connections(vector="tc1[41]", layer=0, k=2)))',
        "HTML(seen(study.circuit(row=0, position=5, n_paths=3)))",
    ]
    names = {"seen": seen, "shaded": shaded, "HTML": str, "Path": Path, "load_script": load_script}
    for line in code[1:]:
        exec(line, {"study": RecordedStudy(folder), **names})
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "`study.tokens(row=0)`: refused. tokens: a blind study does not answer this" in text
    said = ("I, who", "Where?", "Which features of layer 0 move tc1[41] most?", "Why?",
            "## The guess", "**The hypothesis was right.** ", "So it was.")  # fmt: skip
    order = [text.index(part) for part in said]
    assert order == sorted(order)


def test_an_answer_is_a_sentence_and_the_whole_of_it_is_folded_away(folder):
    circuit = RecordedStudy(folder).circuit(0, 5, n_paths=3)
    assert f"<pre>{escape(circuit.table(3))}</pre><" in seen(circuit)
    words = pd.DataFrame({"token": [f"<t{i}>\n" for i in range(9)], "value": 1.0})
    sentence, fold = seen(words).split("<details>")
    assert "&lt;t0&gt;⏎</code>" in sentence and "&lt;t8&gt;" not in sentence and "t8&gt;" in fold


def test_revealed_texts_are_shaded_by_activation_and_ticked_where_the_guess_holds():
    texts = ["<b>⟦one⟧ more\n", "⟦two⟧", *["⟦z⟧"] * 8]
    examples = pd.DataFrame({"activation": [4.0, 2.0, *[1.0] * 8], "text": texts})
    _, first, second, *rest = shaded(examples, "⟦one").split("<li>")
    assert "4.00 ✓" in first and "2.00 ✗" in second and "0.35" in second and len(rest) == 8
    assert '&lt;b&gt;<mark style="background: rgba(0, 114, 178, 0.60)">one</mark> more⏎' in first


# Drafts.

WORDS = "analyst|hypothesis|pattern|afterwards"
"""What is left to write."""


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


def test_with_words_in_it_a_draft_is_a_study_that_can_be_carried_out(draft, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(draft, encoding="utf-8")
    with pytest.raises(UserError, match=WORDS.replace("|", ": .*")):
        load_script(path)
    path.write_text(re.sub(rf"(?m)^({WORDS}):$", r"\1: Words.", draft), encoding="utf-8")
    script = load_script(path)
    row = carry_out("mine", script, SCALE, tmp_path / "study", "cpu")
    assert row["outcome"] != "other weights" and row["drawn"]
    record = RecordedStudy(tmp_path / "study")
    for step in script.steps:  # a question that was refused would raise here
        record.ask(step.question[0], **step.question[1])
    best = record.examples().iloc[0]
    assert script.steps[-1].question[1] == {"row": best["row"], "position": best["position"]}
    head = " ".join(line.lstrip("# ") for line in draft.splitlines() if line.startswith("#"))
    assert f"BlindStudy('{SCALE}', feature='{FEATURE}', restricted=False, transcript=" in head
    assert "0.8 or more is a success, 0.65 or more is mostly right" in head


def test_a_file_is_not_written_over_and_an_unknown_feature_is_named(tmp_path):
    (tmp_path / "there.yaml").write_text("mine")
    for name, feature, message in (
        ("there", FEATURE, "there.yaml: this file exists already"),
        ("new", "tc1[9999]", r"tc1\[9999\]"),
    ):
        with pytest.raises(UserError, match=message):
            write_draft(tmp_path / f"{name}.yaml", SCALE, feature, drawn=False, restricted=False)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


# What is committed.


COMMITTED = sorted((REPOSITORY / "workflow/case_studies").glob("[!s]*/*.yaml"))  # not smoke's


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_studies_are_whole_and_as_they_were_written(path):
    worked, name = load_script(path), path.stem
    results = REPOSITORY / "results" / path.parent.name / "case_studies"
    study = RecordedStudy(results / name)
    assert study.facts["feature"] == worked.feature and study.hypothesis == worked.hypothesis
    for step in worked.steps:
        study.ask(step.question[0], **step.question[1])
    row = pd.read_csv(results / "table4.csv").set_index("study").loc[name]
    assert row["seal"] == study.seal and row["pattern"] == worked.pattern.pattern
