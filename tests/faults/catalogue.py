"""All faults that the campaign tries, by family."""

import os
import re
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import NamedTuple

import yaml

from faults.injection import (
    LAYOUT,
    Event,
    Fault,
    Prepared,
    WrongResultError,
    events,
    judged,
    made_by,
    remove_outputs,
    resumes,
    run,
    snakemake,
)

Command = tuple[str, ...]
RESULTS = str(LAYOUT.results)
TRANSCODER = "tiny-gpt2_layer1_transcoder_l1-0.5"
SAE = "tiny-gpt2_layer1_mlp_out_sae_l1-0.5"
RATED = "tiny-llama_layer1_transcoder_l1-0.5"
OBSERVED = f"interpretability/observed/{RATED}"
CACHED = "activations/tiny-gpt2_layer1"
EVALUATE = "evaluate tiny-gpt2_layer1"
LINES = """
fetch-model tiny-gpt2; fetch-corpus; tokenize tiny-gpt2; manifest; cache-activations tiny-gpt2
train tiny-gpt2; evaluate tiny-gpt2_layer1; collect-tables; find-circuits tiny-llama
check-features; greater-than; gather-examples; measure-features; study-features
gather-activity tiny-llama; label-features; circuit-page tiny-feature
feature-browser; table1; case-studies; judge-claims
record-environment; landing-page; notebook figure3; notebook circuits; case-study-page first
"""
COMMANDS: list[Command] = [tuple(each.split()) for each in re.split("[;\n]", LINES.strip())]
"""One of every kind that the workflow runs."""

# ---- Killed ------------------------------------------------------------------------------------


def kills():
    """SIGKILL to every command, at five moments."""
    for command in COMMANDS:
        for moment in ("start", "first third", "second third", "end", "half a file"):
            yield Fault("killed", f"{' '.join(command)}: {moment}", partial(_kill, command, moment))


