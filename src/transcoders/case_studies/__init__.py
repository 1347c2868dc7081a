"""Blind studies: what a feature is about, told before anyone looks at where it is active.

From a command to Table 4, in the order in which to read:

- ``harness``: what an analyst can ask, and a study that answers;
- ``answers``: how each answer is computed;
- ``transcript``: the record of every question, sealed by the hypothesis;
- ``scripts``, ``draft.yaml.j2``: studies written down, carried out again and scored;
- ``page.py``, ``page.md.j2``: such a study as a notebook.
"""
