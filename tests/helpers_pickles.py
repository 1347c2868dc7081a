"""Released files written opcode by opcode, so that they can hold what no pickler would write."""

import io
import pickle
import pickletools
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from helpers_hub import released_file, released_tensors

WHOLE = released_file(released_tensors())
OLDER = released_file(released_tensors(), _use_new_zipfile_serialization=False)
"""The same in the format before zip files: five pickles, then the storages."""
SIZES = {"W_enc": (32, 64), "b_enc": (64,), "W_dec": (64, 32), "b_dec": (32,), "b_dec_out": (32,)}


def text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return pickle.BINUNICODE + struct.pack("<I", len(encoded)) + encoded


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return pickle.BININT + struct.pack("<i", value)
    length = value.bit_length() // 8 + 1
    return pickle.LONG1 + bytes([length]) + value.to_bytes(length, "little", signed=True)


def name(module: str, of: str) -> bytes:
    """A class or function by its name."""
    return pickle.GLOBAL + f"{module}\n{of}\n".encode()


def group(*items: bytes) -> bytes:
    """A tuple."""
    return pickle.MARK + b"".join(items) + pickle.TUPLE


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + group(*arguments) + pickle.REDUCE


def mapping(items: dict[bytes, bytes]) -> bytes:
    pairs = b"".join(key + value for key, value in items.items())
    return pickle.EMPTY_DICT + pickle.MARK + pairs + pickle.SETITEMS


def fields(**values: bytes) -> bytes:
    return mapping({text(key): value for key, value in values.items()})


TRUE, FALSE, NONE = pickle.NEWTRUE, pickle.NEWFALSE, pickle.NONE
CONFIGURATION = (
    name("sae_training.config", "LanguageModelSAERunnerConfig") + pickle.EMPTY_TUPLE + pickle.NEWOBJ
)
NO_HOOKS = call(name("collections", "OrderedDict"))


def with_state(instance: bytes, state: bytes) -> bytes:
    return instance + state + pickle.BUILD


def storage(key: str, length: int, kind: str = "torch\nFloatStorage") -> bytes:
    identity = group(
        text("storage"), name(*kind.split("\n")), text(key), text("cpu"), number(length)
    )
    return identity + pickle.BINPERSID


def rebuilt(key: str, length: int, size: Any, stride: Any, **more: Any) -> tuple[bytes, ...]:
    """The arguments of ``_rebuild_tensor_v2``."""
    return (
        storage(key, length, more.get("kind", "torch\nFloatStorage")),
        number(more.get("offset", 0)),
        group(*map(number, size)),
        group(*map(number, stride)),
        FALSE,
        NO_HOOKS,
    )


def tensor(key: str, length: int, size: Any, stride: Any, **more: Any) -> bytes:
    return call(
        name("torch._utils", "_rebuild_tensor_v2"), *rebuilt(key, length, size, stride, **more)
    )


def state_dict(**other: bytes) -> bytes:
    """The five tensors, some of which are something else."""
    tensors = {}
    for place, (key, size) in enumerate(SIZES.items()):
        stride = (size[1], 1) if len(size) == 2 else (1,)
        length = size[0] * (size[1] if len(size) == 2 else 1)
        tensors[key] = tensor(str(place), length, size, stride)
    return fields(**tensors | other)


def pickled(cfg: bytes = CONFIGURATION, state: bytes | None = None, **more: bytes) -> bytes:
    """The pickle of a released file."""
    content = fields(cfg=cfg, state_dict=state_dict() if state is None else state, **more)
    return pickle.PROTO + b"\x02" + content + pickle.STOP


def members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return {info.filename: source.read(info) for info in source.infolist()}


