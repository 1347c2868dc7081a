"""Blind studies: what weights say of a feature, before anyone looks at where it is active.

- ``predictions``: which tokens should make a feature active, from weights alone;
- ``systematic``: the same of many features, scored on their examples;
- ``harness``: one feature studied by a person who sees no token until a hypothesis is written down;
- ``study_server``: the process that keeps the tokens meanwhile;
- ``questions``: what may be asked of it;
- ``scripts``: studies written down, done again, scored (Table 4), and ``page``: to be read.
"""
