"""Blind ratings of a transcoder's features and an SAE's (Section 4, Table 1).

Features of two dictionaries are shuffled together, and a person says of each, from examples alone,
whether it can be interpreted:

- ``study``: what is shown and in which order, and the sealed key;
- ``records``: what a rater said, one file each;
- ``server``: a local page on which to rate;
- ``table1``: counts, intervals, tests and agreement, once a rater has finished.
"""

from transcoders.rating.records import Rating, Record
from transcoders.rating.study import (
    RATED_KINDS,
    Example,
    Item,
    RatedDictionary,
    Study,
    create_study,
)

__all__ = [
    "RATED_KINDS",
    "Example",
    "Item",
    "RatedDictionary",
    "Rating",
    "Record",
    "Study",
    "create_study",
]