def packed(files: dict[str, bytes] | list[tuple[str, bytes]]) -> bytes:
    """An archive whose checksums are right, whatever is in it."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, content in files.items() if isinstance(files, dict) else files:
            archive.writestr(path, content)
    return stream.getvalue()


def archived(pickled: bytes, **storages: bytes) -> bytes:
    """A released file with another pickle, and other storages: ``data_0`` and so on."""
    other = {f"archive/{key.replace('_', '/')}": value for key, value in storages.items()}
    return packed(members(WHOLE) | {"archive/data.pkl": pickled} | other)


def older(pickled: bytes) -> bytes:
    """The same in the older format, where a storage may be a view of another one, or None."""
    of_storages = pickle.TUPLE + pickle.BINPERSID
    pickled = pickled.replace(of_storages, NONE + of_storages)
    tensors = released_tensors().values()
    keys = b"".join(text(str(place)) for place in range(len(tensors)))
    raw = (struct.pack("<q", each.numel()) + each.numpy().tobytes() for each in tensors)
    listed = pickle.PROTO + b"\x02" + pickle.EMPTY_LIST + pickle.MARK + keys + pickle.APPENDS
    return OLDER[: pickle_starts(OLDER)[3]] + pickled + listed + pickle.STOP + b"".join(raw)


def pickle_starts(content: bytes, n: int = 5) -> list[int]:
    """Where the pickles of a file in the older format begin, and where the storages do."""
    stream, starts = io.BytesIO(content), [0]
    for _ in range(n):
        for _ in pickletools.genops(stream):
            pass
        starts.append(stream.tell())
    return starts


# Mutations of a file's bytes.


def flip(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def cut(content: bytes, chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content))]


def splice(content: bytes, chance: random.Random) -> bytes:
    """A part of the file goes to another place, once or over what is there."""
    start, place = (chance.randrange(len(content)) for _ in range(2))
    part = content[start : start + chance.choice([1, 4, 40, 4000])]
    after = place if chance.random() < 0.5 else place + len(part)
    return content[:place] + part + content[after:]


def noise(content: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(content))
    return content[:place] + chance.randbytes(chance.choice([1, 3, 16])) + content[place:]


# Mutations of a pickle.

OPERATIONS = [
    *(bytes([code]) for code in b"0123(}])l.tuasebR\x81Q\x85\x86\x87\x88\x89N\x8f\x90\x91\x94o"),
    name("posix", "system"), name("builtins", "eval"), name("torch", "FloatStorage"), CONFIGURATION,
    name("torch._utils", "_rebuild_tensor_v2"), name("builtins", "bytearray"), NO_HOOKS,
    text("W_enc"), text("cfg"), text("\ud800"), number(-1), number(0), number(7), number(2**62),
    b"h\x00", b"h\x05", b"q\x00", b"j\xff\xff\xff\x7f", b"r\xff\xff\xff\x7f", b"P1\n", b"\x93",
    b"\x82\x01", b"X\xff\xff\xff\xff", b"\x8a\xff", b"\x95" + b"\xff" * 8, b"iposix\nsystem\n",
    b"\x80\x05",
]  # fmt: skip


def boundaries(content: bytes) -> list[int]:
    """Where a pickle's opcodes begin, its protocol left out."""
    return [place for _, _, place in pickletools.genops(content) if place][1:]


def insert(content: bytes, chance: random.Random) -> bytes:
    """Up to three opcodes, each with what it needs, at one place or at several."""
    for place in sorted(chance.sample(boundaries(content), chance.choice([1, 1, 2, 3])))[::-1]:
        content = content[:place] + chance.choice(OPERATIONS) + content[place:]
    return content


def drop(content: bytes, chance: random.Random) -> bytes:
    places = [*boundaries(content), len(content)]
    first = chance.randrange(len(places) - 1)
    last = min(first + chance.choice([1, 1, 2, 6]), len(places) - 1)
    return content[: places[first]] + content[places[last] :]


