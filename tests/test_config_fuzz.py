"""Scale files that were edited at random: a file has a plan, or it is refused by key."""

import copy
import json
import math
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from transcoders.config import Scale, load_scale
from transcoders.errors import UserError
from transcoders.plan import describe, make_plan

CONFIG = Path(__file__).resolve().parents[1] / "config"
SCHEMA = Scale.model_json_schema()
KEYS = sorted({key for part in SCHEMA["$defs"].values() for key in part["properties"]})
TEXTS = [
    "", "../../x", "a: b", "&a", "!!python/object:os.system", "\u202e", "\0", "4e-3", "1e999",
    "nan", "2024-13-45", "hub", "transcoder", "topk_sae", "{layer}", "tc1[top]", "a" * 1000,
    "gpt2-small", "tiny-llama", "stream",
]  # fmt: skip
NUMBERS = [0, 1, -1, 8, 10**4, 2**40, 2**63, 10**330, 0.25, -0.5, 1e-320, 1e308, math.inf, math.nan]
SCALARS = st.none() | st.booleans() | st.sampled_from(NUMBERS) | st.sampled_from(TEXTS) | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=5,
)


def places(part):
    """Every mapping or list within a scale, with each of its keys."""
    if isinstance(part, dict | list):
        for key in part if isinstance(part, dict) else range(len(part)):
            yield part, key
            yield from places(part[key])


@st.composite
def edited(draw, name):
    """A real scale with one to three edits."""
    # Through JSON, since parts that share an alias of YAML are one object.
    scale = json.loads(json.dumps(yaml.safe_load((CONFIG / f"{name}.yaml").read_text())))
    for _ in range(draw(st.integers(1, 3))):
        # The top level is drawn first. Otherwise long lists would get nearly every edit.
        top = draw(st.sampled_from(list(scale) or [None]))
        parent, key = draw(st.sampled_from([(scale, top), *places(scale.get(top))]))
        kind = draw(st.sampled_from(["set", "delete", "rename", "repeat", "swap"]))
        value = parent.pop(key)
        if kind == "set":
            value = draw(VALUES)
        elif kind == "swap" and (others := list(places(scale))):
            other, place = draw(st.sampled_from(others))
            value, other[place] = copy.deepcopy(other[place]), value
        elif kind == "rename":
            key = draw(st.sampled_from([*KEYS, f"{key}s"]))
        if isinstance(parent, dict):
            parent |= {} if kind == "delete" else {key: value}
        else:
            place = key if isinstance(key, int) else 0
            parent[place:place] = [copy.deepcopy(value)] * {"delete": 0, "repeat": 2}.get(kind, 1)
    return scale


def check_plan(scale):
    works = make_plan(scale)
    for work in works:
        assert all(0 <= n < math.inf for n in (work.jobs, work.disk, work.download, work.flops))
    assert works and not re.search(r"\b(nan|inf)\b", describe(scale, works, 1e12, "as given"))


@pytest.mark.parametrize("name", ["laptop", "published", "smoke"])
def test_an_edited_scale_has_a_plan_or_is_refused_by_key(name, tmp_path):
    path = tmp_path / "edited.yaml"
    loaded = []

    @given(edited(name))
    @settings(max_examples=70, database=None, phases=[Phase.generate])  # shrinking takes minutes
    def check(content):
        path.write_text(yaml.dump(content, Dumper=yaml.CSafeDumper), encoding="utf-8")
        try:
            check_plan(load_scale(path))
            loaded.append(True)
        except UserError as error:
            loaded.append(False)
            first, *lines = str(error).split("\n")
            assert first == f"{path}: the scale file is not valid"
            assert all(re.match(r"  [\w,./\-\[\] ]+: .", line) for line in lines), lines

    check()
    assert 0 < sum(loaded) < len(loaded)
