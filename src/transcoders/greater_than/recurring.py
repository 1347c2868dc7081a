"""Which features and heads recur in the circuits of all prompts.

Algorithm 1 explains the logit difference of every prompt. A feature or head **recurs** as often as
it is on a path of a prompt's circuit. Its attribution is the sum over the paths that end there,
averaged over prompts. A feature lies at a token, a head reads one: the year's (its tens digit), the
last, or another.
"""

from collections import defaultdict
from typing import Any

import pandas as pd

from transcoders.circuits.notation import Node
from transcoders.circuits.paths import ComputationalPath, Search, find_paths, strongest
from transcoders.circuits.replacement import LocalReplacementModel
from transcoders.circuits.vectors import Target
from transcoders.greater_than.task import Prompts

COMPONENTS = ("feature", "head", "embed")
EXAMPLE_YEARS = (20, 35, 60)
"""Whose strongest paths are kept."""
PATHS_SHOWN = 10


class Recurring:
    """Counts over prompts, one at a time."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.n_prompts = 0
        self._prompts: dict[tuple[str, str], int] = defaultdict(int)
        self._attributions: dict[tuple[str, str], float] = defaultdict(float)
        self._examples: list[dict[str, Any]] = []

    def add(
        self, local: LocalReplacementModel, prompts: Prompts, year: int, target: Target
    ) -> None:
        """Find the paths of one prompt and count who is on them."""
        paths = find_paths(local, target, self.search)
        here: set[tuple[str, str]] = set()
        for path in paths[1:]:
            if path.node.kind in ("feature", "head"):
                part = _part(path.node, prompts)
                here.add(part)
                self._attributions[part] += path.attribution
        for part in here:
            self._prompts[part] += 1
        self.n_prompts += 1
        if year in EXAMPLE_YEARS:
            self._keep(paths, prompts, year)

    def _keep(self, paths: list[ComputationalPath], prompts: Prompts, year: int) -> None:
        for rank, path in enumerate(strongest(paths, PATHS_SHOWN), start=1):
            self._examples.append(
                {
                    "template": prompts.template + 1, "year": year, "rank": rank,
                    "attribution": path.attribution, "path": str(path),
                }
            )  # fmt: skip

    def table(self) -> pd.DataFrame:
        """Rows ``part, token, prompts, share, attribution``, those of most prompts first."""
        rows = [
            {
                "part": part,
                "token": token,
                "prompts": count,
                "share": count / self.n_prompts,
                "attribution": self._attributions[part, token] / self.n_prompts,
            }
            for (part, token), count in self._prompts.items()
        ]
        table = pd.DataFrame(rows, columns=["part", "token", "prompts", "share", "attribution"])
        return table.sort_values(
            ["prompts", "attribution"], ascending=False, kind="stable", ignore_index=True
        )

    def examples(self) -> pd.DataFrame:
        """Rows ``template, year, rank, attribution, path`` of a few prompts."""
        return pd.DataFrame(self._examples)


def _part(node: Node, prompts: Prompts) -> tuple[str, str]:
    """Name of a feature or head whatever the prompt, and which token it lies at or reads."""
    token = node.source if node.kind == "head" else node.token
    name = str(node).split("@")[0]
    if token == prompts.year_token:
        return name, "year"
    return name, "last" if token == prompts.rows.shape[1] - 1 else "other"
