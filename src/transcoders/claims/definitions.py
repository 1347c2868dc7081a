"""The list of claims in ``config/claims.yaml``, typed and checked."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from transcoders.config.fields import Section
from transcoders.errors import UserError
from transcoders.files import read_yaml


class Claim(Section):
    """What the paper says, and how it is decided here."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    section: str
    """Of the paper."""
    statement: str
    """In our words."""
    measure: str
    """A function of :mod:`transcoders.claims.measures`."""
    unit: str
    """What the measure's value is."""
    paper: str
    """What the paper reports."""
    better_than: float | None = None
    """The claim says that the value is beyond this. Exactly one of this and the next is given."""
    no_worse_than: float | None = None
    """The claim says that the value is not short of this."""
    smaller_is_better: bool = False
    """Whether beyond means below."""
    each_site: bool = False
    """Whether the claim is judged at every site by itself."""
    tables: Annotated[list[str], Field(min_length=1)]
    """That the measure reads, in ``results/<scale>/``."""
    page: str
    """The notebook that shows it."""

    @model_validator(mode="after")
    def _one_threshold(self) -> "Claim":
        if (self.better_than is None) == (self.no_worse_than is None):
            raise ValueError(f"{self.id}: expected either better_than or no_worse_than")
        return self


def load_claims(path: Path) -> list[Claim]:
    """Read the list.

    Raises:
        UserError: the file is missing, is not YAML, or a claim is incomplete or listed twice.
    """
    try:
        claims = TypeAdapter(list[Claim]).validate_python(read_yaml(path))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; it lists the claims that are judged") from None
    except ValidationError as error:
        problems = "\n".join(
            f"  {'.'.join(map(str, problem['loc']))}: {problem['msg']}, found {problem['input']!r}"
            for problem in error.errors()
        )
        raise UserError(f"{path}: the list of claims is not valid\n{problems}") from None
    ids = [claim.id for claim in claims]
    for id in ids:
        if ids.count(id) > 1:
            raise UserError(f"{path}: {id} is listed {ids.count(id)} times, expected once")
    return claims
