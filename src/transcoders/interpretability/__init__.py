"""What features are about, from where in a text they are active.

- ``examples``: best examples and a fair sample of every feature, in one pass with bounded memory;
- ``gather``: that pass, over held-out text, for all dictionaries at once;
- ``automatic``: measures that no human takes.
"""
