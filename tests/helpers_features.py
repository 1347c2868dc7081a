"""Features as they are gathered on a text, and their pages in the browser."""

import torch

from transcoders.corpus import Rows
from transcoders.interpretability.browser import write_browser_page
from transcoders.interpretability.browser_data import Examples, look_again
from transcoders.interpretability.gather import Subject, gather, load_observed, load_text


def subjects(model, rows, placed, settings, folder, *, seed=0):
    """What is gathered of dictionaries at their sites: each of them by name, and the text."""
    text = Rows(rows, torch.zeros(len(rows), dtype=torch.int32))
    gather(model, text, placed, settings, folder, first_position=1, seed=seed)
    found = {name: Subject(name, *at, load_observed(folder, name)) for name, at in placed.items()}
    return found, load_text(folder)


def browser_page(circuit, subject, text, tokenizer, folder, features, /, **words):
    """Write the page of some features of a dictionary."""
    examples = Examples(subject, features)
    look_again(circuit, [examples], text.rows)
    return write_browser_page(circuit, examples, text.rows, tokenizer, folder, **words)
