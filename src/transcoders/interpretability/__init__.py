"""What features are about, judged by where in a text they are active.

- ``examples``: the best examples and a random sample for every feature, with bounded memory;
- ``gather``: one pass over held-out text that collects them for all dictionaries at once;
- ``automatic``: measures that need no person;
- ``matching``: two dictionaries compared by such a measure, among features that are alike;
- ``predictions``: which tokens should make a feature active, from weights alone;
- ``systematic``: such predictions for many features, scored on their examples;
- ``activity``: where chosen features, of circuits at every layer, are active on held-out text;
- ``grammar`` and ``labelling``: names of features, and how well each predicts its feature;
- ``browser`` and ``browser_data``: all features of a dictionary on one page, with search.
"""
