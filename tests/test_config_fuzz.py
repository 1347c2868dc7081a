"""Scale files that were edited at random, from the real ones: accepted whole, or refused by key.

An accepted scale also has a plan. Nothing else may happen, here or on the command line.
"""

import copy
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from transcoders.config import KINDS, Scale, load_scale
from transcoders.errors import UserError
from transcoders.plan import make_plan
from transcoders.short_repr import short_repr

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("laptop", "paper", "published", "smoke")
EXAMPLES = {"laptop": 150, "paper": 100, "published": 250, "smoke": 250}
"""Edited files of each: the longer, the slower."""
Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
KeyPath = tuple[str | int, ...]


def plain(name: str) -> Any:
    """A scale as data in which no two parts are one object, as YAML's aliases are."""
    return json.loads(json.dumps(yaml.safe_load((ROOT / f"config/{name}.yaml").read_text())))


SCALES = {name: plain(name) for name in NAMES}


def paths(part: Any, prefix: KeyPath = ()) -> list[KeyPath]:
    """The path of every value, inner ones included."""
    children = part.items() if isinstance(part, dict) else enumerate(part)
    found: list[KeyPath] = []
    for key, value in children:
        found.append((*prefix, key))
        if isinstance(value, dict | list):
            found += paths(value, (*prefix, key))
    return found


def containers(part: Any, kind: type) -> list[Any]:
    """All mappings or all lists of a scale, the outermost first."""
    inner = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return [part] * isinstance(part, kind) + [c for value in inner for c in containers(value, kind)]


def schema_keys() -> set[str]:
    schema = Scale.model_json_schema()
    return {key for part in (schema, *schema["$defs"].values()) for key in part["properties"]}


KEYS = schema_keys()
HOSTILE = [
    "", " ", "../../x", "/etc/passwd", "a/b", "..", ".", "~", "a\nb", "a: b", "- a", "{a: [", "&a",
    "*a", "!!python/object:os.system", "<<", "=", "#", "'", '"', "é", "\u202e", "\ud7ff",
    "\x1b[31m", "\0", "4e-3", "1e999", "-0", "nan", ".inf", "yes", "null", "0x1F", "1_000",
    "12:30:45", "2024-13-45", "wheel", "hub", "files", "synthetic", "transcoder", "{layer}", "{YY}",
    "topk_transcoder", "tc1[top]", "a" * 1000, "--index-url=http://x", "pkg @ http://x/y.zip",
    "<script>", "gpt2-small", "tiny-llama",
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2**31, 2**63 - 1, 2**63, 2**64, 10**30, 10**330, -(10**330), 0.5, -0.5, 1.5, 1e-320,
    1e308, -1e308, math.inf, -math.inf, math.nan,
]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.sampled_from(NUMBERS)
    | st.sampled_from(HOSTILE)
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=4)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(SCALARS, inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(KEYS)), inner, max_size=3)
    ),
    max_leaves=5,
)


def parent_of(scale: Any, path: KeyPath) -> Any:
    for key in path[:-1]:
        scale = scale[key]
    return scale


@st.composite
def edited(draw: st.DrawFn, names: tuple[str, ...] = NAMES) -> Any:
    """A real scale with one to three edits."""
    scale = copy.deepcopy(SCALES[draw(st.sampled_from(names))])
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        kind = draw(st.sampled_from(sorted(EDITS)))
        EDITS[kind](draw, scale)
    return scale


def some_path(draw: st.DrawFn, scale: Any) -> tuple[Any, Any]:
    """A key and what holds it. The top level is drawn first, or long lists would get every edit."""
    top = draw(st.sampled_from(list(scale) or [None]))
    inner = [path for path in paths(scale) if path[0] == top]
    path = draw(st.sampled_from(inner))
    return parent_of(scale, path), path[-1]


def set_value(draw: st.DrawFn, scale: Any) -> None:
    parent, key = some_path(draw, scale)
    parent[key] = draw(VALUES)


def vary(draw: st.DrawFn, scale: Any) -> None:
    """Another value of the same type, which may well be right."""
    parent, key = some_path(draw, scale)
    others = {
        bool: st.booleans(),
        int: st.sampled_from([0, 1, 2, 3, 8, 100, 10**4, 10**9, 2**40, 2**62, 2**63 - 1]),
        float: st.sampled_from([1e-300, 1e-5, 0.25, 0.9, 1.0, 7.5, 1e6, 1e300]),
        str: st.sampled_from(["cpu", "all", "stream", "bf16", "none", *SCALES, *HOSTILE]),
    }
    parent[key] = draw(others.get(type(parent[key]), st.just(parent[key])))


def delete(draw: st.DrawFn, scale: Any) -> None:
    parent, key = some_path(draw, scale)
    del parent[key]


def add(draw: st.DrawFn, scale: Any) -> None:
    mapping = draw(st.sampled_from(containers(scale, dict)))
    mapping[draw(st.sampled_from(sorted(KEYS)) | SCALARS)] = draw(VALUES)


