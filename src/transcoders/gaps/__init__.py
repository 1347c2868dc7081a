"""Why transcoders lose or win at equal L0: the gap by amount of data, and under controls."""

from transcoders.gaps.by_tokens import gap_by_tokens as gap_by_tokens
from transcoders.gaps.pairs import Pairs as Pairs
from transcoders.gaps.why import why as why
