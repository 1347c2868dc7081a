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
    ANSWERS,
    MOSTLY,
    SUCCESS,
    TABLE4_COLUMNS,
    TRANSCRIPT,
    RecordedStudy,
    StudyScript,
    carry_out,
    load_script,
    score,
    write_draft,
)
from transcoders.case_studies.seen import heading, seen, shaded
from transcoders.checksums import sha256
from transcoders.errors import UserError
from transcoders.files import read_json, write_table
from transcoders.layout import Layout
from workflow.running import python

SCALE, FEATURE = "smoke", "tc1[41]"
REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = [
    {"thought": "Where?", "ask": {"examples": {}}},
    {"thought": "What?", "ask": {"connections": {"vector": FEATURE, "layer": 0, "k": 2}}},
    {"thought": "Why?", "ask": {"circuit": {"row": 0, "position": 5, "n_paths": 3}}},
    {"thought": "Which token?", "ask": {"tokens": {"row": 0}}},
]  # fmt: skip


def study_script(**changes):
    content = {
        "title": "A feature", "analyst": "I, who knew nothing.",
        "feature": FEATURE, "drawn": True, "weights_sha256": "none",
        "steps": STEPS,
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
    answers = read_json(folder / ANSWERS)
    assert study.facts == answers[0] and study.facts["feature"] == FEATURE
    assert study.ask("examples") == answers[1]
    assert len(study.connections(FEATURE, 0, k=2)) == 2
    assert study.circuit(0, 5, n_paths=3).paths
    revealed = study.reveal("Words.")
    assert revealed.seal == study.seal and revealed.examples["text"].str.contains("⟦").all()
    for question, arguments in (
        ("connections", {"vector": FEATURE, "layer": 0, "k": 3}),
        ("de_embedding", {"vector": FEATURE}),
        ("reveal", {"hypothesis": "Other words."}),
    ):
        with pytest.raises(RefusedError, match="was not asked"):
            study.ask(question, **arguments)
    with pytest.raises(RefusedError, match="does not answer this"):
        study.ask("tokens", row=0)


def test_the_same_study_gives_the_same_bytes(worked, tmp_path):
    row = carry_out("mine", study_script(), SCALE, tmp_path / "again", "cpu")
    assert row == worked[1] and list(row) == TABLE4_COLUMNS
    assert row["outcome"] == "other weights" and row["silent_matched"] == 1
    for name in (TRANSCRIPT, ANSWERS):
        assert (tmp_path / "again" / name).read_bytes() == (worked[0] / name).read_bytes()


def test_an_answer_that_was_not_given_is_refused(folder, tmp_path):
    copied = Path(shutil.copytree(folder, tmp_path / "study"))
    answers = read_json(copied / ANSWERS)
    for changed in (answers[:-1], [*answers[:4], ["w5"], *answers[5:]]):  # this was refused
        (copied / ANSWERS).write_text(json.dumps(changed))
        with pytest.raises(UserError, match="whose digests are in"):
            RecordedStudy(copied)


def test_a_hypothesis_is_scored_as_a_rule(folder):
    study = RecordedStudy(folder)
    examples = study.reveal("Words.").examples
    silent = ["a⟦b⟧c", "x⟦y⟧z", "a⟦b⟧", "⟦⟧"]

    def scored(pattern):
        return score("mine", study_script(pattern=pattern), study, silent, "none")

    for pattern, share in (("⟦.*⟧", 1), ("never there", 0)):
        row = scored(pattern)
        assert row["top_matched"] == row["sampled_matched"] == row["silent_matched"] == share
        assert (row["balanced_accuracy"], row["outcome"]) == (0.5, "failure")
    half = scored("⟦(?!b).+⟧")
    assert half["silent_matched"] == 0.25
    assert half["balanced_accuracy"] == (half["sampled_matched"] + 0.75) / 2
    top = examples.loc[examples["kind"] == "top", "text"]
    share = (top == top.iloc[0]).mean()
    assert scored(f"^{re.escape(top.iloc[0])}$")["top_matched"] == share


def test_outcomes_follow_the_rule(folder):
    study = RecordedStudy(folder)
    # Every place where the feature is active matches, and so do some where it is silent.
    for matched, outcome in ((2, "success"), (3, "mostly"), (4, "failure")):  # 0.8, 0.7 and 0.6
        silent = ["⟦a⟧"] * matched + ["a"] * (5 - matched)
        assert score("mine", study_script(), study, silent, "none")["outcome"] == outcome
        assert score("mine", study_script(), study, silent, "x")["outcome"] == "other weights"


def test_a_file_that_is_missing_or_not_valid_says_so(tmp_path):
    path = tmp_path / "mine.yaml"
    (tmp_path / "other.yaml").touch()
    with pytest.raises(UserError, match=r"mine.yaml: no such case study; there are other"):
        load_script(path)
    two = [{"thought": "Two", "ask": {"examples": {}, "circuit": {}}}]
    for changes, message in (
        ({"pattern": "("}, "pattern: .*regular expression"),
        ({"feature": "tc1[41]@4"}, "feature: "),
        ({"steps": two, "hypotheses": "Two"}, "steps.0.ask: .*hypotheses: "),
    ):
        path.write_text(yaml.safe_dump(study_script().model_dump(mode="json") | changes))
        with pytest.raises(UserError, match=f"{path}: the case study is not valid: .*{message}"):
            load_script(path)


@pytest.mark.parametrize(
    ("outcome", "verdict"),
    [("success", "**The hypothesis was right.** "), ("other weights", "than its numbers.** ")],
)
def test_a_notebook_asks_what_the_study_asked(worked, tmp_path, outcome, verdict):
    (folder, row), table, source = worked, tmp_path / "table4.csv", tmp_path / "mine.yaml"
    write_table(table, pd.DataFrame([row | {"outcome": outcome}]))
    source.write_text(yaml.safe_dump(study_script().model_dump(mode="json")))
    notebook = study_notebook(source, study_script(), folder, table)
    nbformat.validate(notebook)
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert code[1:4] == [
        "HTML(seen(study.examples()))",
        'HTML(seen(study.connections(vector="tc1[41]", layer=0, k=2)))',
        "HTML(seen(study.circuit(row=0, position=5, n_paths=3)))",
    ]
    assert not any("tokens" in line for line in code)
    names = {"seen": seen, "shaded": shaded, "HTML": str, "Path": Path, "load_script": load_script}
    for line in code[1:]:
        exec(line, {"study": RecordedStudy(folder), **names})
    text = "\n".join(cell.source for cell in notebook.cells)
    assert "`study.tokens(row=0)`: refused. tokens: a blind study does not answer this" in text
    order = [
        text.index(part)
        for part in ("I, who", "Where?", "Why?", "## The guess", verdict, "So it was.")
    ]
    assert order == sorted(order)


def test_an_answer_is_a_sentence_and_the_whole_of_it_is_folded_away(folder):
    study = RecordedStudy(folder)
    circuit = study.circuit(0, 5, n_paths=3)
    for answer, said, folded in (
        (study.examples(), "strongest places are in", "<td>1</td>"),
        (study.connections(FEATURE, 0, k=2), "<code>tc0[", "<td>+"),
        (circuit, f"<pre>{escape(circuit.table(3))}</pre>", "<pre>"),
    ):
        sentence, fold = seen(answer).split("<details>")
        assert said in sentence and "<table" not in sentence
        assert folded in fold or folded.replace("+", "-") in fold
    words = pd.DataFrame({"token": [f"<t{i}>\n" for i in range(9)], "value": 1.0})
    assert seen(words).count("&lt;t0&gt;⏎</code>") == 1 and "&lt;t8&gt;⏎</code>" not in seen(words)
    rows = pd.Series([0.0, 2.0, 1.0], index=[4, 5, 6], name="activation")
    assert "active at 2 of 3 positions, most at position 5 (2.00)" in seen(rows)
    assert "<code>tc1[41] &lt;- attn0[1]</code>" in seen("tc1[41] <- attn0[1]")


def test_revealed_texts_are_shaded_by_activation_and_ticked_where_the_guess_holds():
    texts = ["<b>⟦one⟧ more\n", "⟦two⟧", *["⟦z⟧"] * 8]
    examples = pd.DataFrame({"activation": [4.0, 2.0, *[1.0] * 8], "text": texts})
    shown, folded = shaded(examples, "⟦one").split("<details>")
    first, second = shown.split("<li>")[1:3]
    assert "4.00 ✓" in first and "2.00 ✗" in second
    assert '&lt;b&gt;<mark style="background: rgba(0, 114, 178, 0.60)">one</mark> more⏎' in first
    assert "0.35" in second
    assert shown.count("<li>") + folded.count("<li>") == 10


def test_questions_have_plain_words():
    assert heading("de_embedding", {"vector": "tc0[1]"}) == "Which tokens drive tc0[1] most?"
    asked = {"vector": "tc0[1]", "largest": False}
    assert heading("de_embedding", asked) == "Which tokens drive tc0[1] least?"
    assert heading("circuit", {"row": 2}) == "circuit"  # it was refused
    assert heading("tokens", {"row": 0}) == "tokens"


# Drafts.


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
    path, finished = tmp_path / "mine.yaml", draft
    path.write_text(draft, encoding="utf-8")
    with pytest.raises(UserError, match=r"analyst: .*hypothesis: .*pattern: .*afterwards: "):
        load_script(path)
    for key in ("analyst", "hypothesis", "pattern", "afterwards"):
        finished = finished.replace(f"{key}:\n", f"{key}: Words.\n")
    path.write_text(finished, encoding="utf-8")
    script = load_script(path)
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


def test_a_file_is_not_written_over_and_an_unknown_feature_is_named(tmp_path):
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(UserError, match=r"there.yaml: this file exists already"):
        write_draft(tmp_path / "there.yaml", SCALE, FEATURE, drawn=False, restricted=False)
    assert (tmp_path / "there.yaml").read_text() == "mine"
    with pytest.raises(UserError, match=r"tc1\[9999\]"):
        write_draft(tmp_path / "new.yaml", SCALE, "tc1[9999]", drawn=False, restricted=False)
    assert not (tmp_path / "new.yaml").exists()


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
