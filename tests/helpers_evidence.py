"""Controls of a circuit with known numbers, for the figures and sentences made from them."""

import pandas as pd


def controls_of(circuit, draws, everything=4.0):
    """``controls.csv``, alike for both measures: the strongest parts make 1, and random sets at the
    same tokens half of what other random sets do."""
    sets = {"everything": [everything], "circuit": [circuit], "strongest": [1.0],
            "random": draws, "random at tokens": [draw / 2 for draw in draws]}  # fmt: skip
    rows = [
        (measure, name, draw, effect)
        for measure in ("necessity", "sufficiency")
        for name, effects in sets.items()
        for draw, effect in enumerate(effects)
    ]
    return pd.DataFrame(rows, columns=["measure", "set", "draw", "effect"])
