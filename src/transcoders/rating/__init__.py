"""Blind ratings of a transcoder's features and an SAE's (Section 4, Table 1).

Features of two dictionaries are shuffled together. From examples alone, a person says of each
whether it can be interpreted:

- ``study``: what the rater sees, in which order, and the sealed key;
- ``records``: what a rater said, one file each;
- ``server``: a local page on which to rate;
- ``table1``: counts, intervals, tests and agreement, once a rater has finished.
"""