def rename(draw: st.DrawFn, scale: Any) -> None:
    mapping = draw(st.sampled_from([m for m in containers(scale, dict) if m] or [{"": 0}]))
    key = draw(st.sampled_from(list(mapping)))
    mapping[draw(st.just(f"{key}s") | st.sampled_from(sorted(KEYS)) | SCALARS)] = mapping.pop(key)


def repeat_or_drop(draw: st.DrawFn, scale: Any) -> None:
    entries = draw(st.sampled_from([each for each in containers(scale, list) if each] or [[0]]))
    place = draw(st.integers(0, len(entries) - 1))
    entries[place : place + 1] = [copy.deepcopy(entries[place])] * draw(st.sampled_from([0, 2, 3]))


def swap(draw: st.DrawFn, scale: Any) -> None:
    (one, first), (other, second) = some_path(draw, scale), some_path(draw, scale)
    one_value, other_value = copy.deepcopy(one[first]), copy.deepcopy(other[second])
    one[first], other[second] = other_value, one_value


EDITS = {
    "set": set_value, "vary": vary, "vary again": vary, "delete": delete, "add": add,
    "rename": rename, "repeat or drop": repeat_or_drop, "swap": swap,
}  # fmt: skip


def write(folder: Path, content: Any) -> Path:
    path = folder / "edited.yaml"
    text = content if isinstance(content, str) else yaml.dump(content, Dumper=Dumper)
    path.write_text(text, encoding="utf-8")
    return path


def check_refusal(message: str, path: Path, content: Any) -> None:
    """It begins with the file, and every line says at which key something is wrong."""
    assert message.startswith(f"{path}: ")
    assert len(message) < 200_000
    first, *lines = message.removeprefix(f"{path}: ").split("\n")
    assert (first == "the scale file is not valid" and lines) or first.startswith("name: ")
    keys = [key for mapping in containers(content, dict) for key in mapping]
    known = KEYS | {text for key in keys for text in (short_repr(key), f"{key}")} - {""}
    known |= {"0", "1"}  # so pydantic calls false and true
    known = {"".join(c if c.isprintable() else repr(c)[1:-1] for c in key) for key in known}
    odd = tuple(key for key in known if not re.fullmatch(r"\w+", key))
    for line in lines or [first]:
        assert line.isprintable(), line
        word = re.match(r"\w*", line.removeprefix("  "))
        assert word[0] in known or line.removeprefix("  ").startswith(odd), line


def numbers(plan: Any) -> Iterator[float]:
    for work in plan.works:
        yield from (work.jobs, work.disk, work.gpu_memory, work.download, work.flops or 0)
        yield from (work.resources.threads, work.resources.mem_mb, work.resources.runtime)


def check_plan(scale: Scale, folder: Path) -> None:
    assert not scale.groups or len(scale.dictionaries) >= len(KINDS)
    for gpu_memory in (80.0, None):
        plan = make_plan(scale, results=folder, gpu_memory_gb=gpu_memory, memory_gb=128)
        assert plan.works
        assert all(math.isfinite(number) and number >= 0 for number in numbers(plan))
        assert not re.search(r"\b(nan|inf)\b", " ".join([*plan.does_not_fit, *plan.remarks]))


def load_or_be_refused(content: Any, folder: Path) -> bool:
    """Whether it loads."""
    path = write(folder, content)
    try:
        scale = load_scale(path)
    except UserError as error:
        check_refusal(str(error), path, content)
        return False
    check_plan(scale, folder)
    return True


@pytest.mark.parametrize(("name", "n"), EXAMPLES.items())
def test_an_edited_scale_is_refused_by_key_or_has_a_plan(name: str, n: int, tmp_path: Path) -> None:
    outcomes = []

    @given(edited((name,)))
    @settings(max_examples=n, database=None)
    def check(content: Any) -> None:
        outcomes.append(load_or_be_refused(content, tmp_path))

    check()
    assert len(outcomes) >= n and 0 < sum(outcomes) < len(outcomes)


# A process that has imported what takes seconds, and runs the command line for one file at a time.
RUN_EACH = """
import gc, os, runpy, sys
import pandas, torch, transcoders.cli, transcoders.plan
gc.freeze()  # or each process would go through all that was imported when it ends
for name in sys.argv[2:]:
    if os.fork() == 0:
        for number, kind in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{name}.{kind}", os.O_WRONLY | os.O_CREAT), number)
        sys.argv = ["transcoders", *sys.argv[1].split(), "--scale", name]
        sys.exit(runpy.run_module("transcoders", run_name="__main__", alter_sys=True) and 0)
    with open(f"{name}.status", "w") as status:
        status.write(str(os.waitstatus_to_exitcode(os.wait()[1])))
"""
PLAN = "plan --tflops 1 --gpu-memory 80 --memory 128"


