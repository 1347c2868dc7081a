"""What may be asked in a blind study, whoever answers."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import networkx as nx
import pandas as pd

from transcoders.case_studies.study_server import EXAMPLE_COLUMNS
from transcoders.case_studies.transcript import REVEALED
from transcoders.circuits.export import paths_of_record
from transcoders.circuits.graph import build_graph
from transcoders.circuits.paths import ComputationalPath, strongest
from transcoders.errors import UserError


class RefusedError(UserError):
    """A question that a blind study does not answer, or not in this form."""


class BlindCircuit(NamedTuple):
    """Why a feature is active at a place, in numbers."""

    paths: list[ComputationalPath]
    graph: nx.DiGraph

    def table(self, n: int = 15) -> str:
        """The strongest paths, a line each: attribution and nodes from the target back."""
        return "\n".join(f"{path.attribution:+9.3f}  {path}" for path in strongest(self.paths, n))


class Revealed(NamedTuple):
    """What is written where a feature is active."""

    examples: pd.DataFrame
    """:data:`EXAMPLE_COLUMNS`, and ``text`` with the peak in ⟦ ⟧."""
    seal: str
    """Digest of the whole transcript, to be noted elsewhere."""


class Questions(ABC):
    """The questions that there are. Each may raise :class:`RefusedError`."""

    __slots__ = ()

    @abstractmethod
    def ask(self, question: str, /, **arguments: Any) -> Any:
        """Put any question; the methods below put those that there are.

        Raises:
            RefusedError: it is not answered, which the transcript records too.
        """

    @property
    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Sizes of text and model; how often and how strongly the feature is active."""

    def examples(self) -> pd.DataFrame:
        """Where the feature is most active, and a fair sample: :data:`EXAMPLE_COLUMNS`."""
        return pd.DataFrame(self.ask("examples"), columns=EXAMPLE_COLUMNS)

    def activations(self, row: int, **arguments: Any) -> pd.Series:
        """Of a feature on a row, by position; see :meth:`StudyServer.activations`."""
        found = self.ask("activations", row=row, **arguments)
        values, positions = [v for _, v in found], [p for p, _ in found]
        return pd.Series(values, index=positions, name="activation", dtype=float)

    def circuit(self, row: int, position: int, **arguments: Any) -> BlindCircuit:
        """Of a feature at a place, by Algorithms 1 and 2; see :meth:`StudyServer.circuit`."""
        paths = paths_of_record(self.ask("circuit", row=row, position=position, **arguments))
        return BlindCircuit(paths, build_graph(paths))

    def pull_back(self, vector: str, through: str) -> str:
        """Name of what a head or an earlier feature reads to move a feature vector."""
        return str(self.ask("pull_back", vector=vector, through=through))

    def de_embedding(self, vector: str, **arguments: Any) -> pd.DataFrame:
        """Rows ``token, value``; see :meth:`StudyServer.de_embedding`."""
        found = self.ask("de_embedding", vector=vector, **arguments)
        return pd.DataFrame(found, columns=["token", "value"])

    def direct_logits(self, feature: str, **arguments: Any) -> pd.DataFrame:
        """Rows ``token, value``; see :meth:`StudyServer.direct_logits`."""
        found = self.ask("direct_logits", feature=feature, **arguments)
        return pd.DataFrame(found, columns=["token", "value"])

    def connections(self, vector: str, layer: int, **arguments: Any) -> pd.DataFrame:
        """Rows ``feature, value``; see :meth:`StudyServer.connections`."""
        found = self.ask("connections", vector=vector, layer=layer, **arguments)
        return pd.DataFrame(found, columns=["feature", "value"])

    def reveal(self, hypothesis: str, **arguments: Any) -> Revealed:
        """Put down a hypothesis, end the blind study, and see; see :meth:`StudyServer.reveal`."""
        found = self.ask(REVEALED, hypothesis=hypothesis, **arguments)
        columns = [*EXAMPLE_COLUMNS, "text"]
        return Revealed(pd.DataFrame(found["examples"], columns=columns), found["seal"])