def resize(content: bytes, chance: random.Random) -> bytes:
    """Another number in place of one: of a storage's length, of a size, a stride, an offset."""
    found = [
        (place, length)
        for place, length in zip(
            boundaries(content), [*boundaries(content)[1:], len(content)], strict=True
        )
        if content[place : place + 1] in (pickle.BININT, pickle.BININT1, pickle.BININT2)
    ]
    sizes = [-1, 0, 1, 31, 33, 63, 65, 2047, 2049, 2**20, 2**31 - 1, 2**33, 2**40, 2**62, -(2**63)]
    for place, end in chance.sample(found, chance.choice([1, 1, 2]))[:1]:
        content = content[:place] + number(chance.choice(sizes)) + content[end:]
    return content


ANYWHERE = (flip, cut, splice, noise)
IN_PICKLES = (flip, cut, splice, noise, insert, drop, resize)


# Mutations of an archive, whose checksums stay right.


def swap(files: dict[str, bytes], chance: random.Random) -> list[tuple[str, bytes]]:
    """Two members exchange their contents or names."""
    items = list(files.items())
    one, other = chance.sample(range(len(items)), 2)
    (path, content), (path_2, content_2) = items[one], items[other]
    items[one], items[other] = (path_2, content), (path, content_2)
    return items


def climb(files: dict[str, bytes], chance: random.Random) -> list[tuple[str, bytes]]:
    """A member leads elsewhere, in place of another one or besides."""
    away = [
        "../{}",
        "../../../../tmp/{}",
        "/tmp/{}",
        "archive/../{}",
        "archive/data/../../{}",
        "..\\{}",
    ]
    items = list(files.items())
    place = chance.randrange(len(items))
    path = chance.choice(away).format(items[place][0])
    items[place : place + chance.randrange(2)] = [(path, items[place][1])]
    return items


def lose_or_repeat(files: dict[str, bytes], chance: random.Random) -> list[tuple[str, bytes]]:
    items = list(files.items())
    place = chance.randrange(len(items))
    items[place : place + 1] = [items[place]] * chance.choice([0, 2])
    return items


def damage(files: dict[str, bytes], chance: random.Random) -> list[tuple[str, bytes]]:
    """A member has other contents: a storage, or what says how to read them."""
    path = chance.choice([path for path in files if not path.endswith("data.pkl")])
    content = files[path]
    other = [b"", b"big", b"9999999999999999999", b"\xff" * len(content), content[:-1], content * 2]
    return list((files | {path: chance.choice([*other, chance.randbytes(len(content))])}).items())


IN_ARCHIVES = (swap, climb, lose_or_repeat, damage)
Mutated = dict[str, bytes]


def mutated(per_kind: int) -> Mutated:
    """Files that were changed at random, by what was done to them; the same ones every time."""
    found: Mutated = {}

    def add(kind: str, make: Callable[[random.Random], bytes]) -> None:
        for seed in range(per_kind):
            found[f"{kind}_{seed}"] = make(random.Random(f"{kind} {seed}"))

    files, starts = members(WHOLE), pickle_starts(OLDER)
    inner = files["archive/data.pkl"]
    for change in ANYWHERE:
        add(f"zip_{change.__name__}", lambda chance, change=change: change(WHOLE, chance))
        add(f"older_{change.__name__}", lambda chance, change=change: change(OLDER, chance))
    for change in IN_PICKLES:
        add(
            f"zip_pickle_{change.__name__}",
            lambda chance, change=change: archived(change(inner, chance)),
        )

        def in_older(chance: random.Random, change: Any = change) -> bytes:
            place = chance.choice([0, 2, 3, 3, 3, 4])
            first, last = starts[place], starts[place + 1]
            if change in (drop, insert, resize) and place != 3:
                place, first, last = 3, starts[3], starts[4]
            return OLDER[:first] + change(OLDER[first:last], chance) + OLDER[last:]

        add(f"older_pickle_{change.__name__}", in_older)
    for change in IN_ARCHIVES:
        add(
            f"zip_archive_{change.__name__}",
            lambda chance, change=change: packed(change(files, chance)),
        )
    return found