def _kill(command, when, prepared, folder):
    written = prepared.writing(folder, command)
    renamed = [number for number, event in enumerate(written, 1) if event.what == "os.rename"]
    moment = {
        "start": "1",
        "first third": str(1 + len(written) // 3),
        "second third": str(1 + 2 * len(written) // 3),
        "end": str(len(written)),
        "half a file": f"{renamed[0]}torn",
    }[when]
    prepared.copy(folder)
    remove_outputs(folder, written)
    _killed(run(folder, command, moment=moment))
    return resumes(prepared, folder, command)


def _killed(ended):
    if ended.status != -signal.SIGKILL:
        raise WrongResultError(f"it was not killed but ended with {ended.status}: {ended.said}")


# ---- Damaged -----------------------------------------------------------------------------------

# A file below the results, what reads it, and another file of its kind to exchange it with.
FILES = f"""
models/tiny-gpt2/model.safetensors | cache-activations tiny-gpt2 | models/tiny-llama/model.safetensors
models/tiny-gpt2/config.json | cache-activations tiny-gpt2 | models/tiny-llama/config.json
models/tiny-gpt2/source.json | cache-activations tiny-gpt2 | models/tiny-llama/source.json
models/tiny-gpt2/tokenizer.json | tokenize tiny-gpt2 | models/tiny-llama/tokenizer.json
corpus/documents.parquet | tokenize tiny-gpt2 | {OBSERVED}/features.parquet
corpus/tiny-gpt2/train.safetensors | cache-activations tiny-gpt2 | corpus/tiny-gpt2/eval.safetensors
corpus/tiny-gpt2/tokens.json | manifest | models/tiny-gpt2/source.json
corpus/manifest.json | train tiny-gpt2 | corpus/tiny-gpt2/tokens.json
{CACHED}/shard-00000.safetensors | train tiny-gpt2 | {CACHED}/shard-00001.safetensors
{CACHED}/activations.json | train tiny-gpt2 | activations/tiny-neox_layer1/activations.json
dictionaries/{TRANSCODER}/sae_weights.safetensors | {EVALUATE} | dictionaries/{SAE}/sae_weights.safetensors
dictionaries/{TRANSCODER}/cfg.json | {EVALUATE} | dictionaries/{SAE}/cfg.json
evaluation/tiny-gpt2_layer1.csv | collect-tables | evaluation/tiny-neox_layer1.csv
evaluation.csv | notebook figure3 | evaluation/tiny-neox_layer1.csv
circuits/tiny-feature/paths.json | notebook circuits | circuits/tiny-logits/paths.json
interpretability/activity/tiny-llama/active.parquet | label-features | {OBSERVED}/features.parquet
labels.csv | circuit-page tiny-feature | circuits/tiny-feature/ablation.csv
circuits/feature_checks.csv | notebook circuits | circuits/tiny-logits/ablation.csv
greater_than/summary.json | notebook greater_than | interpretability/table1.json
greater_than/where.csv | notebook greater_than | greater_than/curves.csv
interpretability/observed/text.safetensors | measure-features | {OBSERVED}/background.safetensors
{OBSERVED}/examples.parquet | measure-features | {OBSERVED}/features.parquet
interpretability/table1.csv | notebook interpretability | interpretability/automatic.csv
case_studies/systematic.csv | notebook case_studies | case_studies/systematic_summary.csv
case_studies/first/transcript.json | case-study-page first | case_studies/first/answers.json
claims.csv | landing-page | evaluation.csv
environment.json | notebook claims | greater_than/summary.json
"""  # noqa: E501  (a row of a table cannot be broken)


class Damaged(NamedTuple):
    """A file to damage, the command that reads it, and a file to exchange it with."""

    path: str
    command: Command
    other: str


def _damaged(line):
    path, command, other = line.split(" | ")
    return Damaged(f"{RESULTS}/{path}", tuple(command.split()), f"{RESULTS}/{other}")


READERS = [_damaged(line) for line in FILES.strip().splitlines()]


def damage():
    """Files of every kind changed before what reads them runs, or after all is done."""
    for file in READERS:
        for how in ("one bit", "half", "empty", "exchanged"):
            yield Fault("damaged", f"{file.path}: {how}", partial(_damage, file, how))
        if file.path.endswith((".csv", ".json")) and "/activ" not in file.path:
            yield Fault("damaged, all done", file.path, partial(_found_at_start, file.path))


def _damage(file, how, prepared, folder):
    prepared.copy(folder)
    spoil(folder, file.path, file.other, how)
    return judged(
        prepared, folder, run(folder, file.command),
        names=[Path(file.path).name, str(Path(file.path).parent)],
        damaged=[file.path, *([file.other] if how == "exchanged" else [])],
    )  # fmt: skip


def spoil(folder, path, other, how):
    """Damage a file and leave its time as it was, as a bad disk does."""
    file = folder / path
    content, time_before = file.read_bytes(), file.stat().st_mtime_ns
    if how == "exchanged":
        partner = folder / other
        file.write_bytes(partner.read_bytes())
        partner.write_bytes(content)
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"one bit": flipped, "half": content[:middle], "empty": b""}[how])
    os.utime(file, ns=(time_before, time_before))


def _found_at_start(path, prepared, folder):
    prepared.copy(folder)
    spoil(folder, path, "", "one bit")
    return judged(prepared, folder, snakemake(folder, "--dry-run"), names=[path], damaged=[path])


def checkpoints():
    """A training job killed, and its checkpoint changed before it goes on."""
    for how in ("one bit", "half", "empty", "another job's"):
        yield Fault("damaged", f"checkpoint: {how}", partial(_checkpoint, how))


def _interrupted(folder, group):
    """Kill a training job after its first checkpoint, whose path this is."""
    name = str(LAYOUT.checkpoint(group))
    run(folder, ("train", group))
    renamed = events(folder).index(Event("os.rename", name))
    _killed(run(folder, ("train", group), moment=str(renamed + 2)))
    return name


def _checkpoint(how, prepared, folder):
    prepared.copy(folder)
    name, other = _interrupted(folder, "tiny-gpt2"), ""
    if how == "another job's":
        other = _interrupted(folder, "tiny-neox")
    spoil(folder, name, other, "exchanged" if other else how)
    damaged = [name, *([other] if other else [])]
    return judged(
        prepared, folder, run(folder, ("train", "tiny-gpt2")), names=[name], damaged=damaged
    )