def in_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def test_on_the_command_line_too_nothing_else_happens(tmp_path: Path) -> None:
    """Twenty edited files, and the four real ones; two of them once more in processes of their own.

    A file that is refused costs one message and status 1, which is also that of what does not fit.
    """
    (tmp_path / "config").mkdir()
    contents = list(SCALES.values())

    @given(edited())
    @settings(max_examples=20, database=None)
    def collect(content: Any) -> None:
        contents.append(copy.deepcopy(content))

    collect()
    assert len(contents) >= 24
    loads = {}
    for number, content in enumerate(contents):
        name = f"edited{number}"
        path = write(tmp_path / "config", content).rename(tmp_path / f"config/{name}.yaml")
        try:
            load_scale(path)
            loads[name] = True
        except UserError:
            loads[name] = False
    done = in_python(tmp_path, "-c", RUN_EACH, PLAN, *loads)
    assert done.returncode == 0, done.stderr

    def check(name: str, status: int, stdout: str, stderr: str) -> None:
        assert "Traceback" not in stderr and "Error" not in stderr
        if loads[name]:
            assert status == ("DOES NOT FIT" in stdout) and "In all: " in stdout and stderr == ""
        else:
            assert status == 1 and stdout == ""
            assert stderr.startswith(f"error: config/{name}.yaml: ")
            check_refusal(
                stderr.removeprefix("error: ").removesuffix("\n"),
                Path(f"config/{name}.yaml"),
                contents[int(name.removeprefix("edited"))],
            )

    outcomes = {}
    for name in loads:
        stdout, stderr, status = (
            (tmp_path / f"{name}.{kind}").read_text() for kind in ("stdout", "stderr", "status")
        )
        check(name, int(status), stdout, stderr)
        outcomes[name] = int(status), stdout, stderr
    for wanted in (True, False):
        name = next(name for name, does in loads.items() if does == wanted)
        alone = in_python(tmp_path, "-m", "transcoders", *PLAN.split(), "--scale", name)
        assert (alone.returncode, alone.stdout, alone.stderr) == outcomes[name]


NINE = "[" + ", ".join(["x"] * 9) + "]"
LISTS_OF_LISTS = f"&b0 {NINE}\n" + "".join(
    f"x{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]\n" for n in range(1, 12)
)
"""Lists of nine lists of nine lists and so on: a kilobyte that stands for 280 billion entries."""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0x" + "f" * 5000, "seed: expected less than .* found an integer of 20000 bits"),
        (":".join(["1"] * 9000), "seed: expected less than .* found an integer of "),
        ('"\\uD800"', "seed: expected a valid integer"),
        ('42\n"\\uD800": 1', r"'\\ud800': expected a valid string"),
        ("&a [*a]", r"seed: expected a valid integer, found \[\[\[\[\.\.\.\]\]\]\]"),
        ("&a {<<: *a}", "seed: expected a valid integer"),
        ("!!set {a, b}", "seed: expected a valid integer"),
        ("x" * 10**5, "seed: expected a valid integer, found 'x+\\.\\.\\.x+'"),
        (f"42\nx: {LISTS_OF_LISTS}y: *b11", "y: no such key"),
        (f"{LISTS_OF_LISTS}y: *b11", "seed: expected a valid integer"),
        (f"42\nx: {LISTS_OF_LISTS}sites: *b11", "the key 'sites' stands there twice"),
        (f"42\n{'a' * 1000}: 1", "'a+\\.\\.\\.a+': no such key"),
        ('42\n"a\\nb\\e": 1', r"  a\\nb\\x1b: no such key"),
        ('42\n"": 1', "'': no such key"),
        (f"42\n? 0x{'f' * 5000}\n: 1", "expected strings, found an integer of 20000 bits"),
        ("!!int ''", "found IndexError"),
        ("!!float x", "found ValueError"),
        ("!!bool x", "found KeyError"),
        ("!!timestamp x", "found AttributeError"),
        (":".join(["1"] * 300) + ".5", "found OverflowError"),
        ("2001-01-01 00:00:00 +99:99", "found ValueError"),
        ("[" * 3000 + "]" * 3000, "found RecursionError"),
    ],
    ids=range(22),
)
def test_values_that_only_yaml_can_write_are_refused_in_few_words(
    tmp_path: Path, value: str, expected: str
) -> None:
    smoke = (ROOT / "config/smoke.yaml").read_text()
    path = write(tmp_path, smoke.replace("seed: 42", f"seed: {value}"))
    with pytest.raises(UserError, match=expected) as caught:
        load_scale(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert len(str(caught.value)) < 40_000


@pytest.mark.parametrize(
    "word", ["-r/x", "--index-url=http://x", "a @ http://x/y.zip", "a b", "", "a;b"]
)
@pytest.mark.parametrize("key", ["package", "version"])
def test_what_pip_is_asked_for_is_a_package_and_no_option(
    tmp_path: Path, key: str, word: str
) -> None:
    content = copy.deepcopy(SCALES["laptop"])
    content["models"]["smollm2-135m"]["source"][key] = word
    with pytest.raises(UserError, match=f"source.wheel.{key}: expected a string to match pattern"):
        load_scale(write(tmp_path, content))
