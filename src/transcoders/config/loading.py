"""From a scale file to a :class:`Scale`, or to a sentence that names what is wrong in it."""

import difflib
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from transcoders.config.scale import Scale
from transcoders.errors import UserError
from transcoders.files import read_yaml
from transcoders.short_repr import short_repr

CLAIMS = "claims.yaml"
"""This file in the folder of scales is not a scale."""


def load_scale(path: Path) -> Scale:
    """Read and check a scale file. The scale takes its name from the file.

    Raises:
        UserError: the file is missing, is not YAML, or a key is missing, misspelt, of the wrong
            type or out of range. The message names the file and the keys at fault.
    """
    try:
        content = read_yaml(path)
    except FileNotFoundError:
        known = sorted(p.stem for p in path.parent.glob("*.yaml") if p.name != CLAIMS)
        raise UserError(
            f"{path}: no such scale file; the scales here are {', '.join(known) or 'none'}"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of keys, found {type(content).__name__}")
    if "name" in content:
        raise UserError(f"{path}: name: no such key; a scale is named by its file, {path.stem}")
    try:
        return Scale.model_validate({**content, "name": path.stem})
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(problem)}" for problem in error.errors())
        raise UserError(f"{path}: the scale file is not valid\n{problems}") from None


def _explain(problem: Any) -> str:
    """One sentence for one of pydantic's errors: the key, what was expected, what was found."""
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{key}: this key is missing; config/README.md says what it means"
    if problem["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(problem["loc"][-1]), _all_keys(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "config/README.md lists the keys"
        return f"{key}: no such key; {hint}"
    message = re.sub(r"^(Value error, |(Input|Keys) should be )", "", problem["msg"])
    message = re.sub(r"^(\w+) should ", lambda match: f"a {match[1].lower()} to ", message)
    if problem["type"] in ("value_error", "union_tag_not_found", "union_tag_invalid"):
        return f"{key}: {message}" if key else message
    return f"{key}: expected {message}, found {short_repr(problem['input'])}"


def _all_keys() -> list[str]:
    schema = Scale.model_json_schema()
    parts = [schema, *schema["$defs"].values()]
    return sorted({key for part in parts for key in part.get("properties", {})})
