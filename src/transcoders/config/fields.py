"""What the sections of a scale file are made of: their base class, and types of keys."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

LIMIT = 2**63
"""Counts stay below this, so that a float can hold whatever is computed from them."""


def _number(value: Any) -> Any:
    # YAML 1.1 reads `4e-3` (no dot) as a string; everyone who writes it means a number.
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


Number = BeforeValidator(_number)
PositiveInt = Annotated[int, Field(gt=0, lt=LIMIT)]
NonNegativeInt = Annotated[int, Field(ge=0, lt=LIMIT)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False), Number]
Fraction = Annotated[float, Field(ge=0, lt=1), Number]
Share = Annotated[float, Field(ge=0, le=1), Number]
PackageWord = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+!-]*$")]
"""A package's name or version. Pip could take other words for options or addresses."""
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.-]*$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
GitRevision = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]


class Section(BaseModel):
    """A part of a scale file: immutable, no unknown keys, no silent conversion of types."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True
    )
