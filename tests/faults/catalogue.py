"""All faults that the campaign tries, by family."""

import os
import re
import signal
import subprocess
from functools import partial
from pathlib import Path

from faults.injection import (
    LAYOUT,
    Ended,
    WrongResultError,
    judged,
    made_by,
    remove_outputs,
    resumes,
    run,
)
from workflow.running import snakemake

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
COMMANDS = [tuple(each.split()) for each in re.split("[;\n]", LINES.strip())]
"""One of every kind that the workflow runs."""

# ---- Killed ------------------------------------------------------------------------------------


def kills():
    """SIGKILL to every command, at five moments."""
    for command in COMMANDS:
        for moment in ("start", "first third", "second third", "end", "half a file"):
            yield f"killed: {' '.join(command)}: {moment}", partial(_kill, command, moment)


def _kill(command, when, prepared, folder):
    written = prepared.writing(folder, command)
    renamed = [number for number, (what, _) in enumerate(written, 1) if what == "os.rename"]
    moment = {
        "start": "1",
        "first third": str(1 + len(written) // 3),
        "second third": str(1 + 2 * len(written) // 3),
        "end": str(len(written)),
        "half a file": f"{renamed[0]}torn",
    }[when]
    prepared.copy(folder)
    remove_outputs(folder, written)
    ended = run(folder, command, moment=moment)
    if ended.status != -signal.SIGKILL:
        raise WrongResultError(f"it was not killed but ended with {ended.status}: {ended.said}")
    return resumes(prepared, folder, command)


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


def damage():
    """Files of every kind changed before what reads them runs, or after all is done."""
    for line in FILES.strip().splitlines():
        name, command, other = line.split(" | ")
        path = f"{RESULTS}/{name}"
        for how in ("one bit", "half", "empty", "exchanged"):
            given = (path, command.split(), f"{RESULTS}/{other}", how)
            yield f"damaged: {path}: {how}", partial(_damage, *given)
        if path.endswith((".csv", ".json")) and "/activ" not in path:
            yield f"damaged, all done: {path}", partial(_found_at_start, path)


def _damage(path, command, other, how, prepared, folder):
    prepared.copy(folder)
    spoil(folder, path, other, how)
    damaged = [path, other] if how == "exchanged" else [path]
    names = [Path(path).name, str(Path(path).parent)]
    return judged(prepared, folder, run(folder, command), names=names, damaged=damaged)


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
    done = snakemake(folder, "--dry-run", "--config", "scale=smoke", expect_success=False)
    ended = Ended(done.returncode, done.stderr + done.stdout)
    return judged(prepared, folder, ended, names=[path], damaged=[path])


# ---- A disk without room -----------------------------------------------------------------------


def full_disks():
    """A file system with room for less than a command writes; then with room for all."""
    for command in COMMANDS:
        yield f"disk full: {' '.join(command)}: 4 kB left", partial(_full_disk, command)


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
        ended, names = run(folder, command), ["No space left", "needs"]
        ending = judged(prepared, folder, ended, names=names, but=made_by(written))
        if partial_files := list(mounted.rglob(".*.partial*")):
            raise WrongResultError(f"left behind: {partial_files}")
        _mount(mounted, "remount,size=200m")
        resumes(prepared, folder, command)
        return ending
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def _mount(folder, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


def all_faults():
    """A function that tries each fault, by the family and the name of the fault.

    It takes the run without faults and a folder for a copy, and says ``resumed`` or ``refused``.
    """
    return dict([*kills(), *damage(), *full_disks()])
