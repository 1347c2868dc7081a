"""What the sections of a scale file are made of: their base class, and types of keys."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from transcoders.short_repr import short_repr

LIMIT = 2**63
"""Of what is counted: what is reckoned from such numbers stays within a float."""


def _number(value: Any) -> Any:
    # YAML 1.1 reads `4e-3` (no dot) as a string; everyone who writes it means a number.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _countable(value: int) -> int:
    if value >= LIMIT:
        raise ValueError(f"expected a number below 2^63, found {short_repr(value)}")
    return value


def _fit_for_pip(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+!-]*", value):
        raise ValueError(f"expected letters, digits and . _ - + ! only, found {short_repr(value)}")
    return value


Countable = AfterValidator(_countable)
PositiveInt = Annotated[int, Field(gt=0), Countable]
NonNegativeInt = Annotated[int, Field(ge=0), Countable]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False), BeforeValidator(_number)]
Fraction = Annotated[float, Field(ge=0, lt=1), BeforeValidator(_number)]
Share = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
PackageWord = Annotated[str, AfterValidator(_fit_for_pip)]
"""A package's name or version, which pip could take for an option or an address otherwise."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
GitRevision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Section(BaseModel):
    """A part of a scale file: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
