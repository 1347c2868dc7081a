"""What features are about, from where in a text they are active.

- ``examples``: best examples and a fair sample of every feature, in one pass with bounded memory;
- ``gather``: that pass, over held-out text, for all dictionaries at once;
- ``automatic``: measures that no human takes;
- ``predictions``: which tokens should make a feature active, from weights alone;
- ``systematic``: such predictions for many features, scored on their examples.
"""