# ---- A disk without room, and settings that change ----------------------------------------------


def full_disks():
    """A file system with room for less than a command writes; then with room for all."""
    for command in COMMANDS:
        yield Fault("disk full", f"{' '.join(command)}: 4 kB left", partial(_full_disk, command))


def _full_disk(command, prepared, folder):
    written = prepared.writing(folder, command)
    prepared.copy(folder)
    mounted, kept = folder / "results", folder / "results.kept"
    mounted.rename(kept)
    mounted.mkdir()
    _mount(mounted, "size=200m")
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", str(mounted)], check=True)
        remove_outputs(folder, written)
        files = [path for path in mounted.rglob("*") if path.is_file()]
        used = sum(-(-path.stat().st_size // 4096) * 4 for path in files)
        _mount(mounted, f"remount,size={used + 4}k")
        ended = run(folder, command)
        ending = judged(
            prepared, folder, ended, names=["No space left", "needs"], but=made_by(written)
        )
        if partial_files := list(mounted.rglob(".*.partial*")):
            raise WrongResultError(f"left behind: {partial_files}")
        _mount(mounted, "remount,size=200m")
        resumes(prepared, folder, command)
        return ending
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def _mount(folder, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def edits():
    """A setting changed after a job was killed: nothing of the old setting may be used."""
    for key, value in (
        ("seed", 43),
        ("training.learning_rate", 4e-3),
        ("training.loss_normalization", "released"),
        ("training.l1_warmup_fraction", 0.5),
    ):
        yield Fault("setting changed", f"{key}, in training", partial(_edit_training, key, value))
    for key, value in (
        ("activations.dtype", "bfloat16"),
        ("activations.batch_contexts", 8),
        ("corpus.train_positions", "all"),
    ):
        yield Fault("setting changed", f"{key}, in caching", partial(_edit_caching, key, value))


def _set(folder, key, value):
    path = folder / LAYOUT.config
    scale = section = yaml.safe_load(path.read_text())
    *parents, last = key.split(".")
    for parent in parents:
        section = section[parent]
    section[last] = value
    path.write_text(yaml.safe_dump(scale, sort_keys=False))


def _edit_training(key, value, prepared, folder):
    prepared.copy(folder)
    name = _interrupted(folder, "tiny-gpt2")
    _set(folder, key, value)
    refused = run(folder, ("train", "tiny-gpt2"))
    ending = judged(prepared, folder, refused, names=[name], but=[name])
    (folder / name).unlink()  # as the message advises
    _same_as_clean(key, value, prepared, folder, ("train", "tiny-gpt2"))
    return ending


def _edit_caching(key, value, prepared, folder):
    command, moment = ("cache-activations", "tiny-gpt2"), "0"
    prepared.copy(folder)
    for _ in range(2):  # to learn what it writes, and to be killed half-way
        (folder / LAYOUT.activations("tiny-gpt2_layer1") / "activations.json").unlink()
        ended = run(folder, command, moment=moment)
        moment = str(len(events(folder)) // 2)
    _killed(ended)
    return _same_as_clean(key, value, prepared, folder, command)


def _same_as_clean(key, value, prepared, folder, command):
    """Change a setting here and in a copy where nothing was interrupted; run both; compare."""
    other = prepared.copy(folder.with_name(f"{folder.name}-clean"))
    for place in (folder, other):
        _set(place, key, value)
        ended = run(place, command)
        if ended.status != 0:
            raise WrongResultError(f"{command} with {key}={value}: {ended.said}")
    if not prepared.differences(other):
        raise WrongResultError(f"{key} changes nothing, so nothing was tried")
    if differences := Prepared.of(other).differences(folder):
        raise WrongResultError(f"other than without the kill: {differences}")
    return "resumed"


FAMILIES = (kills, damage, checkpoints, full_disks, edits)


def all_faults():
    """Every fault of every family."""
    return [fault for family in FAMILIES for fault in family()]
